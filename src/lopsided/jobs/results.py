"""Makes results.json from scored models: the tables, the comparisons, and notes on how to read them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median_low

import torch

import lopsided
from lopsided.data.dataset import Splits
from lopsided.data.independence import together
from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.evidence import Baseline, Evidence, Scores, Training
from lopsided.jobs.fit import TrainedRun
from lopsided.jobs.groups import label_groups
from lopsided.jobs.numbers import share
from lopsided.jobs.progress import Progress
from lopsided.jobs.schema import (
    BaselineResult,
    DataSummary,
    Interval,
    LabelTests,
    LossResult,
    Results,
    SplitSizes,
)
from lopsided.jobs.score import Scored, evaluate
from lopsided.jobs.tune import Candidate
from lopsided.jobs.tuning import tuned_on
from lopsided.jobs.verdict import decide, is_overfitting, is_rising
from lopsided.metrics.significance import interval_over_seeds
from lopsided.models.heads import own_threshold
from lopsided.models.methods import parse_method
from lopsided.models.recipe import Recipe

FEW = 5  # test positives: a label with fewer says little


def summarize(evidence: Evidence, progress: Progress) -> Results:
    """Returns metrics of each loss over seeds, of the baselines, and the comparisons."""
    verdicts, tested = decide(evidence, progress), evidence.positives["test"]
    return Results(
        lopsided=lopsided.__version__,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        data=evidence.data,
        recipe=evidence.recipe,
        seeds=evidence.seeds,
        resplit=evidence.resplit is not None,
        budget=evidence.budget,
        metric=evidence.metric,
        reference=evidence.reference,
        losses={loss: _loss_result(loss, evidence) for loss in evidence.scored},
        baselines={
            name: BaselineResult(
                settings=each.settings,
                seconds=each.seconds,
                metrics={metric: each.mean(metric) for metric in METRICS},
            )
            for name, each in evidence.baselines.items()
        },
        **verdicts._asdict(),
        groups=label_groups(evidence),
        tested=LabelTests(with_positives=int((tested > 0).sum()), few=int(((tested > 0) & (tested < FEW)).sum())),
        tuned_on=evidence.tuned_on,
        seen=evidence.seen,
        notes=_notes(evidence),
    )


@dataclass(frozen=True)
class Round:
    """Holds what was trained with one seed, and the rows that it is judged by.

    beside: baselines on these rows, and sentences about those that are left out.
    """

    splits: Splits
    runs: Sequence[TrainedRun]
    beside: tuple[Mapping[str, Baseline], Sequence[str]]


def evidence_of(
    config: CompareConfig,
    chosen: Mapping[str, Candidate],
    recipe: Recipe,
    rounds: Sequence[Round],
    told: Sequence[str] = (),
) -> Evidence:
    """Joins the runs of a comparison with the truth.

    chosen: what was trained for each loss. told: sentences about how long.
    """
    splits, (_, left_out) = rounds[0].splits, rounds[0].beside
    assert splits.test is not None
    sets = together(splits.test).unique(return_inverse=True)[1]
    runs = [run for each in rounds for run in each.runs]
    of_rounds = [_score_runs(each) for each in rounds]
    scored = {loss: [found[loss] for found in of_rounds] for loss in config.losses}
    in_steps = not recipe.solved  # more epochs of a model that is solved are weaker penalties
    of_loss = {loss: [run for run in runs if run.loss == loss] for loss in config.losses}
    trained = {
        loss: Training(
            method=parse_method(chosen[loss].spec),
            tuned_settings=(chosen[loss].tuned() or None) if config.searches else None,
            seconds=sum(run.record.seconds for run in group) / len(group),
            best_epochs=tuple(run.record.best_epoch for run in group),
            l2=median_low(run.history[run.record.best_epoch - 1].l2 for run in group),
            refitted=group[0].record.refitted,
            rising=in_steps and is_rising([run.history for run in group], recipe.epochs),
            overfitting=in_steps and is_overfitting([run.history for run in group]),
        )
        for loss, group in of_loss.items()
    }
    return Evidence(
        data=_describe(config, splits),
        test=splits.test,
        positives={name: part.hard_counts() for name, part in splits.parts().items()},
        metric=config.metric,
        reference=config.compared_with,
        scored=scored,
        trained=trained,
        baselines=_joined([each.beside[0] for each in (rounds if config.resplit else rounds[:1])]),
        bins=config.edges,
        recipe=recipe,
        sets=None if config.resplit or len(sets.unique()) == len(sets) else sets,
        resplit=len(splits.test) / runs[0].record.rows if config.resplit else None,
        resampling_seed=config.data_seed,
        notes=(*told, *_notes_on_training(config, chosen, splits, scored, trained, recipe), *left_out),
        budget=config.budget,
        tuned_on=tuned_on(splits),
        seen=splits.seen,
    )


def _score_runs(round_: Round) -> dict[str, Scored]:
    """Joins the scores of each loss with the truth."""
    splits = round_.splits
    assert splits.tuning is not None
    assert splits.test is not None
    test, tuning = splits.test.hard_targets(), splits.tuning.hard_targets()
    return {
        run.loss: Scored(run.test, test, run.tuning, tuning, own_threshold(parse_method(run.method)))
        for run in round_.runs
    }


def _joined(found: Sequence[Mapping[str, Baseline]]) -> dict[str, Baseline]:
    """Joins the baselines of each split, where all splits have them."""
    joined = {}
    for name in found[0]:
        each = [beside[name] for beside in found if name in beside]
        if len(each) == len(found):
            scored = tuple(one for baseline in each for one in baseline.scored)
            joined[name] = Baseline(each[0].settings, scored, sum(one.seconds for one in each) / len(each))
    return joined


def _loss_result(loss: str, evidence: Evidence) -> LossResult:
    training, scored = evidence.trained[loss], evidence.scored[loss]
    values = {name: [evaluate(name, one) for one in scored] for name in METRICS}
    intervals = {name: interval_over_seeds(each, evidence.resplit or 0.0) for name, each in values.items()}
    return LossResult(
        settings=loss if training.method is None else str(training.method),
        tuned_settings=training.tuned_settings,
        own_threshold=scored[0].own,
        tuned_thresholds=[one.tuned for one in scored],
        seconds=training.seconds,
        l2=training.l2,
        refitted=training.refitted,
        best_epochs=list(training.best_epochs),
        metrics={name: Interval(**asdict(interval)) for name, interval in intervals.items()},
        rising=training.rising,
        overfitting=training.overfitting,
    )


def _describe(config: CompareConfig, splits: Splits) -> DataSummary:
    return DataSummary(
        name=config.name,
        rows=SplitSizes(**splits.sizes()),
        labels=splits.train.num_labels,
        positives_per_row=float(splits.train.label_counts().sum() / len(splits.train)),
        missing=config.missing,
    )


def _notes(evidence: Evidence) -> list[str]:
    """Returns what a reader must know to read the tables correctly."""
    notes = [_on_seeds(evidence)]
    if evidence.sets is not None:
        drawn = int(evidence.sets.max()) + 1
        notes.append(f"The test rows are {drawn} sets of copies, or of one group: the bootstrap draws sets, not rows.")
    lost = {loss: sum(one.diverged for one in group) for loss, group in evidence.scored.items()}
    advice = "choose another loss" if evidence.is_solved else "lower the learning rate"
    notes += [
        f"{loss} diverged in {number} of {evidence.seeds} trainings; {advice}."
        for loss, number in lost.items()
        if number
    ]
    saturated = [loss for loss, group in evidence.scored.items() if group[0].own == math.inf]
    if saturated:
        notes.append(
            f"No logit stands for a probability of 0.5 under {', '.join(saturated)}, which saturates: its own "
            "threshold would predict nothing, so the tuned one stands in its place."
        )
    return [*notes, *_on_positives(evidence), *evidence.notes]


def _on_positives(evidence: Evidence) -> Iterator[str]:
    """Yields which labels cannot be learned or tested, or hardly."""
    where = "" if evidence.resplit is None else " on the first split"
    titles = {"train": "training", "valid": "validation", "test": "test"}
    counts = {titles[name]: int((each == 0).sum()) for name, each in evidence.positives.items()}
    empty = [f"{count} in the {title} rows" for title, count in counts.items() if count]
    if empty:
        yield (
            f"Labels without a positive{where}, of {len(evidence.positives['test'])}: {', '.join(empty)}. mAP, AUROC "
            "and macro-F1 of those rows leave them out."
        )
    tested, rows = evidence.positives["test"], len(evidence.test)
    if everywhere := int((tested == rows).sum()):
        have = "labels are" if everywhere > 1 else "label is"
        yield f"{everywhere} {have} true of all test rows{where}, where no ranking can be wrong."
    if few := int(((tested > 0) & (tested < FEW)).sum()):
        percent = 100 * few / int((tested > 0).sum())
        have = "labels have" if few > 1 else "label has"
        yield (
            f"{few} {have} fewer than {FEW} test positives{where}, which say little: "
            f"{percent:.0f} % of the labels of mAP, AUROC and macro-F1."
        )


def _on_seeds(evidence: Evidence) -> str:
    seeds, drawn = evidence.seeds, f"{len(evidence.test)} test rows"
    repeated = "seeds" if evidence.resplit is None else "splits"
    few = f" Two {repeated} say little about their spread: take three or more." if seeds == 2 else ""
    if evidence.resplit is not None:
        varied = "the rows alone vary" if evidence.is_solved else "rows, order and initial weights vary together"
        return (
            f"{seeds} splits: {varied}, and differences are paired over splits. "
            f"As splits share rows, {share(evidence.resplit, 2)}, test rows per training row, is added to 1/{seeds} in "
            f"their variance (Nadeau & Bengio 2003). Labels, rows and curves are those of the first split.{few}"
        )
    if evidence.is_solved:
        return f"A solved model is alike with every seed: the uncertainty is that of the {drawn}, by bootstrap."
    if seeds == 1:
        return "One seed: differences hold for these trained models; how they vary over seeds is unknown."
    return (
        f"{seeds} seeds: differences combine their spread, pooled over the losses, with a paired bootstrap "
        f"of the {drawn}.{few}"
    )


def _notes_on_training(
    config: CompareConfig,
    chosen: Mapping[str, Candidate],
    splits: Splits,
    scored: Scores,
    trained: Mapping[str, Training],
    recipe: Recipe,
) -> list[str]:
    """Returns what is to be said of how `lopsided compare` trained."""
    notes = []
    overfitting = [loss for loss, one in trained.items() if one.overfitting]
    if overfitting:
        notes.append(
            f"Overfitting: validation mAP of {', '.join(overfitting)} had fallen well below its best when training "
            "stopped. The best epoch is scored."
        )
    if not recipe.solved:
        diverged = {loss for loss, group in scored.items() if any(one.diverged for one in group)}
        notes += _on_speed({loss: one.best_epochs for loss, one in trained.items() if loss not in diverged}, config)
    notes += [_on_search(config, chosen, recipe), f"Thresholds are tuned on {tuned_on(splits)}."]
    if any(one.refitted for one in trained.values()):
        notes.append("With the penalty that was chosen, each loss was solved once more on validation rows as well.")
    return notes + [f"{note}." for note in splits.notes if "also stand in" in note]


def _on_speed(best: Mapping[str, Sequence[int]], config: CompareConfig) -> list[str]:
    """Says which losses reached their best epoch in half the epochs of the reference or fewer, with every seed."""
    reference = config.compared_with
    slow = best.get(reference, ())
    fast = [loss for loss, each in best.items() if slow and all(2 * e <= r for e, r in zip(each, slow, strict=True))]
    if not fast:
        return []
    told = ", ".join(f"{loss} after {_from_to(best[loss])}" for loss in fast)
    rates = "" if config.learning_rate is not None else ", each at its own rate"
    half = f"Converged in half the epochs of {reference} or fewer, with every seed"
    return [f"{half}: {told}; {reference} after {_from_to(slow)}{rates}."]


def _from_to(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _on_search(config: CompareConfig, chosen: Mapping[str, Candidate], recipe: Recipe) -> str:
    metric, first = METRICS[config.metric].title, " on the first split" * config.resplit
    parts = []
    if recipe.solved:
        anew = ", chosen anew on each split: the median is named" * config.resplit
        parts.append(f"Models are solved: no rate, and one ladder of penalties for every loss{anew}")
    elif config.learning_rate is None:
        parts.append(f"Each loss has its own learning rate, the best of the same ladder for all{first}")
    else:
        parts.append(f"All losses have the learning rate {config.learning_rate:g}, which may favour one of them")
    if config.tune is not None:
        parts.append(f"{config.tune} trials of each loss chose its settings{first}")
    if config.searches and any(candidate.tuned() for candidate in chosen.values()):
        by_choice: dict[str, list[str]] = {}
        for loss, candidate in chosen.items():
            by_choice.setdefault(candidate.shown(), []).append(loss)
        shown = "; ".join(f"{', '.join(losses)}: {choice}" for choice, losses in by_choice.items())
        parts.append(f"Chosen by validation {metric}, as trials.csv has it: {shown}")
    return ". ".join(parts) + "."
