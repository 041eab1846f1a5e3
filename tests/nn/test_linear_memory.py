"""What the linear head takes of memory."""

import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lopsided import SparseTargets, linear_loss
from lopsided.losses import CATALOG
from tests.nn.test_linear import every_way, head

ROOT = Path(__file__).parents[2]


class Largest(TorchDispatchMode):
    """Notes the largest storage that any operation returns."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, Tensor) and each.layout == torch.strided:
                self.bytes = max(self.bytes, each.untyped_storage().nbytes())
        return result


@pytest.mark.slow
@every_way("name", CATALOG)
def test_nothing_of_the_size_of_the_logits_is_made(name: str, backend: str) -> None:
    rows, features, labels = 64, 4, 20_000
    hidden, weight, bias = head(rows, features, labels, torch.float32)
    targets = SparseTargets.from_indices(torch.randint(labels, (rows, 3), generator=torch.Generator().manual_seed(0)))
    soft = SparseTargets(
        targets.crow, targets.col, torch.full(targets.col.shape, 0.5).index_fill_(0, torch.tensor([0]), torch.nan)
    )
    for said, reduction in product((targets, soft), ("mean", "none")):
        if name == "two_way" and reduction == "none":
            continue
        with Largest() as largest:  # type: ignore[no-untyped-call]
            linear_loss(
                hidden, weight, bias, said, name, reduction=reduction, chunk=256, backend=backend
            ).sum().backward()
        assert (
            labels * features * 4 <= largest.bytes < rows * labels
        )  # the gradient of the weight; a byte per logit is 1.28 MB


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("way", ["autograd", "fused"])
def test_peak_memory(way: str) -> None:
    """Beside weight, hidden and targets: the gradient of the weight, if it is kept, and 16 MB."""
    command = [sys.executable, "-m", "tests.peak_linear", way]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "clear_refs" in result.stderr:
        pytest.skip("the peak cannot be reset here")
    assert result.returncode == 0, result.stderr
    assert -1_000_000 < int(result.stdout) < 16_000_000
