"""The public edge: modules and functions, what a call leaves behind, compilation, messages."""

import copy
import inspect
import pickle
import pydoc
import re
from collections.abc import Callable
from typing import get_type_hints

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided.losses import CATALOG, formula
from lopsided.nn.functional import multilabel_loss
from lopsided.nn.options import DEFAULTS, Options
from tests import oracle
from tests.variants import every_variant, example, rows


def test_grad_mode_is_left_alone() -> None:
    z, y = example()
    for name in CATALOG:
        with torch.no_grad():
            rows(name, y)(z)
            assert not torch.is_grad_enabled()
        with torch.inference_mode():
            assert not rows(name, y)(z).requires_grad
        with pytest.raises(ValueError, match="targets"):
            lopsided.functional.multilabel_loss(z, y + 1, name)
        assert torch.is_grad_enabled()


@every_variant
def test_saved_for_backward_is_only_the_inputs(spec: str) -> None:
    z, y = torch.zeros(4, 100, requires_grad=True), torch.zeros(4, 100)
    saved: list[Tensor] = []

    def save(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        rows(spec, y)(z)
    assert {tensor.data_ptr() for tensor in saved if tensor.numel() >= z.numel()} == {z.data_ptr(), y.data_ptr()}
    sizes = {tensor.data_ptr(): tensor.nbytes for tensor in saved}
    assert sum(sizes.values()) <= 8 * z.numel() + 6 * 4 * len(z)  # the state: at most six numbers a row


@every_variant
def test_a_call_leaves_no_trace(spec: str) -> None:
    z, y = example()
    module = lopsided.MultiLabelLoss(spec, pos_weight=torch.rand(9))
    before, state = copy.deepcopy(module.__dict__), torch.get_rng_state()
    inputs = z.clone(), y.clone()
    module(z.requires_grad_(), y).backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(z, inputs[0])
    assert torch.equal(y, inputs[1])
    assert str(module.__dict__) == str(before)


def test_a_weight_may_become_a_parameter() -> None:
    z, y = example()
    module, fixed = lopsided.MultiLabelLoss("bce"), torch.rand(9)
    module.pos_weight = torch.nn.Parameter(fixed, requires_grad=False)
    value = module(z, y)
    torch.testing.assert_close(value, lopsided.MultiLabelLoss("bce", pos_weight=fixed)(z, y))


@pytest.mark.slow
@every_variant
def test_autocast_changes_nothing(spec: str) -> None:
    z, y = example()
    for logits in (z.bfloat16(), z.float()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = rows(spec, y)(logits)
        assert torch.equal(inside, rows(spec, y)(logits))
        assert inside.dtype == torch.float32


@pytest.mark.parametrize("name", CATALOG)
def test_modules_are_copied_saved_and_pickled(name: str) -> None:
    z, y = example()
    module = lopsided.MultiLabelLoss(name, weight=torch.rand(9), pos_weight=torch.rand(9), label_smoothing=0.1)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(z, y), module(z, y))
        assert twin.formula == module.formula
        assert repr(twin) == repr(module)
    other = lopsided.MultiLabelLoss(name, weight=torch.zeros(9), pos_weight=torch.zeros(9), label_smoothing=0.1)
    assert not torch.equal(other(z, y), module(z, y))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(z, y), module(z, y))


