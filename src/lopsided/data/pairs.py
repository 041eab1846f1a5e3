"""Defines inputs that are ordered pairs of entities of a document, whose relations are the labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from lopsided.data.inputs import Excerpt, digest

_WORDS_AROUND = 8  # words of an excerpt on each side of a mention

Span = tuple[int, int]  # of tokens: the first, and the one after the last


@dataclass(frozen=True)
class Document:
    """Holds the tokens of all sentences, and where each entity is mentioned among them.

    mentions: for each entity, the spans of its mentions, at least one. types: for each entity, its type, or "".
    """

    title: str
    tokens: tuple[str, ...]
    mentions: tuple[tuple[Span, ...], ...]
    types: tuple[str, ...]

    @cached_property
    def key(self) -> bytes:
        """Stands for the words, whatever the title."""
        return digest("\0".join(self.tokens).encode("utf-8", "surrogatepass"))

    def name(self, entity: int) -> str:
        """Returns the words of its longest mention."""
        start, stop = max(self.mentions[entity], key=lambda span: span[1] - span[0])
        return " ".join(self.tokens[start:stop])


@dataclass(frozen=True)
class Pairs:
    """Holds one ordered pair of entities a row, and the documents that they stand in.

    documents: each once, however many pairs it has. pairs: (rows, 3) int64: document, head entity, tail entity.

    >>> import torch
    >>> document = Document("", ("Ada", "lives", "in", "Rome"), (((0, 1),), ((3, 4),)), ("PER", "LOC"))
    >>> Pairs((document,), torch.tensor([[0, 0, 1], [0, 1, 0]])).excerpt(1)
    'Rome -> Ada: Ada lives in Rome'
    """

    kind: ClassVar[str] = "pair"
    documents: tuple[Document, ...]
    pairs: Tensor

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, rows: Tensor) -> Pairs:
        """Returns some of the rows; all documents stay, with their numbers."""
        return replace(self, pairs=self.pairs[rows])

    def excerpt(self, row: int) -> Excerpt:
        """Returns the names of both entities, and the words about the two mentions that are nearest to each other."""
        number, head, tail = self.pairs[row].tolist()
        document = self.documents[number]
        near = min(
            ((a, b) for a in document.mentions[head] for b in document.mentions[tail]),
            key=lambda spans: max(spans[0][0] - spans[1][1], spans[1][0] - spans[0][1]),
        )
        parts = [(max(start - _WORDS_AROUND, 0), stop + _WORDS_AROUND) for start, stop in sorted(near)]
        if parts[1][0] <= parts[0][1]:
            parts = [(parts[0][0], max(parts[0][1], parts[1][1]))]
        words = " ... ".join(" ".join(document.tokens[start:stop]) for start, stop in parts)
        return f"{document.name(head)} -> {document.name(tail)}: {words}"

    def keys(self) -> Iterator[bytes]:
        """Yields keys of the words of the document and of where both entities stand in it."""
        for number, head, tail in self.pairs.tolist():
            document = self.documents[number]
            yield digest(document.key, repr((document.mentions[head], document.mentions[tail])).encode())
