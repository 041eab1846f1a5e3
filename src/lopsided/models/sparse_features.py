"""Classifies sparse features: an embedding bag, and a linear head that never holds the scores of all labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lopsided.nn.fused import FusedAdagrad
from lopsided.nn.head import LinearHead
from lopsided.targets import SparseTargets

Batch = tuple[Tensor, Tensor, Tensor]  # indices, offsets and weights of an embedding bag


class SparseClassifier(nn.Module):
    """Computes a weighted sum of feature embeddings, ReLU, dropout, then one logit per label.

    Both layers are trained by Adagrad, which moves the rarest feature or label as far as the most frequent. The bias
    starts where the loss says that a label is as probable as it is frequent: with many labels, most of training would
    otherwise go into learning that nearly all are rare. A loss that only ranks labels starts at 0.

    >>> model = SparseClassifier(num_features=9, label_counts=torch.tensor([3, 1]), rows=10, hidden=4)
    >>> batch, targets = torch.tensor([0, 8, 1]), SparseTargets.from_indices([[0], [1]])
    >>> value = model.step((batch, torch.tensor([0, 2]), torch.ones(3)), targets)  # scalar, after one step of training
    >>> scores, labels = model.top((batch, torch.tensor([0, 2]), torch.ones(3)), k=1)
    >>> labels.shape
    torch.Size([2, 1])
    """

    label_counts: Tensor

    def __init__(
        self,
        num_features: int,
        label_counts: Tensor,
        rows: int,
        hidden: int = 256,
        loss: str = "asl",
        dropout: float = 0.0,
        learning_rate: float = 0.03,
    ) -> None:
        """Takes label_counts: (L,) int64, how many of the training rows have each label."""
        super().__init__()
        self.embedding = nn.EmbeddingBag(num_features, hidden, mode="sum", sparse=True)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.dropout = nn.Dropout(dropout)
        step = FusedAdagrad(learning_rate)
        prior = (label_counts + 0.5) / (rows + 1)
        self.head = LinearHead(hidden, len(label_counts), loss, prior=prior, reduction="batchmean", fused_step=step)
        self.register_buffer("label_counts", label_counts)
        self.optimizer = torch.optim.Adagrad(self.embedding.parameters(), learning_rate)

    @property
    def num_features(self) -> int:
        return self.embedding.num_embeddings

    def forward(self, batch: Batch) -> Tensor:
        """Returns (n, hidden), what the head sees of n rows."""
        indices, offsets, weights = batch
        hidden: Tensor = self.dropout(self.embedding(indices, offsets, per_sample_weights=weights).relu())
        return hidden

    def step(self, batch: Batch, targets: SparseTargets) -> Tensor:
        """Moves all weights; returns the loss before the step, mean over the rows."""
        value = self.head.step(self(batch), targets)
        with torch.sparse.check_sparse_tensor_invariants(False):  # torch warns unless told
            self.optimizer.step()
        self.optimizer.zero_grad()
        return value

    @torch.no_grad()
    def top(self, batch: Batch, k: int) -> tuple[Tensor, Tensor]:
        """Returns the highest scores of each row, falling, and the labels that have them: both (n, min(k, L))."""
        return self.head.predict_topk(self(batch), min(k, len(self.label_counts)))

    def state(self) -> dict[str, Tensor]:
        """Returns weights and state of both optimisers, which training goes on from."""
        moments = self.optimizer.state_dict()["state"]
        tensors = {f"optimizer.{number}.{name}": t for number, of in moments.items() for name, t in of.items()}
        return tensors | {f"model.{name}": tensor for name, tensor in self.state_dict().items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Raises RuntimeError, KeyError or ValueError where the tensors are not those of such a model."""
        self.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
        state = self.optimizer.state_dict()
        for number, moments in state["state"].items():
            state["state"][number] = {name: tensors[f"optimizer.{number}.{name}"] for name in moments}
        self.optimizer.load_state_dict(state)
