"""Models: what is stored is what comes back, bit for bit, and what is damaged is named."""

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from lopsided.data.dataset import Dataset
from lopsided.data.inputs import Images, Inputs, Numbered, SparseFeatures, Texts
from lopsided.metrics.scores import Scores
from lopsided.models.heads import PowersetHead, dense_targets
from lopsided.models.methods import Powerset, parse_method
from lopsided.models.model import Model
from lopsided.models.ngrams import NGrams
from lopsided.models.registry import MODELS, fit_encoder, read_model, settings_of
from lopsided.targets import SparseTargets
from lopsided.training.loop import train
from lopsided.training.rows import Rows
from tests import oracle
from tests.points import targets_of

ROWS, LABELS = 40, 5
RANDOM = torch.Generator().manual_seed(0)
TRUTH = torch.rand(ROWS, LABELS, generator=RANDOM) < 0.3
LENGTHS = torch.randint(0, 4, (ROWS,), generator=RANDOM)
INDPTR = torch.nn.functional.pad(LENGTHS.cumsum(0), (1, 0))
INPUTS: dict[str, Inputs] = {
    "ngrams": Texts(tuple(f"text {number % 7} on {number % 3}" for number in range(ROWS))),
    "bag": SparseFeatures(INDPTR, torch.arange(int(INDPTR[-1])) % 11, torch.rand(int(INDPTR[-1])) + 0.1, 11),
    "convnet": Images(torch.randint(0, 256, (ROWS, 1, 8, 8), dtype=torch.uint8, generator=RANDOM)),
}
MODELS_OF_TESTS = ("ngrams", "ngrams(hidden=8, characters=True)", "bag", "convnet")
CASES = [(spec, method) for spec in MODELS_OF_TESTS for method in ("asl", "powerset")] + [
    ("bag", "db"),
    ("bag", "db(threshold_logit=0)"),
    ("convnet", "asl(threshold_logit=0)"),
]


def trained(spec: str, method: str = "asl") -> tuple[Model, Rows]:
    """A model after one epoch, and the rows that it was trained on."""
    data = Dataset(INPUTS[spec.partition("(")[0]], targets_of(TRUTH), ("one", "two", "three", "<four>", "fünf"))
    encoder = fit_encoder(spec, data.inputs)
    rows = Rows(encoder.encode(data.inputs), data)
    recipe = replace(encoder.recipe(ROWS, LABELS), epochs=1)
    return train(encoder, method, rows, recipe, 0).model, rows


def stored(name: str, method: str = "asl") -> tuple[dict[str, Any], dict[str, Tensor]]:
    header, tensors = trained(name, method)[0].stored()
    return json.loads(json.dumps(header)), {key: tensor.clone() for key, tensor in tensors.items()}


@pytest.mark.parametrize(("spec", "method"), CASES)
def test_what_is_stored_comes_back(spec: str, method: str) -> None:
    model, _ = trained(spec, method)
    header, tensors = model.stored()
    restored = Model.from_stored(json.loads(json.dumps(header)), {key: each.clone() for key, each in tensors.items()})
    inputs = INPUTS[spec.partition("(")[0]]
    for keep in (None, 3):
        before, after = (each.score(each.encode(inputs), keep) for each in (model, restored))
        assert torch.equal(before.values, after.values)
        assert (before.columns is None and after.columns is None) or torch.equal(before.columns, after.columns)  # type: ignore[arg-type]
    assert (restored.label_names, restored.method, restored.rows) == (model.label_names, model.method, ROWS)
    assert torch.equal(restored.label_counts, TRUTH.double().sum(0))
    assert restored.labels_per_row == pytest.approx(float(TRUTH.sum() / ROWS))
    again = restored.stored()
    assert again[0] == header
    assert all(torch.equal(tensors[key], each) for key, each in again[1].items())
    assert not any("sum" in key or "steps" in key for key in tensors), "what only training needs is not stored"


