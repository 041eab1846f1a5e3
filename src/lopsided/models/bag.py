"""An embedding bag over sparse features, those of a file or the n-grams of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from lopsided.data.inputs import SparseFeatures, csr_entries
from lopsided.models.direct import NoBody
from lopsided.models.encoder import Batch
from lopsided.models.recipe import Recipe, solved_recipe
from lopsided.models.tree import TreeBody

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class BagRows:
    """Holds encoded rows: indices, offsets and weights of an `nn.EmbeddingBag` for any of them."""

    features: SparseFeatures

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, rows: Tensor) -> Batch:
        indptr, entries = csr_entries(self.features.indptr, rows)
        return self.features.indices[entries], indptr[:-1], self.features.values[entries]


class Bag(nn.Module):
    """Computes the weighted sum of the embeddings of a row's features; with `relu`, ReLU and dropout after it.

    >>> bag = Bag(num_features=9, width=4)
    >>> bag(torch.tensor([0, 8, 1]), torch.tensor([0, 2]), torch.ones(3)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self, num_features: int, width: int, *, std: float = 0.1, relu: bool = True, dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width = width
        self.embedding = nn.EmbeddingBag(num_features, width, mode="sum", sparse=sparse)
        nn.init.normal_(self.embedding.weight, std=std)
        self.after = nn.Sequential(nn.ReLU() if relu else nn.Identity(), nn.Dropout(dropout))

    def forward(self, indices: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        hidden: Tensor = self.after(self.embedding(indices, offsets, per_sample_weights=weights))
        return hidden


@dataclass(frozen=True, eq=False)
class SparseEncoder:
    """Encodes sparse features: every row is scaled to unit Euclidean length; a row of zeros stays as it is.

    Features that no training row had are left out, as nothing was learnt about them; the others are numbered anew, so
    that memory follows from what the rows have, whatever their numbers.

    kept: (F,) int64, the features that training rows have, rising.
    """

    inputs: ClassVar[type[Any]] = SparseFeatures
    kept: Tensor
    num_features: int
    declared: bool
    unit_length: bool

    def encode(self, inputs: SparseFeatures) -> BagRows:
        """Raises ValueError where both files say how many features there are, and differ."""
        if inputs.declared and self.declared and inputs.num_features != self.num_features:
            raise ValueError(
                f"its header says {inputs.num_features} features, but the training rows have {self.num_features}"
            )
        rows = inputs.only(self.kept)
        return BagRows(_unit_length(rows) if self.unit_length else rows)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {name: value for name, value in vars(self).items() if name != "kept"}, {"kept": self.kept}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        kept = tensors["kept"]
        if kept.dtype != torch.int64 or kept.ndim != 1 or not len(kept) or (kept.diff() <= 0).any():
            raise ValueError(f"kept features must be rising numbers, got {kept.dtype} {tuple(kept.shape)}")
        return cls(kept, **values)


@dataclass(frozen=True, eq=False)
class UnitLength(SparseEncoder):
    """Encodes sparse features, see `SparseEncoder`, for a layer of embeddings.

    >>> rows = SparseFeatures(torch.tensor([0, 2, 3]), torch.tensor([4, 1, 3]), torch.tensor([3.0, 4.0, 1.0]), 5)
    >>> UnitLength.fit(rows).encode(rows).batch(torch.tensor([1, 0]))
    (tensor([1, 2, 0]), tensor([0, 1]), tensor([1.0000, 0.6000, 0.8000]))
    """

    name: ClassVar[str] = "bag"
    hidden: int
    dropout: float

    def __post_init__(self) -> None:
        if self.hidden < 1 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"bag: hidden must be at least 1 and dropout in [0, 1), got {self.hidden} and {self.dropout:g}; a "
                "model without a layer is called linear_bag"
            )

    @classmethod
    def fit(
        cls, inputs: SparseFeatures, hidden: int = 256, dropout: float = 0.3, unit_length: bool = True
    ) -> UnitLength:
        kept = _features_of(inputs)
        return cls(kept, inputs.num_features, inputs.declared, unit_length, hidden, dropout)

    def make_body(self) -> Bag:
        return Bag(len(self.kept), self.hidden, dropout=self.dropout, sparse=True)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        return recipe_of_bags(rows)


@dataclass(frozen=True, eq=False)
class LinearBag(SparseEncoder):
    """Encodes sparse features, see `SparseEncoder`, for a linear map straight to labels, which is solved.

    rows, entries: how many training rows there are, and how many numbers these have together.

    >>> rows = SparseFeatures(torch.tensor([0, 2, 3]), torch.tensor([4, 1, 3]), torch.tensor([3.0, 4.0, 1.0]), 5)
    >>> LinearBag.fit(rows).make_body().width
    3
    """

    name: ClassVar[str] = "linear_bag"
    rows: int
    entries: int

    @classmethod
    def fit(cls, inputs: SparseFeatures, unit_length: bool = True) -> LinearBag:
        kept = _features_of(inputs)
        return cls(kept, inputs.num_features, inputs.declared, unit_length, len(inputs), len(inputs.indices))

    def for_labels(self, num_labels: int) -> SparseEncoder:
        """Returns the same, or one of a tree over labels where so many cannot be solved one by one."""
        if solved_recipe(self.rows, self.entries, len(self.kept), num_labels) is not None:
            return self
        return Tree(self.kept, self.num_features, self.declared, self.unit_length)

    def make_body(self) -> NoBody:
        return NoBody(len(self.kept))

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        """Raises ValueError for what is too large to be solved."""
        recipe = solved_recipe(rows, self.entries, len(self.kept), num_labels)
        if recipe is None:
            raise ValueError(
                f"linear_bag: {rows} rows of {self.entries} numbers with {num_labels} labels are too many to solve; "
                "choose --model tree"
            )
        return recipe


@dataclass(frozen=True, eq=False)
class Tree(SparseEncoder):
    """Encodes sparse features, see `SparseEncoder`, for a tree over labels, whose nodes are solved.

    >>> rows = SparseFeatures(torch.tensor([0, 2, 3]), torch.tensor([4, 1, 3]), torch.tensor([3.0, 4.0, 1.0]), 5)
    >>> Tree.fit(rows).make_body().width
    3
    """

    name: ClassVar[str] = "tree"

    @classmethod
    def fit(cls, inputs: SparseFeatures, unit_length: bool = True) -> Tree:
        return cls(_features_of(inputs), inputs.num_features, inputs.declared, unit_length)

    def make_body(self) -> TreeBody:
        return TreeBody(len(self.kept))

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        return Recipe(epochs=1, batch_size=1, learning_rate=0.0, optimizer="solve", refit=False)


def recipe_of_bags(rows: int) -> Recipe:
    """Gives about 1,000 steps in 5 to 15 epochs, of batches that grow with the rows.

    Adagrad moves the rarest feature or label as far as the most frequent.
    """
    batch_size = max(16, min(256, rows // 64))
    epochs = max(5, min(15, 1000 * batch_size // rows))
    return Recipe(epochs, batch_size, learning_rate=0.03, optimizer="adagrad", fused_head=True)


def _features_of(inputs: SparseFeatures) -> Tensor:
    if not len(inputs.indices):
        raise ValueError("no features at all in the training rows")
    kept: Tensor = inputs.indices.unique()
    return kept


def _unit_length(rows: SparseFeatures) -> SparseFeatures:
    row = torch.repeat_interleave(rows.indptr.diff())
    squares = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, row, rows.values.double().square())
    scale = torch.where(squares > 0, squares.rsqrt(), 1.0)
    values = (rows.values * scale[row]).float()
    return SparseFeatures(rows.indptr, rows.indices, values, rows.num_features, rows.declared)
