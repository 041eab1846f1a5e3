"""A line of 100 MB, whatever it holds and whichever reader gets it, ends soon in rows or in one line of an error."""

import sys
from collections.abc import Iterator
from pathlib import Path

from lopsided.data.options import ReadOptions
from lopsided.data.readers import read
from lopsided.data.score_files import read_matrix
from lopsided.data.storage import UserError
from tests.campaigns.campaign import kind_of
from tests.campaigns.children import in_child
from tests.data.test_long_lines import HEADS as WHOLE
from tests.data.test_long_lines import PIECES as SHORT

SIZE = 100_000_000  # bytes
SECONDS, MEGABYTES = 10, 3000  # at most, of the processor and of memory

HEADS = WHOLE | {  # what stands before the line, by kind: the name of a file, after a word where a name has several
    "labels a.csv": b"text,labels\na,x\nb,y\nc,",
    "quoted a.csv": b'text,labels\na,x\nb,y\n"',
    "labels a.jsonl": b'{"text": "a", "labels": ["x"]}\n{"text": "b", "labels": "',
    "first a.jsonl": b"",
    "list a.json": b"[",
    "first a.txt": b"",
    "header a.svm": b"3 9 9\n" + WHOLE["a.svm"],
    "features a.svm": WHOLE["a.svm"] + b"0 1:1 ",
    "labels a.svm": WHOLE["a.svm"] + b"0,1",
    "texts a.arff": b"@relation 'x: -C 1'\n@attribute l {0,1}\n@attribute a string\n@data\n1,a\n0,",
    "sparse a.arff": b"@relation 'x: -C 1'\n@attribute l {0,1}\n@attribute a numeric\n@data\n{0 1}\n{",
    "values a.arff": b"@relation 'x: -C 1'\n@attribute l {0,1}\n@attribute a {",
    "a.xml": b"<labels>",
    "names.txt": b"",
    "scores a.csv": b"a,b\n1,0\n",
    "scores a.tsv": b"a\tb\n1\t0\n",
    "coco a.json": b'{"images": [], "annotations": [], "categories": [',
    "docred a.json": b'[{"title": "a", "sents": [["a"]], "vertexSet": [], "labels": [',
}
PIECES = (
    *SHORT,
    *(b"'", b"\r", b"\0", b"-", b"\xff", b"\xc3\xa9", b"\\u0041", b'\\"', b"1,", b"ab,", b"<a>", b"&amp;", b"0 1,"),
    *(b"{},", b'{"a":1},', b"1e5 "),
)


class Lines:
    """Reads a line of nothing but one piece, again and again: every piece by every reader."""

    name = "lines"
    kinds: tuple[str, ...] = tuple(HEADS)

    def run(self, numbers: range, seed: int, where: Path) -> Iterator[tuple[int, str | None]]:
        for number in numbers:
            yield number, trial(kind_of(self, number), PIECES[number // len(HEADS) % len(PIECES)], where)


def trial(kind: str, piece: bytes, where: Path, size: int = SIZE) -> str | None:
    path = where / kind.split()[-1]
    path.write_bytes(HEADS[kind] + piece * (size // len(piece)))
    (where / "b.arff").write_bytes(WHOLE["a.arff"])
    (where / "b.svm").write_bytes(WHOLE["a.svm"])
    ended = in_child(lambda: _read(kind, path), where)
    path.unlink()
    fault = ended.fault(SECONDS)
    if fault is None and ended.megabytes > MEGABYTES:
        fault = f"{ended.megabytes} MB"
    return None if fault is None else f"{kind}, {piece!r}: {fault}"


def _read(kind: str, path: Path) -> int:
    options = ReadOptions(absent="negative", format=kind.split()[0] if kind.split()[0] in ("coco", "docred") else None)
    try:
        if kind.startswith("scores"):
            read_matrix(path)
        elif path.name in ("a.xml", "names.txt"):
            beside = "b.arff" if path.suffix == ".xml" else "b.svm"
            read(path.with_name(beside), options.model_copy(update={"labels_file": path}))
        else:
            read(path, options)
    except UserError as error:
        print(f"lopsided: {error}", file=sys.stderr)
        return 2
    return 0
