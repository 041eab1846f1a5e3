"""Makes the evidence of a verdict from scores that were computed elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Numbered, Texts
from lopsided.data.matrices import targets_of_matrix
from lopsided.data.storage import UserError
from lopsided.jobs.evidence import Evidence, Training
from lopsided.jobs.numbers import share
from lopsided.jobs.schema import DataSummary, SplitSizes
from lopsided.jobs.score import Scored
from lopsided.jobs.verdict_options import check_systems, check_wanted
from lopsided.metrics.scores import Scores
from lopsided.metrics.truth import as_targets
from lopsided.models.heads import own_threshold
from lopsided.models.methods import Method

_SMALLEST, _LARGEST = 1e-300, 1 - 2**-53  # probabilities beyond have an infinite logit


@dataclass(frozen=True)
class Given:
    """Holds the scores that one model gave to the rows of a part, and what messages call them.

    scores: (rows, L), dense or sparse, of the test or the validation rows; None where training diverged.
    """

    scores: Any
    name: str


@dataclass(frozen=True)
class System:
    """Holds what is compared: the scores of each seed, and the loss that it was trained by, None if unknown.

    valid: empty without validation rows.
    """

    method: Method | None
    test: Sequence[Given]
    valid: Sequence[Given] = ()


@dataclass(frozen=True)
class Setting:
    """Says what scores are judged by. parts: "test", perhaps "valid" and "train", with the same labels in one order.

    scale: "logits" or "probabilities"; None for logits, where scores that look like probabilities are an error.
    """

    name: str
    parts: Mapping[str, Dataset]
    metric: str = "map"
    reference: str | None = None
    scale: str | None = None


def labelled(truth: Any, names: Sequence[str] | None, where: str) -> Dataset:
    """Returns rows of which only the labels are known. truth: (rows, L), dense or sparse, NaN where unknown."""
    try:
        targets = as_targets(truth)
        if isinstance(targets, torch.Tensor):
            if targets.ndim != 2:
                raise ValueError(f"expected labels as (rows, labels), got {tuple(targets.shape)}")
            targets = targets_of_matrix(targets.float().numpy())
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from None
    if targets.values is not None:
        values = targets.values.float()
        targets = replace(targets, values=None if (values == 1).all() else values)
    names = Numbered(targets.num_labels or 0) if names is None else tuple(names)
    if targets.num_labels not in (None, len(names)):
        raise UserError(f"{where}: {targets.num_labels} labels, but {len(names)} names of labels")
    if not len(names) or not len(targets.col):
        raise UserError(f"{where}: no label is true of any row")
    targets = replace(targets, crow=targets.crow.long(), col=targets.col.long(), num_labels=len(names))
    return Dataset(Texts(("",) * (len(targets.crow) - 1)), targets, names)


def evidence_of_scores(systems: Mapping[str, System], setting: Setting) -> Evidence:
    """Joins scores with the truth. Raises UserError where they do not fit, or lie on another scale than was said."""
    reference, parts = _reference(systems, setting), setting.parts
    logits = _logits(systems, setting)
    targets = {name: part.hard_targets() for name, part in parts.items()}
    own = {name: 0.0 if each.method is None else own_threshold(each.method) for name, each in systems.items()}
    scored = {
        name: [
            Scored(
                logits[given.name],
                targets["test"],
                logits[system.valid[seed].name] if system.valid else None,
                targets.get("valid", targets["test"]),
                own[name],
            )
            for seed, given in enumerate(system.test)
        ]
        for name, system in systems.items()
    }
    test = parts["test"]
    return Evidence(
        data=DataSummary(
            name=setting.name,
            rows=SplitSizes(**{name: len(part) for name, part in parts.items()}),
            labels=test.num_labels,
            positives_per_row=float(test.label_counts().sum() / len(test)),
            missing=0.0,
        ),
        test=test,
        positives={name: part.hard_counts() for name, part in parts.items()},
        metric=setting.metric,
        reference=reference,
        scored=scored,
        trained={name: Training(system.method) for name, system in systems.items()},
        notes=tuple(_notes(systems, own, scored, setting)),
    )


def _reference(systems: Mapping[str, System], setting: Setting) -> str:
    """Returns the system that the others are compared with."""
    check_systems(systems, setting.reference)
    check_wanted(setting.metric, setting.scale, "valid" in setting.parts)
    return setting.reference or ("bce" if "bce" in systems else next(iter(systems)))


def _logits(systems: Mapping[str, System], setting: Setting) -> dict[str, Scores | None]:
    """Returns all scores as logits, by name."""
    read = {}
    for part in ("test", "valid"):
        for given in (one for system in systems.values() for one in getattr(system, part)):
            read[given.name] = None if given.scores is None else _read(given, setting.parts[part])
    known = {name: scores for name, scores in read.items() if scores is not None}
    ends = {name: _ends(scores, name) for name, scores in known.items()}
    shares = [name for name, (low, high) in ends.items() if low >= 0 and high <= 1]
    if setting.scale is None and shares:
        raise UserError(
            f"{shares[0]}: all scores lie in [0, 1], as probabilities do, where logits are expected "
            f"({len(shares)} of {len(known)} are such); say with --scale (scale=) "
            "whether all are probabilities or logits"
        )
    if setting.scale != "probabilities":
        return read
    for name, (low, high) in ends.items():
        if name not in shares:
            raise UserError(f"{name}: expected probabilities, got scores from {low:.3g} to {high:.3g}")
    return read | {name: _as_logits(scores) for name, scores in known.items()}


def _read(given: Given, truth: Dataset) -> Scores:
    try:
        scores = Scores.of(given.scores)
    except (TypeError, ValueError) as error:
        raise UserError(f"{given.name}: {error}") from None
    if (len(scores), scores.num_labels) != (len(truth), truth.num_labels):
        got = f"scores of {len(scores)} rows and {scores.num_labels} labels"
        raise UserError(f"{given.name}: {got}, but the truth has {len(truth)} rows and {truth.num_labels} labels")
    return replace(scores, values=scores.values.contiguous())


def _ends(scores: Scores, name: str) -> tuple[float, float]:
    listed = scores.values if scores.columns is None else scores.values[scores.columns < scores.num_labels]
    if wrong := int((~listed.isfinite()).sum()):
        raise UserError(f"{name}: {wrong} of {listed.numel()} scores are NaN or infinite")
    return listed.min().item(), listed.max().item()


def _as_logits(scores: Scores) -> Scores:
    values = torch.logit(scores.values.double().clamp(_SMALLEST, _LARGEST)).float()
    return replace(scores, values=scores.where_listed(values, -math.inf))


def _notes(
    systems: Mapping[str, System],
    own: Mapping[str, float | None],
    scored: Mapping[str, Sequence[Scored]],
    setting: Setting,
) -> list[str]:
    """Returns what is not known of models that were trained elsewhere, and what was assumed instead."""
    notes = ["Trained elsewhere: whether each had the rate, settings and time that suit it is not known here."]
    told = [f"{name} {share(own[name])}" for name, each in systems.items() if each.method and own[name] is not None]
    if told:
        notes.append(f"Own thresholds are those of the losses of these names: {', '.join(told)}.")
    if others := [name for name, system in systems.items() if system.method is None]:
        notes.append(f"The own threshold of {', '.join(others)} is logit 0, a probability of 0.5.")
    if "valid" not in setting.parts:
        notes.append("Without scores of validation rows no threshold is tuned: all decisions are at own thresholds.")
    if "train" not in setting.parts:
        notes.append("Training rows are not known: where labels are counted by them, test rows stand in.")
    if same := [name for name, group in scored.items() if len(group) > 1 and _are_equal(group)]:
        notes.append(f"All seeds gave the same scores: {', '.join(same)}. What a seed changes is not in the verdict.")
    return notes


def _are_equal(group: Sequence[Scored]) -> bool:
    tables = [one.scores.values for one in group if one.scores is not None]
    return len(tables) == len(group) and all(torch.equal(tables[0], other) for other in tables[1:])
