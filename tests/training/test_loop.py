"""The training loop against plain torch, on a linear model where every step can be repeated by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

import lopsided
from lopsided.data.storage import UserError
from lopsided.losses import any_loss, formula
from lopsided.metrics.registry import METRICS
from lopsided.metrics.scores import Judged
from lopsided.metrics.weighted import Weighable
from lopsided.models.methods import Schedule, loss_of_scores, parse_method
from lopsided.models.model import Model
from lopsided.models.recipe import Recipe
from lopsided.training.history import JUDGES, Epoch
from lopsided.training.loop import Listener, Trained, train
from lopsided.training.optimizers import clip_gradients, schedule_factor
from lopsided.training.validate import Validation
from tests.points import RECIPE, AsTheyAre, dense, points

ADAMW = replace(RECIPE, learning_rate=0.05, optimizer="adamw", weight_decay=0.5)
ADAGRAD = replace(RECIPE, learning_rate=0.3, optimizer="adagrad", fused_head=True)
RECIPES = {
    "sgd": RECIPE,
    "sgd, averaged": replace(RECIPE, average=0.98),
    "sgd, two batches to a step": replace(RECIPE, accumulate=2),
    "adamw": ADAMW,
    "adamw, averaged": replace(ADAMW, average=0.9),
    "adamw, clipped": replace(ADAMW, clip_norm=0.1),
    "adagrad": replace(ADAGRAD, fused_head=False),
    "adagrad, fused head": ADAGRAD,
}
FUSED, MOVING = "adagrad, fused head", "asl(gamma_neg=4..0)"


class ByHand:
    """The same model in plain torch: two linear layers whose first weights are those of the loop."""

    def __init__(self, recipe: Recipe, seed: int = 5) -> None:
        torch.manual_seed(seed)
        rate = recipe.learning_rate if recipe.fused_head else None
        network = Model.new(AsTheyAre(), "asl", points(10).data, rate).network
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        for mine, name in ((self.body, "body.linear"), (self.head, "head")):
            state = {part: network.state_dict()[f"{name}.{part}"] for part in ("weight", "bias")}
            mine.load_state_dict(state)
        self.optimizer = self.make_optimizer(recipe)
        self.average = [each.detach().clone() for each in self.parameters()]
        self.sums = torch.zeros(2, 2)  # of a fused head: of the weights of a label, and of its bias
        self.steps = 0

    def make_optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(self.parameters(), recipe.learning_rate, momentum=0.9)
        if recipe.optimizer == "adagrad":
            return torch.optim.Adagrad(
                self.body.parameters() if recipe.fused_head else self.parameters(), recipe.learning_rate
            )
        groups = [{"params": [part.weight], "weight_decay": 0.5} for part in (self.body, self.head)]
        spared = [{"params": [part.bias], "weight_decay": 0.0} for part in (self.body, self.head)]
        return torch.optim.AdamW(groups + spared, recipe.learning_rate)

    def parameters(self) -> list[nn.Parameter]:
        return [*self.body.parameters(), *self.head.parameters()]

    def step(self, x: Tensor, targets: Tensor, recipe: Recipe, gamma: float = 4) -> float:
        loss = lopsided.AsymmetricLoss(gamma, reduction="batchmean")
        value: Tensor = loss(self.head(self.body(x)), targets)
        for each in self.parameters():
            each.grad = None
        value.backward()
        if recipe.clip_norm is not None:
            norm = torch.cat([each.grad.flatten() for each in self.parameters() if each.grad is not None]).norm()
            for each in self.parameters():
                assert each.grad is not None
                each.grad *= min(1.0, recipe.clip_norm / float(norm))
        self.optimizer.step()
        if recipe.fused_head:
            self.adagrad_by_label(recipe.learning_rate)
        for average, each in zip(self.average, self.parameters(), strict=True):
            decay = 0.0 if self.steps == 0 or recipe.average is None else recipe.average
            average.copy_(decay * average + (1 - decay) * each.detach())
        self.steps += 1
        return value.item()

    @torch.no_grad()
    def adagrad_by_label(self, rate: float) -> None:
        """One sum of squares for all weights of a label, and one for its bias."""
        for each, sums in zip(self.head.parameters(), self.sums, strict=True):
            gradient = each.grad.view(2, -1)  # type: ignore[union-attr]
            sums += gradient.square().mean(1)
            each.sub_((rate * gradient / sums.sqrt().unsqueeze(1)).view(each.shape))


def weights(trained: Trained) -> list[Tensor]:
    state = trained.model.network.state_dict()
    return [state[name] for name in ("body.linear.weight", "body.linear.bias", "head.weight", "head.bias")]


@pytest.mark.parametrize(("name", "loss"), [*((name, "asl") for name in RECIPES), ("sgd", MOVING), (FUSED, MOVING)])
def test_the_loop_repeated_by_hand(name: str, loss: str) -> None:
    recipe = RECIPES[name]
    encoder, reported = AsTheyAre(), list[Epoch]()
    listener = Listener(on_epoch=lambda history: reported.append(history[-1]))
    rows, valid = points(10, 0), points(30, 1)
    trained = train(encoder, loss, rows, recipe, 5, validation=Validation(valid, "p@1"), listener=listener)
    assert reported == trained.history
    assert [epoch.epoch for epoch in trained.history] == [1, 2, 3]

    by_hand, x, truth = ByHand(recipe), rows.encoded.x, dense(rows)  # type: ignore[attr-defined]
    seen, states = list(chain(*encoder.seen)), list[list[Tensor]]()
    for number, epoch in enumerate(trained.history):
        order, total = seen[10 * number : 10 * number + 10], 0.0
        assert sorted(order) == list(range(10)), "every row once an epoch"
        for batch in torch.tensor(order).split(4 * recipe.accumulate):
            gamma = (4, 2, 0)[number] if loss == MOVING else 4
            total += by_hand.step(x[batch], truth[batch], recipe, gamma) * len(batch)
        assert epoch.train_loss == pytest.approx(total / 10, rel=1e-5)
        states.append([each.clone() for each in by_hand.average])
    assert len(encoder.seen) == 9
    for mine, theirs in zip(states[trained.best_epoch - 1], weights(trained), strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-6)


def test_what_is_judged_is_the_best_epoch() -> None:
    valid = points(30, 1)
    trained = train(AsTheyAre(), "asl", points(10), RECIPE, 5, validation=Validation(valid, "map"))
    values = [epoch.valid_map for epoch in trained.history]
    assert trained.best_epoch == 1 + values.index(max(values))
    assert [epoch.valid for epoch in trained.history] == values
    scores = trained.model.score(valid.encoded).values
    assert max(values) == pytest.approx(average_precision_score(dense(valid).numpy(), scores.numpy()))
    best = scores.argmax(1)
    share = float(dense(valid)[torch.arange(30), best].float().mean())
    assert trained.history[trained.best_epoch - 1].valid_p_at_1 == pytest.approx(share)


def test_training_is_judged_by_whatever_scores_of_rows_give() -> None:
    tiny = Weighable(Judged.of([[1.0, 0.0]], [[1, 0]]), torch.tensor([[True, False]])).summary()

    def is_made(name: str) -> bool:
        try:
            return not math.isnan(METRICS[name].value(tiny))  # without propensities, PSP is
        except (KeyError, ValueError):
            return False

    assert [name for name in METRICS if name != "predicted_per_row" and is_made(name)] == list(JUDGES)


@pytest.mark.parametrize("metric", JUDGES)
def test_every_judge_gives_a_number(metric: str) -> None:
    valid = points(30, 1)
    values = Validation(valid, metric).measure(
        train(AsTheyAre(), "asl", points(10), replace(RECIPE, epochs=1), 5).model
    )
    assert values is not None
    assert 0 <= values["valid"] <= 1


def test_training_stops_when_patience_ends() -> None:
    valid = points(30, 1)
    long = replace(RECIPE, epochs=40)
    stopped = train(AsTheyAre(), "asl", points(10), long, 5, validation=Validation(valid, "map", patience=2))
    assert len(stopped.history) == stopped.best_epoch + 2 < 40
    assert not stopped.diverged
    lower = train(AsTheyAre(), "asl", points(10), long, 5, validation=Validation(valid, "hamming_loss", patience=3))
    values = [epoch.valid for epoch in lower.history]
    assert values[lower.best_epoch - 1] == min(values), "a loss is better when it is lower"


def test_weights_and_order_come_from_the_seed_alone() -> None:
    still = replace(RECIPE, epochs=2, learning_rate=1e-9)
    seen, first = {}, {}
    for loss in ("bce", "zlpr"):
        for seed in (0, 1):
            encoder = AsTheyAre()
            torch.rand(7)  # whatever was drawn before
            trained = train(encoder, loss, points(10), still, seed)
            seen[loss, seed], first[loss, seed] = encoder.seen, weights(trained)[:3]
    for seed in (0, 1):
        assert seen["bce", seed] == seen["zlpr", seed]
        torch.testing.assert_close(first["bce", seed], first["zlpr", seed])
    assert seen["bce", 0] != seen["bce", 1]
    assert not torch.allclose(first["bce", 0][0], first["bce", 1][0])
    order = [list(chain(*seen["bce", 0][start : start + 3])) for start in (0, 3)]
    assert sorted(order[0]) == sorted(order[1]) == list(range(10)), "every row once an epoch"
    assert order[0] != order[1] != list(range(10)), "in a new order each time"


class StoppedError(Exception):
    pass


def stop_at(step: int) -> Callable[[], None]:
    """A listener to steps that kills the training at one of them."""
    taken = iter(range(1, step + 1))

    def on_step() -> None:
        if next(taken) == step:
            raise StoppedError

    return on_step


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [replace(RECIPE, average=0.9), ADAMW, ADAGRAD], ids=lambda r: r.optimizer)
@pytest.mark.parametrize("step", [2, 5, 6], ids=lambda step: f"step {step}")
def test_a_stopped_training_goes_on_as_if_nothing_had_happened(
    recipe: Recipe, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps an epoch, each saved: step 2 and 5 lie in the middle of an epoch, 6 ends one."""
    monkeypatch.setattr("lopsided.training.loop._SAVE_SECONDS", -1.0)
    recipe = replace(recipe, schedule="one_cycle")
    validation, file = Validation(points(30, 1)), tmp_path / "state.safetensors"
    straight = train(AsTheyAre(0.3), "asl", points(10), recipe, 5, validation=validation)
    listener = Listener(on_step=stop_at(step))
    with pytest.raises(StoppedError):
        train(AsTheyAre(0.3), "asl", points(10), recipe, 5, validation=validation, state_file=file, listener=listener)
    torch.manual_seed(99)
    encoder = AsTheyAre(0.3)
    resumed = train(encoder, "asl", points(10), recipe, 5, validation=validation, state_file=file)
    assert len(encoder.seen) == 9 - (step - 1), "only what had not been saved is trained again"
    for one, other in zip(weights(straight), weights(resumed), strict=True):
        assert torch.equal(one, other)
    for before, after in zip(straight.history, resumed.history, strict=True):
        assert replace(before, seconds=0.0, l2=0.0) == replace(after, seconds=0.0, l2=0.0)  # nan is not nan
    assert straight.best_epoch == resumed.best_epoch


