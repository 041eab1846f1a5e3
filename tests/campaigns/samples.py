"""Files of every format that is read, made anew for each trial; of some it is known what rows they hold."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import openpyxl
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from lopsided.data.options import ReadOptions
from tests.campaigns.mutations import as_json, labels, plain_text, text

NEGATIVE = ReadOptions(absent="negative")
Row = tuple[str, frozenset[str]]  # a text and its labels


@dataclass(frozen=True)
class Sample:
    """A file, and those beside it. rows: what it holds, None where nobody but the reader can tell."""

    name: str
    content: bytes
    options: ReadOptions = NEGATIVE
    rows: list[Row] | None = None
    beside: tuple[tuple[str, bytes], ...] = ()


def _rows(random: Random) -> list[tuple[str, list[str]]]:
    return [(text(random), labels(random)) for _ in range(random.randint(2, 8))]


def _known(rows: list[tuple[str, list[str]]]) -> list[Row]:
    return [(said, frozenset(names)) for said, names in rows]


def csv_file(random: Random) -> Sample:
    rows, tabs = _rows(random), random.random() < 0.5
    file = io.StringIO()
    end = random.choice(("\n", "\r\n"))
    delimiter = "\t" if tabs else ","
    if random.random() < 0.5:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    else:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(("text", "labels"))
    writer.writerows((said, "|".join(names)) for said, names in rows)
    options = ReadOptions(delimiter="\t" if tabs else ",", quoting="standard", separator="|", absent="negative")
    asked = options if random.random() < 0.8 else ReadOptions()
    known = _known(rows) if asked is options else None
    return Sample(f"rows.{'tsv' if tabs else 'csv'}", file.getvalue().encode(), asked, known)


def json_lines(random: Random) -> Sample:
    rows = _rows(random)
    objects = [as_json({"text": said, "labels": names}, random) for said, names in rows]
    if random.random() < 0.3:
        return Sample("rows.json", b"[" + b",\n".join(objects) + b"]", rows=_known(rows))
    return Sample("rows.jsonl", b"".join(each + b"\n" for each in objects), rows=_known(rows))


def cells_of_labels(random: Random) -> Sample:
    """Labels as people write them."""
    forms: tuple[Callable[[list[str]], object], ...] = (
        str,
        json.dumps,
        ", ".join,
        "; ".join,
        lambda names: dict.fromkeys(names, 1),
        lambda names: [{"label": name, "score": 0.5} for name in names],
        lambda names: [int("x" in names), int("é" in names), 0],
        lambda names: " ".join(str(int(name in names)) for name in ("x", "é", "food")),
    )
    form = random.choice(forms)
    lines = [as_json({"text": said, "labels": form(names)}, random) + b"\n" for said, names in _rows(random)]
    return Sample("cells.jsonl", b"".join(lines), ReadOptions())


def fasttext_lines(random: Random) -> Sample:
    rows = [
        (plain_text(random), [name.replace(" ", "-") for name in labels(random)]) for _ in range(random.randint(2, 8))
    ]
    lines = [" ".join([*(f"__label__{name}" for name in names), said]) + "\n" for said, names in rows]
    labelled = any(names for _, names in rows)  # else nothing tells the format
    return Sample("rows.train", "".join(lines).encode(), rows=_known(rows) if labelled else None)


def _sparse_row(random: Random, features: int = 9) -> str:
    chosen = sorted(random.sample(range(features), random.randint(0, 4)))
    return " ".join(f"{each}:{random.choice(('1', '0.5', '-2e-3', '.25', '0', '3.'))}" for each in chosen)


def sparse_rows(random: Random) -> Sample:
    """svmlight, or the extreme-classification repository's file, or its two files."""
    rows = [(sorted(random.sample(range(6), random.randint(0, 3))), _sparse_row(random)) for _ in range(6)]
    lines = [f"{','.join(map(str, numbers))} {features}\n" for numbers, features in rows]
    form = random.randrange(3)
    if form == 2:
        first = "".join([f"{len(rows)} 6\n", *(" ".join(f"{number}:1" for number in each) + "\n" for each, _ in rows)])
        features = "".join([f"{len(rows)} 9\n", *(each + "\n" for _, each in rows)])
        return Sample("trainX.txt", features.encode(), beside=(("trainY.txt", first.encode()),))
    header = [f"{len(rows)} 9 6\n"] if form else []
    return Sample("rows.txt" if form else "rows.svm", "".join([*header, *lines]).encode())


def arff(random: Random) -> Sample:
    head = ["@relation 'x: -C 2'", "@attribute l0 {0,1}", "@attribute l1 {0,1}", "@attribute 'a b' numeric"]
    head += ["@attribute c {red,'dark blue'}", "@data"]
    if random.random() < 0.3:
        lines = [f"{{0 1, 2 {random.random():.3f}}}" for _ in range(4)]
    else:
        cells = [(random.choice(("?", "1", "2.5")), random.choice(("red", "'dark blue'"))) for _ in range(4)]
        lines = [f"{place % 2},1,{size},{colour}" for place, (size, colour) in enumerate(cells)]
    return Sample("rows.arff", "\n".join([*head, *lines]).encode())


