"""Keeps scores of rows in safetensors files, and checks what is read, which anybody may have written."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lopsided.metrics.scores import Scores


def tensors_of(scores: Scores) -> dict[str, Tensor]:
    """Returns the tensors that hold scores."""
    return {"values": scores.values} | ({} if scores.columns is None else {"columns": scores.columns})


def scores_in(tensors: Mapping[str, Tensor], rows: int, num_labels: int) -> Scores:
    """Returns stored scores. Raises LookupError or ValueError where they are not those of so many rows and labels."""
    values, columns = tensors["values"], tensors.get("columns")
    if values.ndim != 2 or len(values) != rows or values.dtype != torch.float32:
        raise ValueError(f"scores are {values.dtype} {tuple(values.shape)} of {rows} rows")
    if columns is None:
        right = values.shape[1] == num_labels
    else:
        in_range = columns.dtype == torch.int64 and not ((columns < 0) | (columns > num_labels)).any()
        right = columns.shape == values.shape and in_range
    if not right:
        raise ValueError(f"scores are not of {num_labels} labels")
    return Scores(values, columns, num_labels)
