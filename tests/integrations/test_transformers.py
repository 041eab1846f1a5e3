"""The loss in a real Trainer, with a tiny model: a step over several batches equals one over a large batch."""

from __future__ import annotations

import copy
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import lopsided
from lopsided.integrations.transformers import UNKNOWN, loss

ROWS, LABELS = 8, 5


def model() -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    config.num_labels = LABELS
    made: nn.Module = BertForSequenceClassification(config)
    return made


def rows(unknown: bool, dtype: torch.dtype) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(20, (ROWS, 4), generator=generator)
    labels = (torch.rand(ROWS, LABELS, generator=generator) < 0.3).to(dtype)
    if unknown:
        labels[0, :4] = labels[1, 2:] = UNKNOWN  # others have none, so that batches differ
    return [{"input_ids": x, "labels": y} for x, y in zip(inputs, labels, strict=True)]


def step(folder: Path, trained: nn.Module, spec: str, data: list[dict[str, Tensor]], size: int = 4) -> None:
    """Trains one step of two batches; the second one of 6 rows at 4 is smaller."""
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=size, gradient_accumulation_steps=2, max_steps=1,
        optim="sgd", learning_rate=1.0, lr_scheduler_type="constant", max_grad_norm=0.0, use_cpu=True, report_to="none",
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(trained, arguments, train_dataset=data, compute_loss_func=loss(spec)).train()


def is_one_step(before: nn.Module, after: nn.Module, spec: str, data: list[dict[str, Tensor]]) -> bool:
    """Tells whether weights have moved against the gradient of all rows at once."""
    x, y = (torch.stack([row[name] for row in data]) for name in ("input_ids", "labels"))
    lopsided.loss(spec, ignore_index=UNKNOWN)(before(input_ids=x).logits, y).backward()
    moved = False
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        gradient = torch.zeros_like(old) if old.grad is None else old.grad
        torch.testing.assert_close(new, old - gradient, rtol=1e-4, atol=1e-5)
        moved |= bool(gradient.abs().max() > 1e-3)
    return moved


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "unknown", "dtype"),
    [("asl", True, torch.float32), ("bce", True, torch.int64), ("zlpr", False, torch.float32)],
)
def test_a_step_is_that_of_one_large_batch(spec: str, unknown: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    data, trained = rows(unknown, dtype)[:6], model()
    before = copy.deepcopy(trained)
    step(tmp_path, trained, spec, data)
    assert is_one_step(before, trained, spec, data)


def worker(rank: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    os.environ["MASTER_PORT"] = (Path(folder) / "port").read_text()
    trained = model()
    step(Path(folder), trained, "asl", rows(True, torch.float32), size=2)
    torch.save(trained.state_dict(), f"{folder}/rank{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_step_of_two_processes_is_that_of_one_large_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    spawn(worker, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        trained = model()
        trained.load_state_dict(torch.load(tmp_path / f"rank{rank}", weights_only=True))
        assert is_one_step(model(), trained, "asl", rows(True, torch.float32))


@pytest.mark.parametrize(("spec", "options"), [("bce", {}), ("zlpr", {}), ("asl", {"pos_weight": torch.ones(3) * 2})])
def test_without_a_count_the_loss_is_the_mean_of_the_batch(spec: str, options: dict[str, Tensor]) -> None:
    logits, labels = torch.randn(4, 3), torch.eye(4, 3)
    labels[0, 1:] = UNKNOWN
    expected = lopsided.loss(spec, ignore_index=UNKNOWN, **options)(logits, labels)
    torch.testing.assert_close(loss(spec, **options)((logits,), labels), expected)
    torch.testing.assert_close(loss(spec, **options)({"logits": logits}, labels), expected)
    nothing = torch.full((4, 3), float(UNKNOWN))
    assert loss("bce")((logits,), nothing, num_items_in_batch=torch.tensor(0)) == 0


@pytest.mark.parametrize("spec", ["softmax", "lsep", "two_way", "bp_mll"])
def test_what_the_trainer_cannot_count_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="rows with a positive, which the Trainer does not count"):
        loss(spec)


def test_labels_that_would_be_counted_wrongly_are_refused() -> None:
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="mark unknown ones with -100"):
        loss("bce")((logits,), torch.full((2, 3), torch.nan), 6)
    with pytest.raises(ValueError, match="divides by rows, and the Trainer counts known labels"):
        loss("zlpr")((logits,), torch.tensor([[1, 0, UNKNOWN], [0, 0, 1]]), 5)
    with pytest.raises(ValueError, match=r"targets must lie in \[0, 1\]"):
        loss("bce")((logits,), torch.tensor([[1, 0, -1], [0, 0, 1]]), 5)
