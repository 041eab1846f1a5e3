"""Writes what a paper needs to say about a comparison, from its results alone."""

from __future__ import annotations

from lopsided.jobs.compared_metrics import METRICS
from lopsided.jobs.evidence import LINEAR
from lopsided.jobs.numbers import settings_in_words
from lopsided.jobs.schema import Results
from lopsided.report.headline import listed
from lopsided.report.thresholds import has_thresholds


def methods(results: Results) -> str:
    """Returns a paragraph that says how the losses were trained, decided and compared."""
    return " ".join([*_training(results), *_measuring(results)])


def _training(results: Results) -> list[str]:
    data, recipe = results.data, results.recipe
    names = listed([entry.settings for entry in results.losses.values()])
    parts = {"training": data.rows.train, "validation": data.rows.valid, "test": data.rows.test}
    rows = [f"{number} {part}" for part, number in parts.items() if number is not None]
    sentences = [f"We compared {names} on {data.name} ({data.labels} labels; {listed(rows)} rows)."]
    seeds = f"{results.seeds} seed{'s' * (results.seeds > 1)}"
    if recipe is None:
        return [*sentences, f"We scored models of {seeds} of each, trained elsewhere."]
    if results.is_solved:
        penalties = [f"{loss} {entry.l2:.3g}" for loss, entry in results.losses.items() if entry.l2 is not None]
        how = f"minimised over linear models with a penalty chosen on the validation rows: {listed(penalties)}"
        if any(entry.refitted for entry in results.losses.values()):
            how += "; then, with that penalty, once more on training and validation rows together"
    else:
        how = (
            f"trained with {seeds} by {recipe.optimizer} in batches of {recipe.batch_size} for at most {recipe.epochs} "
            f"epochs; the epoch with the best validation {METRICS[results.metric].title} was scored"
        )
    sentences.append(f"Each loss was {how}.")
    chosen: dict[str, list[str]] = {}
    for loss, entry in results.losses.items():
        if entry.tuned_settings:
            chosen.setdefault(settings_in_words(entry.tuned_settings), []).append(loss)
    if chosen:
        told = "; ".join(f"{said} for {listed(losses)}" for said, losses in chosen.items())
        sentences.append(f"Chosen on the validation rows, with equal compute for all: {told}.")
    elif not results.is_solved:
        sentences.append(f"All losses had the learning rate {recipe.learning_rate:g}.")
    return sentences


def _variance(results: Results) -> str:
    paired = f"Differences to {results.reference} are paired over"
    if results.resplit:
        return (
            f"{paired} {results.seeds} random splits of the rows; their variance is that over splits, pooled over the "
            "losses, with the correction of Nadeau and Bengio (2003) for rows that splits share"
        )
    if results.seeds == 1:
        return f"{paired} test rows, and their variance is that of 200 bootstrap samples of the rows"
    return (
        f"{paired} seeds and test rows; their variance is that over seeds, pooled over the losses, plus what 200 "
        "bootstrap samples of the test rows have in common for all seeds"
    )


def _measuring(results: Results) -> list[str]:
    sentences, compared = [], len(results.comparisons)
    corrected = f", p-values are corrected by Holm's method for {compared} comparisons" * (compared > 1)
    if has_thresholds(results):
        sentences.append(
            f"Thresholds were tuned on {results.tuned_on}: one for all labels, for micro-F1, and one a label, for F1, "
            "shrunk towards the common one where a label is rare."
        )
    sentences += [
        "Macro-F1 is the mean of the F1 of labels that have test rows (Opitz and Burst, arXiv 1911.03347).",
        f"{_variance(results)}; intervals are Student's at 95 %{corrected}.",
    ]
    if LINEAR in results.baselines:
        sentences.append(f"The linear baseline is {results.baselines[LINEAR].settings}.")
    return [*sentences, f"Computed by lopsided {results.lopsided}."]
