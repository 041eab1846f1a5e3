"""Reads or makes the rows that a configuration names, splits them, and encodes them once for all trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import torch
from rich.progress import Progress as Bars
from torch import Tensor

from lopsided.data import BUILT_IN
from lopsided.data.dataset import Dataset, Splits, Unsplit
from lopsided.data.excerpts import printable
from lopsided.data.independence import overlap, refuse_same_file, shared_groups
from lopsided.data.inputs import SparseFeatures, Texts
from lopsided.data.opening import shown
from lopsided.data.readers import ReadOptions, aligned, read
from lopsided.data.split import split_rows
from lopsided.data.storage import UserError
from lopsided.jobs.compare_config import CompareConfig
from lopsided.jobs.config import IMAGES, IMBALANCE, C, Config, FitConfig
from lopsided.jobs.folder import RunFolder
from lopsided.jobs.tuning import with_tuning
from lopsided.metrics.registry import METRICS
from lopsided.models.bag import Tree
from lopsided.models.encoder import Encoder, Part
from lopsided.models.methods import parse_method
from lopsided.models.registry import fit_encoder
from lopsided.models.tree import checked_method
from lopsided.training.rows import Rows, scores_to_keep

SMALLEST_SPLIT = 10  # rows of a file that is to be split


@dataclass(frozen=True)
class Prepared:
    """Holds encoded rows, and the encoder that was fitted to those of training.

    valid: the rows that choose rate, epoch or penalty. tuning, folds: those that thresholds are tuned on, see `Splits`,
    as for notes and seen.
    """

    encoder: Encoder
    train: Rows
    valid: Rows | None
    test: Rows | None
    tuning: Rows | None
    folds: tuple[Tensor, ...]
    notes: tuple[str, ...] = ()
    seen: int = 0

    @cached_property
    def seen_hashes(self) -> Tensor:
        """Returns the `Dataset.hashes` of all rows that a model is trained or tuned on, each once."""
        parts = (self.tuning,) if self.folds else (self.train, self.valid, self.tuning)  # with folds it is all of them
        hashes: Tensor = torch.cat([part.data.hashes for part in parts if part is not None]).unique()
        return hashes

    @property
    def splits(self) -> Splits:
        """Returns the rows without what a body takes of them."""
        valid, test, tuning = (None if rows is None else rows.data for rows in (self.valid, self.test, self.tuning))
        return Splits(self.train.data, valid, test, self.notes, None, tuning, self.folds, self.seen)


def read_rows(path: Path, options: ReadOptions, bars: Bars) -> Dataset:
    """Reads a file under a bar."""
    size = path.stat().st_size if path.is_file() else None
    task = bars.add_task(f"reading {path.name}", total=size)
    try:
        return read(path, options, lambda count: bars.advance(task, count))
    finally:
        bars.remove_task(task)


def load(config: Config, bars: Bars) -> Splits:
    """Reads or makes the rows of training, validation and test. Raises UserError for anything a user got wrong."""
    if config.data == BUILT_IN:
        from lopsided.data.digits_grid import digits_grid  # and scikit-learn, which takes a second

        images = config.images or IMAGES
        splits = digits_grid(images, images // 3, images // 3, config.data_seed, config.imbalance or IMBALANCE)
    else:
        splits = _from_files(config, bars)
    if not len(splits.train.targets.col):
        raise UserError(f"{config.data}: no labels at all in the training rows")
    if isinstance(config, FitConfig) and config.rule_from is not None:
        _check_labels(config.rule_from, splits.train)
    splits = _noting_new_labels(splits)
    splits = splits.hide_positives(config.missing, config.data_seed) if config.missing else splits
    if not isinstance(config, FitConfig):
        _check_comparable(config.data, splits)
    return splits


def _noting_new_labels(splits: Splits) -> Splits:
    """Notes labels that the test rows have and no training row: no model can learn them, and they count as missed."""
    if splits.test is None:
        return splits
    new = ((splits.train.hard_counts() == 0) & (splits.test.hard_counts() > 0)).nonzero()[:, 0].tolist()
    if not new:
        return splits
    note = (
        f"labels of test rows that no training row has: {len(new)}, such as {shown(splits.train.label_names[new[0]])}"
    )
    return replace(splits, notes=(*splits.notes, note))


def _check_comparable(data: str, splits: Splits) -> None:
    """Raises UserError where no label can be learned and told apart: no loss would be better than another."""
    learned = splits.train.hard_counts() > 0
    for name, part in (("validation", splits.valid), ("test", splits.test)):
        if part is None:
            continue
        positives, rows = part.hard_counts(), f"{len(part)} {name} row{'s' * (len(part) > 1)}"
        known, what = positives > 0, "a positive"
        if name == "test":  # where no other row is negative, every ranking of the rows is right
            known, what = known & (positives < len(part)), "both positives and negatives"
        if not (learned & known).any():
            raise UserError(
                f"{data}: nothing to compare: no label has training positives and, among {rows}, {what}; "
                "give more rows, or files of your own with --valid and --test"
            )


def _check_labels(rule_from: Path, train: Dataset) -> None:
    """Raises UserError unless the run whose rule is taken knows the same labels."""
    known = list(RunFolder.open(rule_from).read_model().label_names)
    given = list(train.label_names)
    if known != given:
        other = min({*known} ^ {*given}, default=given[0])
        raise UserError(
            f"{rule_from}: its rule is for other labels than those of these rows (only one of them has "
            f"{shown(other)}); tune a rule with --valid 0.1"
        )


def _from_files(config: Config, bars: Bars) -> Splits:
    files = config.files()
    refuse_same_file(files)
    options, parts = config.read_options(), list[Dataset]()
    for path in files.values():
        parts.append(read_rows(path, options, bars))
        options = options.with_categories(getattr(parts[0].inputs, "category_names", ()))
    try:
        parts = aligned(parts)
    except UserError as error:
        raise UserError(f"{config.data}: {error}") from None
    notes = [f"{path.name}: {note}" for path, part in zip(files.values(), parts, strict=True) for note in part.notes]
    parts, shared, seen = _shared_rows(config, files, parts)
    given = dict(zip(files, parts, strict=True))
    train = given["data"]
    unsplit: Unsplit | None = None
    shares = {part: config.share(part) for part in ("valid", "test") if part not in given and config.share(part)}
    if shares:
        if len(train) < SMALLEST_SPLIT:
            files_of, none = (" and ".join(f"--{part}{of}" for part in shares) for of in ("", " 0"))
            raise UserError(
                f"{config.data}: {len(train)} rows are too few to split; give at least {SMALLEST_SPLIT}, or separate "
                f"files with {files_of}" + f", or {none} for none" * isinstance(config, FitConfig)
            )
        parts_of_it = split_rows(train, [1 - sum(shares.values()), *shares.values()], config.data_seed)
        rows_of = dict(zip(["data", *shares], parts_of_it, strict=True))
        given |= {name: train.take(rows) for name, rows in rows_of.items()}
        if "valid" in shares:
            unsplit = Unsplit(train, rows_of["data"], rows_of["valid"])
    return Splits(given["data"], given.get("valid"), given.get("test"), (*notes, *shared), unsplit, seen=seen)


def _shared_rows(
    config: Config, files: Mapping[str, Path], parts: Sequence[Dataset]
) -> tuple[list[Dataset], list[str], int]:
    """Looks for rows of a file that also stand in one before it, whether it is trained or tuned on.

    Returns the parts without the test rows that do, unless these are kept; sentences; and `Splits.seen`.
    """
    names, notes, kept = list(files), [], list(parts)
    keep = config.keep_overlap or (config.keep_overlap is None and isinstance(config, FitConfig))
    copied, grouped = (torch.zeros(len(parts[-1]), dtype=torch.bool) for _ in range(2))
    for one, other in combinations(range(len(parts)), 2):
        found = overlap(parts[one], parts[other]), shared_groups(parts[one], parts[other])
        is_test = names[other] == "test"
        rows, file = f"of {len(parts[other])} {names[other]} rows", printable(files[names[one]].name)
        if len(found[0]):
            left_out = ", and are left out; --keep-overlap keeps them" * (is_test and not keep)
            notes.append(f"{len(found[0])} {rows} also stand in {file}{left_out}")
        if len(found[1]):
            notes.append(f"{len(found[1])} {rows} are of groups that also stand in {file}")
        if is_test:
            copied[found[0]], grouped[found[1]] = True, True
    if copied.any() and not keep:
        if copied.all():
            raise UserError(
                f"{files['test']}: all {len(copied)} test rows also stand in {config.data}, or in the rows of --valid; "
                "name another file, leave --test out to split rows off, or add --keep-overlap"
            )
        kept[-1] = parts[-1].take((~copied).nonzero()[:, 0])
        return kept, notes, int((grouped & ~copied).sum())
    return kept, notes, int((grouped | copied).sum())


def prepare(config: Config, splits: Splits) -> Prepared:
    """Fits the encoder to the training rows, chooses those of tuning, and encodes all.

    Raises UserError for a model that cannot take them.
    """
    file, files = config.data, config.files()
    try:
        encoder = fit_encoder(config.model, splits.train.inputs, splits.train.num_labels)
        if isinstance(encoder, Tree):  # said before the first of several losses is trained
            for loss in config.methods:
                checked_method(parse_method(loss))
        recipe = encoder.recipe(len(splits.train), splits.train.num_labels)
        refit = recipe.solved and recipe.refit and not config.no_refit
        splits = with_tuning(splits, refit, config.data_seed)
        rows = _joined(encoder, splits)
        parts = splits.parts() | ({} if splits.tuning is None else {"tuning": splits.tuning})
        for name, part in parts.items():
            file = str(files.get(name, config.data))
            if name not in rows:
                same = name == "tuning" and part is splits.valid
                rows[name] = rows["valid"] if same else Rows(encoder.encode(part.inputs), part)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    valid, test, tuning = (rows.get(name) for name in ("valid", "test", "tuning"))
    return Prepared(encoder, rows["train"], valid, test, tuning, splits.folds, splits.notes, splits.seen)


def _joined(encoder: Encoder, splits: Splits) -> dict[str, Rows]:
    """Encodes the rows of training and validation once where those of tuning are both; returns none elsewhere."""
    if not splits.folds:
        return {}
    assert splits.tuning is not None
    assert splits.unsplit is not None
    assert splits.valid is not None
    whole, (train, valid) = encoder.encode(splits.tuning.inputs), splits.unsplit.places()
    return {
        "train": Rows(Part(whole, train), splits.train),
        "valid": Rows(Part(whole, valid), splits.valid),
        "tuning": Rows(whole, splits.tuning),
    }


def measurable(config: C, splits: Splits) -> C:
    """Returns the settings of a run, by P@1 if by default they are of a metric that needs more scores than are held.

    Raises UserError where such a metric was asked for.
    """
    compared = isinstance(config, CompareConfig)
    judged = [splits.valid, splits.test if compared else None]
    held = all(part is None or scores_to_keep(len(part), part.num_labels) is None for part in judged)
    metric = config.validation_metric
    if held or metric is None or METRICS[metric].reads != "all scores":
        return config
    if compared and "metric" not in config.model_fields_set:
        return config.changed({"metric": "p@1"})
    raise UserError(
        f"--metric {metric}: needs the scores of all labels, which are too many here; choose another, such as micro_f1"
    )


def unsolved(config: Config, prepared: Prepared) -> str | None:
    """Says so where the model would be solved by default, were there not so many rows and labels; else None."""
    rows, encoder = prepared.train.data, prepared.encoder
    linear = config.model is None and isinstance(rows.inputs, Texts | SparseFeatures)
    recipe = encoder.recipe(len(rows), rows.num_labels)
    in_steps = not recipe.solved
    if not linear or not (in_steps or encoder.name == "tree"):
        return None
    instead = f"{encoder.name} is trained in steps" if in_steps else "the model is a tree over labels"
    return f"{len(rows)} rows with {rows.num_labels} labels are too many to solve one by one: {instead}"
