"""Scores that any tool wrote get the verdict of `lopsided compare`: files, and a user's own training loop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from numpy.typing import NDArray
from pyarrow import csv, parquet
from scipy.sparse import csr_matrix, save_npz
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

import lopsided
from lopsided.__main__ import main
from lopsided.data.storage import UserError
from lopsided.jobs.compare_config import make_config
from lopsided.jobs.results import summarize
from lopsided.jobs.schema import Results
from lopsided.jobs.score_sets import evidence_of_files
from lopsided.models.heads import dense_targets
from tests.tools import load_quietly, quiet_progress, read_results, scores_of

NAMES = ("a", "b", "c", "d")


def made(seed: int, rows: int = 120) -> tuple[NDArray[Any], NDArray[Any]]:
    """Truth that is the same for all seeds, and scores that know something of it."""
    truth = np.random.default_rng(0).random((rows, len(NAMES))) < [0.5, 0.3, 0.2, 0.1]
    return truth.astype(np.int8), (truth * 1.5 + np.random.default_rng(seed).normal(size=truth.shape)).astype("f4")


@pytest.fixture
def files(folder: Path) -> Path:
    """Two seeds of two systems, one in numpy's files, the other as tables with columns in another order."""
    truth, _ = made(0)
    np.savez("y.npz", truth=truth, label_names=np.array(NAMES))
    for seed in (0, 1):
        np.save(f"bce-seed{seed}.npy", made(1 + seed)[1])
        _, scores = made(11 + seed)
        table = pyarrow.table({name: scores[:, NAMES.index(name)] for name in "dbac"})
        parquet.write_table(table, f"svm{seed}.parquet")
        csv.write_csv(table, f"svm{seed}.csv")
    return folder


def judged(*arguments: str) -> dict[str, Any]:
    assert main(["verdict", "--out", "out", *arguments]) == 0
    return read_results(Path("out"))


def judged_quickly(scores: list[str], truth: str = "y.npz", metric: str = "map", scale: str | None = None) -> Results:
    """The same, without a report."""
    evidence = evidence_of_files(scores, [], {"test": Path(truth)}, metric, None, scale)
    return summarize(evidence, quiet_progress())