@pytest.mark.parametrize("spec", ["bag", "convnet"])
def test_a_learnt_threshold_is_one_more_output_that_all_scores_lie_above(spec: str) -> None:
    data = Dataset(INPUTS[spec], targets_of(TRUTH), "abcde")
    made, plain = (
        Model.new(fit_encoder(spec, data.inputs), method, data) for method in ("zlpr(threshold_logit=0)", "zlpr")
    )
    head, without = (cast("Any", each.network.head) for each in (made, plain))
    assert head.linear.bias.tolist() == [0.0, *without.bias.tolist()], "labels begin as without it"
    model, rows = trained(spec, "zlpr(threshold_logit=0)")
    head, hidden = cast("Any", model.network.head), model.hidden(rows.encoded, torch.arange(ROWS))
    outputs = head.linear(hidden)
    above = outputs[:, 1:] - outputs[:, :1]
    assert outputs[:, 0].std() > 0, "it differs from row to row"
    torch.testing.assert_close(model.score(rows.encoded).values, above.detach())
    expected = oracle.zlpr(above.double(), TRUTH.double()).mean()
    torch.testing.assert_close(head(hidden, data.targets).double(), expected, rtol=1e-5, atol=0)


def test_numbers_of_labels_are_not_stored_as_names() -> None:
    data = Dataset(INPUTS["bag"], targets_of(TRUTH), Numbered(LABELS))
    header, _ = Model.new(fit_encoder(None, data.inputs), "asl", data).stored()
    assert header["label_names"] == LABELS


@pytest.mark.parametrize(("spec", "method"), CASES)
def test_candidates_are_the_best_of_all_scores(spec: str, method: str) -> None:
    model, rows = trained(spec, method)
    every, few = model.score(rows.encoded), model.score(rows.encoded, 3)
    order = every.values.sort(descending=True, stable=True)
    assert isinstance(few, Scores)
    assert torch.equal(few.columns, order.indices[:, :3])  # type: ignore[arg-type]
    torch.testing.assert_close(few.values, order.values[:, :3])


