"""Holds texts as numbers of tokens, by a tokenizer of the tokenizers library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from lopsided.data.inputs import csr_entries
from lopsided.data.storage import UserError
from lopsided.models.encoder import Batch

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Tokens:
    """Holds rows of token numbers: those of row i are ids[indptr[i] : indptr[i + 1]], at least one.

    indptr: (rows + 1,) int64. ids: (tokens,) int32. padding: the number that fills rows up in a batch.

    >>> Tokens(torch.tensor([0, 1, 3]), torch.tensor([7, 8, 9]), padding=0).batch(torch.tensor([1, 0]))
    (tensor([[8, 9],
            [7, 0]]), tensor([[ True,  True],
            [ True, False]]))
    """

    indptr: Tensor
    ids: Tensor
    padding: int

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], padding: int) -> Tokens:
        """Makes them of lists of numbers; a row without any gets one token, the padding."""
        rows = [row or (padding,) for row in rows]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        return cls(
            pad(lengths.cumsum(0), (1, 0)), torch.tensor([*chain.from_iterable(rows)], dtype=torch.int32), padding
        )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def batch(self, rows: Tensor) -> Batch:
        """Returns (n, longest) int64 numbers, and the same shape of bool, True where a token stands."""
        mask, entries = places(self.indptr, rows)
        ids = torch.full(mask.shape, self.padding)
        ids[mask] = self.ids[entries].long()
        return ids, mask


def places(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where the entries of rows stand when each row is filled up, (n, longest) bool, and their numbers."""
    begin, entries = csr_entries(indptr, rows)
    lengths = begin.diff()
    return torch.arange(int(lengths.max())) < lengths[:, None], entries


@lru_cache(maxsize=4)
def read_tokenizer(text: str, length: int | None) -> Tokenizer:
    """Makes a tokenizer from the text of a tokenizer.json that pads nothing and cuts rows off at `length` tokens.

    It is kept, since reading it takes longer than a request. Raises UserError for a text that is none.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise missing("tokenizers") from None
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower one
        raise UserError(f"cannot read the tokenizer.json of the model: {error}") from None
    tokenizer.no_padding()
    if length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(length)
    return tokenizer


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    """Returns the numbers of the tokens of each text, with those that the encoder wants around it if `special`."""
    rows = tokenizer.encode_batch_fast([valid(text) for text in texts], add_special_tokens=special)
    return [row.ids for row in rows]


def valid(text: str) -> str:
    """Returns the text with question marks for lone surrogates, which the library does not take."""
    return text.encode("utf-8", "replace").decode()


def missing(package: str) -> UserError:
    """Returns the error for an optional package that is not installed."""
    return UserError(
        f"the package {package}, which this model needs, is not installed: pip install 'lopsided[transformers]'"
    )
