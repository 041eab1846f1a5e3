"""The Triton executor: its choices, elementary functions and offsets, and what only a GPU can show.

As `test_triton.py`: on a GPU where there is one, else by the interpreter.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided import SparseTargets
from lopsided.compute.triton import run as triton
from lopsided.losses import CATALOG, formula
from lopsided.nn.functional import multilabel_loss
from lopsided.targets import Supervision
from tests.batches import batch
from tests.compute import test_triton
from tests.compute.test_triton import DEVICE, GPU

pytestmark = test_triton.pytestmark


def test_a_tile_is_chosen_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest of those that are stated, by a clock that is made up; nothing is timed where bits must repeat."""
    timed: list[triton.Tile] = []

    def clock(launch: Any, **_: Any) -> float:
        launch()
        return float(timed[-1].elements)

    monkeypatch.setattr("triton.testing.do_bench", clock)
    monkeypatch.setattr(triton, "_chosen", {})
    monkeypatch.setattr(triton, "is_interpreted", lambda: False)
    smallest = min(triton.TILES, key=lambda tile: tile.elements)
    torch.use_deterministic_algorithms(True)
    try:
        assert triton._choose(("a",), timed.append, once=False) == triton.TILES[0]
    finally:
        torch.use_deterministic_algorithms(False)
    assert triton._choose(("a",), timed.append, once=True) == triton.TILES[0]
    assert timed == []
    assert triton._choose(("a",), timed.append, once=False) == smallest
    assert timed == list(triton.TILES)
    assert triton._choose(("a",), timed.append, once=True) == smallest
    assert timed == list(triton.TILES)
    torch.use_deterministic_algorithms(True)
    try:
        assert triton._choose(("a",), timed.append, once=False) == triton.TILES[0]
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_tile_that_does_not_fit_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.errors import OutOfResources

    def launch(tile: triton.Tile) -> None:
        if tile != triton.TILES[1]:
            raise OutOfResources(1, 0, "registers") if tile.warps == 8 else torch.OutOfMemoryError

    monkeypatch.setattr("triton.testing.do_bench", lambda launch, **_: launch() or 1.0)
    monkeypatch.setattr(triton, "_chosen", {})
    monkeypatch.setattr(triton, "is_interpreted", lambda: False)
    assert triton._choose(("a",), launch, once=False) == triton.TILES[1]


def test_entries_of_the_next_row_are_not_heard() -> None:
    """Whatever the dtype of the indices makes of what lies behind the last entry."""
    z = torch.randn(2, 256, device=DEVICE)
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        said = SparseTargets(torch.tensor([0, 1, 3]), torch.tensor([3, 0, 254]).to(dtype)).to(DEVICE)
        value = multilabel_loss(z, said, "bce", backend="triton", reduction="none")
        torch.testing.assert_close(value, multilabel_loss(z, said, "bce", backend="eager", reduction="none"))


def test_rows_longer_than_a_grid_are_refused() -> None:
    z = torch.zeros(1, device=DEVICE, dtype=torch.half).expand(triton._MOST + 1)
    assert triton.refusal(formula("asl"), z) == "it takes up to 1073725440 labels, and there are 1073725441"
    assert triton.refusal(formula("asl"), z[1:]) is None


def spread(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, 20_000, dtype=torch.float64).float()


