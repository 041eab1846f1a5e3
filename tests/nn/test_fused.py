"""Optimisers that update chunk by chunk, against those of torch, and the rounding of bfloat16 weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lopsided import FusedAdagrad, FusedAdamW, FusedSGD, LinearHead, SparseTargets
from lopsided.nn.fused import FusedStep, Update, round_stochastically

OPTIMIZERS: dict[str, tuple[FusedStep, Any]] = {
    "sgd": (FusedSGD(lr=0.5), lambda p: torch.optim.SGD(p, lr=0.5)),
    "momentum": (
        FusedSGD(lr=0.5, momentum=0.9, weight_decay=0.1, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, weight_decay=0.1, nesterov=True),
    ),
    "adamw": (FusedAdamW(lr=0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
}


def batches(steps: int) -> list[tuple[Tensor, SparseTargets]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(8, 5, generator=generator),
            SparseTargets.from_indices(torch.randint(90, (8, 3), generator=generator)),
        )
        for _ in range(steps)
    ]


def make(loss: str, fused_step: FusedStep | None = None, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A body and a head, always with the same weights; without fused_step the logits are held."""
    torch.manual_seed(0)
    body, backend = nn.Linear(5, 6), "eager" if fused_step is None else "auto"
    options: dict[str, Any] = {"reduction": "batchmean", "chunk": 32, "backend": backend, "dtype": dtype}
    return body, LinearHead(6, 90, loss, fused_step=fused_step, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("loss", ["asl", "zlpr", "two_way"])
@pytest.mark.parametrize("way", ["step", "backward"])
def test_equal_to_torchs_optimisers(name: str, loss: str, way: str) -> None:
    fused, make_plain = OPTIMIZERS[name]
    ours, theirs = make(loss, fused), make(loss)
    plain = make_plain(theirs[1].parameters())
    for x, targets in batches(5):
        for model in (ours, theirs):
            model[0].zero_grad()
        if way == "step":
            value = ours[1].step(ours[0](x), targets)
        else:
            value = ours[1](ours[0](x), targets)
            value.backward()
        expected = theirs[1](theirs[0](x), targets)
        plain.zero_grad()
        expected.backward()
        plain.step()
        torch.testing.assert_close(value.detach(), expected.detach())
        torch.testing.assert_close(ours[0].weight.grad, theirs[0].weight.grad, rtol=1e-4, atol=1e-6)
        for parameter, other in zip(ours[1].parameters(), theirs[1].parameters(), strict=True):
            assert parameter.grad is None
            torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-6)


