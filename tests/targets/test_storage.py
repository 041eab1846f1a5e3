"""How tensors hold their numbers: subclasses, freed memory, an ignore_index that they cannot hold."""

import math
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.masked import masked_tensor

from lopsided import SparseTargets
from lopsided.nn.functional import multilabel_loss

LOG_2 = math.log(2)
BACKENDS = ["auto", "eager", "streamed"]
Z = torch.tensor([[1.0, -1.0, 2.0], [0.5, 3.0, -2.0]])
Y = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
WEIGHT = torch.tensor([0.0, 0.5, 1.0])


class Named(Tensor):
    """A subclass with memory of its own, as libraries of images have them."""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
def test_masked_tensors_are_refused(backend: str) -> None:
    masked = masked_tensor(Y, Y > 0)
    for logits, targets in ((Z, masked), (masked_tensor(Z, Y > 0), Y), (masked_tensor(Z, Y > 0), masked)):
        with pytest.raises(TypeError, match=r"MaskedTensor.* pass plain tensors"):
            multilabel_loss(logits, targets, "asl", backend=backend)
    with pytest.raises(TypeError, match="weight are a MaskedTensor"):
        multilabel_loss(Z, Y, "asl", weight=masked_tensor(WEIGHT, WEIGHT > 0), backend=backend)


@pytest.mark.filterwarnings("ignore:DTensor random operators")  # older torch, of the mesh
def test_distributed_tensors_beside_plain_ones_are_refused(mesh: Any) -> None:
    beside: dict[str, Tensor] = {"weight": WEIGHT, "pos_weight": WEIGHT, "mask": Y > 0, "row_weight": WEIGHT[:2]}
    for name, tensor in beside.items():
        with pytest.raises(TypeError, match=f"{name} are a DTensor"):
            multilabel_loss(Z, Y, "bce", **{name: distribute_tensor(tensor, mesh, [Replicate()])})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="targets are a DTensor"):
        multilabel_loss(Z, distribute_tensor(Y, mesh, [Replicate()]), "bce")


@pytest.mark.compiles  # where torch cannot compile a loss, it has no softplus of distributed tensors either
def test_distributed_tensors_alone_are_served_by_torch(mesh: Any) -> None:
    z, y, weight = (distribute_tensor(tensor, mesh, [Replicate()]) for tensor in (Z, Y, WEIGHT))
    value = multilabel_loss(z, y, "asl", weight=weight)
    assert isinstance(value, DTensor)
    torch.testing.assert_close(value.to_local(), multilabel_loss(Z, Y, "asl", weight=WEIGHT))


@pytest.mark.parametrize("which", ["logits", "targets", "weight", "pos_weight", "mask", "row_weight"])
def test_subclasses_with_memory_give_what_plain_tensors_give(which: str) -> None:
    given = {"logits": Z, "targets": Y, "weight": WEIGHT, "pos_weight": WEIGHT, "mask": Y > 0, "row_weight": WEIGHT[:2]}
    expected = multilabel_loss(**given, loss="asl")  # type: ignore[arg-type]
    given[which] = given[which].as_subclass(Named)
    torch.testing.assert_close(multilabel_loss(**given, loss="asl").as_subclass(Tensor), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [0, 8])
def test_freed_memory_is_refused(backend: str, size: int) -> None:
    def freed(tensor: Tensor, start: int = 0) -> Tensor:
        part = torch.cat([tensor[:1]] * start + [tensor])[start:]
        part.untyped_storage().resize_(size)
        return part

    for start in (0, 3):
        with pytest.raises(RuntimeError, match="logits have no memory"):
            multilabel_loss(freed(Z, start), Y, "asl", backend=backend)
        with pytest.raises(RuntimeError, match="targets have no memory"):
            multilabel_loss(Z, freed(Y, start), "asl", backend=backend)
        with pytest.raises(RuntimeError, match="weight have no memory"):
            multilabel_loss(Z, Y, "asl", weight=freed(WEIGHT, start), backend=backend)
        targets = SparseTargets(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 2]), freed(WEIGHT, start))
        with pytest.raises(RuntimeError, match="values have no memory"):
            multilabel_loss(Z, targets, "asl", backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sparse_layouts_where_dense_ones_belong_are_refused(backend: str) -> None:
    with pytest.raises(TypeError, match="logits must be dense"):
        multilabel_loss(Z.to_sparse(), Y, "asl", backend=backend)
    with pytest.raises(TypeError, match="mask must be dense"):
        multilabel_loss(Z, Y, "asl", mask=(Y > 0).to_sparse(), backend=backend)


def test_memory_that_holds_the_numbers_negated() -> None:
    z, y = torch._neg_view(-Z), torch._neg_view(-Y)
    torch.testing.assert_close(
        multilabel_loss(z[:, ::2], y[:, ::2], "asl"), multilabel_loss(Z[:, ::2], Y[:, ::2], "asl")
    )
    torch.testing.assert_close(multilabel_loss(z, y, "asl"), multilabel_loss(Z, Y, "asl"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "stored", "ignore_index"),
    [
        (torch.float16, -9999, -9999),
        (torch.bfloat16, -999, -999),
        (torch.float16, 2051, 2051),  # between two numbers: to the even one
        (torch.float32, -(2**24) - 1, -(2**24) - 1),
        (torch.float64, -(2**53) - 1, -(2**53) - 1),
        (torch.uint8, 255, 255),
        (torch.int8, -1, -1),
        (torch.int64, -(2**24) - 1, -(2**24) - 1),
    ],
)
def test_ignore_index_is_compared_as_the_targets_hold_it(
    backend: str, dtype: torch.dtype, stored: int, ignore_index: int
) -> None:
    """The logit of the ignored label is 2, so that its entropy would change value and gradient."""
    z = torch.tensor([[0.0, 0.0, 2.0]]).requires_grad_()
    targets = torch.tensor([[0, 1, stored]]).to(dtype)
    entries = SparseTargets(torch.tensor([0, 2]), torch.tensor([1, 2]), targets[0, 1:])
    for given in (targets, entries):
        value = multilabel_loss(z, given, "bce", ignore_index=ignore_index, backend=backend)
        assert value.item() == pytest.approx(LOG_2)
        (gradient,) = torch.autograd.grad(value, z)
        torch.testing.assert_close(gradient, torch.tensor([[0.25, -0.25, 0.0]]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "stored", "ignore_index"),
    [(torch.uint8, 255, -1), (torch.int8, -1, 255), (torch.int8, -1, -257), (torch.float16, -math.inf, -(10**6))],
)
def test_an_ignore_index_that_targets_cannot_hold_matches_nothing(
    backend: str, dtype: torch.dtype, stored: float, ignore_index: int
) -> None:
    z, clean = torch.zeros(1, 3), torch.tensor([[0, 1, 0]], dtype=dtype)
    assert multilabel_loss(z, clean, "bce", ignore_index=ignore_index, backend=backend).item() == pytest.approx(LOG_2)
    clean[0, 2] = stored
    with pytest.raises(ValueError, match=r"targets must lie in \[0, 1\]"):
        multilabel_loss(z, clean, "bce", ignore_index=ignore_index, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bools_are_never_ignored_by_a_number_they_cannot_be(backend: str) -> None:
    z, y = torch.zeros(1, 2), torch.tensor([[True, False]])
    assert multilabel_loss(z, y, "bce", ignore_index=-1, backend=backend, reduction="sum").item() == pytest.approx(
        2 * LOG_2
    )
    assert multilabel_loss(z, y, "bce", ignore_index=1, backend=backend, reduction="sum").item() == pytest.approx(LOG_2)
