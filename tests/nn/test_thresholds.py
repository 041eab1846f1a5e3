"""A threshold class of its own logit: losses of what lies above it, against the papers' forms."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import lopsided
from lopsided.losses import CATALOG
from lopsided.nn.functional import above_threshold, multilabel_loss
from tests import oracle


def batch() -> tuple[Tensor, Tensor]:
    """Logits of 6 rows, the first of each the threshold's, and hard targets of 5 labels: none, all, and some."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 6, generator=generator, dtype=torch.float64) * 3
    y = (torch.rand(6, 5, generator=generator) < 0.4).double()
    y[0], y[1] = 0, 1
    return z, y


def atl_of_the_paper(z: Tensor, y: Tensor) -> Tensor:
    """Set by set: one softmax over positives and threshold, one over negatives and threshold."""
    rows = []
    for row, target in zip(z, y, strict=True):
        threshold, labels = row[:1], row[1:]
        positives, negatives = labels[target == 1], labels[target == 0]
        first = -torch.log_softmax(torch.cat([positives, threshold]), 0)[:-1].sum()
        second = -torch.log_softmax(torch.cat([negatives, threshold]), 0)[-1]
        rows.append(first + second)
    return torch.stack(rows)


def pairwise(z: Tensor, y: Tensor) -> Tensor:
    """Each label alone against the threshold, as separated adaptive thresholding (SAT) has it."""
    against = torch.log_softmax(torch.stack([z[:, 1:], z[:, :1].expand(-1, z.shape[1] - 1)], -1), -1)
    return -(y * against[..., 0] + (1 - y) * against[..., 1]).sum(-1)


