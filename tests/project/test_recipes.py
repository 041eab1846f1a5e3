"""The recipes of CONTRIBUTING.md, followed in a copy of the package: the files that they name are enough."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.changed_package import ROOT, copy_package, run

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Recipe:
    """What is done to each file: text that is added at its end, and lines that take the place of others."""

    added: dict[str, str]
    script: str  # uses what was added as a user would
    replaced: dict[str, tuple[str, str]] = field(default_factory=dict)


RECIPES = {
    "loss": Recipe(
        {
            "losses/curves.py": """
def mine_positive(z: Tensor, *, scale: float = 1.0) -> Values:
    p, q = logistic(z)
    return scale * softplus(-z), -scale * q
""",
            "losses/catalog.py": """
@entry("mine", "a test", scale=Range(0.5, 4, log=True))
def mine(scale: float = 2.0) -> Formula:
    positive = curve_of(curves.mine_positive, scale=check_number("scale", scale, low=0))
    return named("mine", positive, curve_of(curves.polynomial_negative), Sum(), scale=scale)
""",
        },
        """
import torch, lopsided
from lopsided.__main__ import main
from lopsided.compute.native import printer
from lopsided.compute.triton import printer as triton_printer
from lopsided.testing import check_loss

z, y = torch.randn(4, 9, dtype=torch.float64, requires_grad=True), torch.rand(4, 9) < 0.3
pos_weight = torch.full((9,), 3.0, dtype=torch.float64)
expected = torch.nn.functional.binary_cross_entropy_with_logits(z, y.double(), pos_weight=pos_weight)
torch.testing.assert_close(lopsided.loss("mine", scale=3)(z, y), expected)
torch.testing.assert_close(lopsided.MultiLabelLoss("mine(scale=3)")(z, y), expected)
check_loss("mine")
assert "KERNEL(mine_positive" in printer.print_all()
assert "def mine_positive" in triton_printer.print_all()
assert main(["losses", "mine"]) == 0
""",
        {
            "compute/graph.py": (
                '    yield _kernel("bounded_exponent", (), ("scale",), 0, ())\n',
                '    yield _kernel("bounded_exponent", (), ("scale",), 0, ())\n'
                '    yield _kernel("mine_positive", (), ("scale",), 0, ())\n',
            )
        },
    ),
    "pool": Recipe(
        {
            "losses/pools.py": """
@dataclass(frozen=True)
class Squares(Pool):
    counts = "rows"

    def fold(self, values: Pair, weights: Pair) -> Tensor:
        return Sum().fold(values, weights)

    def merge(self, states: Tensor) -> Tensor:
        return states.sum(0)

    def value(self, state: Tensor) -> Tensor:
        return state[0] ** 2 / 2

    def coefficients(self, values: Pair, weights: Pair, state: Tensor) -> Pair:
        return weights[0] * state[0].unsqueeze(-1), weights[1] * state[0].unsqueeze(-1)
""",
            "losses/__init__.py": 'from lopsided.losses.pools import Squares\n\n__all__ += ["Squares"]\n',
            "losses/catalog.py": """
from lopsided.losses.pools import Squares


@entry("squares", "a test")
def squares() -> Formula:
    return named("squares", curve_of(curves.polynomial_positive), curve_of(curves.polynomial_negative), Squares())
""",
        },
        """
import torch, lopsided
from lopsided.losses import Squares

criterion = lopsided.loss("squares", reduction="none")
assert criterion.formula.pool == Squares()
z, y = torch.randn(4, 9, requires_grad=True), torch.rand(4, 9) < 0.3
rows = torch.nn.functional.binary_cross_entropy_with_logits(z, y.float(), reduction="none").sum(1) ** 2 / 2
torch.testing.assert_close(criterion(z, y), rows)
torch.testing.assert_close(*(torch.autograd.grad(each.sum(), z) for each in (criterion(z, y), rows)))
head = lopsided.LinearHead(5, 9, "squares", reduction="sum")
hidden = torch.randn(4, 5)
expected = lopsided.loss("squares", reduction="sum")(head.logits(hidden), y)
targets = lopsided.SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y])
torch.testing.assert_close(head(hidden, targets), expected)
""",
    ),
    "metric": Recipe(
        {
            "metrics/registry.py": """
METRICS["mine"] = Metric("mine", lambda s: float(s.overall.f_beta(2.0)), "decisions")
""",
            "jobs/compared_metrics.py": """
METRICS["mine"] = ComparedMetric("mine at tuned", "mine")
""",
            "training/history.py": """
JUDGES = (*JUDGES, "mine")
""",
        },
        """
import contextlib, io, torch
from sklearn.metrics import fbeta_score
from lopsided.__main__ import main
from lopsided.metrics import METRICS, MultiLabelMetrics

assert "mine" in METRICS
scores, y = torch.randn(50, 6), torch.rand(50, 6) < 0.3
metrics = MultiLabelMetrics(6, "logits", decide=0.0)
metrics.update(scores, y)
expected = fbeta_score(y.numpy(), (scores > 0).numpy(), beta=2, average="micro")
assert abs(metrics.compute()["mine"] - expected) < 1e-9
shown = io.StringIO()
with contextlib.redirect_stdout(shown):
    options = ["--images", "200", "--epochs", "1", "--seeds", "1", "--losses", "bce,asl", "--learning-rate", "0.003"]
    assert main(["compare", *options, "--metric", "mine"]) == 0
