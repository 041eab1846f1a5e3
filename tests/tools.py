"""What the tests of the command share."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress as Bars
from safetensors.torch import load_file
from torch import Tensor

from lopsided.data.dataset import Dataset, Splits
from lopsided.data.inputs import Texts
from lopsided.jobs.config import Config
from lopsided.jobs.evidence import Evidence, Training
from lopsided.jobs.progress import Progress
from lopsided.jobs.rows import load
from lopsided.jobs.schema import DataSummary, LabelTests, Results, SplitSizes
from lopsided.jobs.score import Scored
from lopsided.models.methods import parse_method
from lopsided.models.recipe import Recipe
from lopsided.targets import SparseTargets
from lopsided.training import loop

TINY = ["--images", "600", "--learning-rate", "0.003", "--epochs", "2", "--seeds", "2", "--losses", "bce,asl,zlpr"]

HOSTILE = (  # names of labels
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script><script>alert(3)</script>",
    "{{ 7 * 7 }} $x^2$ &lt;b&gt; <!-- ]]>",
    "w" * 70,
    "plain",
)

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes, which Windows lacks")


def read_results(run: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((run / "results.json").read_text())
    return results


def load_quietly(config: Config) -> Splits:
    return load(config, Bars(disable=True))


def quiet_progress() -> Progress:
    """Progress that is shown to nobody, of trainings that are about to begin."""
    progress = Progress(Console(quiet=True))
    progress.preparing()
    progress.plan(1)
    return progress


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of an epoch."""
    step = loop._Loop._step
    left = iter(range(steps))

    def stopping(*arguments: Any) -> float:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(loop._Loop, "_step", stopping)


def scores_of(run: Path, part: str = "test") -> Tensor:
    """The stored scores, (rows, L), of validation or test rows."""
    return load_file(run / f"scores-{part}.safetensors")["values"]


def made_evidence(scored: dict[str, list[Scored]], splits: Splits | None = None, **values: Any) -> Evidence:
    """Evidence of scores that nobody trained; what is not given is of no rows at all."""
    nothing = Dataset(Texts(()), SparseTargets.from_indices([]), ("a",))
    parts = {} if splits is None else splits.parts()
    made: dict[str, Any] = {
        "data": made_results().data,
        "test": parts.get("test", nothing),
        "positives": {name: part.hard_counts() for name, part in parts.items()},
        "metric": "map",
        "reference": "bce",
        "scored": scored,
        "trained": {loss: Training(parse_method(loss)) for loss in scored},
    }
    return Evidence(**made | values)


def made_results(**values: Any) -> Results:
    """Results of nothing, but for the values that are given."""
    nothing: dict[str, Any] = {
        "data": DataSummary(
            name="made", rows=SplitSizes(train=1, valid=1, test=1), labels=1, positives_per_row=1.0, missing=0.0
        ),
        "recipe": Recipe(1, 1, 1.0),
        "losses": {},
        "comparisons": {},
        "other_comparisons": {},
        "to_linear": {},
        "baselines": {},
        "groups": [],
        "tested": LabelTests(with_positives=1, few=0),
        "tuned_on": "the validation rows",
        "notes": [],
    }
    texts = {"lopsided": "0", "torch": "0", "threads": 1, "seeds": 1, "metric": "map", "reference": "bce"}
    return Results(**(nothing | texts | values))


def command(arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "lopsided", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False, **options)


def write_texts(path: Path, rows: int = 120, first: int = 0) -> Path:
    """Texts whose words give the labels away, each another one: copies would stay together in a split."""
    words = {"sport": "goal match", "music": "song guitar", "food": "bread soup"}
    random = np.random.default_rng(first)
    with path.open("w") as file:
        for number in range(first, first + rows):
            labels = [label for label in words if random.random() < 0.4]
            text = " ".join(["the", *(random.choice(words[label].split()) for label in labels), f"today {number}"])
            file.write(json.dumps({"text": text, "labels": labels}) + "\n")
    return path
