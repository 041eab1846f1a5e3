"""A folder in the place of a data file: images with a list, and what `datasets` writes with save_to_disk."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest

from lopsided.__main__ import main
from lopsided.jobs.compare_config import make_config
from lopsided.jobs.config import fingerprint
from tests.models import pictures

ROWS = 60
CLASSES = {"feature": {"names": ["patch", "line"], "_type": "ClassLabel"}, "_type": "Sequence"}
HUGGING_FACE = {"features": {"text": {"dtype": "string", "_type": "Value"}, "labels": CLASSES}}


def save_images(path: Path) -> None:
    images, truth = pictures.pictures(ROWS)
    pictures.write(path, images)
    names = [",".join(np.array(["patch", "line"])[row.numpy()]) for row in truth]
    path.joinpath("list.csv").write_text(
        "path,labels\n" + "".join(f'{n}.png,"{each}"\n' for n, each in enumerate(names))
    )


def save_texts(path: Path) -> None:
    rows = [{"text": f"row {n} {'red ' * (n % 2)}{'bright ' * (n % 3 == 0)}"} for n in range(ROWS)]
    labels = [[0] * (n % 2) + [1] * (n % 3 == 0) for n in range(ROWS)]
    table = pyarrow.table({"text": [row["text"] for row in rows], "labels": labels})
    with pyarrow.ipc.new_stream(path / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (path / "dataset_info.json").write_text(json.dumps(HUGGING_FACE))


SAVE = {"images": save_images, "texts": save_texts}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAVE)
def test_every_command_takes_a_folder(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows").mkdir()
    SAVE[kind](Path("rows"))
    assert main(["fit", "rows", "--test", "0.2", "--epochs", "2", "--out", "rows/run"]) == 0
    assert main(["evaluate", "rows/run", "rows"]) == 0
    assert main(["predict", "rows/run", "rows", "--out", "labels.jsonl"]) == 0
    lines = [json.loads(line) for line in Path("labels.jsonl").read_text().splitlines()]
    assert len(lines) == ROWS
    assert {label for line in lines for label in line["labels"]} == {"patch", "line"}
    assert main(["compare", "rows", "--losses", "bce,asl", "--seeds", "1", "--epochs", "2", "--out", "compared"]) == 0
    pytest.importorskip("onnxscript")
    assert main(["export", "rows/run", "--out", "model.onnx"]) == 0


@pytest.mark.parametrize("kind", SAVE)
def test_a_folder_of_data_is_known_again_whatever_is_trained_in_it(tmp_path: Path, kind: str) -> None:
    SAVE[kind](tmp_path)
    before = fingerprint(make_config({"data": str(tmp_path)}))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    (run / "history.csv").write_text("loss")
    assert fingerprint(make_config({"data": str(tmp_path)})) == before
    for file in sorted(tmp_path.glob("*")):
        if file.suffix in {".csv", ".arrow"}:
            file.write_bytes(file.read_bytes()[:-1])
            assert fingerprint(make_config({"data": str(tmp_path)})) != before
