"""A line that is as long as a file, or a file of nothing but line ends, ends soon in rows or in one line."""

import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from lopsided.data.options import ReadOptions
from lopsided.data.readers import read
from lopsided.data.storage import UserError

PIECES = (b"a", b" ", b",", b'"', b"[", b"7", b"\t", b"ab ", b"1:1 ", b'"a",', b";", b"\\", b"{", b"__label__a ", b"\n")
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
