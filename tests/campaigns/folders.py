"""A run in which somebody changed a file ends in a result or one line, whichever command reads it."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from lopsided.__main__ import main
from lopsided.training import loop
from tests.campaigns.campaign import copied, kind_of, randomness
from tests.campaigns.children import in_child
from tests.campaigns.tampering import tamper
from tests.tools import stop_after, write_texts

_STEPS = "ngrams(hidden=4, solve=False)"
_COMMANDS: dict[str, list[list[str]]] = {  # by the folder that they read
    "solved": [
        ["evaluate", "solved", "texts.jsonl"],
        ["predict", "solved", "texts.jsonl", "--out", "out.csv"],
        ["inspect", "solved"],
        ["fit", "solved"],
        ["fit", "texts.jsonl", "--out", "new", "--decide", "solved", "--epochs", "1"],
        ["inspect", "solved", "--missing", "--folds", "2", "--top", "3"],
    ],
    "stopped": [["fit", "stopped"], ["evaluate", "stopped", "texts.jsonl"], ["inspect", "stopped"]],
    "compared": [
        ["report", "compared"],
        ["compare", "compared"],
        ["inspect", "compared"],
        ["fit", "--like", "compared", "--out", "new", "--epochs", "1"],
        ["evaluate", "compared/runs/0-bce-seed0"],
        ["predict", "compared/runs/0-bce-seed0", "texts.jsonl", "--out", "out.parquet"],
    ],
}


class Folders:
    """Tampers with each kind of file of three runs: one of a solved model, one that was stopped, one comparison."""

    name = "folders"
    kinds: tuple[str, ...] = (
        *("config.json", "model.json", "model.safetensors", "decision.safetensors", "training.json", "history.csv"),
        *("state.safetensors", "results.json", "details.json", "trials.csv", "scores-test.safetensors", "fold"),
        *("scores-tuning.safetensors", "seen-rows.safetensors", "baselines.safetensors", "trials.db"),
    )

    def run(self, numbers: range, seed: int, where: Path) -> Iterator[tuple[int, str | None]]:
        intact = make_runs(where / "intact")
        for number in numbers:
            random = randomness(seed, number)
            with copied(intact, where / "copy"):
                yield number, trial(where / "copy", kind_of(self, number), random)


def trial(folder: Path, kind: str, random: Random) -> str | None:
    """Tampers with one file of a kind, and reads it."""
    victim = random.choice(sorted(path for path in folder.rglob("*") if path.name.startswith(kind)))
    run = victim.relative_to(folder).parts[0]
    how = tamper(victim, random)
    line = random.choice(_COMMANDS[run])
    ended = in_child(lambda: main(line), folder)
    fault = ended.fault()
    return None if fault is None else f"{victim.relative_to(folder)}, {how}; {' '.join(line)}: {fault}"


def make_runs(folder: Path) -> Path:
    """Makes the three runs, with paths that hold in a copy of the folder."""
    folder.mkdir()
    write_texts(folder / "texts.jsonl", 80)
    lines = [
        ["fit", "texts.jsonl", "--test", "0.2", "--out", "solved"],
        ["inspect", "solved", "--missing", "--folds", "2"],
        ["evaluate", "solved", "texts.jsonl"],
        ["compare", "texts.jsonl", "--losses", "bce,asl", "--out", "compared", "--model", _STEPS, "--seeds", "1"],
    ]
    lines[-1] += ["--epochs", "2", "--batch-size", "16"]
    for line in lines:
        ended = in_child(lambda line=line: main(line), folder)  # type: ignore[misc]
        assert ended.code == 0, ended.err
    ended = in_child(lambda: _stopped("stopped"), folder)
    assert ended.code == 130, ended.err
    for path in folder.rglob("config.json"):
        path.write_text(path.read_text().replace(f"{folder}/", ""))
    return folder


def _stopped(out: str) -> int:
    """A run that is stopped in its second epoch."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(7, patch)
        patch.setattr(loop, "_SAVE_SECONDS", 0)
        return main(["fit", "texts.jsonl", "--out", out, "--model", _STEPS, "--batch-size", "16", "--epochs", "3"])
