"""Writes all rows of a real set to one file: `lopsided compare --resplit` splits off other test rows each time.

The folder of sets is that of docs/real_data.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from lopsided.data.inputs import Texts
from lopsided.data.readers import ReadOptions, read
from lopsided.data.storage import write_atomically
from lopsided.models.features import Features
from lopsided.models.heads import dense_targets
from lopsided.models.transformers import Transformer

Settings = dict[str, Any]  # of a comparison
Write = Callable[[Path, Path], Settings]  # (folder of the set, folder to write to) -> how its rows are read


def _lines(folder: Path, *names: str) -> Iterator[str]:
    for name in names:
        yield from (folder / name).read_bytes().decode().rstrip("\n").split("\n")  # texts have other ends of lines


def _written(path: Path, lines: Iterable[str]) -> Settings:
    if not path.exists():
        write_atomically(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))
    return {"data": str(path)}


def goemotions(folder: Path, made: Path) -> Settings:
    file = _written(made / "goemotions.tsv", _lines(folder, "train.tsv", "dev.tsv", "test.tsv"))
    return file | {"column_names": ("text", "labels", "id"), "labels_file": folder / "labels.txt"}


def reuters(folder: Path, made: Path) -> Settings:
    return _written(made / "reuters21578.jsonl", _lines(folder, "train.jsonl", "test.jsonl"))


def nlupp(folder: Path, made: Path) -> Settings:
    files = [folder / domain / f"fold{fold}.json" for domain in ("banking", "hotels") for fold in range(20)]
    rows = (row for file in files for row in json.loads(file.read_text()))
    lines = (json.dumps({"text": row["text"], "labels": row.get("intents", [])}) for row in rows)
    return _written(made / "nlupp.jsonl", lines)


def mulan(folder: Path, made: Path) -> Settings:
    short = folder.name.removeprefix("mulan_")
    test = [line.strip() for line in _lines(folder, f"{short}-test.arff")]
    first = [line.lower() for line in test].index("@data") + 1
    lines = [*_lines(folder, f"{short}-train.arff"), *test[first:]]
    _written(made / f"{short}.xml", _lines(folder, f"{short}.xml"))  # which says what are labels
    return _written(made / f"{short}.arff", lines)


def bibtex(folder: Path, made: Path) -> Settings:
    train, test = (list(_lines(folder, f"bibtex_{part}.txt")) for part in ("train", "test"))
    rows, features, labels = (int(number) for number in train[0].split())
    head = f"{rows + int(test[0].split()[0])} {features} {labels}"
    return _written(made / "bibtex.txt", [head, *train[1:], *test[1:]])


def voc(folder: Path, made: Path) -> Settings:
    return {"data": str(folder / "voc2007test_32.npz"), "unknown_array": "difficult"}


def redocred(folder: Path, made: Path) -> Settings:
    """Takes every fourth document: a document has 400 pairs, and 50 times as many negatives as other sets have rows."""
    documents = [each for part in ("dev", "test") for each in json.loads((folder / f"{part}_revised.json").read_text())]
    return _written(made / "redocred_quarter.json", [json.dumps(documents[::4])])


SETS: dict[str, Write] = {  # those first that take less time
    "mulan_medical": mulan,
    "mulan_emotions": mulan,
    "mulan_enron": mulan,
    "nlupp": nlupp,
    "mulan_scene": mulan,
    "mulan_yeast": mulan,
    "xmc_bibtex": bibtex,
    "voc2007test_32": voc,
    "goemotions": goemotions,
    "reuters21578": reuters,
    "redocred": redocred,
}
LARGE = ("goemotions", "reuters21578", "redocred", "goemotions, encoder")  # an hour or more for some families
MANY_COMBINATIONS = ("goemotions", "goemotions, encoder")  # of labels: 782 outputs of label powerset for 33,000 rows
SPLIT = "reuters21578, ModApte"  # with the test rows that others have
ENCODED = {f"{name}, encoder": name for name in ("nlupp", "goemotions", "reuters21578")}  # by a frozen encoder
KINDS = {
    "nlupp": "n-grams",
    "goemotions": "n-grams",
    "reuters21578": "n-grams",
    "mulan_medical": "sparse rows",
    "mulan_enron": "sparse rows",
    "xmc_bibtex": "sparse rows",
    "voc2007test_32": "images",
    "redocred": "pairs of entities",
    **dict.fromkeys(("mulan_emotions", "mulan_scene", "mulan_yeast"), "tables"),
    **dict.fromkeys(ENCODED, "texts, frozen encoder"),
}


def encode(settings: Settings, model: str, out: Path) -> None:
    """Writes what a frozen sentence encoder makes of texts, with their labels, as `lopsided compare` reads it."""
    options = {name: value for name, value in settings.items() if name != "data"}
    data = read(Path(settings["data"]), ReadOptions(**options))
    texts = cast("Texts", data.inputs)
    rows = cast("Features", Transformer.fit(texts, path=model).encode(texts))
    truth = dense_targets(data.targets, data.num_labels).numpy().astype(np.int8)
    unfinished = out.with_suffix(".part.npz")
    np.savez(unfinished, features=rows.values.float().numpy(), labels=truth)
    unfinished.rename(out)


def _encoded(name: str, data: Path, made: Path, encoder: str | None) -> Path | None:
    """Returns the file of an encoded set; None where it is not there yet, and no encoder is given."""
    out = made / f"{name}-encoder.npz"
    if not out.exists():
        if encoder is None:
            return None
        encode(SETS[name](data / name, made), encoder, out)
    return out


def _split(data: Path, made: Path, encoder: str | None) -> Settings | None:
    """Cuts the encoded texts of Reuters where the published training rows end."""
    name = SPLIT.partition(",")[0]
    out = _encoded(name, data, made, encoder)
    if out is None:
        return None
    files = [made / f"{name}-encoder-{part}.npz" for part in ("train", "test")]
    number = len(list(_lines(data / name, "train.jsonl")))
    with np.load(out) as arrays:
        for file, rows in zip(files, (slice(number), slice(number, None)), strict=True):
            np.savez(file, **{key: arrays[key][rows] for key in arrays.files})
    train, test = map(str, files)
    return {"data": train, "test": test, "model": "mlp(hidden=256)", "bins": "9,35", "keep_overlap": True}


def settings_of(name: str, data: Path, made: Path, encoder: str | None = None) -> Settings | None:
    """Returns how the rows of a set are read; None where it is not encoded yet, and no encoder is given.

    data: the folder of the sets. made: where files are written. encoder: folder of a model of Hugging Face.
    """
    made.mkdir(parents=True, exist_ok=True)
    if name.startswith(SPLIT):
        return _split(data, made, encoder)
    if name not in ENCODED:
        return SETS[name](data / name, made)
    out = _encoded(ENCODED[name], data, made, encoder)
    return {"data": str(out), "model": "linear"} if out else None
