"""The model: encoder, body and head, with the names of the labels; one thing that is trained, saved, and predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Inputs, Numbered
from lopsided.metrics.scores import Scores
from lopsided.models.bounded import NoLargerThan
from lopsided.models.columns import Columns
from lopsided.models.encoder import Batch, Encoded, Encoder
from lopsided.models.heads import Head, make_head, stored_sets
from lopsided.models.methods import parse_method
from lopsided.models.mixup import mixed
from lopsided.models.registry import class_of
from lopsided.nn.divergence import symmetric_kl
from lopsided.nn.fused import FusedAdagrad
from lopsided.targets import SparseTargets

_ROWS = 512  # per batch when no gradient is kept
_ENTRIES = 2**22  # the most scores of a batch
DType = Literal["fp32", "bf16"]
_OF_UPDATES = ("head.steps", "head.weight_", "head.bias_")  # of a fused update, which only training needs


class Network(nn.Module):
    """Holds what is trained: a body and a head.

    >>> from lopsided.models.bag import Bag
    >>> from lopsided.nn.head import LinearHead
    >>> network = Network(Bag(num_features=9, width=4), LinearHead(4, 3, "asl"))
    >>> batch = torch.tensor([0, 8, 1]), torch.tensor([0, 2]), torch.ones(3)
    >>> network(batch, SparseTargets.from_indices([[0], [2, 1]])).shape
    torch.Size([])
    """

    def __init__(self, body: nn.Module, head: Head) -> None:
        super().__init__()
        self.body, self.head = body, cast("nn.Module", head)

    def forward(self, batch: Batch, targets: SparseTargets, mixup: float = 0.0, r_drop: float = 0.0) -> Tensor:
        """Computes the loss, mean over the rows.

        mixup: alpha of `mixed` hidden states, 0 for none. r_drop: alpha of `lopsided.r_drop`, 0 for none.
        """
        hidden, head = self.body(*batch), cast("Head", self.head)
        if mixup:
            hidden, targets = mixed(hidden, targets, mixup, head.num_labels)
        value: Tensor = head(hidden, targets)
        if not r_drop:
            return value
        again = self.body(*batch)  # with other dropout
        divergence = symmetric_kl(head.logits(hidden), head.logits(again))
        return (value + head(again, targets)) / 2 + r_drop / 4 * divergence


@dataclass(frozen=True)
class Model:
    """Maps inputs to label scores.

    encoder: fitted to training inputs. method: a loss by name with settings, or "powerset". label_names: L names.
    label_counts: (L,) float64, the positives of each label in the training rows. rows: the number of those.
    dtype: in which the matrices of the network are stored; all is computed in float32.
    """

    encoder: Encoder
    network: Network
    method: str
    label_names: Sequence[str]
    label_counts: Tensor
    rows: int
    dtype: DType = "fp32"

    @classmethod
    def new(cls, encoder: Encoder, method: str, train: Dataset, fused_rate: float | None = None) -> Model:
        """Makes an untrained model for training rows, with weights from torch's random state.

        fused_rate: the learning rate of a head whose update is made chunk by chunk, see `Recipe.fused_head`.
        """
        body = encoder.make_body()
        counts = train.label_counts()
        step = None if fused_rate is None else FusedAdagrad(fused_rate)
        head = make_head(parse_method(method), body, train.targets, counts, len(train), step)
        network = Network(cast("nn.Module", body), head)
        return cls(encoder, network, method, train.label_names, counts, len(train))

    @property
    def num_labels(self) -> int:
        return len(self.label_names)

    @property
    def category_names(self) -> tuple[str, ...]:
        """Names the columns of a table that held categories."""
        columns = getattr(getattr(self.encoder, "base", self.encoder), "columns", None)
        return columns.category_names if isinstance(columns, Columns) else ()

    @property
    def labels_per_row(self) -> float:
        return float(self.label_counts.sum()) / self.rows

    def encode(self, inputs: Inputs) -> Encoded:
        """Encodes rows. Raises ValueError for inputs of another kind than those of training."""
        if not isinstance(inputs, self.encoder.inputs):
            raise ValueError(f"the model {self.encoder.name} takes no {inputs.kind} inputs, as these rows are read")
        return self.encoder.encode(inputs)

    def hidden(self, encoded: Encoded, rows: Tensor) -> Any:
        """Computes what the head takes of rows, by (n,) number: (n, width), or what a `DirectBody` gives."""
        device = next(self.network.parameters()).device
        result = self.network.body(*(each.to(device) for each in encoded.batch(rows)))
        return result

    @torch.no_grad()
    def blocks(self, encoded: Encoded, keep: int | None) -> Iterator[Scores]:
        """Yields the scores of some hundred rows at a time, float32 on the CPU; dropout is off.

        keep: how many labels to keep of each row, those with the highest scores; None for all.
        """
        self.network.eval()
        head = cast("Head", self.network.head)
        for part in torch.arange(len(encoded)).split(max(1, min(_ROWS, _ENTRIES // self.num_labels))):
            hidden = self.hidden(encoded, part)
            if keep is None:
                yield Scores(head.logits(hidden).float().cpu(), None, self.num_labels)
            else:
                values, columns = head.predict_topk(hidden, min(keep, self.num_labels))
                yield Scores(values.float().cpu(), columns.cpu(), self.num_labels)

    def score(
        self, encoded: Encoded, keep: int | None = None, on_rows: Callable[[int], object] = lambda count: None
    ) -> Scores:
        """Returns the scores of all rows, see `blocks`; `on_rows` is told of every block how many rows it has."""
        values: list[Tensor] = []
        columns: list[Tensor] = []
        for scores in self.blocks(encoded, keep):
            values.append(scores.values)
            columns += [] if scores.columns is None else [scores.columns]
            on_rows(len(scores))
        return Scores(torch.cat(values), torch.cat(columns) if columns else None, self.num_labels)

    @torch.no_grad()
    def rounded(self, dtype: DType) -> Model:
        """Rounds the matrices as they will be stored, and returns the model, which scores as its file does then."""
        for tensor in self.network.state_dict().values():
            if dtype == "bf16" and _is_matrix(tensor):
                tensor.copy_(tensor.bfloat16())
        return replace(self, dtype=dtype)

    def weights(self) -> dict[str, Tensor]:
        """Returns the tensors of the network that predicting needs."""
        return {name: t for name, t in self.network.state_dict().items() if not name.startswith(_OF_UPDATES)}

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns all that `from_stored` needs: values for JSON, and tensors."""
        values, tensors = self.encoder.stored()
        names = self.label_names
        header = {
            "encoder": self.encoder.name,
            "encoder_values": values,
            "method": self.method,
            "rows": self.rows,
            "label_names": len(names) if isinstance(names, Numbered) else list(names),
            "dtype": self.dtype,
        }
        weights = self.weights()
        if self.dtype == "bf16":
            weights = {name: t.bfloat16() if _is_matrix(t) else t for name, t in weights.items()}
        parts = {"encoder": tensors, "network": weights, "labels": {"counts": self.label_counts}}
        return header, {f"{part}.{name}": tensor for part, of in parts.items() for name, tensor in of.items()}

    @classmethod
    def from_stored(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
        """Restores a model. Raises ValueError, TypeError or RuntimeError for what `stored` did not give.

        A header that describes a larger model than the tensors are is refused before memory is taken for it.
        """
        parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "network": {}, "labels": {}}
        try:
            for name, stored in tensors.items():
                part, _, rest = name.partition(".")
                tensor = parts[part][rest] = stored.float() if stored.dtype is torch.bfloat16 else stored
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    raise ValueError(f"{name} holds numbers that are not finite")
            with NoLargerThan(tensor for part in parts.values() for tensor in part.values()):
                return cls._of_parts(header, parts)
        except (LookupError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"no model: {type(error).__name__} {error}") from error

    @classmethod
    def _of_parts(cls, header: dict[str, Any], parts: dict[str, dict[str, Tensor]]) -> Model:
        given, counts, rows = header["label_names"], parts["labels"]["counts"], int(header["rows"])
        names = Numbered(given) if isinstance(given, int) else tuple(map(str, given))
        fit = counts.dtype == torch.float64 and counts.shape == (len(names),)
        if not (fit and 0 <= counts.min() <= counts.max() <= rows):
            raise ValueError(f"counts of {len(names)} labels in {rows} rows, got {counts.dtype} {tuple(counts.shape)}")
        encoder = class_of(header["encoder"]).from_stored(header["encoder_values"], parts["encoder"])
        body, method = encoder.make_body(), parse_method(header["method"])
        head = make_head(method, body, stored_sets(parts["network"], len(names)), counts, rows, None)
        network = Network(cast("nn.Module", body), head)
        network.load_state_dict(parts["network"])
        return cls(encoder, network, header["method"], names, counts, rows, header.get("dtype", "fp32"))


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.dtype is torch.float32 and tensor.ndim > 1
