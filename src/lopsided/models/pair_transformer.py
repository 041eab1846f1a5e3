"""Encodes pairs of entities by a pretrained Hugging Face encoder, which is fine-tuned on whole documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lopsided.data.inputs import csr_entries
from lopsided.data.pairs import Document, Pairs
from lopsided.models.encoder import Batch
from lopsided.models.pretrained import Pretrained, token_states
from lopsided.models.recipe import Recipe
from lopsided.models.tokens import Tokens, read_tokenizer, valid

_MARK = "*"  # stands before and after each mention, as in ATLOP
_BLOCK = 16  # features of the head entity that are multiplied with as many of the tail


@dataclass(frozen=True)
class DocumentTokens:
    """Holds documents as windows of tokens, and where the mentions of their entities begin; pairs refer to them.

    windows: rows of tokens; those of document d are window_of[d] to window_of[d + 1]. mentions: (mentions, 2), window
    and place in it, those of entity e from mention_of[e] to mention_of[e + 1]. entity_of: (documents + 1,), the first
    entity of each document. pairs: (rows, 3), as in `Pairs`.
    """

    windows: Tokens
    window_of: Tensor
    mentions: Tensor
    mention_of: Tensor
    entity_of: Tensor
    pairs: Tensor

    def __len__(self) -> int:
        return len(self.pairs)

    def order(self, generator: torch.Generator) -> Tensor:
        """Returns the rows in a random order that leaves those of a document together, as each is encoded once."""
        shuffled = torch.randperm(len(self.pairs), generator=generator)
        rank = torch.randperm(len(self.window_of) - 1, generator=generator)
        return shuffled[rank[self.pairs[shuffled, 0]].argsort(stable=True)]

    def batch(self, rows: Tensor) -> Batch:
        """Returns windows (w, T) and their mask, places of mentions in them, flat, (m,), and the entity of each, (m,);
        and, (n,) each, the entities of head and tail. Entities are numbered from 0 within the batch."""
        document, head, tail = self.pairs[rows].unbind(1)
        documents, place = document.unique(return_inverse=True)
        begin, windows = csr_entries(self.window_of, documents)
        ids, mask = self.windows.batch(windows)
        first, entities = csr_entries(self.entity_of, documents)
        bounds, mentions = csr_entries(self.mention_of, entities)
        window, within = self.mentions[mentions].unbind(1)
        shift = begin[:-1] - self.window_of[documents]  # from a window's number to its row in the batch
        owner = torch.repeat_interleave(bounds.diff())
        of_document = torch.repeat_interleave(first.diff())[owner]
        flat = (window + shift[of_document]) * ids.shape[1] + within
        return ids, mask, flat, owner, first[place] + head, first[place] + tail


class EntityPairs(nn.Module):
    """Computes (n, width) hidden states of pairs: documents are encoded, the states at the mentions of an entity
    pooled by a log-sum-exp, and features of head and tail multiplied, in blocks, all with all.

    Source: ATLOP, Zhou et al., arXiv 2010.11304, without its pooling by the encoder's attention.
    """

    def __init__(self, model: nn.Module, states: int, hidden: int) -> None:
        super().__init__()
        self.model, self.width = model, hidden * _BLOCK
        self.head, self.tail = nn.Linear(states, hidden), nn.Linear(states, hidden)

    def forward(self, ids: Tensor, mask: Tensor, flat: Tensor, owner: Tensor, head: Tensor, tail: Tensor) -> Tensor:
        states = token_states(self.model, ids, mask).flatten(0, 1)[flat]
        entities = pooled(states, owner)
        one: Tensor = torch.tanh(self.head(entities))[head].unflatten(1, (-1, _BLOCK, 1))
        other: Tensor = torch.tanh(self.tail(entities))[tail].unflatten(1, (-1, 1, _BLOCK))
        return (one * other).flatten(1)


class PairTransformer:
    """Encodes pairs by a Hugging Face encoder from a folder or, by its name, from the hub, and fine-tunes it.

    A document is encoded once for all of its pairs in a batch. One of more than `length` tokens is encoded in parts.
    hidden: features of an entity, a multiple of 16.
    """

    name: ClassVar[str] = "pair_transformer"
    inputs: ClassVar[type[Any]] = Pairs

    def __init__(self, pretrained: Pretrained, hidden: int) -> None:
        self.pretrained, self.hidden = pretrained, hidden

    @classmethod
    def fit(cls, inputs: Pairs, path: str = "", length: int = 512, hidden: int = 256) -> PairTransformer:
        if not path:
            raise ValueError(
                "pair_transformer: say which, as in pair_transformer(path=FOLDER), or by its name on the hub"
            )
        if length < 8 or hidden < 1 or hidden % _BLOCK:
            wanted = f"length must be at least 8 and hidden a multiple of {_BLOCK}"
            raise ValueError(f"pair_transformer: {wanted}, got {length} and {hidden}")
        return cls(Pretrained.load(path, length), hidden)

    def encode(self, inputs: Pairs) -> DocumentTokens:
        tokenizer = read_tokenizer(self.pretrained.tokenizer, self.pretrained.length)
        rows: list[list[int]] = []
        mentions: list[tuple[int, int]] = []
        window_of, mention_of, entity_of = [0], [0], [0]
        for document in inputs.documents:
            words, marks = _marked(document)
            encoding = tokenizer.encode([valid(word) for word in words], is_pretokenized=True)
            places: dict[int | None, tuple[int, int]] = {}
            for number, window in enumerate((encoding, *encoding.overflowing), len(rows)):
                for place, word in enumerate(window.word_ids):
                    places.setdefault(word, (number, place))
                rows.append(window.ids)
            beginning = window_of[-1], 0  # for a tokenizer that leaves marks out
            window_of.append(len(rows))
            for spans in document.mentions:
                mentions += [places.get(marks[start], beginning) for start, _ in spans]
                mention_of.append(len(mentions))
            entity_of.append(len(mention_of) - 1)
        return DocumentTokens(
            Tokens.of(rows, self.pretrained.padding),
            torch.tensor(window_of),
            torch.tensor(mentions, dtype=torch.long).view(-1, 2),
            torch.tensor(mention_of),
            torch.tensor(entity_of),
            inputs.pairs,
        )

    def make_body(self) -> EntityPairs:
        """Makes the body. It has the pretrained weights only before the encoder is stored."""
        return EntityPairs(self.pretrained.make_model(), self.pretrained.width, self.hidden)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        """Gives ATLOP's rates; a batch holds the pairs of some documents."""
        return Recipe(10, 1024, learning_rate=1e-4, weight_decay=0.01, schedule="cosine", body_rate=0.5, clip_norm=1.0)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = self.pretrained.stored(with_weights=False)
        return values | {"hidden": self.hidden}, tensors

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> PairTransformer:
        return cls(Pretrained.from_stored(values, tensors), int(values["hidden"]))


def pooled(states: Tensor, owner: Tensor) -> Tensor:
    """Returns the log-sum-exp of the states of each entity: (m, D) and owner (m,), rising, to (entities, D).

    >>> pooled(torch.zeros(3, 1), torch.tensor([0, 0, 1]))
    tensor([[0.6931],
            [0.0000]])
    """
    at = owner[:, None].expand_as(states)
    shape = (int(owner[-1]) + 1, states.shape[1])
    highest = states.new_full(shape, -torch.inf).scatter_reduce(0, at, states.detach(), "amax")
    sums = states.new_zeros(shape).scatter_add(0, at, (states - highest[owner]).exp())
    return sums.log() + highest


def _marked(document: Document) -> tuple[list[str], dict[int, int]]:
    """Returns the words with marks about each mention, and the place of the mark before each start of a mention."""
    spans = {span for mentions in document.mentions for span in mentions}
    starts, stops = {start for start, _ in spans}, [stop for _, stop in spans]
    words: list[str] = []
    marks: dict[int, int] = {}
    for place, token in enumerate((*document.tokens, "")):
        words += [_MARK] * stops.count(place)
        if place in starts:
            marks[place] = len(words)
            words.append(_MARK)
        words.append(token)
    return words[:-1], marks
