"""Losses that are made from the counts of the training labels, as modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lopsided.losses import Balanced, balanced, closed_form
from lopsided.losses.frequencies import Rebalancing
from lopsided.nn.functional import multilabel_loss
from lopsided.nn.modules import MultiLabelLoss
from lopsided.nn.options import show_options
from lopsided.nn.weights import check_counts
from lopsided.targets import SparseTargets, Supervision, labels_last
from lopsided.targets.checks import check_inputs

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lopsided.nn.options import Options


class BalancedLoss(MultiLabelLoss):
    """A loss that the counts of the training labels shape: cb, rebalanced, ntr, cb_ntr, db or ldam.

    Counts move the logits of labels, in training only, and weigh labels or entries; the rest is `MultiLabelLoss`.
    Logits that a model so trained gives are used as they are. Weights hold (..., L) numbers where they differ by row.

    Args:
        loss: its name, with settings such as "db(gamma=0)".
        counts: (L,), how many training rows have each label; fewer than 1 count as 1.
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

    offset: Tensor
    margins: Tensor
    rarity: Tensor
    label_weight: Tensor

    @show_options
    def __init__(self, loss: Balanced | str, counts: Tensor, rows: int, **options: Unpack[Options]) -> None:
        if options.get("weight") is not None:
            raise ValueError("weight is made from the counts here: pass pos_weight, or a mask")
        balance = balanced(loss) if isinstance(loss, str) else loss
        super().__init__(balance.formula, **options)
        self.balance, self.reweights = balance, not balance.deferred
        held = check_counts(counts).clamp(1, max(rows - 1, 1))
        if (counts > rows).any():
            raise ValueError(f"a label has {counts.max():g} positives, but there are only {rows} rows")
        beta = balance.beta
        weight = torch.ones_like(held) if beta is None else (1 - beta) / (1 - beta**held)
        made = {
            "offset": -balance.kappa * (rows / held - 1).log() if rows > 1 else torch.zeros_like(held),
            "margins": balance.margin * (held.min() / held) ** 0.25,
            "rarity": 1 / held,
            "label_weight": weight,
        }
        for name, tensor in made.items():  # which a model needs no more once it is trained
            self.register_buffer(name, tensor.float(), persistent=False)

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
        weight: Tensor | None = self.label_weight if self.reweights and self.balance.beta is not None else None
        if self.balance.rebalancing is not None or self.balance.margin:
            supervision = Supervision.of(targets, self.ignore_index, mask=mask)
            check_inputs(z, supervision)
            y = supervision.weights(z.shape, torch.promote_types(z.dtype, torch.float32))[0]
            z = z - y * self.margins if self.balance.margin else z
            if self.balance.rebalancing is not None:
                weight = _rebalanced(y, self.rarity, self.balance.rebalancing)
        z = z + self.offset if self.balance.kappa else z
        return multilabel_loss(
            z if self.balance.scale == 1 else self.balance.scale * z,
            targets,
            self.formula,
            weight=weight,
            pos_weight=self.pos_weight,
            row_weight=row_weight,
            mask=mask,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            soft_targets=self.soft_targets,
            reduction=self.reduction,
            backend=self.backend,
        )

    def before(self, settled: Tensor) -> Tensor:
        """Returns the (..., L) logits that the counts turn into these, of negatives."""
        return settled / self.balance.scale - self.offset

    def reweight(self) -> None:
        """Switches on the weights by beta that are deferred: DRW calls this for the last part of training."""
        self.reweights = True

    def posterior(self, logits: Tensor) -> Tensor:
        self._check_closed()
        z = self.scores(logits).movedim(self.label_dim, -1) + self.offset
        return closed_form.posterior(self.formula, z, *self._trained_with).movedim(-1, self.label_dim)

    def decision_threshold(self, eta: float = 0.5) -> Tensor:
        self._check_closed()
        return super().decision_threshold(eta) - self.offset.double()

    def posterior_limits(self) -> tuple[Tensor, Tensor]:
        self._check_closed()
        return super().posterior_limits()

    def _check_closed(self) -> None:
        if self.balance.rebalancing is not None or self.balance.margin:
            raise ValueError(
                f"{self.balance} treats a label as the truth of its row says, so a score alone implies no posterior "
                "and no threshold: tune one on validation data"
            )

    def extra_repr(self) -> str:
        return super().extra_repr().replace(str(self.formula), str(self.balance), 1)


def _rebalanced(y: Tensor, rarity: Tensor, how: Rebalancing) -> Tensor:
    """Returns (..., L) weights of the entries of (..., L) targets; those of a row without a label are alpha + 1."""
    r = rarity / (y * rarity).sum(-1, keepdim=True)  # infinite there
    weights: Tensor = how.alpha + (how.steepness * (r - how.middle)).sigmoid()
    return weights
