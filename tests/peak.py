"""Prints how many bytes a step of ASL takes at most, beside the logits, the targets and the gradient. Linux."""

import re
from pathlib import Path

import torch

import lopsided


def kilobytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


if __name__ == "__main__":
    logits, targets = torch.randn(64, 131_072, requires_grad=True), (torch.rand(64, 131_072) < 2e-4).float()
    loss = lopsided.AsymmetricLoss(backend="native")
    loss(torch.randn(64, 1000, requires_grad=True), targets[:, :1000].contiguous()).backward()
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    loss(logits, targets).backward()
    print(1024 * (kilobytes("VmHWM") - before) - 4 * logits.numel())
