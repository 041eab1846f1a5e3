"""details.json of scores that nobody trained: many labels, candidates, diverged and tuned losses."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import f1_score

from lopsided.data.dataset import Dataset, Splits
from lopsided.data.inputs import Texts
from lopsided.jobs.details import LABELS, TEXT, details
from lopsided.jobs.evidence import Scores as Runs
from lopsided.jobs.evidence import Training
from lopsided.jobs.schema import Interval, LossResult, Results, write_file
from lopsided.jobs.score import Scored
from lopsided.metrics.scores import Scores
from lopsided.models.heads import dense_targets, own_threshold
from lopsided.models.methods import parse_method
from lopsided.report.html import write_report
from lopsided.targets import SparseTargets
from tests.tools import made_evidence, made_results

LIMIT = 3_000_000  # bytes of a report


def random_runs(labels: int, losses: tuple[str, ...], candidates: int | None = None) -> tuple[Splits, Runs, Results]:
    """Scores that nobody trained, of texts longer than what is shown."""
    generator = torch.Generator().manual_seed(0)

    def part(rows: int) -> Dataset:
        drawn = torch.rand(rows, labels, generator=generator) < max(4 / labels, 0.004)
        targets = SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in drawn])
        texts = Texts(tuple(f"text {row} <b>& \ud800 " + "long " * 200 for row in range(rows)))
        names = tuple(f"label <{label}> & {'x' * 120}" for label in range(labels))
        return Dataset(texts, replace(targets, num_labels=labels), names)

    def scores(rows: int) -> Scores:
        values = torch.randn(rows, labels, generator=generator)
        return Scores.of(values) if candidates is None else Scores(*values.topk(candidates), labels)

    valid, test = part(40), part(60)
    runs = {
        loss: [Scored(scores(60), test.targets, scores(40), valid.targets, own_threshold(parse_method(loss)))]
        for loss in losses
    }
    return Splits(part(60), valid, test), runs, made_results(losses={loss: loss_result(loss) for loss in losses})


def loss_result(settings: str, threshold: float = 1.5, mean: float = 0.1) -> LossResult:
    return LossResult(
        settings=settings,
        tuned_settings=None,
        own_threshold=0.0,
        tuned_thresholds=[threshold],
        seconds=1.0,
        best_epochs=[1],
        metrics={"map": Interval(mean=mean, low=None, high=None)},
        rising=False,
        overfitting=False,
    )


@pytest.mark.slow
def test_ten_thousand_labels_stay_small(finished: Path, folder: Path) -> None:
    losses = ("bce", "asl", "zlpr")
    splits, runs, results = random_runs(10_000, losses)
    found = details(made_evidence(runs, splits), results)
    labels, rows = found.labels, found.rows
    assert rows is not None
    assert len(labels.names) == LABELS
    assert labels.total == 10_000
    assert all(len(name) <= 80 for name in labels.names)
    assert all(len(row.text or "") == TEXT for row in rows.worst)
    assert splits.test is not None
    counts = splits.test.hard_counts().sort(descending=True).values.tolist()
    assert labels.test_positives[: LABELS // 2] == counts[: LABELS // 2]
    others = [value for value in labels.average_precision[rows.loss][LABELS // 2 :] if value is not None]
    assert len(others) == LABELS - LABELS // 2, "each has a positive"
    assert others == sorted(others), "the worst of the others"
    assert others[0] < others[-1]

    shutil.copytree(finished, folder / "run", ignore=shutil.ignore_patterns("runs"))
    write_file(folder / "run/details.json", found)
    page = write_report(folder / "run").read_text()
    assert len(page.encode()) < LIMIT
    assert "1000 of 10000 labels are shown" in page
    assert "9000 are left out" in page
    assert "label &lt;" in page
    assert "label <" not in page


def test_candidates_have_details_without_what_needs_all_scores() -> None:
    splits, runs, results = random_runs(300, ("bce", "asl"), candidates=20)
    assert splits.test is not None
    found = details(made_evidence(runs, splits), results)
    assert found.reliability == {"bce": {}, "asl": {}}, "the best labels of a row say nothing about the others"
    assert found.labels.test_positives == sorted(splits.test.hard_counts().tolist(), reverse=True)
    assert all(value is None for value in found.labels.average_precision["asl"])
    assert found.rows is not None
    scored = runs[found.rows.loss][0]
    truth = dense_targets(splits.test.targets, 300)
    assert scored.scores is not None
    decided = torch.zeros_like(truth)
    assert scored.scores.columns is not None
    decided.scatter_(1, scored.scores.columns, scored.decide("tuned"))
    f1 = f1_score(truth.numpy(), decided.numpy(), average=None, zero_division=0)
    shown = dict(zip(found.labels.names, found.labels.f1[found.rows.loss], strict=True))
    for name, value in zip(splits.test.label_names, f1, strict=True):
        assert shown[name[:79] + "…"] == pytest.approx(value, abs=1e-5)


def test_rows_without_an_error_are_not_the_worst() -> None:
    splits, runs, results = random_runs(4, ("bce",))
    assert splits.test is not None
    assert splits.valid is not None
    right = [4.0 * dense_targets(part.targets, 4) - 2 for part in (splits.test, splits.valid)]
    right[0][7] *= -1
    test, valid = map(Scores.of, right)
    runs["bce"] = [replace(runs["bce"][0], scores=test, valid_scores=valid)]
    found = details(made_evidence(runs, splits), results).rows
    assert found is not None
    assert [row.row for row in found.worst] == [8]
    assert all(not (row.missed or row.wrong) for row in found.best)


def test_no_loss_is_marked_as_the_best_where_all_are_equal() -> None:
    def marked(*means: float) -> str | None:
        losses = {f"loss {number}": loss_result("asl", mean=mean) for number, mean in enumerate(means)}
        return made_results(losses=losses).marked_loss("map")

    assert marked(0.0, 0.0) is None
    assert marked(0.0, 0.1, 0.1) == "loss 1"
    assert marked(0.0) == "loss 0"


def test_a_training_that_diverged_is_left_out() -> None:
    splits, runs, results = random_runs(20, ("asl", "bce"))
    lost = replace(runs["asl"][0], scores=None, valid_scores=None)
    results.losses["asl"] = loss_result("asl", math.inf, math.nan)
    found = details(made_evidence({"asl": [lost], "bce": runs["bce"]}, splits), results)
    assert list(found.curves) == list(found.reliability) == list(found.labels.f1) == ["bce"]
    assert found.rows is not None
    assert found.rows.loss == "bce"


def test_a_tuned_loss_is_drawn_and_read_as_it_was_trained() -> None:
    splits, runs, results = random_runs(20, ("bce", "asl"))
    plain = details(made_evidence(runs, splits), results)
    trained = {"bce": Training(parse_method("bce")), "asl": Training(parse_method("asl(gamma_neg=1, clip=0.2)"))}
    tuned = details(made_evidence(runs, splits, trained=trained), results)
    assert plain.gradients["asl"] != tuned.gradients["asl"]
    assert plain.gradients["bce"] == tuned.gradients["bce"]
    assert plain.reliability["asl"]["implied"] != tuned.reliability["asl"]["implied"]
    assert plain.reliability["asl"]["logit"] == tuned.reliability["asl"]["logit"]
