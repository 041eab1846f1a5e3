"""The classifier of scikit-learn: its own checks, and the uses that people have for it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from lopsided.integrations.sklearn import LopsidedClassifier

WORDS = ("billing", "login", "crash")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the decision rule is not tuned:UserWarning")  # some checks give one class a fold
@parametrize_with_checks([LopsidedClassifier()])  # type: ignore[untyped-decorator]
def test_scikit_learn_checks_it(estimator: Any, check: Any) -> None:
    check(estimator)


def tickets(rows: int = 60) -> tuple[list[str], np.ndarray]:
    """Texts with some of three words and with noise, and which of the words they have."""
    random = np.random.default_rng(0)
    truth = random.random((rows, 3)) < 0.4
    noise = [f"w{number}" for number in range(30)]
    texts = [" ".join([*np.array(WORDS)[has], *random.choice(noise, 3)]) for has in truth]
    return texts, truth.astype(int)


def features() -> tuple[Any, np.ndarray]:
    texts, truth = tickets()
    return TfidfVectorizer().fit_transform(texts), truth


def test_texts_come_through_a_pipeline() -> None:
    texts, truth = tickets()
    with pytest.raises(ValueError, match=r"X holds texts .*: put a vectorizer before"):
        LopsidedClassifier().fit(texts, truth)
    model = make_pipeline(TfidfVectorizer(), LopsidedClassifier("asl")).fit(texts, truth)
    np.testing.assert_array_equal(model.predict(["login", "crash and billing"]), [[0, 1, 0], [1, 0, 1]])
    again = pickle.loads(pickle.dumps(model))
    for name in ("predict", "predict_proba", "decision_function"):
        np.testing.assert_array_equal(getattr(again, name)(texts), getattr(model, name)(texts))
        assert getattr(model, name)(texts).shape == truth.shape


def test_sparse_labels_give_sparse_predictions_and_the_same_model() -> None:
    x, y = features()
    dense, thin = (LopsidedClassifier("zlpr").fit(x, labels) for labels in (y, sparse.csr_matrix(y)))
    predicted = thin.predict(x)
    assert sparse.issparse(predicted)
    np.testing.assert_array_equal(predicted.toarray(), dense.predict(x))
    np.testing.assert_array_equal(thin.predict_proba(x.toarray()), dense.predict_proba(x))  # rows may be dense then


def test_a_given_penalty_gives_the_weights_of_logistic_regression() -> None:
    x, y = make_multilabel_classification(200, n_features=6, n_classes=3, random_state=0)
    ours = LopsidedClassifier("bce", l2=2.0, decide="own").fit(x, y)
    standard = (x - x.mean(0)) / x.std(0)
    for label, scores in enumerate(ours.decision_function(x).T):
        theirs = LogisticRegression(C=0.5).fit(standard, y[:, label]).decision_function(standard)
        assert np.corrcoef(scores, theirs)[0, 1] > 0.999  # it penalises no bias, and scales by another spread
    assert (ours.predict(x) == (ours.decision_function(x) > 0)).all()


def test_weights_are_not_rounded() -> None:
    weights = LopsidedClassifier("bce", l2=0.1, decide="own").fit(*features()).model_.network.state_dict()
    matrices = [each for each in weights.values() if each.ndim == 2]
    assert matrices
    assert not any(torch.equal(each, each.bfloat16().float()) for each in matrices)


@pytest.mark.slow
def test_tuned_thresholds_find_more_than_the_own_one() -> None:
    x, y = make_multilabel_classification(300, n_features=8, n_classes=6, n_labels=1, random_state=1)
    own, tuned = (
        LopsidedClassifier("bce", decide=rule).fit(x[:150], y[:150]).predict(x[150:]) for rule in ("own", None)
    )
    mean: dict[str, Any] = {"average": "macro", "zero_division": 0}
    assert f1_score(y[150:], tuned, **mean) > f1_score(y[150:], own, **mean) + 0.05


@pytest.mark.slow
def test_a_grid_of_losses_is_searched() -> None:
    x, y = features()
    search = GridSearchCV(LopsidedClassifier(), {"loss": ["bce", "zlpr"], "l2": [0.1]}, scoring="f1_micro", cv=2)
    search.fit(x, y)
    assert search.best_params_["loss"] in ("bce", "zlpr")
    assert search.best_score_ > 0.8
    assert clone(search.best_estimator_).get_params() == search.best_estimator_.get_params()


@pytest.mark.slow
def test_probabilities_of_folds_let_cleanlab_find_wrong_labels() -> None:
    filter = pytest.importorskip("cleanlab.multilabel_classification.filter")
    texts, truth = tickets(200)
    x, given = TfidfVectorizer().fit_transform(texts), truth.copy()
    given[:5, 1] = 1 - given[:5, 1]
    probabilities = cross_val_predict(LopsidedClassifier("asl"), x, given, method="predict_proba", cv=4)
    assert probabilities.shape == given.shape
    issues = filter.find_label_issues([np.flatnonzero(row).tolist() for row in given], probabilities, n_jobs=1)
    assert issues[:5].sum() >= 4
    assert issues[5:].sum() <= 5


def test_unknown_and_soft_labels_are_taken() -> None:
    x, y = features()
    known = y.astype(float)
    known[:30, 2], known[40, 0] = np.nan, 0.5
    model = LopsidedClassifier("bce").fit(x, known)
    assert (model.predict(x) == y).mean() > 0.9
    thin = LopsidedClassifier("bce").fit(x, sparse.csr_matrix(known))
    np.testing.assert_array_equal(thin.predict_proba(x), model.predict_proba(x))


@pytest.mark.slow
def test_one_class_a_row_is_predicted_by_its_name() -> None:
    x, y = features()
    names = np.array(["none", "some", "many", "most"])[y.sum(1)]
    model = LopsidedClassifier("softmax").fit(x, names)
    assert model.score(x, names) > 0.9
    np.testing.assert_allclose(model.predict_proba(x).sum(1), 1, rtol=1e-6)
    two = LopsidedClassifier("asl").fit(x, y[:, 0])
    np.testing.assert_array_equal(two.predict(x), two.decision_function(x) > 0)
    np.testing.assert_array_equal(two.predict(x), two.predict_proba(x)[:, 1] > 0.5)


@pytest.mark.slow
def test_other_models_are_trained_too_and_no_random_numbers_are_used_up() -> None:
    x, y = make_multilabel_classification(60, n_features=4, n_classes=3, random_state=0)
    torch.manual_seed(0)
    model = LopsidedClassifier("bce", model="mlp(hidden=8)").fit(x, y)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))
    again = LopsidedClassifier("bce", model="mlp(hidden=8)").fit(x, y)
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))


@pytest.mark.parametrize(
    ("settings", "labels", "message"),
    [
        ({"loss": "asll"}, slice(None), r"^loss: unknown loss 'asll': did you mean 'asl'\?"),
        ({"decide": "best"}, slice(None), "^unknown rule 'best': known are per-label"),
        ({"decide": "own", "loss": "softmax"}, slice(None), "^softmax only ranks the labels of a row"),
        ({"model": "mlp"}, slice(None), "^mlp takes no sparse inputs"),
        ({"model": "bag", "l2": 1.0}, slice(None), "^l2 is for models that are solved"),
        ({"loss": "softmax"}, 0, "compares the labels of a row, and two classes are one label"),
        ({"decide": "own"}, 0, "is for multi-label y"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_line(settings: dict[str, Any], labels: Any, message: str) -> None:
    x, y = features()
    with pytest.raises(ValueError, match=message):
        LopsidedClassifier(**settings).fit(x, y[:, labels])


def test_labels_that_are_none_are_refused() -> None:
    x, y = features()
    with pytest.raises(ValueError, match=r"pass MultiLabelBinarizer\(\).fit_transform\(y\)"):
        LopsidedClassifier().fit(x[:3], [["a", "b"], [], ["a"]])
    for wrong in (2 * y, -y):
        with pytest.raises(ValueError, match="expected 0, 1, a value between or NaN"):
            LopsidedClassifier().fit(x, wrong)
    with pytest.raises(ValueError, match="values between or NaN, got -1"):
        LopsidedClassifier().fit(x, sparse.csr_matrix(-y))


def test_few_rows_have_the_own_threshold_and_no_probabilities_of_what_implies_none() -> None:
    x, y = features()
    few = LopsidedClassifier("asl").fit(x[:6], y[:6])
    assert few.decision_.name == "own"
    assert few.predict_proba(x).shape == y.shape
    with pytest.raises(ValueError, match="is tuned on rows, and 6 rows here cannot be parted"):
        LopsidedClassifier("asl", decide="per-label").fit(x[:6], y[:6])
    with pytest.raises(ValueError, match="its scores imply no probabilities"):
        LopsidedClassifier("zlpr").fit(x[:6], y[:6]).predict_proba(x)


def test_classes_of_which_none_has_a_probability_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """ASL implies 0 below its clip, for all classes of a row it may be."""
    x, _ = features()
    model = LopsidedClassifier("asl").fit(x[:6], [0, 1, 2, 0, 1, 2])
    np.testing.assert_allclose(model.predict_proba(x).sum(1), 1, rtol=1e-6)
    monkeypatch.setattr(model, "_scores", lambda rows: torch.full((1, 3), -9.0))
    np.testing.assert_allclose(model.predict_proba(x), np.full((1, 3), 1 / 3))
