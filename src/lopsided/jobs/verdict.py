"""Decides who wins: compares every loss with the reference, paired over seeds and test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor

from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.evidence import LINEAR, Evidence
from lopsided.jobs.progress import Progress
from lopsided.jobs.schema import Comparison, Gap, Results
from lopsided.jobs.score import Scored, evaluate
from lopsided.metrics.significance import (
    LEVEL,
    Difference,
    holm,
    paired_differences,
    resample_rows,
    resplit_differences,
    unknown,
)
from lopsided.training.history import Epoch

_RESAMPLES = 200  # bootstrap samples of the test rows; their standard deviation is known to about 5 %
_RISING = 0.005  # gain of validation mAP over the last quarter of the epochs
_ALWAYS = ("map", "micro_f1", "macro_f1_labels")  # compared beside the metric of the verdict
_FALLEN = 0.02  # share of the highest validation mAP that was lost again

BETTER, WORSE, AHEAD, BEHIND = "better", "worse", "ahead so far", "behind so far"
BELOW, NOTHING, UNTESTED = "below a baseline", "no difference shown", "cannot be tested"


class Verdicts(NamedTuple):
    """Holds what `decide` finds: see the fields of `Results`."""

    comparisons: dict[str, Comparison]
    other_comparisons: dict[str, dict[str, Comparison]]
    to_linear: dict[str, Gap]


class _Measured(NamedTuple):
    """Holds a metric of each model on all test rows, (seeds,), and on bootstrap samples of them, (resamples, seeds).

    Nothing is resampled where each seed has test rows of its own.
    """

    whole: Tensor
    resampled: Tensor

    @property
    def is_defined(self) -> bool:
        return bool(self.whole.isfinite().all())


def decide(evidence: Evidence, progress: Progress) -> Verdicts:
    """Compares every loss with the reference in a few metrics, and with the linear baseline in that of the verdict."""
    names = dict.fromkeys((evidence.metric, *_ALWAYS))
    measured = _measure(evidence, tuple(names), progress)
    others = {name: _differences(evidence, name, measured[name]) for name in names}
    of_metric = others.pop(evidence.metric)
    known = {name: found for name, found in others.items() if any(c.verdict != UNTESTED for c in found.values())}
    return Verdicts(of_metric, known, _gaps(evidence, measured[evidence.metric]))


def _measure(evidence: Evidence, names: Sequence[str], progress: Progress) -> dict[str, dict[str, _Measured]]:
    """Returns of each metric what every loss, and the linear baseline, has; all on the same samples of the rows."""
    models: dict[str, list[Scored]] = dict(evidence.scored)
    if LINEAR in evidence.baselines:
        models[LINEAR] = list(evidence.baselines[LINEAR].scored)
    asked = [(name, model, one) for name in names for model, group in models.items() for one in group]
    whole = torch.tensor([evaluate(name, one) for name, _, one in asked], dtype=torch.float64)
    defined = whole.isfinite().nonzero()[:, 0].tolist()
    samples = torch.full((_RESAMPLES, len(asked)), math.nan, dtype=torch.float64)
    if defined and evidence.resplit is None:
        progress.resampling(_RESAMPLES)
        functions = [lambda weights, n=n: evaluate(asked[n][0], asked[n][2], weights) for n in defined]
        rows = asked[0][2].rows if evidence.sets is None else evidence.sets
        drawn = resample_rows(functions, rows, _RESAMPLES, evidence.resampling_seed, progress.resampled)
        samples[:, defined] = drawn
    found: dict[str, dict[str, _Measured]] = {}
    first = 0
    for name in names:
        for model, group in models.items():
            part = slice(first, first := first + len(group))
            found.setdefault(name, {})[model] = _Measured(whole[part], samples[:, part])
    return found


def _differences(evidence: Evidence, name: str, measured: dict[str, _Measured]) -> dict[str, Comparison]:
    others = [loss for loss in evidence.scored if loss != evidence.reference]
    reference = measured[evidence.reference]
    testable = [loss for loss in others if reference.is_defined and measured[loss].is_defined]
    differences = dict.fromkeys(others, unknown())
    if testable:
        paired = _paired(evidence, [reference, *(measured[loss] for loss in testable)])
        differences |= dict(zip(testable, paired, strict=True))
    alone = {loss: _paired(evidence, [reference, measured[loss]])[0].p_value for loss in testable}
    corrected = holm([difference.p_value for difference in differences.values()])
    return {
        loss: _comparison(evidence, name, loss, difference, (p_holm, alone.get(loss, math.nan)))
        for (loss, difference), p_holm in zip(differences.items(), corrected, strict=True)
    }


def _paired(evidence: Evidence, group: Sequence[_Measured]) -> list[Difference]:
    """Compares each with the first. A model of no seed, such as a baseline, stands beside every seed."""
    seeds = max(len(each.whole) for each in group)
    whole = torch.stack([each.whole.expand(seeds) for each in group])
    if evidence.resplit is not None:
        return resplit_differences(whole, evidence.resplit)
    resampled = torch.stack([each.resampled.expand(-1, seeds) for each in group], 1)
    return paired_differences(whole, resampled)


def _comparison(
    evidence: Evidence, name: str, loss: str, difference: Difference, p_values: tuple[float, float]
) -> Comparison:
    sign = METRICS[name].sign
    gain, (p_holm, p_alone) = sign * difference.mean, p_values
    behind = loss if gain < 0 else evidence.reference
    word = verdict(gain, p_holm, unfinished=evidence.trained[behind].rising)
    if word in (BETTER, AHEAD):
        mean = sum(evaluate(name, one) for one in evidence.scored[loss]) / evidence.seeds
        below = [one for one in evidence.baselines.values() if sign * (one.mean(name) - mean) > 0]
        word = BELOW if below else word
    numbers = asdict(difference) | {"detectable": difference.detectable}
    return Comparison(**numbers, p_holm=p_holm, p_alone=p_alone, verdict=word)


def _gaps(evidence: Evidence, measured: dict[str, _Measured]) -> dict[str, Gap]:
    """Returns how far each loss is from the linear baseline; the spread over seeds is that of the loss alone."""
    linear = measured.get(LINEAR)
    if linear is None or not linear.is_defined:
        return {}
    found = {
        loss: _paired(evidence, [linear, measured[loss]])[0] if measured[loss].is_defined else unknown()
        for loss in evidence.scored
    }
    corrected = holm([gap.p_value for gap in found.values()])
    return {
        loss: Gap(mean=gap.mean, low=gap.low, high=gap.high, p_holm=p_holm)
        for (loss, gap), p_holm in zip(found.items(), corrected, strict=True)
    }


def verdict(gain: float, p_value: float, unfinished: bool) -> str:
    """Names the result; the loss that is behind is not called worse while its validation curve still rises."""
    if math.isnan(p_value):
        return UNTESTED
    if p_value >= LEVEL:
        return NOTHING
    if unfinished:
        return AHEAD if gain > 0 else BEHIND
    return BETTER if gain > 0 else WORSE


def recommended(results: Results) -> str:
    """Returns the loss to train: the best of those that are better than the reference, else the reference."""
    better = [loss for loss, each in results.comparisons.items() if each.verdict == BETTER]
    return leading(results, better) if better else results.reference


def leading(results: Results, losses: Sequence[str]) -> str:
    """Returns the loss that is farthest from the reference."""
    return max(losses, key=lambda loss: abs(results.comparisons[loss].mean or 0.0))


def is_rising(histories: Sequence[list[Epoch]], bound: int) -> bool:
    """Tells whether more training is likely to help: if validation mAP, averaged over seeds, gained half a point over
    the last quarter of the epochs, and after a single epoch, which shows no trend. See `Epoch.ranking`.

    bound: the most epochs; a training that stopped before, because nothing came of more, gained nothing.
    """
    curves = [[epoch.ranking[1] for epoch in history] for history in histories]
    if all(len(curve) == 1 for curve in curves):
        return True
    gains = [
        curve[-1] - curve[-1 - max(1, len(curve) // 4)] if len(curve) == bound else 0.0
        for curve in curves
        if len(curve) > 1
    ]
    return bool(torch.tensor(gains).nanmean() > _RISING)


def is_overfitting(histories: Sequence[list[Epoch]]) -> bool:
    """Tells whether validation mAP had fallen far below its peak when training ended, on average over seeds."""
    curves = [torch.tensor([epoch.ranking[1] for epoch in history]).nan_to_num(nan=-1) for history in histories]
    falls = [float(curve.max() - curve[-1]) / float(curve.max()) for curve in curves if curve[-1] > 0]
    return bool(falls) and sum(falls) / len(falls) > _FALLEN
