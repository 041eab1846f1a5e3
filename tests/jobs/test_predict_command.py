"""`lopsided predict` and `evaluate` read rows as those of training were, or as their own options say."""

import io
import json
import sys
from pathlib import Path

import pytest

from lopsided.__main__ import main

ROWS = [("hot bowl", "soup"), ("raw fish", "sushi"), ("hot fish", "soup, sushi")] * 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    lines = "".join(f'"{text}";"{labels}"\n' for text, labels in ROWS)
    (folder / "rows.csv").write_text("text;labels\n" + lines)
    out = folder / "run"
    assert main(["fit", str(folder / "rows.csv"), "--valid", "0", "--epochs", "3", "--out", str(out)]) == 0
    return out


INPUTS = {  # the same two texts, and the options that say where they stand
    "as in training": ("text;labels\nhot bowl;\nraw fish;\n", ".csv", []),
    "no labels": ("text\nhot bowl\nraw fish\n", ".csv", []),
    "another column": ("id,meal\n1,hot bowl\n2,raw fish\n", ".csv", ["--text-column", "meal"]),
    "no header": ("hot bowl\nraw fish\n", ".csv", ["--column-names", "text"]),
    "another format": ('{"text": "hot bowl"}\n{"text": "raw fish"}\n', ".jsonl", []),
    "standard input": ("text\nhot bowl\nraw fish\n", "", []),
    "another format of it": ('[{"text": "hot bowl"}, {"text": "raw fish"}]', "", ["--format", "json"]),
}


@pytest.mark.parametrize("name", INPUTS)
def test_predict(
    name: str, run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, ending, options = INPUTS[name]
    new = "new" + ending if ending else "-"
    if ending:
        (folder / new).write_text(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert main(["predict", str(run), new, "--out", "out.jsonl", *options]) == 0
    labels = [json.loads(line)["labels"] for line in (folder / "out.jsonl").read_text().splitlines()]
    assert labels == [["soup"], ["sushi"]]
    assert "predictions of 2 rows: out.jsonl" in capsys.readouterr().out


def test_what_is_found_out_about_a_file_is_said(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "new.csv").write_bytes("text\tlabels\nhot café\tsoup\nraw fish für\tsushi\n".encode("cp1252"))
    assert main(["evaluate", str(run), "new.csv", "--delimiter", "\\t"]) == 0
    said = "new.csv: encoding: not UTF-8; cp1252, as its bytes suggest (change it with --encoding)\n"
    assert said in capsys.readouterr().out
    assert main(["predict", str(run), "new.csv", "--delimiter", "\\t", "--out", "-"]) == 0
    printed = capsys.readouterr()
    assert said in printed.err
    assert all(json.loads(line) for line in printed.out.splitlines()), "only predictions"


def test_evaluate(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "new.csv").write_text("meal,soup,sushi\nhot bowl,1,0\nraw fish,0,1\n")
    assert main(["evaluate", str(run), "new.csv"]) == 2
    assert "if those are the labels, --label-columns 'soup,sushi'" in capsys.readouterr().err
    assert main(["evaluate", str(run), "new.csv", "--text-column", "meal", "--label-columns", "soup,sushi"]) == 0
    last = max(run.glob("results-new-*.json"), key=lambda path: path.stat().st_mtime)
    assert json.loads(last.read_text())["model"]["map"] == 1
