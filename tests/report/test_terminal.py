"""What a terminal shows: names of any length, losses in any number, what thresholds bring."""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console

from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.schema import Comparison, Interval, LossResult, Results
from lopsided.losses import CATALOG
from lopsided.report.terminal import print_results, short_names
from lopsided.report.thresholds import what_brings_what
from tests.tools import made_results

LONG = ("bce", "asl(gamma_neg=2, clip=0.1)", "focal(gamma=3)", "asl(gamma_neg=4, gamma_pos=1, clip=0.05)", "apl")


def results_of(losses: Sequence[str], **values: Mapping[str, float | None]) -> Results:
    """Results where every loss has .5 in every metric, but for the values that are given, by metric and loss."""

    def result(loss: str) -> LossResult:
        metrics = {name: Interval(mean=values.get(name, {}).get(loss, 0.5), low=0.477, high=0.523) for name in METRICS}
        trained: dict[str, Any] = {"tuned_settings": None, "best_epochs": [1], "rising": False, "seconds": 12.3}
        trained |= {"overfitting": False, "own_threshold": 0.0, "tuned_thresholds": [0.0]}
        return LossResult(settings=loss, metrics=metrics, **trained)

    nothing: dict[str, Any] = dict.fromkeys(("p_value", "standard_error", "freedom", "effect_size", "p_alone"))
    found = {
        loss: Comparison(
            **nothing, mean=0.01, low=-0.152, high=0.123, detectable=0.1, p_holm=0.5, verdict="no difference shown"
        )
        for loss in losses[1:]
    }
    return made_results(losses={loss: result(loss) for loss in losses}, comparisons=found, seeds=3)


def printed(results: Results, width: int = 80) -> list[str]:
    text = io.StringIO()
    print_results(results, Console(file=text, width=width))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_long_names_leave_room_for_the_verdict() -> None:
    lines = printed(results_of(LONG))
    assert not any("…" in line for line in lines)
    names = short_names(LONG)
    assert list(names.values()) == ["bce", "asl#1", "focal", "asl#2", "apl"]
    for loss in LONG[1:]:
        assert any(line.startswith(f" {names[loss]} ") and line.endswith("no difference shown") for line in lines)
    assert "asl#2: asl(gamma_neg=4, gamma_pos=1, clip=0.05)" in lines


def test_any_number_of_losses_is_shown() -> None:
    lines = printed(results_of(list(CATALOG)))
    assert not any("…" in line for line in lines)
    heads = [line.split() for line, below in pairwise(lines) if below.startswith(" ────")]
    assert [name for head in heads for name in head if name in CATALOG] == list(CATALOG)
    assert sum(line.startswith(" mAP ") for line in lines) == len(heads) - 2, "but for differences and thresholds"


OWN, ONE, BY_LABEL = ({"bce": value, "asl": value} for value in (0.3, 0.4, 0.45))
NONE: dict[str, float | None] = {"bce": None, "asl": None}


@pytest.mark.parametrize(
    ("own", "one", "by_label", "sentence"),
    [
        (OWN, ONE, BY_LABEL, "Thresholds (one a label) bring bce +.150 macro-F1; no other loss adds to that"),
        (
            OWN,
            {"bce": 0.4, "asl": 0.5},
            OWN,
            "Thresholds (one tuned) bring bce +.100 macro-F1; the best loss, asl, adds +.100",
        ),
        (
            {"bce": 0.3, "asl": 0.5},
            OWN,
            OWN,
            "Tuned thresholds bring bce no macro-F1; the best loss, asl, adds +.200",
        ),
        (OWN, OWN, OWN, "Neither tuned thresholds nor another loss bring bce any macro-F1"),
        ({"bce": 0.3, "asl": 0.5}, NONE, NONE, None),
        ({"bce": None, "asl": 0.5}, ONE, BY_LABEL, None),
    ],
)
def test_what_thresholds_bring_is_told_apart_from_what_the_loss_brings(
    own: dict[str, float | None],
    one: dict[str, float | None],
    by_label: dict[str, float | None],
    sentence: str | None,
) -> None:
    results = results_of(
        ("bce", "asl"), macro_f1_own=own, macro_f1=one, macro_f1_labels=by_label, micro_f1_own=dict(NONE)
    )
    assert what_brings_what(results) == ([] if sentence is None else [sentence])


@pytest.mark.parametrize("resplit", [False, True])
def test_means_are_over_what_varied(resplit: bool) -> None:
    lines = printed(results_of(("bce", "asl")).model_copy(update={"resplit": resplit}))
    assert any(line.startswith(f"Means over {'splits' if resplit else 'seeds'}, the best loss") for line in lines)