def exports(random: Random) -> Sample:
    shapes: tuple[Callable[[str, list[str]], object], ...] = (
        lambda said, names: {
            "data": {"text": said},
            "annotations": [{"result": [{"from_name": "x", "value": {"choices": names}}]}],
        },
        lambda said, names: {"text": said, "options": [{"id": 1}], "accept": names, "answer": "accept"},
        lambda said, names: {"text": said, "label": (names or ["x"])[0], "answer": "accept"},
        lambda said, names: {"text": said, "annotations": [{"label": name, "user": 1} for name in names]},
        lambda said, names: [said, {"cats": dict.fromkeys(names, 1.0)}],
        lambda said, names: {"paragraphs": [{"raw": said, "cats": [{"label": name, "value": 1} for name in names]}]},
    )
    shape = random.choice(shapes)
    lines = [as_json(shape(said, names), random) for said, names in _rows(random)]
    if random.random() < 0.5:
        return Sample("export.json", b"[" + b",".join(lines) + b"]")
    return Sample("export.jsonl", b"\n".join(lines))


def documents(random: Random) -> Sample:
    mention = {"sent_id": 0, "pos": [0, 1], "type": "PER", "name": "a"}
    made = {
        "title": text(random),
        "sents": [text(random).split(), ["b"]],
        "vertexSet": [[mention], [mention | {"sent_id": 1}], [mention]],
        "labels": [{"h": 0, "t": 1, "r": "P1"}, {"h": 2, "t": 0, "r": "P2"}],
    }
    if random.random() < 0.5:
        return Sample("documents.json", as_json([made, made], random))
    return Sample("documents.jsonl", as_json(made, random) + b"\n" + as_json(made, random))


def instances(random: Random) -> Sample:
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(3)],
        "annotations": [{"image_id": i, "category_id": i % 2 + 1} for i in range(3)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": text(random)}],
    }
    return Sample("instances.json", as_json(content, random), beside=tuple((f"{i}.png", _png()) for i in range(3)))


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (9, 99, 200)).save(file, "PNG")
    return file.getvalue()


def arrays(random: Random) -> Sample:
    file = io.BytesIO()
    features = np.arange(24, dtype=random.choice(("f4", "f8", "i2", "u1"))).reshape(6, 4)
    targets = np.eye(6, 3, dtype=random.choice(("f4", "i1", "?")))
    if random.random() < 0.4:
        np.save(file, features)
        beside = io.BytesIO()
        np.save(beside, targets)
        return Sample("X.npy", file.getvalue(), beside=(("Y.npy", beside.getvalue()),))
    save = random.choice((np.savez, np.savez_compressed))
    save(file, X=features, Y=targets, names=np.array(["a", "b", "c"]))
    return Sample("rows.npz", file.getvalue())


def columnar(random: Random) -> Sample:
    rows = _rows(random)
    table = pa.table({"text": [said for said, _ in rows], "labels": [names for _, names in rows]})
    file = io.BytesIO()
    if random.random() < 0.6:
        parquet.write_table(table, file, compression=random.choice(("none", "snappy", "gzip")))
        return Sample("rows.parquet", file.getvalue(), rows=_known(rows))
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return Sample("rows.arrow", file.getvalue(), rows=_known(rows))


def sheet(random: Random) -> Sample:
    book = openpyxl.Workbook()
    book.active.append(["text", "labels"])
    for _ in range(3):
        book.active.append([plain_text(random), "|".join(labels(random))])
    file = io.BytesIO()
    book.save(file)
    options = ReadOptions(separator="|", absent="negative")
    if random.random() < 0.5:
        return Sample("rows.xlsx", file.getvalue(), options)
    return Sample("rows.xlsx", _stored(file), options)


def _stored(packed: io.BytesIO) -> bytes:
    """The same archive without compression, so that damage reaches its XML."""
    file = io.BytesIO()
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return file.getvalue()


def tables(random: Random) -> Sample:
    """Rows of numbers and categories, with a column for each label."""
    lines = ["size,colour,x,y"]
    for _ in range(6):
        size = random.choice(("1", "2.5", "", "1,234", "1e3"))
        cells = [f'"{size}"', random.choice(("red", "blue")), random.choice("01?"), random.choice("01")]
        lines.append(",".join(cells))
    options = ReadOptions(label_columns=("x", "y"), decimal=random.choice((None, ",", ".")))
    return Sample("table.csv", "\n".join(lines).encode(), options)


MAKERS = {
    "csv, tsv": csv_file,
    "json": json_lines,
    "cells of labels": cells_of_labels,
    "fasttext": fasttext_lines,
    "svmlight": sparse_rows,
    "arff": arff,
    "exports": exports,
    "docred": documents,
    "coco": instances,
    "npy": arrays,
    "parquet, arrow": columnar,
    "xlsx": sheet,
    "tables": tables,
}
