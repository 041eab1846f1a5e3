"""The verdict in one sentence, and the critical-difference diagram."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.schema import BaselineResult, Comparison, Gap, Interval, LabelTests, LossResult, Results
from lopsided.metrics.friedman import rank_losses
from lopsided.report.critical_difference import critical_difference
from lopsided.report.headline import answer, command, findings, ranks_headline
from lopsided.report.thresholds import what_brings_what
from tests.tools import made_results


def comparison(verdict: str, mean: float, detectable: float | None = 0.01, **p: float) -> Comparison:
    nothing: dict[str, Any] = dict.fromkeys(
        ("p_value", "standard_error", "freedom", "effect_size", "p_holm", "p_alone")
    )
    ends = {"low": mean - 0.005, "high": mean + 0.005}
    return Comparison(**(nothing | p), **ends, verdict=verdict, mean=mean, detectable=detectable)


def compared(
    _linear: float | None = None, _few: int = 0, _rising: str = "", _tested: int = 10, **found: Comparison
) -> Results:
    """Results of bce, of mAP .8, and of others; with a linear baseline, from which no loss differs unless better."""

    def result(mean: float, loss: str = "bce") -> LossResult:
        values = {"map": mean, "macro_f1": 0.4, "macro_f1_labels": 0.5}
        metrics = {name: Interval(mean=value, low=None, high=None) for name, value in values.items()}
        trained: dict[str, Any] = {
            "tuned_settings": None,
            "best_epochs": [1],
            "rising": loss in _rising.split(),
            "seconds": 1.0,
        }
        trained["overfitting"] = False
        return LossResult(settings="x", own_threshold=0.0, tuned_thresholds=[0.0], metrics=metrics, **trained)

    losses = {"bce": result(0.8)} | {loss: result(0.8 + (each.mean or 0.0), loss) for loss, each in found.items()}
    more: dict[str, Any] = {}
    if _linear is not None:
        more["baselines"] = {"linear": BaselineResult(settings="x", seconds=1.0, metrics={"map": _linear})}
        gaps = {loss: 0.8 + (each.mean or 0) - _linear for loss, each in found.items()}
        more["to_linear"] = {
            loss: Gap(mean=gap, low=gap - 0.01, high=gap + 0.01, p_holm=0.01 if gap > 0.01 else 0.5)
            for loss, gap in gaps.items()
        }
    more["data"] = made_results().data.model_copy(update={"labels": 12})
    return made_results(losses=losses, comparisons=found, tested=LabelTests(with_positives=_tested, few=_few), **more)


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        (
            compared(asl=comparison("better", 0.02), apl=comparison("better", 0.03), zlpr=comparison("worse", -0.01)),
            "Use apl with learning rate 1 and one threshold a label: mAP .830, .030 above bce (+.025 to +.035).",
        ),
        (
            compared(_linear=0.81, asl=comparison("better", 0.03)),
            "Use asl with learning rate 1 and one threshold a label: mAP .830, .030 above bce (+.025 to +.035), .020 "
            "above the linear baseline.",
        ),
        (
            compared(_linear=0.9, asl=comparison("below a baseline", 0.02)),
            "The model is the problem, not the loss: none is ahead of the linear baseline, mAP .900. Keep bce with "
            "learning rate 1 for now, and improve the model first: asl is ahead of it, but below a baseline.",
        ),
        (
            compared(_linear=0.9, _rising="bce asl", asl=comparison("no difference shown", 0.0)),
            "Train longer before you choose: no loss is shown to beat bce in mAP, but all of them still gained on "
            "validation rows when training ended.",
        ),
        (
            compared(_linear=0.798, asl=comparison("no difference shown", 0.005)),
            "No loss is shown to beat the linear baseline, mAP .798: a better model may bring more. Keep bce with "
            "learning rate 1: no loss is shown to beat it in mAP, .800.",
        ),
        (
            compared(_linear=1.0, asl=comparison("no difference shown", 0.2)),
            "The linear baseline has nothing left to gain on these test rows: mAP 1.000. Keep bce with learning rate "
            "1: no loss is shown to beat it in mAP, .800.",
        ),
        (
            compared(asl=comparison("ahead so far", 0.02), apl=comparison("ahead so far", 0.01)),
            "Train longer before you choose: asl and apl are ahead of bce in mAP so far, asl by .020, but bce is "
            "unfinished.",
        ),
        (
            compared(_rising="asl", asl=comparison("no difference shown", 0.0), apl=comparison("worse", -0.02)),
            "Train longer before you choose: no loss is shown to beat bce in mAP, but asl still gained on validation "
            "rows when training ended.",
        ),
        (
            compared(_rising="apl", asl=comparison("no difference shown", 0.0), apl=comparison("worse", -0.02)),
            "Keep bce with learning rate 1: no loss is shown to beat it in mAP, .800.",
        ),
        (
            compared(asl=comparison("worse", -0.02), apl=comparison("no difference shown", 0.0)),
            "Keep bce with learning rate 1: no loss is shown to beat it in mAP, .800.",
        ),
        (
            compared(_few=8, asl=comparison("no difference shown", 0.0)),
            "Few labels can be tested: 2 of 12 have five test positives, so more test rows are needed. Keep bce with "
            "learning rate 1: no loss is shown to beat it in mAP, .800.",
        ),
        (
            compared(_few=10, _linear=0.9, asl=comparison("no difference shown", 0.0)),
            "Few labels can be tested: none of 12 has five test positives, so more test rows are needed. Keep bce with "
            "learning rate 1: no loss is shown to beat it in mAP, .800.",
        ),
        (
            compared(asl=comparison("cannot be tested", math.nan, None)),
            "Nothing can be said in mAP: only bce has a mAP, see the notes.",
        ),
        (
            compared(asl=comparison("cannot be tested", 0.1, None)),
            "Nothing can be said in mAP: too few test rows have a positive; give more.",
        ),
        (
            compared(_tested=0, asl=comparison("cannot be tested", math.nan, None)),
            "Nothing can be said in mAP: no label has a positive in the test rows; give test rows that have some.",
        ),
    ],
)
def test_the_answer_stands_first(results: Results, sentence: str) -> None:
    assert answer(results) == sentence


def test_a_split_without_positives_is_no_matter_of_the_reference() -> None:
    results = compared(asl=comparison("cannot be tested", math.nan, None))
    undefined = {"map": Interval(mean=None, low=None, high=None)}
    losses = {loss: entry.model_copy(update={"metrics": undefined}) for loss, entry in results.losses.items()}
    results = results.model_copy(update={"losses": losses})
    assert answer(results) == "Nothing can be said in mAP: bce has none, see the notes; take another reference."
    told = "Nothing can be said in mAP: some split has too few positives in its test rows; give more rows."
    assert answer(results.model_copy(update={"resplit": True})) == told


def test_what_to_do_next_is_a_command() -> None:
    better = compared(None, 0, "", 10, **{"asl(clip=0)": comparison("better", 0.02)})
    assert command(better, Path("runs/a b")) == "lopsided fit --like 'runs/a b' --loss 'asl(clip=0)'"
    ahead = compared(asl=comparison("ahead so far", 0.02))
    assert command(ahead, Path("run")) == "lopsided compare run/config.json --epochs 3"
    within = ahead.model_copy(update={"budget": "2m"})
    assert command(within, Path("run")) == "lopsided compare run/config.json --epochs 3 --budget 360s"
    assert command(compared(asl=comparison("worse", -0.02)), Path("run")) == "lopsided fit --like run --loss bce"
    hours = ahead.model_copy(update={"budget": "400h"})
    assert command(hours, Path("run")) == "lopsided compare run/config.json --epochs 3 --budget 4320000s"
    unfinished = compared(_rising="bce", asl=comparison("no difference shown", 0.0))
    assert command(unfinished, Path("run")) == "lopsided compare run/config.json --epochs 3"


def test_losses_with_one_verdict_share_a_sentence() -> None:
    """What pooling alone changes, of apl, is no matter of how many losses there are."""
    results = compared(
        asl=comparison("no difference shown", 0.01, 0.02, p_value=0.047, p_holm=0.142, p_alone=0.028),
        apl=comparison("no difference shown", 0.0, 0.03, p_value=0.3, p_holm=0.6, p_alone=0.02),
        zlpr=comparison("worse", -0.02, p_holm=0.01, p_alone=0.01),
    )
    assert findings(results) == [
        "asl and apl: no difference to bce was shown in mAP; one above .020 to .030, depending on the loss, would be "
        "found with 80 % power",
        "zlpr is worse than bce in mAP: leave it",
        "The verdict on asl depends on the list of losses: beside bce alone the same models show a difference (p "
        ".028), among 4 losses none (p .142)",
    ]
    nothing_to_find = compared(asl=comparison("no difference shown", 0.01, 0.0))
    assert findings(nothing_to_find) == ["asl: no difference to bce was shown in mAP"], "no differences above 0"
    equal = compared(asl=comparison("no difference shown", 0.0, 0.0), apl=comparison("no difference shown", 0.0, 0.03))
    assert findings(equal) == [
        "asl is equal to bce in mAP on these test rows",
        "apl: no difference to bce was shown in mAP; one above .030 would be found with 80 % power",
    ]
    few = compared(_few=8, apl=comparison("no difference shown", 0.0, 0.03))
    assert findings(few) == ["apl: no difference to bce was shown in mAP"], "no power is claimed of a few positives"


@pytest.mark.parametrize(
    ("verdict", "alone", "beside_a_better_one"),
    [
        ("better", [], []),
        ("worse", ["asl is worse than bce in mAP: leave it"], ["asl is worse than bce in mAP: leave it"]),
        ("ahead so far", [], ["asl is ahead of bce in mAP so far, but bce is unfinished: train longer"]),
        (
            "behind so far",
            ["asl is behind bce in mAP so far, but unfinished: train longer"],
            ["asl is behind bce in mAP so far, but unfinished: train longer"],
        ),
        (
            "below a baseline",
            [],
            ["asl is ahead of bce in mAP, but below a baseline: improve the model first"],
        ),
        ("cannot be tested", [], ["asl cannot be compared with bce in mAP, see the notes"]),
    ],
)
def test_no_sentence_repeats_the_headline(verdict: str, alone: list[str], beside_a_better_one: list[str]) -> None:
    asl = comparison(verdict, 0.01)
    assert findings(compared(asl=asl)) == alone
    both = findings(compared(asl=asl, apl=comparison("better", 0.02)))
    assert both == (["asl is better than bce in mAP, too"] if verdict == "better" else beside_a_better_one)


def test_no_size_beyond_the_scale_would_be_found() -> None:
    found = [findings(compared(asl=comparison("no difference shown", 0.1, size))) for size in (0.25, 1.5)]
    assert [text[0].partition("; ")[2] for text in found] == [
        "one above .250 would be found with 80 % power",
        "none would be found with 80 % power",
    ]


def test_what_thresholds_bring_is_said_where_some_were_tuned() -> None:
    def found(**of_asl: float) -> list[str]:
        of_bce = {"micro_f1_own": 0.5, "micro_f1": 0.6} if "micro_f1" in of_asl else {"micro_f1_own": 0.5}
        results = compared(asl=comparison("better", 0.02))
        losses = {}
        for loss, values in (("bce", of_bce), ("asl", of_asl)):
            metrics = {name: Interval(mean=values.get(name), low=None, high=None) for name in METRICS}
            losses[loss] = results.losses[loss].model_copy(update={"metrics": metrics})
        losses["bce"].metrics["macro_f1"] = Interval(mean=0.4 if "micro_f1" in of_asl else None, low=None, high=None)
        return what_brings_what(results.model_copy(update={"losses": losses}))

    assert found(micro_f1_own=0.55) == []
    assert found(micro_f1_own=0.55, micro_f1=0.63) == [
        "Thresholds (one tuned) bring bce +.100 micro-F1; the best loss, asl, adds +.030"
    ]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[0.1, 0.2, 0.3]] * 8, "zlpr ranks best in mAP over 8 data sets, and is shown to be ahead of bce"),
        (
            [[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]] * 2,
            "No difference between the losses was shown in mAP over 4 data sets; mean ranks 1.66 apart would differ",
        ),
        (
            [[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]],
            "No difference between the losses was shown in mAP over 2 data sets; over so few no ranks could differ, so "
            "add data sets",
        ),
    ],
)
def test_the_verdict_over_data_sets(rows: list[list[float]], sentence: str) -> None:
    assert ranks_headline(rank_losses(rows, ("bce", "asl", "zlpr")), "map") == sentence


def test_the_critical_difference_diagram_names_every_loss() -> None:
    losses = [f"loss {number} $x$ <b>" for number in range(9)]
    ranks = rank_losses(np.random.default_rng(0).random((6, 9)).tolist(), losses)
    svg = critical_difference(ranks).svg
    for loss, rank in zip(ranks.losses, ranks.mean_ranks, strict=True):
        assert f"{loss.replace('<', '&lt;').replace('>', '&gt;')} {rank:.2f}" in re.sub(r"\s+", " ", svg)
    assert svg.count("var(--series-1)") == len(ranks.groups)
