"""For Hugging Face's transformers: loss, diagnostics and metrics for its Trainer, and a model that stores its rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

try:
    from transformers import TextClassificationPipeline, TrainerCallback, default_data_collator
    from transformers.trainer_callback import ExportableState
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error.name} is missing: pip install 'lopsided[transformers]'", name=error.name
    ) from None

from lopsided.decision import rules, serialization
from lopsided.decision.choose import Decision
from lopsided.losses.checks import did_you_mean
from lopsided.metrics.collection import MultiLabelMetrics
from lopsided.nn import modules
from lopsided.nn.adaptive import AdaptiveAsymmetricLoss
from lopsided.nn.functional import of_labels
from lopsided.nn.modules import MultiLabelLoss
from lopsided.nn.trackers import DiagnosticsTracker

UNKNOWN = -100  # what the Trainer does not count
_FIXED = {"reduction": "a sum that it divides by the Trainer's count", "ignore_index": f"{UNKNOWN}, as in the Trainer"}
_STORED = "lopsided_rule"  # of a model's config


class ComputeLoss:
    """What `loss` and `adaptive_loss` return: a function of (outputs, labels, num_items_in_batch).

    criterion: the module that it calls. tracker: what a `LossCallback` sets, and is told of every gradient.
    """

    def __init__(self, criterion: MultiLabelLoss) -> None:
        if criterion.formula.pool.counts == "positive rows":
            raise ValueError(
                f"{criterion.formula} divides by the rows with a positive, which the Trainer does not count: take a "
                "loss that judges labels alone, or zlpr"
            )
        self.criterion, self.tracker = criterion, DiagnosticsTracker()
        self.is_watched = False

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        if labels is None:
            raise ValueError('the batch has no labels: name their column "labels", (rows, L) of 0 and 1')
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        by_rows = self.criterion.formula.pool.counts == "rows"
        if not by_rows and labels.isnan().any():
            raise ValueError(
                f"the Trainer counts labels of NaN as known: mark unknown ones with {UNKNOWN}, "
                "as mark_unknown(collator) does"
            )
        value: Tensor = self.criterion.to(logits.device)(logits, labels)
        if self.is_watched and logits.requires_grad:
            self._watch(logits, labels)
        if num_items_in_batch is None:
            return value / self.criterion.count(labels).clamp_min(1)
        if not by_rows:
            return value / max(num_items_in_batch, 1)
        if (labels == UNKNOWN).any():
            raise ValueError(
                f"{self.criterion.formula} divides by rows, which the Trainer's count of labels tells if none is "
                f"{UNKNOWN}: mark unknown ones with NaN, as mark_unknown(collator, math.nan) does"
            )
        if labels.isnan().all(-1).any():
            raise ValueError(
                f"{self.criterion.formula} divides by the rows that have a known label, and the Trainer counts all: "
                "leave rows out of which nothing is known"
            )
        return value / max(num_items_in_batch / labels.shape[-1], 1)

    def _watch(self, logits: Tensor, labels: Tensor) -> None:
        seen, threshold = self.criterion.scores(logits.detach()), self.criterion.threshold_logit

        def update(gradient: Tensor) -> None:
            slopes = gradient if threshold is None else of_labels(gradient, threshold)
            self.tracker.update(seen, slopes, labels, ignore_index=UNKNOWN)

        logits.register_hook(update)


def loss(spec: str, **settings: Any) -> ComputeLoss:
    """Returns a loss by name for `Trainer(compute_loss_func=...)`: the mean over all batches of a step.

    The Trainer counts the labels of a step that are not -100, on all processes, and the loss divides by that. So labels
    must be 0, 1 or between, and -100 where they are unknown; the collator may make them float or integer, and that of
    `mark_unknown` puts -100 where they are NaN or -1. Of ZLPR and its kin, whose mean is over rows, unknown labels must
    be NaN: then the Trainer counts all, L in a row, which tells the rows.

    Args:
        spec: a name such as "asl", or a name with settings such as "asl(gamma_neg=2)".
        settings: more hyperparameters of that loss, and options of `lopsided.loss`, but for reduction and ignore_index.

    Returns a function of (outputs, labels, num_items_in_batch), which takes `outputs["logits"]`, or the first of a
    tuple. It raises ValueError where the Trainer's count is not what the mean divides by: for labels of NaN; for ZLPR
    and its kin for labels of -100, and for rows without a known label.

    Raises ValueError for losses that compare positives with negatives: their mean is over the rows with a positive,
    which the Trainer does not count.

    >>> compute_loss = loss("asl(gamma_neg=2)")
    >>> outputs = {"logits": torch.zeros(2, 3)}
    >>> compute_loss(outputs, torch.tensor([[1, 0, -100], [0, 0, 1]]), num_items_in_batch=5)
    tensor(0.3499)
    """
    return ComputeLoss(modules.loss(spec, **_free(settings), reduction="sum", ignore_index=UNKNOWN))


def adaptive_loss(**settings: Any) -> ComputeLoss:
    """Returns the same of a `lopsided.AdaptiveAsymmetricLoss`, whose gamma_neg moves with every batch of training.

    settings: those of that class, but for reduction and ignore_index. With a `LossCallback`, gamma_neg is logged, and
    goes on from a checkpoint; without one, it begins anew there.

    >>> adaptive_loss(target=0.1, step=0.05).criterion.gamma_neg
    4.0
    """
    return ComputeLoss(AdaptiveAsymmetricLoss(**_free(settings), reduction="sum", ignore_index=UNKNOWN))


def _instead(given: Any) -> str:
    return (
        f'expected what lopsided.integrations.transformers.loss("asl") returns, got {type(given).__name__}: the '
        "first is called with (outputs, labels, num_items_in_batch), the other with (logits, targets)"
    )


def _free(settings: dict[str, Any]) -> dict[str, Any]:
    for name in _FIXED.keys() & settings:
        raise ValueError(f"{name} cannot be set: here it is {_FIXED[name]}")
    return settings


def mark_unknown(
    collator: Callable[[list[Any]], Any] | None = None, mark: float = UNKNOWN
) -> Callable[[list[Any]], Any]:
    """Returns a data collator that puts -100, which the Trainer does not count, where labels are NaN or -1.

    collator: the one that makes batches; `default_data_collator` of transformers when left out, which pads nothing.
    Texts of different lengths need `DataCollatorWithPadding(tokenizer)`, which the Trainer takes by itself where it is
    given a processing_class. Batches without labels, as of `Trainer.predict`, stay as they are. mark: what to put
    there; NaN for losses whose mean is over rows, such as zlpr, for which labels of -100 become NaN as well.

    >>> mark_unknown()([{"labels": [1.0, float("nan"), 0.0]}, {"labels": [-1.0, 0.0, 1.0]}])["labels"]
    tensor([[   1., -100.,    0.],
            [-100.,    0.,    1.]])
    """

    def collate(rows: list[Any]) -> Any:
        batch = (collator or default_data_collator)(rows)
        if "labels" in batch:
            labels = batch["labels"]
            unknown = labels.isnan() | (labels == -1) | (labels == UNKNOWN)
            batch["labels"] = (labels.float() if math.isnan(mark) else labels).masked_fill(unknown, mark)
        return batch

    return collate


class LossCallback(TrainerCallback, ExportableState):
    """Logs what a loss does: where its gradient goes, see `lopsided.Diagnostics`, and gamma_neg where that is adaptive.

    The numbers are of all batches since the last log, on the first process, and stand beside the loss in
    `trainer.state.log_history` and in what is printed; reporters such as TensorBoard are told before any callback of
    yours. Checkpoints hold the state of an adaptive loss, and `resume_from_checkpoint` goes on from it.

    compute_loss: what `Trainer(compute_loss_func=...)` was given.

    >>> compute_loss = adaptive_loss(target=0.1)
    >>> callback = LossCallback(compute_loss)  # Trainer(..., compute_loss_func=compute_loss, callbacks=[callback])
    """

    def __init__(self, compute_loss: ComputeLoss | None = None) -> None:
        if compute_loss is None:  # as the Trainer makes it anew
            raise ValueError("it restores itself: leave restore_callback_states_from_checkpoint at False")
        if not isinstance(compute_loss, ComputeLoss):
            raise TypeError(_instead(compute_loss))
        self._loss, compute_loss.is_watched = compute_loss, True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._loss.tracker = DiagnosticsTracker()
        stored = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes", {})
        for name, module in self._stateful() if stored else []:  # none of a loss that was not adaptive yet
            module.set_extra_state(torch.tensor(stored[name], dtype=torch.float64))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        numbers = vars(self._loss.tracker.result()).copy()
        criterion = self._loss.criterion
        if isinstance(criterion, AdaptiveAsymmetricLoss):
            numbers |= {"gamma_neg": criterion.gamma_neg, "probability_gap": criterion.tracker.gap}
        self._loss.tracker = DiagnosticsTracker()
        logs.update(numbers)
        state.log_history[-1].update(numbers)

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint holds."""
        return {
            "args": {},
            "attributes": {name: module.get_extra_state().tolist() for name, module in self._stateful()},
        }

    def _stateful(self) -> list[tuple[str, Any]]:
        criterion = self._loss.criterion
        adaptive = isinstance(criterion, AdaptiveAsymmetricLoss)
        return [("criterion", criterion), ("tracker", criterion.tracker)] if adaptive else []


