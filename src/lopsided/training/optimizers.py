"""Makes the optimiser of a recipe, and says how far along the schedule its rate is."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from lopsided.models.model import Network
from lopsided.models.recipe import Recipe

_WARM_UP = {"cosine": 0.05, "one_cycle": 0.3}  # share of the steps in which the rate rises


def make_optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """Returns an optimiser of all weights that the head does not update itself.

    Weight decay is for matrices: not for biases and norms, which have one dimension.
    """
    groups: list[dict[str, Any]] = []
    for part, rate in ((network.body, recipe.learning_rate * recipe.body_rate), (network.head, recipe.learning_rate)):
        if part is network.head and recipe.fused_head:
            continue
        weights = [each for each in part.parameters() if each.requires_grad]
        for some, decay in (
            ([each for each in weights if each.ndim > 1], recipe.weight_decay),
            ([each for each in weights if each.ndim <= 1], 0.0),
        ):
            if some:
                groups.append({"params": some, "lr": rate, "weight_decay": decay, "base_rate": rate})
    groups = groups or [{"params": [nn.Parameter(torch.zeros(()))], "lr": 0.0, "base_rate": 0.0}]  # all is fused
    if recipe.optimizer == "sgd":
        # fused SGD is faster, but takes no sparse gradient; those that are sparse have no momentum
        return torch.optim.SGD(groups, momentum=recipe.momentum, fused=recipe.momentum > 0)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.Adagrad(groups)


def clip_gradients(network: nn.Module, norm: float) -> None:
    """Scales all gradients so that they have at most that norm together; torch's own function takes no sparse ones."""
    values = []
    for weight in network.parameters():
        if weight.grad is not None and weight.grad.is_sparse:
            weight.grad = weight.grad.coalesce()
            values.append(weight.grad.values())
        elif weight.grad is not None:
            values.append(weight.grad)
    total = torch.stack([torch.linalg.vector_norm(each) for each in values]).norm()
    for each in values:
        each.mul_((norm / (total + 1e-6)).clamp(max=1.0))


def set_rate(optimizer: torch.optim.Optimizer, network: Network, recipe: Recipe, done: float) -> None:
    """Sets the rates for a share `done`, in [0, 1], of all steps."""
    factor = schedule_factor(recipe.schedule, done)
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor
    fused = getattr(network.head, "fused_step", None)
    if fused is not None:
        fused.lr = recipe.learning_rate * factor


def schedule_factor(schedule: str, done: float) -> float:
    """Returns what the rate is multiplied by after a share `done` of all steps.

    "cosine" rises from 0 for a twentieth of the steps, "one_cycle" from 1/25 for three tenths; both then fall along a
    cosine, to 0. Source of the latter: Smith & Topin, arXiv 1708.07120, with the shape of `torch.optim.OneCycleLR`.

    >>> [round(schedule_factor("cosine", done), 3) for done in (0.0, 0.025, 0.05, 0.525, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if schedule == "constant":
        return 1.0
    rise = _WARM_UP[schedule]
    if done < rise:
        return done / rise if schedule == "cosine" else 1 / 25 + 24 / 25 * (1 - math.cos(math.pi * done / rise)) / 2
    return (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2