class Trained(torch.nn.Module):
    """A head and its loss, as exported for training on device."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.head = torch.nn.Linear(5, 9)
        self.loss = lopsided.MultiLabelLoss(name)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        value: Tensor = self.loss(self.head(x), y)
        return value


@pytest.mark.compiles
@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOG)
def test_export(name: str) -> None:
    model, x = Trained(name), torch.randn(6, 5)
    y = example()[1].float()
    program = torch.export.export(model, (x, y))
    torch.testing.assert_close(program.module()(x, y), model(x, y))


MODULES: list[tuple[lopsided.MultiLabelLoss, str]] = [
    (lopsided.BinaryCrossEntropyLoss(), "bce"),
    (lopsided.FocalLoss(3.0, 0.4, True), "focal(gamma=3, alpha=0.4, detach_focus=True)"),
    (lopsided.AsymmetricLoss(3, 1, 0.1, False), "asl(gamma_neg=3, gamma_pos=1, clip=0.1, detach_focus=False)"),
    (
        lopsided.AsymmetricPolynomialLoss(3, 1, 0.1, 0.5, -0.5, -1, False),
        "apl(gamma_neg=3, gamma_pos=1, clip=0.1, epsilon_pos=0.5, epsilon_neg=-0.5, epsilon_pos_pow=-1, "
        "detach_focus=False)",
    ),
    (lopsided.ZLPRLoss(), "zlpr"),
]


@pytest.mark.parametrize(("module", "spec"), MODULES)
def test_modules_and_functions_agree(module: lopsided.MultiLabelLoss, spec: str) -> None:
    z, y = example()
    mask = y < 0.5
    assert torch.equal(module(z, y), multilabel_loss(z, y, spec))
    assert torch.equal(module(z, y, mask), multilabel_loss(z, y, spec, mask=mask))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(z, y), module(z, y))
    default: torch.nn.Module = type(module)()  # type: ignore[call-arg]
    plain = multilabel_loss(z, y, spec.partition("(")[0])
    assert torch.equal(default(z, y), plain), "the defaults of the class and of the catalog differ"


FAMOUS = {
    "bce": lopsided.BinaryCrossEntropyLoss,
    "focal": lopsided.FocalLoss,
    "asl": lopsided.AsymmetricLoss,
    "apl": lopsided.AsymmetricPolynomialLoss,
    "zlpr": lopsided.ZLPRLoss,
}


@pytest.mark.parametrize("name", FAMOUS)
def test_a_class_has_the_settings_of_its_entry_and_the_options_of_all(name: str) -> None:
    """Names, order, defaults and types; then the options, by keyword only, with theirs."""
    parameters = list(inspect.signature(FAMOUS[name]).parameters.values())
    settings = [each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert settings == list(inspect.signature(CATALOG[name]).parameters.values())
    assert {each.name: each.default for each in parameters[len(settings) :]} == DEFAULTS
    assert {each.kind for each in parameters[len(settings) :]} == {inspect.Parameter.KEYWORD_ONLY}


def test_settings_and_options_have_different_names() -> None:
    for make in CATALOG.values():
        assert not inspect.signature(make).parameters.keys() & DEFAULTS.keys()


def test_options_are_those_of_the_function() -> None:
    """The function takes what a module is given, and what belongs to a batch."""
    function = inspect.signature(multilabel_loss).parameters
    assert {name: function[name].default for name in DEFAULTS} == DEFAULTS
    hints = get_type_hints(multilabel_loss)
    assert {name: hints[name] for name in DEFAULTS} == get_type_hints(Options)
    assert function.keys() - DEFAULTS.keys() == {"logits", "targets", "loss", "row_weight", "mask"}


@pytest.mark.parametrize("module", [lopsided.MultiLabelLoss, lopsided.AdaptiveAsymmetricLoss, *FAMOUS.values()])
def test_help_shows_every_option(module: type) -> None:
    text = pydoc.plain(pydoc.render_doc(module))
    for name, default in DEFAULTS.items():
        assert re.search(rf"\b{name}: [^=\n]*= {re.escape(repr(default))}[,)\n]", text), name
    assert "**options" not in text


def test_loss_returns_a_module_from_settings_and_options() -> None:
    z, y = example()
    weight = torch.rand(9)
    made = [
        lopsided.loss("asl", gamma_neg=2, clip=0.1, reduction="sum", pos_weight=weight),
        lopsided.loss("asl(gamma_neg=2)", clip=0.1, reduction="sum", pos_weight=weight),
        lopsided.loss("asl(gamma_neg=2, clip=0.1)", reduction="sum", pos_weight=weight),
        lopsided.AsymmetricLoss(gamma_neg=2, clip=0.1, reduction="sum", pos_weight=weight),
    ]
    for criterion in made:
        assert isinstance(criterion, lopsided.MultiLabelLoss)
        assert criterion.formula == formula("asl", gamma_neg=2, clip=0.1) == formula("asl(gamma_neg=2)", clip=0.1)
        assert repr(criterion).partition("(")[2] == repr(made[-1]).partition("(")[2]
        assert torch.equal(criterion(z, y), made[-1](z, y))
    assert lopsided.loss("asl_official").formula == lopsided.AsymmetricLoss(gamma_pos=1).formula


def unknown_somewhere(y: Tensor) -> Tensor:
    return y.masked_fill(torch.rand(y.shape, generator=torch.Generator().manual_seed(0)) < 0.2, torch.nan)


@pytest.mark.compiles
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's own
@pytest.mark.parametrize("name", CATALOG)
def test_compiles_without_graph_breaks(name: str) -> None:
    torch.compiler.reset()
    z, y = example()
    module = lopsided.MultiLabelLoss(name, pos_weight=torch.rand(9))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    mask = y.bool() | (z < 2)
    for targets in (y, unknown_somewhere(y)):
        torch.testing.assert_close(compiled(z, targets, mask), module(z, targets, mask))
        gradients = [oracle.gradient(lambda z, f=f, t=targets: f(z, t, mask), z) for f in (compiled, module)]  # type: ignore[misc]
        torch.testing.assert_close(*gradients)


# of a two-way loss dynamo cannot follow the transposed half with dynamic shapes
@pytest.mark.compiles
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", [name for name in CATALOG if name != "two_way"])
def test_compiles_with_dynamic_shapes(name: str) -> None:
    torch.compiler.reset()
    module = lopsided.MultiLabelLoss(name)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for labels in (9, 12):
        z, y = example(labels=labels)
        torch.testing.assert_close(compiled(z, y), module(z, y))


@pytest.mark.compiles
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["asl", "apl", "zlpr"])
def test_functions_compile(name: str) -> None:
    torch.compiler.reset()
    formula = CATALOG[name]()
    z, y = example()
    compiled = torch.compile(lambda z, y: multilabel_loss(z, y, formula), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z, y), multilabel_loss(z, y, formula))


@pytest.mark.compiles
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_settings_that_change_are_compiled_anew(backend: str) -> None:
    torch.compiler.reset()
    z, y = example()

    def loss(z: Tensor, gamma: float, smoothing: float) -> Tensor:
        formula = CATALOG["asl"](gamma_neg=gamma, clip=smoothing)
        return multilabel_loss(z, y, formula, label_smoothing=smoothing, backend=backend)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for settings in ((2.0, 0.1), (2.5, 0.1), (2.5, 0.2), (3.25, 0.3), (2.0, 0.1)):
        torch.testing.assert_close(compiled(z, *settings), loss(z, *settings))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 4)), r"targets have shape \(2, 4\) but logits \(2, 3\)"),
        ((torch.zeros(2, 3), torch.tensor([0, 2])), r"lopsided.SparseTargets.from_indices\(targets\[:, None\]\)$"),
        ((torch.zeros(2, 3), torch.tensor([[0], [2]])), r"lopsided.SparseTargets.from_indices\(\.\.\.\)$"),
        ((torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3)), "logits must be floating point, got torch.int64"),
        ((torch.zeros(2, 0), torch.zeros(2, 0)), "labels > 0"),
        ((torch.zeros(2, 3), torch.full((2, 3), -1.0)), "the value -1: if"),
        ((torch.zeros(2, 3), torch.full((2, 3), 7)), "class indices"),
        ((torch.zeros(2, 3), torch.zeros(2, 3, requires_grad=True)), "detach"),
        ((torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3)), "mask must be bool"),
    ],
)
def test_bad_input_is_named(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        lopsided.AsymmetricLoss()(*arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lopsided.AsymmetricLoss(gamma_neg=-1), r"gamma_neg must be in \[0, inf\), got -1"),
        (lambda: lopsided.AsymmetricLoss(clip=1), r"clip must be in \[0, 1\), got 1"),
        (lambda: lopsided.FocalLoss(gamma=float("nan")), "gamma must be"),
        (lambda: lopsided.AsymmetricPolynomialLoss(epsilon_pos=float("inf")), "epsilon_pos must be finite"),
        (lambda: lopsided.ZLPRLoss(reduction="avg"), "none, mean, batchmean, sum; got 'avg'"),
        (lambda: lopsided.ZLPRLoss(backend="cuda"), "backend must be one of auto, .*; got 'cuda'"),
        (lambda: lopsided.ZLPRLoss(gama=1), "unexpected option 'gama' .known: threshold, scale, margin, "),  # type: ignore[call-arg]
        (lambda: lopsided.AsymmetricLoss(gama_neg=1), "unexpected option 'gama_neg': did you mean 'gamma_neg'"),  # type: ignore[call-arg]
        (
            lambda: lopsided.AsymmetricLoss(torch.zeros(2, 3)),  # type: ignore[arg-type]
            r"got a Tensor of shape \(2, 3\): make the loss first",
        ),
        (
            lambda: lopsided.loss("asl", reducton="sum"),
            "its settings are: gamma_neg, gamma_pos, clip, detach_focus, alpha",
        ),
        (lambda: lopsided.loss("asl_official", clip=0), "asl_official takes no settings"),
        (lambda: lopsided.loss("asl(clip=0)", clip=0.1), "clip is given twice: in 'asl"),
        (lambda: formula("asl(clip=0, clip=0.1)"), "a setting is given twice"),
        (lambda: formula("als"), "did you mean 'ral' or 'atl' or 'asl'"),
        (lambda: formula("asl(4)"), "name or name"),
        (lambda: formula("asl(gama_neg=4)"), "has no setting 'gama_neg': did you mean 'gamma_neg'"),
        (lambda: formula("cross_entropy"), r"unknown loss 'cross_entropy' \(known: bce, "),
        (lambda: formula("asl(a" + "=xxxx" * 60 + "!)"), "cannot read"),  # at once: no backtracking
        (lambda: formula("ral(epsilon_pos=2)"), "would train positive labels the wrong way"),
        (lambda: formula("asl(gamma_neg=True)"), "gamma_neg must be a number, got True"),
        (lambda: formula("asl(gamma_neg=" + "1" * 150 + "e300)"), "gamma_neg must be in"),
        (lambda: formula("asl(detach_focus=5)"), "detach_focus must be True or False, got 5"),
        (lambda: formula("bce#comment"), "cannot read"),
        (lambda: formula("asl(gamma_neg={[]:1})"), "cannot read"),
        (lambda: formula("-" * 100_000), "cannot read"),
        (lambda: formula("asl(gamma_neg=1is 2)"), "cannot read"),
        (lambda: lopsided.AsymmetricLoss(clip=1e-9), "clip must be 0 or at least 0.001, got 1e-09"),
        (lambda: lopsided.AsymmetricLoss(gamma_neg=10**400), "gamma_neg must be in"),
        (lambda: formula("__import__('os')"), "name or name"),
        (lambda: formula("asl(gamma_neg=open('f'))"), "cannot read"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()
