"""Runs `lopsided inspect --missing`: which labels look forgotten, by models that did not see the row.

missing.csv       the suspects (missing-NAME.csv of another file than the run's own)
missing/KEY/      the scores of each fold, so that an inspection that was stopped goes on
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress as Bars

from lopsided.data import BUILT_IN
from lopsided.data.dataset import Dataset, Splits
from lopsided.data.excerpts import printable
from lopsided.data.split import split_rows
from lopsided.data.storage import UserError, intact, read_tensors, write_csv, write_tensors
from lopsided.decision.suspects import Suspects, rank_suspects
from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.config import FitConfig, fingerprint
from lopsided.jobs.fit import recipe_of
from lopsided.jobs.folder import ComparisonFolder, RunFolder
from lopsided.jobs.rows import load, prepare
from lopsided.jobs.stored_scores import scores_in, tensors_of
from lopsided.losses import Formula
from lopsided.losses.closed_form import discarding_point
from lopsided.metrics.scores import Judged, Scores
from lopsided.models.methods import loss_of_scores, parse_method
from lopsided.training.loop import train
from lopsided.training.rows import scores_to_keep

_COLUMNS = ("row", "label", "score", "probability", "discarded", "text")


@dataclass(frozen=True)
class Inspection:
    """Holds the suspects with their names, and where they were written."""

    suspects: Suspects
    labels: list[str]  # the name of each one's label
    texts: list[str]  # an excerpt of each one's row; "" where rows are not texts
    loss: str
    discarded_above: float  # a logit, see `discarding_point`
    written: Path


def inspect_missing(
    folder: RunFolder | ComparisonFolder, data: Path | None, loss: str | None, folds: int, top: int, bars: Bars
) -> Inspection:
    """Scores each fold by a model trained on the other folds, ranks the negatives, and writes the CSV file.

    data: a file in the place of the run's training file. All rows of the file are looked at, also those that the run
    held out for validation or test; of built-in images, those of training. Where all scores are too many, the labels
    with the highest scores of each row are ranked.
    """
    loss = loss or _default_loss(folder.config)
    changes = folder.as_trained(loss) if isinstance(folder, ComparisonFolder) else {"loss": loss}
    above = _discarded_above(str(changes["loss"]))
    config = _on(folder.config, data, changes)
    rows = load(config, bars).train
    if not 2 <= folds <= len(rows):
        raise UserError(f"--folds: must lie between 2 and the {len(rows)} rows, got {folds}")
    scores = _out_of_fold(_cache(folder.path, config, folds), rows, config, folds, bars)
    suspects = rank_suspects(Judged.of(scores, rows.hard_targets()), above, top)
    path = folder.result_of("missing", data, ".csv") if data else folder.path / "missing.csv"
    names = [printable(rows.label_names[label]) for label in suspects.label.tolist()]
    excerpts = [rows.inputs.excerpt(row) for row in suspects.row.tolist()]
    texts = [printable(each) if isinstance(each, str) else "" for each in excerpts]
    inspection = Inspection(suspects, names, texts, str(changes["loss"]), above, path)
    write_csv(path, _COLUMNS, lines(inspection))
    return inspection


def _discarded_above(loss: str) -> float:
    try:
        of_scores = loss_of_scores(parse_method(loss))
    except (TypeError, ValueError) as error:
        raise UserError(f"--loss: {error}") from None
    return discarding_point(of_scores) if isinstance(of_scores, Formula) else math.inf


def _default_loss(config: CompareConfig | FitConfig) -> str:
    """Returns the loss of the run; of several, the first that discards suspects, or the reference."""
    if isinstance(config, FitConfig):
        return config.loss
    discarding = (loss for loss in config.losses if math.isfinite(_discarded_above(loss)))
    return next(discarding, config.compared_with)


def _on(config: CompareConfig | FitConfig, data: Path | None, changes: dict[str, Any]) -> FitConfig:
    """Returns the settings of a training on all rows of a file, without other files and rules tuned on them."""
    if data is not None and config.data == BUILT_IN:
        raise UserError(f"a run on {BUILT_IN} has no other rows to look at; leave out {data}")
    if isinstance(config, CompareConfig):
        config = config.of_run(config.losses[0], 0, {})
    files = {} if config.data == BUILT_IN else {"valid": "0", "test": "0"}
    return config.changed(files | {"decide": None} | changes | ({} if data is None else {"data": str(data)}))


def _cache(run: Path, config: FitConfig, folds: int) -> Path:
    """Returns a folder whose name depends on everything that the scores depend on."""
    asked = [config.model_dump(mode="json"), fingerprint(config), folds]
    return run / "missing" / hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def _out_of_fold(cache: Path, rows: Dataset, config: FitConfig, folds: int, bars: Bars) -> Scores:
    """Returns the scores of all rows, each by a model that did not see it; folds that were scored before are read."""
    parts = split_rows(rows, [1 / folds] * folds, config.data_seed)
    keep = scores_to_keep(len(rows), rows.num_labels)
    scored: list[Scores] = []
    for number, part in enumerate(parts):
        path = cache / f"fold-{number}.safetensors"
        if not path.exists():
            rest = torch.cat([other for other in parts if other is not part]).sort().values
            live = bars.add_task(f"{config.loss}, fold {number + 1} of {folds}", total=None)
            state = path.with_suffix(".state")
            scores = score_part(config, rows.take(rest), rows.take(part), keep, state)
            bars.remove_task(live)
            write_tensors(path, tensors_of(scores))
            state.unlink(missing_ok=True)
            bars.console.print(f"fold {number + 1} of {folds}: {len(part)} rows scored", highlight=False)
        with intact(path, "delete it to train that fold again"):
            scored.append(scores_in(read_tensors(path)[0], len(part), rows.num_labels))
            if (scored[-1].columns is None) != (keep is None):
                raise ValueError("scores of candidates, or of all labels, are expected of all folds")
    order = torch.cat(parts).argsort()
    columns = None if keep is None else torch.cat([each.columns for each in scored if each.columns is not None])[order]
    return Scores(torch.cat([each.values for each in scored])[order], columns, rows.num_labels)


def score_part(
    config: FitConfig, rest: Dataset, part: Dataset, keep: int | None = None, state_file: Path | None = None
) -> Scores:
    """Returns the scores of rows by a model that is trained on the rest, with the settings of a run."""
    prepared = prepare(config, Splits(rest, None, part))
    assert prepared.test is not None
    recipe = recipe_of(config, prepared)
    trained = train(prepared.encoder, config.loss, prepared.train, recipe, config.seed, state_file=state_file)
    if trained.diverged:
        raise UserError(f"training with {config.loss} diverged; choose another --loss")
    return trained.model.score(prepared.test.encoded, keep)


def lines(inspection: Inspection) -> Iterator[tuple[object, ...]]:
    """Yields the lines of the CSV file, one for each suspect; rows are numbered from 1, without header or blanks."""
    suspects = inspection.suspects
    return zip(
        (suspects.row + 1).tolist(),
        inspection.labels,
        (f"{score:.4f}" for score in suspects.score.tolist()),
        (f"{probability:.6g}" for probability in suspects.probability.tolist()),
        ("yes" if discarded else "no" for discarded in suspects.discarded.tolist()),
        inspection.texts,
        strict=True,
    )
