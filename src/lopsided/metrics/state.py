"""What a collection of metrics holds, and how it comes together from batches, parts and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from lopsided.metrics.counts import Sums
from lopsided.metrics.exact_scores import ExactScores, join


@dataclass
class State:
    """Of some rows."""

    sums: Sums  # float64, add up over rows
    rows: int = 0
    stored: bool | None = None  # are the scores sparse? None before the first row
    exact: list[ExactScores] = field(default_factory=list)  # of every batch, where values are exact

    def add(self, other: State) -> None:
        if not other.rows:
            return
        if self.stored not in (None, other.stored):
            raise ValueError("scores must be dense in all batches or sparse in all, got both")
        for name, value in other.sums.items():
            self.sums[name] += value
        self.rows, self.stored = self.rows + other.rows, other.stored
        self.exact += other.exact


def gather(state: State, labels: int, group: dist.ProcessGroup | None) -> list[State]:
    """Returns the states of all ranks, in their order."""
    scores, marks = (torch.from_numpy(each) for each in join(state.exact, state.stored is True))
    facts = _all(torch.tensor([state.rows, state.stored is True, scores.dtype == torch.float64]), group)
    widest = torch.float64 if any(fact[2] for fact in facts) else torch.float32
    names = sorted(state.sums)
    sums = _all(torch.from_numpy(np.concatenate([state.sums[name].reshape(-1) for name in names])), group)
    ends = np.cumsum([state.sums[name].size for name in names])[:-1]
    states = []
    for fact, total, values, at in zip(facts, sums, _all(scores.to(widest), group), _all(marks, group), strict=True):
        rows, stored, _ = fact.tolist()
        cut = dict(zip(names, np.split(total.numpy(), ends), strict=True))
        exact = ExactScores(values.numpy() if stored else values.numpy().reshape(-1, labels), at.numpy())
        shaped = {name: value.reshape(state.sums[name].shape) for name, value in cut.items()}
        states.append(State(shaped, rows, bool(stored), [exact] if len(values) else []))
    return states


def _all(tensor: Tensor, group: dist.ProcessGroup | None) -> list[Tensor]:
    """Gathers a tensor of one dimension, of any length on each rank."""
    ranks = dist.get_world_size(group)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(ranks)]
    dist.all_gather(lengths, torch.tensor([len(tensor)]), group)
    longest = max(int(length) for length in lengths)
    parts = [tensor.new_empty(longest) for _ in range(ranks)]
    dist.all_gather(parts, torch.nn.functional.pad(tensor, (0, longest - len(tensor))), group)
    return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]