def test_adagrad_of_rows() -> None:
    (body, head), (_, plain) = make("bce", FusedAdagrad(lr=0.1)), make("bce")
    total, totals = torch.zeros(90), torch.zeros(90)
    for x, targets in batches(4):
        hidden = body(x).detach()
        plain.zero_grad()
        plain(hidden, targets).backward()
        with torch.no_grad():
            total += plain.weight.grad.square().mean(1)
            plain.weight -= 0.1 * plain.weight.grad / (total.sqrt() + 1e-10).unsqueeze(1)
            totals += plain.bias.grad.square()
            plain.bias -= 0.1 * plain.bias.grad / (totals.sqrt() + 1e-10)
        head.step(hidden, targets)
        torch.testing.assert_close(head.weight, plain.weight, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(head.bias, plain.bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", ["step", "backward"])
def test_all_that_is_said_reaches_the_step(way: str) -> None:
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"label_weight": torch.rand(90, generator=generator), "label_smoothing": 0.1}
    options |= {"pos_weight": torch.rand(90, generator=generator), "ignore_index": -1, "reduction": "sum"}
    mask, row_weight = torch.rand(8, 90, generator=generator) < 0.7, torch.rand(8, generator=generator)
    targets = (torch.rand(8, 90, generator=generator) < 0.1).long()
    targets[torch.rand(8, 90, generator=generator) < 0.1] = -1
    x = torch.randn(8, 6, generator=generator)
    heads = []
    for fused_step, backend in ((FusedSGD(lr=0.01), "auto"), (None, "eager")):
        torch.manual_seed(0)
        heads.append(LinearHead(6, 90, "bce", fused_step=fused_step, backend=backend, **options))
    hiddens = [x.clone().requires_grad_() for _ in heads]
    expected = 1.7 * heads[1](hiddens[1], targets, mask, row_weight=row_weight)
    expected.backward()
    torch.optim.SGD(heads[1].parameters(), lr=0.01).step()
    if way == "step":
        value = 1.7 * heads[0].step(hiddens[0], targets, mask, row_weight=1.7 * row_weight) / 1.7
    else:
        value = 1.7 * heads[0](hiddens[0], targets, mask, row_weight=row_weight)
        value.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(hiddens[0].grad, hiddens[1].grad)
    torch.testing.assert_close(heads[0].weight, heads[1].weight)
    torch.testing.assert_close(heads[0].bias, heads[1].bias)


def test_frozen_parameters_stay() -> None:
    (x, targets), (body, head) = batches(1)[0], make("asl", FusedSGD(lr=1.0))
    head.bias.requires_grad_(False)
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    head.step(body(x), targets)
    assert not torch.equal(head.weight, weight)
    assert torch.equal(head.bias, bias)
    head.weight.requires_grad_(False)
    weight = head.weight.detach().clone()
    head.step(body(x), targets)
    assert torch.equal(head.weight, weight)


def test_a_backward_whose_saved_tensors_are_copies() -> None:
    """As those are that were moved to another device and back."""
    (x, targets), (body, head) = batches(1)[0], make("asl", FusedSGD(lr=1.0))
    other = make("asl", FusedSGD(lr=1.0))[1]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        value = head(body(x), targets)
    value.backward()
    other(body(x), targets).backward()
    assert torch.equal(head.weight, other.weight)


@pytest.mark.slow
@pytest.mark.parametrize("fused", [FusedSGD(lr=0.2, momentum=0.9), FusedAdamW(lr=0.02), FusedAdagrad(lr=0.1)])
@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_bfloat16_follows_float32(fused: FusedStep, rounding: str) -> None:
    """Fifty steps on one batch: a loss within 2 % of that in float32, and states in float32."""
    settings, (x, targets) = replace(fused, rounding=rounding), batches(1)[0]
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        body, head = make("bce", settings, dtype)
        hidden = body(x).detach()
        for _ in range(50):
            value = head.step(hidden, targets)
        ends.append(value.item())
        for name, state in head.named_buffers():
            assert state.dtype == (
                torch.bfloat16 if "residual" in name else torch.long if name == "steps" else torch.float32
            )
    assert ends[1] == pytest.approx(ends[0], rel=0.02)


def test_states_start_from_zero_wherever_they_were_made() -> None:
    head = LinearHead(6, 90, fused_step=FusedAdamW(lr=0.01), device="meta").to_empty(device="cpu")
    head.reset_parameters()
    assert all(not buffer.any() for buffer in head.buffers())
    head.step(torch.randn(8, 6), batches(1)[0][1])
    assert head.weight.isfinite().all()
    assert head.steps == 1


def test_replicas_round_alike_and_a_run_repeats() -> None:
    ends = []
    for seed in (1, 2):
        body, head = make("asl", FusedSGD(lr=0.1), torch.bfloat16)
        torch.manual_seed(seed)
        for x, targets in batches(3):
            head.step(body(x).detach(), targets)
        ends.append(head.weight.detach().clone())
    assert torch.equal(*ends)


def test_a_rate_that_changes_and_a_state_that_is_saved() -> None:
    body, head = make("asl", FusedAdamW(lr=0.01))
    stopped = make("asl", FusedAdamW(lr=0.01))[1]
    data = batches(6)
    for number, (x, targets) in enumerate(data):
        head.fused_step.lr = 0.01 / (1 + number)
        if number == 3:
            stopped.load_state_dict(head.state_dict())
        head.step(body(x).detach(), targets)
        if number >= 3:
            stopped.fused_step.lr = head.fused_step.lr
            stopped.step(body(x).detach(), targets)
    assert torch.equal(head.weight, stopped.weight)
    assert head.steps == 6


@pytest.mark.slow
def test_stochastic_rounding_is_right_on_average() -> None:
    """Only to the two neighbours, and up as often as x is above the lower one: within 5 standard errors."""
    torch.manual_seed(0)
    x = torch.tensor([1.0, 1 + 2**-9, 1 + 2**-12, -3.3, 1e-3, 7e37, -0.0])
    drawn = torch.stack([round_stochastically(x) for _ in range(20_000)]).double()
    low = torch.where(x >= 0, 1, -1) * ((x.abs().view(torch.int32) & -(1 << 16)).view(torch.float32))
    unit = ((low.view(torch.int32) + (1 << 16)).view(torch.float32) - low).double()
    share = (x.double() - low.double()) / unit
    assert torch.all((drawn == low.double()) | (drawn == low.double() + unit))
    error = (drawn.mean(0) - x.double()).abs() / unit.abs()
    assert torch.all(error <= 5 * (share * (1 - share) / 20_000).sqrt() + 1e-12)
    assert round_stochastically(torch.full((100,), 3.4e38)).isfinite().all()
    special = torch.tensor([torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(round_stochastically(special).float(), special, equal_nan=True)


@pytest.mark.parametrize(("rounding", "arrives"), [("stochastic", True), ("kahan", True), ("nearest", False)])
def test_small_steps_add_up_in_bfloat16(rounding: str, arrives: bool) -> None:
    """400 steps of 1/2000 of a weight of 1: each is an eighth of what bfloat16 can tell from 1."""
    torch.manual_seed(0)
    fused = FusedSGD(lr=1.0, rounding=rounding)
    weight = torch.ones(64, 16, dtype=torch.bfloat16)
    states = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in fused.layout(weight).items()}
    update = Update(fused, {"weight": weight}, {"weight": states}, torch.zeros((), dtype=torch.long))
    for _ in range(400):
        update.begin()
        update.update(slice(0, 64), torch.full((64, 16), 5e-4, dtype=torch.bfloat16), None)
    assert (abs(weight.float().mean() - 0.8) < 0.01) == arrives


def test_what_cannot_be_done_is_refused() -> None:
    x, targets = batches(1)[0]
    body, head = make("asl")
    with pytest.raises(RuntimeError, match="fused_step="):
        head.step(body(x), targets)
    head = LinearHead(6, 90, fused_step=FusedSGD(lr=0.1), reduction="none")
    with pytest.raises(ValueError, match="one loss to descend"):
        head.step(body(x), targets)
    with pytest.raises(ValueError, match="rounding must be one of"):
        FusedSGD(lr=0.1, rounding="up")
    for wrong in ({"momentum": -3}, {"nesterov": True}, {"weight_decay": -1}):
        with pytest.raises(ValueError, match=r"momentum|nesterov|weight_decay"):
            FusedSGD(lr=0.1, **wrong)
    with pytest.raises(ValueError, match=r"betas\[0\]"):
        FusedAdamW(lr=0.1, betas=(1.5, 0.9))
    with pytest.raises(TypeError, match="fused_step must be a FusedSGD"):
        LinearHead(6, 90, fused_step="sgd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use bfloat16 or float32"):
        LinearHead(6, 90, fused_step=FusedSGD(lr=0.1), dtype=torch.float16)
    with pytest.raises(ValueError, match="takes no fused_step"):
        LinearHead(6, 90, fused_step=FusedSGD(lr=0.1), backend="eager")
    for settings, other in ((FusedAdamW(lr=0.1), torch.bfloat16), (FusedSGD(lr=0.1, rounding="kahan"), torch.bfloat16)):
        cast = LinearHead(6, 90, fused_step=settings).to(other)
        with pytest.raises(RuntimeError, match="make the head with its final dtype"):
            cast.step(body(x).to(other), targets)
    changed = LinearHead(6, 90, fused_step=FusedSGD(lr=0.1))
    changed.fused_step = FusedSGD(lr=0.1, momentum=0.9)
    with pytest.raises(RuntimeError, match="make the head with its final dtype and kind of settings"):
        changed.step(body(x), targets)
    head = LinearHead(6, 90, fused_step=FusedSGD(lr=0.1))
    first, second = head(body(x), targets), head(body(x), targets)
    first.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        second.backward()  # gradients are not accumulated over calls
