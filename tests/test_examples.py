"""The examples, and the page on verdicts, print what they show."""

import csv
import importlib.util
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from lopsided.jobs.folder import ComparisonFolder
from tests.models.pictures import pictures, write
from tests.models.tiny import write_encoder
from tests.relations import make_documents, official

ROOT = Path(__file__).parents[1]
EXAMPLE, PAGE = ROOT / "examples/own_loop", ROOT / "docs/comparing.md"


def block(page: Path, language: str) -> str:
    """The first block of code in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


@pytest.mark.slow
def test_the_page_of_verdicts_shows_what_its_code_prints(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block(PAGE, "python"), PAGE.name, "exec"), {})
    assert lines(capsys.readouterr().out) == lines(block(PAGE, "text"))


@pytest.mark.slow
def test_the_example_prints_what_its_page_shows_but_for_numbers(folder: Path) -> None:
    line = [sys.executable, str(EXAMPLE / "main.py")]
    printed = subprocess.run(line, check=True, capture_output=True, text=True, timeout=300).stdout
    assert (folder / "runs/own_loop/report.html").exists()
    shapes = []
    for text in (printed, block(EXAMPLE / "README.md", "text")):
        rows = (line.split() for line in lines(text) if re.search(r"\.\d{3}", line))
        shapes.append([row[0] for row in rows if len(row) > 3 and not row[0].startswith("•")])
    assert shapes[0] == shapes[1], "the digits are those of a machine"
    assert {"mAP", "asl", "zlpr"} <= set(shapes[0])


def small(name: str, capsys: pytest.CaptureFixture[str], *words: str, **sizes: Any) -> str:
    """What an example prints when it is run in small, in the working directory."""
    found = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}/main.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.main(*words, out=Path("out"), **sizes)
    return capsys.readouterr().out


def first_words(text: str) -> list[str]:
    """How the lines of tables begin, which have a number with decimals after two blanks."""
    return re.findall(r"^ ?(\S.*?) {2,}.*\.\d{2,3}\b.*$", text, re.MULTILINE)


def shown(name: str) -> str:
    """What the page of an example shows as printed."""
    return block(ROOT / f"examples/{name}/README.md", "text")


@pytest.mark.slow
def test_gamma_goes_where_its_target_is(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    printed = small("adaptive_asymmetry", capsys, images=300, epochs=20, seeds=1)
    found = re.findall(r"^(\S.*?) +(\d+\.\d\d) +(\.?[\d.]+) +([\d.]+) +(-?[\d.]+)$", printed, re.MULTILINE)
    gap, gamma = ({row[0]: float(row[column]) for row in found} for column in (4, 1))
    for target in (-0.2, 0.0, 0.1, 0.2):
        assert abs(gap[f"target {target:g}"] - target) < 0.08, target
    assert gamma["target -0.2"] < gamma["target 0"] < gamma["target 0.1"] < gamma["target 0.2"]
    assert gamma["target 0.1, the printed sign"] in (0, 15), "it runs to a bound"
    assert set(first_words(shown("adaptive_asymmetry"))) <= set(first_words(printed))
    assert (folder / "out/gamma.png").stat().st_size > 10_000


@pytest.mark.slow
def test_single_label_losses_are_compared(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    printed = small("single_label", capsys, epochs=20, seeds=1)
    names = first_words(printed)
    assert names == first_words(shown("single_label"))
    frequent, rare = (
        {
            name: float(line.split()[column])
            for name, line in zip(names, printed.splitlines()[-len(names) :], strict=True)
        }
        for column in (-2, -1)
    )
    assert all(frequent[name] > max(rare[name], 0.8) for name in ("cross entropy", "asl, softmax"))
    assert rare["logit adjustment"] > rare["cross entropy"]
    assert (folder / "out/recall.png").stat().st_size > 10_000


def write_texts() -> None:
    """Writes train.jsonl and test.jsonl: texts that give their labels away."""
    draw = random.Random(0)
    for name, rows in (("train", 300), ("test", 150)):
        made = []
        for _ in range(rows):
            labels = draw.sample(range(6), draw.choice([1, 1, 2]))
            words = [f"word{label}{draw.randrange(6)}" for label in labels for _ in range(2)] + [draw.choice("abc")]
            made.append(json.dumps({"text": " ".join(words), "labels": [f"label {label}" for label in labels]}))
        Path(f"{name}.jsonl").write_text("\n".join(made) + "\n")


@pytest.mark.slow
def test_hidden_positives_are_found(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write_texts()
    printed = small("missing_labels", capsys, "train.jsonl", "test.jsonl", shares=(0.0, 0.4), top=60)
    assert set(first_words(shown("missing_labels"))) <= set(first_words(printed))
    (first,) = re.findall(r"^first 50 +50 +(\d+) %$", printed, re.MULTILINE)
    assert int(first) > 80, "by chance it would be 12"
    assert (folder / "out/hidden.png").stat().st_size > 10_000


@pytest.mark.slow
def test_texts_are_compared(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write_texts()
    printed = small("text_classification", capsys, "train.jsonl", "--test", "test.jsonl")
    table = printed[printed.index("\nloss ") :]
    assert first_words(table) == first_words(shown("text_classification")) == ["bce", "focal", "asl", "apl", "zlpr"]
    assert all(float(line.split()[1]) > 0.9 for line in table.strip().splitlines()[1:]), "the texts say it"
    assert (folder / "out/groups.png").stat().st_size > 10_000


@pytest.mark.slow
def test_labels_are_softened(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    draw = np.random.default_rng(0)
    weights = draw.normal(size=(6, 4))
    for name, rows in (("train", 200), ("test", 120)):
        features = draw.normal(size=(rows, 6)).astype(np.float32)
        np.savez(f"{name}.npz", features=features, labels=(features @ weights > 2).astype(int))
    printed = small("zlpr_comparison", capsys, "train.npz", "test.npz", epochs=8, seeds=1)
    table, page = (text.partition("AUROC")[0] for text in (printed, shown("zlpr_comparison")))
    assert set(first_words(page)) - {"mAP"} <= set(first_words(table))
    found = re.findall(r"^ ((?:bce|zlpr).*?) {2,}(\.\d{3})", table, re.MULTILINE)
    assert len(found) == 8
    assert all(float(value) > 0.5 for _, value in found), "by chance it would be about .2"


def write_coco(seed: int, part: str, rows: int) -> None:
    """Writes images and their instances as COCO has them; an image of neither category has no annotation."""
    images, truth = pictures(rows, side=60, seed=seed)
    for made in ("annotations", part):
        Path("coco", made).mkdir(parents=True, exist_ok=True)
    names = write(Path("coco", part), images).names
    content = {
        "images": [{"id": row, "file_name": name} for row, name in enumerate(names)],
        "annotations": [{"image_id": row, "category_id": column + 1} for row, column in truth.nonzero().tolist()],
        "categories": [{"id": 1, "name": "patch"}, {"id": 2, "name": "line"}],
    }
    Path(f"coco/annotations/instances_{part}.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_images_in_the_format_of_coco_are_compared_by_its_recipe(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    write_coco(0, "train2017", 16)
    write_coco(1, "val2017", 12)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained("tiny")
    recipe = (ROOT / "examples/image_classification/coco.toml").read_text()
    assert "microsoft/resnet-101" in recipe
    Path("coco/coco.toml").write_text(recipe.replace("microsoft/resnet-101", str(folder / "tiny")))
    printed = small("image_classification", capsys, "coco/coco.toml", "--epochs", "1", "--seeds", "1")
    names = first_words(printed[printed.index("\nloss ") :])
    assert names == first_words(shown("image_classification")) == ["bce", "focal", "asl", "apl", "zlpr"]
    stored = json.loads(Path("out/config.json").read_text())["config"]
    assert (stored["batch_size"], stored["average"], stored["schedule"]) == (128, 0.9997, "one_cycle")
    assert "size=448" in stored["model"]
    assert Path("out/losses.png").stat().st_size > 10_000


@pytest.mark.slow
def test_images_that_are_built_in_are_compared(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    quick = ["--images", "60", "--epochs", "1", "--seeds", "1", "--learning-rate", "0.003", "--jobs", "1"]
    printed = small("image_classification", capsys, "digits-grid", *quick)
    assert set(first_words(shown("image_classification"))) == set(first_words(printed[printed.index("\nloss ") :]))


@pytest.mark.slow
def test_relations_are_judged_as_the_official_scorer_does(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    train, test = make_documents(24, 0), make_documents(10, 1)
    for name, documents in (("train", train), ("test", test)):
        Path(f"{name}.json").write_text(json.dumps(documents))
    words = ("--model", f"pair_transformer(path={write_encoder(folder / 'tiny')}, hidden=16)", "--epochs", "6")
    printed = small(
        "relation_extraction",
        capsys,
        "train.json",
        "test.json",
        "20",
        *words,
        "--learning-rate",
        "0.01",
        "--seeds",
        "1",
    )
    table = printed[printed.index("\nloss ") :]
    assert first_words(table) == first_words(shown("relation_extraction"))
    compared = ComparisonFolder.open(Path("out/compared"))
    for line in table.strip().splitlines()[1:]:
        loss, _, *values = line.split()[:6]
        found = compared.read_results().losses[loss]
        scores = compared.open_run(loss, 0).read_scores("test", 10 * 12).values
        for place, threshold in enumerate((found.own_threshold, found.tuned_thresholds[0])):
            assert threshold is not None
            said = {
                (row // 12, row % 12 // 3, row % 3 + (row % 3 >= row % 12 // 3), f"P{column + 1}")
                for row, column in (scores > threshold).nonzero().tolist()
            }
            expected = official(train[:20], test, said)
            assert [float(value) for value in values[2 * place :][:2]] == pytest.approx(expected, abs=6e-4), loss
        assert expected[0] > expected[1] > 0, "at the tuned threshold"
    assert (folder / "out/losses.png").stat().st_size > 10_000


@pytest.mark.slow
def test_digits_are_detected(capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocotools")
    monkeypatch.syspath_prepend(ROOT / "examples/object_detection")
    detector = importlib.import_module("detector")
    scenes = detector.draw_scenes(np.arange(1797), 20, np.random.default_rng(0))
    classes, sides = (torch.stack(each) for each in zip(*(detector.assign(*one) for one in scenes[1]), strict=True))
    right, doubled = 20.0 * classes - 10, lambda _: (20.0 * classes - 10, 2 * sides)
    assert detector.average_precision(lambda _: (right, sides), scenes) == (1, 1), "every digit has a location"
    assert detector.average_precision(doubled, scenes)[1] < 0.1
    assert detector.average_precision(lambda _: (right.roll(1, 2), sides), scenes)[1] < 0.1

    printed = small("object_detection", capsys, canvases=10, epochs=1, seeds=2)
    names = first_words(printed)
    assert names == first_words(shown("object_detection"))
    assert {"focal", "asl", "zlpr"} < set(names)
    assert (folder / "out/precision.png").stat().st_size > 10_000
    sys.modules.pop("detector")


def test_the_table_of_all_training_rows_is_what_was_measured() -> None:
    with (ROOT / "benchmarks/results/end_to_end.csv").open(newline="") as file:
        found = {(row["set"], row["contender"].removeprefix("lopsided ")): row["mAP"] for row in csv.DictReader(file)}
    page = (ROOT / "examples/text_classification/README.md").read_text()
    head, _, *rows = re.findall(r"^\| (.+) \|$", page[page.index("| set | ") :].split("\n\n")[0], re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        name, *cells = row.split(" | ")
        for contender, cell in zip(head.split(" | ")[1:], cells, strict=True):
            assert float(cell) == float(found[name, contender]), (name, contender)
