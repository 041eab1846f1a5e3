"""Scores rows by what needs no loss of this library: the shares of the labels, and a linear model of the field.

A loss that does not beat them says more about the model and its training than about the loss.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lopsided.data.dataset import Dataset, Splits
from lopsided.data.inputs import Images, SparseFeatures, Table, Texts
from lopsided.data.split import rest_of
from lopsided.data.storage import read_tensors, write_tensors
from lopsided.jobs.evidence import LINEAR, SHARES, Baseline
from lopsided.jobs.score import Scored
from lopsided.jobs.stored_scores import scores_in
from lopsided.metrics.lists import Array
from lopsided.metrics.scores import Scores
from lopsided.metrics.truth import Truth
from lopsided.models.bag import UnitLength
from lopsided.models.tables import LinearTable
from lopsided.training.rows import scores_to_keep

LIMIT = 3e8  # numbers of the training rows that are not zero, times labels: half a minute of a core, thrice with folds
_C = 1.0  # scikit-learn's default, and that of the published tables of LinearSVC on texts
_DENSE = 5e6  # the same of a table, whose columns the classifier goes over hundreds of times: some seconds
_RIDGE_LIMIT = 5e10  # numbers of the training rows, times the fewer of rows and numbers of one: half a minute, too
_ALPHAS = (1.0, 10.0, 100.0, 1000.0)
_MANY = 1000  # texts, from which on words that stand in one text alone are left out

Features = Callable[[Any], Any]  # inputs -> (rows, features)
Fit = Callable[[Dataset, Any, Sequence[Any]], list[Array]]  # see `linear_scores`


class _Kind(NamedTuple):
    """Says what the linear model of a kind of inputs is, and whether it would take minutes.

    features: makes the words for what it sees, and the function that computes it.
    """

    model: str
    fit: Fit
    features: Callable[[], tuple[str, Features]]
    too_long: bool


def baselines(splits: Splits, stored: Path) -> tuple[dict[str, Baseline], list[str]]:
    """Returns the baselines by name, and sentences about those that are left out.

    stored: a file of the scores of the linear model, which is written after it was fitted, and read where it is there.
    """
    made, inputs, labels = {SHARES: label_shares(splits)}, splits.train.inputs, splits.train.num_labels
    kind = _kind(inputs, labels)
    if kind is None:
        why = f"there is none for inputs of kind {inputs.kind}"
    elif kind.too_long or any(scores_to_keep(len(part), labels) for part in _judged(splits).values()):
        why = f"{labels} labels of {len(splits.train)} rows would take it minutes"
    else:
        return made | {LINEAR: _read(splits, stored) or _fitted(splits, kind, stored)}, []
    return made, [f"The linear baseline is left out: {why}."]


def _fitted(splits: Splits, kind: _Kind, stored: Path) -> Baseline:
    began = time.perf_counter()
    told, features = kind.features()
    scores = fit_linear(splits, features, kind.fit)
    settings, seconds = f"{kind.model}, on {told}", time.perf_counter() - began
    tensors = {name: each.values for name, each in scores.items()}
    header = {"settings": settings, "seconds": str(seconds)}
    write_tensors(stored, tensors, header)
    return Baseline(settings, (_scored(splits, scores),), seconds)


def _read(splits: Splits, stored: Path) -> Baseline | None:
    """Returns what was stored; None where it is not there, or not of these rows."""
    parts, labels = _judged(splits), splits.train.num_labels
    try:
        tensors, header = read_tensors(stored)
        scores = {name: scores_in({"values": tensors[name]}, len(part), labels) for name, part in parts.items()}
        settings, seconds = header["settings"], float(header["seconds"])
    except (OSError, ValueError, LookupError):
        return None
    return Baseline(settings, (_scored(splits, scores),), seconds)


def _scored(splits: Splits, scores: Mapping[str, Scores]) -> Scored:
    """Joins scores of "test" and "tuning" rows, which decide at 0 by themselves, with the truth."""
    truth = {name: part.hard_targets() for name, part in _judged(splits).items()}
    return Scored(scores["test"], truth["test"], scores["tuning"], truth["tuning"], own=0.0)


def label_shares(splits: Splits) -> Baseline:
    """Gives every row the same scores: the log odds of each label in the training rows, which rank labels alone."""
    data = splits.train
    odds = ((data.hard_counts() + 0.5) / (len(data) - data.hard_counts() + 0.5)).log().float()

    def scores(rows: int) -> Scores:
        keep = scores_to_keep(rows, data.num_labels)
        if keep is None:
            return Scores(odds.repeat(rows, 1), None, data.num_labels)
        best = odds.topk(min(keep, data.num_labels))
        return Scores(best.values.repeat(rows, 1), best.indices.repeat(rows, 1), data.num_labels)

    parts = {name: scores(len(part)) for name, part in _judged(splits).items()}
    return Baseline("every row gets the share of each label in the training rows", (_scored(splits, parts),), 0.0)


def fit_linear(splits: Splits, features: Features, fit: Fit) -> dict[str, Scores]:
    """Returns scores by part of a linear model that is trained as those of the losses: with folds, on those rows."""
    parts, folds = _judged(splits), splits.folds
    rows = {name: features(part.inputs) for name, part in parts.items()}
    if not folds:
        made = fit(splits.train, features(splits.train.inputs), list(rows.values()))
        scores = dict(zip(rows, made, strict=True))
    else:
        whole, tuning = parts["tuning"], np.empty((len(parts["tuning"]), splits.train.num_labels), np.float32)
        for held in folds:
            rest = rest_of(held, len(whole))
            seen, unseen = (rows["tuning"][part.numpy()] for part in (rest, held))
            (tuning[held.numpy()],) = fit(whole.take(rest), seen, [unseen])
        (test,) = fit(whole, rows["tuning"], [rows["test"]])
        scores = {"test": test, "tuning": tuning}
    return {name: Scores(torch.from_numpy(each), None, splits.train.num_labels) for name, each in scores.items()}


def linear_scores(data: Dataset, features: Any, judged: Sequence[Any]) -> list[Array]:
    """Fits a linear support vector classifier for each label, to the rows in which it is known: scores of others.

    features, judged: of the rows that are trained on, and of those that are scored. Source: LIBLINEAR (Fan et al., JMLR
    9, 2008), as scikit-learn has it. A label that all rows have, or none, gets a constant score.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    made = [np.empty((rows.shape[0], data.num_labels), np.float32) for rows in judged]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a score that is nearly the best is good enough here
        for label, (known, true) in enumerate(_by_label(data)):
            if true.all() or not true.any():
                for scores in made:
                    scores[:, label] = 1.0 if true.any() else -1.0
                continue
            model = LinearSVC(C=_C, random_state=0).fit(features if known is None else features[known], true)
            for scores, rows in zip(made, judged, strict=True):
                scores[:, label] = model.decision_function(rows)
    return made


