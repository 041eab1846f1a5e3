"""Figures in the text of the pages of losses are those of the code: thresholds, probabilities, peaks and costs."""

import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lopsided.losses import PRESETS, formula
from lopsided.losses.closed_form import decision_threshold, discarding_point, posterior, posterior_limits

DOCS = Path(__file__).parents[2] / "docs/losses"
P = (0.5, 0.7, 0.8, 0.9, 0.99)


def logits(*p: float) -> Tensor:
    return torch.logit(torch.tensor(p, dtype=torch.float64))


def means(spec: str, *p: float) -> list[float]:
    """What scores stand for, by their sigmoids."""
    values: list[float] = posterior(formula(spec), logits(*p)).tolist()
    return values


def decided(spec: str, eta: float = 0.5) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decision_threshold(formula(spec), eta).item()


def both(spec: str) -> list[float]:
    """The threshold, as a logit and as a sigmoid."""
    return [decided(spec), 1 / (1 + math.exp(-decided(spec)))]


def limit(spec: str) -> float:
    return posterior_limits(formula(spec))[1].item()


def sizes(spec: str, positive: bool, *p: float) -> Tensor:
    loss = formula(spec)
    return torch.as_tensor((loss.positive if positive else loss.negative)(logits(*p))[1]).abs()


def peak(spec: str, positive: bool = False) -> list[float]:
    """The largest gradient, and the sigmoid at which it is."""
    p = [step / 20_000 for step in range(1, 20_000)]
    size = sizes(spec, positive, *p)
    return [size.max().item(), p[int(size.argmax())]]


def costs(p: float, *specs: str) -> list[float]:
    return [float(formula(spec).negative(logits(p))[0]) for spec in specs]


def attached_over_detached(*p: float) -> list[float]:
    attached = sizes("asl(detach_focus=False)", False, *p)
    return [*(attached / sizes("asl", False, *p)).tolist()]


def settled(*eta: float, spec: str = "zlpr") -> Tensor:
    """The logits at which labels of these probabilities cost least together, by descent on all sets of them."""
    sets = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(eta))), dtype=torch.float64)
    chance = (sets * torch.tensor(eta) + (1 - sets) * (1 - torch.tensor(eta))).prod(1)
    loss, weights = formula(spec), (sets, 1 - sets)
    z = torch.zeros(len(eta), dtype=torch.float64)
    for _ in range(400):
        rows = z.expand_as(sets)
        slope = chance @ loss.grad(rows, weights, loss.summarize(rows, weights))
        if slope.abs().max() < 1e-6:
            return z
        z = z - 3 * slope
    raise AssertionError("not settled")


