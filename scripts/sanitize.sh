#!/usr/bin/env bash
# The C library under AddressSanitizer and UndefinedBehaviorSanitizer, driven by its own tests. Linux, gcc.
# The library in place is set aside and put back afterwards. Leaks are not looked for: Python never frees all.
set -euo pipefail
cd "$(dirname "$0")/.."
library=src/lopsided/compute/native/_native.so
kept=$(mktemp)
cp "$library" "$kept"
trap 'cp "$kept" "$library"; rm "$kept"' EXIT
sources=$(python -c "from lopsided.compute.native.sources import digest; print(digest())")
gcc -shared -fPIC -g -O2 -std=gnu11 -fopenmp -DLOPSIDED_BASELINE -DSOURCES=$sources -fsanitize=address,undefined -fno-sanitize-recover=undefined \
    csrc/lopsided.c -o "$library" -lm
LD_PRELOAD="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 \
    python -m pytest -q -x -p no:cacheprovider tests/compute/test_native.py tests/compute/test_fast_path.py "$@"