PUBLISHED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"atl": atl_of_the_paper, "bce": pairwise}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("place", [0, 2, -1])
def test_value_and_gradient_are_those_of_the_papers(name: str, place: int) -> None:
    (z, y), published = batch(), PUBLISHED[name]
    columns = [1, 2, 3, 4, 5]
    columns.insert(place % 6, 0)  # where the threshold's logit stands

    def ours(z: Tensor) -> Tensor:
        return multilabel_loss(z[:, columns], y, name, threshold_logit=place, reduction="none")

    torch.testing.assert_close(ours(z), published(z, y), rtol=1e-12, atol=1e-12)
    expected = oracle.gradient(lambda z: published(z, y), z)
    torch.testing.assert_close(oracle.gradient(ours, z), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_ncrl_is_a_loss_above_the_threshold_and_one_of_the_none_class(clip: float) -> None:
    """Equal to cross-entropy, or clipped, of all margins: of the labels, and of the none class above their mean."""
    z, y = batch()
    none = (y.sum(1) == 0).double()
    margins = torch.cat([z[:, 1:] - z[:, :1], (z[:, 0] - z[:, 1:].mean(1))[:, None]], 1)
    truth, p = torch.cat([y, none[:, None]], 1), torch.sigmoid(margins)
    expected = -(truth * torch.log(p) + (1 - truth) * torch.log((1 - p + clip).clamp(max=1))).sum(1)
    spec, options = f"asl(gamma_neg=0, clip={clip})", {"reduction": "none"}
    labels = lopsided.loss(spec, threshold_logit=0, **options)(z, y)
    found = labels + lopsided.loss(spec, **options)(z[:, :1] - z[:, 1:].mean(1, keepdim=True), none[:, None])
    torch.testing.assert_close(found, expected)


def test_nothing_overflows_where_the_published_code_does() -> None:
    z, y = torch.tensor([[100.0, 95.0, -400.0, 120.0]]), torch.tensor([[0, 1, 1]])
    exponentials = z.exp()
    assert (exponentials[:, 3] / (exponentials[:, 3] + exponentials[:, 0])).isnan()
    for name in ("bce", "atl", "zlpr", "asl"):
        leaf = z.clone().requires_grad_()
        value = multilabel_loss(leaf, y, name, threshold_logit=0, reduction="sum")
        value.backward()
        assert leaf.grad is not None
        assert value.isfinite()
        assert leaf.grad.isfinite().all()
    assert multilabel_loss(z, y, "bce", threshold_logit=0, reduction="sum").item() == pytest.approx(500.0067, abs=1e-3)


@pytest.mark.parametrize("name", CATALOG)
def test_every_loss_takes_a_threshold_class(name: str) -> None:
    """Its gradient is less the sum of those of the labels; masks, lists of labels and weights are of the labels."""
    z, y = batch()
    listed = lopsided.SparseTargets.from_indices([row.nonzero().flatten().tolist() for row in y])
    criterion = lopsided.loss(name, threshold_logit=0, pos_weight=torch.linspace(1, 2, 5, dtype=torch.float64))
    gradient = oracle.gradient(lambda z: criterion(z, y), z)
    plain = lopsided.loss(name, pos_weight=criterion.pos_weight)
    labels = oracle.gradient(lambda d: plain(d, y), z[:, 1:] - z[:, :1])
    torch.testing.assert_close(gradient[:, 1:], labels)
    torch.testing.assert_close(gradient[:, 0], -labels.sum(1))
    torch.testing.assert_close(criterion(z, listed), criterion(z, y))
    turned = lopsided.loss(name, threshold_logit=0, label_dim=0, pos_weight=criterion.pos_weight)
    torch.testing.assert_close(turned(z.T, y.T), criterion(z, y))


def test_decisions_and_probabilities_are_of_what_is_above_the_threshold() -> None:
    z, _ = batch()
    criterion = lopsided.loss("asl", threshold_logit=0, label_dim=0)
    torch.testing.assert_close(criterion.scores(z.T), (z[:, 1:] - z[:, :1]).T)
    torch.testing.assert_close(criterion.posterior(z.T), lopsided.loss("asl").posterior(z[:, 1:] - z[:, :1]).T)
    assert "threshold_logit=0" in repr(criterion)
    assert criterion.scores(z.T.half()).dtype == torch.float32
    assert lopsided.loss("bce").scores(z) is z
    adaptive = lopsided.AdaptiveAsymmetricLoss(threshold_logit=0, warmup=0)
    adaptive(z.requires_grad_(), batch()[1])
    assert adaptive.gamma_neg != 4


def test_a_label_alone_under_atl_settles_where_its_risk_is_least() -> None:
    weight = torch.tensor([3.0])
    criterion = lopsided.loss("atl", pos_weight=weight, reduction="none")
    z = torch.linspace(-4, 4, 80_001, dtype=torch.float64)[:, None]
    risk = criterion(z, torch.ones_like(z)) + criterion(z, torch.zeros_like(z))
    assert criterion.decision_threshold().item() == pytest.approx(z[risk.argmin()].item(), abs=2e-4)
    assert lopsided.loss("atl").decision_threshold().item() == 0


def test_what_is_wrong_is_said() -> None:
    z, y = batch()
    with pytest.raises(ValueError, match="targets have shape \\(6, 5\\) but logits \\(6, 4\\)"):
        multilabel_loss(z[:, 1:], y, "atl", threshold_logit=0)
    with pytest.raises(ValueError, match="must be one of the 6 logits of a row, got 6"):
        above_threshold(z, 6)
    with pytest.raises(ValueError, match=r"needs logits of \(..., labels \+ 1\).*got \(6, 1\)"):
        above_threshold(z[:, :1])
    with pytest.raises(TypeError, match=r"threshold_logit must be an integer, got 0\.5"):
        lopsided.loss("atl", threshold_logit=0.5)


def test_the_name_of_the_commands_makes_the_module() -> None:
    z, y = torch.randn(3, 5), (torch.rand(3, 4) < 0.5).float()
    named = lopsided.loss("asl(gamma_neg=2, threshold_logit=0)", clip=0, reduction="sum")
    torch.testing.assert_close(
        named(z, y), lopsided.loss("asl(gamma_neg=2, clip=0)", reduction="sum")(z[:, 1:] - z[:, :1], y)
    )
    assert named.threshold_logit == 0
    with pytest.raises(ValueError, match="threshold_logit is given twice: in 'asl"):
        lopsided.loss("asl(threshold_logit=0)", threshold_logit=1)
