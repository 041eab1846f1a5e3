"""Two processes train what one trains."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lopsided.__main__ import main
from tests.tools import write_texts

FIT = """
import json, sys
from lopsided.__main__ import main
sys.exit(max(main(line) for line in json.loads(sys.argv[1])))
"""
MODELS = {  # dense gradients, averaged; sparse ones
    "hidden": ["--model", "ngrams(hidden=8)", "--accumulate", "2", "--clip-norm", "0.5"],
    "linear": ["--model", "ngrams(solve=False)"],
    "solved": ["--model", "ngrams"],
}


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(folder: Path) -> None:
    write_texts(folder / "texts.jsonl", 120)
    (folder / "fit.py").write_text(FIT)
    lines = {name: ["fit", "texts.jsonl", *options, "--epochs", "2"] for name, options in MODELS.items()}
    several = [[*line, "--out", f"two-{name}"] for name, line in lines.items()]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "fit.py", json.dumps(several)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(launch, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("epoch 2 of 2") == len(MODELS), "one process prints"
    for name, line in lines.items():
        assert main([*line, "--out", name]) == 0
        one, two = folder / name, folder / f"two-{name}"
        assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}, "one process writes"
        expected = load_file(one / "model.safetensors")
        for tensor, values in load_file(two / "model.safetensors").items():
            torch.testing.assert_close(values, expected[tensor], atol=1e-5, rtol=1e-5, msg=f"{name}: {tensor}")
        histories = [list(csv.DictReader((run / "history.csv").read_text().splitlines())) for run in (one, two)]
        for mine, other in zip(*histories, strict=True):
            for column in ("train_loss", "valid", "gradient_hard"):
                assert float(mine[column]) == pytest.approx(float(other[column]), abs=1e-5), column
