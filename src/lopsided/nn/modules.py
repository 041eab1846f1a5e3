"""The losses as modules: each stores a `Formula` and options, and calls `lopsided.nn.functional`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lopsided.losses import Formula, as_formula, catalog, closed_form, formula
from lopsided.losses.names import split_threshold
from lopsided.nn.functional import above_threshold, multilabel_loss
from lopsided.nn.options import DEFAULTS, complete_options, show_options
from lopsided.targets import SparseTargets, Supervision, labels_last
from lopsided.targets.checks import check_inputs, check_values

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lopsided.nn.options import Options


_SHOWN = ("ignore_index", "label_smoothing", "soft_targets", "label_dim", "threshold_logit")


class MultiLabelLoss(nn.Module):
    """A module around any loss. Call it with logits, targets and optionally a mask and row weights.

    Args:
        loss: a `Formula`, or its name with settings such as "asl(gamma_neg=2)".
        weight, pos_weight: (L,), kept as buffers.
        ignore_index, label_smoothing, soft_targets, label_dim, threshold_logit, reduction, backend, inplace: as in
            `lopsided.functional.multilabel_loss`, which `forward` calls.

    >>> import torch
    >>> criterion = MultiLabelLoss("asl(gamma_neg=2)", reduction="batchmean")
    >>> criterion(torch.zeros(4, 3), torch.tensor([[1, 0, 0]] * 4))
    tensor(0.9353)
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    @show_options
    def __init__(self, loss: Formula | str, **options: Unpack[Options]) -> None:
        super().__init__()
        settings = complete_options(options, type(self))
        self.formula = as_formula(loss)
        self.register_buffer("weight", settings["weight"])
        self.register_buffer("pos_weight", settings["pos_weight"])
        self.ignore_index = settings["ignore_index"]
        self.label_smoothing = settings["label_smoothing"]
        self.soft_targets = settings["soft_targets"]
        self.label_dim = settings["label_dim"]
        self.threshold_logit = settings["threshold_logit"]
        self.reduction = settings["reduction"]
        self.backend = settings["backend"]
        self.inplace = settings["inplace"]

    def forward(
        self,
        logits: Tensor,
        targets: Tensor | SparseTargets,
        mask: Tensor | None = None,
        *,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        weight, threshold = self._buffer("weight"), self.threshold_logit
        return self._evaluated(logits, targets, mask, row_weight, weight, self.label_dim, threshold)

    def _evaluated(
        self,
        logits: Tensor,
        targets: Tensor | SparseTargets,
        mask: Tensor | None,
        row_weight: Tensor | None,
        weight: Tensor | None,
        label_dim: int = -1,
        threshold_logit: int | None = None,
    ) -> Tensor:
        """Computes the loss of logits, laid out as is said, with this weight and the other options."""
        return multilabel_loss(
            logits,
            targets,
            self.formula,
            weight=weight,
            pos_weight=self._buffer("pos_weight"),
            row_weight=row_weight,
            mask=mask,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            soft_targets=self.soft_targets,
            label_dim=label_dim,
            threshold_logit=threshold_logit,
            reduction=self.reduction,
            backend=self._executor(logits),
            inplace=self.inplace,
        )

    def count(
        self, targets: Tensor | SparseTargets, mask: Tensor | None = None, *, num_labels: int | None = None
    ) -> Tensor:
        """Returns what `reduction="mean"` divides the sum of a batch by, before any logits are there.

        The sum of several batches, of the micro-batches of a step or of ranks, divided by the sum of their counts, is
        the mean over all of them, however many labels of each are known; the mean of their means is not.

        Args:
            targets, mask: as in `forward`.
            num_labels: L, where sparse targets do not hold it.

        Returns:
            An integer tensor of shape (), on the device of the targets: the known entries, or the rows with a known
            label for ZLPR, or the rows with a positive for losses that compare positives with negatives.

        Raises:
            ValueError: for losses that compare the rows of a batch; for targets as `forward` does.

        >>> import torch
        >>> criterion = MultiLabelLoss("asl", reduction="sum")
        >>> criterion.count(torch.tensor([[1, 0, torch.nan], [0, 0, 1]]))
        tensor(5)
        """
        if self.formula.pool.transposed:
            raise ValueError(
                f"{self.formula} compares the rows of a batch: its mean cannot be computed from parts of one"
            )
        ndim = targets.ndim if isinstance(targets, Tensor) else 2
        given, mask, weight = (labels_last(each, ndim, self.label_dim) for each in (targets, mask, self.weight))
        weights = {"weight": weight, "pos_weight": self.pos_weight, "label_smoothing": self.label_smoothing}
        supervision = Supervision.of(given, self.ignore_index, mask=mask, **weights)
        shape, device = supervision.shape(num_labels)
        logits = torch.zeros((), device=device).expand(shape)  # what checks are told of logits, without their memory
        check_inputs(logits, supervision)
        supervision = check_values(logits, supervision)
        return torch.as_tensor(supervision.number_of(self.formula.pool.counts, shape), device=device)

    def scores(self, logits: Tensor) -> Tensor:
        """Returns what labels are decided by: the logits, or with a `threshold_logit` what is above it.

        The label dimension then has L places, not L + 1, and 16-bit logits give float32.
        """
        if self.threshold_logit is None:
            return logits
        return above_threshold(logits.movedim(self.label_dim, -1), self.threshold_logit).movedim(-1, self.label_dim)

    def _executor(self, logits: Tensor) -> str:
        return self.backend

    def _buffer(self, name: str) -> Tensor | None:
        if name in self._buffers:  # an attribute of a module is looked for everywhere else first
            return self._buffers[name]
        value: Tensor | None = getattr(self, name)  # made a parameter since
        return value

    def posterior(self, logits: Tensor) -> Tensor:
        """Returns the label probabilities that logits of a model so trained stand for: float64, of their shape.

        With a `threshold_logit` that is the shape of `scores(logits)`.

        Raises ValueError for losses that couple the labels of a row.
        """
        z = self.scores(logits).movedim(self.label_dim, -1)
        return closed_form.posterior(self.formula, z, *self._trained_with).movedim(-1, self.label_dim)

    def decision_threshold(self, eta: float = 0.5) -> Tensor:
        """Returns the logits above which labels are predicted, float64: (L,) with a pos_weight, else of shape ().

        Compare tensors or arrays of numpy with it: `criterion.scores(logits) > criterion.decision_threshold()`. Where
        the loss saturates it is infinite, and a UserWarning says what to change; losses that only rank labels raise
        ValueError.
        """
        return closed_form.decision_threshold(self.formula, eta, *self._trained_with)

    def posterior_limits(self) -> tuple[Tensor, Tensor]:
        """Returns the smallest and the largest posterior of any logit, float64: each (L,) with a pos_weight."""
        return closed_form.posterior_limits(self.formula, *self._trained_with)

    @property
    def _trained_with(self) -> tuple[Tensor | float, float]:
        return 1.0 if self.pos_weight is None else self.pos_weight, self.label_smoothing

    def extra_repr(self) -> str:
        shown = [f"{key}={getattr(self, key)!r}" for key in _SHOWN if getattr(self, key) != DEFAULTS[key]]  # type: ignore[literal-required]
        return ", ".join([str(self.formula), *shown, f"reduction={self.reduction!r}"])


def loss(spec: str, **settings: object) -> MultiLabelLoss:
    """Returns the module for a loss by name: its hyperparameters and the options of every loss, all as keywords.

    Args:
        spec: a name such as "asl", or a name with settings such as "asl(gamma_neg=2)", or as the commands take it,
            "asl(threshold_logit=0)".
        settings: more hyperparameters of that loss, and options of `MultiLabelLoss`.

    >>> loss("asl", gamma_neg=2, reduction="sum")
    MultiLabelLoss(asl(gamma_neg=2, gamma_pos=0, clip=0.05, detach_focus=True), reduction='sum')
    """
    without, place = split_threshold(spec)
    if place is not None:
        if "threshold_logit" in settings:
            raise ValueError(f"threshold_logit is given twice: in {spec!r} and as a keyword")
        spec, settings = without, {**settings, "threshold_logit": place}
    options = {name: settings.pop(name) for name in DEFAULTS if name in settings}
    return MultiLabelLoss(formula(spec, **settings), **options)  # type: ignore[arg-type]


class BinaryCrossEntropyLoss(MultiLabelLoss):
    """-y log p - (1-y) log(1-p), p = sigmoid(logit): `torch.nn.BCEWithLogitsLoss`, with all options.

    >>> import torch
    >>> BinaryCrossEntropyLoss()(torch.zeros(2, 3), torch.ones(2, 3))  # log 2
    tensor(0.6931)
    """

    @show_options
    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(catalog.binary_cross_entropy(), **options)


class FocalLoss(MultiLabelLoss):
    """-alpha y (1-p)^g log p - (1-alpha) (1-y) p^g log(1-p).

    Args:
        gamma: focusing g >= 0; 0 is binary cross-entropy.
        alpha: weight of the positives in (0, 1); None leaves both sides at 1.
        detach_focus: stop the gradient at the focusing weights; the published loss does not.
        options: see `MultiLabelLoss`.

    >>> import torch
    >>> FocalLoss(gamma=2)(torch.zeros(1, 2), torch.tensor([[1, 0]]))  # log(2) / 4
    tensor(0.1733)

    Source: Lin et al. 2017, arXiv 1708.02002, eq. 5.
    """

    @show_options
    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = None,
        detach_focus: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(catalog.focal(gamma, alpha, detach_focus), **options)


class AsymmetricLoss(MultiLabelLoss):
    """ASL: -y (1-p)^g+ log p - (1-y) p_m^g- log(1-p_m), p_m = max(p - clip, 0).

    Args:
        gamma_neg: focusing of the negatives, >= 0.
        gamma_pos: focusing of the positives, >= 0; the official class defaults to 1, the paper uses 0.
        clip: probability margin in [0, 1) below which a negative costs nothing.
        detach_focus: stop the gradient at the focusing weights, as the official training script does.
        alpha: weight of the positives in (0, 1), 1 - alpha being that of the negatives; None for neither.
        options: see `MultiLabelLoss`; the official code always sums.

    Raises ValueError for settings out of range. Predict where logit > `criterion.decision_threshold()`: 1.379 with
    these defaults, not 0. The published variants by name: `lopsided.losses.PRESETS`.

    >>> import torch
    >>> AsymmetricLoss()(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]]))
    tensor(0.0729)

    Source: Ben-Baruch, Ridnik et al. 2020, arXiv 2009.14119. Deviations: no eps clamp (a positive at logit -50
    keeps its gradient), soft targets mix the two terms, the caller's grad mode is left alone.
    """

    @show_options
    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        detach_focus: bool = True,
        alpha: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(catalog.asymmetric(gamma_neg, gamma_pos, clip, detach_focus, alpha), **options)


class AsymmetricPolynomialLoss(MultiLabelLoss):
    """APL: ASL whose leading Taylor coefficients are re-weighted.

    Positives cost (1-p)^g+ (-log p - epsilon_pos (1-p) - epsilon_pos_pow/2 (1-p)^2), negatives
    p_m^g- (-log(1-p_m) - epsilon_neg (1-p_m)), p_m = max(p - clip, 0).

    Args:
        gamma_neg, gamma_pos, clip, detach_focus: as in `AsymmetricLoss`.
        epsilon_pos, epsilon_pos_pow: finite; the first two coefficients of -log p in powers of 1 - p become
            1 - epsilon_pos and (1 - epsilon_pos_pow)/2: 0 and 1.75 by default.
        epsilon_neg: finite; the first coefficient of -log(1-p_m) becomes 1 + epsilon_neg, and a constant
            -epsilon_neg is added, as in the official code.
        alphas, betas: instead of the epsilons, the leading coefficients themselves: of (1-p)^m for positives, of
            p_m^n for negatives. Those beyond the last stay 1/m and 1/n; no constant is added.
        monotone: refuse settings that push a label the wrong way.
        options: see `MultiLabelLoss`; the official code always sums.

    >>> import torch
    >>> logits, targets = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]])
    >>> AsymmetricPolynomialLoss()(logits, targets)
    tensor(0.0391)
    >>> AsymmetricPolynomialLoss(alphas=(0, 1.75))(logits, targets)
    tensor(0.0391)

    Source: Huang et al. 2023, arXiv 2304.05361, with the signs of its official code. Deviations as in
    `AsymmetricLoss`; in the official code the epsilons are fixed.
    """

    @show_options
    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        clip: float = 0.05,
        epsilon_pos: float = 1.0,
        epsilon_neg: float = 0.0,
        epsilon_pos_pow: float = -2.5,
        detach_focus: bool = True,
        alphas: Sequence[float] | None = None,
        betas: Sequence[float] | None = None,
        monotone: bool = True,
        **options: Unpack[Options],
    ) -> None:
        epsilons = (epsilon_pos, epsilon_neg, epsilon_pos_pow)
        loss = catalog.asymmetric_polynomial(
            gamma_neg, gamma_pos, clip, *epsilons, detach_focus, alphas, betas, monotone
        )
        super().__init__(loss, **options)


