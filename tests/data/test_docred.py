"""Documents with entities: every ordered pair is a row, its relations are the labels."""

import json
from pathlib import Path
from typing import Any

import pytest

from lopsided.data import readers
from lopsided.data.dataset import Dataset
from lopsided.data.formats import docred
from lopsided.data.pairs import Pairs
from lopsided.data.readers import ReadOptions
from lopsided.data.storage import UserError


def mention(sentence: int, start: int, stop: int, kind: str = "PER") -> dict[str, Any]:
    return {"name": "", "sent_id": sentence, "pos": [start, stop], "type": kind}


FIRST = {
    "title": "Ada",
    "sents": [["Ada", "Lovelace", "lived", "."], ["She", "died", "in", "London", ",", "England", "."]],
    "vertexSet": [[mention(0, 0, 2), mention(1, 0, 1)], [mention(1, 3, 4, "LOC")], [mention(1, 5, 6, "LOC")]],
    "labels": [
        {"h": 0, "t": 1, "r": "P20", "evidence": [1]},
        {"h": 1, "t": 2, "r": "P17", "evidence": []},
        {"h": 1, "t": 2, "r": "P131", "evidence": []},
        {"h": 1, "t": 2, "r": "P17", "evidence": [0]},
    ],
}
SECOND = {"title": "B", "sents": [["x", "y"]], "vertexSet": [[mention(0, 0, 1)], [mention(0, 1, 2)]], "labels": []}
THIRD = {"title": "C", "sents": [["z"]], "vertexSet": [[mention(0, 0, 1)]], "labels": []}


def write(folder: Path, content: Any, name: str = "dev.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def positives(data: Dataset) -> dict[tuple[int, ...], list[str]]:
    """The relations of each pair that has any."""
    assert isinstance(data.inputs, Pairs)
    crow = data.targets.crow.tolist()
    return {
        tuple(pair): [data.label_names[column] for column in data.targets.col[crow[row] : crow[row + 1]].tolist()]
        for row, pair in enumerate(data.inputs.pairs.tolist())
        if crow[row] < crow[row + 1]
    }


@pytest.mark.parametrize("chunk", [10, 10**6])
@pytest.mark.parametrize("lines", [False, True])
def test_all_pairs_of_a_document_are_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, lines: bool
) -> None:
    monkeypatch.setattr(docred, "_CHUNK", chunk)
    documents = [FIRST, SECOND, THIRD]
    path = write(
        tmp_path, "\n".join(map(json.dumps, documents)) if lines else documents, "dev.jsonl" if lines else "dev.json"
    )
    data = readers.read(path)
    assert isinstance(data.inputs, Pairs)
    pairs = [(0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 2), (0, 2, 0), (0, 2, 1), (1, 0, 1), (1, 1, 0)]
    assert [tuple(pair) for pair in data.inputs.pairs.tolist()] == pairs
    assert positives(data) == {(0, 0, 1): ["P20"], (0, 1, 2): ["P131", "P17"]}
    assert list(data.label_names) == ["P131", "P17", "P20"]
    assert data.groups is not None
    first, second = data.groups[0], data.groups[6]
    assert first != second
    assert data.groups.tolist() == [first] * 6 + [second] * 2
    again = readers.read(write(tmp_path, [SECOND, FIRST], "again.json"))
    assert again.groups is not None
    assert again.groups.tolist() == [second] * 2 + [first] * 6, "the same in every file"
    document = data.inputs.documents[0]
    assert document.mentions == (((0, 2), (4, 5)), ((7, 8),), ((9, 10),))
    assert document.types == ("PER", "LOC", "LOC")
    assert [document.name(entity) for entity in range(3)] == ["Ada Lovelace", "London", "England"]
    assert data.targets.values is None


def test_rows_to_predict_come_in_blocks_and_need_no_relations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docred, "BLOCK_ROWS", 4)
    documents = [{name: record[name] for name in record if name != "labels"} for record in (SECOND, SECOND, FIRST)]
    path = write(tmp_path, documents)
    blocks = list(readers.read_inputs(path))
    assert [[len(block.documents), len(block)] for block in blocks if isinstance(block, Pairs)] == [
        [1, 2],
        [1, 2],
        [1, 6],
    ]
    with pytest.raises(UserError, match="document 1: no 'labels', which only documents to predict lack"):
        docred.read(path, ReadOptions())


def changed(**fields: Any) -> list[dict[str, Any]]:
    return [SECOND, FIRST | fields]


BAD_FILES: dict[str, tuple[Any, str]] = {
    "nothing": ("", ": no documents"),
    "no documents": ("[]", ": no documents"),
    "cut off": (json.dumps([SECOND, FIRST])[:-40], "document 2: not JSON: "),
    "no object": ([SECOND, 5], "document 2: expected an object such as .*vertexSet.*, got .5."),
    "no sentences": (changed(sents=["a"]), "document 2: 'sents' must be lists of words"),
    "no entities": (changed(vertexSet=[[]]), "document 2: 'vertexSet' must be lists of mentions"),
    "a mention beyond its sentence": (
        changed(vertexSet=[[mention(0, 3, 5)]]),
        "document 2: a mention that stands in no",
    ),
    "an empty mention": (changed(vertexSet=[[mention(0, 3, 3)]]), "document 2: a mention that stands in no sentence"),
    "no such sentence": (changed(vertexSet=[[mention(2, 0, 1)]]), "document 2: a mention that stands in no sentence"),
    "no such entity": (
        changed(labels=[{"h": 0, "t": 3, "r": "P1"}]),
        "document 2: expected a relation of two of its 3",
    ),
    "with itself": (
        changed(labels=[{"h": 0, "t": 0, "r": "P1"}]),
        "document 2: expected a relation of two of its 3",
    ),
    "no name": (
        changed(labels=[{"h": 0, "t": 1, "r": ""}]),
        "document 2: expected a relation of two of its 3",
    ),
    "nested": ("[" * 10 + '{"a":' + "[" * 100_000, "document 1: (nested too deeply|not JSON)"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    with pytest.raises(UserError, match=message) as caught:
        docred.read(write(tmp_path, content), ReadOptions())
    assert str(caught.value).startswith(str(tmp_path / "dev.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_redocred_is_what_its_table_says(shared: Path) -> None:
    data = readers.read(shared / "data/redocred/dev_revised.json")
    assert isinstance(data.inputs, Pairs)
    assert (len(data.inputs.documents), len(data), data.num_labels) == (
        500,
        193_232,
        95,
    )
    test = readers.read(shared / "data/redocred/test_revised.json")
    assert readers.aligned([data, test])[0].num_labels == 96, "one relation is in the test file alone"
    lengths = data.targets.crow.diff()
    assert (int((lengths > 0).sum()), int((lengths > 1).sum())) == (13_362, 3_651)
    assert data.groups is not None
    assert len(data.groups.unique()) == 500
