"""Callbacks for Lightning: what a loss does in training, and all metrics of validation and test rows."""

from __future__ import annotations

from typing import Any

import torch

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:
    try:
        from pytorch_lightning import Callback
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is missing: pip install 'lopsided[lightning]'", name=error.name
        ) from None

from lopsided.metrics.collection import MultiLabelMetrics
from lopsided.nn.adaptive import AdaptiveAsymmetricLoss
from lopsided.nn.functional import of_labels
from lopsided.nn.modules import MultiLabelLoss
from lopsided.nn.trackers import DiagnosticsTracker
from lopsided.targets import SparseTargets, labels_last

_ARGUMENTS = ("logits", "targets", "mask")


class _Watcher(Callback):  # type: ignore[misc]
    """Sees every call of the loss of a LightningModule, so that its steps need not hand on logits and targets.

    criterion: the name of the loss, such as "criterion" or "head.loss"; None for the one that the module has.
    """

    def __init__(self, criterion: str | None = None) -> None:
        self._name = criterion
        self._handle: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.teardown(trainer, pl_module, stage)
        self.criterion = self._find(pl_module)
        self._handle = self.criterion.register_forward_hook(self._called, with_kwargs=True)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self._handle is not None:
            self._handle.remove()

    def _find(self, pl_module: Any) -> MultiLabelLoss:
        named = {name: part for name, part in pl_module.named_modules() if isinstance(part, MultiLabelLoss)}
        found = [part for name, part in named.items() if self._name in (None, name)]
        if len(found) != 1:
            asked = "one loss of lopsided" if self._name is None else f"a loss of lopsided named {self._name!r}"
            raise ValueError(
                f"{type(pl_module).__name__} must have {asked}, got {', '.join(named) or 'none'}: set "
                f'self.criterion = lopsided.loss("asl") there, and name it here where there are more'
            )
        return found[0]

    def _called(self, module: Any, given: tuple[Any, ...], named: dict[str, Any], value: Any) -> None:
        self.see(
            **{
                name: each
                for name, each in (dict(zip(_ARGUMENTS, given, strict=False)) | named).items()
                if name in _ARGUMENTS
            }
        )

    def see(self, logits: Any, targets: Any, mask: Any = None) -> None:
        """Is told of what the loss was called with."""
        raise NotImplementedError


def _not_called(how: str) -> ValueError:
    return ValueError(f"the loss was not called {how} rows: call self.criterion(logits, targets) in their step")


class LossCallback(_Watcher):
    """Logs what a loss does in training: where its gradient goes, and gamma_neg where that is adaptive.

    The numbers of `lopsided.Diagnostics` are logged after every epoch, over all its batches, in the mean of the
    processes; gamma_neg and p+ - p- of a `lopsided.AdaptiveAsymmetricLoss` after every batch. That loss is a part of
    the LightningModule, whose checkpoints hold its state.

    criterion: the name of the loss in the LightningModule; None for the only one. Raises ValueError, when `fit` begins,
    where there is none, or more; and after an epoch in whose training the loss was not called with gradients.

    >>> callback = LossCallback()  # Trainer(callbacks=[callback])
    """

    def __init__(self, criterion: str | None = None) -> None:
        super().__init__(criterion)
        self._tracker: DiagnosticsTracker | None = None  # of an epoch, or of its rest after a checkpoint
        self._is_training = False  # false between batches, where validation may have gradients, too

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._tracker = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._is_training = True

    def see(self, logits: Any, targets: Any, mask: Any = None) -> None:
        if not (self._is_training and torch.is_grad_enabled() and logits.requires_grad):
            return
        z, y, known = self._labels_last(self.criterion.scores(logits.detach()), targets, mask)
        ignored, threshold = self.criterion.ignore_index, self.criterion.threshold_logit
        tracker = self._tracker = self._tracker or DiagnosticsTracker()

        def update(gradient: Any) -> None:
            slopes = labels_last(gradient, logits.ndim, self.criterion.label_dim)
            tracker.update(z, slopes if threshold is None else of_labels(slopes, threshold), y, known, ignored)

        logits.register_hook(update)

    def _labels_last(self, *given: Any) -> list[Any]:
        return [labels_last(each, given[0].ndim, self.criterion.label_dim) for each in given]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._is_training = False
        if isinstance(self.criterion, AdaptiveAsymmetricLoss):
            numbers = {"gamma_neg": self.criterion.gamma_neg, "probability_gap": self.criterion.tracker.gap}
            pl_module.log_dict(numbers)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._tracker is None:
            raise _not_called("with gradients on training")
        pl_module.log_dict(vars(self._tracker.result()), sync_dist=True)
        self._tracker = None


class MetricsCallback(_Watcher):
    """Logs all metrics of `lopsided.MultiLabelMetrics`, of validation rows as valid_map and so on, of test as test_map.

    The steps of validation and test must call the loss; what it was called with are the scores and the truth. Rows of
    all processes are taken together, and so are those of all loaders, where there are several.

    criterion: as in `LossCallback`. decide: the threshold or rule that decisions are counted by, such as
    0.0, a logit; when left out, the threshold that the loss implies, or 0 where it implies none. settings: more of
    `MultiLabelMetrics`.

    >>> callback = MetricsCallback(decide=0.5)  # Trainer(callbacks=[callback, ModelCheckpoint(monitor="valid_map")])
    """

    def __init__(self, criterion: str | None = None, *, decide: Any = None, **settings: Any) -> None:
        super().__init__(criterion)
        self._decide, self._settings = decide, settings
        self._metrics: MultiLabelMetrics | None = None
        self._collects = False

    def see(self, logits: Any, targets: Any, mask: Any = None) -> None:
        if not self._collects:
            return
        dim, ndim = self.criterion.label_dim, logits.ndim
        given = [labels_last(each, ndim, dim) for each in (self.criterion.scores(logits.detach()), targets, mask)]
        labels = given[0].shape[-1]
        scores, truth, known = (
            each if each is None or isinstance(each, SparseTargets) else each.reshape(-1, labels) for each in given
        )
        if self._metrics is None:
            decide = _implied_threshold(self.criterion) if self._decide is None else self._decide
            self._metrics = MultiLabelMetrics(labels, "logits", decide=decide, **self._settings)
        self._metrics.update(scores, truth, mask=known, ignore_index=self.criterion.ignore_index)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._metrics, self._collects = None, True

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._log(pl_module, "valid")

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._log(pl_module, "test")

    def _log(self, pl_module: Any, part: str) -> None:
        self._collects = False
        if self._metrics is None:
            raise _not_called(f"on {part}")
        metrics = self._metrics.gathered() if torch.distributed.is_initialized() else self._metrics
        pl_module.log_dict({f"{part}_{name}": value for name, value in metrics.compute().items()}, sync_dist=True)


def _implied_threshold(criterion: MultiLabelLoss) -> Any:
    """Returns the logits above which labels are predicted; None for a loss that only ranks them."""
    try:
        return criterion.decision_threshold()
    except ValueError:
        return None
