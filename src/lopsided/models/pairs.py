"""Encodes pairs of entities by the words of both and those between and about them, without a pretrained model."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from lopsided.data.pairs import Pairs
from lopsided.models.bag import Bag, BagRows
from lopsided.models.pair_features import pair_features
from lopsided.models.recipe import Recipe

_BUCKETS = 2**19


class PairWords:
    """Encodes pairs by hashed features, see `pair_features`, that at least two training documents have.

    What a single document has says little about others, and a model would learn it by heart.

    kept: (F,) int64, the buckets of those features. hidden: width of their embedding.

    >>> import torch
    >>> from lopsided.data.pairs import Document
    >>> document = Document("", ("Ada", "lives", "in", "Rome"), (((0, 1),), ((3, 4),)), ("PER", "LOC"))
    >>> pairs = Pairs((document,), torch.tensor([[0, 0, 1], [0, 1, 0]]))
    >>> encoder = PairWords.fit(pairs, hidden=4)
    >>> encoder.make_body()(*encoder.encode(pairs).batch(torch.arange(2))).shape
    torch.Size([2, 4])
    """

    name: ClassVar[str] = "pairs"
    inputs: ClassVar[type[Any]] = Pairs

    def __init__(self, kept: Tensor, hidden: int, dropout: float) -> None:
        self.kept, self.hidden, self.dropout = kept, hidden, dropout

    @classmethod
    def fit(cls, inputs: Pairs, hidden: int = 64, dropout: float = 0.2) -> PairWords:
        if hidden < 1 or not 0 <= dropout < 1:
            raise ValueError(f"pairs: hidden must be at least 1 and dropout in [0, 1), got {hidden} and {dropout:g}")
        if not len(inputs):
            raise ValueError("no pairs at all in the training rows")
        features = pair_features(inputs, _BUCKETS)
        document = inputs.pairs[:, 0].repeat_interleave(features.indptr.diff())
        size = int(document.max()) + 1
        each_once = (features.indices * size + document).unique() // size
        least = min(2, len(document.unique()))
        kept = (each_once.bincount(minlength=_BUCKETS) >= least).nonzero()[:, 0]
        return cls(kept, hidden, dropout)

    def encode(self, inputs: Pairs) -> BagRows:
        return BagRows(pair_features(inputs, _BUCKETS).only(self.kept))

    def make_body(self) -> Bag:
        return Bag(len(self.kept), self.hidden, std=0.01, relu=False, dropout=self.dropout, sparse=True)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        """Gives 3 epochs, or so many more that there are 500 steps: a pair resembles the others of its document."""
        batch_size = max(16, min(256, rows // 16))
        epochs = max(3, min(50, 500 * batch_size // rows))
        return Recipe(epochs, batch_size, learning_rate=0.05, optimizer="adagrad")

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"hidden": self.hidden, "dropout": self.dropout}, {"kept": self.kept}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> PairWords:
        return cls(tensors["kept"], int(values["hidden"]), float(values["dropout"]))
