"""`lopsided data check`: what it counts, what it warns of, and that nothing of a file reaches the terminal raw."""

import dataclasses
import io
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from rich.console import Console

from lopsided.__main__ import main
from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Images, Inputs, Numbered, Texts
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError
from lopsided.jobs.check_data import DataCheck, FileCheck, check_data, examine, twin_names
from lopsided.jobs.progress import bars
from lopsided.report.data_check import print_data_check
from lopsided.targets import SparseTargets
from tests.tools import HOSTILE

NAN = float("nan")
NO_BARS = bars(Console(file=io.StringIO()))
FILE = Path("rows.jsonl")
JSON = ReadOptions(format="json")


def rows_of(
    labels: Sequence[dict[int, float]], texts: Sequence[str] | None = None, names: Sequence[str] | None = None
) -> Dataset:
    """Rows by the values of their labels; of L = 4 unless there are names."""
    crow = torch.tensor([0, *map(len, labels)]).cumsum(0)
    col = torch.tensor([label for row in labels for label in row], dtype=torch.long)
    values = torch.tensor([value for row in labels for value in row.values()])
    inputs = Texts(tuple(f"text {row}" for row in range(len(labels))) if texts is None else tuple(texts))
    names = ("a", "b", "c", "d") if names is None else names
    return Dataset(inputs, SparseTargets(crow, col, values, len(names)), names)


def printed(check: DataCheck, width: int = 100) -> str:
    file = io.StringIO()
    print_data_check(check, Console(file=file, force_terminal=True, color_system=None, width=width))
    return file.getvalue()


def alone(check: FileCheck) -> DataCheck:
    return DataCheck(check, None, 0, ())


def test_rows_are_counted() -> None:
    rows = rows_of([{0: 1.0, 1: 1.0}, {0: 1.0, 2: NAN}, {}, {0: 0.0, 1: NAN}, {0: 0.5}])
    check = examine(rows, FILE, JSON)
    assert (check.format, check.kind, check.rows) == ("json", "text", 5)
    assert check.counts.tolist() == [2.5, 1, 0, 0]
    assert (check.labels_per_row, check.density, check.most_labels) == (0.7, 0.175, 2)
    assert check.unknown == 2 / 20
    assert check.unlabelled == 2
    assert (check.copies, check.conflicting, check.groups) == (0, 0, None)
    assert (check.fewer_than(1), check.fewer_than(2), check.fewer_than(10)) == (2, 3, 4)


def test_a_row_is_shown_with_what_is_known_of_its_labels() -> None:
    check = examine(rows_of([{0: 1.0, 1: 0.7, 2: NAN, 3: 0.0}]), FILE, JSON)
    ((name, value), soft, (unknown, nothing)) = check.examples[0].labels
    assert (name, value, soft[0], unknown) == ("a", 1.0, "b", "c")
    assert math.isclose(soft[1], 0.7, rel_tol=1e-6)
    assert math.isnan(nothing)
    assert "a, b 0.7, c (unknown)" in printed(alone(check))
    nobody_knows = alone(examine(rows_of([{0: NAN, 1: NAN, 2: NAN, 3: NAN}]), FILE, JSON))
    assert "(4 unknown)" in printed(nobody_knows), "once, not at each name"


def test_the_rows_shown_are_the_first_and_the_next_with_labels() -> None:
    rows = rows_of([{}] * 20 + [{1: 1.0}] * 3)
    check = examine(rows, FILE, JSON)
    assert [example.row for example in check.examples] == [0, 1, 2, 20, 21]
    assert [example.row for example in examine(rows_of([{}] * 2), FILE, JSON).examples] == [0, 1]
    assert [example.row for example in examine(rows_of([{}] * 9), FILE, JSON).examples] == [0, 1, 2, 3, 4]


def test_head_and_tail() -> None:
    counts = {name: 20 - place for place, name in enumerate("abcdefgh")} | {"none": 0}
    labels = [{place: 1.0} for place, count in enumerate(counts.values()) for _ in range(count)]
    check = examine(rows_of(labels, names=tuple(counts)), FILE, JSON)
    assert [name for name, _ in check.frequent()] == ["a", "b", "c", "d", "e"]
    assert check.rarest() == [("h", 13), ("g", 14), ("f", 15)]
    assert "rarest labels: h (13), g (14), f (15)" in printed(alone(check))


def test_copies_that_disagree_are_counted() -> None:
    rows = rows_of([{0: 1.0}, {0: 1.0}, {1: 1.0}, {1: 1.0}, {2: NAN}, {2: NAN}], ["a", "A ", "a", "b", "c", "c"])
    check = examine(rows, FILE, JSON)
    assert check.copies == 3
    assert check.conflicting == 3, "the three a, of which one has another label"


