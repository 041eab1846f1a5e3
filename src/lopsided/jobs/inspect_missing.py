"""Runs `lopsided inspect --missing`: which labels look forgotten, by models that did not see the row.

missing.csv       the suspects (missing-NAME.csv of another file than the run's own)
missing/KEY/      the scores of each fold, so that an inspection that was stopped goes on
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress as Bars
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lopsided.data import MultiLabelData, Splits
from lopsided.data.excerpts import printable
from lopsided.data.split import stratified_split
from lopsided.data.storage import UserError, replace_atomically, write_csv
from lopsided.data.text_files import read_data
from lopsided.decision.suspects import Suspects, rank_suspects
from lopsided.jobs.compare import budget_of, columns_of, load
from lopsided.jobs.config import BUILT_IN, C, CompareConfig, FitConfig, fingerprint
from lopsided.jobs.fit import CANDIDATES, candidates, fit_model, load_sparse_rows, trained_model
from lopsided.jobs.folder import FitFolder, RunFolder
from lopsided.losses import Formula
from lopsided.losses.closed_form import discarding_point
from lopsided.metrics.scores import Judged, Scores
from lopsided.models import make_task
from lopsided.training.loop import predict_scores, train
from lopsided.training.objective import make_objective, parse_method

_COLUMNS = ("row", "label", "score", "probability", "discarded", "text")
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would run

Fold = Callable[[int, Tensor, Tensor], dict[str, Tensor]]  # its number, rows to train on, rows to score -> scores


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
    folder: RunFolder | FitFolder, data: Path | None, loss: str | None, folds: int, top: int, bars: Bars
) -> Inspection:
    """Scores each fold by a model trained on the other folds, ranks the negatives, and writes the CSV file.

    data: a file in the place of the run's training file. All rows of the file are looked at, also those that the run
    held out for validation or test; of built-in images, those of training.
    """
    loss = loss or _default_loss(folder.config)
    path = folder.path / (f"missing-{data.stem}.csv" if data else "missing.csv")
    search: Callable[[Path, str, float, int, int, Bars], tuple[Suspects, list[str], list[str]]]
    if isinstance(folder, RunFolder):
        loss, config = folder.as_trained(loss)
        search = functools.partial(_among_labelled, _on(config, data))
    else:
        search = functools.partial(_among_sparse, _on(folder.config, data).changed({"loss": loss}))
    above = _discarded_above(loss)
    suspects = search(folder.path, loss, above, folds, top, bars)
    inspection = Inspection(*suspects, loss, above, path)
    write_csv(path, _COLUMNS, lines(inspection))
    return inspection


def _discarded_above(loss: str) -> float:
    try:
        method = parse_method(loss)
    except (TypeError, ValueError) as error:
        raise UserError(f"--loss: {error}") from None
    return discarding_point(method) if isinstance(method, Formula) else math.inf


def _default_loss(config: CompareConfig | FitConfig) -> str:
    """Returns the loss of the run; of several, the first that discards suspects, or the baseline."""
    discarding = (loss for loss in config.losses if math.isfinite(_discarded_above(loss)))
    return next(discarding, config.reference)


def _on(config: C, data: Path | None) -> C:
    """Returns the settings for the rows of another file, without the other files and rules tuned on them."""
    if data is not None and config.data == BUILT_IN:
        raise UserError(f"a run on {BUILT_IN} has no other rows to look at; leave out {data}")
    return config.changed({"valid": None, "test": None, "decide": None} | ({} if data is None else {"data": str(data)}))


def _among_labelled(
    config: CompareConfig, run: Path, loss: str, above: float, folds: int, top: int, bars: Bars
) -> tuple[Suspects, list[str], list[str]]:
    rows = load(config).train if config.data == BUILT_IN else read_data(config.files()["data"], columns_of(config))
    _check_folds(folds, len(rows))

    def score(number: int, rest: Tensor, part: Tensor) -> dict[str, Tensor]:
        live = bars.add_task(f"{loss}, fold {number + 1} of {folds}", total=None)
        scores = score_part(config, rows, rest.tolist(), part.tolist(), loss)
        bars.remove_task(live)
        return {"scores": scores}

    parts = stratified_split(rows.targets, [1 / folds] * folds, config.data_seed)
    scores = _out_of_fold(_cache(run, config, loss, folds), parts, score, bars)["scores"]
    suspects = rank_suspects(Judged.of(scores, rows.targets), above, top)
    names = [printable(rows.labels[label]) for label in suspects.label.tolist()]
    if isinstance(rows.inputs, Tensor):
        return suspects, names, [""] * len(names)
    return suspects, names, [printable(rows.inputs[row]) for row in suspects.row.tolist()]


def score_part(config: CompareConfig, rows: MultiLabelData, rest: list[int], part: list[int], loss: str) -> Tensor:
    """Returns (len(part), L) logits by a model that is trained on the rest of the rows with the settings of a run."""
    held_out = rows[part]
    task = make_task(Splits(rows[rest], held_out, held_out))
    objective = make_objective(parse_method(loss), task.train.targets)
    model, history = train(task, objective, budget_of(config, task), config.data_seed)
    if history[-1].is_lost:
        raise UserError(f"training with {loss} diverged; choose another --loss")
    return predict_scores(model, objective, task.test)


def _among_sparse(
    config: FitConfig, run: Path, loss: str, above: float, folds: int, top: int, bars: Bars
) -> tuple[Suspects, list[str], list[str]]:
    """Ranks the labels with the highest scores of each row, since all scores may be too many to hold."""
    rows = load_sparse_rows(config.files()["data"], bars, config.normalize)
    _check_folds(folds, len(rows))
    cache = _cache(run, config, loss, folds)

    def score(number: int, rest: Tensor, part: Tensor) -> dict[str, Tensor]:
        training = FitFolder(cache / f"training-{number}", config)  # a stopped one goes on from its checkpoint
        fit_model(training, rows.take(rest), None, bars)
        model = trained_model(training)[0].model
        scores, labels, _ = zip(*candidates(model, rows.take(part), CANDIDATES, "scoring", bars), strict=True)
        return {"scores": torch.cat(scores), "labels": torch.cat(labels)}

    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(config.seed))
    unseen = _out_of_fold(cache, [part.sort().values for part in order.tensor_split(folds)], score, bars)
    for number in range(folds):
        shutil.rmtree(cache / f"training-{number}", ignore_errors=True)
    scores = Scores(unseen["scores"], unseen["labels"], rows.num_labels)
    suspects = rank_suspects(Judged.of(scores, rows.labels), above, top)
    return suspects, [str(label) for label in suspects.label.tolist()], [""] * len(suspects)


def _check_folds(folds: int, rows: int) -> None:
    if not 2 <= folds <= rows:
        raise UserError(f"--folds: must lie between 2 and the {rows} rows, got {folds}")


def _cache(run: Path, config: CompareConfig | FitConfig, loss: str, folds: int) -> Path:
    """Returns a folder whose name depends on everything that the scores depend on."""
    asked = [config.model_dump(), fingerprint(config), loss, folds]
    return run / "missing" / hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def _out_of_fold(cache: Path, parts: list[Tensor], score: Fold, bars: Bars) -> dict[str, Tensor]:
    """Returns what `score` returns for each part, in the order of the rows; reads parts that were scored before."""
    order = torch.cat(parts)
    scored_parts = []
    for number, part in enumerate(parts):
        path = cache / f"fold-{number}.safetensors"
        if not path.exists():
            rest = torch.cat([other for other in parts if other is not part]).sort().values
            scored = score(number, rest, part)
            replace_atomically(path, lambda temporary, scored=scored: save_file(scored, temporary))  # type: ignore[misc]
            bars.console.print(f"fold {number + 1} of {len(parts)}: {len(part)} rows scored", highlight=False)
        try:
            scored_parts.append(load_file(path))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: damaged ({error}); delete it to train that fold again") from None
    return {name: torch.cat([each[name] for each in scored_parts])[order.argsort()] for name in scored_parts[0]}


def lines(inspection: Inspection) -> Iterator[tuple[object, ...]]:
    """Yields the lines of the CSV file, one for each suspect; rows are numbered from 1, without header or blanks."""
    suspects = inspection.suspects
    return zip(
        (suspects.row + 1).tolist(),
        map(_harmless, inspection.labels),
        (f"{score:.4f}" for score in suspects.score.tolist()),
        (f"{probability:.6g}" for probability in suspects.probability.tolist()),
        ("yes" if discarded else "no" for discarded in suspects.discarded.tolist()),
        map(_harmless, inspection.texts),
        strict=True,
    )


def _harmless(text: str) -> str:
    """Puts an apostrophe in front of a text that a spreadsheet would run as a formula."""
    return "'" + text if text.startswith(_FORMULA) else text
