"""Measures what a loss works on: probabilities, logits and gradients of some training rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import cast

import torch

from lopsided.models.heads import Head, criterion_of
from lopsided.models.methods import Method, Powerset, loss_of_scores
from lopsided.models.model import Model
from lopsided.nn.trackers import DiagnosticsTracker, ProbabilityTracker
from lopsided.training.rows import Rows

_ROWS, _LOGITS = 512, 2**22  # the most training rows that are looked at, and the most logits that they may have


def diagnose(model: Model, train: Rows, method: Method) -> dict[str, float]:
    """Returns the columns of `Epoch` about gradients, logits and probabilities, of rows that are always the same.

    method: by what the model was trained in the last epoch.
    """
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    rows = order[: max(1, min(_ROWS, _LOGITS // model.num_labels))]
    model.network.eval()
    head = cast("Head", model.network.head)
    with torch.no_grad():
        logits = head.logits(model.hidden(train.encoded, rows)).float()
    targets = train.data.targets_of(rows).to(logits.device)
    probabilities, gradients = ProbabilityTracker(process_group=None), DiagnosticsTracker()
    probabilities.update(logits, targets)
    if not isinstance(method, Powerset):
        criterion = criterion_of(loss_of_scores(method), model.label_counts, model.rows).to(logits.device)
        criterion(logits.requires_grad_(), targets).backward()
        gradients.update(logits.detach(), logits.grad, targets)
    sides = {"p_positive": probabilities.positive, "p_negative": probabilities.negative}
    return asdict(gradients.result()) | sides
