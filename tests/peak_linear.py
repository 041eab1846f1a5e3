"""Prints how many bytes a step of a head of 131,072 labels takes at most, beside the gradient of the weight. Linux.

python -m tests.peak_linear autograd|fused
"""

import ctypes
import sys
from pathlib import Path

import torch

import lopsided
from tests.peak import kilobytes

ROWS, FEATURES, LABELS = 256, 256, 131_072


def main(fused: bool) -> None:
    torch.set_num_threads(2)
    hidden = torch.randn(ROWS, FEATURES, requires_grad=True)
    for labels in (3000, LABELS):  # the first time something is called takes memory of its own
        head = lopsided.LinearHead(FEATURES, labels, "asl", fused_step=lopsided.FusedSGD(lr=0.1) if fused else None)
        targets = lopsided.SparseTargets.from_indices(torch.randint(labels, (ROWS, 5)))
        ctypes.CDLL(None).malloc_trim(0)  # or the step would take what was freed, and need less than its gradient
        Path("/proc/self/clear_refs").write_text("5")
        before = kilobytes("VmRSS")
        if fused:
            head.step(hidden, targets)
        else:
            head(hidden, targets).backward()
    kept = 0 if fused else 4 * head.weight.numel()
    print(1024 * (kilobytes("VmHWM") - before) - kept)


if __name__ == "__main__":
    main(sys.argv[1] == "fused")