def test_scores_that_unpack_to_too_much_name_no_option_of_other_commands(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez_compressed("zeros.npz", np.zeros((2500, len(NAMES))))
    monkeypatch.setattr("lopsided.data.opening._MOST_UNPACKED", 1e-5)
    assert main(["verdict", "a=zeros.npz", "b=zeros.npz", "--truth", "y.npz"]) == 2
    assert "zeros.npz: unpacks to more than 1e-05 GB; where it is meant to: save it as .npy" in capsys.readouterr().err


def test_the_verdict_on_the_scores_of_a_comparison_is_its_own(finished: Path, folder: Path) -> None:
    splits = load_quietly(make_config({"images": 600}))
    assert splits.valid is not None
    assert splits.test is not None
    for part, rows in (("train", splits.train), ("valid", splits.valid), ("test", splits.test)):
        np.save(f"{part}.npy", dense_targets(rows.targets, 90).numpy())
    given: dict[str, list[str]] = {"valid": [], "test": []}
    stored = {"valid": "tuning", "test": "test"}  # so few validation rows are those of tuning as well
    for number, loss in enumerate(("bce", "asl", "zlpr")):
        for part, texts in given.items():
            for seed in (0, 1):
                np.save(
                    f"{part}-{loss}{seed}.npy", scores_of(finished / f"runs/{number}-{loss}-seed{seed}", stored[part])
                )
            texts.append(f"{loss}={part}-{loss}0.npy,{part}-{loss}1.npy")
    truths = ["--truth", "test.npy", "--valid-truth", "valid.npy", "--train-truth", "train.npy"]
    valid = [word for text in given["valid"] for word in ("--valid", text)]
    found, expected = judged(*truths, *given["test"], *valid), read_results(finished)
    assert {loss: entry["metrics"] for loss, entry in found["losses"].items()} == {
        loss: entry["metrics"] for loss, entry in expected["losses"].items()
    }
    for loss, comparison in found["comparisons"].items():
        told = expected["comparisons"][loss]
        assert {**comparison, "verdict": ""} == {**told, "verdict": ""}
    details = [json.loads((run / "details.json").read_text()) for run in (Path("out"), finished)]
    for part in ("labels", "curves", "reliability", "gradients"):
        assert {**details[0][part], "names": None} == {**details[1][part], "names": None}


@pytest.mark.slow
def test_all_forms_of_files_say_the_same(files: Path) -> None:
    truth, scores = made(0)[0], made(11)[1]
    save_npz("sparse.npz", csr_matrix(truth))
    svm = ["svm=svm0.csv,svm1.csv", "svm=svm0.parquet,svm1.parquet"]
    first, second = (judged_quickly(["bce-seed1.npy", "bce-seed0.npy", each]) for each in svm)
    assert first == second
    assert first.reference == "bce"
    expected = [average_precision_score(truth, made(seed)[1]) for seed in (11, 12)]
    assert first.losses["svm"].metrics["map"].mean == pytest.approx(np.mean(expected), abs=1e-6)
    np.save("one.npy", scores)
    save_npz("candidates.npz", csr_matrix(np.where(scores >= np.sort(scores, 1)[:, [-2]], scores, 0)))
    third = judged_quickly(["one.npy", "candidates.npz"], "sparse.npz", "p@1").losses
    assert third["one"].metrics["p@1"] == third["candidates"].metrics["p@1"]
    for name, kind in (("whole.npy", int), ("floats.npy", float)):
        np.save(name, (10 * scores).round().astype(kind))
    fourth = judged_quickly(["whole.npy", "floats.npy"]).losses
    assert fourth["whole"].metrics["map"] == fourth["floats"].metrics["map"]


@pytest.mark.slow
def test_probabilities_become_logits_that_rank_alike(files: Path) -> None:
    logits = judged_quickly(["bce-seed0.npy", "svm0.csv"])
    for name, seed in (("bce-seed0", 1), ("svm0", 11)):
        np.save(f"{name}.npy", 1 / (1 + np.exp(-made(seed)[1].astype(float))))
    shares = judged("--truth", "y.npz", "bce-seed0.npy", "svm0.npy", "--scale", "probabilities")
    for name in ("bce", "svm0"):
        for metric in ("map", "micro_f1_own"):
            mean = logits.losses[name].metrics[metric].mean
            assert shares["losses"][name]["metrics"][metric]["mean"] == pytest.approx(mean, abs=1e-12)
    assert "The own threshold of svm0 is logit 0, a probability of 0.5." in shares["notes"]
    page = Path("out/report.html").read_text()
    assert "lopsided verdict" in page
    assert "None" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bce-seed0.npy", "a verdict needs at least two systems, got bce"),
        ("bce-seed0.npy short.npy", "short.npy: scores of 60 rows and 4 labels, but the truth has 120 rows"),
        ("bce-seed0.npy wide.npy", "wide.npy: 8 labels, but y.npz has 4"),
        ("bce-seed0.npy other.csv", "other.csv: its labels are not those of y.npz: 'e' is only in other.csv"),
        ("bce-seed0.npy shares.npy", "shares.npy: all scores lie in [0, 1], as probabilities do, where logits are"),
        ("bce-seed0.npy svm0.csv --scale probabilities", "bce-seed0.npy: expected probabilities, got scores from -"),
        ("bce-seed0.npy svm0.csv --scale percent", "scale: expected logits or probabilities, got 'percent'"),
        ("bce-seed0.npy lost.npy", "lost.npy: 1 of 480 scores are NaN or infinite"),
        ("bce-seed0.npy bce-seed1.npy svm0.csv", "svm0 has the seeds 0, but bce 0, 1: differences are paired by seed"),
        ("a/x.npy b/x.npy", "a/x.npy and b/x.npy are both seed 0 of x: write x=a/x.npy,b/x.npy"),
        ("bce-seed0.npy svm0.csv --reference asl", "the reference 'asl' is not among bce, svm0"),
        ("bce-seed0.npy svm0.csv --metric mpa", "unknown metric 'mpa': did you mean 'map'?"),
        ("bce-seed0.npy svm0.csv --metric micro_f1", "micro_f1 is decided by a tuned threshold: give scores of valid"),
        ("bce-seed0.npy svm0.csv --valid bce=svm1.csv", "validation rows need both"),
        ("bce-seed0.npy text.csv", "text.csv: column 'a' holds no numbers"),
        ("bce-seed0.npy bare.csv", "bare.csv: line 1 must name the labels, it has numbers: '0.5, 0.25'"),
        ("bce-seed0.npy two.npz", "two.npz: expected one array (rows, labels) of numbers, there are: p (120, 4)"),
        ("bce-seed0.npy y.txt", "y.txt: expected a matrix of numbers in a file that ends in .npz, .npy"),
        ("=bce-seed0.npy svm0.csv", "=bce-seed0.npy: write NAME=bce-seed0.npy, or the file alone"),
        ("bce-seed0.npy gone.npy", "gone.npy: no such file"),
        ("bce-seed0.npy gone.csv", "gone.csv: no such file"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    arguments: str, message: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = made(11)[1]
    np.save("short.npy", scores[:60])
    np.save("wide.npy", np.hstack([scores, scores]))
    np.save("shares.npy", 1 / (1 + np.exp(-scores)))
    np.save("lost.npy", np.where(scores == scores.max(), np.nan, scores))
    np.savez("two.npz", p=scores, q=scores)
    Path("other.csv").write_text("a,b,c,e\n1,2,3,4\n")
    Path("text.csv").write_text("a,b,c,d\nx,2,3,4\n")
    Path("bare.csv").write_text("0.5,0.25\n1,2\n")
    Path("y.txt").touch()
    assert main(["verdict", "--truth", "y.npz", *arguments.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lopsided: {message}")


INPUTS, TRUTH = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)), made(0, 200)[0]


def train(criterion: nn.Module, seed: int) -> Tensor:
    torch.manual_seed(seed)
    model = nn.Linear(5, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        criterion(model(INPUTS), torch.from_numpy(TRUTH)).backward()
        optimizer.step()
    scores: Tensor = model(INPUTS)
    return scores


@pytest.mark.slow
def test_an_own_loop_gives_the_verdict_of_its_scores(folder: Path) -> None:
    outcome = lopsided.compare_losses(train, ["bce", "asl(gamma_neg=2)"], TRUTH, seeds=2, label_names=NAMES)
    asl = "asl(gamma_neg=2)"
    for loss, entry in outcome.results.losses.items():
        scores = [train(lopsided.loss(loss), seed).detach().numpy() for seed in (0, 1)]
        expected = np.mean([average_precision_score(TRUTH, each) for each in scores])
        assert entry.metrics["map"].mean == pytest.approx(expected, abs=1e-6)
        for seed in (0, 1):
            np.save(f"{loss.partition('(')[0]}{seed}.npy", scores[seed])
    assert outcome.results.losses[asl].own_threshold == pytest.approx(lopsided.loss(asl).decision_threshold())
    np.savez("y.npz", truth=TRUTH, names=np.array(NAMES))
    found = judged_quickly(["bce=bce0.npy,bce1.npy", f"{asl}=asl0.npy,asl1.npy"])
    assert found.comparisons == outcome.results.comparisons
    assert outcome.headline.removesuffix(".") in outcome.write("own").read_text()
    assert "mAP against bce, paired" in str(outcome)
    with pytest.raises(UserError, match=r"holds asl0.npy, which is no file of a verdict"):
        outcome.write(folder)


@pytest.mark.slow
def test_an_own_loop_may_diverge_have_validation_rows_and_criteria_of_its_own() -> None:
    def give(criterion: str, seed: int) -> tuple[Tensor, NDArray[Any]]:
        scores = torch.from_numpy(made(len(criterion) + seed)[1])
        return (scores * torch.nan if (criterion, seed) == ("lost", 1) else scores), scores.numpy()

    truth = csr_matrix(made(0)[0])
    own = {"a": "a", "lost": "lost", "other": "other"}
    outcome = lopsided.compare_losses(give, own, truth, seeds=[4, 1], valid_truth=truth.toarray().tolist(), name="rows")
    verdicts = {name: each.verdict for name, each in outcome.results.comparisons.items()}
    assert verdicts["lost"] == "cannot be tested"
    assert outcome.results.losses["a"].metrics["micro_f1"].mean is not None
    assert "lost diverged in 1 of 2 trainings; lower the learning rate." in outcome.results.notes
    with pytest.raises(
        UserError, match=r"^a, seed 0: train must return the scores of the test rows, got a tuple of 2$"
    ):
        lopsided.compare_losses(give, own, truth)
    with pytest.raises(UserError, match=r"unknown loss 'bcee'"):
        lopsided.compare_losses(give, ["bce", "bcee"], truth)
    with pytest.raises(UserError, match="unknown loss 'zlprr'"):
        lopsided.compare_losses(give, "asl(gamma_neg=2, clip=0), zlprr", truth)  # as `compare --losses` is written
    with pytest.raises(UserError, match=r'need names: ."mine": criterion., got AsymmetricLoss$'):
        lopsided.compare_losses(give, [lopsided.AsymmetricLoss()], truth)  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"must return the scores of the test rows, got None$"):
        lopsided.compare_losses(lambda criterion, seed: None, own, truth)