@pytest.mark.parametrize("harm", ["cut", "empty", "another model", "no progress"])
def test_a_damaged_state_is_named(harm: str, tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    train(AsTheyAre(), "asl", points(10), RECIPE, 5, state_file=file)
    method = "asl"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif harm == "empty":
        file.write_bytes(b"")
    elif harm == "another model":
        method = "powerset"
    else:
        from safetensors.torch import load_file, save_file

        save_file(load_file(file), file)
    with pytest.raises(UserError, match=r"state\.safetensors: damaged \(.*\); delete it to train again") as raised:
        train(AsTheyAre(), method, points(10), RECIPE, 5, state_file=file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("norm", [0.01, 1e6])
def test_sparse_gradients_are_clipped_as_dense_ones(norm: float) -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Embedding(9, 3, sparse=sparse), nn.Linear(3, 2)) for sparse in (True, False)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        model(torch.tensor([2, 2, 7])).square().sum().backward()
    clip_gradients(models[0], norm)
    torch.nn.utils.clip_grad_norm_(models[1].parameters(), norm)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one.grad.to_dense(), other.grad)


def test_rates_follow_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def recorded(self: torch.optim.SGD, closure: None = None) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    train(AsTheyAre(), "asl", points(10), replace(RECIPE, schedule="cosine", body_rate=0.1), 5)
    assert rates == pytest.approx([0.05 * schedule_factor("cosine", place / 9) for place in range(9)])


