"""`lopsided compare --budget`: a wall time, divided equally over the losses."""

import json
from pathlib import Path
from typing import Any

import pytest

from lopsided.__main__ import main
from lopsided.data.storage import UserError
from lopsided.jobs.budget import TIMED, Budget
from lopsided.jobs.compare_config import make_config
from lopsided.jobs.fit import recipe_of
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.rows import prepare
from lopsided.jobs.schema import Speed, write_file
from lopsided.jobs.trials import Trials
from tests.tools import load_quietly, quiet_progress, read_results

SMALL = {"images": 60, "losses": "bce,asl", "seeds": 2}


def budget(folder: Path, seconds: dict[str, float], jobs: int = 1, **settings: Any) -> Budget:
    config = make_config(SMALL | settings)
    prepared = prepare(config, load_quietly(config))
    made = ComparisonFolder.create(folder, config)
    write_file(folder / "budget.json", Speed(jobs=jobs, seconds=seconds))
    return Budget(made, prepared, recipe_of(config.of_run("bce", 0, {}), prepared), quiet_progress())


@pytest.mark.parametrize(("jobs", "tune"), [(1, None), (1, 4), (2, None)])
def test_the_slowest_loss_uses_its_share_and_no_more(folder: Path, jobs: int, tune: int | None) -> None:
    asked = {"tune": tune} if tune else {}
    found = budget(folder / "run", {"bce": 0.1, "asl": 0.2}, jobs, budget="1m", **asked)
    pace = found.pace(climbs=True)

    def seconds(short: int, long: int, full: int) -> float:
        """Seven rungs, two of which go on; trials; both seeds: for each of two losses."""
        search = 7 * short + 2 * (long - short) + (tune or 0) * long
        alone = 0 if jobs == 1 else max(search, full)
        return 1.1 * 0.2 * (2 * (TIMED + search + 2 * full) + alone) / jobs

    assert 0.8 * 60 < seconds(pace.short, pace.long, pace.full) <= 60
    assert "as the slowest can in its share: asl, with 0.2 s an epoch." in found.told(pace)
    assert found.pace(climbs=False).full > pace.full, "without a ladder, there is time for more"


def test_epochs_bound_what_a_budget_allows(folder: Path) -> None:
    found = budget(folder / "run", {"bce": 0.1, "asl": 0.2}, budget="10m", epochs=2)
    pace = found.pace(climbs=True)
    assert pace.full == 2
    assert found.told(pace) == "Within 10m every loss may train for 2 epochs, as many as --epochs allows."


def test_what_allows_no_epoch_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="--budget 3s: one epoch of each training takes about 6 s; ask for more"):
        budget(folder / "run", {"bce": 0.1, "asl": 0.2}, budget="3s").pace(climbs=True)


@pytest.mark.slow
@pytest.mark.parametrize("out", [[], ["--out", "new/run"]])
def test_what_is_refused_leaves_nothing_behind(
    out: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["compare", "--images", "60", "--losses", "bce,asl", "--jobs", "2", "--budget", "0.1s"]
    assert main([*line, *out]) == 2
    assert "--budget 0.1s: one epoch of each training takes about" in capsys.readouterr().err
    assert not [path for path in folder.rglob("*") if path.name != "new"]


@pytest.mark.slow
def test_what_was_timed_is_kept_when_the_comparison_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["compare", "--images", "60", "--losses", "bce,asl", "--seeds", "1", "--budget", "10m", "--jobs", "1"]

    def stop(*arguments: Any) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Trials, "run", stop)
        assert main([*line, "--out", "run"]) == 130
    timed = json.loads((folder / "run/budget.json").read_text())["seconds"]
    assert {*timed} == {"bce", "asl"}
    assert all(0 < seconds < 60 for seconds in timed.values())
    monkeypatch.setattr(Budget, "time", stop)
    write_file(folder / "run/budget.json", Speed(jobs=1, seconds={"bce": 10.0, "asl": 20.0}))
    assert main(["compare", "run"]) == 0
    results = read_results(folder / "run")
    epochs = results["recipe"]["epochs"]
    (note,) = (note for note in results["notes"] if note.startswith("Within 10m"))
    assert note.startswith(f"Within 10m every loss may train for {epochs} epoch")
    assert all(len(path.read_text().splitlines()) - 1 <= epochs for path in (folder / "run/runs").glob("*/history.csv"))
    assert not (folder / "run/trials").exists()
