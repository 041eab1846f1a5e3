"""Label-wise attention: each label looks at the tokens of a text with a query of its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lopsided.models.pretrained import in_parts, token_states

_ENTRIES = 2**22  # labels times tokens whose weights are held at a time


class StatesOf(NamedTuple):
    """Holds the states of the tokens of some texts, (n, T, width), and (n, T) bool, True where a token stands."""

    states: Tensor
    mask: Tensor


class LabelAttention(nn.Module):
    """Computes (n, outputs) scores from states of tokens: of each label, a linear map of its own mean of them.

        score_l = sum_t a_lt (w_l . s_t) + b_l,  a_l = softmax over t of q_l . s_t

    The means are never made: a label takes two numbers of a token. Where labels times tokens are many, labels are taken
    in chunks, and what a chunk needs is computed again for its gradient. Queries begin at 0, so every a_l as the mean.

    Source: CAML, Mullenbach et al., arXiv 1802.05695, eqs. 2 to 4; over the states of a transformer in place of a
    convolution. LAAT, Vu et al., arXiv 2007.06351, has one more layer before the queries.

    >>> attention = LabelAttention(4, 2)
    >>> attention(StatesOf(torch.zeros(3, 5, 4), torch.ones(3, 5, dtype=torch.bool))).shape
    torch.Size([3, 2])
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(outputs, width))
        self.linear = nn.Linear(width, outputs)

    def begin_at(self, bias: Tensor) -> None:
        """Sets what the scores of each label begin about, (outputs,)."""
        self.linear.bias.data.copy_(bias)

    def forward(self, hidden: StatesOf) -> Tensor:
        # a graph has no chunks: their number would be that of the rows it was made of
        chunk = len(self.queries) if torch.compiler.is_compiling() else max(1, _ENTRIES // hidden.mask.numel())
        parts = [*zip(self.queries.split(chunk), self.linear.weight.split(chunk), strict=True)]
        if len(parts) == 1:
            return _scores(hidden, *parts[0]) + self.linear.bias
        scores = [checkpoint(_scores, hidden, *part, use_reentrant=False) for part in parts]
        return torch.cat(scores, 1) + self.linear.bias


def _scores(hidden: StatesOf, queries: Tensor, weight: Tensor) -> Tensor:
    weights = (hidden.states @ queries.T).masked_fill(~hidden.mask[:, :, None], -torch.inf).softmax(dim=1)
    return (weights * (hidden.states @ weight.T)).sum(1)


class TokenStates(nn.Module):
    """Hands the states of a frozen encoder on to a `LabelAttention`: all that is learnt lies there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, states: Tensor, mask: Tensor) -> StatesOf:
        return StatesOf(states, mask)

    def make_linear(self, outputs: int) -> LabelAttention:
        return LabelAttention(self.width, outputs)


class PretrainedStates(TokenStates):
    """Computes them from token numbers (n, T) and a mask of the same shape, by an encoder that is fine-tuned."""

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__(width)
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> StatesOf:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return StatesOf(token_states(self.model, ids, mask), mask)
        states = torch.zeros(*ids.shape, self.width, device=ids.device)
        for part, length in in_parts(mask.sum(1))[1]:
            states[part, :length] = token_states(self.model, ids[part, :length], mask[part, :length]).float()
        return StatesOf(states, mask)
