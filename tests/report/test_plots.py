"""What stands beside the axes of the report's plots, and what the ladder shows."""

import math
import re
from collections.abc import Sequence

import pytest

from lopsided.jobs.schema import HistoryLine, Interval, LossResult, Trial
from lopsided.models.recipe import Recipe
from lopsided.report.plots import diagnostics, differences, folded, ladder
from lopsided.report.svg import Drawing, Ticks
from tests.tools import made_results


def trials(stage: str, values: Sequence[float], rates: Sequence[float], first: int) -> list[Trial]:
    pairs = enumerate(zip(rates, values, strict=True), first)
    return [Trial("bce", n, stage, "bce", rate, 9, 1, "map", value) for n, (rate, value) in pairs]  # type: ignore[arg-type]


def result(mean: float, half: float | None = None) -> LossResult:
    ends = {"low": None if half is None else mean - half, "high": None if half is None else mean + half}
    return LossResult(
        settings="bce",
        tuned_settings=None,
        own_threshold=0.0,
        tuned_thresholds=[0.0],
        seconds=1.0,
        best_epochs=[1],
        metrics={"map": Interval(mean=mean, **ends)},
        rising=False,
        overfitting=False,
    )


def written(drawing: Drawing) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing.svg)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 0.2, 0.4, 1], [".0", ".2", ".4", "1.0"]),
        ([-0.02, 0, 0.02], ["-.02", ".00", ".02"]),
        ([-10, 0, 10], ["-10", "0", "10"]),
        ([0.0125, 0.015], [".013", ".015"]),
    ],
)
def test_axes_write_numbers_as_tables_do(values: list[float], texts: list[str]) -> None:
    assert Ticks().format_ticks(values) == texts


def test_the_ladder_shows_rates_as_one_types_them_and_the_longer_trials_apart() -> None:
    rates = [0.0003, 0.001, 0.003, 0.01, 0.03]
    tried = trials("short", [0.1, 0.3, 0.4, 0.4, math.nan], rates, 1) + trials("long", [0.5, 0.6], [0.003, 0.01], 6)
    (panel,) = ladder(made_results(losses={"bce": result(0.5)}), tried, {})
    assert {"0.0003", "0.001", "0.003", "0.01"} <= set(written(panel))
    assert "mathdefault" not in panel.svg
    of_rates, of_settings = ladder(
        made_results(losses={"bce": result(0.5)}), [*tried, *trials("tuned", [0.6, 0.7], [0.01, 0.02], 8)], {}
    )
    assert of_rates.svg == panel.svg, "a trial with other settings is none of the ladder"
    assert {"8", "9"} <= set(written(of_settings))


def test_the_ladder_of_a_solved_model_is_one_of_penalties() -> None:
    solved = made_results(losses={"bce": result(0.5)}, recipe=Recipe(3, 0, 0.0, optimizer="solve"))
    penalties = enumerate((1.0, 0.1, 0.01), 1)
    history = [HistoryLine("bce", 0, n, 1.0, 1.0, valid=0.5 + n / 10, l2=l2) for n, l2 in penalties]
    (panel,) = ladder(solved, [], {"bce": {0: history}})
    assert {"0.01", "0.1", "1", "penalty on the squared weights"} <= set(written(panel))


def test_what_is_undefined_throughout_has_no_plot() -> None:
    """As where no validation row has a label."""
    solved = made_results(losses={"bce": result(0.5)}, recipe=Recipe(3, 0, 0.0, optimizer="solve"))
    lines = {"bce": {0: [HistoryLine("bce", 0, 1, 1.0, 1.0, l2=1.0, p_positive=0.5)]}}
    assert ladder(solved, [], lines) == []
    assert len(diagnostics(solved, lines)) == 1


def test_means_that_have_no_interval_are_not_drawn_again() -> None:
    assert len(differences(made_results(losses={"bce": result(0.5, 0.1)}))) == 2
    for half in (None, 0.0, 1e-17):
        (panel,) = differences(made_results(losses={"bce": result(0.5, half)}))
        assert panel.title.startswith("difference in mAP")


def test_a_long_name_takes_several_lines_beside_a_plot() -> None:
    assert folded("asl(gamma_neg=4, gamma_pos=1, clip=0.05)") == "asl(gamma_neg=4,\ngamma_pos=1,\nclip=0.05)"
    assert folded("bce") == "bce"
    assert folded("x" * 100).endswith("…")