def metrics(decide: Any = None, only: Sequence[str] = (), **settings: Any) -> Callable[..., dict[str, float]]:
    """Returns a function for `Trainer(compute_metrics=...)`: the metrics of `lopsided.MultiLabelMetrics`, of logits.

    decide: the threshold or rule that decisions are counted by, or what `loss` returned, for the threshold that it
    implies, which is not 0 for most; a logit of 0 when left out. only: the names of some metrics, such as
    ("map", "micro_f1"); all, some sixty, when left out. settings: more of `MultiLabelMetrics`.
    Raises ValueError for a metric of another name, and for a loss that implies no threshold.
    Labels of -100 are unknown. With `TrainingArguments(batch_eval_metrics=True)` batches are added up one by one;
    after an evaluation that was interrupted, make a new function.

    >>> import numpy as np
    >>> logits, labels = np.array([[2.0, -1.0], [-1.0, 3.0]]), np.array([[1, 0], [0, 1]])
    >>> metrics()((logits, labels))["map"]
    1.0
    """
    by = decide.criterion if isinstance(decide, ComputeLoss) else decide
    if hasattr(by, "decision_threshold"):
        by.decision_threshold()  # is refused here where there is none, and not after an epoch
    collected: list[MultiLabelMetrics] = []

    def compute(evaluated: Any, compute_result: bool = True) -> dict[str, float]:
        logits, labels = evaluated
        logits = logits[0] if isinstance(logits, tuple) else logits
        if not collected:
            collected.append(MultiLabelMetrics(logits.shape[-1], "logits", decide=by, **settings))
        collected[0].update(logits, labels, ignore_index=UNKNOWN)
        if not compute_result:
            return {}
        values = collected.pop().compute()
        for name in only:
            if name not in values:
                raise ValueError(f"no metric {name!r}{did_you_mean(name, values)} (known: {', '.join(values)})")
        return {name: values[name] for name in only or values}

    return compute