def written(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("text,labels\n" + "".join(f"{line}\n" for line in lines))
    return path


def test_a_file_and_its_test_file(tmp_path: Path) -> None:
    train = written(tmp_path / "train.csv", ["one,a;b", "two,b", "three,", "two,a"])
    test = written(tmp_path / "test.csv", ["four,a;new", "TWO,b", "five,"])
    check = check_data(train, test, ReadOptions(separator=";"), NO_BARS)
    assert check.overlap == 1
    assert check.warnings == (
        "rows that are copies of others: 1; a split keeps copies together",
        "rows of which a copy has other labels: 2",
        "test rows that also stand in the training file: 1 of 3; they say nothing about new rows",
        "labels of the test file that do not stand in the training file: 1, such as 'new'",
    )
    page = printed(check)
    assert re.search("rows that also stand in the training file  +1 ", page)
    assert "labels: names between ';' in column 'labels'" in page


def test_groups_of_two_files_are_compared(tmp_path: Path) -> None:
    for name, rows in {
        "train": ["one,a|b,p1", "two,b,p2", "three,,"],
        "test": ["four,a,p2", "five,b|a,p3", "six,a,"],
    }.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,labels,patient", *rows]))
    options = ReadOptions(separator="|", group_column="patient")
    check = check_data(tmp_path / "train.csv", tmp_path / "test.csv", options, NO_BARS)
    assert check.data.groups == 3
    assert check.warnings == ("test rows of a group that also stands in the training file: 1 of 3",)


def test_names_that_may_mean_none_are_told(tmp_path: Path) -> None:
    train = written(tmp_path / "train.csv", ["one,a|nan", "two,b|<NA>", "three,a|b"])
    (warning,) = check_data(train, None, ReadOptions(separator="|"), NO_BARS).warnings
    assert warning.startswith("labels that may mean that a row has none: '<NA>', 'nan'; if so: --negative '<NA>'")


def test_a_file_is_not_checked_against_itself(tmp_path: Path) -> None:
    train = written(tmp_path / "train.csv", ["one,a", "two,b"])
    with pytest.raises(UserError, match="holds the same rows"):
        check_data(train, train, ReadOptions(), NO_BARS)


WARNINGS = [
    ([{0: 1.0}] * 4, "every row has exactly one label"),
    ([{0: 1.0}, {}, {}, {}], "rows without a label: 3 of 4"),
    ([{0: 1.0, 1: 1.0}, {2: 1.0}], "labels without a positive row: 1"),
]


@pytest.mark.parametrize(("labels", "warning"), WARNINGS, ids=[warning for _, warning in WARNINGS])
def test_warnings(
    labels: list[dict[int, float]], warning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lopsided.jobs.check_data.read_rows", lambda *_: rows_of(labels))
    warnings = check_data(tmp_path / "a.csv", None, JSON, NO_BARS).warnings
    assert any(warning in each for each in warnings)


def test_clean_rows_have_no_warning(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ["one,red;blue", "two,blue", "three,", "four,red"])
    assert check_data(path, None, ReadOptions(separator=";"), NO_BARS).warnings == ()


def test_one_label_is_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lopsided.jobs.check_data.read_rows", lambda *_: rows_of([{0: 1.0}, {}], names=("only",)))
    (warning,) = check_data(tmp_path / "a.csv", None, JSON, NO_BARS).warnings
    assert warning == "labels: 1; a multi-label problem needs at least two"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Short Film", "shortfilm", "Short-Film", "Drama"], [["Short Film", "shortfilm", "Short-Film"]]),
        (["Stra\xdfe", "STRASSE"], [["Stra\xdfe", "STRASSE"]]),
        (["billing", "biling", "bitling"], [["billing", "biling"], ["billing", "bitling"]]),
        (["class 1", "class 2", "class 12", "cat", "car", "+", "-"], []),
        (["\u732b", "\u72ac"], []),
        (Numbered(10**6), []),
    ],
)
def test_names_that_look_alike(names: Sequence[str], expected: list[list[str]]) -> None:
    assert twin_names(names) == expected


def test_many_alike_names_are_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number} {word}" for number in range(10) for word in ("Label", "label")]
    monkeypatch.setattr(
        "lopsided.jobs.check_data.read_rows", lambda *_: rows_of([{0: 1.0}, {1: 1.0, 2: 1.0}], names=names)
    )
    warnings = check_data(tmp_path / "a.csv", None, JSON, NO_BARS).warnings
    assert warnings[-1] == "more sets of labels that look alike: 5"
    assert "labels that look alike: '0 Label', '0 label'" in warnings


