"""Files with known rows must be read as they are; damaged ones give rows or one line, as any other parser has them."""

import csv
import io
import json
import os
import re
import resource
import signal
import sys
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from sklearn.datasets import load_svmlight_file

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import SparseFeatures, Texts
from lopsided.data.labels.names import is_text, normal
from lopsided.data.readers import read, read_inputs
from lopsided.data.storage import UserError
from tests.campaigns.campaign import kind_of, randomness
from tests.campaigns.children import LONGEST
from tests.campaigns.mutations import damaged
from tests.campaigns.samples import MAKERS, Row, Sample

SECONDS = 5  # of the processor, for a file of less than a megabyte
MEMORY = 8 * 2**30  # addresses, of which torch takes most
_BATCH = 500  # trials of one child


class Readers:
    """Reads files of every format, one in ten as it was made and the others damaged."""

    name = "readers"
    kinds: tuple[str, ...] = (*MAKERS, *list(MAKERS)[:6], *list(MAKERS)[:6])  # some are more common, and faster

    def run(self, numbers: range, seed: int, where: Path) -> Iterator[tuple[int, str | None]]:
        left = numbers
        while left:
            number = left.start
            for number, fault in _in_child(left[:_BATCH], seed, where):
                yield number, fault
            left = range(number + 1, left.stop)


def _in_child(numbers: range, seed: int, where: Path) -> Iterator[tuple[int, str | None]]:
    """Yields what a child says of each trial, and of the one in which it died, which is its last."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        _limit()
        with os.fdopen(writer, "w", 1) as said:
            for number in numbers:
                said.write(f"{json.dumps([number, trial(number, seed, where)])}\n")
        os._exit(0)
    os.close(writer)
    begun = numbers.start
    with os.fdopen(reader) as lines:
        for line in lines:
            number, fault = json.loads(line)
            begun = number + 1
            yield number, fault
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        yield begun, f"the process ended with {status}"


def _limit() -> None:
    """What a child may use; a loop in C that does not end is ended by the second alarm."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(1000)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    signal.signal(signal.SIGPROF, _too_long)


def _too_long(*_: Any) -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    raise TimeoutError


def trial(number: int, seed: int, where: Path) -> str | None:
    """One file, its fault."""
    random = randomness(seed, number)
    sample = MAKERS[kind_of(Readers(), number)](random)
    intact = random.random() < 0.1
    files = {sample.name: sample.content} | dict(sample.beside)
    victim = random.choice([sample.name] * 4 + list(files))
    if not intact:
        files[victim] = damaged(files[victim], random)
    for name, content in files.items():
        (where / name).write_bytes(content)
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return _fault(where / sample.name, sample, intact, files[sample.name])
    except TimeoutError:
        return f"more than {SECONDS} s"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        for name in files:
            (where / name).unlink()


def _fault(path: Path, sample: Sample, intact: bool, content: bytes) -> str | None:
    data, messages = None, []
    for with_labels in (True, False):
        try:
            if with_labels:
                data = read(path, sample.options)
            else:
                for inputs in read_inputs(path, sample.options):
                    list(map(inputs.excerpt, range(len(inputs))))
        except UserError as error:
            messages.append(str(error))
        except TimeoutError:
            raise
        except BaseException as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
    for message in messages:
        said = message.replace(str(path.parent), "")
        if "\n" in said or not said.isprintable() or len(said) > LONGEST:
            return f"message of {len(said)} characters: {said[:200]!r}"
    if data is None:  # rows that look like one, over several lines, are asked about
        wanted = intact and sample.rows is not None and "--join-by" not in messages[0]
        return f"refused: {messages[0]}" if wanted else None
    return _broken(data) or _misread(data, sample, intact, content, path)


def _broken(data: Dataset) -> str | None:
    """What no data set may be."""
    targets = data.targets
    if len(targets.crow) != len(data) + 1 or int(targets.crow[-1]) != len(targets.col):
        return "rows of inputs and of labels differ"
    if len(targets.col) and not 0 <= int(targets.col.min()) <= int(targets.col.max()) < data.num_labels:
        return "a label that has no name"
    if isinstance(data.inputs, Texts) and not all(map(is_text, data.inputs.texts)):
        return "a text that is none"
    names = data.label_names if data.num_labels < 10**5 else ()
    return None if all(map(is_text, names)) else "a name that is no text"


