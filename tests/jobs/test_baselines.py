"""What stands beside the losses: label shares, a linear model of scikit-learn, and labels by their frequency."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.metrics import average_precision_score, f1_score
from sklearn.svm import LinearSVC

from lopsided.data.dataset import Dataset, Splits
from lopsided.data.digits_grid import digits_grid
from lopsided.data.inputs import Images, SparseFeatures, Table, Texts
from lopsided.data.storage import UserError, read_tensors, write_tensors
from lopsided.jobs import baselines as module
from lopsided.jobs.baselines import baselines, fit_linear, linear_scores
from lopsided.jobs.compare_config import make_config
from lopsided.jobs.evidence import Baseline
from lopsided.jobs.groups import label_groups, thirds
from lopsided.jobs.score import Scored, evaluate
from lopsided.metrics.scores import Scores
from lopsided.targets import SparseTargets
from tests.tools import made_evidence

WORDS = ("goal match", "song guitar", "bread soup")


def texts(rows: int, seed: int, unknown: bool = False) -> Dataset:
    """Each word tells a label, with noise; label 3 is of no row. unknown: of half the rows, label 0 is not known."""
    random = np.random.default_rng(seed)
    truth = random.random((rows, 4)) < (0.4, 0.3, 0.2, 0.0)
    told = truth ^ (random.random((rows, 4)) < 0.1)
    lines = [" ".join(["the", *(WORDS[label] for label in range(3) if row[label])]) for row in told]
    values = truth.astype(np.float32)
    if unknown:
        values[::2, 0] = np.nan
    row, col = np.nonzero(values != 0)
    crow = torch.from_numpy(np.bincount(row, minlength=rows).cumsum())
    targets = SparseTargets(torch.cat([torch.zeros(1).long(), crow]), torch.from_numpy(col), num_labels=4)
    if unknown:
        targets = SparseTargets(targets.crow, targets.col, torch.from_numpy(values[row, col]), 4)
    return Dataset(Texts(tuple(lines)), targets, ("sport", "music", "food", "none"))


def splits(unknown: bool = False) -> Splits:
    valid = texts(60, 1)
    return Splits(texts(120, 0, unknown), valid, texts(80, 2), tuning=valid)


def of(part: Dataset | None) -> np.ndarray:
    assert part is not None
    made = np.zeros((len(part), part.num_labels), bool)
    made[part.targets.row.numpy(), part.targets.col.numpy()] = True
    return made


@pytest.mark.parametrize("unknown", [False, True])
def test_the_linear_baseline_is_that_of_scikit_learn(tmp_path: Path, unknown: bool) -> None:
    data = splits(unknown)
    made, left_out = baselines(data, tmp_path / "b.safetensors")
    assert left_out == []
    assert isinstance(data.train.inputs, Texts)
    assert data.test is not None
    assert isinstance(data.test.inputs, Texts)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    train, test = words.fit_transform(data.train.inputs.texts), words.transform(data.test.inputs.texts)
    known, truth = np.arange(120)[1::2] if unknown else np.arange(120), of(splits().train)
    expected = LinearSVC(random_state=0).fit(train[known], truth[known, 0]).decision_function(test)
    scores = made["linear"].scored[0].scores
    assert scores is not None
    assert scores.values[:, 0].numpy() == pytest.approx(expected, abs=1e-3)
    assert scores.values[:, 3].unique().tolist() == [-1], "a label that no row has"
    precision = [average_precision_score(of(data.test)[:, label], scores.values[:, label]) for label in range(3)]
    assert made["linear"].mean("map") == pytest.approx(np.mean(precision))


def test_with_folds_the_linear_baseline_has_all_rows_and_each_fold_is_scored_without_it() -> None:
    folds, words = (torch.arange(0, 60, 2), torch.arange(1, 60, 2)), TfidfVectorizer()
    data = replace(splits(), folds=folds)
    assert data.tuning is not None
    assert isinstance(data.tuning.inputs, Texts)
    features = words.fit_transform(data.tuning.inputs.texts)
    made = fit_linear(data, lambda inputs: words.transform(inputs.texts), linear_scores)
    for held, rest in (folds, folds[::-1]):
        model = LinearSVC(random_state=0).fit(features[rest.numpy()], of(data.tuning)[rest, 0])
        assert made["tuning"].values[held, 0].numpy() == pytest.approx(
            model.decision_function(features[held.numpy()]), abs=1e-3
        )
    assert isinstance(data.test, Dataset)
    assert isinstance(data.test.inputs, Texts)
    whole = LinearSVC(random_state=0).fit(features, of(data.tuning)[:, 0])
    expected = whole.decision_function(words.transform(data.test.inputs.texts))
    assert made["test"].values[:, 0].numpy() == pytest.approx(expected, abs=1e-3)


def test_the_linear_baseline_of_images_is_ridge_regression(tmp_path: Path) -> None:
    data = digits_grid(60, 20, 20)
    data = replace(data, tuning=data.valid)
    made, left_out = baselines(data, tmp_path / "b.safetensors")
    assert left_out == []
    assert data.test is not None
    images = [part.inputs for part in (data.train, data.test)]
    train, test = (each.pixels.flatten(1).double().numpy() / 255 for each in images if isinstance(each, Images))
    expected = RidgeCV((1, 10, 100, 1000)).fit(train, 2.0 * of(data.train) - 1).predict(test)
    scores = made["linear"].scored[0].scores
    assert scores is not None
    np.testing.assert_allclose(scores.values.numpy(), expected, atol=1e-4)
    assert made["linear"].settings == "RidgeCV of scikit-learn, on pixels"


def test_the_shares_rank_labels_alone(tmp_path: Path) -> None:
    shares = baselines(splits(), tmp_path / "b.safetensors")[0]["shares"]
    assert shares.mean("auroc") == 0.5
    assert shares.mean("map") == pytest.approx(of(splits().test)[:, :3].mean())
    assert shares.mean("p@1") == pytest.approx(of(splits().test)[:, 0].mean()), "the most frequent label"


Stored = tuple[dict[str, torch.Tensor], dict[str, str]]
DAMAGES: dict[str, Callable[[dict[str, torch.Tensor], dict[str, str]], Stored]] = {
    "a part is missing": lambda tensors, header: ({"test": tensors["test"]}, header),
    "no seconds": lambda tensors, header: (tensors, {"settings": ""}),
    "seconds that are none": lambda tensors, header: (tensors, header | {"seconds": "soon"}),
    "whole numbers": lambda tensors, header: ({name: each.long() for name, each in tensors.items()}, header),
    "a label too few": lambda tensors, header: ({name: each[:, 1:].clone() for name, each in tensors.items()}, header),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_fitted_is_not_fitted_again_unless_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    first = baselines(splits(), tmp_path / "b.safetensors")[0]["linear"]
    with monkeypatch.context() as context:
        context.setattr(module, "fit_linear", None)
        again = baselines(splits(), tmp_path / "b.safetensors")[0]["linear"]
    assert again.settings == first.settings
    assert again.mean("map") == first.mean("map")
    write_tensors(tmp_path / "b.safetensors", *DAMAGES[damage](*read_tensors(tmp_path / "b.safetensors")))
    assert baselines(splits(), tmp_path / "b.safetensors")[0]["linear"].mean("map") > 0.5


def test_too_much_work_is_left_out_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 100)
    made, left_out = baselines(splits(), tmp_path / "b.safetensors")
    assert list(made) == ["shares"]
    assert left_out == ["The linear baseline is left out: 4 labels of 120 rows would take it minutes."]


@pytest.mark.parametrize("kind", ["table", "large table", "sparse"])
def test_tables_and_sparse_rows_have_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Columns of very different scale, and an empty cell; features whose numbers are far apart."""
    if kind == "large table":
        monkeypatch.setattr(module, "_DENSE", 10)

    def rows(part: Dataset | None) -> Dataset:
        assert part is not None
        truth = torch.from_numpy(of(part)[:, :3]).float()
        if "table" in kind:
            numbers = truth * torch.tensor([1e6, 1.0, 1e-6])
            numbers[0, 0] = torch.nan
            return Dataset(Table.of_numbers(numbers), part.targets, part.label_names)
        row, col = truth.nonzero(as_tuple=True)
        indptr = torch.nn.functional.pad(torch.bincount(row, minlength=len(part)).cumsum(0), (1, 0))
        features = SparseFeatures(indptr, col * 1_000_000_000, torch.ones(len(col)), 2_000_000_001)
        return Dataset(features, part.targets, part.label_names)

    data = splits()
    made, _ = baselines(
        Splits(rows(data.train), None, rows(data.test), tuning=rows(data.tuning)), tmp_path / "b.safetensors"
    )
    assert made["linear"].mean("map") > 0.98
    assert made["linear"].settings.startswith("RidgeCV" if kind == "large table" else "LinearSVC")


