"""Decides who wins: compares every loss with the baseline, paired over seeds and test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from lopsided.jobs.evidence import Evidence
from lopsided.jobs.progress import Progress
from lopsided.jobs.schema import Comparison
from lopsided.jobs.score import METRICS, Scored, evaluate
from lopsided.metrics.significance import LEVEL, Difference, holm, paired_differences, resample_rows, unknown
from lopsided.training.history import Epoch

_RESAMPLES = 200  # bootstrap samples of the test rows; their standard deviation is known to about 5 %
_RISING = 0.005  # gain of validation mAP over the last quarter of the epochs

_NOTHING, _UNTESTED = "no difference shown", "cannot be tested"
_RELATIONS = {  # verdict -> sentence
    "better": "{} is better than {}",
    "worse": "{} is worse than {}",
    "ahead so far": "{} is ahead of {}",
    "behind so far": "{} is behind {}",
    _NOTHING: "no difference between {} and {} was shown",
    _UNTESTED: "{} and {} cannot be compared",
}


def compare_to_baseline(evidence: Evidence, progress: Progress) -> dict[str, Comparison]:
    """Compares every loss but the reference with it."""
    metric, reference, scored = evidence.metric, evidence.reference, evidence.scored
    full = {loss: [evaluate(metric, one) for one in group] for loss, group in scored.items()}
    others = [loss for loss in scored if loss != reference]
    testable = [loss for loss in others if all(map(math.isfinite, full[loss] + full[reference]))]
    differences = dict.fromkeys(others, unknown())
    if testable:
        order = [reference, *testable]
        resampled = _resample(evidence, [one for loss in order for one in scored[loss]], progress)
        values = torch.tensor([full[loss] for loss in order], dtype=torch.float64)
        measured = paired_differences(values, resampled.view(_RESAMPLES, *values.shape))
        differences |= dict(zip(testable, measured, strict=True))
    corrected = holm([difference.p_value for difference in differences.values()])
    return {
        loss: _comparison(evidence, loss, difference, p_value)
        for (loss, difference), p_value in zip(differences.items(), corrected, strict=True)
    }


def _resample(evidence: Evidence, scored: Sequence[Scored], progress: Progress) -> Tensor:
    progress.resampling(_RESAMPLES)
    functions = [lambda weights, one=one: evaluate(evidence.metric, one, weights) for one in scored]
    rows = scored[0].rows if evidence.sets is None else evidence.sets
    return resample_rows(functions, rows, _RESAMPLES, evidence.resampling_seed, progress.resampled)


def _comparison(evidence: Evidence, loss: str, difference: Difference, p_value: float) -> Comparison:
    metric, reference, epochs = METRICS[evidence.metric], evidence.reference, evidence.epochs
    gain = difference.mean if metric.higher_is_better else -difference.mean
    behind = loss if gain < 0 else reference
    word = verdict(gain, p_value, unfinished=evidence.trained[behind].rising)
    sentence = f"{_RELATIONS[word].format(loss, reference)} in {metric.title}"
    if epochs is not None:
        sentence += f" after {in_epochs(epochs)}"
    if evidence.seeds == 1 and word != _UNTESTED:
        sentence += ", for these trained models"
    if word == _NOTHING:
        sentence += f"; this experiment can miss a difference below {difference.detectable:.2g}"
    if word in ("ahead so far", "behind so far"):
        sign = "one epoch shows no trend" if epochs == 1 else "its validation mAP still rises"
        sentence += f"; {behind} is unfinished: {sign}, so more epochs may change this"
    detectable = difference.detectable
    return Comparison(**asdict(difference), detectable=detectable, p_holm=p_value, verdict=word, sentence=sentence)


def in_epochs(number: int) -> str:
    return f"{number} epoch{'s' * (number > 1)}"


def verdict(gain: float, p_value: float, unfinished: bool) -> str:
    """Names the result; the loss that is behind is not called worse while its validation curve still rises."""
    if math.isnan(p_value):
        return _UNTESTED
    if p_value >= LEVEL:
        return _NOTHING
    if unfinished:
        return "ahead so far" if gain > 0 else "behind so far"
    return "better" if gain > 0 else "worse"


def is_rising(histories: Sequence[list[Epoch]]) -> bool:
    """Tells whether more training is likely to help: if validation mAP, averaged over seeds, gained half a point over
    the last quarter of the epochs, and after a single epoch, which shows no trend. See `Epoch.ranking`."""
    curves = [[epoch.ranking[1] for epoch in history] for history in histories]
    if all(len(curve) == 1 for curve in curves):
        return True
    gains = [curve[-1] - curve[-1 - max(1, len(curve) // 4)] for curve in curves if len(curve) > 1]
    return bool(torch.tensor(gains).nanmean() > _RISING)