def _misread(data: Dataset, sample: Sample, intact: bool, content: bytes, path: Path) -> str | None:
    """How the rows differ from those that were written, or from those that another parser reads."""
    if isinstance(data.inputs, SparseFeatures):
        return _unlike_scikit_learn(data, path) if path.suffix == ".svm" else None
    if sample.rows is None or not isinstance(data.inputs, Texts):
        return None
    if intact:
        return _unlike(_rows_of(data), sample.rows, "written")
    if path.suffix == ".jsonl" and (rows := _by_json(content)) is not None:
        return _unlike(_rows_of(data), rows, "json")
    if path.suffix in (".csv", ".tsv") and (texts := _by_arrow(content, sample)) is not None:
        mine = [text for text, _ in _rows_of(data)]
        return None if mine == texts else f"not as pyarrow reads it: {mine[:5]!r} {texts[:5]!r}"[:300]
    return None


def _rows_of(data: Dataset) -> list[Row]:
    assert isinstance(data.inputs, Texts)
    targets, bounds = data.hard_targets(), data.targets.crow.tolist()
    sets = []
    for start, end in pairwise(bounds):
        present = (
            slice(start, end) if targets.values is None else start + (targets.values[start:end] == 1).nonzero()[:, 0]
        )
        sets.append(frozenset(data.label_names[label] for label in targets.col[present].tolist()))
    return list(zip(data.inputs.texts, sets, strict=True))


def _unlike(mine: list[Row], other: list[Row], whose: str) -> str | None:
    named = [(text, frozenset(filter(None, map(normal, labels)))) for text, labels in other]
    if mine == named:
        return None
    different = next((pair for pair in zip(mine, named, strict=False) if pair[0] != pair[1]), (len(mine), len(named)))
    return f"not as {whose}: {different!r}"[:400]


def _by_json(content: bytes) -> list[Row] | None:
    """Rows as the standard library reads them; None where they are anything but texts and lists of names."""
    rows = []
    try:
        for line in content.decode("utf-8-sig").split("\n"):
            if line.strip():
                record = json.loads(line)
                if not isinstance(record["text"], str) or not all(isinstance(each, str) for each in record["labels"]):
                    return None
                if not isinstance(record["labels"], list):
                    return None
                rows.append((record["text"], frozenset(record["labels"])))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return rows


def _by_arrow(content: bytes, sample: Sample) -> list[str] | None:
    """Texts as pyarrow reads them; None where it reads none, or cuts lines at a lone carriage return."""
    if re.search(rb"\r(?!\n)", content) or content.startswith((b"sep=", b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        return None
    try:
        content.decode()
        parsing = arrow_csv.ParseOptions(delimiter=sample.options.delimiter, newlines_in_values=True)
        names = next(csv.reader(io.StringIO(content.decode("utf-8-sig")), delimiter=str(sample.options.delimiter)))
        converting = arrow_csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=False
        )
        table = arrow_csv.read_csv(io.BytesIO(content), parse_options=parsing, convert_options=converting)
        columns = [column.to_pylist() for column in table.columns]
        texts = columns[[name.strip() for name in table.column_names].index("text")]
    except (pa.ArrowException, ValueError, StopIteration, csv.Error, KeyError):
        return None
    return [text for text, *cells in zip(texts, *columns, strict=True) if any(cells)]


def _unlike_scikit_learn(data: Dataset, path: Path) -> str | None:
    assert isinstance(data.inputs, SparseFeatures)
    rows = data.inputs
    try:
        matrix, labels = load_svmlight_file(str(path), multilabel=True, zero_based=True, dtype=np.float64)
    except Exception:  # it takes other files than ours
        return None
    bounds = data.targets.crow.tolist()
    mine = [sorted(data.targets.col[start:end].tolist()) for start, end in pairwise(bounds)]
    if mine != [sorted({int(label) for label in row}) for row in labels]:
        return "other labels than scikit-learn reads"
    same = len(rows.indices) == matrix.nnz and (rows.indptr.numpy() == matrix.indptr).all()
    if not same or not np.allclose(rows.values.double().numpy(), matrix.data, rtol=1e-6):
        return "other values than scikit-learn reads"
    return None if (rows.indices.numpy() == matrix.indices).all() else "other features than scikit-learn reads"