def ridge_scores(data: Dataset, features: Any, judged: Sequence[Any]) -> list[Array]:
    """Fits least squares to the labels, 1 and -1, and 0 where one is unknown: scores of others.

    Of pixels, which are alike in neighbours, and of embeddings it is fitted in one step where the classifier above
    takes thousands: all labels of NLU++ by 384 numbers a row in 0.1 s, instead of a minute.
    """
    from sklearn.linear_model import RidgeCV

    truth = Truth.of(data.hard_targets(), len(data), data.num_labels)
    values = np.full(len(data) * data.num_labels, -1.0)
    values[truth.true], values[truth.unknown] = 1.0, 0.0
    model = RidgeCV(_ALPHAS).fit(features, values.reshape(len(data), data.num_labels))
    return [model.predict(rows).astype(np.float32) for rows in judged]


def _judged(splits: Splits) -> dict[str, Dataset]:
    """Returns the rows of tuning and test, by name."""
    assert splits.tuning is not None
    assert splits.test is not None
    return {"tuning": splits.tuning, "test": splits.test}


def _by_label(data: Dataset) -> Iterator[tuple[Array | None, Array]]:
    """Yields of each label the rows in which it is known, None for all, and in which of those it is true."""
    truth = Truth.of(data.hard_targets(), len(data), data.num_labels)
    true, unknown = (_rows_by_label(each, data.num_labels) for each in (truth.true, truth.unknown))
    for positive, hidden in zip(true, unknown, strict=True):
        is_true = np.zeros(len(data), bool)
        is_true[positive] = True
        known = np.delete(np.arange(len(data)), hidden) if len(hidden) else None
        yield known, is_true if known is None else is_true[known]


def _rows_by_label(places: Array, labels: int) -> list[Array]:
    row, label = np.divmod(places, labels)
    return np.split(row[label.argsort(kind="stable")], np.bincount(label, minlength=labels).cumsum()[:-1])


def _kind(inputs: Any, labels: int) -> _Kind | None:
    """Returns the linear model of such inputs; None where there is none."""
    if isinstance(inputs, Images):
        return _ridge(inputs, inputs.pixels.numel(), _pixels)
    features: Callable[[Any], tuple[str, Features]]
    if isinstance(inputs, Texts):
        numbers, features = 2 * sum(len(text.split()) for text in inputs.texts), _words
    elif isinstance(inputs, SparseFeatures):
        numbers, features = len(inputs.values), _unit_length
    elif isinstance(inputs, Table):
        numbers, features = inputs.numbers.numel() + inputs.categories.numel(), _columns
        if numbers * labels > _DENSE:
            return _ridge(inputs, numbers, features)
    else:
        return None
    model = f"LinearSVC(C={_C:g}) of scikit-learn for each label"
    return _Kind(model, linear_scores, partial(features, inputs), numbers * labels > LIMIT)


def _ridge(inputs: Any, numbers: int, features: Callable[[Any], tuple[str, Features]]) -> _Kind:
    too_long = numbers * min(len(inputs), numbers / len(inputs)) > _RIDGE_LIMIT
    return _Kind("RidgeCV of scikit-learn", ridge_scores, partial(features, inputs), too_long)


def _words(inputs: Texts) -> tuple[str, Features]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    least = 2 if len(inputs) >= _MANY else 1
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=least, token_pattern=r"\w+", dtype=np.float32)
    words.fit([*_readable(inputs), "a"][: max(1, len(inputs))])
    return "TF-IDF of words and pairs of words", lambda texts: words.transform(_readable(texts))


def _readable(inputs: Texts) -> list[str]:
    return [text.encode("utf-8", "replace").decode() for text in inputs.texts]


def _unit_length(inputs: SparseFeatures) -> tuple[str, Features]:
    from scipy.sparse import csr_matrix

    encoder = UnitLength.fit(inputs)

    def features(inputs: SparseFeatures) -> Any:
        rows = encoder.encode(inputs).features
        arrays = rows.values.numpy(), rows.indices.numpy(), rows.indptr.numpy()
        return csr_matrix(arrays, shape=(len(rows), max(1, rows.num_features)))

    return "features, each row of length 1", features


def _columns(inputs: Table) -> tuple[str, Features]:
    encoder = LinearTable.fit(inputs)
    body = encoder.make_body()

    def features(table: Table) -> Any:
        return body(*encoder.encode(table).batch(torch.arange(len(table)))).double().numpy()

    return "standardised columns", features


def _pixels(inputs: Images) -> tuple[str, Features]:
    return "pixels", lambda images: images.pixels.flatten(1).numpy() / 255
