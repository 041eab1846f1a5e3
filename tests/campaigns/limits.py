"""Where disk, file size, memory, open files or permission do not suffice a command ends in one line, then goes on."""

import ctypes
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from lopsided.__main__ import main
from lopsided.data.storage import is_temporary
from lopsided.training import loop
from tests.campaigns.campaign import copied, kind_of, randomness
from tests.campaigns.children import in_child
from tests.campaigns.kills import LINES, half_written, make_base

_LINES = LINES | {
    "preview": ["data", "preview", "digits-grid", "--out", "preview.png"],
    "make-xmc": ["data", "make-xmc", "--labels", "50", "--rows", "3000", "--test-rows", "100", "--out", "made"],
    "parquet": ["predict", "done", "more.jsonl", "--out", "out.parquet"],
}
_PRIVATE, _NEW_MOUNTS = 1 << 18 | 1 << 14, 0x20000


class Limits:
    """Runs each command under a limit of one kind, then without it."""

    name = "limits"
    kinds: tuple[str, ...] = (
        *("file size", "disk", "file size", "disk", "memory", "open files"),
        *(("permission",) if os.geteuid() == 0 else ()),
    )

    def run(self, numbers: range, seed: int, where: Path) -> Iterator[tuple[int, str | None]]:
        where.chmod(0o755)
        make_base(where / "intact")
        for number in numbers:
            random, line = randomness(seed, number), list(_LINES.values())[number % len(_LINES)]
            with copied(where / "intact", where / "copy"):
                yield number, trial(where / "copy", line, kind_of(self, number), random)


def trial(folder: Path, line: list[str], kind: str, random: Random) -> str | None:
    how, limit = _LIMITS[kind](folder, random)

    def limited() -> int:
        loop._SAVE_SECONDS = 0
        limit()
        return main(line)

    ended = in_child(limited, folder)
    left = [path.name for path in folder.rglob("*") if is_temporary(path)]
    fault = ended.fault() or (f"{left[0]} is left" if left else None) or half_written(folder)
    if fault is None and ended.code == 2 and kind in ("file size", "disk") and "/" not in ended.err.replace(": ", "/"):
        fault = f"no path: {ended.err}"
    if fault is None:
        begun = (folder / "run/config.json").exists()
        again = in_child(lambda: main([line[0], "run"] if begun else line), folder)
        fault = None if again.code == 0 and not again.fault() else f"then: {again.code} {again.err[-200:]}"
    return None if fault is None else f"{' '.join(line)}, {kind} {how}: {fault}"


def _file_size(folder: Path, random: Random) -> tuple[str, Callable[[], None]]:
    most = int(10 ** random.uniform(0, 5.3))
    return f"{most} bytes", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def _memory(folder: Path, random: Random) -> tuple[str, Callable[[], None]]:
    more = int(10 ** random.uniform(5, 8.5))

    def limit() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))

    return f"{more} bytes more", limit


def _open_files(folder: Path, random: Random) -> tuple[str, Callable[[], None]]:
    most = random.randint(5, 25)
    return f"{most}", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _disk(folder: Path, random: Random) -> tuple[str, Callable[[], None]]:
    """A disk of its own, in a child that sees it alone, on which so much is free."""
    free = int(10 ** random.uniform(3, 6))

    def limit() -> None:
        used = sum(path.stat().st_size + 4096 for path in folder.rglob("*"))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_NEW_MOUNTS) or libc.mount(b"none", b"/", None, _PRIVATE, None):
            return
        kept = folder.parent / "kept"
        shutil.copytree(folder, kept)
        if libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, f"size={used + free}".encode()):
            return
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        shutil.rmtree(kept)
        os.chdir(folder)

    return f"{free} bytes free", limit


def _permission(folder: Path, random: Random) -> tuple[str, Callable[[], None]]:
    """Another user, who may write nothing, or not read one file."""
    secret = random.choice([None, *sorted(path for path in folder.rglob("*") if path.is_file())])

    def limit() -> None:
        if secret is not None:
            secret.chmod(0)
            for path in [folder, *folder.rglob("*")]:
                if path.is_dir():
                    path.chmod(0o777)
        os.setuid(65534)

    return "of a folder" if secret is None else f"of {secret.relative_to(folder)}", limit


_LIMITS = {
    "file size": _file_size,
    "disk": _disk,
    "memory": _memory,
    "open files": _open_files,
    "permission": _permission,
}
