"""Loads pretrained Hugging Face text encoders, and stores them so that neither their path nor a hub is needed again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lopsided.data.storage import UserError
from lopsided.models.tokens import Tokens, missing, read_tokenizer, tokenize

_TOKENS = 2**13  # that go through an encoder at a time when no gradient is kept


@dataclass(frozen=True)
class Pretrained:
    """Holds a text encoder: its configuration, the text of its tokenizer.json, and its weights.

    length: the most tokens of a text that are looked at. weights: None for those that a stored network brings along.
    """

    config: dict[str, Any]
    tokenizer: str
    length: int
    weights: dict[str, Tensor] | None

    @classmethod
    def load(cls, path: str, length: int) -> Pretrained:
        """Loads from a folder or a hub. Raises UserError for what is not there or is no text encoder."""
        transformers = import_transformers()
        try:
            with silenced(transformers):
                tokenizer = transformers.AutoTokenizer.from_pretrained(path)
                model = transformers.AutoModel.from_pretrained(path).float()
                text = tokenizer.backend_tokenizer.to_str()
        except (OSError, ValueError, AttributeError, ImportError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"cannot load a text encoder and its tokenizer from {path!r}: {reason}") from None
        config = model.config
        if config.is_encoder_decoder or not isinstance(getattr(config, "hidden_size", None), int):
            raise UserError(f"{path!r} is a {config.model_type}: give a model that encodes texts alone, such as a BERT")
        longest = min(length, tokenizer.model_max_length, _positions(config))
        values = json.loads(config.to_json_string(use_diff=False))
        return cls(values, text, longest, dict(_without_pooler(model).state_dict()))

    @property
    def width(self) -> int:
        return int(self.config["hidden_size"])

    @property
    def padding(self) -> int:
        return int(self.config.get("pad_token_id") or 0)

    def make_model(self) -> nn.Module:
        """Makes the encoder, in evaluation mode; torch's random state stays as it is."""
        transformers = import_transformers()
        with torch.random.fork_rng(devices=[]):
            config = transformers.AutoConfig.for_model(**self.config)
            model: nn.Module = _without_pooler(transformers.AutoModel.from_config(config).float())
        if self.weights is not None:
            model.load_state_dict(self.weights)
        return model.eval()

    def tokens(self, texts: Sequence[str]) -> Tokens:
        return Tokens.of(tokenize(read_tokenizer(self.tokenizer, self.length), texts), self.padding)

    def stored(self, with_weights: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values = {"config": self.config, "tokenizer": self.tokenizer, "length": self.length}
        weights = self.weights if with_weights and self.weights is not None else {}
        return values, {f"encoder.{name}": tensor for name, tensor in weights.items()}

    @classmethod
    def from_stored(cls, values: dict[str, Any], tensors: dict[str, Tensor]) -> Pretrained:
        weights = {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}
        return cls(values["config"], str(values["tokenizer"]), int(values["length"]), weights or None)


class TokenPool(nn.Module):
    """Makes one vector of the states of a text's tokens: (n, T, width) and a mask (n, T) to (n, pool.width).

    pooling: "mean" of all; "cls", the first; "attention": some queries, which are trained, each give a weighted mean
    of the states, and the means stand beside each other. Labels share them, so that the result has a width that any
    head takes, with and without logits; `LabelAttention` has a query for each label.
    """

    def __init__(self, width: int, pooling: str, queries: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.width = width * queries if pooling == "attention" else width
        if pooling == "attention":
            self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            return states[:, 0]
        if self.pooling == "mean":
            return (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        weights = (states @ self.queries.T).masked_fill(~mask[:, :, None], -torch.inf).softmax(dim=1)
        return (weights.mT @ states).flatten(1)


class PretrainedText(nn.Module):
    """Computes (n, width) hidden states of texts, from token numbers (n, T) and a mask of the same shape."""

    def __init__(self, model: nn.Module, pool: TokenPool) -> None:
        super().__init__()
        self.model, self.pool, self.width = model, pool, pool.width

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Computes them; without gradients, a few texts of about the same length at a time."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._pooled(ids, mask)
        order, parts = in_parts(mask.sum(1))
        pooled = [self._pooled(ids[part, :length], mask[part, :length]) for part, length in parts]
        return torch.cat(pooled)[order.argsort()]

    def _pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden: Tensor = self.pool(token_states(self.model, ids, mask), mask)
        return hidden


def in_parts(lengths: Tensor) -> tuple[Tensor, list[tuple[Tensor, int]]]:
    """Returns rows, longest first, and the same in parts of so many tokens with padding, each with its length."""
    order = lengths.argsort(descending=True, stable=True)
    parts, start = [], 0
    while start < len(order):
        length = int(lengths[order[start]])
        part = order[start : start + max(1, _TOKENS // length)]
        parts.append((part, length))
        start += len(part)
    return order, parts


def token_states(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Computes (n, T, width) states of tokens."""
    states: Tensor = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return states


def device_of_encoding() -> torch.device:
    """Returns where features are computed: the accelerator, if there is one."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def import_transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise missing("transformers") from None
    return transformers


def _positions(config: Any) -> int:
    """Returns for how many tokens there are positions; RoBERTa and its kin leave out those up to the padding's."""
    positions = getattr(config, "max_position_embeddings", None) or 2**30
    padding = config.pad_token_id if config.pad_token_id is not None else 0
    return int(positions) - padding - 1 if padding else int(positions)


def _without_pooler(model: Any) -> Any:
    """Takes off the layer that some models have for the first token, as it would get no gradient."""
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None
    return model


@contextmanager
def silenced(transformers: Any) -> Iterator[None]:
    """Hides progress bars, and notes about weights of heads that are left out."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