def pushed(name: str, labels: int) -> list[float]:
    """The sums of the gradients of the negatives of a row, and of its 3 positives."""
    z = torch.randn(labels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (torch.arange(labels) < 3).double()
    loss = formula(name)
    slopes = loss.grad(z, (y, 1 - y), loss.summarize(z, (y, 1 - y)))
    return [slopes[3:].sum().item(), slopes[:3].sum().item()]


def printed_by_the_example(*rows: str) -> list[float]:
    page = (DOCS.parents[1] / "examples/adaptive_asymmetry/README.md").read_text()
    return [float(re.findall(rf"^{re.escape(row)} +([\d.]+)", page, re.MULTILINE)[0]) for row in rows]


FIGURES: list[tuple[str, str, Callable[[], Iterable[float]]]] = [
    ("asl", "Sigmoid 0.5 is the wrong threshold: with the defaults it means a probability of {}. Probability 0.5 is at "
     "sigmoid {},", lambda: [*means("asl", 0.5), both("asl")[1]]),
    ("asl", "at 0.5, with gamma_neg 4, the largest is {}", lambda: [limit("asl(clip=0.5)")]),
    ("asl", "at the defaults it is {} / ({} + w)", lambda: [0.95**4 / 0.05] * 2),
    ("asl", "labels more probable than {} all train", lambda: [limit("asl")]),
    ("asl", "up to {}% of true positives are wrongly marked negative, the marks change nothing; with attached weights, "
     "up to {}%", lambda: [100 - 100 * limit(spec) for spec in ("asl", "asl(detach_focus=False)")]),
    ("asl", "beyond the peak (p = {})", lambda: peak("asl")[1:]),
    ("asl", "the attached gradient is {} times the detached one (1 + gamma_neg), at p = 0.5 it is {} times and at "
     "0.9 it is {} times", lambda: attached_over_detached(0.050001, 0.5, 0.9)),
    ("apl", "lower the threshold from logit {} (p = {}) to {} ({})", lambda: both("asl") + both("apl")),
    ("apl", "the largest posterior is {} instead of {}", lambda: [limit("apl"), limit("asl")]),
    ("apl", "up to p = 0.6 ({} times at 0.3)", lambda: sizes("apl", True, 0.3) / sizes("bce", True, 0.3)),
    ("apl", "up to p = {} (", lambda: [0.6 * (sizes("apl", True, 0.6) / sizes("bce", True, 0.6)).item()]),
    ("focal", "At p = 0.7 the posterior is {}, at p = 0.9 it is {}", lambda: means("focal", 0.7, 0.9)),
    ("focal", "stays at logit {}, but the one for 0.9 is {}, where cross-entropy has {}",
     lambda: [decided("focal"), decided("focal", 0.9), decided("bce", 0.9)]),
    ("focal", "its peak is {} (at p = {}) for 1, {} ({}) for 2, {} ({}) for 5",
     lambda: [each for gamma in (1, 2, 5) for each in peak(f"focal(gamma={gamma})")]),
    ("focal", "moves the threshold to logit {} (p = {})", lambda: both("focal(alpha=0.25)")),
    ("hill", "symmetric, with its peak of {} at p = {}", lambda: peak("hill")),
    ("hill", "its peak of {} is at p = {}.", lambda: peak("hill", positive=True)),
    ("hill", "stand for probabilities {}, {}, {}, {} and {}. The", lambda: means("hill", *P)),
    ("hill", "The threshold for 0.5 is logit {} (p = {}), that for 0.2 is {}",
     lambda: [*both("hill"), decided("hill", 0.2)]),
    ("hill", "2 raises the peak to {} and lowers the threshold to {}",
     lambda: [peak("hill(lamb=2)")[0], decided("hill(lamb=2)")]),
    ("hill", "0, 0.5 and 1 give {}, {} and {}", lambda: [decided(f"hill(margin={m})") for m in (0, 0.5, 1)]),
    ("hill", "With gamma 1 and margin 0 no logit stands for more than {}",
     lambda: [limit("hill(gamma=1, margin=0)")]),
    ("ral", "That of a negative peaks at {}, where p = {} (asl attached: {} at {})",
     lambda: peak("ral") + peak("asl(detach_focus=False)")),
    ("ral", "(at p = 0.5 a negative costs {} instead of {})", lambda: costs(0.5, "ral", "asl")),
    ("ral", "at p = 0.99 it is {}, in asl {}, in hill {}", lambda: costs(0.99, "ral", "asl", "hill")),
    ("ral", "is logit {} (p = {}); detached it is {} ({}), and with gamma_neg 2 it is {} ({}). The largest "
     "posterior is {}:",
     lambda: [*both("ral"), *both("ral(detach_focus=True)"), *both("ral(gamma_neg=2)"), limit("ral")]),
    ("ral", "stand for probabilities {}, {}, {}, {} and {}.", lambda: means("ral", *P)),
    ("zlpr", "those of the negatives sum to {} for 10 labels, {} for 1,000 and {} for 100,000; under bce to {}, {} "
     "and {}.", lambda: [pushed(name, labels)[0] for name in ("zlpr", "bce") for labels in (10, 1_000, 100_000)]),
    ("asl_uses", "ends at a gamma_neg of {}, {}, {} and {}, from a start at 4; for 0.1 at {} from a start at 12",
     lambda: printed_by_the_example("target -0.2", "target 0", "target 0.1", "target 0.2", "target 0.1, from 12")),
    ("zlpr", "a lone label with probability 0.3 settles at {} for s = 1 and {} for s = 2",
     lambda: [math.log(0.3 / 0.7), math.log(0.3 / 0.7) / 2]),
    ("zlpr", "drives both sides apart: the same label settles at {} for m = 1",
     lambda: settled(0.3, spec="zlpr(margin=1)")),
    ("zlpr", "have their best logits at sigmoids {}, {}, {}, {}, {} and $\\sigma(2 z)$ of {}, {}, {}, {}, {}.",
     lambda: [*(z := settled(0.9, 0.2, 0.5, 0.05, 0.7)).sigmoid(), *(2 * z).sigmoid()]),
    ("zlpr", "beside ten labels of probability 0.02, a label of 0.5 settles at sigmoid {}.",
     lambda: settled(0.5, *[0.02] * 10)[:1].sigmoid()),
    ("zlpr", "log(w)/(2 s), {} for 4", lambda: [decision_threshold(formula("zlpr"), pos_weight=4.0).item()]),
    ("bce", "on all negatives sums to {} and that on the positives to {}; with 100,000 labels to {} and {}. For",
     lambda: [*pushed("bce", 1_000), *pushed("bce", 100_000)]),
    ("bp_mll", "between $e^{-2}$ = {} and $e^2$ = {}", lambda: [math.exp(-2), math.exp(2)]),
    ("../missing", "beyond logit {}, sigmoid {}, with the default settings",
     lambda: [discarding_point(formula("asl")), 1 / (1 + math.exp(-discarding_point(formula("asl"))))]),
    ("../theory", "asl it stands for a probability of {}.", lambda: means("asl", 0.5)),
    ("../theory", "At the defaults A is {}, and the limit {}: the loss ignores up to {} %",
     lambda: [0.95**4 / 0.05, limit("asl"), 100 - 100 * limit("asl")]),
]  # fmt: skip


@pytest.mark.parametrize(("page", "sentence", "values"), FIGURES)
def test_a_figure_is_that_of_the_code(page: str, sentence: str, values: Callable[[], Iterable[float]]) -> None:
    text = " ".join((DOCS / f"{page}.md").read_text().split())
    pattern = re.escape(sentence).replace(r"\{\}", r"(-?[\d.]*\d)").replace(r"\ ", " ")
    (found,) = re.findall(pattern, text)
    shown = [found] if isinstance(found, str) else [*found]
    for figure, value in zip(shown, values(), strict=True):
        digits = len(figure.partition(".")[2])
        assert f"{float(figure):.{digits}f}" == f"{value + 0.0:.{digits}f}", sentence


@pytest.mark.slow
def test_the_table_of_thresholds_by_probability() -> None:
    text = (DOCS / "README.md").read_text()
    (head,) = re.findall(r"^\| probability \| (.*) \|$", text, re.MULTILINE)
    rows = re.findall(r"^\| (0\.\d+) \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 6
    for eta, cells in rows:
        for name, cell in zip(head.split(" | "), cells.split(" | "), strict=True):
            value = decided(name, float(eta))
            assert cell == ("none" if math.isinf(value) else f"{value:.3f}"), (name, eta)


def test_the_table_of_presets() -> None:
    rows = re.findall(r"^\| `(asl_\w+)` \| .* \| ([\d.]+) \|$", (DOCS / "asl.md").read_text(), re.MULTILINE)
    assert {name: f"{decision_threshold(loss).item():.3f}" for name, loss in PRESETS.items()} == dict(rows)
