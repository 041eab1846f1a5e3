"""The native executor inside `torch.compile`: one node of the graph."""

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided import SparseTargets
from lopsided.compute.native import run as native
from lopsided.losses import CATALOG, Curve, Formula, Sum, formula
from lopsided.losses.curves import polynomial_negative, polynomial_positive
from lopsided.nn.functional import multilabel_loss
from tests import oracle
from tests.variants import example

pytestmark = [
    pytest.mark.slow,
    pytest.mark.compiles,
    pytest.mark.skipif(isinstance(native.library(), str), reason=f"no C library: {native.library()}"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),  # dynamo's own
]


def targets_seen_by(function: object, *arguments: object) -> set[str]:
    """The operators in the graph that dynamo makes of a function."""
    found: set[str] = set()

    def look(graph: torch.fx.GraphModule, _: list[Tensor]) -> object:
        found.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch.compiler.reset()
    torch.compile(function, fullgraph=True, backend=look)(*arguments)  # type: ignore[call-overload]
    return found


@pytest.mark.parametrize("name", CATALOG)
def test_stays_in_the_graph(name: str) -> None:
    z, y = example()
    assert "lopsided.rows" in targets_seen_by(lopsided.MultiLabelLoss(name), z, y)
    seen = targets_seen_by(lopsided.MultiLabelLoss(name), z.requires_grad_(), y)
    assert {target for target in seen if "lopsided" in target} == {"lopsided.loss"}


def test_a_loss_without_a_loop_is_traced_in_plain_torch() -> None:
    z, y = example()
    terms = ", ".join(["0.1"] * 9)
    nameless = Formula(Curve(polynomial_positive), Curve(polynomial_negative), Sum())
    for loss in (formula(f"apl(gamma_neg=0, clip=0, alphas=({terms}))"), nameless):
        module = lopsided.MultiLabelLoss(loss)
        assert not any("lopsided" in target for target in targets_seen_by(module, z, y))
        torch.testing.assert_close(torch.compile(module, backend="aot_eager")(z, y), module(z, y))


@pytest.mark.parametrize("name", ["asl", "zlpr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_are_those_outside(name: str, dtype: torch.dtype) -> None:
    z, y = example()
    indices = SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y > 0.5])
    z, sparse = z.to(dtype), SparseTargets(indices.crow, indices.col, torch.rand(len(indices.col)))
    module = lopsided.MultiLabelLoss(name, label_smoothing=0.1, weight=torch.rand(9), reduction="none")
    torch.compiler.reset()
    compiled = torch.compile(lambda z, y: module(z, y).square().sum(), fullgraph=True, backend="aot_eager")
    for targets in (y, sparse):
        inside, outside = compiled(z, targets), module(z, targets).square().sum()
        torch.testing.assert_close(inside, outside)
        gradients = [
            oracle.gradient(lambda z, f=f, t=targets: f(z, t), z)  # type: ignore[misc]
            for f in (compiled, lambda z, t: module(z, t).square().sum())
        ]
        torch.testing.assert_close(*gradients)


def test_the_operator_keeps_its_promises() -> None:
    """Schema, fake and autograd registration, as torch itself examines them."""
    z, y = example()
    nothing = [None] * 5
    said = y.float(), *nothing, 0.1, None, "asl", "native"
    for leaf, wanted in ((z.float().requires_grad_(), True), (z.float().requires_grad_(), False), (z.float(), False)):
        torch.library.opcheck(torch.ops.lopsided.rows.default, (leaf, *said, wanted))
    torch.library.opcheck(torch.ops.lopsided.gradient.default, (torch.rand(len(z)), z.float(), *said))
    for reduction, weight in (("mean", None), ("none", torch.rand(len(z)))):
        whole = z.float().requires_grad_(), *said[:-1], weight, reduction
        torch.library.opcheck(torch.ops.lopsided.loss.default, whole)


@pytest.mark.parametrize(
    ("name", "reduction"), [("asl", "none"), ("asl", "sum"), ("asl", "mean"), ("bp_mll", "mean"), ("two_way", "mean")]
)
def test_the_whole_loss_is_a_node_whose_memory_may_lie_anyhow(name: str, reduction: str) -> None:
    z, y = example()
    module = lopsided.MultiLabelLoss(name, reduction=reduction, pos_weight=torch.rand(18)[::2])
    weight = None if name == "two_way" else torch.rand(2 * len(z))[::2]
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for logits, targets in ((z, y), (z.T.contiguous().T, y.T.contiguous().T), (z[:0], y[:0])):
        row_weight = None if weight is None else weight[: len(logits)]
        results = []
        for function in (compiled, module):
            leaf = logits.detach().clone().requires_grad_()
            value = function(leaf, targets, row_weight=row_weight)
            value.sum().backward()
            results.append((value, leaf.grad))
        torch.testing.assert_close(*results)