def test_one_cycle_is_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, 1001, cycle_momentum=False, final_div_factor=1e9)
    for place in range(1000):
        assert schedule_factor("one_cycle", place / 1000) == pytest.approx(scheduler.get_last_lr()[0], abs=5e-3)
        optimizer.step()
        scheduler.step()


def test_a_diverged_training_says_so_and_stops() -> None:
    trained = train(AsTheyAre(), "asl", points(10), replace(RECIPE, learning_rate=1e30), 5)
    assert trained.diverged
    assert len(trained.history) == 3
    assert trained.history[-1].is_lost
    assert math.isnan(trained.history[-1].valid_map)


@pytest.mark.slow
def test_label_powerset_trains_sets_and_scores_labels() -> None:
    rows, valid = points(60), points(30, 1)
    assert len(dense(rows).unique(dim=0)) == 4
    encoder, recipe = AsTheyAre(), replace(RECIPE, epochs=20, learning_rate=0.05)
    trained = train(encoder, "powerset", rows, recipe, 0)
    assert trained.model.network.head.linear.out_features == 4  # type: ignore[union-attr]
    two = train(encoder, "powerset(max_sets=2)", rows, replace(recipe, epochs=1), 0)
    assert two.model.network.head.linear.out_features == 2  # type: ignore[union-attr]
    scores = trained.model.score(valid.encoded).values
    assert scores.shape == (30, 2)
    assert trained.history[-1].train_loss < 0.6 < trained.history[0].train_loss
    assert ((scores > 0) == dense(valid)).float().mean() > 0.8


