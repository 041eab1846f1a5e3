"""Few rows, few positives: the commands end in a result that says how little it rests on, or in one clear message."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from lopsided.__main__ import main

Labels = Sequence[Sequence[int]]
THREE: Labels = [[row % 3] for row in range(12)]


def write(path: Path, labels: Labels) -> str:
    """Rows of texts that differ, each with a word for each of its labels."""
    lines = [
        {
            "text": f"{path.stem} {row} says " + " ".join(f"word{label}" for label in of_row),
            "labels": [f"l{label}" for label in of_row],
        }
        for row, of_row in enumerate(labels)
    ]
    if path.suffix == ".csv":
        path.write_text("text,labels\n" + "".join(f'{line["text"]},"{",".join(line["labels"])}"\n' for line in lines))
    else:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path.name


def compared(*files: str) -> int:
    """Compares in silence; a warning is an error."""
    names = ("--valid", "--test")
    given = [part for name, file in zip(names, files[1:], strict=False) for part in (name, file)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return main(["compare", files[0], *given, "--losses", "bce,zlpr", "--jobs", "1", "--out", "run"])


@pytest.mark.parametrize(
    ("train", "valid", "test", "message"),
    [
        (THREE, THREE, [[3], [4]], "among 2 test rows"),
        (THREE, THREE, [[], []], "among 2 test rows"),
        (THREE, [[], []], THREE, "among 2 validation rows, a positive"),
        (THREE, THREE, [[1]], "among 1 test row,"),
        ([[0, 1]] * 4, [[0, 1]] * 2, [[0, 1]], "both positives and negatives"),
    ],
    ids=["labels in the test alone", "no label in the test", "none in validation", "one row", "all positive"],
)
def test_where_nothing_can_be_compared_nothing_is_trained(
    train: Labels, valid: Labels, test: Labels, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {"train": train, "valid": valid, "test": test}
    assert compared(*(write(folder / f"{name}.jsonl", labels) for name, labels in parts.items())) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "train.jsonl: nothing to compare: no label has training positives and, " in error
    assert message in error
    assert not (folder / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "labels",
    [
        [[row % 12] for row in range(24)],
        [[row % 5] if row % 4 == 0 else [] for row in range(60)],
        [[0, 1 + row % 4] for row in range(30)],
    ],
    ids=["one label a row", "most rows without", "one label everywhere"],
)
def test_few_positives_end_in_a_result_that_says_so(
    labels: Labels, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(folder / ("rows.jsonl" if [] in labels else "rows.csv"), labels)
    assert compared(data) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Few labels can be tested: " in said
    assert "with 80 % power" not in said, "of what few positives find nothing is claimed"
    assert "logits" not in said.partition("Own: ")[0], "no warning about scores in [0, 1]"
    for command in (["fit", data, "--test", "0.2", "--out", "fitted"], ["evaluate", "fitted", data]):
        assert main(command) == 0
    assert main(["predict", "fitted", data, "--out", "predicted.jsonl"]) == 0


def test_two_training_rows_are_fitted_and_judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The formula of propensities needs three rows; other metrics do not."""
    data = write(folder / "train.jsonl", [[0], [1]])
    test = write(folder / "test.jsonl", [[0], [1], [0, 1]])
    assert main(["fit", data, "--valid", "0", "--test", test, "--out", "run"]) == 0
    assert any(line.split()[:2] == ["PSP@1", "-"] for line in capsys.readouterr().out.splitlines())
    model = json.loads((folder / "run/results.json").read_text())["model"]
    assert model["psp@1"] is None
    assert model["p@1"] >= 0
