"""Makes the evidence of a verdict from files of scores, a file for each system and seed: `lopsided verdict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lopsided.data.dataset import Dataset
from lopsided.data.score_files import read_matrix
from lopsided.jobs.evidence import Evidence
from lopsided.jobs.judge import Given, Setting, System, evidence_of_scores, labelled
from lopsided.jobs.verdict_options import paired_files
from lopsided.models.methods import Method, parse_method


def evidence_of_files(
    tests: Sequence[str],
    valids: Sequence[str],
    truths: Mapping[str, Path | None],
    metric: str,
    reference: str | None,
    scale: str | None,
) -> Evidence:
    """Reads scores of test rows and of validation rows, named as in `named_files`.

    truths: the files with the labels of the parts "test", "valid" and "train", None for none. Raises UserError where
    files do not fit.
    """
    paths = {part: path for part, path in truths.items() if path is not None}
    parts = _truths(paths)
    test_files, valid_files = paired_files(tests, valids, "valid" in parts)
    systems = {
        name: System(
            _method(name),
            [_given(by_seed[seed], paths["test"], parts["test"]) for seed in sorted(by_seed)],
            [_given(valid_files[name][seed], paths["test"], parts["test"]) for seed in sorted(by_seed) if valids],
        )
        for name, by_seed in test_files.items()
    }
    return evidence_of_scores(systems, Setting(paths["test"].name, parts, metric, reference, scale))


def _truths(truths: Mapping[str, Path]) -> dict[str, Dataset]:
    first = read_matrix(truths["test"])
    parts = {"test": labelled(first.values, first.names, str(first.path))}
    names = parts["test"].label_names
    for part, path in truths.items():
        if part != "test":
            parts[part] = labelled(read_matrix(path).in_order_of(names, first.path), names, str(path))
    return parts


def _given(path: Path, truth: Path, test: Dataset) -> Given:
    values = read_matrix(path).in_order_of(test.label_names, truth)
    return Given(values if values.dtype.kind == "f" else values.astype(float), str(path))


def _method(name: str) -> Method | None:
    try:
        return parse_method(name)
    except ValueError:
        return None