@pytest.mark.parametrize("spec", ["powerset(max_sets=0)", "powerset(5)", "powerset(max_sets=-1)", "powersets"])
def test_bad_powersets_are_named(spec: str) -> None:
    with pytest.raises(ValueError, match=r"write powerset or powerset\(max_sets=N\) with N > 0"):
        parse_method(spec)


def test_a_learnt_threshold_is_read_from_the_name_of_any_loss() -> None:
    read = {"asl(threshold_logit=0)": formula("asl"), "cb( threshold_logit=0, gamma=1)": any_loss("cb(gamma=1)")}
    for spec, loss in read.items():
        method = parse_method(spec)
        assert loss_of_scores(method) == loss
        assert parse_method(str(method)) == method != loss
    for spec in ("asl(threshold_logit=1)", "asl(threshold_logit=False)", "asl(threshold_logit=0.5)"):
        with pytest.raises(ValueError, match="write threshold_logit=0, got"):
            parse_method(spec)


@pytest.mark.parametrize("spec", ["wan(weight=.05..1)", "asl(clip=5e-2..0, gamma_neg=-0..4, threshold_logit=0)"])
def test_a_schedule_is_read_from_the_name_of_a_loss(spec: str) -> None:
    method = parse_method(spec)
    assert isinstance(method, Schedule)
    assert parse_method(str(method)) == method
    middle = {"wan": "wan(weight=0.525)", "asl": "asl(clip=0.025, gamma_neg=2)"}[spec[:3]]
    assert method.at(0.5) == formula(middle)
    assert (method.at(0), method.at(1)) == (loss_of_scores(method.start), loss_of_scores(method.end))
    assert loss_of_scores(method) == method.at(1)
    assert parse_method("wan(weight=0.1..0.1)") == formula("wan(weight=0.1)")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("wan(weight=0.1..)", "cannot read the loss"),
        ("wan(weight=0.1..0.5..1)", "cannot read the loss"),
        ("wan(weight=low..high)", "cannot read the loss"),
        ("wan(weight=0.1..inf)", "cannot read the loss"),
        ("wan(weight=0.1..1, weight=1)", "given twice"),
        ("wan(weight=1..-1)", r"weight must be in \[1e-06, inf\), got -1"),
        ("wan(wieght=0.1..1)", "did you mean 'weight'"),
        ("asl(threshold_logit=0..1)", "write threshold_logit=0, got 1"),
        ("db(gamma=0..2)", "db.* is made from label counts: its settings stay as they are"),
        ("powerset(max_sets=1..5)", "write powerset or powerset"),
    ],
)
def test_bad_schedules_are_named(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_method(spec)


def test_a_loss_without_a_training_has_no_schedule() -> None:
    with pytest.raises(ValueError, match=r"weight=0.1..1 is a schedule, which the commands train by.*between"):
        formula("wan(weight=0.1..1)")


@pytest.mark.parametrize(
    ("valid", "dead", "progresses"),
    [
        (0.5, 10, False),
        (0.5019, 0, False),
        (0.5021, 20, True),
        (0.50004, 9, True),
        (0.50004, 9.6, False),
        (0.4998, 0, False),
    ],
)
def test_where_the_metric_stays_fewer_dead_labels_are_progress(valid: float, dead: float, progresses: bool) -> None:
    before = Epoch(1, 1.0, 1.0, valid=0.5, dead_labels=10)
    measured = {"valid": valid + 1e-9, "dead_labels": dead}
    assert Validation(points(3)).is_progress(measured, before) == progresses
    assert Validation(points(3)).is_progress(measured, None)


def test_of_equal_epochs_the_last_with_the_fewest_dead_labels_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([(0.5, 9), (0.6, 7), (0.6, 5), (0.60001, 5), (0.59999, 6), (0.55, 0)])

    def measure(self: Validation, model: Model) -> dict[str, float]:
        valid, dead = next(seen)
        return {"valid": valid, "dead_labels": dead}

    monkeypatch.setattr(Validation, "measure", measure)
    trained = train(AsTheyAre(), "bce", points(10), replace(RECIPE, epochs=6), 0, validation=Validation(points(30, 1)))
    assert trained.best_epoch == 4
