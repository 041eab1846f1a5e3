"""Chooses which columns of a file of records are inputs, and which are labels."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lopsided.data.formats.base import Block
from lopsided.data.image_files import ENDINGS
from lopsided.data.labels.cells import Values
from lopsided.data.labels.forms import Where
from lopsided.data.makers import ImageMaker, Maker, TextMaker
from lopsided.data.opening import Say, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError
from lopsided.data.tables import TableMaker, choose_columns

TEXT_NAMES = ("text",)
IMAGE_NAMES = ("image", "image_path", "file_name", "path")
LABEL_NAMES = ("labels", "label", "cats")
_SHOWN_NAMES = 12
_WORDS = 4  # of a name; a text has more
_MOST_COMPARED, _LONGEST_COMPARED = 1000, 40  # names of columns for which a near one is looked for


@dataclass(frozen=True)
class Chosen:
    """Says which columns of a file are read, and as what."""

    maker: Maker
    labels: tuple[str, ...]
    group: str | None
    join: str | None


@dataclass(frozen=True)
class Finder:
    """Finds columns by name or pattern."""

    path: Path
    where: Where
    block: Block

    def columns(self, asked: Sequence[str], option: str, required: bool = True) -> tuple[str, ...]:
        """Returns the columns that are named, or match a pattern, in the order in which they are asked for.

        Raises UserError for one that stands twice, or is not there though it is required.
        """
        times = Counter(self.block.names)
        chosen: dict[str, None] = {}
        for name in asked:
            matches = [name] if name in times else [column for column in times if fnmatchcase(column, name)]
            if required and not matches:
                raise UserError(f"{self.path}: {self._missing(name, option)}")
            chosen |= dict.fromkeys(matches)
        if twice := next((name for name in chosen if times[name] > 1), None):
            raise UserError(f"{self.path}: the column {shown(twice)} stands twice")
        return tuple(chosen)

    def usual(self, names: Sequence[str]) -> str | None:
        """Returns the column that has the first of some names, in whatever case."""
        present = {column.casefold(): column for column in reversed(self.block.names)}
        return next((present[name] for name in names if name in present), None)

    def near(self, name: str) -> str | None:
        """Returns the column whose name is most like another."""
        short = [column for column in self.block.names[:_MOST_COMPARED] if len(column) <= _LONGEST_COMPARED]
        return next(iter(difflib.get_close_matches(name[:_LONGEST_COMPARED], short, n=1)), None)

    def _missing(self, name: str, option: str) -> str:
        names = self.block.names[:_SHOWN_NAMES]
        more = f" and {len(self.block.names) - len(names)} more" if len(self.block.names) > len(names) else ""
        near = self.near(name)
        hint = f"; did you mean {shown(near)}?" if near else ""
        if option == "--label-columns" and (name in LABEL_NAMES or not hint):
            hint = self._label_hint()
        if wrapping := [name for name in names if _holds_rows(self.block.column(name)[0])]:
            hint += f"; {shown(wrapping[0])} holds a list of objects: if those are the rows, make a file of that list"
        if any(len(column) > _LONGEST_COMPARED for column in names):
            hint += "; a long name may be cut short with *, such as 'What*'"
        if any(
            column.isdecimal() or len(column) > _LONGEST_COMPARED or len(column.split()) > _WORDS for column in names
        ):
            hint += "; if line 1 is a row and no header, name the columns with --column-names"
        which = "" if f"{option} " in hint else f" (say which with {option})"
        return f"no column {shown(name)} among {', '.join(map(shown, names))}{more}{hint}{which}"

    def _label_hint(self) -> str:
        """Names the columns of 0 and 1, which are labels if several are; a column of names is not guessed."""
        values, column = Values(ReadOptions()), self.block.column
        flags = [name for name in self.block.names if _holds_flags(map(values, column(name)[:100]))]
        if len(flags) > 1:
            listed = shown(",".join(flags), 60)
            return f"; {len(flags)} columns hold 0 and 1: if those are the labels, --label-columns {listed}"
        begin = next((name[:5] for name in self.block.names if name.casefold().startswith("label")), None)
        if begin is None:
            return ""
        named = [name for name in self.block.names if name.startswith(begin)]
        return f"; if {', '.join(map(shown, named[:3]))} hold labels: --label-columns {shown(begin + '*')}"


def choose(where: Where, path: Path, block: Block, options: ReadOptions, say: Say, with_labels: bool = True) -> Chosen:
    """Chooses the columns by the options and, where those name none, by their usual names and what they hold.

    block: the first rows. Raises UserError for a column that is not there or stands twice, and where a choice is open.
    """
    find = Finder(path, where, block)
    asked = options.label_columns or [find.usual(LABEL_NAMES) or LABEL_NAMES[0]]
    labels = find.columns(asked, "--label-columns", required=with_labels)
    if with_labels and not options.label_columns and labels != LABEL_NAMES[:1]:
        say(f"no column {shown(LABEL_NAMES[0])}; {shown(labels[0])} is taken")
    if len(options.label_columns) == 1 == len(labels):
        _note_siblings(labels[0], block, say)
    join = find.columns([options.join_by], "--join-by")[0] if options.join_by else None
    group = find.columns([options.group_column], "--group-column")[0] if options.group_column and with_labels else None
    maker = _maker(find, options, {*labels, join, group}, say, with_labels)
    if both := set(maker.names) & set(labels):
        raise UserError(f"{path}: column {shown(both.pop())} cannot be input and label at once")
    return Chosen(maker, labels, group, join)


def _note_siblings(label: str, block: Block, say: Say) -> None:
    """Notes columns whose names differ from that of the labels by a number alone."""
    stem = label.rstrip("0123456789")
    others = [name for name in block.names if name != label and name.rstrip("0123456789") == stem]
    if stem != label and others:
        listed = ", ".join(map(shown, others[:3]))
        say(f"only {shown(label)} is read; if {listed} hold labels, too: --label-columns {shown(stem + '*')}")


def _maker(find: Finder, options: ReadOptions, others: set[str | None], say: Say, with_labels: bool) -> Maker:
    """Tells whether the inputs are texts, images or a table."""
    path = find.path
    folder = options.image_folder or (path if path.is_dir() else path.parent)
    if options.text_columns:
        return _texts(find, options.text_columns, say)
    if options.image_column:
        return ImageMaker(find.columns([options.image_column], "--image-column"), folder)
    features = options.feature_columns
    if not features and not options.category_columns:
        if text := find.usual(TEXT_NAMES):
            return _texts(find, [text], say)
        image = find.usual(IMAGE_NAMES)
        if image and _is_image(find.block.column(image)[0]):
            say(f"inputs: the images at the paths in column {shown(image)}")
            return ImageMaker((image,), folder)
    return _table(find, options, others, say, with_labels)


def _texts(find: Finder, asked: Sequence[str], say: Say) -> Maker:
    columns = find.columns(asked, "--text-column")
    say(f"inputs: the texts in {'columns' if len(columns) > 1 else 'column'} {', '.join(map(shown, columns))}")
    return TextMaker(columns)


def _holds_flags(values: Iterable[float | None]) -> bool:
    """Tells whether the values of labels are 1 and 0, or 1 and unknown."""
    different = {None if value is None else -1.0 if math.isnan(value) else value for value in values}
    return {1.0} < different <= {1.0, 0.0, -1.0}


def _holds_rows(cell: object) -> bool:
    return isinstance(cell, list) and bool(cell) and all(isinstance(item, dict) for item in cell)


def _is_image(cell: object) -> bool:
    return isinstance(cell, str) and cell.lower().endswith(ENDINGS)


def _table(find: Finder, options: ReadOptions, others: set[str | None], say: Say, with_labels: bool) -> Maker:
    """Takes the columns that are asked for, or all that are nothing else; refuses to take a text for a category.

    Of rows to predict it takes any column, since the model knows by its name what it was.
    """
    categories = find.columns(options.category_columns, "--category-columns", required=with_labels)
    asked = (*find.columns(options.feature_columns, "--feature-columns"), *categories)
    rest = [name for name in find.block.names if name not in others]
    names = asked if options.feature_columns else find.columns(rest, "--feature-columns")
    if not names or (not asked and find.near(TEXT_NAMES[0])):
        find.columns(TEXT_NAMES, "--text-column")  # raises UserError
    asked = asked if with_labels else names
    decimal = options.decimal if with_labels else options.decimal or "."  # what is undecided was a category
    return TableMaker(choose_columns(find.where, find.block.column, names, categories, asked, say, decimal))
