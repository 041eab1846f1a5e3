"""The pipeline of `lopsided fit` as a classifier of scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

try:
    import numpy as np
    from scipy import sparse
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import Tags, check_random_state, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        assert_all_finite,
        check_array,
        check_consistent_length,
        check_is_fitted,
        validate_data,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error.name} is missing: pip install 'lopsided[tool]'", name=error.name) from None

from lopsided.data.dataset import Dataset, Splits, Unsplit
from lopsided.data.inputs import Numbered, SparseFeatures, Table
from lopsided.data.matrices import targets_of_matrix
from lopsided.data.split import split_rows
from lopsided.data.storage import UserError
from lopsided.decision.names import is_tuned
from lopsided.jobs.config import FitConfig, checked
from lopsided.jobs.fit import fit_in_memory
from lopsided.jobs.rows import SMALLEST_SPLIT, prepare
from lopsided.losses import Formula
from lopsided.losses.checks import stacklevel_of_user
from lopsided.metrics.scores import Scores
from lopsided.metrics.truth import as_targets
from lopsided.models.methods import loss_of_scores, parse_method
from lopsided.targets import SparseTargets

Array = Any  # of numpy, or a sparse one of scipy
_LEAST = 1e-15  # of a probability whose logarithm is taken: below its clip ASL implies 0


class LopsidedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A multi-label classifier: the model, penalty and thresholds that `lopsided fit` chooses, in memory.

    Rows of numbers are standardised, and rows of a sparse matrix scaled to unit length, for a linear model that is
    solved. Its penalty is the best on a tenth of the rows; then it is solved on all of them. Thresholds, and the
    probabilities of `predict_proba`, are tuned on scores of models that did not see the row. Fewer than 10 rows, or
    copies of one row, are not parted: then the penalty is a middle one, and the threshold the loss's own.

    Args:
        loss: its name, such as "zlpr" or "asl(gamma_neg=2)", or "powerset".
        model: a model of `lopsided fit --model` for such rows, such as "mlp"; None for the linear one.
        l2: the penalty, 1/C of `LogisticRegression`; None for the best.
        decide: the rule of multi-label `y`: "per-label", "global", "macro-f1", "expected-f1", "own", "f2" or "top-K";
            None for per-label.
        random_state: of the split and of the training; a number, a `RandomState`, or None.

    `y` may be (n, L) of 0 and 1, soft labels between and NaN where unknown, dense or sparse: then `predict` gives
    (n, L) of 0 and 1, sparse where `y` was. Or it holds one class a row, (n,): each class is a label, or one label is
    the second of two classes, and the most probable class is predicted.

    Attributes: classes_, (L,); n_features_in_; model_, a `lopsided.models.model.Model`; decision_, its rule and map to
    probabilities.

    >>> x, y = np.eye(20)[:, :2] + np.arange(20)[:, None] % 3, np.arange(40).reshape(20, 2) % 3 == 0
    >>> LopsidedClassifier("bce").fit(x, y.astype(int)).predict_proba(x).shape
    (20, 2)
    """

    def __init__(
        self,
        loss: str = "asl",
        *,
        model: str | None = None,
        l2: float | None = None,
        decide: str | None = None,
        random_state: Any = 0,
    ) -> None:
        self.loss, self.model, self.l2, self.decide, self.random_state = loss, model, l2, decide, random_state

    def fit(self, X: Array, y: Array) -> LopsidedClassifier:  # noqa: N803, so it is called there
        """Trains on rows X, (n, features), dense or sparse.

        Raises ValueError for what cannot be trained on, TypeError for what is no array.
        """
        try:
            rows = validate_data(self, X, accept_sparse="csr", dtype=np.float32)
        except ValueError as error:
            if "could not convert string" not in str(error):
                raise
            raise ValueError(f"X holds texts ({error}): put a vectorizer before, such as TfidfVectorizer()") from None
        targets = self._read_targets(y, rows)
        inputs, names = _inputs(rows), Numbered(len(self.classes_) if self._multilabel else targets.num_labels or 1)
        seed = int(check_random_state(self.random_state).randint(2**31))
        model = self.model or (None if sparse.issparse(rows) else "linear")
        settings = {"loss": self.loss, "model": model, "l2": self.l2, "decide": self.decide, "dtype": "fp32"}
        try:
            config = checked(FitConfig, settings | {"data": "X", "seed": seed, "data_seed": seed})
            with torch.random.fork_rng(devices=[]):
                prepared = prepare(config, self._splits(Dataset(inputs, targets, names), seed))
                self.model_, self.decision_ = fit_in_memory(config, prepared, _warn)
                self.model_.network.cpu()  # so that what is pickled needs no GPU
        except UserError as error:
            raise ValueError(str(error).removeprefix(f"{Path('X').absolute()}: ").replace("--", "")) from None
        self._sparse_rows = isinstance(inputs, SparseFeatures)
        return self

    def decision_function(self, X: Array) -> Array:  # noqa: N803
        """Returns the scores of the labels, (n, L) float32, as the loss trains them: thresholds apply to these.

        Where `y` held one class a row, log odds that it is the one, float32, (n, L), or (n,) of the second of two.
        """
        scores = self._scores(X)
        if self._multilabel:
            return scores.numpy()
        calibrator = self.decision_.calibrator
        odds = (scores if calibrator is None else torch.logit(calibrator(scores), eps=_LEAST)).float().numpy()
        return odds[:, 0] if len(self.classes_) == 2 else odds

    def predict_proba(self, X: Array) -> Array:  # noqa: N803
        """Returns the probability of each label, (n, L) float64.

        Where `y` held one class a row, rows sum to 1 and are float32: as exact as the scores of a row are, which differ
        in their last digits with the rows beside it.

        Raises ValueError where the loss implies none, and the rows were too few to learn them from.
        """
        scores, calibrator = self._scores(X), self.decision_.calibrator
        if calibrator is None:
            raise ValueError(
                f"{self.loss} couples the labels of a row, so that its scores imply no probabilities, and the rows "
                "were too few to learn these from: give more rows, or take decision_function"
            )
        probabilities = calibrator(scores).numpy()
        if self._multilabel:
            return probabilities
        if len(self.classes_) == 2:
            return np.concatenate([1 - probabilities, probabilities], axis=1, dtype=np.float32)
        shares = probabilities.clip(_LEAST)
        return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)

    def predict(self, X: Array) -> Array:  # noqa: N803
        """Returns what the rule decides, (n, L) of 0 and 1, or the most probable class of each row, (n,)."""
        check_is_fitted(self)
        if self._multilabel:
            rule, made = self.decision_.rule, sparse.csr_matrix if self._sparse_labels else np.asarray
            parts = [made(rule.decide(scores).numpy(), dtype=int) for scores in self._blocks(X)]
            return sparse.vstack(parts, format="csr") if self._sparse_labels else np.concatenate(parts)
        odds = self.decision_function(X)
        return self.classes_[odds.argmax(axis=1) if odds.ndim == 2 else (odds > 0).astype(int)]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = True
        return tags

    def _read_targets(self, y: Array, rows: Array) -> SparseTargets:
        """Returns (n, L) targets; sets what is known of the labels."""
        if y is None:
            raise ValueError("LopsidedClassifier requires y to be passed, but the target y is None")
        if (
            isinstance(y, list)
            and y
            and all(isinstance(row, list | tuple | set) for row in y)
            and len({*map(len, y)}) > 1
        ):
            raise ValueError("y is a list of lists of several lengths: pass MultiLabelBinarizer().fit_transform(y)")
        y = check_array(y, accept_sparse="csr", ensure_2d=False, dtype=None, ensure_all_finite=False, estimator=self)
        check_consistent_length(rows, y)
        self._multilabel, self._sparse_labels = y.ndim == 2 and y.shape[1] > 1, sparse.issparse(y)
        if self._multilabel:
            self.classes_ = np.arange(y.shape[1])
            return _of_matrix(y)
        assert_all_finite(y, input_name="y")
        if self.decide is not None:
            raise ValueError(f"decide={self.decide!r} is for multi-label y: of one class a row, the most probable wins")
        y = column_or_1d(y.toarray() if sparse.issparse(y) else y, warn=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) == 1:
            raise ValueError("y has one class only, and a classifier needs two")
        if len(self.classes_) > 2:
            return SparseTargets(torch.arange(len(y) + 1), torch.from_numpy(codes), None, len(self.classes_))
        self._check_one_label()
        return targets_of_matrix(codes[:, None])

    def _check_one_label(self) -> None:
        loss = loss_of_scores(parse_method(self.loss))
        if isinstance(loss, Formula) and not loss.pool.thresholded:
            raise ValueError(
                f"{self.loss} compares the labels of a row, and two classes are one label: take a loss that judges "
                "labels alone, such as asl"
            )

    def _splits(self, rows: Dataset, seed: int) -> Splits:
        """Splits a tenth off for validation, as `lopsided fit` does, if rows can be parted."""
        try:
            train, valid = split_rows(rows, (0.9, 0.1), seed) if len(rows) >= SMALLEST_SPLIT else (None, None)
        except UserError:  # copies of a row
            train = valid = None
        if train is not None and valid is not None:
            return Splits(rows.take(train), rows.take(valid), None, unsplit=Unsplit(rows, train, valid))
        if is_tuned(self.decide):
            raise ValueError(f"decide={self.decide!r} is tuned on rows, and {len(rows)} rows here cannot be parted")
        return Splits(rows, None, None)

    def _scores(self, X: Array) -> torch.Tensor:  # noqa: N803
        return torch.cat([scores.values for scores in self._blocks(X)])

    def _blocks(self, X: Array) -> Iterator[Scores]:  # noqa: N803
        """Yields the scores of some hundred rows at a time."""
        check_is_fitted(self)
        rows = validate_data(self, X, accept_sparse="csr", dtype=np.float32, reset=False)
        if self._sparse_rows != sparse.issparse(rows):
            rows = sparse.csr_matrix(rows) if self._sparse_rows else rows.toarray()
        yield from self.model_.blocks(self.model_.encode(_inputs(rows)), None)


def _inputs(rows: Array) -> SparseFeatures | Table:
    if not sparse.issparse(rows):
        return Table.of_numbers(torch.tensor(rows))
    rows = sparse.csr_matrix(rows)
    rows.sum_duplicates()
    indptr, indices = (torch.from_numpy(each.astype(np.int64)) for each in (rows.indptr, rows.indices))
    return SparseFeatures(indptr, indices, torch.tensor(rows.data), rows.shape[1], declared=True)


def _of_matrix(y: Array) -> SparseTargets:
    if not sparse.issparse(y):
        return targets_of_matrix(y)
    if ((y.data < 0) | (y.data > 1)).any():
        raise ValueError(f"y must hold 0, 1, values between or NaN, got {y.data[(y.data < 0) | (y.data > 1)][0]:g}")
    y = sparse.csr_matrix(y, dtype=np.float32)
    y.sum_duplicates()
    y.eliminate_zeros()
    targets = as_targets(y)
    assert isinstance(targets, SparseTargets)
    return SparseTargets(
        targets.crow.long(), targets.col.long(), None if (y.data == 1).all() else targets.values, y.shape[1]
    )


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=stacklevel_of_user())
