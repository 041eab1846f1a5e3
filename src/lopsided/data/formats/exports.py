"""Knows what annotation tools export: Label Studio, Prodigy, doccano and spaCy write JSON of their own shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from lopsided.data.opening import Say

Numbered = tuple[int, Any]  # a record and its place in the file


@dataclass(frozen=True)
class Export:
    """Turns a record of a tool into records with the columns text and labels.

    The labels are a list of names; {name: 1 or 0} where only some are known; None where nothing is.
    """

    name: str
    recognizes: Callable[[Any], bool]
    convert: Callable[[Any], list[dict[str, Any]]]


def adapt(records: Iterator[Numbered], say: Say) -> Iterator[Numbered]:
    """Yields records with text and labels if the first one has the shape of an export, else the records as they are."""
    first = next(records, None)
    if first is None:
        return
    export = next((export for export in EXPORTS if export.recognizes(first[1])), None)
    if export is None:
        yield from chain([first], records)
        return
    say(f"the file looks like an export of {export.name}")
    for place, record in chain([first], records):
        converted = export.convert(record) if export.recognizes(record) else [record]
        for row in converted:
            yield place, row


def _has(record: Any, **types: type | tuple[type, ...]) -> bool:
    return isinstance(record, dict) and all(isinstance(record.get(name), kind) for name, kind in types.items())


def _is_pair(record: Any) -> bool:
    return isinstance(record, list) and len(record) == 2 and isinstance(record[0], str)


def _label_studio(task: Any) -> list[dict[str, Any]]:
    """Joins the choices of all annotations that were not cancelled."""
    annotations = [a for a in task["annotations"] if isinstance(a, dict) and not a.get("was_cancelled")]
    labels: dict[str, list[Any]] = {}
    for result in (result for annotation in annotations for result in annotation.get("result") or ()):
        if _has(result, value=dict) and isinstance(result["value"].get("choices"), list):
            labels.setdefault(str(result.get("from_name")), []).extend(result["value"]["choices"])
    joined = list(chain.from_iterable(labels.values())) if annotations else None
    return [{**task["data"], **labels, "labels": joined}]


def _prodigy_choice(task: Any) -> list[dict[str, Any]]:
    if task.get("answer") == "ignore":
        return []
    return [{**task, "labels": task.get("accept", []) if task.get("answer", "accept") == "accept" else None}]


def _prodigy_binary(task: Any) -> list[dict[str, Any]]:
    if task["answer"] == "ignore":
        return []
    return [{**task, "labels": {task["label"]: task["answer"] == "accept"}}]


def _doccano(record: Any) -> list[dict[str, Any]]:
    labels = [item.get("label") if isinstance(item, dict) else item for item in record["annotations"]]
    return [{**record, "labels": labels}]


def _spacy_pair(pair: Any) -> list[dict[str, Any]]:
    return [{"text": pair[0], "labels": pair[1]["cats"]}]


def _spacy_document(document: Any) -> list[dict[str, Any]]:
    return [{"text": part.get("raw"), "labels": part.get("cats")} for part in document["paragraphs"] if _has(part)]


EXPORTS = (
    Export("Label Studio", lambda record: _has(record, data=dict, annotations=list), _label_studio),
    Export("Prodigy (choice)", lambda record: _has(record, text=str, options=list), _prodigy_choice),
    Export("Prodigy (textcat)", lambda record: _has(record, text=str, label=str, answer=str), _prodigy_binary),
    Export("doccano", lambda record: _has(record, text=str, annotations=list), _doccano),
    Export("spaCy", lambda pair: _is_pair(pair) and _has(pair[1], cats=dict), _spacy_pair),
    Export("spaCy (version 2)", lambda record: _has(record, paragraphs=list), _spacy_document),
)
