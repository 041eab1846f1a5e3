"""Two processes train what one trains, and go on from where they were killed."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lopsided.__main__ import main
from lopsided.data.make_xmc import XmcMaker, make_xmc
from tests.tools import write_texts

FIT = """
import atexit, json, os, sys, torch
from lopsided.__main__ import main
atexit.register(lambda: torch.distributed.is_initialized() and os._exit(3))  # it is called last
sys.exit(max(main(line) for line in json.loads(sys.argv[1])))
"""
KILLED = """
import json, os, signal, sys
from lopsided.__main__ import main
from lopsided.training import loop

loop._SAVE_SECONDS, save = 0, loop.TrainingState.save

def save_and_die(state, path):
    save(state, path)
    if (len(state.progress.history), state.progress.step) == (1, 4):
        os.kill(os.getpid(), signal.SIGKILL)

loop.TrainingState.save = save_and_die
main(*json.loads(sys.argv[1]))
"""
MODELS = {  # dense gradients, averaged; sparse ones
    "hidden": ["--model", "ngrams(hidden=8)", "--accumulate", "2", "--clip-norm", "0.5"],
    "linear": ["--model", "ngrams(solve=False)"],
    "uneven": [
        "--model",
        "ngrams(solve=False)",
        "--batch-size",
        "5",
    ],  # 108 rows: 3 and 2 of each step, at last 2 and 1
    "one row": ["--model", "ngrams(solve=False)", "--batch-size", "107"],  # is that of the last step, in both
    "solved": ["--model", "ngrams", "--dtype", "fp32"],
}


def launch(script: str, *lines: list[str]) -> subprocess.CompletedProcess[str]:
    Path("script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "script.py", json.dumps(lines)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(folder: Path) -> None:
    write_texts(folder / "texts.jsonl", 120)
    lines = {name: ["fit", "texts.jsonl", *options, "--epochs", "2"] for name, options in MODELS.items()}
    result = launch(FIT, *([*line, "--out", f"two-{name}"] for name, line in lines.items()))
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"^(epoch 2 of|penalty 2 of at most) 2", result.stdout, re.M)) == len(MODELS), (
        "one process prints"
    )
    for name, line in lines.items():
        assert main([*line, "--out", name]) == 0
        one, two = folder / name, folder / f"two-{name}"
        assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}, "one process writes"
        expected = load_file(one / "model.safetensors")
        for tensor, values in load_file(two / "model.safetensors").items():
            # steps of 100 enlarge what a sum is rounded by, which rows of a batch lie side by side
            torch.testing.assert_close(values, expected[tensor], atol=1e-4, rtol=1e-5, msg=f"{name}: {tensor}")
        histories = [list(csv.DictReader((run / "history.csv").read_text().splitlines())) for run in (one, two)]
        for mine, other in zip(*histories, strict=True):
            for column in ("train_loss", "valid", "gradient_hard"):
                assert float(mine[column]) == pytest.approx(float(other[column]), abs=1e-5), column


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL, which Windows lacks")
def test_two_processes_with_dropout_go_on_within_an_epoch_as_if_nothing_had_happened(folder: Path) -> None:
    make_xmc(folder, XmcMaker(labels=40, features=60), rows=300, test_rows=20)
    line = ["fit", "train.txt", "--model", "bag(hidden=8, dropout=0.5)", "--epochs", "3", "--batch-size", "32"]
    killed = launch(KILLED, [*line, "--out", "killed"])
    assert re.search(r"exitcode *: -9", killed.stderr), killed.stderr
    assert (folder / "killed/state.safetensors").exists()
    result = launch(FIT, ["fit", "killed"], [*line, "--out", "whole"])
    assert result.returncode == 0, result.stderr
    models = [(folder / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert models[0] == models[1]