def store_rule(model: Any, rule: Any) -> None:
    """Stores a rule in the config of a model, so that `save_pretrained` writes it and `from_pretrained` reads it.

    rule: one of `lopsided.decision.rules`, or a `lopsided.decision.choose.Decision`, which tells probabilities too.
    """
    tensors, header = serialization.to_tensors(rule)
    parts = {name: [str(each.dtype).removeprefix("torch."), each.tolist()] for name, each in tensors.items()}
    setattr(model.config, _STORED, {"header": header, "tensors": parts})


def stored_rule(model: Any) -> Any:
    """Returns the rule that `store_rule` stored. Raises ValueError for a model without one, or with a damaged one."""
    stored = getattr(model.config, _STORED, None)
    if stored is None:
        raise ValueError("the model stores no rule: call store_rule(model, rule) before save_pretrained")
    try:
        tensors = {name: torch.tensor(of, dtype=getattr(torch, kind)) for name, (kind, of) in stored["tensors"].items()}
        return serialization.from_tensors(tensors, stored["header"], (Decision, *rules.KINDS))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"the stored rule is damaged: {type(error).__name__} {error}") from None


class DecisionPipeline(TextClassificationPipeline):
    """Gives for each text the labels that the rule of the model decides for, highest score first.

    A list of {"label": ..., "score": ...} a text, empty where nothing is decided for. The score is a probability where
    `store_rule` was given a `Decision` with a calibrator; else the logit. Raises ValueError where the model stores no
    rule. Use it as `pipeline("text-classification", model, tokenizer=..., pipeline_class=DecisionPipeline)`.
    """

    def postprocess(self, model_outputs: Any, *args: Any, **settings: Any) -> list[dict[str, Any]]:
        stored, logits = stored_rule(self.model), model_outputs["logits"].float().cpu()
        rule, calibrator = (stored.rule, stored.calibrator) if isinstance(stored, Decision) else (stored, None)
        values = (logits if calibrator is None else calibrator(logits))[0]
        chosen = rule.decide(logits)[0].nonzero()[:, 0].tolist()
        names: Any = self.model.config.id2label
        best = sorted(chosen, key=lambda label: -float(values[label]))
        return [{"label": names[label], "score": float(values[label])} for label in best]
