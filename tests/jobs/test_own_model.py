"""`--model package.module:function`: code of the user's own runs where the user names it, never because a file does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lopsided.__main__ import main
from tests.tools import command

CODE = """
from torch import nn


class Deep(nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.width = hidden
        self.layer = nn.Linear(inputs, hidden)

    def forward(self, numbers, codes):
        return self.layer(numbers).relu()


def make_model(encoder, hidden=4):
    return Deep(encoder.columns.scale.width, hidden)
"""


@pytest.mark.slow
def test_a_model_of_ones_own_is_trusted_where_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "own_models.py").write_text(CODE)
    numbers = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    np.save("rows.npy", numbers)
    np.save("labels.npy", (numbers[:, :2] > 0).astype(np.int8))
    monkeypatch.syspath_prepend(str(folder))
    options = ["--targets-file", "labels.npy", "--test", "0.2", "--epochs", "2", "--out", "run"]
    assert main(["fit", "rows.npy", "--model", "own_models:make_model(hidden=5)", *options]) == 0
    predict = ["predict", "run", "rows.npy", "--out", "out.jsonl"]
    refused = command(predict)
    assert refused.returncode == 2
    assert "set LOPSIDED_TRUST=own_models:make_model" in refused.stderr
    assert "damaged" not in refused.stderr
    line = [sys.executable, "-m", "lopsided", *predict]
    monkeypatch.setenv("LOPSIDED_TRUST", "own_models:make_model")
    assert subprocess.run(line, capture_output=True, check=False).returncode == 0
    assert len((folder / "out.jsonl").read_text().splitlines()) == 120
