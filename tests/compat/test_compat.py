"""Losses under the names of other projects: values, gradients, defaults, and what docs/migration.md says of them."""

import importlib
import inspect
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided.compat import apl, asl, bert4keras, bert4torch, kornia, mlcpl, mmpretrain, timm, torchvision
from tests import oracle

PAGE = Path(__file__).parents[2] / "docs/migration.md"
TABLE = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| `(lopsided[^`]+)`", PAGE.read_text(), re.MULTILINE)
CODES = {
    "Alibaba-MIIL/ASL AsymmetricLoss": asl.AsymmetricLoss,
    "LUMIA-Group/APL APLLoss": apl.APLLoss,
    "Alibaba-MIIL/ASL ASLSingleLabel": asl.ASLSingleLabel,
}


def batch(soft: bool = False) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(5, 7, dtype=torch.float64, generator=draw)
    y = torch.rand(5, 7, dtype=torch.float64, generator=draw)
    return z, y if soft else (y < 0.3).double()


def same(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], z: Tensor) -> None:
    torch.testing.assert_close(one(z), other(z), rtol=1e-9, atol=1e-9)
    slopes = [oracle.gradient(lambda z, each=each: each(z).sum(), z) for each in (one, other)]  # type: ignore[misc]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-9)


def made(module: str, name: str) -> Callable[..., Tensor]:
    """What a cell of the table names: a function, or a module made by a call."""
    function: Callable[..., Tensor] = eval(name, vars(importlib.import_module(f"lopsided.compat.{module}")))
    return function


def test_vectors_of_the_official_codes(shared: Path) -> None:
    seen = 0
    for case in json.loads((shared / "oracle/vectors.json").read_text()):
        code = next((code for name, code in CODES.items() if case["fn"].startswith(name)), None)
        names = {} if code is None else inspect.signature(code).parameters
        if code is None or not case["kwargs"].keys() <= names.keys():
            continue  # APL with other coefficients
        reduction = {"reduction": "none"} if "SingleLabel" in case["fn"] else {}
        criterion = code(**case["kwargs"], **reduction)
        z, y = torch.tensor(case["logits"], dtype=torch.float64), torch.tensor(case["targets"])
        assert criterion(z, y).tolist() == pytest.approx(case["loss"], abs=1e-6), case  # eps shows in the seventh place
        slopes = oracle.gradient(lambda z, y=y, criterion=criterion: criterion(z, y).sum(), z)  # type: ignore[misc]
        torch.testing.assert_close(slopes, torch.tensor(case["grad_of_sum"], dtype=torch.float64), rtol=0, atol=1e-6)
        seen += 1
    assert seen == 33


@pytest.mark.parametrize(("module", "was", "instead"), TABLE, ids=[f"{module}.{was}" for module, was, _ in TABLE])
def test_the_page_says_what_to_write_instead(module: str, was: str, instead: str) -> None:
    theirs, ours = made(module, was), eval(instead, {"lopsided": lopsided})
    z, y = batch()
    if "SingleLabel" in was:
        y = torch.tensor([0, 3, 6, 2, 2])
    if "Sparse" in was:
        indices = torch.tensor([[0, 3], [6, 1], [2, 4], [5, 0], [1, 2]])
        targets = lopsided.SparseTargets.from_indices(indices)
        same(lambda z: theirs(z, indices), lambda z: ours(z, targets), z)
    elif module == "bert4keras":
        same(lambda z: theirs(y, z), lambda z: ours(z, y), z)
    else:
        same(lambda z: theirs(z, y), lambda z: ours(z, y), z)


def test_every_name_is_on_the_page() -> None:
    listed = {
        (module, was.split("(")[0])
        for module, was in re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE.read_text(), re.M)
    }
    listed |= {("kornia", "binary_focal_loss_with_logits"), ("mlcpl", "PartialLoss")}  # by another of its names
    listed |= {("bert4keras", "sparse_multilabel_categorical_crossentropy")}
    for module in (apl, asl, bert4keras, bert4torch, kornia, mlcpl, mmpretrain, timm, torchvision):
        names = [name for name, each in vars(module).items() if getattr(each, "__module__", "") == module.__name__]
        for name in names:
            assert name.startswith("_") or (module.__name__.rpartition(".")[2], name) in listed, name


OPTIONS: list[dict[str, Any]] = [
    {"reduction": "batchmean"},
    {"reduction": "sum"},
    {"reduction": "mean", "gamma_pos": 0, "clip": None},
    {"reduction": "none"},
    {"smoothing": 0.1},
    {"weight": torch.linspace(0.5, 2, 7)},
    {"pos_weight": 2.0},
    {"pos_weight": torch.arange(1, 8) / 4, "reduction": "none", "weight": torch.arange(8, 1, -1) / 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_timm_reduces_smooths_and_weighs(options: dict[str, Any]) -> None:
    """By hand, an entry at a time: weight (pos_weight y f+ + (1 - y) f-), and the reduction after that."""
    z, y = batch()
    smoothing, clip = options.get("smoothing", 0.0), options.get("clip", 0.05) or 0.0
    pos_weight, weight = (torch.as_tensor(options.get(name, 1.0)).double() for name in ("pos_weight", "weight"))

    def by_hand(z: Tensor) -> Tensor:
        p = torch.sigmoid(z)
        soft = y * (1 - smoothing) + smoothing / 2
        shifted = (1 - p + clip).clamp(max=1)
        right = p * soft + shifted * (1 - soft)  # the form of the official code, which mixes inside the power
        focus = (1 - right) ** (options.get("gamma_pos", 1) * soft + 4 * (1 - soft))
        entries = -weight * focus * (pos_weight * soft * torch.log(p) + (1 - soft) * torch.log(shifted))
        whole: dict[str, Tensor] = {"sum": entries.sum(), "mean": entries.mean(), "none": entries}
        name = options.get("reduction", "batchmean")
        return whole[name] if name in whole else entries.sum() / len(z)

    criterion = timm.AsymmetricLossMultiLabel(**options)
    same(lambda z: criterion(z, y), by_hand, z)


def test_mmpretrain_weighs_rows_and_takes_classes() -> None:
    z, y = batch()
    weight, criterion = torch.linspace(0.5, 2, 5), mmpretrain.AsymmetricLoss(loss_weight=2.0)
    entries = criterion(z, y, reduction_override="none") / 2
    assert entries.shape == z.shape
    assert criterion(z, y, weight).item() == pytest.approx(2 * (weight[:, None] * entries).mean().item())
    assert criterion(z, y, weight, avg_factor=10).item() == pytest.approx(
        2 * (weight[:, None] * entries).sum().item() / 10
    )
    classes = torch.tensor([0, 3, 6, 2, 2])
    one_hot = torch.nn.functional.one_hot(classes, 7)
    assert torch.equal(criterion(z, classes), criterion(z, one_hot))
    assert torch.equal(criterion(z, classes[:, None]), criterion(z, one_hot))
    soft = mmpretrain.asymmetric_loss(z, y, use_sigmoid=False, gamma_pos=0, gamma_neg=0, clip=0)
    p = torch.softmax(z, -1)
    assert soft.item() == pytest.approx(-(y * p.log() + (1 - y) * (1 - p).log()).mean().item())
    with pytest.raises(ValueError, match="avg_factor is for"):
        criterion(z, y, avg_factor=2, reduction_override="sum")


def test_unknown_labels_of_mlcpl_and_kornia() -> None:
    z, y = batch()
    unknown = torch.zeros_like(y, dtype=torch.bool)
    unknown[:, :3] = True
    for criterion in (
        mlcpl.PartialAsymmetricWithLogitLoss(0.05, 0, 4, alpha_pos=2, alpha_neg=0.5),
        mlcpl.PartialFocalWithLogitLoss(alpha_pos=2, alpha_neg=0.5),
    ):
        partial = criterion(z, y.masked_fill(unknown, math.nan))
        assert partial.item() == pytest.approx(criterion(z[:, 3:], y[:, 3:]).item())
        assert criterion(z, torch.full_like(y, math.nan)).item() == 0
    assert mlcpl.PartialBCEWithLogitLoss(3, 2)(torch.zeros(1, 2), torch.tensor([[1.0, 0]])).item() == pytest.approx(
        2.5 * math.log(2)
    )
    pixels, truth = torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
    truth[:, 1] = -100
    entries = kornia.binary_focal_loss_with_logits(pixels, truth, weight=torch.tensor([1.0, 2, 3]))
    assert entries.shape == (2, 3, 4, 5)
    assert entries[0, :, 0, 0].tolist() == pytest.approx([0.25 * math.log(2) / 4, 0, 0.75 * math.log(2) / 4])
    with pytest.raises(ValueError, match="normalize=True is not offered"):
        mlcpl.PartialBCEWithLogitLoss(normalize=True)


def test_the_sparse_zlpr_stays_above_zero_and_knows_padding() -> None:
    logits = torch.tensor([[50.0, -10, -10]])
    sparse = bert4torch.SparseMultilabelCategoricalCrossentropy()(logits, torch.tensor([[0, 0]]))
    assert sparse.item() == pytest.approx(math.log1p(2 * math.exp(-10)), rel=1e-5)
    padded = torch.tensor([[2, 0]])
    masked = bert4keras.sparse_multilabel_categorical_crossentropy(padded, logits, mask_zero=True)
    assert masked.item() == pytest.approx(math.log1p(math.exp(-10)) + math.log1p(math.exp(10)), rel=1e-5)


def test_soft_targets_cannot_be_weighed_an_entry_at_a_time() -> None:
    criterion = timm.AsymmetricLossMultiLabel(reduction="none", pos_weight=2.0)
    with pytest.raises(ValueError, match="is for targets of 0 and 1"):
        criterion(*batch(soft=True))


def test_grad_mode_is_left_alone() -> None:
    z, y = batch()
    with torch.no_grad():
        asl.AsymmetricLoss()(z, y)
        apl.APLLoss()(z, y)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize(
    "loss", [mmpretrain.asymmetric_loss, kornia.binary_focal_loss_with_logits, torchvision.sigmoid_focal_loss]
)
def test_an_unknown_reduction_is_refused(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"reduction must be one of .*; got 'total'"):
        loss(*batch(), reduction="total")
