"""Knows what annotation tools export: Label Studio, Prodigy, doccano and spaCy write JSON of their own shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from lopsided.data.opening import Say

Placed = tuple[int, Any]  # a record and its place in the file
Given = dict[tuple[str, str], Any]  # the labels of one annotator, each by the question that it answers and what it is


def _nobody(record: Any) -> list[Given]:
    return []


@dataclass(frozen=True)
class Export:
    """Turns a record of a tool into records with the columns text and labels.

    The labels are a list of names; {name: 1 or 0} where only some are known; None where nothing is.
    annotators: returns what each annotator of a record gave, if the file tells it.
    """

    name: str
    recognizes: Callable[[Any], bool]
    convert: Callable[[Any], list[dict[str, Any]]]
    annotators: Callable[[Any], list[Given]] = _nobody


def adapt(records: Iterator[Placed], say: Say) -> Iterator[Placed]:
    """Yields records with text and labels if the first one has the shape of an export, else the records as they are."""
    first = next(records, None)
    if first is None:
        return
    export = next((export for export in EXPORTS if export.recognizes(first[1])), None)
    if export is None:
        yield from chain([first], records)
        return
    say(f"the file looks like an export of {export.name}")
    total, disputed = 0, 0
    for place, record in chain([first], records):
        if not export.recognizes(record):
            yield place, record
            continue
        total, disputed = total + 1, disputed + (len(set(map(frozenset, export.annotators(record)))) > 1)
        for row in export.convert(record):
            yield place, row
    if disputed:
        say(f"annotators disagree in {disputed} of {total} records; a label counts if at least half of them gave it")


def _has(record: Any, **types: type | tuple[type, ...]) -> bool:
    return isinstance(record, dict) and all(isinstance(record.get(name), kind) for name, kind in types.items())


def _is_pair(record: Any) -> bool:
    return isinstance(record, list) and len(record) == 2 and isinstance(record[0], str)


def _agreed(annotators: list[Given]) -> dict[str, list[Any]]:
    """Returns, for each question, the labels that at least half of the annotators gave."""
    votes = Counter(chain.from_iterable(annotators))
    agreed: dict[str, list[Any]] = {}
    for given, label in {given: label for each in annotators for given, label in each.items()}.items():
        agreed.setdefault(given[0], []).extend([label] * (2 * votes[given] >= len(annotators)))
    return agreed


def _given(labels: Iterable[tuple[str, Any]]) -> Given:
    return {(question, repr(label)): label for question, label in labels}


def _label_studio_annotators(task: Any) -> list[Given]:
    """Returns the choices of all annotations that were not cancelled."""
    annotations = [a for a in task["annotations"] if isinstance(a, dict) and not a.get("was_cancelled")]
    return [_given(_choices(annotation.get("result"))) for annotation in annotations]


def _choices(results: Any) -> Iterator[tuple[str, Any]]:
    for result in results if isinstance(results, list) else ():
        if _has(result, value=dict) and isinstance(result["value"].get("choices"), list):
            yield from ((str(result.get("from_name")), choice) for choice in result["value"]["choices"])


def _label_studio(task: Any) -> list[dict[str, Any]]:
    annotators = _label_studio_annotators(task)
    labels = _agreed(annotators)
    joined = list(chain.from_iterable(labels.values())) if annotators else None
    return [{**task["data"], **labels, "labels": joined}]


def _prodigy_choice(task: Any) -> list[dict[str, Any]]:
    if task.get("answer") == "ignore":
        return []
    return [{**task, "labels": task.get("accept", []) if task.get("answer", "accept") == "accept" else None}]


def _prodigy_binary(task: Any) -> list[dict[str, Any]]:
    if task["answer"] == "ignore":
        return []
    return [{**task, "labels": {task["label"]: task["answer"] == "accept"}}]


def _doccano_annotators(record: Any) -> list[Given]:
    labels: dict[str, list[tuple[str, Any]]] = {}
    for item in record["annotations"]:
        user, label = (item.get("user"), item.get("label")) if isinstance(item, dict) else (None, item)
        labels.setdefault(repr(user), []).append(("labels", label))
    return list(map(_given, labels.values()))


def _doccano(record: Any) -> list[dict[str, Any]]:
    return [{**record, "labels": _agreed(_doccano_annotators(record)).get("labels", [])}]


def _spacy_pair(pair: Any) -> list[dict[str, Any]]:
    return [{"text": pair[0], "labels": pair[1]["cats"]}]


def _spacy_document(document: Any) -> list[dict[str, Any]]:
    return [{"text": part.get("raw"), "labels": part.get("cats")} for part in document["paragraphs"] if _has(part)]


EXPORTS = (
    Export(
        "Label Studio",
        lambda record: _has(record, data=dict, annotations=list),
        _label_studio,
        _label_studio_annotators,
    ),
    Export("Prodigy (choice)", lambda record: _has(record, text=str, options=list), _prodigy_choice),
    Export("Prodigy (textcat)", lambda record: _has(record, text=str, label=str, answer=str), _prodigy_binary),
    Export("doccano", lambda record: _has(record, text=str, annotations=list), _doccano, _doccano_annotators),
    Export("spaCy", lambda pair: _is_pair(pair) and _has(pair[1], cats=dict), _spacy_pair),
    Export("spaCy (version 2)", lambda record: _has(record, paragraphs=list), _spacy_document),
)
