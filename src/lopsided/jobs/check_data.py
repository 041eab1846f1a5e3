"""Runs `lopsided data check`: how a file was understood, and what in it may spoil a training or a verdict."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress as Bars
from torch import Tensor

from lopsided.data.dataset import Dataset
from lopsided.data.independence import copies, overlap, refuse_same_file, shared_groups
from lopsided.data.inputs import Excerpt, Numbered, SparseFeatures, csr_entries
from lopsided.data.labels.names import near_twins
from lopsided.data.numbers import MISSING
from lopsided.data.options import ReadOptions
from lopsided.data.readers import find_format
from lopsided.jobs.rows import read_rows

RARE = 10  # a label with fewer positives can hardly be learned, and not be judged
_EXAMPLES = 5
_FIRST_ROWS = 3  # of the examples; the others are the next rows with a label
_NO_NAMES = MISSING | {"#n/a", "<na>", "-"}  # as programs write what is missing
_LISTED = 5  # labels at each end of the frequencies
_NAMES_COMPARED = 20_000  # letter by letter
_SHORTEST_COMPARED = 5  # letters; "cat" and "car" are no slip of the pen


@dataclass(frozen=True)
class Example:
    """Holds a row as a person sees it. labels: names with their values; 1 positive, NaN unknown."""

    row: int
    excerpt: Excerpt
    labels: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class FileCheck:
    """Holds what stands in one file.

    counts: (L,) float64, positives of each label. names: L names. unknown: share of all rows x L.
    copies: rows that also stand further up; conflicting: rows of which a copy has other labels.
    """

    path: Path
    format: str
    kind: str
    notes: tuple[str, ...]
    rows: int
    names: Sequence[str]
    counts: Tensor
    examples: tuple[Example, ...]
    most_labels: int
    unknown: float
    unlabelled: int
    copies: int
    conflicting: int
    groups: int | None

    @property
    def labels_per_row(self) -> float:
        return float(self.counts.sum()) / self.rows

    @property
    def density(self) -> float:
        """Returns the share of positives of all rows x L."""
        return self.labels_per_row / max(1, len(self.counts))

    def frequent(self) -> list[tuple[str, float]]:
        """Returns the labels with most positives, and how many."""
        return self._listed(self.counts.argsort(descending=True, stable=True)[:_LISTED])

    def rarest(self) -> list[tuple[str, float]]:
        """Returns the labels with fewest positives, but any, that are not among the most frequent."""
        order = self.counts.argsort(stable=True)[: max(0, len(self.counts) - _LISTED)]
        return self._listed(order[self.counts[order] > 0][:_LISTED])

    def _listed(self, labels: Tensor) -> list[tuple[str, float]]:
        return [(self.names[label], float(self.counts[label])) for label in labels.tolist()]

    def fewer_than(self, positives: int) -> int:
        return int((self.counts < positives).sum())


@dataclass(frozen=True)
class DataCheck:
    """Holds what stands in a file of training rows, and in one of test rows if there is one.

    overlap: rows of the test file that also stand in the training file.
    """

    data: FileCheck
    test: FileCheck | None
    overlap: int
    warnings: tuple[str, ...]


def check_data(path: Path, test: Path | None, options: ReadOptions, bars: Bars) -> DataCheck:
    """Reads the files and looks for what is wrong with them. Raises UserError as `read` does."""
    if test is None:
        rows = read_rows(path, options, bars)
        data = examine(rows, path, options)
        return DataCheck(data, None, 0, tuple(_warnings(data)))
    refuse_same_file({"data": path, "test": test})
    rows, test_rows = (read_rows(file, options, bars) for file in (path, test))
    data, tested = examine(rows, path, options), examine(test_rows, test, options)
    seen = len(overlap(rows, test_rows))
    warnings = [*_warnings(data), *(f"{test.name}: {text}" for text in _warnings(tested))]
    return DataCheck(data, tested, seen, (*warnings, *_warnings_of_both(rows, test_rows, seen)))


def examine(rows: Dataset, path: Path, options: ReadOptions) -> FileCheck:
    """Counts what stands in the rows of a file."""
    values = torch.ones(len(rows.targets.col)) if rows.targets.values is None else rows.targets.values
    per_row = rows.targets.row[values > 0].bincount(minlength=len(rows))
    copied, conflicting = _copies(rows, values)
    return FileCheck(
        path=path,
        format=options.format or find_format(path, options).name,
        kind=rows.inputs.kind,
        notes=rows.notes,
        rows=len(rows),
        names=rows.label_names,
        counts=rows.label_counts(),
        examples=tuple(_examples(rows, values, per_row)),
        most_labels=int(per_row.max()) if len(rows) else 0,
        unknown=float(values.isnan().sum()) / max(1, len(rows) * rows.num_labels),
        unlabelled=int((per_row == 0).sum()),
        copies=copied,
        conflicting=conflicting,
        groups=None if rows.groups is None else len(rows.groups.unique()),
    )


def _copies(rows: Dataset, values: Tensor) -> tuple[int, int]:
    """Counts the rows that stand further up, too, and those of which a copy has other labels."""
    content = copies(rows.hashes.tolist())
    labels = copies(SparseFeatures(rows.targets.crow, rows.targets.col, values, rows.num_labels).keys())
    different = torch.stack((content, labels)).unique(dim=1)[0].bincount(minlength=1) > 1
    return len(rows) - len(content.unique()), int(different[content].sum())


def _examples(rows: Dataset, values: Tensor, per_row: Tensor) -> Iterator[Example]:
    """Yields the first rows, and the next ones that have labels, if there are any."""
    first = torch.arange(len(rows)) < _FIRST_ROWS
    order = torch.cat([where.nonzero()[:, 0] for where in (first, ~first & (per_row > 0), ~first & (per_row == 0))])
    for row in order[:_EXAMPLES].sort().values:
        _, entries = csr_entries(rows.targets.crow, row[None])
        names = [rows.label_names[label] for label in rows.targets.col[entries].tolist()]
        labels = tuple((name, value) for name, value in zip(names, values[entries].tolist(), strict=True) if value != 0)
        yield Example(int(row), rows.inputs.excerpt(int(row)), labels)


def _warnings(check: FileCheck) -> Iterator[str]:
    """Yields a sentence for each thing that a person should look at before training."""
    if len(check.names) < 2:
        yield f"labels: {len(check.names)}; a multi-label problem needs at least two"
    elif check.most_labels == 1 and not check.unlabelled:
        yield (
            "every row has exactly one label: if that is so, a classifier for one label a row suits better; if not, "
            "the labels are misread (see --separator)"
        )
    if absent := check.fewer_than(1):
        yield f"labels without a positive row: {absent}"
    if check.unlabelled > check.rows / 2:
        empty = f"{check.unlabelled} of {check.rows}"
        yield f"rows without a label: {empty}; are they negative for all labels, or not labelled yet?"
    if check.copies:
        yield f"rows that are copies of others: {check.copies}; a split keeps copies together"
    if check.conflicting:
        yield f"rows of which a copy has other labels: {check.conflicting}"
    if none := [name for name in check.names if name.lower() in _NO_NAMES]:
        listed, first = ", ".join(map(repr, none)), none[0]
        yield f"labels that may mean that a row has none: {listed}; if so: --negative {first!r}, or --unknown {first!r}"
    twins = twin_names(check.names)
    for alike in twins[:_LISTED]:
        yield f"labels that look alike: {', '.join(map(repr, alike))}"
    if len(twins) > _LISTED:
        yield f"more sets of labels that look alike: {len(twins) - _LISTED}"


def _warnings_of_both(train: Dataset, test: Dataset, seen: int) -> Iterator[str]:
    if train.inputs.kind != test.inputs.kind:
        yield f"the training rows are of kind {train.inputs.kind}, the test rows of kind {test.inputs.kind}"
    if seen:
        yield f"test rows that also stand in the training file: {seen} of {len(test)}; they say nothing about new rows"
    if grouped := len(shared_groups(train, test)):
        yield f"test rows of a group that also stands in the training file: {grouped} of {len(test)}"
    if isinstance(train.label_names, Numbered) or isinstance(test.label_names, Numbered):
        return
    if new := sorted(set(test.label_names) - set(train.label_names)):
        yield f"labels of the test file that do not stand in the training file: {len(new)}, such as {new[0]!r}"


def twin_names(names: Sequence[str]) -> list[list[str]]:
    """Returns the names that differ only by case, blanks, accents or punctuation, or by one letter.

    >>> twin_names(["Café", "cafe", "sci-fi", "Sci Fi", "biling", "billing", "level 1", "level 2"])
    [['Café', 'cafe'], ['sci-fi', 'Sci Fi'], ['biling', 'billing']]
    """
    if isinstance(names, Numbered):
        return []
    bare = near_twins(names, _bare)
    return bare + (_one_letter_apart(names) if len(names) <= _NAMES_COMPARED else [])


def _bare(name: str) -> str:
    """Returns the letters and digits of a name; the name where it has none."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", name.casefold()))) or name


def _one_letter_apart(names: Sequence[str]) -> list[list[str]]:
    """Returns pairs of which one becomes the other when a letter is added, left out or replaced.

    Two such names are equal once one letter is taken out of each, or of the longer one, so that the time is linear in
    the names. Names with other digits are not compared.
    """
    first: dict[tuple[str, str], str] = {}
    pairs: dict[tuple[str, str], None] = {}
    for name in names:
        bare = _bare(name)
        if not _SHORTEST_COMPARED <= len(bare) <= 100:
            continue
        digits = "".join(filter(str.isdigit, bare))
        shortened = (bare[:place] + bare[place + 1 :] for place in range(len(bare)))
        for shorter in dict.fromkeys((bare, *shortened)):
            other = first.setdefault((shorter, digits), name)
            if other != name and _bare(other) != bare:
                pairs[other, name] = None
    return list(map(list, pairs))
