"""Labels split over ranks (gloo, processes of this machine), against the same head on one."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.fsdp as fsdp
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from lopsided import FusedAdamW, FusedSGD, LabelShard, LinearHead, SparseTargets, linear_loss
from lopsided.losses import CATALOG, formula
from tests.batches import batch
from tests.ranks import on_ranks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo"),
]
ROOT = Path(__file__).parents[2]
evaluate: Any = linear_loss  # which mypy would not let take its arguments from lists


def problem(labels: int, rows: int = 6) -> tuple[Tensor, Tensor, Tensor, SparseTargets]:
    generator = torch.Generator().manual_seed(labels)
    hidden, weight, bias = (torch.randn(shape, generator=generator) for shape in ((rows, 5), (labels, 5), (labels,)))
    y = batch(rows, labels, 0.2)[1]
    y[1] = 0
    return hidden, weight, bias, SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y])


def differ(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def gathered(distributed: Any) -> Tensor:
    """All rows of a parameter, or of its gradient, on whichever ranks they lie."""
    whole: Tensor = distributed.full_tensor() if isinstance(distributed, DTensor) else distributed
    return whole.detach()


# ---- one step: every loss, also with shards that are short or empty


def _every_loss(folder: Path) -> None:
    for labels in (70, 4, 1):
        hidden, weight, bias, targets = problem(labels)
        shard = LabelShard(labels)
        mine = slice(shard.start, shard.stop)
        for name in CATALOG:
            for backend in ("auto", "streamed"):
                for reduction in ("mean", "batchmean", "none"):
                    if name == "two_way" and reduction == "none":
                        continue
                    whole: Any = [leaf.clone().requires_grad_() for leaf in (hidden, weight, bias)]
                    parts: Any = [leaf.clone().requires_grad_() for leaf in (hidden, weight[mine], bias[mine])]
                    value = evaluate(*whole, targets, name, reduction=reduction)
                    split = evaluate(*parts, targets, name, reduction=reduction, shard=shard, backend=backend, chunk=7)
                    differ(split, value)
                    upstream = torch.linspace(-1, 2, len(hidden)) if reduction == "none" else torch.tensor(1.7)
                    expected = torch.autograd.grad(value, whole, upstream)
                    found = torch.autograd.grad(split, parts, upstream)
                    differ(found[0], expected[0])
                    differ(found[1], expected[1][mine])
                    differ(found[2], expected[2][mine])


def test_every_loss(tmp_path: Path) -> None:
    on_ranks(3, tmp_path, _every_loss, tmp_path)


# ---- a run of fifty steps, top k, and what crosses the network


def _train(head: LinearHead, steps: int, make: Any) -> list[float]:
    torch.manual_seed(1)
    body = nn.Linear(5, 8)
    optimizer = torch.optim.SGD([*body.parameters(), *(head.parameters() if make else ())], lr=0.01, momentum=0.9)
    values = []
    for _ in range(steps):
        x = torch.randn(6, 5)
        targets = SparseTargets.from_indices(torch.randint(head.num_labels, (6, 3)))
        optimizer.zero_grad()
        if make:
            value = head(body(x), targets)
            value.backward()
        else:
            value = head.step(body(x), targets)
        optimizer.step()
        values.append(value.item())
    return values


def _fifty_steps(folder: Path) -> None:
    # the first of each pool; `test_every_loss` has the others, among them aml, whose slope a last digit may turn
    of_pools = {type(formula(name).pool): name for name in reversed(CATALOG)}
    for name in sorted({*of_pools.values(), "asl", "db", "ldam(scale=1)"}):
        seen: Any = {} if name in CATALOG else {"counts": torch.arange(50.0), "rows": 60}
        for fused in (None, FusedSGD(lr=0.01, momentum=0.9)) if name in ("asl", "zlpr", "db") else (None,):
            heads = []
            for shard in (None, LabelShard(50)):
                torch.manual_seed(0)
                heads.append(LinearHead(8, 50, name, shard=shard, fused_step=fused, chunk=16, **seen))
            plain, split = (torch.tensor(_train(head, 50, fused is None)) for head in heads)
            differ(split, plain)
            whole = gathered(heads[1].weight)
            differ(whole, heads[0].weight.detach())
            hidden = torch.randn(9, 8).round()
            for found, expected in zip(
                heads[1].predict_topk(hidden, 20), heads[0].predict_topk(hidden, 20), strict=True
            ):
                differ(found, expected)


def test_fifty_steps_of_training(tmp_path: Path) -> None:
    on_ranks(3, tmp_path, _fifty_steps, tmp_path)


def _traffic(folder: Path) -> None:
    sent: list[int] = []
    for which in ("all_gather", "all_reduce"):
        original = getattr(dist, which)

        def counted(*arguments: Any, original: Any = original, **options: Any) -> Any:
            sent.append(next(each for each in reversed(arguments) if isinstance(each, Tensor)).numel())
            return original(*arguments, **options)

        setattr(dist, which, counted)
    rows, features = 6, 5
    for name in CATALOG:
        counts = []
        for labels in (40, 4000):
            hidden, weight, bias, targets = problem(labels)
            shard = LabelShard(labels)
            leaves: Any = [
                leaf.requires_grad_()
                for leaf in (hidden, weight[shard.start : shard.stop], bias[shard.start : shard.stop])
            ]
            sent.clear()
            evaluate(*leaves, targets, name, shard=shard).backward()
            counts.append(sum(sent))
        assert counts[0] == counts[1]  # whatever L
        numbers = 16 if formula(name).pool.staged else 8  # of a row; a staged pool has two states
        assert rows * features < counts[0] <= rows * (features + numbers) + 2, (name, counts)


def test_what_is_sent_does_not_grow_with_the_labels(tmp_path: Path) -> None:
    on_ranks(2, tmp_path, _traffic, tmp_path)


# ---- together with data parallelism: 2 x 2


def _two_by_two(folder: Path) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "labels"))
    replica = mesh["data"].get_local_rank()
    x, targets = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), [[0, 3], [7], [5, 9], [8]]
    mine = slice(2 * replica, 2 * replica + 2)
    for name in ("asl", "zlpr"):
        for fused in (None, FusedSGD(lr=0.5)):
            for wrap in ("ddp", "fsdp"):
                torch.manual_seed(0)
                body: Any = nn.Linear(3, 4)
                plain: Any = LinearHead(4, 11, name, reduction="batchmean")
                torch.manual_seed(0)
                twin: Any = nn.Linear(3, 4)
                shard = LabelShard(11, mesh["labels"], data=mesh["data"])
                head = LinearHead(4, 11, name, reduction="batchmean", shard=shard, fused_step=fused)
                twin = (
                    DistributedDataParallel(twin, process_group=mesh["data"].get_group())
                    if wrap == "ddp"
                    else fsdp.fully_shard(twin, mesh=mesh["data"])
                )
                mean = plain(body(x), SparseTargets.from_indices(targets))
                mean.backward()
                if fused is None:
                    head(twin(x[mine]), SparseTargets.from_indices(targets[mine])).backward()
                    found = gathered(head.weight.grad)
                    differ(found, plain.weight.grad)
                else:
                    head.step(twin(x[mine]), SparseTargets.from_indices(targets[mine]))
                    differ(gathered(head.weight), plain.weight - 0.5 * plain.weight.grad)
                grad = next(iter(twin.parameters())).grad
                differ(grad.full_tensor() if wrap == "fsdp" else grad, body.weight.grad)


@pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="needs torch 2.6, for fully_shard")
def test_two_by_two_with_ddp_and_fsdp(tmp_path: Path) -> None:
    on_ranks(4, tmp_path, _two_by_two, tmp_path)


# ---- checkpoints


def _head(fused: bool, seed: int) -> tuple[LinearHead, torch.optim.Optimizer | None]:
    torch.manual_seed(seed)
    head = LinearHead(4, 11, "asl", shard=LabelShard(11), fused_step=FusedAdamW(lr=0.1) if fused else None)
    return head, None if fused else torch.optim.AdamW(head.parameters(), lr=0.1)


def _descend(head: LinearHead, optimizer: torch.optim.Optimizer | None, steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    for _ in range(steps):
        hidden = torch.randn(3, 4, generator=generator)
        targets = SparseTargets.from_indices(torch.randint(11, (3, 2), generator=generator))
        if optimizer is None:
            head.step(hidden, targets)
        else:
            optimizer.zero_grad()
            head(hidden, targets).backward()
            optimizer.step()


def _state(head: LinearHead, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    return {"head": head.state_dict()} | ({"optimizer": get_optimizer_state_dict(head, optimizer)} if optimizer else {})


def _save(folder: Path) -> None:
    for fused in (False, True):
        head, optimizer = _head(fused, 0)
        _descend(head, optimizer, 3)
        save(_state(head, optimizer), checkpoint_id=folder / f"checkpoint{fused}")
        _descend(head, optimizer, 4)
        whole = gathered(head.weight).detach()
        if dist.get_rank() == 0:
            torch.save(whole, folder / f"expected{fused}.pt")
        dist.barrier()


def _load(folder: Path) -> None:
    for fused in (False, True):
        head, optimizer = _head(fused, 5)
        state = _state(head, optimizer)
        load(state, checkpoint_id=folder / f"checkpoint{fused}")
        head.load_state_dict(state["head"])
        if optimizer is not None:
            set_optimizer_state_dict(head, optimizer, state["optimizer"])
        _descend(head, optimizer, 4)
        expected = torch.load(folder / f"expected{fused}.pt", weights_only=True)
        torch.testing.assert_close(gathered(head.weight), expected, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_of_three_ranks_goes_on_with_two_or_one(tmp_path: Path) -> None:
    on_ranks(3, tmp_path, _save, tmp_path)
    on_ranks(2, tmp_path, _load, tmp_path)
    on_ranks(1, tmp_path, _load, tmp_path)


def test_the_example_learns_what_was_planted() -> None:
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "examples/sharded_head.py", "--labels", "5000"]
    result = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "the planted one for 64 of 64 features" in result.stdout, result.stderr


def test_the_page_is_right(tmp_path: Path) -> None:
    """Its code runs, from top to bottom, on a mesh of one rank."""
    on_ranks(1, tmp_path, _page, tmp_path)


def _page(folder: Path) -> None:
    code = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/extreme.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(code) == 4
    mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("data", "labels"))
    space: dict[str, Any] = {"mesh": mesh, "num_labels": 1000, "LabelShard": LabelShard}
    exec("\n".join(code[:3]), space)
    body, head = space["body"], space["head"] = nn.Linear(5, 256), space["head"]
    (1e4 * head(body(torch.randn(2, 5)), SparseTargets.from_indices([[3], [999]]))).backward()
    exec(code[3], space)
    squares: list[Any] = [gathered(p.grad).square().sum() for p in body.parameters()]
    squares += [gathered(p.grad).square().sum() for p in head.parameters()]
    assert abs(sum(squares) - 1) < 1e-3


# ---- a rank that dies


def _dying(folder: Path) -> None:
    hidden, weight, bias, targets = problem(70)
    shard = LabelShard(70)
    mine = slice(shard.start, shard.stop)
    evaluate(hidden, weight[mine], bias[mine], targets, "zlpr", shard=shard)
    if dist.get_rank() == 1:
        os._exit(0)
    try:
        evaluate(hidden, weight[mine], bias[mine], targets, "zlpr", shard=shard)
    except RuntimeError as error:
        (folder / f"error{dist.get_rank()}").write_text(str(error))
    os._exit(0)


def test_a_rank_that_dies_makes_the_others_fail(tmp_path: Path) -> None:
    start = time.monotonic()
    on_ranks(3, tmp_path, _dying, tmp_path)
    assert time.monotonic() - start < 60
    for rank in (0, 2):
        assert "cannot reach the others of its label shard" in (tmp_path / f"error{rank}").read_text()


def test_without_a_process_group_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="torchrun"):
        LabelShard(10)
