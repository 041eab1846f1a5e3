"""Equal tuning: as many trials for each loss, judged on validation rows, and a killed run goes on."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import average_precision_score

from lopsided.__main__ import main
from lopsided.jobs.config import CompareConfig, make_config
from lopsided.jobs.fit import recipe_of
from lopsided.jobs.rows import prepare
from lopsided.jobs.schema import Trial
from lopsided.jobs.tune import read_trials, search, tune
from lopsided.losses import CATALOG, formula
from lopsided.losses.catalog import SEARCH
from lopsided.losses.closed_form import decision_threshold
from lopsided.losses.names import defaults, ranges, with_settings
from lopsided.models.recipe import Recipe
from lopsided.training.loop import train
from lopsided.training.validate import Validation
from tests.jobs.test_compare import dense
from tests.tools import load_quietly, quiet_progress, read_results, scores_of

TUNED = ["--images", "300", "--epochs", "1", "--seeds", "1", "--losses", "bce,asl", "--tune", "3"]


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tuned") / "run"
    assert main(["compare", *TUNED, "--out", str(path)]) == 0
    return path


@pytest.mark.slow
def test_every_loss_gets_its_trials(tuned: Path) -> None:
    with (tuned / "trials.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["loss"], line["trial"]) for line in lines] == [(loss, n) for loss in ("bce", "asl") for n in "123"]
    assert {line["metric"] for line in lines} == {"map"}
    assert len({line["spec"] for line in lines}) == 4, "bce has only its learning rate"
    assert len({line["learning_rate"] for line in lines if line["loss"] == "bce"}) == 3
    first = [line for line in lines if line["trial"] == "1"]
    assert [line["learning_rate"] for line in first] == ["0.003", "0.003"]
    assert formula(first[1]["spec"]) == formula("asl"), "the first trial is the default"


@pytest.mark.slow
def test_the_best_on_validation_is_trained(tuned: Path) -> None:
    trials = read_trials(tuned / "trials.csv")
    results = read_results(tuned)
    config = make_config({"images": 300, "epochs": 1})
    prepared = prepare(config, load_quietly(config))
    assert prepared.valid is not None
    assert prepared.test is not None
    for number, loss in enumerate(("bce", "asl")):
        best = max((trial for trial in trials if trial.loss == loss), key=lambda trial: trial.value)
        entry = results["losses"][loss]
        assert entry["tuned_settings"]["learning_rate"] == best.learning_rate
        assert entry["settings"] == str(formula(best.spec))
        recipe = recipe_of(config.of_run(loss, 0, {"learning_rate": best.learning_rate}), prepared)
        validation = Validation(prepared.valid)
        model = train(prepared.encoder, best.spec, prepared.train, recipe, 0, validation=validation).model
        saved = scores_of(tuned / f"runs/{number}-{loss}-seed0")
        assert torch.equal(saved, model.score(prepared.test.encoded).values)
        # the trial was trained with the seed after those that are compared, and judged on validation rows
        model = train(prepared.encoder, best.spec, prepared.train, recipe, 1, validation=validation).model
        truth, scores = dense(prepared.valid.data), model.score(prepared.valid.encoded).values.numpy()
        present = truth.any(0)
        assert best.value == pytest.approx(average_precision_score(truth[:, present], scores[:, present]))
    assert results["losses"]["asl"]["own_threshold"] == pytest.approx(
        float(decision_threshold(formula(results["losses"]["asl"]["settings"])))
    )
    assert any("3 trials of each loss" in note and "gamma_neg" in note for note in results["notes"])


class Untouchable:
    """Test rows that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the test rows were asked for {name}")


