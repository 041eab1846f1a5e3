"""Files of records, in every format and spelling, and what is refused."""

import bz2
import gzip
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lopsided.data.dataset import Dataset
from lopsided.data.image_files import ImageFiles
from lopsided.data.inputs import Table, Texts
from lopsided.data.readers import ReadOptions, aligned, read, read_inputs
from lopsided.data.storage import UserError
from tests.tools import needs_pipes

ROWS = [("a text; caf\u00e9, \u201cgood\u201d", ["x", "y"]), ("another", []), ("a third", ["y"])]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def rows(data: Dataset) -> list[tuple[str, list[str]]]:
    """The texts of a data set with their positive labels."""
    assert isinstance(data.inputs, Texts)
    bounds = data.targets.crow.tolist()
    names = [data.label_names[col] for col in data.targets.col.tolist()]
    return [(text, names[bounds[row] : bounds[row + 1]]) for row, text in enumerate(data.inputs.texts)]


def options(**given: Any) -> ReadOptions:
    return ReadOptions(**given)


JSON_LINES = "".join(
    json.dumps({"id": i, "text": text, "labels": names}) + "\n" for i, (text, names) in enumerate(ROWS)
)
CSV = "text,labels\n" + "".join('"{}","{}"\n'.format(text, ",".join(names)) for text, names in ROWS)
FILES = {
    "lines of JSON": ("a.jsonl", JSON_LINES),
    "of any ending": ("a.json", JSON_LINES),
    "with blank lines and CRLF": ("a.ndjson", "\ufeff\r\n" + JSON_LINES.replace("\n", "\r\n\n")),
    "one list": ("a.json", json.dumps([{"text": text, "labels": names} for text, names in ROWS], indent=1)),
    "CSV": ("a.csv", CSV),
    "a byte order mark": ("a.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
    "semicolons": ("a.csv", "text;labels\n" + "".join(f'"{text}";{",".join(names)}\n' for text, names in ROWS)),
    "declared": ("a.csv", "sep=;\ntext;labels\n" + "".join(f'"{text}";{",".join(names)}\n' for text, names in ROWS)),
    "bars": ("a.csv", "text|labels\n" + "".join(f"{text}|{';'.join(names)}\n" for text, names in ROWS)),
    "tabs": ("a.tsv", "text\tlabels\n" + "".join(f"{text}\t{','.join(names)}\n" for text, names in ROWS)),
    "quoted": ("a.tsv", '"text"\t"labels"\n' + "".join(f'"{text}"\t"{",".join(names)}"\n' for text, names in ROWS)),
    "names in capitals": ("a.csv", CSV.replace("text,labels", "Text,LABELS", 1)),
    "empty rows below": ("a.csv", CSV + ",\n,\n"),
    "tabs in a .csv": ("a.csv", "text\tlabels\n" + "".join(f"{text}\t{','.join(names)}\n" for text, names in ROWS)),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_rows(tmp_path: Path, name: str) -> None:
    file, text = FILES[name]
    path = write(tmp_path / file, text)
    data = read(path)
    assert rows(data) == ROWS
    assert tuple(data.label_names) == ("x", "y")
    assert [text for block in read_inputs(path) for text in block.texts] == [text for text, _ in ROWS]  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_encodings_are_found_and_noted(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.csv", CSV, encoding)
    data = read(path)
    assert rows(data) == ROWS
    assert encoding == "utf-8-sig" or any("encoding: " in note for note in data.notes)
    assert rows(read(path, options(encoding=encoding))) == ROWS
    with pytest.raises(UserError, match="no encoding 'nonsense'"):
        read(path, options(encoding="nonsense"))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
    "": bz2.compress,
}


@pytest.mark.parametrize("ending", PACKERS)
def test_compressed_files_are_known_by_their_first_bytes(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    packed = PACKERS[ending](JSON_LINES.encode())
    path.write_bytes(packed)
    assert rows(read(path)) == ROWS
    counts: list[int] = []
    assert sum(len(block) for block in read_inputs(path, on_bytes=counts.append)) == len(ROWS)
    assert sum(counts) == len(packed)
    path.write_bytes(packed + packed)  # as `cat` makes it
    assert rows(read(path)) == ROWS + ROWS
    path.write_bytes(packed[:-12])
    with pytest.raises(UserError, match=r"a\.jsonl.*: the compressed file is damaged or cut off"):
        read(path)


def test_aligned_gives_all_parts_the_same_labels(tmp_path: Path) -> None:
    lines = ['{"text": "a", "labels": ["x", "z"]}', '{"text": "b", "labels": ["y"]}', '{"text": "c", "labels": []}']
    parts = [read(write(tmp_path / f"{i}.jsonl", line)) for i, line in enumerate(lines)]
    expected = [[("a", ["x", "z"])], [("b", ["y"])], [("c", [])]]
    assert [rows(part) for part in aligned(parts)] == expected
    assert {tuple(part.label_names) for part in aligned(parts)} == {("x", "y", "z")}
    with pytest.raises(UserError, match="only the label 'y'"):
        aligned(parts[1:])
    with pytest.raises(UserError, match="no labels at all"):
        aligned(parts[2:])


def test_a_label_of_another_file_is_unknown_where_lacking_names_are(tmp_path: Path) -> None:
    lines = ['{"text": "a", "labels": {"x": 1, "y": 0, "z": 1}}', '{"text": "b", "labels": {"x": 1}}\n']
    lines[1] += '{"text": "c", "labels": {"y": 0}}'
    train, test = (read(write(tmp_path / f"{i}.jsonl", line)) for i, line in enumerate(lines))
    _, test = aligned([train, test])
    assert test.targets.values is not None
    assert test.targets.col.tolist() == [0, 1, 2, 0, 2]
    assert test.targets.values.isnan().tolist() == [False, True, True, True, True]


BAD_FILES = {
    "empty": ("a.jsonl", "", "no rows"),
    "blank lines only": ("a.jsonl", "\n\n", "no rows"),
    "header only": ("a.csv", "text,labels\n", "no rows"),
    "malformed": ("a.jsonl", '{"text": "a", "labels": ["x"]}\n{"text": \n', r"a\.jsonl, line 2: not JSON"),
    "not an object": ("a.jsonl", '{"text": "a", "labels": ["x"]}\n7\n', "line 2: expected an object"),
    "a list of what is no object": ("a.json", "[1, 2]\n", "record 1: expected an object"),
    "a list that breaks off": ("a.json", '[{"text": "a"},\n{"te', "record 2: not JSON: "),
    "a list without its end": ("a.json", '[{"text": "a"}, ', "record 2: not JSON: the list does not end"),
    "something behind a list": ("a.json", '[{"text": "a"}]\n{}', "not JSON: '{}' behind the list"),
    "a list without commas": ("a.json", '[{"text": "a"} {', "record 2: not JSON: expected a comma .*, got '{'"),
    "too deep": ("a.jsonl", "[" * 100_000 + "\n", "record 1: not a row: nested too deeply"),
    "too deep, in a row": ("a.jsonl", '{"text":' * 100_000 + "\n", "line 1: not a row: nested too deeply"),
    "missing field": ("a.jsonl", '{"txt": "a", "labels": ["x"]}\n', "no column 'text' among 'txt', 'labels'; did you"),
    "missing in one row": (
        "a.jsonl",
        '{"text": "a", "labels": ["x"]}\n{"labels": []}',
        "line 2: 'text' must be .*nothing",
    ),
    "text not a string": ("a.jsonl", '{"text": 1, "labels": ["x"]}\n', "line 1: 'text' must be valid text, got '1'"),
    "half a character": ("a.jsonl", '{"text": "\\ud800", "labels": ["x"]}\n', "must be valid text"),
    "NUL in JSON": ("a.jsonl", '{"text": "a\\u0000", "labels": ["x"]}\n', r"'text' must be valid text, got 'a\\x00'"),
    "NUL": ("a.csv", "text,labels\na\0b,x\n", "line 2: a NUL character"),
    "number too long": ("a.jsonl", '{"text": "a", "labels": [' + "1" * 5000 + "]}\n", "line 1: a number too long"),
    "column twice": ("a.csv", "text,labels,labels\na,x,y\n", "a.csv: the column 'labels' stands twice"),
    "feature twice": ("a.csv", "a,a,b,labels\n1,2,3,x\n4,5,6,y\n", "a.csv: the column 'a' stands twice"),
    "unknown column": ("a.csv", "text,topics\na,x\n", "no column 'labels' among 'text', 'topics' .*--label-columns"),
    "ragged": ("a.csv", "text,labels\na,x,y\n", "line 2: 3 columns, but the header has 2; a cell that"),
    "ragged tabs": ("a.tsv", "text\tlabels\na\tx\tb\n", "line 2: 3 columns, but the header has 2"),
    "open quote": ("a.csv", 'text,labels\nb,x\n"a,x\n', "line 3: unexpected end of data.*--quoting none"),
    "quote within": ("a.csv", 'text,labels\n"a"b,x\n', "line 2: ',' expected after '\"'"),
    "whole columns": (
        "a.json",
        '{"text": {"0": "a"}, "labels": {"0": "x"}}',
        "valid text.*whole columns make one of rows",
    ),
    "rows within an object": ("a.json", '{"data": [{"text": "a", "labels": ["x"]}]}', "'data' holds a list of objects"),
    "a question": ("a.csv", f"Why {'so ' * 20}long?,text\nx,a\n", r"may be cut short with \*"),
    "no content": ("a.txt", "", "an empty file"),
    "no sheet": ("a.xlsx", "x", "not an .xlsx file"),
    "another sheet": ("a.ods", "x", "save the sheet as .xlsx or as CSV"),
    "unknown format": ("a.abc", "x", "whose format cannot be told; say it with --format: json, csv"),
    "several delimiters": (
        "a.csv",
        "text;a,labels;b\nx;c,y;d\n",
        "',' .2 columns. and ';' .3 columns.*--delimiter",
    ),
    "long names": ("a.csv", "x" * 200_000 + ",b\n1,2\n", "no column 'labels' among 'xxxx"),
    "many names": ("a.csv", ",".join(map(str, range(50_000))) + "\n", "no rows|among .* and 49988 more"),
    "control characters": ("a.csv", "\x1b[2J,b\n1,2\n", r"among '\\x1b\[2J', 'b'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_in_one_short_line(tmp_path: Path, name: str) -> None:
    file, text, message = BAD_FILES[name]
    path = write(tmp_path / file, text)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(UserError, match="a folder whose format cannot be told"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"no format 'nonsense'; --format is one of json, csv"):
        read(tmp_path, options(format="nonsense"))


def test_hints_lead_to_the_labels_and_never_astray(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,comment,billing,refund\n1,a,0,1\n2,b,1,0\n")
    flags = ("billing", "refund")
    with pytest.raises(UserError, match=r"line 2: 'comment' is 'a': a text \(--text-column\)"):
        read(path, options(label_columns=flags))
    hint = "no column 'labels'.*; 2 columns hold 0 and 1: if those are the labels, --label-columns 'billing,refund'"
    for given in ((), ("comment",)):
        with pytest.raises(UserError, match=hint) as caught:
            read(path, options(text_columns=given))
        assert "did you mean" not in str(caught.value)
    for labels in (flags, ("*ing", "refund"), ("[br]*",)):
        data = read(path, options(text_columns=("comment",), label_columns=labels))
        assert rows(data) == [("a", ["refund"]), ("b", ["billing"])]
    unknown = write(tmp_path / "unknown.csv", "text,billing,refund\na,,1\nb,1,\nc,?,0\n")
    with pytest.raises(UserError, match=r"2 columns hold 0 and 1.*--label-columns 'billing,refund'$"):
        read(unknown)
    several = write(tmp_path / "several.csv", "text,Label 1,Label 2\na,x,y\n")
    with pytest.raises(UserError, match=r"if 'Label 1', 'Label 2' hold labels: --label-columns 'Label\*'$"):
        read(several)
    with pytest.raises(UserError, match="'comment' cannot be input and label at once"):
        read(path, options(text_columns=("comment",), label_columns=("*",)))


def test_several_texts_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"subject": "a", "body": "b", "labels": ["x"]}\n{"body": "c", "labels": []}\n')
    assert rows(read(path, options(text_columns=("subject", "body")))) == [("a\nb", ["x"]), ("\nc", [])]


def test_quotation_marks(tmp_path: Path) -> None:
    """A line of a TSV with all columns is a row; a quoted cell may hold line ends, tabs and quotation marks."""
    lines = ["text\tlabels", '"an open one\tx', 'a closed one"\ty', '"all"\tx', '"a ""b""\n\tc"\ty,x', 'a "b" c\t']
    expected = [
        ('"an open one', ["x"]),
        ('a closed one"', ["y"]),
        ("all", ["x"]),
        ('a "b"\n\tc', ["x", "y"]),
        ('a "b" c', []),
    ]
    path = write(tmp_path / "a.tsv", "\n".join(lines) + "\n")
    data = read(path)
    assert rows(data) == expected
    assert any("quotation marks are letters" in note and "line 2" in note for note in data.notes)
    assert len(read(path, options(quoting="standard"))) == 4  # as the two open ones enclose a line end
    plain = write(tmp_path / "plain.csv", 'text,labels\n"a,x\n"b",y\n')
    assert rows(read(plain, options(quoting="none"))) == [('"a', ["x"]), ('"b"', ["y"])]
    with pytest.raises(UserError, match=r"line 2: a quotation mark .* ends in line 3.*--quoting none"):
        read(write(tmp_path / "b.tsv", 'text\tlabels\textra\n"a\tx\nb\ty\t\nc"\tz\t\n'))
    last = write(tmp_path / "last.tsv", 'labels\ttext\nx\t"a\nb"\ny\tc\n')
    assert rows(read(last)) == [("a\nb", ["x"]), ("c", ["y"])]


def test_rows_that_a_quotation_mark_swallows_are_not_lost(tmp_path: Path) -> None:
    lines = [f"{i},text {i},{'xy'[i % 2]}" for i in range(8)]
    lines[2], lines[6] = '2,"open,x', '6,text closes",y'
    path = write(tmp_path / "a.csv", "id,text,labels\n" + "\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"line 4: a quotation mark begins a cell that ends in line 8.*--quoting none"):
        read(path)
    assert len(read(path, options(quoting="none"))) == 8
    assert len(read(path, options(quoting="standard"))) == 4
    long = write(tmp_path / "b.csv", 'text,labels\n"one\ntwo\n\nthree",x\n')
    data = read(long)
    assert rows(data) == [("one\ntwo\n\nthree", ["x"])]
    assert any("rows that run over several lines: 1" in note for note in data.notes)


def test_a_file_without_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a text\t0,1\tid1\nanother\t\tid2\na third\t1\tid3\n")
    names = write(tmp_path / "names.txt", "x\ny\n")
    given = options(column_names=("text", "labels", "id"), labels_file=names)
    assert rows(read(path, given)) == [("a text", ["x", "y"]), ("another", []), ("a third", ["y"])]
    assert sum(len(block) for block in read_inputs(path, given)) == 3
    with pytest.raises(UserError, match=r"no column 'labels' .*name the columns with --column-names"):
        read(write(tmp_path / "b.tsv", "a text\t1\tid1\nanother\t0\tid2\n"))


def test_lines_of_one_row_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,text,label\n1,a,x\n2,b,x\n1,a,y\n3,a,y\n")
    assert rows(read(path, options(join_by="id"))) == [("a", ["x", "y"]), ("b", ["x"]), ("a", ["y"])]
    assert rows(read(path, options(join_by="text"))) == [("a", ["x", "y"]), ("b", ["x"])]
    with pytest.raises(UserError, match=r"2 of 4 rows have the text .*--join-by COLUMN.*--join-by ''"):
        read(write(tmp_path / "c.csv", "text,label\na,x\na,y\nb,x\nc,\n"))
    assert len(read(tmp_path / "c.csv", options(join_by=""))) == 4
    path = write(tmp_path / "b.csv", "id,text,label\n1,a,x\n1,b,y\n")
    with pytest.raises(UserError, match=r"line 3: 'id' is as in .*line 2, but the text is not"):
        read(path, options(join_by="id"))


def test_groups(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,labels,patient\na,x,17\nb,y,4\nc,x,17\n")
    groups = read(path, options(group_column="patient")).groups
    assert groups is not None
    assert groups[0] == groups[2] != groups[1]
    again = read(
        write(tmp_path / "b.csv", "text,labels,patient\nd,x,4\ne,y,17\n"), options(group_column="patient")
    ).groups
    assert again is not None
    assert again.tolist() == groups[:2].flip(0).tolist()
    with pytest.raises(UserError, match=r"no column 'who' among .*--group-column"):
        read(path, options(group_column="who"))
    path = write(tmp_path / "labels.csv", "a,b\n1,0\n0,1\n1,1\n")
    for name in ("group_column", "join_by"):
        option = "--" + name.replace("_", "-")
        with pytest.raises(UserError, match=rf"a.csv: {option} 'patient' is for a file whose columns hold rows"):
            read(tmp_path / "a.csv", options(targets_file=path, **{name: "patient"}))
        with pytest.raises(UserError, match=rf"a.svm: {option} 'patient' is for"):
            read(write(tmp_path / "a.svm", "0 0:1\n1 1:1\n"), options(**{name: "patient"}))


def test_rows_to_predict_need_no_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text\n" + "".join(f"row {i}\n" for i in range(10_000)))
    blocks = list(read_inputs(path))
    assert [len(block) for block in blocks] == [4096, 4096, 1808]
    assert isinstance(blocks[2], Texts)
    assert blocks[2].texts[-1] == "row 9999"


@pytest.mark.slow
def test_a_table_and_images_need_no_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,size,colour,labels\n1,1.5,red,x\n2,,blue,"x,y"\n3,2,red,\n4,0,blue,y\n')
    data = read(path)
    assert isinstance(data.inputs, Table)
    assert data.inputs.number_names == ("size",)
    assert data.inputs.category_values == (("red", "blue"),)
    assert data.targets.col.tolist() == [0, 0, 1, 1]
    (new,) = read_inputs(write(tmp_path / "new.csv", "colour,size\nred,3\n"))
    assert isinstance(new, Table)
    assert new.numbers.tolist() == [[3.0]]
    lines = [{"embedding": [0.5, i], "labels": ["x" if i else "y"]} for i in range(5000)]
    vectors = read(write(tmp_path / "v.jsonl", "\n".join(map(json.dumps, lines)))).inputs
    assert isinstance(vectors, Table)
    assert vectors.numbers[-1].tolist() == [0.5, 4999]
    (tmp_path / "a").mkdir()
    for name in ("a/1.png", "2.JPG"):
        write(tmp_path / name, "")
    images = read(write(tmp_path / "i.csv", "file_name,labels\na/1.png,x\n2.JPG,y\n")).inputs
    assert isinstance(images, ImageFiles)
    assert images.path(0) == tmp_path / "a" / "1.png"


def test_rows_to_predict_are_joined_as_those_with_labels(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "id,text\n" + "".join(f"{i // 2 % 3000},text {i // 2 % 3000}\n" for i in range(9000))
    )
    blocks = list(read_inputs(path, options(join_by="id")))
    assert [text for block in blocks for text in block.texts] == [f"text {i}" for i in range(3000)]  # type: ignore[attr-defined]


@needs_pipes
def test_standard_input_and_pipes_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (JSON_LINES.encode(), gzip.compress(JSON_LINES.encode())):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        with pytest.raises(UserError, match="-: input whose format cannot be told; say it with --format"):
            list(read_inputs(Path("-")))
        blocks = list(read_inputs(Path("-"), options(format="json")))
        assert [text for block in blocks for text in block.texts] == [text for text, _ in ROWS]  # type: ignore[attr-defined]
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(CSV.encode("cp1252"),))
    writer.start()
    assert rows(read(pipe)) == ROWS
    writer.join()


def test_other_columns_of_labels_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label1,label2\na,x,y\nb,y,z\nc,z,\n")
    data = read(path, options(label_columns=("label1",)))
    assert any("if 'label2' hold labels, too: --label-columns 'label*'" in note for note in data.notes)
    assert rows(read(path, options(label_columns=("label*",)))) == [("a", ["x", "y"]), ("b", ["y", "z"]), ("c", ["z"])]


def test_a_damaged_character_does_not_make_another_encoding_of_the_file(tmp_path: Path) -> None:
    """In cp1252, every other accent of the file would be two wrong letters."""
    path = tmp_path / "a.csv"
    lines = [f"caf\u00e9 {i},x".encode() for i in range(20)]
    lines[7] = b"caf\xe9 7,y"
    path.write_bytes(b"text,labels\n" + b"\n".join(lines) + b"\n")
    with pytest.raises(UserError, match=r"a\.csv: UTF-8 but for 1 damaged lines, such as .*caf.*iconv") as caught:
        read(path)
    assert str(caught.value).isprintable()
    assert len(read(path, options(encoding="cp1252"))) == 20


@pytest.mark.slow
@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_is_read_part_by_part(tmp_path: Path, indent: int | None) -> None:
    records = [{"text": f"{i} " + "x" * 600, "labels": ["a", "b"][: i % 3]} for i in range(12_000)]
    records[5]["text"] = "y" * 1_500_000
    path = write(tmp_path / "a.json", json.dumps(records, indent=indent))
    counts: list[int] = []
    blocks = read_inputs(path, on_bytes=counts.append)
    first = next(blocks)
    assert sum(counts) < 0.8 * path.stat().st_size
    assert [text for block in (first, *blocks) for text in block.texts] == [record["text"] for record in records]  # type: ignore[attr-defined]
