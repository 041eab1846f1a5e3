"""Optimisers that update chunk by chunk, against those of torch, and the rounding of bfloat16 weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lopsided import FusedAdagrad, FusedAdamW, FusedSGD, LinearLoss, SparseTargets
from lopsided.fused import FusedStep, Update, round_stochastically

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
    return body, LinearLoss(6, 90, loss, fused_step=fused_step, **options)


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
    total = torch.zeros(90)
    for x, targets in batches(4):
        hidden = body(x).detach()
        plain.zero_grad()
        plain(hidden, targets).backward()
        with torch.no_grad():
            total += plain.weight.grad.square().mean(1)
            plain.weight -= 0.1 * plain.weight.grad / (total.sqrt() + 1e-10).unsqueeze(1)
            plain.bias.copy_(head.bias)
        head.step(hidden, targets)
        plain.bias.data.copy_(head.bias)
        torch.testing.assert_close(head.weight, plain.weight, rtol=1e-4, atol=1e-6)


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
    special = torch.tensor([torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(round_stochastically(special).float(), special, equal_nan=True)


@pytest.mark.parametrize(("rounding", "arrives"), [("stochastic", True), ("kahan", True), ("nearest", False)])
def test_small_steps_add_up_in_bfloat16(rounding: str, arrives: bool) -> None:
    """400 steps of 1/2000 of a weight of 1: each is an eighth of what bfloat16 can tell from 1."""
    torch.manual_seed(0)
    fused = FusedSGD(lr=1.0, rounding=rounding)
    weight = torch.ones(64, 16, dtype=torch.bfloat16)
    state = fused.start(weight, None)
    update = Update(fused, state)
    for _ in range(400):
        update.begin()
        update.update(weight, None, slice(0, 64), torch.full((64, 16), 5e-4, dtype=torch.bfloat16), None)
    assert (abs(weight.float().mean() - 0.8) < 0.01) == arrives


def test_what_cannot_be_done_is_refused() -> None:
    x, targets = batches(1)[0]
    body, head = make("asl")
    with pytest.raises(RuntimeError, match="fused_step="):
        head.step(body(x), targets)
    head = LinearLoss(6, 90, fused_step=FusedSGD(lr=0.1), reduction="none")
    with pytest.raises(ValueError, match="one loss to descend"):
        head.step(body(x), targets)
    with pytest.raises(ValueError, match="rounding must be one of"):
        FusedSGD(lr=0.1, rounding="up")
    head = LinearLoss(6, 90, fused_step=FusedSGD(lr=0.1))
    first, second = head(body(x), targets), head(body(x), targets)
    first.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        second.backward()  # gradients are not accumulated over calls
