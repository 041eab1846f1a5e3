"""Reads documents with entities and the relations between them, as DocRED and Re-DocRED are written."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from lopsided.data.dataset import Dataset
from lopsided.data.formats.base import BLOCK_ROWS, Format
from lopsided.data.independence import number_groups
from lopsided.data.inputs import Inputs
from lopsided.data.labels.names import is_text
from lopsided.data.labels.targets import sparse_targets
from lopsided.data.opening import OnBytes, ignore, longest_line, open_bytes, shown, too_long
from lopsided.data.options import ReadOptions
from lopsided.data.pairs import Document, Pairs, Span
from lopsided.data.storage import UserError

_CHUNK = 2**20  # characters read at once
_EXAMPLE = '{"title": "...", "sents": [["..."]], "vertexSet": [[{"sent_id": 0, "pos": [0, 1]}]], "labels": [...]}'
_RELATION = '{"h": 0, "t": 1, "r": "P17"}'
_BETWEEN = " \t\r\n,"  # stands between documents

Relation = tuple[int, int, str]  # head entity, tail entity, name


def read(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Dataset:
    """Reads all ordered pairs of different entities of each document; their relations, sorted, are the labels.

    The file is one list of documents, or has one a line. Most pairs have no relation. The group of a pair is its
    document; one with the same words in another file is the same. Raises UserError, with the number of the document,
    for anything malformed.
    """
    documents: list[Document] = []
    relations: list[tuple[int, Relation]] = []  # number of a pair among all, and what is said about it
    starts = [0]
    for document, listed in _documents(path, options, on_bytes):
        count = len(document.mentions)
        if listed is None:
            raise UserError(f"{path}, document {len(documents) + 1}: no 'labels', which only documents to predict lack")
        for relation in listed:
            head, tail, _ = relation
            relations.append((starts[-1] + head * (count - 1) + tail - (tail > head), relation))
        documents.append(document)
        starts.append(starts[-1] + count * (count - 1))
    if not documents:
        raise UserError(f"{path}: no documents")
    names = sorted({name for _, (_, _, name) in relations})
    number = {name: column for column, name in enumerate(names)}
    entries = torch.tensor([(row, number[name]) for row, (_, _, name) in relations], dtype=torch.long).reshape(-1, 2)
    targets = sparse_targets(entries[:, 0], entries[:, 1], None, starts[-1], len(names))
    pairs = _all_pairs(documents)
    groups = number_groups([document.key.hex() for document in documents])[pairs.pairs[:, 0]]
    note = f"rows: {len(pairs)} ordered pairs of entities in {len(documents)} documents"
    return Dataset(pairs, targets, tuple(names), groups, notes=(note,))


def read_inputs(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> Iterator[Inputs]:
    """Yields the pairs of some documents at a time; `labels` may be there, or not."""
    documents: list[Document] = []
    for document, _ in _documents(path, options, on_bytes):
        documents.append(document)
        if sum(len(document.mentions) ** 2 for document in documents) >= BLOCK_ROWS:
            yield _all_pairs(documents)
            documents = []
    if documents:
        yield _all_pairs(documents)


def _all_pairs(documents: list[Document]) -> Pairs:
    parts = []
    for number, document in enumerate(documents):
        count = len(document.mentions)
        head, tail = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
        different = head != tail
        parts.append(torch.stack([torch.full_like(head, number), head, tail], -1)[different])
    return Pairs(tuple(documents), torch.cat(parts))


def _documents(path: Path, options: ReadOptions, on_bytes: OnBytes) -> Iterator[tuple[Document, list[Relation] | None]]:
    words: dict[str, str] = {}  # each once in memory, however often it stands in the file
    for number, record in enumerate(_records(path, options, on_bytes), 1):
        where = f"{path}, document {number}"
        if not isinstance(record, dict):
            raise UserError(f"{where}: expected an object such as {_EXAMPLE}, got {shown(record)}")
        document = _document(where, record, words)
        yield document, _relations(where, record.get("labels"), len(document.mentions))


def _records(path: Path, options: ReadOptions, on_bytes: OnBytes) -> Iterator[Any]:
    """Yields the items of one JSON list, or of lines of JSON, of which only some are in memory at a time."""
    decoder, text, number = json.JSONDecoder(), "", 0
    with open_bytes(path, options, on_bytes) as file:
        characters = io.TextIOWrapper(file, encoding="utf-8-sig")
        while True:
            text = text.lstrip(_BETWEEN if number else _BETWEEN + "[")
            try:
                record, end = decoder.raw_decode(text)
            except RecursionError:
                raise UserError(f"{path}, document {number + 1}: nested too deeply") from None
            except ValueError as error:
                if len(text) > longest_line(options):
                    raise too_long(f"{path}, document {number + 1}: not JSON", options) from None
                if part := characters.read(max(_CHUNK, len(text))):
                    text += part
                    continue
                if not text.strip(_BETWEEN + "]"):
                    return
                problem = error.msg if isinstance(error, json.JSONDecodeError) else "a number too long to read"
                raise UserError(f"{path}, document {number + 1}: not JSON: {problem}") from None
            yield record
            text, number = text[end:], number + 1


def _document(where: str, record: dict[str, Any], words: dict[str, str]) -> Document:
    sentences: Any = record.get("sents")
    entities: Any = record.get("vertexSet")
    if not _is_list_of(sentences, list) or not all(_is_list_of(sentence, str) for sentence in sentences):
        raise UserError(f"{where}: 'sents' must be lists of words, as in {_EXAMPLE}, got {shown(sentences)}")
    if not _is_list_of(entities, list) or not all(_is_list_of(mentions, dict) and mentions for mentions in entities):
        raise UserError(f"{where}: 'vertexSet' must be lists of mentions, as in {_EXAMPLE}, got {shown(entities)}")
    starts = list(accumulate(map(len, sentences), initial=0))
    mentions = tuple(tuple(_span(where, mention, starts) for mention in entity) for entity in entities)
    types = tuple(str(entity[0].get("type", "")) for entity in entities)
    tokens = tuple(words.setdefault(word, word) for sentence in sentences for word in sentence)
    return Document(str(record.get("title", "")), tokens, mentions, types)


def _span(where: str, mention: dict[str, Any], starts: list[int]) -> Span:
    sentence: Any = mention.get("sent_id")
    place: Any = mention.get("pos")
    if _is_list_of(place, int) and len(place) == 2 and isinstance(sentence, int) and 0 <= sentence < len(starts) - 1:
        start, stop = place
        if 0 <= start < stop <= starts[sentence + 1] - starts[sentence]:
            return starts[sentence] + start, starts[sentence] + stop
    raise UserError(f"{where}: a mention that stands in no sentence: {shown(mention, 100)}")


def _relations(where: str, labels: Any, entities: int) -> list[Relation] | None:
    if labels is None:
        return None
    if not _is_list_of(labels, dict):
        raise UserError(f"{where}: 'labels' must be a list of {_RELATION}, got {shown(labels)}")
    relations = []
    for label in labels:
        head, tail, name = label.get("h"), label.get("t"), label.get("r")
        ends = [end for end in (head, tail) if isinstance(end, int) and 0 <= end < entities]
        if len(ends) != 2 or head == tail or not isinstance(name, str) or not name or not is_text(name):
            raise UserError(
                f"{where}: expected a relation of two of its {entities} entities such as {_RELATION}, "
                f"got {shown(label, 100)}"
            )
        relations.append((ends[0], ends[1], name))
    return relations


def _is_list_of(value: Any, kind: type) -> bool:
    """Tells whether a value is a list of such items, which a report can hold if they are texts."""
    return isinstance(value, list) and all(
        isinstance(item, kind) and (not isinstance(item, str) or is_text(item)) for item in value
    )


def recognizes(path: Path, start: bytes) -> bool:
    """Tells such a file from other JSON by the names of its fields."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{") and (b'"vertexSet"' in start or b'"sents"' in start)


FORMAT = Format("docred", (".json", ".jsonl"), recognizes, read=read, read_inputs=read_inputs)
