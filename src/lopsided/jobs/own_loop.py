"""Makes the evidence of a verdict by calling a training loop of the user's own: `lopsided.compare_losses`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lopsided.data.storage import UserError
from lopsided.jobs.evidence import Evidence
from lopsided.jobs.judge import Given, Setting, System, evidence_of_scores
from lopsided.losses import Formula
from lopsided.losses.names import split_specs
from lopsided.nn.modules import MultiLabelLoss

Train = Callable[[Any, int], Any]


def criteria_of(losses: Sequence[str | Formula] | Mapping[str, Any], reduction: str) -> dict[str, Any]:
    """Returns what is called with logits and targets, by name. Raises UserError for an unknown loss."""
    if isinstance(losses, Mapping):
        return dict(losses)
    losses = split_specs(losses) if isinstance(losses, str) else losses
    if own := [type(loss).__name__ for loss in losses if callable(loss)]:
        raise UserError(f'criteria of your own need names: {{"mine": criterion}}, got {own[0]}')
    try:
        return {str(loss): MultiLabelLoss(loss, reduction=reduction) for loss in losses}
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None


def evidence_of_loop(train: Train, criteria: Mapping[str, Any], seeds: Sequence[int], setting: Setting) -> Evidence:
    """Calls `train` with each criterion for each seed. Raises UserError where what it returns does not fit."""
    if not len(seeds):
        raise UserError("a verdict needs at least one seed")
    with_valid = "valid" in setting.parts
    runs: dict[str, list[tuple[Given, Given]]] = {name: [] for name in criteria}
    for seed in seeds:
        for name, criterion in criteria.items():
            runs[name].append(_run(train, criterion, name, seed, with_valid))
    systems = {
        name: System(
            getattr(criteria[name], "formula", None),
            [test for test, _ in given],
            [valid for _, valid in given] if with_valid else (),
        )
        for name, given in runs.items()
    }
    return evidence_of_scores(systems, setting)


def _run(train: Train, criterion: Any, name: str, seed: int, with_valid: bool) -> tuple[Given, Given]:
    """Returns the scores of test and validation rows; None for both where those of test rows are not numbers."""
    returned, where = train(criterion, seed), f"{name}, seed {seed}"
    if isinstance(returned, tuple) != with_valid or (with_valid and len(returned) != 2):
        expected = "(scores of test rows, scores of validation rows)" if with_valid else "the scores of the test rows"
        got = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else type(returned).__name__
        raise UserError(f"{where}: train must return {expected}, got {got}")
    test, valid = returned if with_valid else (returned, None)
    if test is None:
        raise UserError(f"{where}: train must return the scores of the test rows, got None")
    if _diverged(test):
        test = valid = None
    return Given(test, where), Given(valid, f"{where}, validation rows")


def _diverged(scores: Any) -> bool:
    if isinstance(scores, torch.Tensor):
        return scores.layout == torch.strided and not bool(scores.isfinite().all())
    return isinstance(scores, np.ndarray) and scores.dtype.kind == "f" and not bool(np.isfinite(scores).all())
