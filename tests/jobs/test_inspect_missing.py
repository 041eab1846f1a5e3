"""Suspected missing labels: the ranking, and `lopsided inspect` end to end."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from lopsided.__main__ import main
from lopsided.data.excerpts import printable
from lopsided.data.make_xmc import XmcMaker, make_xmc
from lopsided.data.storage import read_tensors, write_json, write_tensors
from lopsided.decision.suspects import Suspects, rank_suspects
from lopsided.jobs.config import FitConfig
from lopsided.jobs.inspect_missing import score_part
from lopsided.losses import Curve, Formula, Sum, formula
from lopsided.losses.closed_form import discarding_point
from lopsided.metrics.scores import Judged, Scores
from lopsided.report.inspection import QUANTITIES
from lopsided.targets import SparseTargets
from lopsided.training.loop import train
from tests.tools import read_results, write_texts


def planted(rows: int = 4000, labels: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Scores on a scale that differs from label to label, the truth, and the truth with a third hidden."""
    generator = torch.Generator().manual_seed(0)
    logit = 2 * torch.randn(rows, labels, generator=generator) + torch.linspace(-5, -1, labels)
    truth = torch.rand(rows, labels, generator=generator) < torch.sigmoid(logit)
    scores = logit * torch.linspace(0.3, 3, labels) + 4 * torch.randn(labels, generator=generator)
    return scores, truth, truth & (torch.rand(rows, labels, generator=generator) > 1 / 3)


def found_early(suspects: Suspects, truth: Tensor, top: int) -> float:
    return float(truth[suspects.row[:top], suspects.label[:top]].double().mean())


def test_scales_of_labels_do_not_matter() -> None:
    """Compared with the best possible ranking, by the true probability, which the scores alone do not tell."""
    scores, truth, given = planted()
    suspects = rank_suspects(Judged.of(scores, given))
    assert len(suspects) == int((~given).sum())
    assert not given[suspects.row, suspects.label].any()
    assert torch.equal(suspects.score, scores[suspects.row, suspects.label])
    assert (suspects.probability.diff() <= 0).all()
    hidden = truth[suspects.row, suspects.label].numpy()
    ours = roc_auc_score(hidden, suspects.probability.numpy())
    logit = (scores - scores.mean(0)) / scores.std(0) * 2 + torch.linspace(-5, -1, 12)
    best = roc_auc_score(hidden, logit[suspects.row, suspects.label].numpy())
    assert roc_auc_score(hidden, suspects.score.numpy()) + 0.05 < ours
    assert ours == pytest.approx(best, abs=0.01)
    by_score = scores.masked_fill(given, -math.inf).flatten().topk(200).indices
    assert found_early(suspects, truth, 200) > 0.08 + float(truth.flatten()[by_score].double().mean())


def test_candidates_are_ranked_as_all_scores_are() -> None:
    scores, _, given = planted(rows=300)
    whole = rank_suspects(Judged.of(scores, given), 0.5, top=50)
    labels = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)).argsort(1)
    positives = SparseTargets(torch.nn.functional.pad(given.sum(1).cumsum(0), (1, 0)), given.nonzero()[:, 1])
    listed = Judged.of(Scores(scores.gather(1, labels), labels, scores.shape[1]), positives)
    few = rank_suspects(listed, 0.5, top=50)
    for name in ("row", "label", "score", "discarded"):
        assert torch.equal(getattr(few, name), getattr(whole, name)), name
    torch.testing.assert_close(few.probability, whole.probability)
    assert len(few) == 50
    assert torch.equal(few.discarded, few.score > 0.5)


def test_certain_scores_of_label_powerset() -> None:
    scores, _, given = planted(rows=300)
    scores[:, 3] = torch.where(given[:, 3], -1e30, 1e30)
    suspects = rank_suspects(Judged.of(scores, given))
    assert suspects.probability.isfinite().all()


