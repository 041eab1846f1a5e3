"""A rate, and perhaps settings, for each loss: as many trials for all, judged on validation; killed, they go on."""

import math
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import average_precision_score

from lopsided.__main__ import main
from lopsided.data.storage import UserError
from lopsided.jobs.compare import Worker
from lopsided.jobs.compare_config import make_config
from lopsided.jobs.fit import recipe_of
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.rows import prepare
from lopsided.jobs.schema import Stage, Trial, read_table
from lopsided.jobs.trials import Pace
from lopsided.jobs.tune import Candidate, Run, climb, search
from lopsided.losses import BALANCED, CATALOG, UNKNOWN, any_loss, formula
from lopsided.losses.closed_form import decision_threshold
from lopsided.losses.entries import SEARCH
from lopsided.losses.names import defaults, ranges, with_settings
from lopsided.models.recipe import Recipe
from lopsided.training.loop import train
from lopsided.training.validate import Validation
from tests.jobs.test_compare import dense
from tests.tools import load_quietly, quiet_progress, read_results, scores_of

TUNED = ["--images", "120", "--epochs", "4", "--seeds", "1", "--losses", "bce,asl", "--tune", "3"]
SETTINGS = {"images": 120, "epochs": 4, "seeds": 1, "losses": "bce,asl", "tune": 3}
LADDER = [0.003, 0.000949, 0.00949, 0.0003, 0.03]


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tuned") / "run"
    assert main(["compare", *TUNED, "--out", str(path)]) == 0
    return path


def trials_of(run: Path) -> list[Trial]:
    return read_table(run / "trials.csv", Trial, "")


@pytest.mark.slow
def test_every_loss_climbs_the_same_ladder_and_gets_its_trials(tuned: Path) -> None:
    for loss in ("bce", "asl"):
        trials = [trial for trial in trials_of(tuned) if trial.loss == loss]
        assert [trial.trial for trial in trials] == list(range(1, len(trials) + 1))
        by_stage: dict[str, list[Trial]] = {}
        for trial in trials:
            by_stage.setdefault(trial.stage, []).append(trial)
        short, long, settings = (by_stage[stage] for stage in ("short", "long", "tuned"))
        assert [trial.learning_rate for trial in short[:5]] == LADDER
        best = sorted(short, key=lambda trial: -trial.value)[:2]
        assert {trial.learning_rate for trial in long} == {trial.learning_rate for trial in best}
        alike = [trial for trial in long if trial.value >= max(each.value for each in long) * 0.95]
        winner = max(alike, key=lambda trial: trial.learning_rate)
        assert len(settings) == 3
        assert (settings[0].spec, settings[0].learning_rate) == (loss, winner.learning_rate), "the first is the default"
        assert settings[0].value == winner.value
        assert {trial.spec for trial in settings} == ({"bce"} if loss == "bce" else {trial.spec for trial in settings})
    assert not (tuned / "trials").exists(), "what trials go on from"


@pytest.mark.slow
def test_the_best_on_validation_is_trained(tuned: Path) -> None:
    results = read_results(tuned)
    config = make_config(SETTINGS)
    prepared = prepare(config, load_quietly(config))
    assert prepared.valid is not None
    assert prepared.test is not None
    validation = Validation(prepared.valid)
    for number, loss in enumerate(("bce", "asl")):
        best = max(
            (each for each in trials_of(tuned) if (each.loss, each.stage) == (loss, "tuned")), key=lambda t: t.value
        )
        entry = results["losses"][loss]
        assert entry["tuned_settings"]["learning_rate"] == best.learning_rate
        assert entry["settings"] == str(formula(best.spec))
        recipe = recipe_of(config.of_run(loss, 0, {"learning_rate": best.learning_rate}), prepared)
        model = train(prepared.encoder, best.spec, prepared.train, recipe, 0, validation=validation).model
        assert torch.equal(scores_of(tuned / f"runs/{number}-{loss}-seed0"), model.score(prepared.test.encoded).values)
        # the trial was trained with the seed after those that are compared, and judged on validation rows
        recipe = replace(recipe, epochs=best.epochs)
        model = train(prepared.encoder, best.spec, prepared.train, recipe, 1, validation=validation).model
        truth, scores = dense(prepared.valid.data), model.score(prepared.valid.encoded).values.numpy()
        present = truth.any(0)
        assert best.value == pytest.approx(average_precision_score(truth[:, present], scores[:, present]))
    assert results["losses"]["asl"]["own_threshold"] == pytest.approx(
        float(decision_threshold(formula(results["losses"]["asl"]["settings"])))
    )
    assert any("3 trials of each loss" in note and "learning rate" in note for note in results["notes"])


