"""Classifies texts: hashed word and character n-grams into an embedding bag, and a linear head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from torch import Tensor, nn

from lopsided.data import Splits
from lopsided.models.task import Budget, Task

_BUCKETS = 2**17  # for words, and as many for characters
_WIDTH = 64
_MOMENTUM = 0.9


class HashedNGrams:
    """Maps texts to sparse rows: words and pairs of words; two to four characters within words; hashed, no vocabulary.

    Counts are damped (1 + log), weighted by inverse document frequency in the training texts, and each kind is
    scaled to unit length. Buckets that no training text fills are left out: nothing can be learnt about them.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        settings: dict[str, Any] = {"n_features": _BUCKETS, "alternate_sign": False, "norm": None}
        self._hashers = (
            HashingVectorizer(token_pattern=r"(?u)\w+|[^\w\s]", ngram_range=(1, 2), **settings),
            HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), **settings),
        )
        counts = [hasher.transform(texts) for hasher in self._hashers]
        self._weights = [TfidfTransformer(sublinear_tf=True).fit(count) for count in counts]
        self._filled = np.flatnonzero(np.concatenate([count.getnnz(axis=0) for count in counts]))
        self.buckets = len(self._filled)

    def __call__(self, texts: Sequence[str]) -> csr_array:
        """Returns (len(texts), self.buckets) float32."""
        parts = [
            weigh.transform(hasher.transform(texts)) for hasher, weigh in zip(self._hashers, self._weights, strict=True)
        ]
        return csr_array(hstack(parts, format="csr")[:, self._filled], dtype=np.float32)


@dataclass(frozen=True)
class BagRows:
    bags: csr_array
    targets: Tensor

    def __len__(self) -> int:
        return int(self.bags.shape[0])

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Returns buckets and weights of all n-grams, and where each row begins among them."""
        bags = self.bags[rows.numpy()]
        buckets, offsets = (torch.from_numpy(array.astype(np.int64)) for array in (bags.indices, bags.indptr[:-1]))
        return buckets, offsets, torch.from_numpy(bags.data)


class BagClassifier(nn.Module):
    """Computes a weighted sum of n-gram embeddings, then a linear layer: (N, outputs)."""

    def __init__(self, buckets: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(buckets, _WIDTH, mode="sum")
        nn.init.normal_(self.embedding.weight, std=0.03)
        self.head = nn.Linear(_WIDTH, outputs)

    def forward(self, buckets: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(buckets, offsets, per_sample_weights=weights))
        return logits


def text_task(splits: Splits) -> Task:
    """Returns the task of texts, trained by SGD with momentum: Adam moves rare n-grams too far, and overfits."""
    texts = [cast("tuple[str, ...]", data.inputs) for data in (splits.train, splits.valid, splits.test)]
    encode = HashedNGrams(texts[0])
    train, valid, test = (
        BagRows(encode(part), data.targets)
        for part, data in zip(texts, (splits.train, splits.valid, splits.test), strict=True)
    )
    return Task(
        train,
        valid,
        test,
        make_model=lambda outputs: BagClassifier(encode.buckets, outputs),
        make_optimizer=lambda model, rate: torch.optim.SGD(model.parameters(), rate, momentum=_MOMENTUM, fused=True),
        default_budget=_budget(len(train)),
    )


def _budget(rows: int) -> Budget:
    """Gives 500 steps or 3 epochs, whichever is more: small data sets are seen more often, in smaller batches."""
    batch_size = max(16, min(256, rows // 16))
    return Budget(max(3, min(50, 500 * batch_size // rows)), batch_size, learning_rate=1.0)
