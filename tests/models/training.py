"""Trains a linear head on an encoder's body, by its recipe, in few lines: tests of one encoder need no more."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from lopsided.data.inputs import Inputs
from lopsided.nn.head import LinearHead


def logits_of(
    kind: Any, train: Inputs, truth: Tensor, test: Inputs, *, epochs: int | None = None, **settings: Any
) -> Tensor:
    """Returns (rows, L) logits of test rows after training by AdamW; truth: bool, (training rows, L)."""
    torch.manual_seed(0)
    encoder = kind.fit(train, **settings)
    recipe = encoder.recipe(len(train), truth.shape[1])
    body = encoder.make_body()
    module = cast("nn.Module", body)
    head = LinearHead(
        body.width, truth.shape[1], "bce", prior=truth.double().mean(0).clamp(0.01, 0.99), reduction="batchmean"
    )
    groups: list[dict[str, Any]] = [{"params": [*head.parameters()]}]
    if any(weight.requires_grad for weight in module.parameters()):
        groups.append({"params": [*module.parameters()], "lr": recipe.learning_rate * recipe.body_rate})
    optimizer = torch.optim.AdamW(groups, recipe.learning_rate)
    encoded = encoder.encode(train)
    for _ in range(recipe.epochs if epochs is None else epochs):
        for rows in torch.randperm(len(train)).split(recipe.batch_size):
            optimizer.zero_grad()
            head(body(*encoded.batch(rows)), truth[rows].float()).backward()
            optimizer.step()
    module.eval()
    with torch.no_grad():
        return head.logits(body(*encoder.encode(test).batch(torch.arange(len(test)))))


def error_share(logits: Tensor, truth: Tensor) -> Tensor:
    """Returns (L,), how often each label is decided wrongly at logit 0."""
    return ((logits > 0) != truth).double().mean(0)
