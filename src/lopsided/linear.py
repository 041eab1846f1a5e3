"""A stand-in, to be replaced, for the linear head fused with its loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lopsided.fused import FusedAdagrad, FusedAdamW, FusedSGD
from lopsided.losses import Loss
from lopsided.modules import MultiLabelLoss


class LinearLoss(nn.Module):
    def __init__(
        self,
        in_features: int,
        num_labels: int,
        loss: str | Loss = "asl",
        *,
        bias: bool = True,
        reduction: str = "mean",
        chunk: int | None = None,
        backend: str = "auto",
        fused_step: FusedSGD | FusedAdamW | FusedAdagrad | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_labels, in_features) * in_features**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_labels))
        self.criterion = MultiLabelLoss(loss, reduction=reduction)
        self.fused_step = fused_step
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        for name in ("weight", "bias"):
            for moment in (1, 2):
                self.register_buffer(f"{name}_{moment}", torch.zeros_like(getattr(self, name)))

    def logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.weight, self.bias)

    def forward(self, hidden: Tensor, targets: Any) -> Tensor:
        value: Tensor = self.criterion(self.logits(hidden), targets)
        return value

    @torch.no_grad()
    def predict_topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores, labels = self.logits(hidden).topk(k)
        return scores, labels

    def step(self, hidden: Tensor, targets: Any) -> Tensor:
        with torch.enable_grad():
            value: Tensor = self(hidden, targets)
            value.backward()
        self.get_buffer("count").add_(1)
        with torch.no_grad():
            for name in ("weight", "bias"):
                self._update(getattr(self, name), self.get_buffer(f"{name}_1"), self.get_buffer(f"{name}_2"))
        return value.detach()

    def _update(self, parameter: nn.Parameter, one: Tensor, two: Tensor) -> None:
        gradient, how = parameter.grad, self.fused_step
        assert gradient is not None
        if isinstance(how, FusedSGD):
            one.mul_(how.momentum).add_(gradient)
            parameter.sub_(one, alpha=how.lr)
        elif isinstance(how, FusedAdagrad):
            two.addcmul_(gradient, gradient)
            parameter.addcdiv_(gradient, two.sqrt().add_(how.eps), value=-how.lr)
        elif isinstance(how, FusedAdamW):
            t = int(self.get_buffer("count"))
            one.lerp_(gradient, 1 - how.betas[0])
            two.mul_(how.betas[1]).addcmul_(gradient, gradient, value=1 - how.betas[1])
            parameter.mul_(1 - how.lr * how.weight_decay)
            root = (two / (1 - how.betas[1] ** t)).sqrt_().add_(how.eps)
            parameter.addcdiv_(one, root, value=-how.lr / (1 - how.betas[0] ** t))
        parameter.grad = None
