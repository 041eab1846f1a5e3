"""The verdict in one sentence, and the critical-difference diagram."""

import re
from typing import Any

import numpy as np
import pytest

from lopsided.jobs.schema import Comparison, Results
from lopsided.metrics.friedman import rank_losses
from lopsided.report.critical_difference import critical_difference
from lopsided.report.headline import headline, ranks_headline
from tests.tools import made_results


def comparisons(**verdicts: tuple[str, float, float | None]) -> Results:
    unknown: dict[str, Any] = dict.fromkeys(
        ("low", "high", "p_value", "standard_error", "freedom", "effect_size", "p_holm")
    )
    return made_results(
        comparisons={
            loss: Comparison(**unknown, verdict=verdict, mean=mean, detectable=detectable, sentence="")
            for loss, (verdict, mean, detectable) in verdicts.items()
        }
    )


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        (comparisons(asl=("better", 0.02, 0.01)), "asl beats bce in mAP, by 0.020"),
        (
            comparisons(asl=("better", 0.02, 0.01), apl=("better", 0.03, 0.01), zlpr=("ahead so far", 0.01, 0.01)),
            "apl and asl beat bce in mAP, by 0.030 and 0.020; zlpr is ahead of bce in mAP so far, by 0.010",
        ),
        (
            comparisons(**{f"l{number}": ("better", number / 100, 0.01) for number in range(1, 7)}),
            "l6, l5, l4 and 3 others beat bce in mAP, by 0.010 to 0.060",
        ),
        (
            comparisons(asl=("worse", -0.02, 0.01), apl=("no difference shown", 0.0, 0.01)),
            "No loss is shown to beat bce in mAP, where a gain below 0.010 may have been missed; asl is worse",
        ),
        (
            comparisons(asl=("behind so far", -0.02, 0.01), apl=("worse", -0.02, 0.01)),
            "No loss is shown to beat bce in mAP; apl is worse; asl is behind so far",
        ),
        (
            comparisons(asl=("no difference shown", 0.01, 0.013), apl=("no difference shown", 0.0, 0.02)),
            "No difference to bce was shown in mAP; one below 0.020 may have been missed",
        ),
        (comparisons(asl=("no difference shown", 0.01, None)), "No difference to bce was shown in mAP"),
        (
            comparisons(asl=("cannot be tested", float("nan"), None)),
            "Nothing can be said in mAP: no loss can be compared with bce",
        ),
    ],
)
def test_the_verdict_in_one_sentence(results: Results, sentence: str) -> None:
    assert headline(results) == sentence


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[0.1, 0.2, 0.3]] * 8, "zlpr ranks best in mAP over 8 data sets, and is shown to be ahead of bce"),
        (
            [[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]],
            "No difference between the losses was shown in mAP over 2 data sets; mean ranks 2.34 apart would differ",
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