def test_names_that_mean_no_label(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ["one,red;blue", "two,NA", "three,red", "four,None"])
    (warning,) = check_data(path, None, ReadOptions(separator=";"), NO_BARS).warnings
    assert warning.endswith("has none: 'NA', 'None'; if so: --negative 'NA', or --unknown 'NA'")
    assert not check_data(path, None, ReadOptions(separator=";", negative=("NA", "None")), NO_BARS).warnings


def test_nothing_of_a_file_reaches_the_terminal_raw() -> None:
    hostile = [*HOSTILE, "\x1b]0;title\x07", "a\x9b31mb", "\u202egnp.exe", "[bold]x[/bold]", "\r\nrow"]
    rows = dataclasses.replace(
        rows_of([{0: 1.0}] * len(hostile), hostile, [hostile[0] + "\x1b", "[red]b"]), notes=tuple(hostile)
    )
    check = examine(rows, Path("\x1b[2J.csv"), JSON)
    page = printed(DataCheck(check, check, 1, tuple(hostile)))
    assert all(character.isprintable() or character == "\n" for character in page)
    assert "[bold]x[/bold]" in page


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_long_text_leaves_room_for_its_labels(width: int) -> None:
    page = printed(alone(examine(rows_of([{0: 1.0, 3: 1.0}], ["word " * 100]), FILE, JSON)), width)
    assert re.search("^ *1   a, d +word word word", page, re.MULTILINE)


def test_images_are_not_printed() -> None:
    inputs: Inputs = Images(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    rows = dataclasses.replace(rows_of([{0: 1.0}, {1: 1.0}]), inputs=inputs)
    assert " bytes" in printed(alone(examine(rows, FILE, JSON)))


@pytest.mark.slow
@given(
    st.lists(
        st.dictionaries(st.integers(0, 3), st.sampled_from([0.0, 0.25, 1.0, NAN]), max_size=4), min_size=1, max_size=12
    )
)
def test_counts_are_those_of_dense_targets(labels: list[dict[int, float]]) -> None:
    check = examine(rows_of(labels), FILE, JSON)
    dense = torch.zeros(len(labels), 4)
    for row, values in enumerate(labels):
        for label, value in values.items():
            dense[row, label] = value
    known = dense.nan_to_num(0.0)
    assert check.counts.tolist() == known.sum(0).tolist()
    assert check.unlabelled == int((known.sum(1) == 0).sum())
    assert math.isclose(check.unknown, float(dense.isnan().float().mean()), abs_tol=1e-6)


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_examined_in_seconds() -> None:
    rows = rows_of([{row % 20_000: 1.0} for row in range(100_000)], names=[f"label {n:b}" for n in range(20_000)])
    start = time.perf_counter()
    printed(alone(examine(rows, FILE, JSON)))
    twin_names(rows.label_names)
    assert time.perf_counter() - start < 15


def test_the_command_prints_what_it_understood(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(folder / "train.csv", ["one,a;b", "two,b", "three,"])
    written(folder / "test.csv", ["four,a", "one,b"])
    assert main(["data", "check", "train.csv", "--test", "test.csv", "--separator", ";"]) == 0
    page = capsys.readouterr().out
    assert "train.csv: csv" in page
    assert "labels: names between ';' in column 'labels'" in page
    assert "test rows that also stand in the training file: 1 of 2" in page
    assert sorted(path.name for path in folder.iterdir()) == ["test.csv", "train.csv"]


def test_what_can_be_read_in_two_ways_is_refused_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.csv").write_text("text,toxic,threat\none,1,0\ntwo,0,1\n")
    assert main(["data", "check", "a.csv"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--label-columns 'toxic,threat'" in error
    assert main(["data", "check", "a.csv", "--label-columns", "toxic,threat"]) == 0
    assert main(["data", "check", "a.csv", "--label-columns", "toxic,threat", "--test", "a.csv"]) == 2
    assert "--test: a.csv holds the same rows" in capsys.readouterr().err
    (folder / "b.csv").write_text("no,words,labels\nA-1,one two three four,a\nA-2,five six seven,b\n")
    assert main(["data", "check", "b.csv"]) == 2
    assert "; 'words' has several words a row: if those are the texts, --text-column 'words'" in capsys.readouterr().err
    (folder / "c.csv").write_text("a row of many words,a\nanother row,b\n")
    assert main(["data", "check", "c.csv"]) == 2
    assert "if line 1 is a row and no header, name the columns with --column-names" in capsys.readouterr().err
    assert main(["data", "check", "a.csv", "--quoting", "maybe"]) == 2
    assert "'--quoting'" in capsys.readouterr().err
