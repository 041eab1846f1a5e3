"""Trains one model: what `lopsided fit` does, and `lopsided compare` for each loss and seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

from lopsided.data.storage import UserError, damaged, write_text
from lopsided.decision import choose
from lopsided.decision.choose import Decision
from lopsided.decision.names import is_tuned
from lopsided.jobs.card import model_card
from lopsided.jobs.config import FitConfig
from lopsided.jobs.folder import RunFolder
from lopsided.jobs.numbers import share
from lopsided.jobs.progress import Progress
from lopsided.jobs.rows import Prepared
from lopsided.jobs.schema import TrainingRecord
from lopsided.metrics.scores import Judged, Scores
from lopsided.models.methods import loss_of_scores, parse_method
from lopsided.models.model import Model
from lopsided.models.recipe import Recipe
from lopsided.training import processes
from lopsided.training.history import Epoch
from lopsided.training.loop import Listener, Trained, train
from lopsided.training.solve import solve_with_folds
from lopsided.training.validate import Validation

_UNJUDGED = 7  # penalties of a model that is solved without validation rows: the last is neither strong nor weak


@dataclass(frozen=True)
class TrainedRun:
    """Holds what a comparison needs of a run: its history, and its scores, None where training diverged."""

    loss: str  # as it was asked for
    seed: int
    method: str  # as it was trained
    history: list[Epoch]
    record: TrainingRecord
    tuning: Scores | None
    test: Scores | None


def recipe_of(config: FitConfig, prepared: Prepared) -> Recipe:
    """Returns how a run is trained."""
    data = prepared.train.data
    recipe = config.recipe(prepared.encoder.name, prepared.encoder.recipe(len(data), data.num_labels))
    if recipe.solved and recipe.l2 is None and prepared.valid is None and config.epochs is None:
        return replace(recipe, epochs=min(recipe.epochs, _UNJUDGED))
    return replace(recipe, epochs=1) if recipe.l2 is not None else recipe


def validation_of(config: FitConfig, prepared: Prepared) -> Validation | None:
    """Returns what training is judged by; None without validation rows."""
    if prepared.valid is None:
        return None
    metric = config.metric or ("map" if prepared.valid.keep is None else "p@1")
    return Validation(prepared.valid, metric, config.patience)


def fit(folder: RunFolder, prepared: Prepared, progress: Progress) -> TrainingRecord:
    """Trains the model of a run, from where an earlier call was stopped, and writes all files of the folder."""
    with folder.alone() if processes.is_first() else nullcontext():
        if processes.on_first(lambda: folder.is_trained):
            return folder.read_training()
        return _fit(folder, prepared, progress)


def _fit(folder: RunFolder, prepared: Prepared, progress: Progress) -> TrainingRecord:
    config, recipe = folder.config, recipe_of(folder.config, prepared)

    def on_epoch(history: list[Epoch]) -> None:
        folder.write_history(history)
        progress.epoch(history[-1], recipe.epochs)

    trained = train(
        prepared.encoder,
        config.loss,
        prepared.train,
        recipe,
        config.seed,
        validation=validation_of(config, prepared),
        state_file=folder.state_file,
        listener=Listener(progress.step, on_epoch),
    )
    return processes.on_first(lambda: _write(folder, trained, prepared, progress))


def fit_in_memory(config: FitConfig, prepared: Prepared, say: Callable[[str], object]) -> tuple[Model, Decision]:
    """Trains a model as `fit` does, and writes nothing; `say` is told what is worth a sentence.

    Raises UserError where training diverges.
    """
    recipe, validation = recipe_of(config, prepared), validation_of(config, prepared)
    trained = train(prepared.encoder, config.loss, prepared.train, recipe, config.seed, validation=validation)
    if trained.diverged:
        raise UserError(f"training with {config.loss} diverged: its loss is no longer finite")
    model, tuning = _final(config, trained, prepared)
    return model, decide(config, model, _judged(tuning, prepared), say)


def _write(folder: RunFolder, trained: Trained, prepared: Prepared, progress: Progress) -> TrainingRecord:
    folder.write_history(trained.history)
    record = _record(folder.config, trained, prepared)
    if not trained.diverged:
        began = time.perf_counter()
        model, tuning = _final(folder.config, trained, prepared)
        record = record.model_copy(update={"seconds": record.seconds + time.perf_counter() - began})
        folder.write_model(model)
        folder.write_seen_hashes(prepared.seen_hashes)
        if prepared.test is not None:
            folder.write_scores("test", model.score(prepared.test.encoded, prepared.test.keep))
        if tuning is not None:
            folder.write_scores("tuning", tuning)
        folder.write_decision(decide(folder.config, model, _judged(tuning, prepared), progress.say))
        card = model_card(folder, model, folder.read_decision(), record)
        write_text(folder.path / "README.md", card)
    folder.write_training(record)
    return record


def _record(config: FitConfig, trained: Trained, prepared: Prepared) -> TrainingRecord:
    refitted = bool(prepared.folds) and not trained.diverged
    assert prepared.tuning is not None or not refitted
    return TrainingRecord(
        method=str(parse_method(config.loss)),
        seed=config.seed,
        rows=len(prepared.tuning if refitted and prepared.tuning else prepared.train),
        epochs=sum(not epoch.is_lost for epoch in trained.history) + trained.diverged,
        best_epoch=trained.best_epoch,
        seconds=sum(epoch.seconds for epoch in trained.history),
        diverged=trained.diverged,
        refitted=refitted,
    )


def _final(config: FitConfig, trained: Trained, prepared: Prepared) -> tuple[Model, Scores | None]:
    """Returns the model, and the scores of the rows of tuning, if there are any.

    With folds it is solved once more, with the penalty that was chosen, on the rows of training and validation.
    """
    tuning, solved = prepared.tuning, recipe_of(config, prepared).solved
    dtype = config.dtype or ("bf16" if solved else "fp32")
    if tuning is not None and prepared.folds:
        l2 = trained.history[trained.best_epoch - 1].l2
        model, scores = solve_with_folds(prepared.encoder, config.loss, tuning, l2, config.seed, prepared.folds)
        return model.rounded(dtype), scores
    model = trained.model.rounded(dtype)
    return model, None if tuning is None else model.score(tuning.encoded, tuning.keep)


def _judged(tuning: Scores | None, prepared: Prepared) -> Judged | None:
    """Returns the scores of the rows of tuning with their truth, if there are any."""
    rows = prepared.tuning
    return None if tuning is None or rows is None else Judged.of(tuning, rows.data.hard_targets())


def decide(config: FitConfig, model: Model, judged: Judged | None, say: Callable[[str], object]) -> Decision:
    """Returns the rule that was asked for, tuned on the rows for it, if there are any."""
    loss, name = str(loss_of_scores(parse_method(config.loss))), config.decide
    if config.rule_from is not None:
        decision = RunFolder.open(config.rule_from).read_decision()
        return decision.at_least_one() if config.at_least_one else decision
    try:
        if judged is None:
            decision = choose.untuned(name, loss, model.labels_per_row)
        else:
            decision = choose.tuned(name or "per-label", judged, loss, model.labels_per_row)
    except ValueError as error:  # the model is trained, though no rule can be tuned
        say(f"the decision rule is not tuned: {error}")
        untuned = None if is_tuned(name) else name
        decision = choose.untuned(untuned, loss, model.labels_per_row)
    if (name or ("own" if judged is None else "")) == "own" and choose.saturates(loss):
        say(
            f"{config.loss} saturates: no logit stands for a probability of 0.5, so that its own threshold would "
            f"predict nothing; the rule is {decision.name} instead"
        )
    return decision.at_least_one() if config.at_least_one else decision


def read_run(folder: RunFolder, loss: str, prepared: Prepared) -> TrainedRun:
    """Returns what `fit` wrote."""
    record, history = read_epochs(folder)
    scores = [
        None if record.diverged or rows is None else folder.read_scores(name, len(rows))
        for name, rows in (("tuning", prepared.tuning), ("test", prepared.test))
    ]
    return TrainedRun(loss, record.seed, folder.config.loss, history, record, *scores)


def read_epochs(folder: RunFolder) -> tuple[TrainingRecord, list[Epoch]]:
    """Returns how a training ended, and its epochs. Raises UserError where one tells of more epochs than the other."""
    record, history = folder.read_training(), folder.read_history()
    trained = sum(not epoch.is_lost for epoch in history)
    if trained + record.diverged != record.epochs:
        problem = ValueError(f"{trained} epochs, but training.json tells of {record.epochs}")
        raise damaged(folder.path / "history.csv", problem, folder.repair)
    return record, history


def outcome(history: list[Epoch], record: TrainingRecord) -> str:
    """Says in a few words how a training ended, and how good the model is that it kept."""
    if record.diverged:
        return "diverged"
    title, value = history[record.best_epoch - 1].ranking
    return f"validation {title} {share(value)}"
