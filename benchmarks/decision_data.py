"""Real data sets for benchmarks/decisions.py: rows of sparse features with labels, from public files in one folder.

They are named with their sources in docs/decisions.md; none of them is part of this project.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

from lopsided.data.sparse_files import SparseRows, read_sparse
from lopsided.targets import SparseTargets


def load(folder: Path, name: str) -> SparseRows:
    """All rows of a data set, training and test together, of unit length."""
    return LOADERS[name](folder).unit_length()


def _rows(features: csr_array, labels: Sequence[Sequence[int]]) -> SparseRows:
    targets = SparseTargets.from_indices([sorted(set(row)) for row in labels])
    number = 1 + int(targets.col.max())
    parts = (features.indptr.astype(np.int64), features.indices.astype(np.int64), features.data.astype(np.float32))
    indptr, indices, values = (torch.from_numpy(part) for part in parts)
    crow, col = targets.crow, targets.col
    return SparseRows(indptr, indices, values, features.shape[1], SparseTargets(crow, col, num_labels=number))


def _texts(texts: Sequence[str], labels: Sequence[Sequence[int]]) -> SparseRows:
    """TF-IDF of words and pairs of words; it looks at no label."""
    encode = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000)
    return _rows(csr_array(encode.fit_transform(texts)), labels)


def _mulan(folder: Path, name: str) -> SparseRows:
    """ARFF files, dense or sparse; the labels are the attributes that the .xml names."""
    base = folder / f"mulan_{name}"
    names = re.findall(r'<label name="([^"]+)"', (base / f"{name}.xml").read_text())
    tables = []
    for part in ("train", "test"):
        head, _, body = (base / f"{name}-{part}.arff").read_text().partition("@data")
        attributes = [line.split()[1].strip("'\"") for line in head.splitlines() if line.startswith("@attribute")]
        lines = [line.strip() for line in body.splitlines() if line.strip()]
        table = np.zeros((len(lines), len(attributes)), dtype=np.float32)
        for row, line in enumerate(lines):
            if line.startswith("{"):
                for entry in filter(None, line.strip("{}").split(",")):
                    place, value = entry.split()
                    table[row, int(place)] = float(value)
            else:
                table[row] = [float(value) for value in line.split(",")]
        tables.append(table)
    table = np.concatenate(tables)
    is_label = np.isin(attributes, names)
    assert is_label.sum() == len(names)
    features = table[:, ~is_label]
    if (features != 0).mean() > 0.5:
        features = StandardScaler().fit_transform(features)
    return _rows(csr_array(features), [np.flatnonzero(row).tolist() for row in table[:, is_label]])


def _bibtex(folder: Path) -> SparseRows:
    parts = [read_sparse(folder / f"xmc_bibtex/bibtex_{part}.txt") for part in ("train", "test")]
    matrices = [
        csr_array((part.values.numpy(), part.indices.numpy(), part.indptr.numpy()), (len(part), part.num_features))
        for part in parts
    ]
    labels = [
        part.labels.col[low:high].tolist()
        for part in parts
        for low, high in zip(part.labels.crow, part.labels.crow[1:], strict=False)
    ]
    return _rows(csr_array(vstack(matrices)), labels)


def _nlupp(folder: Path) -> SparseRows:
    intents = list(json.loads((folder / "nlupp/ontology.json").read_text())["intents"])
    rows = [row for path in sorted(folder.glob("nlupp/*/fold*.json")) for row in json.loads(path.read_text())]
    labels = [[intents.index(intent) for intent in row.get("intents", [])] for row in rows]
    return _texts([row["text"] for row in rows], labels)


LOADERS: dict[str, Callable[[Path], SparseRows]] = {
    "yeast": lambda folder: _mulan(folder, "yeast"),
    "scene": lambda folder: _mulan(folder, "scene"),
    "enron": lambda folder: _mulan(folder, "enron"),
    "medical": lambda folder: _mulan(folder, "medical"),
    "bibtex": _bibtex,
    "nlupp": _nlupp,
}