def test_wrong_values_are_named_inside_as_well() -> None:
    z, y = example()
    compiled = torch.compile(lopsided.MultiLabelLoss("asl"), fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match=r"targets must lie in \[0, 1\], got the value 2"):
        compiled(z, y.masked_fill(y == y.max(), 2.0))
    rows = len(z)
    with pytest.raises(ValueError, match="label indices must lie in"):
        compiled(z, SparseTargets(torch.arange(rows + 1), torch.full((rows,), 99)))
    with pytest.raises(ValueError, match="weight must be finite and not negative"):
        torch.compile(lopsided.MultiLabelLoss("asl", weight=torch.full((9,), torch.nan)), backend="aot_eager")(z, y)


def test_second_derivatives_are_refused() -> None:
    z, y = example()
    leaf = z.requires_grad_()
    value = torch.compile(lopsided.MultiLabelLoss("asl"), backend="eager")(leaf, y)
    with pytest.raises(RuntimeError, match="only the eager executor has second derivatives"):
        torch.autograd.grad(value, leaf, create_graph=True)


@pytest.mark.parametrize("name", CATALOG)
def test_a_loss_by_name_is_compiled(name: str) -> None:
    z, y = example()
    torch.compiler.reset()
    compiled = torch.compile(lambda z, y: multilabel_loss(z, y, name), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z, y), multilabel_loss(z, y, name))


def test_names_in_graphs_do_not_disturb_each_other() -> None:
    z, y = example()
    torch.compiler.reset()
    functions = {
        name: torch.compile(lambda z, y, name=name: multilabel_loss(z, y, name), fullgraph=True, backend="aot_eager")
        for name in ("bce", "asl(gamma_neg=3)", "zlpr")
    }
    for _ in range(2):
        for name, compiled in functions.items():
            torch.testing.assert_close(compiled(z, y), multilabel_loss(z, y, name))


def test_other_losses_of_the_package_are_compiled() -> None:
    z, y = example()
    classes, partial = y.argmax(1), y.masked_fill(y < 0.5, torch.nan)
    torch.compiler.reset()
    for function in (
        lambda z: lopsided.single_label_loss(z, classes),
        lambda z: lopsided.partial_loss(z, partial),
        lopsided.AsymmetricLoss().posterior,
        lopsided.AsymmetricLoss(pos_weight=torch.linspace(0.5, 2, z.shape[1])).posterior,
    ):
        torch.testing.assert_close(torch.compile(function, fullgraph=True, backend="aot_eager")(z), function(z))


def test_a_loss_with_a_long_name_is_compiled() -> None:
    z, y = example()
    module = lopsided.AsymmetricPolynomialLoss(alphas=[1 / 3 + i / 1000 for i in range(30)])
    assert formula(str(module.formula)) == module.formula
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(z, y), module(z, y))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batchmean"])
@pytest.mark.parametrize("name", ["asl", "zlpr", "lsep"])
def test_an_exported_loss_takes_batches_of_any_size(name: str, reduction: str, strict: bool) -> None:
    module, rows = lopsided.MultiLabelLoss(name, reduction=reduction), torch.export.Dim("rows")
    z, y = torch.randn(6, 9), torch.rand(6, 9) < 0.3
    shapes = {"logits": {0: rows}, "targets": {0: rows}}
    program = torch.export.export(module, (z, y), dynamic_shapes=shapes, strict=strict)
    for size in (2, 6, 11):
        z, y = torch.randn(size, 9, requires_grad=True), torch.rand(size, 9) < 0.3
        found, expected = program.module()(z, y), module(z, y)
        torch.testing.assert_close(found, expected)
        # made without a gradient, the program has one nevertheless
        gradients = [torch.autograd.grad(value.sum(), z)[0] for value in (found, expected)]
        torch.testing.assert_close(*gradients)


def test_a_posterior_is_exported() -> None:
    class Posterior(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.criterion = lopsided.AsymmetricLoss()

        def forward(self, z: Tensor) -> Tensor:
            return self.criterion.posterior(z)

    z, rows = torch.randn(6, 9), torch.export.Dim("rows")
    program = torch.export.export(Posterior(), (z,), dynamic_shapes={"z": {0: rows}})
    torch.testing.assert_close(program.module()(z[:4]), lopsided.AsymmetricLoss().posterior(z[:4]))


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_autocast_within_a_graph(backend: str) -> None:
    z, y = example()
    module, linear = lopsided.AsymmetricLoss(backend=backend), torch.nn.Linear(z.shape[1], z.shape[1])

    def step(z: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value: Tensor = module(linear(z), y)
            return value

    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z.float(), y), step(z.float(), y), rtol=1e-3, atol=1e-3)