@pytest.mark.parametrize(
    ("loss", "peak"),
    [
        ("asl", 0.9276),
        ("asl(detach_focus=False)", 0.9001),
        ("asl(gamma_neg=2, clip=0.2)", 0.8598),
        ("asl(gamma_neg=7)", 0.9459),
        ("asl(gamma_neg=0, clip=0.05)", 0.8209),
        ("focal", 0.9422),
    ],
)
def test_the_discarding_point_is_where_the_gradient_peaks(loss: str, peak: float) -> None:
    """The probabilities were found elsewhere, numerically, from the published formulas."""
    assert 1 / (1 + math.exp(-discarding_point(formula(loss)))) == pytest.approx(peak, abs=1e-4)


def test_hill_discards_above_its_known_peak() -> None:
    """p^2 (1.5 - p): its slope by z, p^2 (1 - p) (3 - 3 p), peaks at p = 1/2 by hand."""
    assert discarding_point(formula("hill")) == pytest.approx(0, abs=2e-3)


def test_losses_that_discard_nothing() -> None:
    def level(z: Tensor) -> tuple[Tensor, float]:
        return z, 1.0

    for loss in (
        *map(formula, ("bce", "zlpr", "asl(clip=0)", "softmax")),
        Formula(Curve(level), Curve(level), Sum()),
    ):
        assert discarding_point(loss) == math.inf


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def forget(path: Path, share: float = 0.2) -> set[tuple[int, str]]:
    """Take positives out of a file of `write_texts`; which, by row from 1 and label."""
    random, gone, kept = np.random.default_rng(1), set(), []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        row = json.loads(line)
        lost = [label for label in row["labels"] if random.random() < share]
        gone |= {(number, label) for label in lost}
        kept.append(json.dumps({"text": row["text"], "labels": [x for x in row["labels"] if x not in lost]}))
    path.write_text("\n".join(kept) + "\n")
    return gone


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    write_texts(folder / "texts.jsonl", 200)
    line = ["compare", str(folder / "texts.jsonl"), "--losses", "bce,asl", "--seeds", "1", "--epochs", "4"]
    assert main([*line, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.slow
def test_forgotten_labels_of_a_file_are_found(compared: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = forget(write_texts(folder / "other.jsonl", 300))
    line = ["inspect", str(compared), "other.jsonl", "--missing", "--folds", "3", "--top", str(len(gone))]
    assert main(line) == 0
    printed = capsys.readouterr().out
    head = next(line for line in printed.splitlines() if "suspected label" in line)
    assert head.split()[:4] == ["row", "suspected", "label", "probability"], "on 80 columns, too"
    (written,) = compared.glob("missing-other-*.csv")  # named by its digest, too
    lines = lines_of(written)
    found = {(int(line["row"]), line["label"]) for line in lines}
    assert len(found) == len(gone)
    assert len(found & gone) > 0.9 * len(gone)
    texts = [json.loads(line)["text"] for line in (folder / "other.jsonl").read_text().splitlines()]
    assert all(line["text"] == texts[int(line["row"]) - 1] for line in lines)
    falling = [float(line["probability"]) for line in lines]
    assert falling == sorted(falling, reverse=True)
    point = discarding_point(formula("asl"))
    assert all((line["discarded"] == "yes") == (float(line["score"]) > point) for line in lines)


@pytest.mark.slow
def test_a_stopped_inspection_goes_on(
    compared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["inspect", str(compared), "--missing", "--folds", "3", "--loss", "bce"]
    assert main(line) == 0
    whole = (compared / "missing.csv").read_bytes()
    trained = []

    def stop_at_the_second(*arguments: Any, **options: Any) -> Any:
        trained.append(arguments)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    for path in compared.glob("missing/*/*"):
        path.unlink()
    (compared / "missing.csv").unlink()
    monkeypatch.setattr("lopsided.jobs.inspect_missing.train", stop_at_the_second)
    assert main(line) == 130
    assert "stopped; go on with: the same command" in capsys.readouterr().err
    assert not (compared / "missing.csv").exists()
    assert main(line) == 0
    assert len(trained) == 4
    assert (compared / "missing.csv").read_bytes() == whole
    assert main(line) == 0
    assert len(trained) == 4, "all folds are read"
    fold = next(iter(compared.glob("missing/*/fold-1.safetensors")))
    write_tensors(fold, {"values": read_tensors(fold)[0]["values"][:, 1:].clone()})
    assert main(line) == 2
    assert "fold-1.safetensors: damaged (scores are not of " in capsys.readouterr().err
    fold.write_bytes(b"half")
    assert main(line) == 2
    assert "fold-1.safetensors: damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_hostile_texts_and_labels_stay_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label, text = '=HYPERLINK("http://x")[bold]\x1b[31m', '-1, "[/red]\x1b]0;title\x07\u202e\n\nnext'
    write_texts(folder / "texts.jsonl", 60)
    with (folder / "texts.jsonl").open("a") as file:
        for number in range(20):
            file.write(json.dumps({"text": f"{text} {number}", "labels": [label] if number else []}) + "\n")
    assert main(["compare", "texts.jsonl", "--losses", "bce,asl", "--seeds", "1", "--epochs", "8", "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["inspect", "run", "--missing", "--folds", "2", "--loss", "bce", "--top", "1"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert '=HYPERLINK("http://x")[bold]' in printed
    (line,) = lines_of(folder / "run/missing.csv")
    assert line["row"] == "61"
    assert line["label"] == '\'=HYPERLINK("http://x")[bold] [31m'
    assert line["text"] == "'-1, \"[/red] ]0;title next 0"


def test_excerpts_are_short() -> None:
    assert printable("word " * 40) == ("word " * 40)[:-1]
    assert len(printable("word " * 1000)) == len(printable("x" * 10**6)) == 200
    assert printable("x" * 201)[-2:] == "x…"


@pytest.mark.slow
def test_sparse_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_xmc(folder, XmcMaker(labels=100, features=100), rows=600, test_rows=1)
    line = ["fit", "train.txt", "--out", "run", "--epochs", "6", "--batch-size", "32"]
    assert main([*line, "--model", "bag(hidden=32, dropout=0)"]) == 0
    lines = (folder / "train.txt").read_text().splitlines()
    labels = [line.partition(" ")[0].split(",") for line in lines[1:]]
    gone = {(place + 1, row[0]) for place, row in enumerate(labels) if place % 4 == 0 and len(row) > 1}
    kept = [[label for label in row if (place + 1, label) not in gone] for place, row in enumerate(labels)]
    less = [f"{','.join(row)} {line.partition(' ')[2]}" for row, line in zip(kept, lines[1:], strict=True)]
    (folder / "less.txt").write_text("\n".join([lines[0], *less]))
    capsys.readouterr()
    assert main(["inspect", "run", "less.txt", "--missing", "--folds", "2", "--top", "50"]) == 0
    found = [(int(line["row"]), line["label"]) for line in lines_of(folder / "run/missing-less.csv")]
    assert len(set(found)) == 50
    assert not any(label in kept[row - 1] for row, label in found)
    by_chance = len(gone) / (100 * len(labels))
    assert len(set(found) & gone) / 50 > 20 * by_chance
    assert {path.suffix for path in folder.glob("run/missing/*/*")} == {".safetensors"}, "no state is left"
    capsys.readouterr()
    assert main(["inspect", "run"]) == 0
    printed = capsys.readouterr().out
    assert "train.txt: first → last epoch" in printed
    assert "effective gamma" in printed


def test_the_diagnostics_are_those_of_history_csv(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(finished)]) == 0
    out = [line.strip() for line in capsys.readouterr().out.splitlines()]
    printed = {title: line.removeprefix(title) for title in QUANTITIES for line in out if line.startswith(title)}
    lines = lines_of(finished / "history.csv")

    def mean(loss: str, epoch: str, column: str) -> float:
        return float(np.mean([float(x[column]) for x in lines if (x["loss"], x["epoch"]) == (loss, epoch)]))

    for title, column in (("gradient: pos.", "gradient_positive"), ("logit of neg.", "logit_negative")):
        shown = [float(word) for word in printed[title].replace("→", " ").split()]
        expected = [mean(loss, epoch, column) for loss in ("bce", "asl", "zlpr") for epoch in "12"]
        assert shown == pytest.approx(expected, abs=0.0051)
    assert printed.keys() == QUANTITIES.keys()
    first, last = printed["effective gamma"].split()[0].split("→")
    assert abs(float(first)) == abs(float(last)) == 0, "of cross-entropy"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "5"], "DATA, --loss, --top and --folds are for --missing"),
        (["--missing", "--loss", "nope"], "--loss: unknown loss 'nope'"),
        (["--missing", "--folds", "9999"], "--folds: must lie between 2 and the 200 rows, got 9999"),
        (["nowhere.jsonl", "--missing"], "nowhere.jsonl: no such file"),
        (["--missing", "--folds", "1"], "greater than or equal to 2"),
    ],
)
def test_bad_requests(compared: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["inspect", str(compared), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_folders_without_anything_to_tell(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folder)]) == 2
    assert "not a run folder" in capsys.readouterr().err
    write_texts(folder / "x.jsonl", 20)
    assert main(["inspect", str(finished), "x.jsonl", "--missing"]) == 2
    assert "a run on digits-grid has no other rows to look at" in capsys.readouterr().err
    (folder / "run").mkdir()
    (folder / "run/config.json").write_text((finished / "config.json").read_text())
    assert main(["inspect", "run"]) == 2
    assert "no training is finished yet" in capsys.readouterr().err
    text = (finished / "history.csv").read_text()
    header, first, *_ = text.splitlines(keepends=True)
    for content in ("", header, text + first, "loss,epoch\nbce,1\n", text.replace("bce,0,1", "bce,0,x")):
        (folder / "run/history.csv").write_text(content)
        assert main(["inspect", "run"]) == 2
        assert "run/history.csv: damaged (" in capsys.readouterr().err


def test_the_losses_of_a_plain_comparison_fit_a_terminal(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, folder / "run", ignore=shutil.ignore_patterns("runs"))
    text = (finished / "history.csv").read_text()
    asl = [line for line in text.splitlines() if line.startswith("asl,")]
    more = [line.replace("asl", name, 1) + "\n" for name in ("focal", "apl") for line in asl]
    (folder / "run/history.csv").write_text(text + "".join(more))
    assert main(["inspect", "run"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if "→" in line]
    assert [line.count("→") for line in table[1:]] == [5] * len(QUANTITIES), "nothing is wrapped"


@pytest.mark.slow
def test_a_tuned_loss_is_inspected_as_it_was_trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(folder / "texts.jsonl", 60)
    line = ["compare", "texts.jsonl", "--losses", "bce,asl", "--seeds", "1", "--epochs", "1", "--tune", "2"]
    line += ["--model", "ngrams(solve=False)"]
    assert main([*line, "--out", "run"]) == 0
    results = read_results(folder / "run")
    results["losses"]["asl"] |= {"settings": "asl(gamma_neg=1, gamma_pos=0, clip=0.5)"}
    results["losses"]["asl"]["tuned_settings"]["learning_rate"] = 0.125
    write_json(folder / "run/results.json", results)
    trained = []

    def record(config: FitConfig, *arguments: Any) -> Any:
        trained.append((config.learning_rate, config.loss))
        return score_part(config, *arguments)

    monkeypatch.setattr("lopsided.jobs.inspect_missing.score_part", record)
    assert main(["inspect", "run", "--missing", "--folds", "2", "--loss", "asl"]) == 0
    assert trained == [(0.125, "asl(gamma_neg=1, gamma_pos=0, clip=0.5)")] * 2
