"""The loss in a real Trainer, with a tiny model: a step over several batches equals one over a large batch."""

from __future__ import annotations

import copy
import math
import os
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
)

import lopsided
from lopsided.decision.calibrators import ClosedForm
from lopsided.decision.choose import Decision
from lopsided.decision.rules import LabelThresholds, Threshold
from lopsided.integrations.transformers import (
    UNKNOWN,
    DecisionPipeline,
    LossCallback,
    adaptive_loss,
    loss,
    mark_unknown,
    metrics,
    store_rule,
    stored_rule,
)
from tests.forks import in_processes
from tests.ranks import leave

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


def rows(unknown: float | None, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(20, (ROWS, 4), generator=generator)
    labels = (torch.rand(ROWS, LABELS, generator=generator) < 0.3).to(dtype)
    if unknown is not None:
        labels[0, :4] = labels[1, 2:] = unknown  # others have none, so that batches differ
    return [{"input_ids": x, "labels": y} for x, y in zip(inputs, labels, strict=True)]


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    """One step of two batches, by plain gradient descent; the second one of 6 rows at 4 is smaller."""
    usual: dict[str, Any] = {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 1, "optim": "sgd",
        "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "use_cpu": True,
        "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1,
    }  # fmt: skip
    return TrainingArguments(output_dir=str(folder), **usual | settings)


def step(folder: Path, trained: nn.Module, spec: str, data: list[dict[str, Tensor]], size: int = 4) -> None:
    """Trains one step of two batches; unknown labels may be -100, -1 or NaN."""
    options, compute_loss = arguments(folder, per_device_train_batch_size=size), loss(spec)
    by_rows = compute_loss.criterion.formula.pool.counts == "rows"
    collator = mark_unknown(None, math.nan) if by_rows else mark_unknown()
    Trainer(trained, options, collator, train_dataset=data, compute_loss_func=compute_loss).train()


def is_one_step(before: nn.Module, after: nn.Module, spec: str, data: list[dict[str, Tensor]]) -> bool:
    """Tells whether weights have moved against the gradient of all rows at once."""
    x, y = (torch.stack([row[name] for row in data]) for name in ("input_ids", "labels"))
    y = torch.where(y.isnan() | (y == -1), UNKNOWN, y)
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
    [
        ("asl", UNKNOWN, torch.float32),
        ("asl", math.nan, torch.float32),
        ("bce", UNKNOWN, torch.int64),
        ("bce", -1, torch.int64),
        ("zlpr", None, torch.float32),
        ("zlpr", math.nan, torch.float32),
        ("atl", -1, torch.int64),
    ],
)
def test_a_step_is_that_of_one_large_batch(
    spec: str, unknown: float | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    data, trained = rows(unknown, dtype)[:6], model()
    before = copy.deepcopy(trained)
    step(tmp_path, trained, spec, data)
    assert is_one_step(before, trained, spec, data)


def worker(rank: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    os.environ["MASTER_PORT"] = (Path(folder) / "port").read_text()
    trained = model()
    step(Path(folder), trained, "asl", rows(math.nan), size=2)
    torch.save(trained.state_dict(), f"{folder}/rank{rank}")
    compute_loss = adaptive_loss(step=1.0)
    Trainer(model(), arguments(Path(folder)), train_dataset=rows(None), compute_loss_func=compute_loss).train()
    Path(f"{folder}/gamma{rank}").write_text(str(compute_loss.criterion.gamma_neg))
    leave()


@pytest.mark.slow
def test_a_step_of_two_processes_is_that_of_one_large_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    in_processes(2, worker, str(tmp_path))
    for rank in range(2):
        trained = model()
        trained.load_state_dict(torch.load(tmp_path / f"rank{rank}", weights_only=True))
        assert is_one_step(model(), trained, "asl", rows(math.nan))
    gammas = {float((tmp_path / f"gamma{rank}").read_text()) for rank in range(2)}
    assert len(gammas) == 1
    assert gammas != {4.0}


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


def test_metrics_by_a_loss_without_a_threshold_are_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"under aml .*: tune a threshold"):
        metrics(loss("aml"))


def test_labels_that_would_be_counted_wrongly_are_refused() -> None:
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"mark unknown ones with -100, as mark_unknown\(collator\) does"):
        loss("bce")((logits,), torch.full((2, 3), torch.nan), 6)
    with pytest.raises(ValueError, match=r"tells if none is -100: .* as mark_unknown\(collator, math.nan\) does"):
        loss("zlpr")((logits,), torch.tensor([[1, 0, UNKNOWN], [0, 0, 1]]), 5)
    with pytest.raises(ValueError, match="leave rows out of which nothing is known"):
        loss("zlpr")((logits,), torch.tensor([[1, 0, 1], [torch.nan] * 3]), 6)
    with pytest.raises(ValueError, match=r"targets must lie in \[0, 1\]"):
        loss("bce")((logits,), torch.tensor([[1, 0, -1], [0, 0, 1]]), 5)
    with pytest.raises(ValueError, match='the batch has no labels: name their column "labels"'):
        loss("bce")((logits,), None, 5)


