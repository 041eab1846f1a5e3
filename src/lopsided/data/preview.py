"""Draws a picture of samples with their labels."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import matplotlib as mpl
from matplotlib.figure import Figure
from torch import Tensor

from lopsided.data.dataset import MultiLabelData
from lopsided.data.storage import write_atomically

_ROWS, _COLUMNS = 3, 4


def save_preview(data: MultiLabelData, path: Path) -> None:
    """Writes a PNG of the first twelve images, each under its labels."""
    with mpl.rc_context({"font.size": 7}):
        figure = Figure(figsize=(9, 8.5), layout="constrained")
        axes = figure.subplots(_ROWS, _COLUMNS).flat
        for image, targets, axis in zip(cast(Tensor, data.inputs), data.targets, axes, strict=False):
            axis.imshow(image.squeeze(0).numpy(), cmap="gray_r", vmin=0, vmax=255)
            names = [label for label, positive in zip(data.labels, targets, strict=True) if positive]
            lines = [", ".join(names[start : start + 2]) for start in range(0, len(names), 2)]
            axis.set_title("\n".join(lines) or "(no label)", fontsize=7)
        for axis in figure.axes:
            axis.set(xticks=[], yticks=[])
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
