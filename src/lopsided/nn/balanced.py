"""Losses that are made from the counts of the training labels, as modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lopsided.compute.counted import Counted
from lopsided.losses import Balanced, balanced, closed_form
from lopsided.nn.modules import MultiLabelLoss
from lopsided.nn.options import show_options
from lopsided.nn.weights import check_counts
from lopsided.targets import SparseTargets, Supervision, labels_last
from lopsided.targets.checks import check_inputs

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lopsided.nn.options import Options


class LabelCounts(nn.Module):
    """Holds what a balanced loss makes of the counts, on the device of the model; nothing of it is stored with that.

    reweights: whether labels are weighed by beta now.
    """

    offset: Tensor
    margins: Tensor
    rarity: Tensor
    weight: Tensor

    def __init__(self, balance: Balanced, counts: Tensor, rows: int) -> None:
        super().__init__()
        held = check_counts(counts).clamp(1, max(rows - 1, 1))
        if (counts > rows).any():
            raise ValueError(f"a label has {counts.max():g} positives, but there are only {rows} rows")
        self.balance, self.reweights = balance, balance.beta is not None and not balance.deferred
        beta = 0.0 if balance.beta is None else balance.beta
        made = {
            "offset": -balance.kappa * (rows / held - 1).log() if rows > 1 else torch.zeros_like(held),
            "margins": balance.margin * (held.min() / held) ** 0.25,
            "rarity": 1 / held,
            "weight": (1 - beta) / (1 - beta**held),
        }
        for name, tensor in made.items():
            self.register_buffer(name, tensor.float(), persistent=False)

    def now(self) -> Counted:
        """Returns what is to be done to logits and weights."""
        weight = self.weight if self.reweights else None
        return Counted(self.balance, self.offset, self.margins, self.rarity, weight)

    def after(self, logits: Tensor) -> Tensor:
        """Returns what the counts turn (..., L) logits of negatives into."""
        return self.balance.scale * (logits + self.offset)

    def before(self, settled: Tensor) -> Tensor:
        """Returns the (..., L) logits that the counts turn into these, of negatives."""
        return settled / self.balance.scale - self.offset

    def check_closed(self) -> None:
        """Raises ValueError where no posterior follows from a score alone."""
        if self.balance.rebalancing is not None or self.balance.margin:
            raise ValueError(
                f"{self.balance} treats a label as the truth of its row says, so a score alone implies no posterior "
                "and no threshold: tune one on validation data"
            )


class BalancedLoss(MultiLabelLoss):
    """A loss that the counts of the training labels shape: cb, rebalanced, ntr, cb_ntr, db or ldam.

    Counts move the logits of labels, in training only, and weigh labels or entries; the rest is `MultiLabelLoss`.
    Logits that a model so trained gives are used as they are. Weights hold (..., L) numbers where they differ by row.

    Args:
        loss: its name, with settings such as "db(gamma=0)".
        counts: (L,), how many training rows have each label; 0 counts as 1, and all rows as one less.
        rows: how many training rows there are.
        options: see `MultiLabelLoss`; no `weight`, which is what the counts make.

    Raises ValueError for other losses, and for counts above rows.

    >>> counts = torch.tensor([500, 60, 5])
    >>> criterion = BalancedLoss("db", counts, rows=1000)
    >>> criterion(torch.zeros(2, 3), torch.tensor([[1, 0, 0], [1, 0, 1]]))
    tensor(0.0794)

    Source: Huang et al. 2021, arXiv 2109.04712, which compares them, and Wu et al. 2020, arXiv 2007.09654; ldam: Cao et
    al. 2019, arXiv 1906.07413. Deviations: factors that are the same for all labels are left out, as those of
    focal's alpha; a row without a label weighs its entries as the limit does, and labels without a row as with one.
    """

    @show_options
    def __init__(self, loss: Balanced | str, counts: Tensor, rows: int, **options: Unpack[Options]) -> None:
        if options.get("weight") is not None:
            raise ValueError("weight is made from the counts here: pass pos_weight, or a mask")
        balance = balanced(loss) if isinstance(loss, str) else loss
        super().__init__(balance.formula, **options)
        self.counts = LabelCounts(balance, counts, rows)

    def forward(
        self,
        logits: Tensor,
        targets: Tensor | SparseTargets,
        mask: Tensor | None = None,
        *,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        ndim, z = logits.ndim, self.scores(logits)
        z, targets, mask = (labels_last(each, ndim, self.label_dim) for each in (z, targets, mask))
        supervision = Supervision.of(targets, self.ignore_index, mask=mask)
        check_inputs(z, supervision)
        if z.shape[-1] != len(self.counts.offset):
            known = len(self.counts.offset)
            raise ValueError(f"the loss has the counts of {known} labels, got logits of {z.shape[-1]}")
        z, weight = self.counts.now().turned(z, supervision)
        return self._evaluated(z, targets, mask, row_weight, weight)

    def reweight(self) -> None:
        """Switches on the weights by beta that are deferred: DRW calls this for the last part of training."""
        self.counts.reweights = True

    def posterior(self, logits: Tensor) -> Tensor:
        self.counts.check_closed()
        z = self.counts.after(self.scores(logits).movedim(self.label_dim, -1))
        return closed_form.posterior(self.formula, z, *self._trained_with).movedim(-1, self.label_dim)

    def decision_threshold(self, eta: float = 0.5) -> Tensor:
        self.counts.check_closed()
        return self.counts.before(super().decision_threshold(eta))

    def posterior_limits(self) -> tuple[Tensor, Tensor]:
        self.counts.check_closed()
        return super().posterior_limits()

    def extra_repr(self) -> str:
        return super().extra_repr().replace(str(self.formula), str(self.counts.balance), 1)