@pytest.mark.parametrize("make", [partial(loss, "bce"), adaptive_loss])
def test_what_the_trainer_fixes_cannot_be_set(make: Any) -> None:
    with pytest.raises(ValueError, match="reduction cannot be set: here it is a sum that it divides by the Trainer's"):
        make(reduction="mean")
    with pytest.raises(ValueError, match="ignore_index cannot be set: here it is -100"):
        make(ignore_index=-1)


@pytest.mark.slow
def test_the_callback_logs_where_the_gradient_of_all_batches_goes(tmp_path: Path) -> None:
    trained, data, compute_loss = model(), rows(UNKNOWN), loss("focal")
    before = copy.deepcopy(trained)
    trainer = Trainer(
        trained, arguments(tmp_path), train_dataset=data, compute_loss_func=compute_loss,
        callbacks=[LossCallback(compute_loss)],
    )  # fmt: skip
    trainer.train()
    x, y = (torch.stack([row[name] for row in data]) for name in ("input_ids", "labels"))
    logits = before(input_ids=x).logits
    logits.retain_grad()
    lopsided.loss("focal", ignore_index=UNKNOWN)(logits, y).backward()
    tracker = lopsided.DiagnosticsTracker()
    tracker.update(logits, logits.grad, y, ignore_index=UNKNOWN)
    for name, value in vars(tracker.result()).items():
        assert trainer.state.log_history[0][name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.slow
def test_an_adaptive_loss_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    def trainer(**settings: Any) -> Trainer:
        compute_loss = adaptive_loss(target=0.5, step=1.0)
        options = arguments(tmp_path, max_steps=3, save_strategy="steps", save_steps=1, **settings)
        return Trainer(
            model(), options, train_dataset=rows(None), compute_loss_func=compute_loss,
            callbacks=[LossCallback(compute_loss)],
        )  # fmt: skip

    straight, resumed = trainer(), trainer()
    straight.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    gammas = [entry["gamma_neg"] for entry in straight.state.log_history if "gamma_neg" in entry]
    assert len(set(gammas)) == 3
    assert [entry["gamma_neg"] for entry in resumed.state.log_history if "gamma_neg" in entry] == gammas
    with pytest.raises(ValueError, match="leave restore_callback_states_from_checkpoint at False"):
        trainer(restore_callback_states_from_checkpoint=True).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-2")
        )


@pytest.mark.slow
def test_metrics_are_those_of_the_rows_whole_or_by_batches(tmp_path: Path) -> None:
    data, trained = rows(UNKNOWN), model()
    x, y = (torch.stack([row[name] for row in data]) for name in ("input_ids", "labels"))
    expected = lopsided.metrics.MultiLabelMetrics(LABELS, "logits", decide=-0.01)
    expected.update(trained(input_ids=x).logits, y, ignore_index=UNKNOWN)
    for by_batch in (False, True):
        options = arguments(tmp_path, batch_eval_metrics=by_batch, per_device_eval_batch_size=3)
        evaluated = Trainer(
            trained, options, eval_dataset=data, compute_loss_func=loss("asl"), compute_metrics=metrics(decide=-0.01)
        ).evaluate()
        for name, value in expected.compute().items():
            assert evaluated[f"eval_{name}"] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def test_some_metrics_alone() -> None:
    """All are some sixty, and the Trainer prints them after each epoch."""
    evaluated = torch.tensor([[2.0, -1.0], [-1.0, 3.0]]), torch.tensor([[1, 0], [0, 0]])
    assert metrics(only=("micro_f1", "map"))(evaluated) == {"micro_f1": pytest.approx(2 / 3), "map": 1}
    with pytest.raises(ValueError, match="no metric 'mapp': did you mean 'map'"):
        metrics(only=["mapp"])(evaluated)


