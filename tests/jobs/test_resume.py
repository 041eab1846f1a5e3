"""A run that was killed (kill -9) at any point goes on as if nothing had happened, bit by bit."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file

from lopsided.__main__ import main
from lopsided.data.make_xmc import XmcMaker, make_xmc
from tests.tools import read_results, write_texts

# Forks for each scenario, as importing takes longest; a child kills itself at the nth renaming to a name, so that a
# complete temporary file is left. States are saved after every step.
KILL = """
import json, os, signal, sys
from lopsided.__main__ import main
from lopsided import cli
from lopsided.data import storage
from lopsided.training import loop

replace = os.replace

def run(arguments, name, nth):
    left = nth
    def killing(source, target):
        nonlocal left
        left -= os.path.basename(target) == name
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    storage.os.replace = killing
    loop._SAVE_SECONDS = 0
    os._exit(main(arguments))

for scenario in json.load(sys.stdin):
    child = os.fork()
    if not child:
        run(*scenario)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (scenario, status)
"""


class Point(NamedTuple):
    """The nth renaming of a temporary file to this name. There are 17 steps, and 18 states, an epoch of sparse rows."""

    name: str
    nth: int


MOVING = "--loss", "gr(steepness=0..2, middle=0.5..0.8, width=2..0.5)"
POINTS = {
    "before the first file": Point("config.json", 1),
    "within the first epoch": Point("state.safetensors", 9),
    "between epochs": Point("history.csv", 2),
    "within a later epoch": Point("state.safetensors", 30),
    "before the rule": Point("decision.safetensors", 1),
    "before the end": Point("training.json", 1),
}
# of a fused head and dropout; of momentum, a moving average and schedules of rate and loss; of all that a head may be
LINES = {
    "sparse": ["fit", "train.txt", "--model", "bag(hidden=8)", "--epochs", "3", "--batch-size", "16"],
    "texts": ["fit", "texts.jsonl", "--model", "ngrams(hidden=8)", "--epochs", "3", "--schedule", "one_cycle", *MOVING],
    "compared": [
        "compare",
        "texts.jsonl",
        "--losses",
        "bce,powerset",
        "--seeds",
        "1",
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--model",
        "ngrams(solve=False)",
        "--learning-rate",
        "100",
    ],
}
SCENARIOS = {
    **{point: ("sparse", point) for point in POINTS},
    "texts within a later epoch": ("texts", "within a later epoch"),
    "a comparison": ("compared", "within a later epoch"),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run for each scenario, killed there, and one for each line, which was not."""
    folder = tmp_path_factory.mktemp("killed")
    make_xmc(folder, XmcMaker(labels=40, features=60), rows=300, test_rows=20)
    write_texts(folder / "texts.jsonl", 200)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, line in LINES.items():
            assert main([*line, "--out", name]) == 0
        scenarios = [([*LINES[line], "--out", name], *POINTS[point]) for name, (line, point) in SCENARIOS.items()]
        command = [sys.executable, "-W", "ignore", "-c", KILL]
        result = subprocess.run(command, input=json.dumps(scenarios), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    return folder


def files_of(run: Path) -> dict[str, Any]:
    """What must be the same: all but the seconds that training took."""
    files: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.name == "history.csv":
            with path.open(newline="") as file:
                files[name] = [{**line, "seconds": ""} for line in csv.DictReader(file)]
        elif path.name == "baselines.safetensors":  # beside the scores, it holds seconds
            files[name] = {part: scores.tolist() for part, scores in load_file(path).items()}
        elif (path.is_file() and path.suffix in (".safetensors", ".csv")) or path.name in ("model.json", "config.json"):
            files[name] = path.read_bytes()
    return files


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children, which are forked")
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    name: str, killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(killed)
    line, _ = SCENARIOS[name]
    assert list(killed.glob(f"{name}/**/.*")), "it was killed while a file was written"
    begun = (killed / name / "config.json").exists()
    assert begun == (name != "before the first file")
    again = [LINES[line][0], name] if begun else [*LINES[line], "--out", name]
    assert main(again) == 0
    assert files_of(killed / name) == files_of(killed / line)
    assert not list(killed.glob(f"{name}/**/state.safetensors"))
    if line == "compared":
        one, other = read_results(killed / name), read_results(killed / line)
        assert one["comparisons"] == other["comparisons"]
        assert [loss["metrics"] for loss in one["losses"].values()] == [
            loss["metrics"] for loss in other["losses"].values()
        ]
    else:
        assert {path.name for path in (killed / name).iterdir()} == {path.name for path in (killed / line).iterdir()}
