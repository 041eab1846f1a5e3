"""Labels as people write them: each form is read, and what can be read in two ways is refused with the option."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lopsided.data.inputs import Numbered
from lopsided.data.labels import read_labels
from lopsided.data.labels.targets import Labels
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

NAN = math.nan
Cells = dict[str, list[Any]] | list[Any]


def read(columns: Cells, **options: Any) -> tuple[Labels, list[str]]:
    notes: list[str] = []
    columns = columns if isinstance(columns, dict) else {"labels": columns}
    return read_labels(columns, "data.csv, line {}".format, ReadOptions(**options), notes.append), notes


def dense(labels: Labels) -> list[dict[str, float]]:
    """What each row lists: names with values, without those that are negative."""
    targets = labels.targets
    values = torch.ones(len(targets.col)) if targets.values is None else targets.values
    bounds = targets.crow.tolist()
    return [
        {labels.names[col]: value for col, value in zip(targets.col[a:b].tolist(), values[a:b].tolist(), strict=True)}
        for a, b in itertools.pairwise(bounds)
    ]


def named(*rows: str) -> list[dict[str, float]]:
    return [dict.fromkeys(row.split(), 1.0) for row in rows]


THREE = named("a b", "", "b c")
NAMES: dict[str, tuple[Cells, dict[str, Any]]] = {
    "commas": (["a, b", "", "b,c "], {}),
    "semicolons": (["a; b", "", "b;c;"], {}),
    "bars": (["a|b", " ", "b||c"], {}),
    "another sign, given": (["a#b", "", "b#c"], {"separator": "#"}),
    "line ends, given": (["a\nb", "", "b\nc"], {"separator": "\n"}),
    "line ends, as they can be typed": (["a\nb", "", "b\nc"], {"separator": r"\n"}),
    "two signs, one given": (["a; b", "", "b;c"], {"separator": ";"}),
    "JSON lists": (['["a", "b"]', "[]", '["b", "c"]'], {}),
    "Python lists": (["['a', 'b']", "[]", "['b', \"c\"]"], {}),
    "Python sets and tuples": (["{'a', 'b'}", "()", "('b', 'c')"], {}),
    "numpy arrays": (["['a' 'b']", "[]", "['b'\n 'c']"], {}),
    "numpy and torch": (["array(['a', 'b'], dtype='<U1')", "set()", "frozenset({'b', 'c'})"], {}),
    "Postgres": (["{a, b}", "{}", '{b,"c"}'], {}),
    "quoted": (['"a", "b"', "", '"b", c'], {}),
    "single quotes": (["'a';'b'", "", "'b'; 'c'"], {}),
    "lists": ([["a", "b"], [], ["b ", "c"]], {}),
    "lists with one name twice and an empty one": ([["a", "b", "a"], [""], ["b", "c", None]], {}),
    "lists of names without quotation marks": (["[a, b]", "[]", "[b, c]"], {}),
    "Label Studio": (['{"choices": ["a", "b"]}', "", '{"choices": ["b", "c"]}'], {}),
    "vectors that are declared": ([[1, 1, 0], [0, 0, 0], [0, 1, 1]], {"label_form": "vector", "labels_file": "abc"}),
    "dictionaries": ([{"a": 1, "b": 1.0, "c": 0}, {"a": 0, "b": 0, "c": 0}, {"a": 0, "b": True, "c": "yes"}], {}),
    "dictionaries as text": (["{'a': 1, 'b': 1, 'c': 0}", "{'a': 0, 'b': 0, 'c': 0}", '{"a":0,"b":1,"c":1}'], {}),
    "dictionaries of positives": ([{"a": 1, "b": 1}, {}, {"b": 1, "c": 1}], {"absent": "negative"}),
    "labels with scores": (
        [
            [{"label": "a", "score": 1}, {"label": "b", "score": 1}, {"label": "c", "score": 0}],
            {"a": 0, "b": 0, "c": 0},
            [{"label": "a", "score": 0}, {"label": "b", "score": 1}, {"label": "c", "score": 1}],
        ],
        {},
    ),
}


@pytest.fixture
def abc(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("names") / "labels.txt"
    path.write_text("a\nb\nc\n")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_way_to_write_three_labels(name: str, abc: Any) -> None:
    cells, options = NAMES[name]
    labels, notes = read(cells, **{key: abc if value == "abc" else value for key, value in options.items()})
    assert dense(labels) == THREE
    assert tuple(labels.names) == ("a", "b", "c")
    assert labels.targets.values is None
    assert notes, "nothing is understood in silence"


VECTORS: dict[str, Cells] = {
    "lists": [[1, 0, 0], [0, 1, 1]],
    "floats": [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]],
    "bools": [[True, False, False], [False, True, True]],
    "pandas": ["[1, 0, 0]", "[0, 1, 1]"],
    "numpy": ["[1 0 0]", "[0 1 1]"],
    "numpy floats": ["[1. 0. 0.]", "[0. 1. 1.]"],
    "commas": ["1,0,0", "0,1,1"],
    "blanks": ["1 0 0", " 0 1 1 "],
    "tabs and bars": ["1\t0\t0", "0|1|1"],
    "calls": ["tensor([1, 0, 0])", "array([0., 1., 1.], dtype=float32)"],
    "torch": ["1.0;0.0;0.0", "0.0;1.0;1.0"],
}


@pytest.mark.parametrize("name", VECTORS)
def test_a_value_for_each_label_is_no_list_of_the_names_0_and_1(name: str) -> None:
    labels, notes = read(VECTORS[name])
    assert labels.names == Numbered(3)
    assert dense(labels) == named("0", "1 2")
    assert any("--labels-file" in note for note in notes)


COLUMNS: dict[str, Cells] = {
    "0 and 1": {"a": ["1", "0", "0"], "b": ["1", "0", "1"], "c": ["0", "0", "1"]},
    "numbers": {"a": [1, 0, 0], "b": [1.0, 0.0, 1.0], "c": [0, 0, 1]},
    "yes and no": {"a": ["yes", "no", "N"], "b": ["True", "False", "TRUE"], "c": ["0.0", "f", "1.0"]},
    "bools": {"a": [True, False, False], "b": [True, False, True], "c": [False, False, True]},
    "names": {"label1": ["a", "", "b"], "label2": ["b", "", "c"], "label3": ["", "", ""]},
    "lists": {"x": [["a", "b"], [], ["b"]], "y": [[], [], ["c"]]},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_several_columns(name: str) -> None:
    assert dense(read(COLUMNS[name])[0]) == THREE


def test_unknown_labels() -> None:
    cells: dict[str, list[Any]] = {"a": ["1", "", "0"], "b": ["?", "NaN", "1"], "c": ["null", "0", "n/a"]}
    labels, _ = read(cells)
    expected: list[dict[str, float]] = [{"a": 1, "b": NAN, "c": NAN}, {"a": NAN, "b": NAN}, {"b": 1, "c": NAN}]
    assert repr(dense(labels)) == repr([{key: float(value) for key, value in row.items()} for row in expected])
    cells = {"a": [1, -1, 0], "b": [None, 1, NAN]}
    labels, _ = read(cells, unknown=("-1",))
    assert repr(dense(labels)) == "[{'a': 1.0, 'b': nan}, {'a': nan, 'b': 1.0}, {'b': nan}]"
    assert dense(read({"a": ["1", "-1"], "b": ["-1", "-1.0"]}, negative=("-1",))[0]) == named("a", "")
    assert dense(read(["a,b", "NA", "b"], negative=("NA",))[0]) == named("a b", "", "b")
    labels, notes = read([{"a": 1, "b": 0}, {"a": 0}, {"b": 0.75}])
    assert repr(dense(labels)) == "[{'a': 1.0}, {'b': nan}, {'a': nan, 'b': 0.75}]"
    assert any("lacks is unknown" in note for note in notes)
    assert labels.unlisted_unknown
    labels, _ = read(["a,b", "?", "b"], absent="unknown")
    assert repr(dense(labels)) == "[{'a': 1.0, 'b': 1.0}, {'a': nan, 'b': nan}, {'b': 1.0}]"
    assert dense(read([["a"], None, ["b"]], absent="negative")[0]) == named("a", "", "b")
    assert repr(dense(read([[1, 0, None], [0, 0, 1]])[0])) == "[{'0': 1.0, '2': nan}, {'2': 1.0}]"


AMBIGUOUS: dict[str, tuple[Cells, str]] = {
    "one column of 0 and 1": (
        {"drama": ["1", "0"]},
        "'drama' holds only values from .*--label-columns.*--label-form names",
    ),
    "one column of yes and no": ({"drama": [True, False]}, "'drama' holds only values from 0 to 1"),
    "vectors of two, or numbers of labels": ([[0, 1], [1, 0]], "--label-form names.*--label-form vector"),
    "the same as text": (["0 1", "1 0"], "--label-form names.*--label-form vector"),
    "digits of a vector": (["0110", "0011", "1000"], "line 0: 'labels' is '0110'.*names.*vector"),
    "vectors of different length": ([[0, 0, 1], [1, 0]], "line 1: 'labels' has 2 values of 0 and 1, but 3 in .*line 0"),
    "two usual signs": (["a, b; c", "c; a"], r"cut at ','.* cut at ';'.*--separator"),
    "an unusual sign": (["a#b", "b#c", "a#c", "a", "a#b#c"], "5 names if each.*3 if '#'.*--separator '#'"),
    "a sign of another script": (["a、b", "b、c", "a、c", "a", "a、b、c"], "3 if '、'"),
    "the same number twice": ([[1, 2], [3, 3]], "line 1: 'labels' is '.3, 3.': the same label twice"),
    "blanks": (["a b", "a", "b"], "--separator ' '"),
    "only 1 and nothing": ({"a": ["1", ""], "b": ["", "1"]}, "an empty cell where.*--absent"),
    "dictionaries of positives": ([{"a": 1}, {"b": 0.7}], "a label that 'labels' lacks.*--absent negative"),
    "null": ([["a"], None], "line 1: no labels in column 'labels'.*--absent"),
    "numbers of labels in columns": ({"a": ["3", "1"], "b": ["0", "0"]}, "line 0: 'a' is '3'.*--label-form names"),
    "columns of two kinds": ({"a": ["1", "0"], "b": ["x", "y"]}, "'a' holds values, 'b' names"),
    "names and lists": ([["a"], "b"], "line 1: 'labels' is 'b', but .* in data.csv, line 0"),
    "a list that breaks off": (["['a', 'b']", "['a', b']", "c"], "line 1"),
    "half a list": (["[a", "b]", "[x]"], r"line 0|line 2"),
    "marks": ({"a": ["x", ""], "b": ["", "X"]}, "line 0: 'a' is 'x', .* nothing but 'x'.*--positive='x'"),
    "two words": ({"a": ["ja", "nein"], "b": ["nein", "nein"]}, "nothing but 'ja', 'nein'.*--positive='ja'"),
    "1 and -1": ({"a": ["1", "-1"], "b": ["-1", "1"]}, "line 1: 'a' is '-1',.*--unknown='-1', --negative='-1' or"),
    "1, 0 and -1": ({"a": ["1", "-1", "0"], "b": ["0", "1", "-1"]}, "nothing but '-1', '0', '1'.*--unknown='-1'"),
    "the same as numbers": ({"a": [1, -1, 0], "b": [0, 1, -1]}, "line 1: 'a' is '-1',.*--unknown='-1'"),
    "names with values": (["a:0; b:1", "a:1; b:0"], "line 0: 'labels' holds 'a:0'.*--label-form names"),
    "such words": (["a=no, b=yes", "a=yes, b=no"], "line 0: 'labels' holds 'a=no'.*--label-form names"),
    "one column of fractions": ({"drama": ["0.7", "0"]}, "'drama' holds only values from 0 to 1, such as '0.7'"),
    "commas in all columns": (
        {"a": ["0,7", "1"], "b": ["0", "0,2"]},
        "'a' is '0,7': the value.*--decimal ,.*--separat",
    ),
    "commas in one column": (
        {"a": ["1", "0"], "b": ["0", "0,2"]},
        "'b' must be 0, 1.*'0,2'.*--positive or --decimal ,",
    ),
    "minus one": ({"a": ["1", "-1"], "b": ["0", "1"]}, "line 1: 'a' must be 0, 1.*--unknown='-1', --negative or"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_two_readings_are_refused_and_the_option_is_named(name: str) -> None:
    cells, message = AMBIGUOUS[name]
    with pytest.raises(UserError, match=message) as caught:
        read(cells)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data.csv, line ")
    assert len(str(caught.value)) < 400


def test_options_settle_what_is_ambiguous() -> None:
    assert dense(read({"drama": ["1", "0"]}, label_form="names")[0]) == named("1", "0")
    assert dense(read({"drama": ["1", "0"]}, label_form="columns")[0]) == named("drama", "")
    assert dense(read([[0, 1], [1, 0]], label_form="vector")[0]) == named("1", "0")
    assert dense(read(["0110", "0011"], label_form="vector")[0]) == named("1 2", "2 3")
    assert dense(read([[1, 2], [3, 3]], label_form="names")[0]) == named("1 2", "3")
    assert dense(read(['"a, b", c', "c"])[0]) == [{"a, b": 1.0, "c": 1.0}, {"c": 1.0}]
    assert dense(read([[0, 1], [1]], label_form="names")[0]) == named("0 1", "1")
    assert [list(row) for row in dense(read(["a b", "a", "b"], separator="")[0])] == [["a b"], ["a"], ["b"]]
    assert dense(read({"a": ["1", ""], "b": ["", "1"]}, absent="negative")[0]) == named("a", "b")
    marks = {"a": ["x", ""], "b": ["", " X"], "c": ["", ""]}
    assert dense(read(marks, positive=("x",), absent="negative")[0]) == named("a", "b")
    words = {"a": ["ja", "nein"], "b": ["nein", "nein"]}
    assert dense(read(words, positive=("ja",), negative=("nein",))[0]) == named("a", "")
    assert dense(read(words, label_form="names")[0]) == named("ja nein", "nein")
    assert dense(read({"a": ["3", "1"], "b": ["0", "0"]}, label_form="names")[0]) == named("0 3", "0 1")
    cells: Cells
    for cells in (["a, none", "None", "b"], [["a", "none"], ["NONE"], ["b"]], [[3, -1], [-1], [5]], ["3", "-1", "5"]):
        labels = read(cells, negative=("none", "-1"))[0]
        assert [len(row) for row in dense(labels)] == [1, 0, 1], cells
    for cells in (["a", "NA", "b"], [["a"], ["na"], ["b"]], [3, -1, 5]):
        labels = read(cells, unknown=("na", "-1"), absent="unknown")[0]
        assert labels.targets.values is not None, cells
        assert labels.targets.values.isnan().tolist() == [False, True, True, False]
    assert dense(read(["a:0; b:1", "a:1"], label_form="names")[0]) == named("a:0 b:1", "a:1")


def test_a_sign_that_stands_between_no_two_names_separates_none() -> None:
    assert dense(read(["-1", "1", "0"])[0]) == named("-1", "1", "0")
    assert dense(read(["genre:1; b", "b"])[0]) == named("b genre:1", "b")


def test_names_are_written_alike_and_near_twins_are_noted() -> None:
    labels, notes = read([["Cafe\u0301 "], ["Caf\xe9", " "], ["cafe"], ["CAF\xc9"]])
    assert tuple(labels.names) == ("CAF\xc9", "Caf\xe9", "cafe")
    assert any("differ only by case or blanks: 'CAF\xc9', 'Caf\xe9'" in note for note in notes)


def test_lower_case_makes_one_label_of_names_that_differ_by_case() -> None:
    cells = ["Billing; Mobile  App", "BILLING;billing", "mobile app; \xc9t\xe9", "\xe9T\xe9"]
    labels, notes = read(cells)
    assert len(labels.names) == 7
    assert any(note.endswith("; --lower-case makes one of those that differ by case") for note in notes)
    merged, notes = read(cells, lower_case=True)
    assert tuple(merged.names) == ("billing", "mobile app", "\xe9t\xe9")
    assert merged.targets.col.tolist() == [0, 1, 0, 1, 2, 2]
    assert not any("differ only" in note for note in notes)
    columns = {"Toxic": ["1", "0", "0"], "toxic ": ["0", "0", "1"], "threat": ["0", "1", "0"]}
    assert dense(read(columns, lower_case=True)[0]) == named("toxic", "threat", "toxic")


def test_a_listed_name_is_known_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Billing\nBug\n", encoding="utf-8")
    read_lower = read(["BUG", "billing, bug"], labels_file=tmp_path / "names.txt", lower_case=True)[0]
    assert tuple(read_lower.names) == ("billing", "bug")


def test_many_sets_of_near_twins_are_noted_in_one_line() -> None:
    _, notes = read([[f"{letter}x", f"{letter.upper()}x"] for letter in "abcde"])
    assert (
        "labels that differ only by case or blanks: 'Ax', 'ax'; 'Bx', 'bx'; 'Cx', 'cx'; and 2 more such sets; "
        in "".join(notes)
    )


def test_numbers_are_sorted_by_size() -> None:
    assert tuple(read([[10**400], [7]])[0].names) == ("7", str(10**400))
    assert tuple(read([10**400, 7])[0].names) == ("7", str(10**400))
    assert tuple(read([[10, 9], [2.0], ["1"]])[0].names) == ("1", "2", "9", "10")


def test_a_file_of_names(abc: Any) -> None:
    assert dense(read(["0,1", "", "1,2"], labels_file=abc)[0]) == THREE
    assert dense(read([[0, 1], [], ["b", "c"]], labels_file=abc)[0]) == THREE
    assert dense(read(["1", "", "0"], labels_file=abc)[0]) == named("b", "", "a")
    assert tuple(read(["c", "b"], labels_file=abc)[0].names) == ("a", "b", "c")
    with pytest.raises(UserError, match=r"line 1: label '3', but .*labels.txt has 3 lines, from 0 on"):
        read(["0", "3"], labels_file=abc)
    with pytest.raises(UserError, match=r"line 0: the label 'bb' is not in .*labels.txt; did you mean 'b'"):
        read(["bb"], labels_file=abc)
    with pytest.raises(UserError, match="line 0: 'labels' has 2 values for 3 labels"):
        read([[1, 1]], labels_file=abc, label_form="vector")
    for content in (["a", "b", "c"], {"0": "a", "2": "c", "1": "b"}, {"b": 1, "a": 0, "c": 2}):
        listed = abc.with_suffix(".json")
        listed.write_text(json.dumps(content))
        assert dense(read(["0,1", "", "1,2"], labels_file=listed)[0]) == THREE
    for broken in ('{"a": 0, "b": 2}', '["a", 1]', "7", "[", "{}"):
        listed.write_text(broken)
        with pytest.raises(UserError, match=r"labels\.json: "):
            read(["0"], labels_file=listed)
    abc.write_text("a\nb\n a \n")
    with pytest.raises(UserError, match="line 3: 'a' stands in line 1, too"):
        read(["a"], labels_file=abc)


WRONG: dict[str, tuple[Cells, str]] = {
    "bool in a list": ([["a", True]], "must be a list of names"),
    "a fraction in a list": ([["a", 1.5]], "must be a list of names"),
    "infinity in a list": ([["a", math.inf]], "must be a list of names"),
    "spans": ([[[0, 5, "PER"]]], "must be a list of names"),
    "half a character": ([["\ud800"]], "the label '\\\\ud800' is not valid text"),
    "NUL": ([["a\0"]], "not valid text"),
    "a value above 1": ([{"a": 2, "b": 0}], "'labels.a' must be 0, 1"),
    "a long cell": ({"a": ["x" * 100_000, "0"], "b": ["0", "1"]}, "."),
    "a label beside none": (["a, ?", "a"], "a word that --unknown names, not both, got 'a, \\?'"),
    "control characters": ([{"a": "\x1b[2J"}], r"\\x1b"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_label_is_shown_in_one_short_line(name: str) -> None:
    cells, message = WRONG[name]
    with pytest.raises(UserError, match=message) as caught:
        read(cells, unknown=("?",))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


HOSTILE = ["[" * 100_000, "[" * 50_000 + "]" * 50_000, "{" * 9 + ":" * 99_999 + "}", "['" * 50_000 + "]"]


@pytest.mark.parametrize("cell", HOSTILE, ids=range(4))
def test_hostile_cells_take_linear_time(cell: str) -> None:
    labels, _ = read([cell, "a"], label_form="names")
    assert "a" in labels.names


def test_quotation_marks_that_no_csv_would_have() -> None:
    for cell in ('a "b\r\nc", d', '"' + "x" * 200_000 + ", y", '"', '5" disk, 3" disk'):
        assert read([cell, "z"], separator=",")[0].names


PIECES = [*"[]{}()'\",;| \n\\01ab:#", "null", "nan", "-1", "0.5", "1e400", "array(", "dtype=", "é"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
CELL = st.recursive(
    TEXT | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", ""]), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@given(
    st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=3),
    st.sampled_from(["names", "vector", "columns", None]),
    st.sampled_from(["negative", "unknown", None]),
)
def test_any_cells_are_labels_or_one_line(columns: list[list[Any]], form: Any, absent: Any) -> None:
    try:
        labels, _ = read({f"c{i}": cells for i, cells in enumerate(columns)}, label_form=form, absent=absent)
    except UserError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
    assert len(message) < 600
    if message:
        return
    rows = dense(labels)
    assert len(rows) == 3
    assert all(0 < value <= 1 or value != value for row in rows for value in row.values())
    assert len(labels.targets.col) == sum(map(len, rows)), "no label twice in a row"