class ZLPRLoss(MultiLabelLoss):
    """ZLPR: log(1 + sum_neg e^z) + log(1 + sum_pos e^-z); a label is predicted where z > 0.

    Soft targets t: log(1 + sum t e^-z) + log(1 + sum (1-t) e^z), minimal at t = sigmoid(2z). Each half's gradient
    sums to less than 1 per row, whatever the number of labels. `reduction="mean"` divides by rows.

    Args:
        threshold: t, the logit that positives must exceed and negatives must not; the paper's is 0.
        scale, margin: s and m in log(1 + sum_neg e^(s(z-t+m))) + log(1 + sum_pos e^(-s(z-t-m))).
        options: see `MultiLabelLoss`.

    >>> import torch
    >>> ZLPRLoss()(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 0, 0]]))
    tensor(1.2311)

    Source: Su et al. 2022, arXiv 2208.02955. Deviation: unknown labels are given by a mask or NaN, not by logits
    of -infinity. With sparse targets positives are left out of the sum, not subtracted from it, so values are exact.
    """

    @show_options
    def __init__(
        self, threshold: float = 0.0, scale: float = 1.0, margin: float = 0.0, **options: Unpack[Options]
    ) -> None:
        super().__init__(catalog.zlpr(threshold, scale, margin), **options)