def test_tuning_does_not_see_the_test_rows(tmp_path: Path) -> None:
    config = make_config({"images": 60, "epochs": 1, "losses": "bce,zlpr", "tune": 2})
    untouchable: Any = Untouchable()
    prepared = replace(prepare(config, load_quietly(config)), test=untouchable)
    chosen = tune(config, prepared, Recipe(1, 16, 0.003), tmp_path / "trials.csv", quiet_progress())
    assert list(chosen) == ["bce", "zlpr"]
    assert set(chosen["zlpr"].tuned()) == {"scale", "margin", "learning_rate"}


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_trials(
    tuned: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []

    def stop_at_the_fifth(*arguments: Any, **options: Any) -> Any:
        trained.append(arguments)
        if len(trained) == 5:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr("lopsided.jobs.tune.train", stop_at_the_fifth)
    assert main(["compare", *TUNED, "--out", "run"]) == 130
    assert len(read_trials(folder / "run/trials.csv")) == 4
    assert main(["compare", "run"]) == 0
    assert len(trained) == 5 + 2, "four trials were there, two were missing"
    assert capsys.readouterr().out.count("trained before") == 4
    assert (folder / "run/trials.csv").read_bytes() == (tuned / "trials.csv").read_bytes()
    assert read_results(folder / "run")["comparisons"] == read_results(tuned)["comparisons"]


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("clip=0.05", "clip=0.06", "trial 1 of asl is asl(gamma_neg=4.0, gamma_pos=0.0, clip=0.06), not asl("),
        ("bce,1,", "bce,one,", "trials.csv: damaged (field 0.trial: Input should be a valid integer"),
        ("value", "worth", "trials.csv: damaged (field 0.value: Field required); delete it to tune again"),
    ],
)
def test_trials_of_something_else_are_refused(
    right: str, wrong: str, message: str, tuned: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "run").mkdir()
    (folder / "run/config.json").write_bytes((tuned / "config.json").read_bytes())
    (folder / "run/trials.csv").write_text((tuned / "trials.csv").read_text().replace(right, wrong))
    assert main(["compare", "run"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def config_of(trials: int, metric: str = "map") -> CompareConfig:
    return make_config({"tune": trials, "metric": metric})


@pytest.mark.parametrize(("metric", "sign"), [("map", -1), ("hamming_loss", 1)])
def test_the_search_nears_the_best_settings(metric: str, sign: int) -> None:
    seen: list[tuple[Trial, float]] = []

    def run(trial: Trial) -> float:
        """Best at gamma_neg = 2, clip = 0.2 and a third of the rate; every fifth training diverges."""
        settings = dict(part.split("=") for part in trial.spec.partition("(")[2][:-1].split(", "))
        miss = abs(float(settings["gamma_neg"]) - 2) / 8 + abs(float(settings["clip"]) - 0.2)
        miss += abs(math.log(trial.learning_rate / 0.001)) / 4
        seen.append((trial, math.nan if trial.trial % 5 == 0 else miss))
        return sign * seen[-1][1]

    best = search(config_of(32, metric), "asl(gamma_pos=1)", 0.003, run)
    assert [trial.trial for trial, _ in seen] == list(range(1, 33))
    assert all("gamma_pos=1," in trial.spec for trial, _ in seen), "what was asked for stays"
    winner, least = min(((trial, miss) for trial, miss in seen if not math.isnan(miss)), key=lambda pair: pair[1])
    assert (best.spec, best.learning_rate) == (winner.spec, winner.learning_rate)
    assert least < 0.5 * seen[0][1]


def test_the_first_trial_is_what_would_be_trained_untuned() -> None:
    seen: list[Trial] = []

    def run(trial: Trial) -> float:
        seen.append(trial)
        return float(len(seen))

    search(config_of(2), "asl(clip=0.123456)", 0.00123456, run)
    assert formula(seen[0].spec) == formula("asl(clip=0.123456)")
    assert seen[0].learning_rate == 0.00123456
    assert seen[1].learning_rate == float(f"{seen[1].learning_rate:.4g}") != seen[0].learning_rate, "four digits"


def test_where_every_trial_fails_the_default_is_trained() -> None:
    assert search(config_of(3), "asl", 0.003, lambda trial: math.nan).spec == "asl"


def test_every_loss_in_its_ranges_can_be_made() -> None:
    generator = torch.Generator().manual_seed(0)
    assert set(SEARCH) < set(CATALOG)
    for loss, space in SEARCH.items():
        assert all(space[name].low <= value <= space[name].high for name, value in defaults(loss).items())
        shares = torch.rand(40, len(space), generator=generator)
        for row in torch.cat([shares, shares.round()]).tolist():
            settings = {
                name: where.low + share * (where.high - where.low)
                for (name, where), share in zip(space.items(), row, strict=True)
            }
            formula(with_settings(loss, settings))


def test_what_a_spec_says_is_not_tuned() -> None:
    assert set(ranges("apl(alphas=(1, 0.5), clip=0)")) == {"gamma_neg", "gamma_pos", "epsilon_neg"}
    assert "epsilon_neg" not in ranges("apl(betas=(1,))")
    for spec in ("asl_paper", "bce", "powerset", "powerset(max_sets=20)"):
        assert ranges(spec) == {}
    assert set(ranges("hill(gamma=1)")) == {"margin", "lamb"}


def test_the_number_of_trials_is_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--tune", "0"]) == 2
    assert "--tune: Input should be greater than or equal to 1" in capsys.readouterr().err