def test_decisions_may_be_those_of_the_loss() -> None:
    compute_loss = loss("asl")
    assert 1 < compute_loss.criterion.decision_threshold() < 1.5
    evaluated = torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([[1, 0], [0, 1]])
    assert metrics(compute_loss, only=["micro_f1"])(evaluated) == {"micro_f1": 1}
    assert metrics(only=["micro_f1"])(evaluated) == {"micro_f1": pytest.approx(2 / 3)}


def test_the_loss_of_another_loop_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r'expected what lopsided.integrations.transformers.loss\("asl"\) returns, got Mul'
    ):
        LossCallback(lopsided.loss("asl"))  # type: ignore[arg-type]


def tiny_tokenizer() -> Any:
    """A tokenizer of 20 words."""
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(20)}, unk_token="w0"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w0")  # type: ignore[no-untyped-call]


def texts_pipeline(trained: Any, folder: Path) -> Any:
    """The model as it comes back from a folder, with its tokenizer."""
    trained.save_pretrained(folder)
    back = BertForSequenceClassification.from_pretrained(folder)
    return pipeline(
        "text-classification", back, tokenizer=tiny_tokenizer(), pipeline_class=DecisionPipeline, device="cpu"
    )


def test_unknown_labels_are_marked_in_texts_of_two_lengths_and_rows_may_lack_labels() -> None:
    collate = mark_unknown(DataCollatorWithPadding(tiny_tokenizer()))
    texts: list[dict[str, Any]] = [{"input_ids": [3]}, {"input_ids": [7, 8]}]
    batch = collate([text | {"labels": [1.0, math.nan, -1.0]} for text in texts])
    assert batch["input_ids"].tolist() == [[3, 0], [7, 8]]
    assert batch["labels"].tolist() == [[1, UNKNOWN, UNKNOWN]] * 2
    assert "labels" not in collate(texts)


@pytest.mark.slow
@pytest.mark.parametrize("calibrated", [False, True])
def test_the_rule_is_stored_with_the_model_and_its_pipeline_decides(calibrated: bool, tmp_path: Path) -> None:
    trained: Any = model()
    thresholds = LabelThresholds(torch.tensor([-9.0, 9.0, -9.0, -9.0, torch.inf]))
    rule = Decision("per-label", thresholds, ClosedForm("asl")) if calibrated else thresholds
    store_rule(trained, rule)
    decided = texts_pipeline(trained, tmp_path)
    back = stored_rule(decided.model)
    assert torch.equal((back.rule if calibrated else back).thresholds, thresholds.thresholds)
    logits = trained.eval()(input_ids=torch.tensor([[3, 7]])).logits[0].detach()
    shown = ClosedForm("asl")(logits[None])[0] if calibrated else logits
    (row, _) = decided(["w3 w7", "w1"])
    assert {each["label"] for each in row} == {"LABEL_0", "LABEL_2", "LABEL_3"}
    assert row == sorted(row, key=lambda each: -each["score"])
    for each in row:
        assert each["score"] == pytest.approx(float(shown[int(each["label"][-1])]), rel=1e-5)
    store_rule(decided.model, Threshold(100.0))
    assert decided("w3") == [[]]


def test_a_model_without_a_rule_and_one_with_a_damaged_one_say_so() -> None:
    config = SimpleNamespace()
    with pytest.raises(ValueError, match="the model stores no rule: call store_rule"):
        stored_rule(SimpleNamespace(config=config))
    config.lopsided_rule = {"header": '{"kind": "LabelThresholds"}', "tensors": {}}
    with pytest.raises(ValueError, match="the stored rule is damaged: KeyError 'thresholds'"):
        stored_rule(SimpleNamespace(config=config))