def test_frequent_middling_and_rare_labels_are_measured_apart() -> None:
    data = splits()
    assert data.valid is not None
    assert data.test is not None
    scores = Scores.of(torch.randn(80, 4, generator=torch.Generator().manual_seed(0)))
    valid = Scores.of(torch.randn(60, 4, generator=torch.Generator().manual_seed(1)))
    scored = Scored(scores, data.test.hard_targets(), valid, data.valid.hard_targets(), 0.0)
    counts = of(data.train).sum(0)
    evidence = made_evidence({"bce": [scored]}, data, baselines={"linear": Baseline("x", (scored,), 0.0)})
    groups = label_groups(evidence)
    assert [(each.name, each.low, each.high, each.labels, each.tested) for each in groups] == [
        ("rare", 0, counts[2], 2, 1),
        ("middling", counts[1], counts[1], 1, 1),
        ("frequent", counts[0], counts[0], 1, 1),
    ]
    truth, decided = of(data.test), scores.values.numpy() > 0
    for group, label in zip(groups, (2, 1, 0), strict=True):
        values = group.metrics["bce"]
        assert values == group.metrics["linear"]
        assert values["map"] == pytest.approx(average_precision_score(truth[:, label], scores.values[:, label]))
        assert values["macro_f1_own"] == pytest.approx(f1_score(truth[:, label], decided[:, label]))
        assert values["p@1"] is None, "a metric of rows"
    whole = np.mean([group.metrics["bce"]["map"] or 0.0 for group in groups])
    assert whole == pytest.approx(evaluate("map", scored)), "each group has one label that can be tested"
    assert len(label_groups(made_evidence({"bce": [scored]}, data, bins=(1, 30)))) == 3
    assert label_groups(made_evidence({"bce": [scored]}, data, bins=(1000, 2000))) == [], "all are rare"


def test_thirds_keep_labels_of_one_count_together() -> None:
    assert thirds(np.array([5, 1, 1, 1, 9, 7])) == (1, 7)
    assert thirds(np.array([3])) == (3, 3)


@pytest.mark.parametrize("bins", ["10", "100,10", "a,b", "0,5", "1,2,3"])
def test_bins_are_two_rising_numbers(bins: str) -> None:
    with pytest.raises(UserError, match="--bins: two rising numbers of training positives"):
        make_config({"bins": bins})
    assert make_config({"bins": "10,100"}).edges == (10, 100)
