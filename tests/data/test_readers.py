"""Files of records, in every format and spelling, and what is refused."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Texts
from lopsided.data.readers import ReadOptions, aligned, read, read_inputs
from lopsided.data.storage import UserError

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