LARGER = r"its settings describe a model of more than \d+ bytes, but its stored tensors have \d+"
SETS = "network.head._extra_state"
FILLED, WEIGHTS, KEPT = "encoder.filled", "encoder.weights", "encoder.kept"
HARMS: dict[str, tuple[str, Callable[[dict[str, Any], dict[str, Tensor]], object], str]] = {
    "no tensors": ("bag", lambda h, t: t.clear(), "counts"),
    "a tensor is missing": ("bag", lambda h, t: t.pop("network.head.bias"), r"Missing key.*head\.bias"),
    "a tensor too many": ("bag", lambda h, t: t.update({"network.more": torch.ones(1)}), r"Unexpected key.*more"),
    "a tensor of nothing": ("bag", lambda h, t: t.update({"other.weight": torch.ones(1)}), "other"),
    "another shape": ("bag", lambda h, t: t.update({"network.head.bias": torch.ones(9)}), "size mismatch.*head.bias"),
    "not finite": ("bag", lambda h, t: t["network.head.bias"].fill_(math.nan), "network.head.bias holds numbers that"),
    "fewer names": ("bag", lambda h, t: h.update(label_names=["a"]), r"counts of 1 labels in 40 rows, got .* \(5,\)"),
    "a number of names": ("bag", lambda h, t: h.update(label_names=10**15), "counts of 1000000000000000 labels"),
    "no names": ("bag", lambda h, t: h.update(label_names=None), "None|iterable"),
    "no rows": ("bag", lambda h, t: h.update(rows=0), "counts of 5 labels in 0 rows"),
    "negative counts": ("bag", lambda h, t: t["labels.counts"].fill_(-1), "counts of 5 labels"),
    "counts of another type": ("bag", lambda h, t: t.update({"labels.counts": TRUTH.sum(0)}), "got torch.int64"),
    "an unknown encoder": ("bag", lambda h, t: h.update(encoder="magic"), "magic"),
    "an unknown loss": ("bag", lambda h, t: h.update(method="magic"), "magic"),
    "no header": ("bag", lambda h, t: h.clear(), "label_names"),
    "a width that is a text": ("bag", lambda h, t: h["encoder_values"].update(hidden="8"), "hidden|int|str"),
    "a negative width": ("bag", lambda h, t: h["encoder_values"].update(hidden=-1), "hidden must be at least 1"),
    "features in no order": ("bag", lambda h, t: t[KEPT].copy_(t[KEPT].flip(0)), "kept features must be rising"),
    "other features": ("bag", lambda h, t: t.update({KEPT: torch.arange(10**4)}), ""),
    "another width": ("bag", lambda h, t: h["encoder_values"].update(hidden=8), "size mismatch"),
    "a width of gigabytes": ("bag", lambda h, t: h["encoder_values"].update(hidden=2**28), LARGER),
    "a width of n-grams": ("ngrams(hidden=8)", lambda h, t: h["encoder_values"].update(hidden=2**28), LARGER),
    "pixels of gigabytes": ("convnet", lambda h, t: h["encoder_values"].update(shape=[2**24, 8, 8]), LARGER),
    "no values": ("bag", lambda h, t: h.update(encoder_values={}), "num_features"),
    "values that are a list": ("bag", lambda h, t: h.update(encoder_values=[1]), ""),
    "weights of n-grams cut": ("ngrams", lambda h, t: t.update({WEIGHTS: torch.ones(9).double()}), "weights must"),
    "characters too many": ("ngrams", lambda h, t: h["encoder_values"].update(characters=False), "filled buckets must"),
    "a bucket that is none": ("ngrams", lambda h, t: t[FILLED].fill_(10**9), "filled buckets must"),
    "buckets of another type": ("ngrams", lambda h, t: t.update({FILLED: torch.ones(3)}), "filled buckets must"),
    "an empty shape": ("convnet", lambda h, t: h["encoder_values"].update(shape=[]), "unpack"),
    "another channel": ("convnet", lambda h, t: h["encoder_values"].update(shape=[3, 8, 8]), "size mismatch"),
    "sets of another type": (
        "bag powerset", lambda h, t: t.update({SETS: TRUTH.float()}), r"sets must be \(sets, 5\) bool",
    ),
    "sets of other labels": (
        "bag powerset", lambda h, t: t.update({SETS: TRUTH[:, :3]}), r"got torch.bool \(\d+, 3\)",
    ),
    "no sets": ("bag powerset", lambda h, t: t.pop(SETS), "needs rows of which to take its label sets"),
    "sets twice": ("bag powerset", lambda h, t: t[SETS].fill_(True), "size mismatch"),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_damaged_is_named(harm: str) -> None:
    kind, change, message = HARMS[harm]
    header, tensors = stored(*kind.split())
    change(header, tensors)
    with pytest.raises((ValueError, TypeError, RuntimeError), match=f"(?s){message}"):
        Model.from_stored(header, tensors)


def test_inputs_of_another_kind_are_refused() -> None:
    model, _ = trained("bag")
    with pytest.raises(ValueError, match="the model bag takes no text inputs"):
        model.encode(INPUTS["ngrams"])
    with pytest.raises(ValueError, match=r"ngrams takes no sparse inputs: choose among .*bag"):
        fit_encoder("ngrams", INPUTS["bag"])


def test_models_are_read_by_name() -> None:
    for name, kind in MODELS.items():
        assert read_model(f" {name} ") == (kind, {})
    assert read_model("bag(hidden=8, dropout=0, unit_length=False)")[1] == {
        "hidden": 8,
        "dropout": 0,
        "unit_length": False,
    }
    assert read_model("ngrams()")[1] == {}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "cannot read the model ''"),
        ("bag(hidden)", r"cannot read the model 'bag\(hidden\)': write a name or name\(setting=value, \.\.\.\)"),
        ("bag(hidden=1, hidden=2)", "cannot read the model"),
        ("bag(hidden=1", "cannot read the model"),
        ("magic", "unknown model 'magic': known are .*ngrams"),
        ("bag(depth=2)", "bag has no setting 'depth': it has hidden, dropout, unit_length"),
        ("convnet(hidden=2)", "convnet has no setting 'hidden': it has none"),
        ("bag(hidden=big)", "bag: hidden must be a whole number, got 'big'"),
        ("bag(hidden=2.5)", "bag: hidden must be a whole number, got 2.5"),
        ("bag(hidden=True)", "bag: hidden must be a whole number, got True"),
        ("bag(dropout='much')", "bag: dropout must be a number, got 'much'"),
        ("bag(unit_length=1)", "bag: unit_length must be True or False, got 1"),
        ("bag(hidden=__import__('os'))", "bag: hidden must be a whole number, got"),
        ("bag(hidden=" + "(" * 500 + ")", "cannot read the model|must be a whole number"),
    ],
)
def test_bad_models_are_named(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read_model(spec)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("spec", ["bag(hidden=0)", "bag(dropout=1.0)", "bag(dropout=-0.1)"])
def test_settings_out_of_range_are_named(spec: str) -> None:
    with pytest.raises(ValueError, match=r"bag: hidden must be at least 1 and dropout in \[0, 1\)"):
        fit_encoder(spec, INPUTS["bag"])


def test_a_powerset_head_scores_labels_by_their_sets() -> None:
    truth = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=torch.bool)
    head = PowersetHead(partial(torch.nn.Linear, 2), targets_of(truth), 3, max_sets=2)
    assert head.powerset.sets.tolist() == [[True, False, False], [False, True, False]], "the most frequent two"
    hidden = torch.randn(5, 2)
    p = head.linear(hidden).softmax(1)
    torch.testing.assert_close(torch.sigmoid(head.logits(hidden))[:, :2], p)
    assert (head.logits(hidden)[:, 2] < -1e29).all(), "a label that is in no set"
    loss = head(hidden[:4], targets_of(truth))
    nearest = torch.tensor([0, 0, 1, 0])  # the last row has no set of its own: of two equally near, the more frequent
    torch.testing.assert_close(loss, -head.linear(hidden[:4]).log_softmax(1)[torch.arange(4), nearest].mean())
    values, labels = head.predict_topk(torch.zeros(1, 2), 3)
    assert labels.tolist() == [[0, 1, 2]] or values[0, 0] > values[0, 1]


