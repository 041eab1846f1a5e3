"""Encodes texts as hashed word and character n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from torch import Tensor

from lopsided.data.inputs import SparseFeatures, Texts
from lopsided.models.bag import Bag, BagRows
from lopsided.models.direct import NoBody
from lopsided.models.recipe import Recipe

_BUCKETS = 2**17  # for words, and as many for characters
_LARGEST_MAP, _HIDDEN = 2**27, 64
_SHORT = 300  # characters of a text, below which those of words count too


class NGrams:
    """Maps texts to sparse rows: words and pairs of words; two to four characters within words; hashed, no vocabulary.

    Counts are damped (1 + log), weighted by inverse document frequency in the training texts, and each kind is
    scaled to unit length. Buckets that no training text fills are left out: nothing can be learnt about them.

    weights: (kinds, buckets) float64, the inverse document frequencies of words and of characters. filled: (F,) int64,
    the buckets that are kept, those of characters after those of words.
    hidden: width of an embedding of the n-grams; 0 for a linear map from n-grams straight to labels.
    characters: whether n-grams of characters count beside words. They tell more than they cost where texts are short,
    and so None, by default, stands for yes where a training text has fewer than 300 characters in the mean.

    >>> encoder = NGrams.fit(Texts(("a dog", "a cat")), hidden=4)
    >>> encoder.make_body()(*encoder.encode(Texts(("the dog", ""))).batch(torch.arange(2))).shape
    torch.Size([2, 4])
    """

    name: ClassVar[str] = "ngrams"
    inputs: ClassVar[type[Any]] = Texts

    def __init__(self, weights: Tensor, filled: Tensor, hidden: int, characters: bool) -> None:
        self.weights, self.filled, self.hidden, self.characters = weights, filled, hidden, characters
        settings: dict[str, Any] = {"n_features": _BUCKETS, "alternate_sign": False, "norm": None}
        self._hashers = [HashingVectorizer(token_pattern=r"(?u)\w+|[^\w\s]", ngram_range=(1, 2), **settings)]
        if characters:
            self._hashers.append(HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), **settings))

    @classmethod
    def fit(cls, inputs: Texts, hidden: int = 0, characters: bool | None = None) -> NGrams:
        if hidden < 0:
            raise ValueError(f"ngrams: hidden must be at least 0, got {hidden}")
        if characters is None:
            characters = sum(map(len, inputs.texts)) < _SHORT * len(inputs)
        counts = cls(torch.empty(0), torch.empty(0), hidden, characters)._counts(inputs.texts)
        weights = np.stack([TfidfTransformer(sublinear_tf=True).fit(count).idf_ for count in counts])
        filled = np.flatnonzero(np.concatenate([count.getnnz(axis=0) for count in counts]))
        if not len(filled):
            raise ValueError("no training text holds a word or a letter")
        return cls(torch.from_numpy(weights), torch.from_numpy(filled), hidden, characters)

    def _counts(self, texts: Sequence[str]) -> list[csr_array]:
        return [hasher.transform(texts) for hasher in self._hashers]

    def for_labels(self, num_labels: int) -> NGrams:
        """Returns the same with an embedding where a linear map to so many labels would hold more than 2^27 numbers."""
        if self.hidden or len(self.filled) * num_labels <= _LARGEST_MAP:
            return self
        return NGrams(self.weights, self.filled, _HIDDEN, self.characters)

    def encode(self, inputs: Texts) -> BagRows:
        parts = []
        for counts, weights in zip(self._counts(inputs.texts), self.weights, strict=True):
            weigh = TfidfTransformer(sublinear_tf=True)
            weigh.idf_ = weights.numpy()
            parts.append(weigh.transform(counts))
        bags = csr_array(hstack(parts, format="csr")[:, self.filled.numpy()], dtype=np.float32)
        indptr, indices = (torch.from_numpy(each.astype(np.int64)) for each in (bags.indptr, bags.indices))
        return BagRows(SparseFeatures(indptr, indices, torch.from_numpy(bags.data), len(self.filled), declared=True))

    def make_body(self) -> Bag | NoBody:
        return Bag(len(self.filled), self.hidden, std=0.03, relu=False) if self.hidden else NoBody(len(self.filled))

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        """Gives 500 steps or 3 epochs, whichever is more: few rows are seen more often, in smaller batches.

        SGD: Adam and Adagrad move rare n-grams too far, and overfit. A linear map takes large steps, as the weights of
        rows of unit length must become large.
        """
        if not self.hidden:
            return Recipe(max(3, min(30, 100_000 // rows)), 64, learning_rate=100.0, optimizer="sgd", schedule="cosine")
        batch_size = max(16, min(256, rows // 16))
        epochs = max(3, min(50, 500 * batch_size // rows))
        return Recipe(epochs, batch_size, learning_rate=1.0, optimizer="sgd", momentum=0.9, average=0.98)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"hidden": self.hidden, "characters": self.characters}, {"weights": self.weights, "filled": self.filled}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> NGrams:
        weights, filled, characters = tensors["weights"], tensors["filled"], bool(values["characters"])
        kinds = 1 + characters
        if weights.shape != (kinds, _BUCKETS) or weights.dtype != torch.float64:
            raise ValueError(f"weights must be ({kinds}, {_BUCKETS}), got {weights.dtype} {tuple(weights.shape)}")
        if filled.dtype != torch.int64 or not 0 <= filled.min() <= filled.max() < kinds * _BUCKETS:
            raise ValueError(f"filled buckets must be int64 numbers below {kinds * _BUCKETS}")
        return cls(weights, filled, int(values["hidden"]), characters)
