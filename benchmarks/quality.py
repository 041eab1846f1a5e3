"""Prints how good the predictions of a program are, for end_to_end.py: python quality.py FOLDER.

The folder has test rows and predicted.jsonl, as peers.py says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from peers import labels_of, rows_of
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import MultiLabelBinarizer


def quality(folder: Path) -> dict[str, str]:
    """Returns P@k, and mAP where all labels are there: of those that have a positive test row."""
    _, truth = rows_of(folder, "test")
    found = [json.loads(line) for line in (folder / "predicted.jsonl").open(encoding="utf-8")]
    pairs = list(zip([row["labels"] for row in found], truth, strict=True))
    values = {f"P@{k}": sum(len({*row[:k]} & {*true}) for row, true in pairs) / k / len(truth) for k in (1, 3, 5)}
    if (folder / "train.jsonl").exists():
        names = MultiLabelBinarizer(classes=labels_of(folder))
        true = names.fit_transform([sorted({*row} & {*names.classes}) for row in truth])
        scores = np.full(true.shape, -np.inf)
        place = {label: number for number, label in enumerate(names.classes)}
        for line, row in zip(scores, found, strict=True):
            values_of_row = row.get("probabilities", row.get("scores"))  # without validation rows no probabilities
            line[[place[label] for label in row["labels"]]] = values_of_row
        some = true.any(0)
        values["mAP"] = average_precision_score(true[:, some], np.nan_to_num(scores[:, some]))
    return {name: f"{value:.3f}" for name, value in values.items()}


if __name__ == "__main__":
    print(json.dumps(quality(Path(sys.argv[1]))))
