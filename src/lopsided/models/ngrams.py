"""Encodes texts as hashed word and character n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array, csr_matrix, hstack
from torch import Tensor

from lopsided.data.inputs import SparseFeatures, Texts
from lopsided.models.bag import Bag, BagRows
from lopsided.models.direct import NoBody
from lopsided.models.recipe import LARGEST_MAP, Recipe, solved_recipe

if TYPE_CHECKING:  # loaded where there are texts: it takes a second
    from sklearn.feature_extraction.text import HashingVectorizer

_BUCKETS = 2**22  # for words, and as many for characters: of 337,000 in Reuters, one in 12 shares its bucket
_HIDDEN = 64
_SHORT = 300  # characters of a text, below which those of words count too
_COMMON = 2  # training rows that a bucket needs to be kept


class NGrams:
    """Maps texts to sparse rows: words and pairs of words; two to four characters within words; hashed, no vocabulary.

    Counts are damped (1 + log), weighted by inverse document frequency in the training texts, and each kind is
    scaled to unit length. Buckets that a single training text fills, or none, are left out: hardly anything can be
    learnt about them. A word has two letters or digits at least.

    weights: (F,) float64, the inverse document frequencies of what is kept. filled: (F,) int64, rising, the buckets
    that are kept, those of characters after those of words.
    hidden: width of an embedding of the n-grams; 0 for a linear map from n-grams straight to labels.
    characters: whether n-grams of characters count beside words. They tell more than they cost where texts are short,
    and so None, by default, stands for yes where a training text has fewer than 300 characters in the mean.
    solve: whether a linear map is solved, unless it is too large for that, or trained in steps.

    >>> encoder = NGrams.fit(Texts(("a dog", "a cat")), hidden=4)
    >>> encoder.make_body()(*encoder.encode(Texts(("the dog", ""))).batch(torch.arange(2))).shape
    torch.Size([2, 4])
    """

    name: ClassVar[str] = "ngrams"
    inputs: ClassVar[type[Any]] = Texts

    def __init__(self, weights: Tensor, filled: Tensor, hidden: int, characters: bool, entries: int | None) -> None:
        """entries: of the training rows together; None for a map that is trained in steps."""
        self.weights, self.filled, self.hidden, self.characters = weights, filled, hidden, characters
        self.entries = entries
        self._counted: tuple[Sequence[str] | None, list[csr_matrix]] = None, []  # texts that are likely encoded next

    @classmethod
    def fit(cls, inputs: Texts, hidden: int = 0, characters: bool | None = None, solve: bool = True) -> NGrams:
        if hidden < 0:
            raise ValueError(f"ngrams: hidden must be at least 0, got {hidden}")
        if characters is None:
            characters = sum(map(len, inputs.texts)) < _SHORT * len(inputs)
        from sklearn.feature_extraction.text import TfidfTransformer

        weights, filled, entries = [], [], 0
        counted = _counts(inputs.texts, characters)
        for kind, counts in enumerate(counted):
            rows_of = counts.getnnz(axis=0)
            kept = np.flatnonzero(rows_of >= min(_COMMON, rows_of.max()))
            kept = kept[rows_of[kept] > 0]
            weights.append(TfidfTransformer(sublinear_tf=True).fit(counts[:, kept]).idf_ if len(kept) else np.ones(0))
            filled.append(kept + kind * _BUCKETS)
            entries += int(rows_of[kept].sum())
        if not entries:
            raise ValueError("no training text holds a word or a letter")
        found, places = (torch.from_numpy(np.concatenate(each)) for each in (weights, filled))
        made = cls(found, places, hidden, characters, entries if solve else None)
        made._counted = inputs.texts, counted
        return made

    def for_labels(self, num_labels: int) -> NGrams:
        """Returns the same with an embedding where a linear map to so many labels would hold more than 2^27 numbers."""
        if self.hidden or len(self.filled) * num_labels <= LARGEST_MAP:
            return self
        made = NGrams(self.weights, self.filled, _HIDDEN, self.characters, None)
        made._counted = self._counted
        return made

    def encode(self, inputs: Texts) -> BagRows:
        from sklearn.feature_extraction.text import TfidfTransformer

        (texts, counted), self._counted, parts = self._counted, (None, []), []
        counted = counted if texts is inputs.texts else _counts(inputs.texts, self.characters)
        for kind, counts in enumerate(counted):
            here = self.filled // _BUCKETS == kind
            if not here.any():
                continue
            weigh = TfidfTransformer(sublinear_tf=True)
            weigh.idf_ = self.weights[here].numpy()
            parts.append(weigh.transform(counts[:, (self.filled[here] % _BUCKETS).numpy()]))
        bags = csr_array(hstack(parts, format="csr"), dtype=np.float32)
        indptr, indices = (torch.from_numpy(each.astype(np.int64)) for each in (bags.indptr, bags.indices))
        return BagRows(SparseFeatures(indptr, indices, torch.from_numpy(bags.data), len(self.filled), declared=True))

    def make_body(self) -> Bag | NoBody:
        return Bag(len(self.filled), self.hidden, std=0.03, relu=False) if self.hidden else NoBody(len(self.filled))

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        """Gives 500 steps or 3 epochs, whichever is more, of what is not solved: few rows are seen more often.

        SGD: Adam and Adagrad move rare n-grams too far, and overfit. A linear map takes large steps, as the weights of
        rows of unit length must become large.
        """
        if not self.hidden:
            solved = self.entries and solved_recipe(rows, self.entries, len(self.filled), num_labels)
            epochs = max(3, min(30, 100_000 // rows))
            return solved or Recipe(epochs, 64, learning_rate=100.0, optimizer="sgd", schedule="cosine")
        batch_size = max(16, min(256, rows // 16))
        epochs = max(3, min(50, 500 * batch_size // rows))
        return Recipe(epochs, batch_size, learning_rate=1.0, optimizer="sgd", momentum=0.9, average=0.98)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"hidden": self.hidden, "characters": self.characters}, {"weights": self.weights, "filled": self.filled}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> NGrams:
        weights, filled, characters = tensors["weights"], tensors["filled"], bool(values["characters"])
        buckets = (1 + characters) * _BUCKETS
        if filled.dtype != torch.int64 or filled.ndim != 1 or not 0 <= filled.min() <= filled.max() < buckets:
            raise ValueError(f"filled buckets must be int64 numbers below {buckets}")
        if (filled.diff() <= 0).any():
            raise ValueError("filled buckets must rise")
        if weights.shape != filled.shape or weights.dtype != torch.float64:
            raise ValueError(f"weights must be ({len(filled)},), got {weights.dtype} {tuple(weights.shape)}")
        return cls(weights, filled, int(values["hidden"]), characters, None)


def _counts(texts: Sequence[str], characters: bool) -> list[csr_matrix]:
    """Counts words and their pairs, and n-grams of characters, (rows, buckets) each."""
    from sklearn.feature_extraction.text import HashingVectorizer

    settings: dict[str, Any] = {"n_features": _BUCKETS, "alternate_sign": False, "norm": None, "lowercase": False}
    words = HashingVectorizer(token_pattern=r"(?u)\b\w\w+\b", ngram_range=(1, 2), **settings)
    lowered = [text.lower() for text in texts]
    counts = [words.transform(lowered)]
    if characters:
        hasher = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), **settings)
        counts.append(_by_words(lowered, hasher))
    return counts


def _by_words(texts: Sequence[str], hasher: HashingVectorizer) -> csr_matrix:
    """Counts what lies within words: each word is hashed once, though many texts have it."""
    places: dict[str, int] = {}
    words = [[places.setdefault(word, len(places)) for word in text.split()] for text in texts]
    ends = np.cumsum([0, *map(len, words)])
    columns = np.fromiter(chain.from_iterable(words), np.int32)
    counts = csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(texts), max(1, len(places))))
    counts.sum_duplicates()
    return counts @ hasher.transform(places or [""])
