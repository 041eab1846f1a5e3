"""The labels of the highest logits, over chunks and ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from lopsided.compute.head.shard import LabelShard


@torch.no_grad()
def top_labels(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, k: int, width: int, shard: LabelShard | None
) -> tuple[Tensor, Tensor]:
    """Maps (B, D) hidden states to (B, k) logits, falling, and (B, k) labels; of equal logits the lower label first."""
    start = 0 if shard is None else shard.start
    scores = hidden.new_empty(len(hidden), 0, dtype=torch.promote_types(weight.dtype, torch.float32))
    columns = torch.empty(len(hidden), 0, dtype=torch.long, device=hidden.device)
    for low in range(0, len(weight), width):
        rows = weight[low : low + width]
        z = torch.nn.functional.linear(hidden.to(rows.dtype), rows, None if bias is None else bias[low : low + width])
        index = _top(z, min(k, z.shape[1]))
        scores, columns = _best(
            torch.cat([scores, z.gather(1, index).to(scores.dtype)], 1),
            torch.cat([columns, index + (start + low)], 1),
            k,
        )
    if shard is not None:
        missing = k - scores.shape[1]  # a small shard: all ranks send the same number
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
        columns = torch.nn.functional.pad(columns, (0, missing), value=shard.num_labels)
        scores, columns = (torch.cat(list(shard.gather(each)), 1) for each in (scores, columns))
        scores, columns = _best(scores, columns, k)
    return scores, columns


def top_of(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Maps (B, L) scores to the k highest, falling, and their labels; of equal scores the lower label first."""
    index = _top(scores, k)
    return _best(scores.gather(1, index), index, k)


def _top(z: Tensor, k: int) -> Tensor:
    """Returns (B, k) places of the highest; where one that is left out equals one that is in, the lowest places."""
    values, index = z.topk(min(k + 1, z.shape[1]), 1)
    if values.shape[1] > k:
        tied = values[:, k] == values[:, k - 1]
        if tied.any():
            index[tied] = z[tied].sort(dim=1, descending=True, stable=True).indices[:, : k + 1]
    return index[:, :k]


def _best(scores: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns the k highest of few, equal ones by label."""
    labels, order = labels.sort(1)
    scores, ranked = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], labels.gather(1, ranked)[:, :k]
