"""Encodes texts as the mean of static token vectors, as model2vec and wordllama write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lopsided.data.inputs import Texts, csr_entries
from lopsided.data.storage import UserError
from lopsided.models.encoder import Batch, Body, Encoded, Then
from lopsided.models.features import Features, Standardised, recipe_of_frozen, scaling_of
from lopsided.models.recipe import Recipe
from lopsided.models.tokens import read_tokenizer, tokenize

_SAMPLE = 4096  # training texts by which features are standardised
_NAMES = ("embeddings", "embedding.weight")  # of model2vec; of wordllama and of sentence-transformers


@dataclass(frozen=True)
class Bags:
    """Holds the tokens of rows: those of row i are ids[indptr[i] : indptr[i + 1]], maybe none."""

    indptr: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def batch(self, rows: Tensor) -> Batch:
        """Returns the tokens of all rows, and where each row begins among them."""
        indptr, entries = csr_entries(self.indptr, rows)
        return self.ids[entries], indptr[:-1]


class MeanOfTokens(nn.Module):
    """Computes the mean of the vectors of a row's tokens, of unit length if `norm`; zeros for a row without tokens."""

    def __init__(self, table: Tensor, norm: bool, freeze: bool) -> None:
        super().__init__()
        self.width, self.norm = table.shape[1], norm
        self.embedding = nn.EmbeddingBag.from_pretrained(table, freeze=freeze, mode="mean")

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        means: Tensor = self.embedding(ids, offsets)
        return normalize(means) if self.norm else means


class Static:
    """Encodes texts by the vectors of their tokens, from a folder with a table (safetensors) and a tokenizer.json.

    freeze: the vectors stay as they are, and the head alone is trained. Else they are fine-tuned.
    norm: rows are scaled to unit length; None for what config.json says ("normalize"), or not.
    """

    name: ClassVar[str] = "static"
    inputs: ClassVar[type[Any]] = Texts

    def __init__(self, tokenizer: str, table: Tensor, freeze: bool, norm: bool, scaling: Tensor | None) -> None:
        """table: (tokens, width) float32. scaling: (2, width), mean and deviation of frozen features."""
        self.tokenizer, self.table, self.freeze, self.norm, self.scaling = tokenizer, table, freeze, norm, scaling

    @classmethod
    def fit(cls, inputs: Texts, path: str = "", freeze: bool = True, norm: bool | None = None) -> Static:
        if not path:
            raise ValueError("static: say which, as in static(path=FOLDER)")
        folder = Path(path)
        table = _read_table(folder)
        tokenizer = _only(folder, "tokenizer.json", "*tokenizer*.json").read_text(encoding="utf-8")
        read_tokenizer(tokenizer, None)  # a file that is none ends here
        if norm is None:
            config = folder / "config.json"
            norm = config.exists() and bool(json.loads(config.read_text(encoding="utf-8")).get("normalize"))
        encoder = cls(tokenizer, table, freeze, norm, None)
        if freeze:
            rows = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:_SAMPLE]
            encoder.scaling = scaling_of(encoder._features(inputs.take(rows).texts))
        return encoder

    def encode(self, inputs: Texts) -> Encoded:
        return Features(self._features(inputs.texts)) if self.freeze else self._bags(inputs.texts)

    def make_body(self) -> Body:
        """Makes the body. One that is fine-tuned has the vectors of the folder only before it is stored."""
        return self._mean(freeze=False) if self.scaling is None else Standardised(*self.scaling)

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        return recipe_of_frozen(rows)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns all that `from_stored` needs; a table that is fine-tuned stands among the weights of the network."""
        values = {"tokenizer": self.tokenizer, "norm": self.norm, "shape": list(self.table.shape)}
        return values, {} if self.scaling is None else {"table": self.table, "scaling": self.scaling}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> Static:
        freeze = "scaling" in tensors
        table = tensors["table"] if freeze else torch.zeros(*values["shape"])
        return cls(str(values["tokenizer"]), table, freeze, bool(values["norm"]), tensors.get("scaling"))

    def in_graph(self, inputs: Texts, body: nn.Module) -> tuple[Bags, nn.Module]:
        return self._bags(inputs.texts), Then(self._mean(freeze=True), body) if self.freeze else body

    def _mean(self, freeze: bool) -> MeanOfTokens:
        return MeanOfTokens(self.table if freeze else self.table.clone(), self.norm, freeze)

    def _bags(self, texts: Sequence[str]) -> Bags:
        """Tokenises texts; tokens that stand for an unknown word, or have no vector, are left out."""
        tokenizer = read_tokenizer(self.tokenizer, None)
        unknown = getattr(tokenizer.model, "unk_token", None)
        left_out = None if unknown is None else tokenizer.token_to_id(unknown)
        rows = tokenize(tokenizer, texts, special=False)
        rows = [[token for token in row if token != left_out and token < len(self.table)] for row in rows]
        lengths = torch.tensor([0, *map(len, rows)])
        return Bags(lengths.cumsum(0), torch.tensor([token for row in rows for token in row], dtype=torch.long))

    @torch.no_grad()
    def _features(self, texts: Sequence[str]) -> Tensor:
        """Computes (rows, width) float32 features."""
        bags = self._bags(texts)
        features: Tensor = self._mean(freeze=True)(bags.ids, bags.indptr[:-1])
        return features


def _read_table(folder: Path) -> Tensor:
    """Reads (tokens, width) float32 vectors, each as long as its token weighs. Raises UserError for other files."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _only(folder, "model.safetensors", "*.safetensors")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: {error}") from None
    names = [name for name in _NAMES if name in tensors]
    if not names:
        raise UserError(f"{path}: expected token vectors named {' or '.join(_NAMES)}, got {', '.join(tensors)[:200]}")
    table = tensors[names[0]].float()
    if "mapping" in tensors:  # tokens share vectors
        table = table[tensors["mapping"].long()]
    if "weights" in tensors:
        table = table * tensors["weights"].float()[:, None]
    return table


def _only(folder: Path, name: str, pattern: str) -> Path:
    """Returns the file of that name, or the only one of the pattern, in the folder or below it, as wordllama has them.

    Raises UserError for none and for several.
    """
    paths = [folder / name] if (folder / name).exists() else sorted(folder.rglob(pattern))
    if len(paths) != 1:
        found = ", ".join(path.relative_to(folder).as_posix() for path in paths)
        what = f"got {found}" if paths else "which is not there"
        raise UserError(f"{folder}: expected {name}, or one {pattern} in it or below, {what}")
    return paths[0]
