"""A line that is as long as a file, or a file of nothing but line ends, ends soon in rows or in one line."""

import bz2
import gzip
import json
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard

from lopsided.data.options import ReadOptions
from lopsided.data.readers import read
from lopsided.data.storage import UserError

PIECES = (
    *(
        b"a",
        b" ",
        b",",
        b'"',
        b"[",
        b"7",
        b"\t",
        b"ab ",
        b"1:1 ",
        b'"a",',
        b"'a',",
        b";",
        b"\\",
        b"{",
        b"__label__a ",
        b"\n",
    ),
)
HEADS = {
    "a.csv": b"text,labels\na,x\nb,y\n",
    "a.tsv": b"text\tlabels\na\tx\nb\ty\n",
    "a.jsonl": b'{"text": "a", "labels": ["x"]}\n',
    "a.json": b'[{"text": "a", "labels": ["x"]},\n',
    "a.train": b"__label__x a\n__label__y b\n",
    "a.svm": b"0 1:1\n1 2:1\n",
    "a.arff": b"@relation 'x: -C 1'\n@attribute l {0,1}\n@attribute a numeric\n@data\n1,2\n0,3\n",
}


def seconds(path: Path, content: bytes) -> float:
    """Reads a file, and gives the seconds of the processor."""
    path.write_bytes(content)
    begun = time.process_time()
    with suppress(UserError):
        read(path, ReadOptions(absent="negative"))
    return time.process_time() - begun


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_time_grows_no_faster_than_the_line(tmp_path: Path, name: str) -> None:
    for piece in PIECES:
        short, long = (
            seconds(tmp_path / name, HEADS[name] + piece * (size // len(piece))) for size in (250_000, 2_000_000)
        )
        assert long < 3 * 8 * short + 0.2, f"{piece!r}: {short:.3f} s, then {long:.3f} s for 8 times as much"


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("packed", [False, True])
def test_no_more_is_read_of_a_line_than_it_may_have(tmp_path: Path, name: str, packed: bool) -> None:
    content, path = HEADS[name] + b'"' + b"ab" * 10_000_000 + b"\n", tmp_path / name
    if packed:
        content, path = gzip.compress(content), tmp_path / f"{name}.gz"
    path.write_bytes(content)
    place = "record 2" if name == "a.json" else f"line {HEADS[name].count(10) + 1}"
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"{name}.*, {place}: .*longer than 0\.5 MB; .*--max-line 1$"):
        read(path, ReadOptions(absent="negative", max_line=0.5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15_000_000  # some chunks of 1 MB


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_quoted_cell_over_many_lines_is_as_long_as_a_line_at_most(tmp_path: Path, name: str) -> None:
    head = HEADS[name]
    (tmp_path / name).write_bytes(head + b'"' + b"a\n" * 400_000)
    with pytest.raises(UserError, match=rf"{name}, line 4: longer than 0\.5 MB"):
        read(tmp_path / name, ReadOptions(absent="negative", max_line=0.5))
    (tmp_path / name).write_bytes(head + b'"' + b"a\n" * 100_000 + b'"' + head[4:5] + b"x\n")
    assert len(read(tmp_path / name, ReadOptions(absent="negative", max_line=0.5))) == 3


def test_a_list_in_one_line_may_have_more_than_a_line(tmp_path: Path) -> None:
    rows = [{"text": "a" * 1000, "labels": ["x", "y"][: 1 + row % 2]} for row in range(2000)]
    for name, content in (("a.json", json.dumps(rows)), ("b.json", " " * 2000 + json.dumps(rows[:1] + rows))):
        (tmp_path / name).write_text(content)
        assert len(read(tmp_path / name, ReadOptions(absent="negative", max_line=1.1))) >= 2000


ROWS = {name: head.split(b"\n")[-2] for name, head in HEADS.items()}
ROWS |= {"instances.json": b"[", "docred.json": b'{"sents": [["a"]], "vertexSet": []}'}


@pytest.mark.parametrize("name", ROWS)
def test_a_text_unpacks_to_no_more_than_the_limit(tmp_path: Path, name: str) -> None:
    row, path = ROWS[name] + b"\n", tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(HEADS.get(name, b"") + row * (2_000_000 // len(row))))
    assert path.stat().st_size < 100_000
    form = {"instances.json": "coco", "docred.json": "docred"}.get(name)
    with pytest.raises(UserError, match=rf"{name}\.gz: unpacks to more than 0\.001 GB; .* --max-unpacked 1, or save"):
        read(path, ReadOptions(absent="negative", max_unpacked=0.001, format=form))


@pytest.mark.parametrize("compress", [bz2.compress, zstandard.compress])
def test_so_it_does_whatever_it_is_packed_with(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    (tmp_path / "a.csv").write_bytes(compress(HEADS["a.csv"] + (b"c" * 1000 + b",x\n") * 1500))
    with pytest.raises(UserError, match=r"a\.csv: unpacks to more than 0\.001 GB"):
        read(tmp_path / "a.csv", ReadOptions(max_unpacked=0.001))
    assert len(read(tmp_path / "a.csv", ReadOptions(max_unpacked=0.002))) == 1502


@pytest.mark.parametrize("name", HEADS)
def test_blanks_and_line_ends_without_end_are_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HEADS[name] + b" " * 2**22 + b" " * 2**21)
    with pytest.raises(UserError, match=f"{name}: more than 4194304 blanks and line ends on end"):
        read(tmp_path / name, ReadOptions(absent="negative"))


def test_a_long_row_takes_memory_for_its_numbers(tmp_path: Path) -> None:
    rows = b"0 " + b" ".join(b"%d:1" % number for number in range(100_000)) + b"\n1 2:1\n"
    (tmp_path / "a.svm").write_bytes(rows)
    tracemalloc.start()
    data = read(tmp_path / "a.svm")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data) == 2
    assert peak < 20 * len(rows)  # `re` took 150 times the row


def test_a_long_list_of_labels_may_have_blanks(tmp_path: Path) -> None:
    labels = b" , ".join(b"%d" % number for number in range(20_000))
    assert len(labels) > 2**16
    (tmp_path / "a.svm").write_bytes(b"0 1:1\n1 2:1\n" + labels + b" 1:1\n")
    assert read(tmp_path / "a.svm").hard_counts().tolist() == [2, 2] + [1] * 19_998


@pytest.mark.parametrize("row", [b"0 1:1  " * 20_000, b"0" + b" 1:1" * 20_000 + b"x", b"0" + b",1" * 600_000 + b" 1:1"])
def test_a_long_row_that_is_none_is_told(tmp_path: Path, row: bytes) -> None:
    (tmp_path / "a.svm").write_bytes(b"0 1:1\n1 2:1\n" + row + b"\n")
    with pytest.raises(UserError, match=r"a\.svm, line 3: (expected a feature|1200001 bytes without a blank)"):
        read(tmp_path / "a.svm")


def test_an_encoding_without_its_mark_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,labels\na,x\n".encode("utf-16-le"))
    with pytest.raises(UserError, match="UTF-16 stream does not start with BOM; name the encoding"):
        read(tmp_path / "a.csv", ReadOptions(encoding="utf-16"))
