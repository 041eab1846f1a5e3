"""Compares losses on relations between entities of documents, by the F1 and Ign-F1 of DocRED.

python examples/relation_extraction/main.py TRAIN.json TEST.json [DOCUMENTS] [OPTION ...]: the first DOCUMENTS of each
file, or all for 0, go to `lopsided compare`, with the options. Its scores and thresholds are then judged as the
official scorer does.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from lopsided.__main__ import main as command
from lopsided.data.dataset import Dataset
from lopsided.data.facts import seen_facts
from lopsided.data.readers import aligned, read
from lopsided.jobs.folder import ComparisonFolder
from lopsided.metrics.counts import Counts
from lopsided.metrics.relations import ign_f1
from lopsided.metrics.significance import holm, paired_differences

LEARNT = "(threshold_logit=0)"  # above the logit of a threshold class, one more output
LOSSES = ("bce", "focal", "asl", "apl", "zlpr", "atl", *(f"{loss}{LEARNT}" for loss in ("asl", "apl", "zlpr", "atl")))
RESAMPLES = 2000


def cut(source: str, documents: int, file: Path) -> Path:
    """Writes the first documents of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(json.loads(Path(source).read_text(encoding="utf-8"))[: documents or None]))
    return file


def dense(data: Dataset, chosen: torch.Tensor | None = None) -> torch.Tensor:
    """Returns (rows, L) bool: the positives, or the chosen ones of them."""
    row, column = torch.repeat_interleave(data.targets.crow.diff()), data.targets.col
    full = torch.zeros(len(data), data.num_labels, dtype=torch.bool)
    full[row, column] = True if chosen is None else chosen
    return full


def count(folder: ComparisonFolder, train: Dataset, test: Dataset) -> dict[str, np.ndarray]:
    """Returns, at own and tuned thresholds, (losses, seeds, documents, 4) counts of relations: predicted rightly,
    predicted, true, and predicted rightly though training states them."""
    truth, seen = dense(test), dense(test, seen_facts(train, test))
    results, document = folder.read_results(), test.inputs.pairs[:, 0]
    counts: dict[str, list] = {"own": [], "tuned": []}
    for loss in LOSSES:
        for seed, tuned in enumerate(results.losses[loss].tuned_thresholds):
            scores = folder.open_run(loss, seed).read_scores("test", len(test)).values
            for name, threshold in (("own", results.losses[loss].own_threshold), ("tuned", tuned)):
                decided = scores > threshold
                parts = [each.sum(1) for each in (decided & truth, decided, truth, decided & seen)]
                whole = torch.zeros(len(test.inputs.documents), 4, dtype=torch.long)
                counts[name].append(whole.index_add_(0, document, torch.stack(parts, 1)).numpy())
    return {name: np.stack(each).reshape(len(LOSSES), -1, *each[0].shape) for name, each in counts.items()}


def both_f1(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps (..., 4) counts to F1 and Ign-F1."""
    *three, seen = np.moveaxis(counts, -1, 0)
    return Counts(*three).f_beta(), ign_f1(Counts(*three), seen)


def against_bce(counts: np.ndarray) -> list:
    """Returns differences of Ign-F1, paired over seeds and over documents that are drawn anew."""
    documents = counts.shape[2]
    drawn = np.random.default_rng(0).multinomial(documents, np.full(documents, 1 / documents), RESAMPLES)
    resampled = np.einsum("rd,lsdk->rlsk", drawn.astype(float), counts, optimize=True)
    return paired_differences(*(torch.from_numpy(both_f1(each)[1]) for each in (counts.sum(2), resampled)))


def draw(own: np.ndarray, tuned: np.ndarray, differences: list, file: Path) -> None:
    """Draws Ign-F1 at own and tuned thresholds, and the differences to bce of the latter."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    names = [loss.replace(LEARNT, ", learnt") for loss in LOSSES]
    for shift, values, name in ((-0.2, own, "own threshold"), (0.2, tuned, "one tuned threshold")):
        left.bar(np.arange(len(LOSSES)) + shift, values, 0.4, label=name)
    left.set_xticks(range(len(LOSSES)), names, rotation=60)
    left.set(ylabel="Ign-F1")
    left.margins(y=0.25)  # room for the legend
    left.legend(fontsize=8, ncols=2)
    for place, each in enumerate(differences):
        ends = [[each.mean - each.low], [each.high - each.mean]]
        right.errorbar(each.mean, place, xerr=ends, fmt="o", capsize=4, color="C0")
    right.locator_params(axis="x", nbins=5)
    right.axvline(0, color="k", linewidth=0.8)
    right.set_yticks(range(len(differences)), names[1:])
    right.set_ylim(len(differences) - 0.5, -0.5)
    right.set(xlabel="Ign-F1 above bce, tuned thresholds, 95 % interval")
    figure.savefig(file, dpi=80)
    plt.close(figure)


def main(
    train: str, test: str, documents: str = "0", *words: str, out: Path = Path("runs/relation_extraction")
) -> None:
    files = [cut(file, int(documents), out / name) for file, name in ((train, "train.json"), (test, "test.json"))]
    line = ["compare", str(files[0]), "--test", str(files[1]), "--losses", ",".join(LOSSES), "--keep-overlap", *words]
    if status := command([*line, "--out", str(out / "compared")]):
        raise SystemExit(status)
    folder, parts = ComparisonFolder.open(out / "compared"), aligned([read(file) for file in files])
    counts, results = count(folder, *parts), folder.read_results()
    seen, differences = seen_facts(*parts), against_bce(counts["tuned"])
    draw(*(both_f1(counts[name].sum(2))[1].mean(1) for name in ("own", "tuned")), differences, out / "losses.png")

    print(
        f"\n{len(seen)} relations in {len(parts[1].inputs.documents)} test documents, {seen.sum()} of them in training"
    )
    print(f"{'loss':26}mAP   own: F1  Ign-F1   tuned: F1  Ign-F1   Ign-F1 against bce, 95 % interval  p (Holm)")
    corrected = [1.0, *holm([each.p_value for each in differences])]
    for place, loss in enumerate(LOSSES):
        own, tuned = ([each.mean() for each in both_f1(counts[name][place].sum(1))] for name in ("own", "tuned"))
        line = f"{loss:22}{results.losses[loss].metrics['map'].mean:8.3f}"
        line += "{:10.3f}{:8.3f}".format(*own) + "{:12.3f}{:8.3f}".format(*tuned)
        if place:
            each = differences[place - 1]
            line += f"{each.mean:+14.3f}   {each.low:+.3f} to {each.high:+.3f}{corrected[place]:12.3f}"
        print(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