def test_powerset_takes_hard_labels_of_a_size_that_fits() -> None:
    targets = SparseTargets(torch.tensor([0, 2]), torch.tensor([0, 2]), torch.tensor([1.0, 0.0]), 3)
    assert dense_targets(targets, 3).tolist() == [[True, False, False]]
    for value in (0.5, math.nan):
        soft = replace(targets, values=torch.tensor([1.0, value]))
        with pytest.raises(ValueError, match="no soft and no unknown labels"):
            dense_targets(soft, 3)
    many = SparseTargets(torch.zeros(2**10 + 1, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="1024 x 1000000 are too many"):
        dense_targets(many, 10**6)
    assert parse_method("powerset(max_sets = 7)") == Powerset(7)


def test_a_linear_map_that_would_not_fit_is_an_embedding() -> None:
    encoder = fit_encoder(None, INPUTS["ngrams"], 5)
    assert isinstance(encoder, NGrams)
    assert encoder.hidden == 0
    many = fit_encoder(None, INPUTS["ngrams"], 2**27)
    assert isinstance(many, NGrams)
    assert many.make_body().width == many.hidden == 64
    assert (encoder.recipe(100, 5).optimizer, many.recipe(100, 2**27).optimizer) == ("solve", "sgd")
    stepped = fit_encoder("ngrams(solve=False)", INPUTS["ngrams"], 5).recipe(100, 5)
    assert stepped.learning_rate > many.recipe(100, 2**27).learning_rate, "its steps suit the embedding"


def test_what_one_text_alone_has_is_left_out_though_hashed() -> None:
    """Of 19,999 n-grams with one text each, about a hundred share their bucket with another."""
    texts = tuple(f"common number{row}" for row in range(10_000))
    assert len(NGrams.fit(Texts(texts), characters=False).filled) < 150


@pytest.mark.parametrize("name", MODELS)
def test_settings_in_the_source_are_those_of_the_class(name: str) -> None:
    _, *parameters = inspect.signature(MODELS[name].fit).parameters.values()
    assert settings_of(name) == {parameter.name: parameter.default for parameter in parameters}
