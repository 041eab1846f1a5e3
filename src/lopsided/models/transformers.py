"""Encodes texts by a pretrained Hugging Face encoder, frozen or fine-tuned."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from lopsided.data.inputs import Texts
from lopsided.models.encoder import Body, DirectBody, Encoded, Then
from lopsided.models.features import Features, Standardised, States, recipe_of_frozen, recipe_of_tuned, scaling_of
from lopsided.models.label_attention import PretrainedStates, TokenStates
from lopsided.models.pretrained import Pretrained, PretrainedText, TokenPool, device_of_encoding, in_parts, token_states
from lopsided.models.recipe import Recipe, solved_recipe
from lopsided.models.tokens import Tokens, places

_FIXED = ("mean", "cls")  # poolings without weights: of a frozen encoder, what they give is computed once
_POOLINGS = (*_FIXED, "attention", "labels")
_SAMPLE = 512  # training texts by which features are standardised


@dataclass(frozen=True)
class Settings:
    freeze: bool
    pooling: str
    queries: int


class Transformer:
    """Encodes texts by a Hugging Face model from a folder or, by its name, from the hub.

    freeze: the encoder stays as it is; its features are computed once for a data set and held in memory, and the head
    alone is solved, or trained in steps, in seconds. Else the encoder is fine-tuned, which takes a GPU or patience. A
    small frozen encoder can rank worse than n-grams do: MiniLM does on both sets of texts of
    benchmarks/results/frozen_encoder.csv.
    pooling: see `TokenPool`; or "labels", for each label a mean of its own, see `LabelAttention`.
    solve: whether a head on such features, of the poolings mean and cls, is solved or trained in steps.
    length: texts are cut off after so many tokens, or after as many as the encoder takes.
    Tokenizer, configuration and weights are stored with the model.
    """

    name: ClassVar[str] = "transformer"
    inputs: ClassVar[type[Any]] = Texts

    def __init__(self, pretrained: Pretrained, settings: Settings, scaling: Tensor | None, solve: bool = True) -> None:
        """scaling: (2, width), mean and deviation of frozen features; None where there are none."""
        self.pretrained, self.settings, self.scaling, self.solve = pretrained, settings, scaling, solve

    @classmethod
    def fit(
        cls, inputs: Texts, path: str = "", freeze: bool = True, pooling: str = "mean", length: int = 256,
        queries: int = 8, solve: bool = True,
    ) -> Transformer:  # fmt: skip
        if not path:
            raise ValueError("transformer: say which, as in transformer(path=FOLDER), or by its name on the hub")
        if pooling not in _POOLINGS:
            raise ValueError(f"transformer: pooling must be one of {', '.join(_POOLINGS)}, got {pooling!r}")
        if length < 1 or queries < 1:
            raise ValueError(f"transformer: length and queries must be at least 1, got {length} and {queries}")
        encoder = cls(Pretrained.load(path, length), Settings(freeze, pooling, queries), None, solve)
        if encoder._fixed:
            rows = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:_SAMPLE]
            encoder.scaling = scaling_of(encoder._features(encoder.pretrained.tokens(inputs.take(rows).texts)))
        return encoder

    @property
    def _fixed(self) -> bool:
        return self.settings.freeze and self.settings.pooling in _FIXED

    def encode(self, inputs: Texts) -> Encoded:
        tokens = self.pretrained.tokens(inputs.texts)
        if not self.settings.freeze:
            return tokens
        if self.settings.pooling not in _FIXED:
            return self._states(tokens)
        return Features(self._features(tokens))

    def make_body(self) -> Body | DirectBody:
        """Makes the body. One that is fine-tuned has its pretrained weights only before it is stored."""
        if self.scaling is not None:
            return Standardised(*self.scaling)
        width, frozen = self.pretrained.width, self.settings.freeze
        if self.settings.pooling == "labels":
            return TokenStates(width) if frozen else PretrainedStates(self.pretrained.make_model(), width)
        return self._pool() if frozen else PretrainedText(self.pretrained.make_model(), self._pool())

    def recipe(self, rows: int, num_labels: int) -> Recipe:
        """Solves a head on features; if the encoder is fine-tuned, gives the usual few epochs of small steps."""
        if self.settings.freeze:
            width = self.pretrained.width
            solved = solved_recipe(rows, rows * width, width, num_labels) if self.solve and self._fixed else None
            return solved or recipe_of_frozen(rows)
        return recipe_of_tuned(rows)

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = self.pretrained.stored(with_weights=self.settings.freeze)
        scaling = {} if self.scaling is None else {"scaling": self.scaling}
        return values | asdict(self.settings), tensors | scaling

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> Transformer:
        settings = Settings(bool(values["freeze"]), str(values["pooling"]), int(values["queries"]))
        encoder = cls(Pretrained.from_stored(values, tensors), settings, tensors.get("scaling"))
        if settings.freeze:
            _ = encoder._frozen  # what is wrong with it is told now
        return encoder

    def in_graph(self, inputs: Texts, body: torch.nn.Module) -> tuple[Tokens, torch.nn.Module]:
        tokens = self.pretrained.tokens(inputs.texts)
        if not self.settings.freeze:
            return tokens, body
        if self.settings.pooling == "labels":
            return tokens, PretrainedStates(self._frozen, self.pretrained.width)
        if isinstance(body, TokenPool):
            return tokens, PretrainedText(self._frozen, body)
        return tokens, Then(PretrainedText(self._frozen, self._pool()), body)

    def _pool(self) -> TokenPool:
        return TokenPool(self.pretrained.width, self.settings.pooling, self.settings.queries)

    @cached_property
    def _frozen(self) -> torch.nn.Module:
        return self.pretrained.make_model().to(device_of_encoding())

    @torch.no_grad()
    def _features(self, tokens: Tokens) -> Tensor:
        """Computes (rows, width) float32 features, on the CPU."""
        body = PretrainedText(self._frozen, self._pool())
        features = torch.empty(len(tokens), body.width)
        for part, _ in in_parts(tokens.indptr.diff())[1]:
            features[part] = body(*(each.to(device_of_encoding()) for each in tokens.batch(part))).float().cpu()
        return features

    @torch.no_grad()
    def _states(self, tokens: Tokens) -> States:
        states = torch.empty(len(tokens.ids), self.pretrained.width, dtype=torch.float16)
        for part, _ in in_parts(tokens.indptr.diff())[1]:
            ids, mask = (each.to(device_of_encoding()) for each in tokens.batch(part))
            states[places(tokens.indptr, part)[1]] = token_states(self._frozen, ids, mask)[mask].half().cpu()
        return States(tokens.indptr, states)
