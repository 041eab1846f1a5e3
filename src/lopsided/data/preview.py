"""Draws a picture of samples with their labels."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Images
from lopsided.data.storage import write_atomically

_ROWS, _COLUMNS = 3, 4


def save_preview(data: Dataset, path: Path) -> None:
    """Writes a PNG of the first twelve images, each under its labels."""
    with mpl.rc_context({"font.size": 7}):
        figure = Figure(figsize=(9, 8.5), layout="constrained")
        axes = figure.subplots(_ROWS, _COLUMNS).flat
        assert isinstance(data.inputs, Images)
        for row, axis in enumerate(list(axes)[: len(data)]):
            axis.imshow(data.inputs.pixels[row].squeeze(0).numpy(), cmap="gray_r", vmin=0, vmax=255)
            names = [data.label_names[label] for label in data.targets_of(torch.tensor([row])).col.tolist()]
            lines = [", ".join(names[start : start + 2]) for start in range(0, len(names), 2)]
            axis.set_title("\n".join(lines) or "(no label)", fontsize=7)
        for axis in figure.axes:
            axis.set(xticks=[], yticks=[])
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
