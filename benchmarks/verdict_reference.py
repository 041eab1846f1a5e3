"""Default comparisons of real sets beside exhaustive ones, and beside a linear model of scikit-learn."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from real_data import join_nlupp
from rich.console import Console
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from verdict_data import evidence_of, parts_of, solve

from lopsided.data.inputs import Texts
from lopsided.jobs.begin import begin
from lopsided.jobs.compare_config import make_config
from lopsided.jobs.evidence import Evidence, Training
from lopsided.jobs.folder import ComparisonFolder
from lopsided.jobs.progress import Progress
from lopsided.jobs.results import summarize
from lopsided.jobs.rows import Prepared
from lopsided.jobs.schema import Comparison
from lopsided.jobs.score import Scored, evaluate
from lopsided.metrics.scores import Scores
from lopsided.metrics.significance import resample_rows
from lopsided.models.heads import dense_targets
from lopsided.models.recipe import SOLVED
from lopsided.training.loop import Trained

REFERENCE = "reference"
REAL = ("mulan_emotions", "mulan_yeast", "mulan_scene", "mulan_enron", "mulan_medical", "nlupp")
COMPARED = ("bce", "asl", "zlpr", "squared_hinge")
FINER = [2.0**step for step in range(-6, 7)]  # times the penalty that the default chose, whose own steps are of 4
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C of scikit-learn, of which validation rows choose one


def real_rows(data: Path, name: str, made: Path) -> dict[str, Any]:
    """The arguments of a comparison of a real set with its own test rows."""
    if name == "nlupp":
        train_file, _, test_file = join_nlupp(data / name, made)
        return {"data": train_file, "test": test_file}
    for part, (features, labels) in zip(("train", "test"), parts_of(data, name), strict=True):
        np.savez(made / f"{part}.npz", features=features, labels=labels)
    return {"data": str(made / "train.npz"), "test": str(made / "test.npz"), "model": "linear"}


def linear_baseline(prepared: Prepared) -> np.ndarray:
    """Test scores of scikit-learn's one-vs-rest logistic regression on the same training rows."""
    parts = prepared.splits.parts()
    inputs: dict[str, Any] = {name: part.inputs for name, part in parts.items()}
    truth = {name: dense_targets(part.targets, part.num_labels).numpy().astype(int) for name, part in parts.items()}
    if isinstance(inputs["train"], Texts):
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit(inputs["train"].texts)
        features = {name: words.transform(each.texts) for name, each in inputs.items()}
    else:
        scaler = StandardScaler().fit(inputs["train"].numbers.numpy())
        features = {name: scaler.transform(each.numbers.numpy()) for name, each in inputs.items()}
    best, scores = -1.0, np.empty(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels without a positive
        for strength in STRENGTHS:
            model = OneVsRestClassifier(LogisticRegression(C=strength, max_iter=300))
            model.fit(features["train"], truth["train"])
            known, some = model.decision_function(features["valid"]), truth["valid"].any(0)
            value = average_precision_score(truth["valid"][:, some], known[:, some])
            if value > best:
                best, scores = value, model.decision_function(features["test"])
    return scores


def models(prepared: Prepared) -> tuple[dict[str, Trained], dict[str, Trained]]:
    """What the default trains, and the best of the finer and longer ladder around it."""
    default, finest = {loss: solve(prepared, loss) for loss in COMPARED}, {}
    for loss, one in default.items():
        chosen = one.history[one.best_epoch - 1].l2
        tried = (solve(prepared, loss, replace(SOLVED, epochs=1, l2=chosen * step)) for step in FINER)
        finest[loss] = max(tried, key=lambda each: each.history[0].valid)
    return default, finest


def ahead(evidence: Evidence, loss: str, scores: np.ndarray, progress: Progress) -> Comparison:
    """How far the linear model of scikit-learn is ahead of one of ours."""
    test = replace(evidence.scored[loss][0], own=0.0)
    both = {"ours": [test], "theirs": [replace(test, scores=Scores.of(scores))]}
    changed = replace(evidence, scored=both, reference="ours", trained={name: Training() for name in both})
    return summarize(changed, progress).comparisons["theirs"]


def reference(data: Path, name: str) -> Iterator[dict[str, object]]:
    """The default comparison beside the finer and longer ladder, and beside scikit-learn."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as made, Progress(Console(quiet=True)) as progress:
        settings = make_config(real_rows(data, name, Path(made)) | {"losses": COMPARED})
        _, prepared = begin(ComparisonFolder, settings, Path(made, "run"), progress)
        trained = models(prepared)
        ways = [evidence_of(prepared, each) for each in trained]
        results = [summarize(each, progress) for each in ways]
        best = max(COMPARED, key=lambda loss: trained[0][loss].history[trained[0][loss].best_epoch - 1].valid)
        gap = ahead(ways[0], best, linear_baseline(prepared), progress)
    for loss in COMPARED:
        one, other = (each.losses[loss].metrics["map"].mean for each in results)
        words = [each.comparisons[loss].verdict if loss in each.comparisons else "" for each in results]
        yield {
            "check": REFERENCE,
            "set": name,
            "repetition": 0,
            "loss": loss,
            "verdict": words[0],
            "exhaustive verdict": words[1],
            "mAP": f"{one:.4f}",
            "exhaustive mAP": f"{other:.4f}",
            "SE": f"{_error(ways[0].scored[loss][0]):.4f}",
            "scikit-learn ahead": f"{gap.mean:+.4f}" if loss == best else "",
            "SE of that": f"{gap.standard_error:.4f}" if loss == best else "",
            "CPU seconds": f"{time.process_time() - start:.1f}",
        }


def _error(scored: Scored) -> float:
    """The bootstrap standard error of test mAP."""
    values = resample_rows([lambda weights: evaluate("map", scored, weights)], scored.rows, 100)
    return float(values.std())