assert "mine at tuned" in shown.getvalue()
""",
    ),
    "reader": Recipe(
        {
            "data/formats/psv.py": """from lopsided.data.formats.base import Block, Format
from lopsided.data.opening import read_lines


def read_blocks(path, options, say, on_bytes):
    header, *rows = [line.split("|") for line in "".join(read_lines(path, options, say, on_bytes)).split()]
    columns = dict(zip(header, zip(*rows)))
    yield Block(header, columns.__getitem__, range(2, len(rows) + 2))


FORMAT = Format("psv", (".psv",), blocks=read_blocks)
"""
        },
        """
from pathlib import Path
from lopsided.data.readers import read, read_inputs

Path("a.psv").write_text("text|labels\\none|a\\ntwo|a,b\\n")
data = read(Path("a.psv"))
assert data.inputs.texts == ("one", "two") and data.targets.col.tolist() == [0, 0, 1]
assert [len(block) for block in read_inputs(Path("a.psv"))] == [2]
""",
        {
            "data/readers.py": (
                "_MODULES = (jsonl,",
                "from lopsided.data.formats import psv\n\n_MODULES = (psv, jsonl,",
            )
        },
    ),
    "encoder": Recipe(
        {
            "models/linear_pixels.py": """from dataclasses import dataclass

from torch import nn

from lopsided.data.inputs import Images
from lopsided.models.convnet import PixelRows
from lopsided.models.recipe import Recipe


class Flat(nn.Module):
    def __init__(self, width, scale):
        super().__init__()
        self.width, self.scale = width, scale

    def forward(self, images):
        return images.flatten(1) / self.scale


@dataclass(frozen=True)
class LinearPixels:
    name = "linear_pixels"
    inputs = Images
    size: int
    scale: int

    @classmethod
    def fit(cls, inputs, scale=255):
        return cls(inputs.pixels[0].numel(), scale)

    def encode(self, inputs):
        return PixelRows(inputs.pixels)

    def make_body(self):
        return Flat(self.size, self.scale)

    def recipe(self, rows, num_labels):
        return Recipe(epochs=2, batch_size=32, learning_rate=1e-2)

    def stored(self):
        return {"size": self.size, "scale": self.scale}, {}

    @classmethod
    def from_stored(cls, values, tensors):
        return cls(**values)
"""
        },
        """
import torch, lopsided
from lopsided.__main__ import main
from lopsided.data.digits_grid import digits_grid

options = ["--images", "200", "--seeds", "1", "--losses", "bce,asl", "--learning-rate", "0.01", "--out", "run"]
assert main(["compare", *options, "--model", "linear_pixels(scale=100)"]) == 0
model = lopsided.load("run/runs/1-asl-seed0").model
assert model.encoder.scale == 100 and model.network.head.weight.shape == (90, 36 * 36)
rows = digits_grid(4, 0, 0).train.inputs
logits = rows.pixels.flatten(1) / 100 @ model.network.head.weight.T + model.network.head.bias
torch.testing.assert_close(model.score(model.encode(rows)).values, logits.detach())
""",
        {"models/registry.py": ("_HOMES = {", '_HOMES = {"linear_pixels": "linear_pixels:LinearPixels", ')},
    ),
    "integration": Recipe(
        {
            "integrations/catalyst.py": """
from lopsided.nn import modules


def criterion(spec, **settings):
    loss = modules.loss(spec, **settings)
    return lambda batch: loss(batch["logits"], batch["targets"])
"""
        },
        """
import torch, lopsided
from lopsided.integrations.catalyst import criterion

logits, targets = torch.randn(4, 9), torch.rand(4, 9) < 0.3
batch = {"logits": logits, "targets": targets}
assert criterion("asl", gamma_neg=2)(batch) == lopsided.loss("asl", gamma_neg=2)(logits, targets)
""",
    ),
}


def files_of(name: str) -> set[str]:
    """The files below src/lopsided that the recipe begins its lines with."""
    section = re.search(rf"^### Add an? {name}$(.*?)^#", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    assert section, f"CONTRIBUTING.md has no recipe for a {name}"
    return set(re.findall(r"^- `([\w/]+\.py)`:", section[1], re.MULTILINE))


def test_every_recipe_is_followed() -> None:
    assert set(re.findall(r"^### Add an? (\w+)$", CONTRIBUTING, re.MULTILINE)) == set(RECIPES)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_named_files_are_enough(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    assert {*recipe.added, *recipe.replaced} == files_of(name)
    package = copy_package(tmp_path)
    for file, text in recipe.added.items():
        with (package / file).open("a", encoding="utf-8") as opened:
            opened.write(text)
    for file, (old, new) in recipe.replaced.items():
        content = (package / file).read_text(encoding="utf-8")
        assert content.count(old) == 1, f"{file}: the line to replace is not there, or not alone"
        (package / file).write_text(content.replace(old, new), encoding="utf-8")
    status, printed = run(package, tmp_path, exec, recipe.script, {})
    assert status == 0, printed[-5000:]