@pytest.mark.slow
def test_two_workers_on_one_storage_give_the_results_of_one(tuned: Path, folder: Path) -> None:
    shared = ["--jobs", "2", "--storage", f"sqlite:///{folder}/shared.db"]
    assert main(["compare", *TUNED, *shared, "--out", "run"]) == 0
    assert (folder / "run/trials.csv").read_bytes() == (tuned / "trials.csv").read_bytes()
    assert not (folder / "run/trials.db").exists()
    assert read_results(folder / "run")["comparisons"] == read_results(tuned)["comparisons"]


class Untouchable:
    """Test rows that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the test rows were asked for {name}")


@pytest.mark.slow
def test_trials_do_not_see_the_test_rows(tmp_path: Path) -> None:
    config = make_config({"images": 60, "epochs": 1, "losses": "bce,zlpr", "tune": 2})
    untouchable: Any = Untouchable()
    prepared = replace(prepare(config, load_quietly(config)), test=untouchable)
    worker = Worker(ComparisonFolder.create(tmp_path / "run", config), prepared, quiet_progress())
    trials = worker.trials
    assert not math.isnan(trials.run("zlpr", "zlpr(scale=2)", 0.01, "tuned"))
    (trial,) = trials.of("zlpr")
    assert trial == trials_of(tmp_path / "run")[0]
    assert (trial.spec, trial.learning_rate, trial.epochs) == ("zlpr(scale=2)", 0.01, 1)


def changed(statement: str) -> Callable[[Path], object]:
    return lambda path: sqlite3.connect(path, isolation_level=None).execute(statement).connection.close()


HARMS: dict[str, Callable[[Path], object]] = {  # by what is said about each
    "file is not a database": lambda path: path.write_bytes(b"SQLite" * 1000),
    "malformed": lambda path: path.write_bytes(path.read_bytes()[:20_000]),
    "trial 0 has no value": changed("DELETE FROM trial_values"),
    "epochs": changed("UPDATE trial_user_attributes SET value_json = '[1]' WHERE key = 'epochs'"),
    "Expecting value": changed("UPDATE trial_user_attributes SET value_json = 'x' WHERE key = 'epochs'"),
}


@pytest.mark.slow
def test_a_damaged_database_of_trials_is_told(tmp_path: Path) -> None:
    config = make_config({"images": 60, "epochs": 1, "losses": "bce,asl", "tune": 2})
    run, database = ComparisonFolder.create(tmp_path / "run", config), tmp_path / "run/trials.db"
    prepared = prepare(config, load_quietly(config))
    Worker(run, prepared, quiet_progress()).trials.run("bce", "bce", 0.01, "tuned")
    whole = database.read_bytes()
    for reason, harm in HARMS.items():
        database.write_bytes(whole)
        harm(database)
        with pytest.raises(UserError, match=rf"trials\.db: not .* trials that can be used \((?s:.*){reason}") as told:
            Worker(run, prepared, quiet_progress()).trials.of("bce")
        assert str(told.value).endswith(f"; delete it, then write it again with: lopsided compare {tmp_path / 'run'}")


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_trials(tuned: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def stop_at_the_fifth(*arguments: Any, **options: Any) -> Any:
        trained.append(arguments)
        if len(trained) == 5:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr("lopsided.jobs.rehearsal.train", stop_at_the_fifth)
    assert main(["compare", *TUNED, "--out", "run"]) == 130
    assert len(trials_of(folder / "run")) == 4
    (folder / "run/trials.csv").unlink()
    assert main(["compare", "run"]) == 0
    different = {(trial.spec, trial.learning_rate, trial.epochs) for trial in trials_of(tuned)}
    assert len(trained) == 1 + len(different), "each once, but for the one that was stopped"
    assert (folder / "run/trials.csv").read_bytes() == (tuned / "trials.csv").read_bytes()
    assert read_results(folder / "run")["comparisons"] == read_results(tuned)["comparisons"]


def climbing(best: float, fails: float = math.inf) -> tuple[Run, list[tuple[float, Stage]]]:
    """A loss whose values fall with the distance from its best rate, and that diverges above another."""
    seen: list[tuple[float, Stage]] = []

    def run(spec: str, rate: float, stage: Stage) -> float:
        seen.append((rate, stage))
        return math.nan if rate > fails else -abs(math.log10(rate / best))

    return run, seen


@pytest.mark.parametrize(
    ("best", "fails", "chosen", "short"),
    [
        (1.2, math.inf, 1.0, 5),
        (0.3, math.inf, 0.316, 5),
        (12.0, math.inf, 10.0, 6),
        (1000.0, math.inf, 100.0, 7),
        (0.0001, math.inf, 0.01, 7),
        (12.0, 2.0, 1.0, 5),
        (1.0, 0.0, 1.0, 5),
    ],
)
def test_the_ladder_finds_the_best_rate(best: float, fails: float, chosen: float, short: int) -> None:
    run, seen = climbing(best, fails)
    assert climb("bce", 1.0, run, 1) == chosen
    rounds = Counter(stage for _, stage in seen)
    assert rounds["short"] == short
    assert rounds["long"] == (2 if fails else 0)
    lower, low_seen = climbing(best, fails)
    assert climb("bce", 1.0, lambda *of: -lower(*of), -1) == chosen, "of a metric that is better when it is lower"
    assert low_seen == seen


@pytest.mark.parametrize(("value", "chosen"), [(0.99, 0.1), (0.9, 0.0316)])
def test_of_two_rates_that_do_alike_halfway_the_higher_is_taken(value: float, chosen: float) -> None:
    """The lower one is ahead then because the rate has not fallen yet."""
    values = {0.0316: 0.4, 0.1: 0.4 * value}
    assert climb("bce", 0.01, lambda _, rate, stage: values.get(rate, 0.1), 1) == chosen


def test_where_all_rates_do_alike_the_default_is_taken() -> None:
    assert climb("bce", 0.1234567, lambda *of: 0.5, 1) == 0.1234567


def test_trainings_of_a_schedule_end_where_it_ends() -> None:
    config = make_config({})
    assert Pace.of(config, Recipe(7, 64, 0.1)) == Pace(short=2, long=5, full=14, patience=3)
    assert Pace.of(config, Recipe(7, 64, 0.1, schedule="cosine")) == Pace(short=2, long=7, full=7, patience=3)
    assert Pace.of(make_config({"epochs": 1, "patience": 9}), Recipe(7, 64, 0.1)) == Pace(1, 1, 1, 9)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_search_nears_the_best_settings(sign: int) -> None:
    seen: list[tuple[str, float, float]] = []

    def run(spec: str, rate: float, stage: Stage) -> float:
        """Best at gamma_neg = 2, clip = 0.2 and half the rate; every fifth training diverges."""
        settings = dict(part.split("=") for part in spec.partition("(")[2][:-1].split(", "))
        miss = abs(float(settings.get("gamma_neg", 4)) - 2) / 8 + abs(float(settings.get("clip", 0.05)) - 0.2)
        miss += abs(math.log(rate / 0.0015)) / 4
        seen.append((spec, rate, math.nan if len(seen) % 5 == 4 else miss))
        return -sign * seen[-1][2]

    best = search("asl(gamma_pos=1)", 0.003, 30, run, sign, 0, tunes_rate=True)
    assert len(seen) == 30
    assert all("gamma_pos=1" in spec for spec, _, _ in seen), "what was asked for stays"
    spec, rate, least = min((each for each in seen if not math.isnan(each[2])), key=lambda each: each[2])
    assert (best.spec, best.learning_rate) == (spec, rate)
    assert least < 0.5 * seen[0][2]


@pytest.mark.parametrize("loss", [*CATALOG, "powerset"])
def test_eight_trials_are_designed_and_never_worse_than_the_default(loss: str) -> None:
    seen: list[tuple[str, float]] = []

    def run(spec: str, rate: float, stage: Stage) -> float:
        seen.append((spec, rate))
        return -float(len(seen))

    best = search(loss, 0.00123456, 8, run, 1, 0, tunes_rate=True)
    assert (best.spec, best.learning_rate) == seen[0] == (loss, 0.00123456)
    rates = sorted(math.log10(rate / 0.00123456) for _, rate in seen[1:])
    assert len({*seen}) == 8, "of every loss as many"
    assert -0.501 < rates[0] < -0.3, "from the rung below"
    assert 0.3 < rates[-1] < 0.501, "to the rung above"
    assert all(rate == float(f"{rate:.4g}") for _, rate in seen[1:]), "four digits"
    for name, where in ranges(loss).items():
        values = sorted(float(dict(formula_settings(spec))[name]) for spec, _ in seen[1:])
        assert values[0] < where.at(0.3) < where.at(0.7) < values[-1], name


def formula_settings(spec: str) -> list[list[str]]:
    return [part.split("=") for part in spec.partition("(")[2][:-1].split(", ")]


def test_a_rate_that_is_given_is_not_tuned() -> None:
    seen: list[float] = []

    def run(spec: str, rate: float, stage: Stage) -> float:
        seen.append(rate)
        return float(len(seen))

    assert search("asl", 0.5, 4, run, 1, 0, tunes_rate=False).spec != "asl"
    assert search("bce", 0.5, 4, run, 1, 0, tunes_rate=False).spec == "bce"
    assert seen == [0.5] * 5


def test_a_choice_of_nothing_is_told() -> None:
    """As of a loss without settings, in a model that has no rate."""
    assert Candidate("bce", {}, 0.0).shown() == "as it is"
    assert Candidate("asl(clip=0)", {"clip": 0.0}, 0.01).shown() == "clip 0, learning rate 0.01"


def test_where_every_trial_fails_the_default_is_trained() -> None:
    assert search("asl", 0.003, 3, lambda *of: math.nan, 1, 0, tunes_rate=True).spec == "asl"


def test_every_loss_in_its_ranges_can_be_made() -> None:
    generator = torch.Generator().manual_seed(0)
    assert set(SEARCH) == {*CATALOG, *UNKNOWN, *BALANCED}
    assert all(SEARCH[name] for name in (*UNKNOWN, *BALANCED))
    for loss, space in SEARCH.items():
        assert all(space[name].low <= value <= space[name].high for name, value in defaults(loss).items())
        shares = torch.rand(40, len(space), generator=generator).pow(torch.arange(40)[:, None])  # some are all but 0
        for row in torch.cat([shares, shares.round()]).tolist():
            values = zip(space.items(), row, strict=True)
            any_loss(with_settings(loss, {name: where.rounded(where.at(share)) for (name, where), share in values}))


def test_what_a_spec_says_is_not_tuned() -> None:
    assert set(ranges("apl(alphas=(1, 0.5), clip=0)")) == {"gamma_neg", "gamma_pos", "epsilon_neg"}
    assert "epsilon_neg" not in ranges("apl(betas=(1,))")
    for spec in ("asl_paper", "bce", "powerset", "powerset(max_sets=20)"):
        assert ranges(spec) == {}
    assert set(ranges("hill(gamma=1)")) == {"margin", "lamb"}
    assert set(ranges("cb_ntr(beta=0.5, threshold_logit=0)")) == {"kappa", "tolerance", "gamma"}


def test_the_number_of_trials_is_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--tune", "0"]) == 2
    assert "--tune: must be greater than or equal to 1, got " in capsys.readouterr().err
