"""`lopsided predict` and `evaluate` read rows as those of training were, or as their own options say."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import lopsided
from lopsided.__main__ import main
from tests.models.pictures import pictures, write

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


@pytest.mark.slow
def test_columns_that_say_which_row_it_is_are_kept(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines that are joined are one row, and so its first cell is kept; rows fill more than one block."""
    (folder / "new.csv").write_text('text,"no, of row"\n' + "".join(f"hot bowl,r{row}\n" for row in range(5000)))
    assert main(["predict", str(run), "new.csv", "--keep", "no*"]) == 0
    printed = capsys.readouterr()
    assert printed.err.endswith("predictions of 5000 rows: standard output (rule: own)\n")
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["no, of row"] for row in rows] == [f"r{row}" for row in range(5000)]
    (folder / "two.csv").write_text("text,key,id\nhot bowl,a,=1\nhot bowl,a,2\nraw fish,b,\n")
    for ending in ("csv", "parquet"):
        assert (
            main(["predict", str(run), "two.csv", "--join-by", "key", "--keep", "id,key", "--out", f"o.{ending}"]) == 0
        )
    with (folder / "o.csv").open(newline="") as file:
        assert [[row["id"], row["key"], row["labels"]] for row in csv.DictReader(file)] == [
            ["'=1", "a", '["soup"]'],
            ["", "b", '["sushi"]'],
        ]
    assert pyarrow.parquet.read_table("o.parquet")["id"].to_pylist() == ["=1", ""]


@pytest.mark.parametrize(
    ("file", "keep", "message"),
    [
        ("new.csv", "idd", "no column 'idd' among 'text', 'id', 'labels'; did you mean 'id'? (say which with --keep)"),
        ("new.csv", "id, labels", "--keep: 'labels' is a name of what is written"),
        ("new.csv", "*", "--keep: 'labels' is a name of what is written"),
        ("new.svm", "id", "--keep 'id': a svmlight file has no columns of texts"),
    ],
)
def test_columns_that_cannot_be_kept(
    file: str, keep: str, message: str, run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "new.csv").write_text("text,id,labels\nhot bowl,1,soup\n")
    (folder / "new.svm").write_text("0 1:1\n")
    assert main(["predict", str(run), file, "--keep", keep]) == 2
    assert message in capsys.readouterr().err


def test_predictions_of_images_name_their_files(folder: Path) -> None:
    """The folder to predict has no list, so that nothing else says which prediction is of which image."""
    files = write(folder, pictures(12)[0])
    lines = [f"{name},{label}" for name, label in zip(files.names, ["line", "patch"] * 6, strict=True)]
    (folder / "list.csv").write_text("\n".join(["file_name,labels", *lines]))
    model = ["--model", "patches(patches=2, size=24)", "--valid", "0", "--epochs", "1"]
    assert main(["fit", "list.csv", *model, "--out", "run"]) == 0
    (folder / "new").mkdir()
    for name in ("9.png", "11.png"):
        shutil.copy(name, folder / "new" / f"=of {name}")
    for ending in ("jsonl", "csv", "parquet"):
        assert main(["predict", "run", "new", "--out", f"out.{ending}"]) == 0
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [[*row] for row in rows] == [["image", "labels", "probabilities"]] * 2
    assert [row["image"] for row in rows] == ["=of 11.png", "=of 9.png"]
    assert pyarrow.parquet.read_table("out.parquet").to_pylist() == rows
    with (folder / "out.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [cell["image"] for cell in cells] == ["'=of 11.png", "'=of 9.png"], "no spreadsheet takes it for a formula"
    assert [json.loads(cell["labels"]) for cell in cells] == [row["labels"] for row in rows]


def test_a_model_of_another_version_predicts_but_does_not_go_on(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, folder / "run")
    config = json.loads((run / "config.json").read_text()) | {"lopsided": "0.0.1"}
    (folder / "run/config.json").write_text(json.dumps(config))
    (folder / "new.csv").write_text("text,labels\nhot bowl,soup\n")
    assert main(["predict", "run", "new.csv"]) == 0
    assert main(["evaluate", "run", "new.csv"]) == 0
    (folder / "run/training.json").unlink()
    capsys.readouterr()
    assert main(["fit", "run"]) == 2
    assert "begun with lopsided 0.0.1, this is" in capsys.readouterr().err


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
    assert "P@3" not in capsys.readouterr().out, "of two labels it is the same for every ranking"
    last = max(run.glob("results-new-*.json"), key=lambda path: path.stat().st_mtime)
    assert json.loads(last.read_text())["model"]["map"] == 1
    (folder / "more.csv").write_text("text,labels\nhot bowl,soup\nraw fish,sushi;cake\n")
    assert main(["evaluate", str(run), "more.csv", "--separator", ";"]) == 0
    assert "more.csv: labels that the model does not know, and misses: 1, such as 'cake'\n" in capsys.readouterr().out


@pytest.mark.slow
def test_what_a_category_is_does_not_depend_on_the_other_rows_to_predict(folder: Path) -> None:
    rows = "".join(
        f"{code},{n % 7},{label}\n" for n in range(30) for code, label in (("01", "p"), ("1", "q"), ("A", "r"))
    )
    (folder / "train.csv").write_text("zip,x,labels\n" + rows)
    assert main(["fit", "train.csv", "--valid", "0", "--epochs", "60", "--out", "zips"]) == 0
    (folder / "numbers.csv").write_text("zip,x\n1,3\n01,3\n")
    (folder / "texts.csv").write_text("zip,x\n1,3\n01,3\nA,3\n")
    found = []
    for name in ("numbers.csv", "texts.csv"):
        assert main(["predict", "zips", name, "--out", "found.jsonl"]) == 0
        found.append([json.loads(line)["labels"] for line in Path("found.jsonl").read_text().splitlines()])
    assert found == [[["q"], ["p"]], [["q"], ["p"], ["r"]]]
    pandas = pytest.importorskip("pandas")
    listed = [{"zip": "01", "x": np.int64(3)}, {"zip": 1, "x": 3.5}]
    table = pandas.DataFrame({"x": [3, 3.5], "zip": ["01", "1"]})
    for given in (listed, table):
        assert [row["labels"] for row in lopsided.load("zips").predict(given)] == [["p"], ["q"]]
    assert lopsided.load("zips").predict(table[:0]) == []
    with pytest.raises(ValueError, match="1 of the 2 columns of training are missing here: 'zip'"):
        lopsided.load("zips").predict(table[["x"]])
    (folder / "numbers.csv").write_text("zip,x,labels\n" + "1,3,q\n01,3,p\n" * 3)
    assert main(["evaluate", "zips", "numbers.csv"]) == 0
    (results,) = Path("zips").glob("results-*.json")
    assert json.loads(results.read_text())["decisions"]["micro_f1"] == 1


def test_a_label_that_a_file_never_names_may_be_unknown_there(run: Path, folder: Path) -> None:
    (folder / "known.jsonl").write_text(
        '{"text": "hot bowl", "labels": {"soup": 1}}\n{"text": "raw fish", "labels": {"soup": 0}}\n'
    )
    assert main(["evaluate", str(run), "known.jsonl", "--absent", "unknown"]) == 0
    (results,) = run.glob("results-known-*.json")
    assert json.loads(results.read_text())["decisions"]["micro_precision"] == 1, "of raw fish, sushi is not judged"
