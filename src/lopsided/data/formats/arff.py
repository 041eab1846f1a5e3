"""Reads ARFF, dense and sparse, whose labels Mulan names in an XML file and MEKA counts in the name of the relation."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

import numpy as np
import torch

from lopsided.data.dataset import Dataset
from lopsided.data.formats.arff_rows import ArffFile, Attribute, Cells, open_arff, unquoted
from lopsided.data.formats.base import BLOCK_ROWS, Format
from lopsided.data.inputs import Inputs, SparseFeatures, Table, Texts
from lopsided.data.labels.cells import Values
from lopsided.data.matrices import targets_of_matrix
from lopsided.data.opening import OnBytes, Say, ignore, read_lines, shown
from lopsided.data.options import ReadOptions
from lopsided.data.storage import UserError

_DEEPEST = 1000  # elements of XML within each other
_MEKA = re.compile(r"-[Cc]\s+(-?\d+)")


def read(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Dataset:
    """Reads rows with labels: the attributes that options.label_columns name, or options.labels_file (Mulan's XML, or
    one name a line), or the XML file beside the data, or -C in the name of the relation.

    The inputs are `SparseFeatures` of sparse rows; of dense rows `Texts` if attributes are strings, else a `Table`, in
    which attributes with the values 0 and 1 are numbers and other nominal ones are categories.
    """
    notes: list[str] = []
    with open_arff(path, options, notes.append, on_bytes) as file:
        labels = _label_columns(path, options, file, notes.append, needed=True)
        cells = file.read(None)
    if not labels:
        raise UserError(
            f"{path}: no XML file beside it and no -C in the name of its relation; name the labels with "
            "--label-columns, or a file that does with --labels-file"
        )
    if not cells.rows:
        raise UserError(f"{path}: no rows")
    targets = targets_of_matrix(_label_values(path, file, cells, labels, Values(options)))
    names = tuple(file.attributes[column].name for column in labels)
    return Dataset(_inputs(path, file, cells, labels, options), targets, names, notes=tuple(notes))


def read_inputs(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Iterator[Inputs]:
    """Yields inputs in blocks; labels may be there, or not."""
    with open_arff(path, options, ignore, on_bytes) as file:
        labels = _label_columns(path, options, file, ignore, needed=False)
        while (cells := file.read(BLOCK_ROWS)).rows:
            yield _inputs(path, file, cells, labels, options)


def _label_columns(path: Path, options: ReadOptions, file: ArffFile, say: Say, needed: bool) -> list[int]:
    """Returns which attributes are labels; none if nothing says so. `needed`: whether all that are named must exist."""
    names = [attribute.name for attribute in file.attributes]
    source = None if options.label_columns else options.labels_file or _xml_beside(path)
    meka = _MEKA.search(file.relation)
    if meka and not options.label_columns and not source:
        number = int(meka[1][:9])
        if abs(number) > len(names):
            raise UserError(f"{path}: {shown(meka[0])} in the relation, but there are only {len(names)} attributes")
        end = "first" if number > 0 else "last"
        say(f"labels: the {end} {abs(number)} attributes, as {shown(meka[0])} in the relation says")
        columns = range(len(names))
        return list(columns[:number] if number > 0 else columns[number:])
    if source:
        listed = _listed_names(source, options)
        say(f"labels: the {len(listed)} attributes that {source.name} names")
        missing = [name for name in listed if name not in names]
    else:
        listed = [name for pattern in options.label_columns for name in fnmatch.filter(names, pattern)]
        missing = [pattern for pattern in options.label_columns if not fnmatch.filter(names, pattern)]
    if missing and needed:
        raise UserError(f"{path}: no attribute {shown(missing[0])}, which {source or '--label-columns'} names")
    chosen = set(listed)
    return [column for column, name in enumerate(names) if name in chosen]


def _xml_beside(path: Path) -> Path | None:
    """Returns the XML file of the same name, or of its beginning: emotions.xml for emotions-train.arff."""
    stem = path.name.partition(".")[0]
    fitting = [
        other
        for other in path.parent.glob("*.xml")
        if re.fullmatch(re.escape(other.stem) + r"([-_.].*)?", stem, re.IGNORECASE)
    ]
    return max(fitting, key=lambda other: len(other.stem), default=None)


def _listed_names(source: Path, options: ReadOptions) -> list[str]:
    lines = list(read_lines(source, options))
    if not "".join(lines[:1]).lstrip("\ufeff ").startswith("<"):
        return [line.strip() for line in lines if line.strip()]
    names = _names_in_xml(source, "".join(lines))
    if not names or None in names:
        raise UserError(f'{source}: expected labels such as <label name="sad"></label>')
    return [unquoted(name) for name in names if name is not None]


def _names_in_xml(source: Path, text: str) -> list[str | None]:
    """Returns the names of the labels of Mulan's XML, None for a label without one.

    No tree is made, whose elements take a hundred times their bytes.
    """
    names: list[str | None] = []
    depth = 0

    def begin(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise UserError(f"{source}: more than {_DEEPEST} elements within each other; is it the right file?")
        if tag.rpartition("}")[2] == "label":
            names.append(attributes.get("name"))

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise UserError(f"{source}: not XML: {error}") from None
    return names


def _label_values(path: Path, file: ArffFile, cells: Cells, labels: list[int], value_of: Values) -> np.ndarray:
    """Returns (rows, labels) float64 in [0, 1], NaN where unknown."""
    matrix = cells.matrix(labels, len(file.attributes))
    for column, values in zip(labels, matrix.T, strict=True):
        attribute = file.attributes[column]
        known = ~np.isnan(values)
        different, which = np.unique(values[known], return_inverse=True)
        meanings = []
        for value in different.tolist():
            cell = cells.texts[int(value)] if attribute.is_text else value
            cell = attribute.values[int(value)] if attribute.values else cell
            meaning = value_of(cell)
            if meaning is None:
                raise UserError(f"{path}: the label {shown(attribute.name)} is {shown(cell)}; expected 0, 1 or between")
            meanings.append(meaning)
        values[known] = np.array(meanings)[which]
    return matrix


def _inputs(path: Path, file: ArffFile, cells: Cells, labels: list[int], options: ReadOptions) -> Inputs:
    is_label = set(labels)
    features = [column for column in range(len(file.attributes)) if column not in is_label]
    attributes = [file.attributes[column] for column in features]
    if not features:
        raise UserError(f"{path}: all {len(file.attributes)} attributes are labels")
    if options.text_columns or any(attribute.is_text for attribute in attributes):
        return _texts(path, file, cells, features, options)
    if cells.starts is not None:
        return _sparse(path, cells, features, attributes, len(file.attributes))
    return _table(cells.matrix(features, len(file.attributes)), attributes)


def _texts(path: Path, file: ArffFile, cells: Cells, features: list[int], options: ReadOptions) -> Texts:
    is_text = {attribute.name: attribute.is_text for attribute in file.attributes}
    names = options.text_columns or tuple(file.attributes[column].name for column in features)
    for name in names:
        if not is_text.get(name):
            texts = ", ".join(shown(name) for name, text in is_text.items() if text) or "none"
            raise UserError(
                f"{path}: no strings in {shown(name)}; name those to read with --text-column (there are: {texts})"
            )
    columns = [list(is_text).index(name) for name in names]
    rows = cells.matrix(columns, len(file.attributes)).tolist()
    return Texts(tuple("\n".join("" if i != i else cells.texts[int(i)] for i in row) for row in rows))


def _sparse(path: Path, cells: Cells, features: list[int], attributes: list[Attribute], width: int) -> SparseFeatures:
    for attribute in attributes:
        if attribute.is_category or (attribute.values or "0")[0] != "0":
            raise UserError(
                f"{path}: {shown(attribute.name)} is neither a number nor {{0,1}}, which sparse rows are read for"
            )
    row, column, value = cells.entries(features, width)
    if np.isnan(value).any():
        name = attributes[column[int(np.isnan(value).argmax())]].name
        raise UserError(f"{path}: {shown(name)} is '?' in a sparse row; write the rows densely")
    present = value != 0
    indptr = np.pad(np.bincount(row[present], minlength=cells.rows).cumsum(), (1, 0))
    indices, values = torch.from_numpy(column[present]), torch.from_numpy(value[present]).float()
    return SparseFeatures(torch.from_numpy(indptr), indices, values, len(features), declared=True)


def _table(matrix: np.ndarray, attributes: list[Attribute]) -> Table:
    """Makes a table of cells. A value of {0,1} or {1,0} is a number, of others a category."""
    is_category = np.array([attribute.is_category for attribute in attributes])
    for values, attribute in zip(matrix.T, attributes, strict=True):
        if attribute.is_binary and attribute.values == ("1", "0"):
            values[:] = 1 - values
    codes = np.nan_to_num(matrix[:, is_category], nan=-1).astype(np.int64)
    categories = [attribute for attribute in attributes if attribute.is_category]
    return Table(
        torch.from_numpy(matrix[:, ~is_category]).float(),
        tuple(attribute.name for attribute in attributes if not attribute.is_category),
        torch.from_numpy(codes),
        tuple(attribute.name for attribute in categories),
        tuple(attribute.values or () for attribute in categories),
    )


FORMAT = Format("arff", (".arff",), read=read, read_inputs=read_inputs)