# the function in float64, where it is asked, and the units in the last place that it may be off
FUNCTIONS = {
    "exp": (torch.exp, spread(-87, 0), 65),  # 64 of the product x log2(e), 1 of exp2, which differs by processor
    "log": (torch.log, torch.cat([spread(0.01, 3), torch.logspace(-37, 37, 5000)]), 4),
    "log1p": (torch.log1p, torch.cat([spread(-0.999, 2), -torch.logspace(-30, -1, 5000)]), 4),
    "log1p_unit": (torch.log1p, torch.cat([spread(0, 1), torch.logspace(-30, 0, 5000)]), 2),
    "reciprocal": (torch.reciprocal, torch.cat([spread(0.001, 2), torch.logspace(-30, 30, 5000)]), 5),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_functions_in_units_in_the_last_place(name: str) -> None:
    from tests.triton_functions import apply

    exact, x, most = FUNCTIONS[name]
    found = torch.full_like(x, torch.nan, device=DEVICE)
    apply[(-(-len(x) // 1024),)](x.to(DEVICE), found, len(x), NAME=name)
    expected = exact(x.double())
    unit = torch.nextafter(expected.float().abs(), torch.tensor(torch.inf)).double() - expected.float().abs().double()
    units = (found.double().cpu() - expected).abs() / unit
    assert units.max() <= most
    nan = torch.full((1,), torch.nan, device=DEVICE)
    apply[(1,)](nan, found, 1, NAME=name)
    assert found[0].isnan()


def test_offsets_are_64_bit() -> None:
    """Rows and labels more than 2^31 numbers apart. The memory between them is reserved, and never touched."""
    loss, (z, y) = formula("bce"), batch(2, 5)
    base = torch.empty((1 << 31) + 8, dtype=torch.bfloat16, device=DEVICE)
    for strides in ((1 << 31, 1), (1, 1 << 29)):
        far = base.as_strided(z.shape, strides).copy_(z)
        value, grad = triton.rows(loss, far, Supervision(y.to(DEVICE)))[:2]
        near = triton.rows(loss, far.clone(memory_format=torch.contiguous_format), Supervision(y.to(DEVICE)))
        torch.testing.assert_close((value, grad), (near.values, near.gradient))


needs_gpu = pytest.mark.skipif(not GPU, reason="no GPU")


@needs_gpu
def test_bits_repeat() -> None:
    z, y = (tensor.float().to(DEVICE) for tensor in batch(64, 3000))
    for name in CATALOG:
        results = [triton.rows(formula(name), z, Supervision(y))[:2] for _ in range(3)]
        for value, grad in results[1:]:
            assert torch.equal(value, results[0][0])
            assert torch.equal(grad, results[0][1])  # type: ignore[arg-type]


@needs_gpu
@pytest.mark.parametrize("name", ["asl", "zlpr"])
def test_captured_in_a_graph_without_waiting(name: str) -> None:
    z, y = (tensor.float().to(DEVICE) for tensor in batch(64, 3000))
    leaf = z.clone().requires_grad_()
    loss = lopsided.MultiLabelLoss(name, reduction="sum")

    def step() -> Tensor:
        value: Tensor = loss(leaf, y)
        leaf.grad = torch.autograd.grad(value, leaf)[0]
        return value

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda.set_sync_debug_mode("default")
        expected = step().detach().clone()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = step()
    value.detach().zero_()
    graph.replay()
    torch.testing.assert_close(value, expected)


@needs_gpu
def test_more_elements_than_32_bits_count() -> None:
    rows, labels = 33, 1 << 26
    if torch.cuda.mem_get_info()[0] < 20 << 30:
        pytest.skip("needs 20 GiB")
    z = torch.randn(rows, labels, dtype=torch.bfloat16, device=DEVICE)
    y = torch.zeros(rows, labels, dtype=torch.bool, device=DEVICE)
    value, grad = triton.rows(formula("bce"), z, Supervision(y))[:2]
    assert grad is not None
    last, slopes = triton.rows(formula("bce"), z[-1:].clone(), Supervision(y[-1:].clone()))[:2]
    torch.testing.assert_close((value[-1:], grad[-1:]), (last, slopes))


def head_gradients(backend: str, name: str, dtype: torch.dtype | None = None, parallel: bool = False) -> list[Tensor]:
    """Of weight and bias of a linear head under that loss, in autocast, or wrapped for data-parallel training."""
    torch.manual_seed(0)
    hidden, y = torch.randn(8, 6, device=DEVICE), torch.rand(8, 40, device=DEVICE) < 0.1
    model: torch.nn.Module = torch.nn.Linear(6, 40, device=DEVICE)
    model = torch.nn.parallel.DistributedDataParallel(model) if parallel else model
    criterion = lopsided.MultiLabelLoss(name, backend=backend)
    with torch.autocast(DEVICE, dtype, enabled=dtype is not None):
        value = criterion(model(hidden), y)
    assert value.dtype == torch.float32
    value.backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("name", ["asl", "zlpr"])
def test_in_autocast(name: str) -> None:
    found, expected = (head_gradients(backend, name, torch.bfloat16) for backend in ("triton", "eager"))
    assert all(grad.dtype == torch.float32 for grad in found)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-3)


def test_under_data_parallel(tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("nccl" if GPU else "gloo", init_method=store, rank=0, world_size=1)
    try:
        wrapped = head_gradients("triton", "asl", parallel=True)
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(wrapped, head_gradients("eager", "asl"))
