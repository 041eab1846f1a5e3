"""The pages of the losses are true: their parameters, plots and thresholds are those of the code."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
import torch

import lopsided
from lopsided.jobs.numbers import share
from lopsided.losses import BALANCED, CATALOG, UNKNOWN, formula
from lopsided.losses.catalog import asymmetric
from lopsided.losses.closed_form import decision_threshold, posterior, posterior_limits
from lopsided.report.loss_plot import save_loss_plot

DOCS = Path(__file__).parents[1] / "docs/losses"


@pytest.mark.parametrize("name", CATALOG)
def test_every_loss_has_a_page_with_its_parameters(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE))
    parameters = inspect.signature(CATALOG[name]).parameters.values()
    assert {parameter.name: repr(parameter.default) for parameter in parameters} == documented
    for heading in ("Formula", "Parameters", "When to use it", "How to choose", "Differences from the official code"):
        assert f"## {heading}" in text, heading


@pytest.mark.parametrize(("page", "makers"), [("balanced", BALANCED), ("unknown", UNKNOWN)])
def test_the_settings_of_other_losses_are_documented(page: str, makers: dict[str, Callable[..., object]]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| ([\w, ]+) \|", (DOCS / f"{page}.md").read_text(), re.MULTILINE)
    documented = {(name, setting, default) for setting, default, names in rows for name in names.split(", ")}
    signatures = {name: inspect.signature(make).parameters.values() for name, make in makers.items()}
    assert documented == {(name, each.name, repr(each.default)) for name, given in signatures.items() for each in given}


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOG)
def test_every_page_shows_the_plot_of_today(name: str, tmp_path: Path) -> None:
    assert f"]({name}.png)" in (DOCS / f"{name}.md").read_text()
    committed = (DOCS / f"{name}.png").read_bytes()
    if f"Matplotlib version{matplotlib.__version__}".encode() not in committed:
        pytest.skip("drawn by another version of matplotlib")
    save_loss_plot(formula(name), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes() == committed, (
        f"run: lopsided losses {name} --plot docs/losses/{name}.png"
    )


def test_the_index_has_every_loss_with_its_threshold() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \|.*\| ([^|]+) \|$", (DOCS / "README.md").read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == list(CATALOG)
    for name, page, threshold in rows:
        loss = formula(name)
        assert page == name
        told = "none" if name == "aml" else share(float(decision_threshold(loss))) if loss.pool.thresholded else None
        assert threshold == (told or "only ranks")


def test_the_index_says_what_the_mean_of_every_loss_divides_by() -> None:
    (line,) = re.findall(r'^\| `"mean"`, the default \| .*$', (DOCS / "README.md").read_text(), re.MULTILINE)
    told = {"known entries": "labels", "; rows": "rows", "rows with a positive that has a weight": "positive rows"}
    names, found = list(CATALOG), dict[str, str]()
    for words, counts in told.items():
        (listed,) = re.findall(rf"{words} \(([^)]+)\)", line)
        for each in listed.split(", "):
            first, _, last = each.partition(" to ")
            found |= dict.fromkeys(names[names.index(first) : names.index(last or first) + 1], counts)
    assert found == {name: formula(name).pool.counts for name in names if name != "two_way"}


def test_the_reference_has_every_public_name() -> None:
    found = re.findall(r"^\.\. auto\w+:: ([\w.]+)$", (DOCS.parent / "api.md").read_text(), re.MULTILINE)
    names = [name.removeprefix("lopsided.").split(".")[0] for name in found]
    assert sorted({*names, "__version__"}) == lopsided.__all__


def test_what_the_settings_of_asl_do() -> None:
    table = (DOCS.parent / "gamma.md").read_text().partition("<!-- settings of asl -->\n")[2].partition("<!-- end")[0]
    z = torch.linspace(-12, 30, 42_001, dtype=torch.float64)
    rows = re.findall(r"^\| (\d), (\d), ([\d.]+)(, attached)? \| (.*) \|$", table, re.MULTILINE)
    assert len(rows) == 11
    for gamma_neg, gamma_pos, clip, attached, told in rows:
        loss = asymmetric(float(gamma_neg), float(gamma_pos), float(clip), detach_focus=not attached)
        threshold = decision_threshold(loss)
        meanings = posterior(loss, torch.logit(torch.tensor([0.5, 0.8, 0.99], dtype=torch.float64)))
        slope = torch.as_tensor(loss.negative(z)[1])
        peak = torch.sigmoid(z[slope.argmax()])
        shown = [
            f"{threshold:.3f} ({threshold.sigmoid():.3f})",
            ", ".join(f"{each:.3f}" for each in meanings),
            f"{posterior_limits(loss)[1]:.3f}".replace("1.000", "1"),
            f"{peak:.3f} ({slope.max():.3f})".replace("1.000 (", "1 ("),
        ]
        assert told.split(" | ") == shown


def official_sparse_zlpr(logits: torch.Tensor, positive: int) -> torch.Tensor:
    """The form of the official code: the sum over all labels, from which that of the positives is taken away again."""
    zero = torch.zeros(1)
    total = torch.logsumexp(torch.cat([logits, zero]), 0)
    left = (1 - torch.exp(logits[positive] - total)).clamp(1e-7, 1)
    return torch.logsumexp(torch.cat([-logits[positive : positive + 1], zero]), 0) + total + left.log()


def test_what_sparse_targets_of_zlpr_give() -> None:
    rows = re.findall(r"^\| (\d+) \| (\S+), (\S+) \| (\S+), (\S+) \|$", (DOCS / "zlpr.md").read_text(), re.MULTILINE)
    assert len(rows) == 4
    for z, *told in rows:
        logits = torch.tensor([float(z), -10, -10], requires_grad=True)
        found = []
        for targets in (torch.tensor([[1, 0, 0]]), lopsided.SparseTargets.from_indices([[0]]), None):
            value = official_sparse_zlpr(logits, 0) if targets is None else lopsided.ZLPRLoss()(logits[None], targets)
            found.append([value.item(), torch.autograd.grad(value, logits)[0][0].item()])
        ours, theirs = ([float(each) for each in told[:2]], [float(each) for each in told[2:]])
        assert found[:2] == [pytest.approx(ours, rel=0.02)] * 2  # two digits of the gradient
        assert found[2] == pytest.approx(theirs, rel=0.02)


def test_every_guarantee_has_its_test() -> None:
    text, tests = (
        (DOCS.parent / "numerics.md").read_text().partition("## What is not guaranteed")[0],
        Path(__file__).parent,
    )
    found = re.findall(r"^- \S.*:\n  `([\w/]+\.py)::(\w+)`$", text, re.MULTILINE)
    assert len(found) == len(re.findall("^- ", text, re.MULTILINE)) >= 35
    assert [each for each in found if f"\ndef {each[1]}(" not in (tests / each[0]).read_text()] == []


def test_every_room_is_in_the_picture_and_in_the_table() -> None:
    rooms = {path.parent.name for path in (DOCS.parents[1] / "src/lopsided").glob("*/__init__.py")}
    picture = (DOCS.parent / "architecture.svg").read_text()
    table = (DOCS.parent / "architecture.md").read_text()
    assert set(re.findall(r'<text class="name"[^>]*>(\w+)<', picture)) == rooms
    assert {
        name for line in re.findall(r"^\| (`.*`) \|", table, re.M) for name in re.findall(r"`(\w+)`", line)
    } >= rooms - {"cli"}
