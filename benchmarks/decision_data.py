"""Real data sets for benchmarks/decisions.py: rows of sparse features with labels, from public files in one folder.

They are named with their sources in docs/decisions.md; none of them is part of this project.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from scipy.sparse import csr_array, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import pad

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import SparseFeatures, Table, Texts
from lopsided.data.readers import read
from lopsided.targets import SparseTargets


def load(folder: Path, name: str) -> Dataset:
    """All rows of a data set, training and test together."""
    return LOADERS[name](folder)


def dense(data: Dataset) -> Tensor:
    """Truth as (rows, labels) bool."""
    listed = torch.zeros(len(data), data.num_labels, dtype=torch.bool)
    listed[torch.repeat_interleave(data.targets.crow.diff()), data.targets.col] = True
    return listed


def nlupp(folder: Path, folds: Sequence[int]) -> Dataset:
    """Short requests to banks and hotels with their intents."""
    files = [folder / f"nlupp/{domain}/fold{fold}.json" for domain in ("banking", "hotels") for fold in folds]
    rows = [row for file in files for row in json.loads(file.read_text())]
    names = sorted({intent for row in rows for intent in row.get("intents", [])})
    place = {name: number for number, name in enumerate(names)}
    listed = [sorted({place[intent] for intent in row.get("intents", [])}) for row in rows]
    crow = pad(torch.tensor([len(row) for row in listed]).cumsum(0), (1, 0))
    targets = SparseTargets(crow, torch.tensor([label for row in listed for label in row]), num_labels=len(names))
    return Dataset(Texts(tuple(row["text"] for row in rows)), targets, tuple(names))


def _features(matrix: csr_array) -> SparseFeatures:
    indptr, indices = (torch.from_numpy(part).long() for part in (matrix.indptr, matrix.indices))
    return SparseFeatures(indptr, indices, torch.from_numpy(matrix.data).float(), matrix.shape[1], declared=True)


def _words(folder: Path) -> Dataset:
    """TF-IDF of words and pairs of words; it looks at no label."""
    data = nlupp(folder, range(20))
    assert isinstance(data.inputs, Texts)
    encode = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000)
    matrix = csr_array(encode.fit_transform(data.inputs.texts))
    return Dataset(_features(matrix), data.targets, data.label_names)


def _matrix(data: Dataset) -> csr_array:
    rows = data.inputs
    if isinstance(rows, SparseFeatures):
        entries = rows.values.numpy(), rows.indices.numpy(), rows.indptr.numpy()
        return csr_array(entries, (len(rows), rows.num_features))
    assert isinstance(rows, Table)
    return csr_array(rows.numbers.numpy())


def _files(pattern: str) -> Callable[[Path], Dataset]:
    """Reads the training and the test file; features of which most are not 0 are standardised."""

    def load_both(folder: Path) -> Dataset:
        parts = [read(folder / pattern.format(part)) for part in ("train", "test")]
        matrix = csr_array(vstack([_matrix(part) for part in parts]))
        if matrix.nnz > 0.5 * matrix.shape[0] * matrix.shape[1]:
            matrix = csr_array(StandardScaler().fit_transform(matrix.toarray()))
        lengths = torch.cat([part.targets.crow.diff() for part in parts])
        col = torch.cat([part.targets.col for part in parts])
        targets = SparseTargets(pad(lengths.cumsum(0), (1, 0)), col, num_labels=parts[0].num_labels)
        return Dataset(_features(matrix), targets, parts[0].label_names)

    return load_both


LOADERS: dict[str, Callable[[Path], Dataset]] = {
    **{name: _files(f"mulan_{name}/{name}-{{}}.arff") for name in ("yeast", "scene", "enron", "medical")},
    "bibtex": _files("xmc_bibtex/bibtex_{}.txt"),
    "nlupp": _words,
}
