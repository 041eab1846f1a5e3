"""Single-label, detection, partial labels, divergence, label powerset, weights from frequencies."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lopsided
from lopsided.nn.functional import multilabel_loss
from lopsided.nn.partial import selected_negatives
from lopsided.nn.single_label import log_odds, official_single_label_loss, single_label_loss
from tests import oracle

Z = torch.tensor([[2.0, -1.0, 0.5, 3.0], [0.1, 0.3, -2.0, 0.0], [-4.0, 6.0, 1.0, 1.0]], dtype=torch.float64)
T = torch.tensor([0, 2, 1])


# ---- single label


def test_the_official_single_label_loss_is_the_official_one(shared: Path) -> None:
    cases = [case for case in json.loads((shared / "oracle/vectors.json").read_text()) if "SingleLabel" in case["fn"]]
    assert len(cases) == 5
    for case in cases:
        z, targets = torch.tensor(case["logits"], dtype=torch.float64), torch.tensor(case["targets"])
        rows: Any = partial(official_single_label_loss, targets=targets, **case["kwargs"], reduction="none")
        value, grad = (torch.tensor(case[key], dtype=torch.float64) for key in ("loss", "grad_of_sum"))
        torch.testing.assert_close(rows(z), value, rtol=0, atol=1e-9)
        torch.testing.assert_close(oracle.gradient(rows, z), grad, rtol=0, atol=1e-9)


def softmax_asl(z: Tensor, t: Tensor, gamma_neg: float, gamma_pos: float, clip: float) -> Tensor:
    """The paper's loss with softmax probabilities, attached."""
    p = torch.softmax(z, -1)
    right = torch.nn.functional.one_hot(t, z.shape[-1]).bool()
    shifted = (p - clip).clamp_min(0)
    return torch.where(
        right, -((1 - p) ** gamma_pos) * torch.log(p), -(shifted**gamma_neg) * torch.log(1 - shifted)
    ).sum(-1)


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), [(4, 0, 0.05), (2, 1, 0), (0, 0, 0), (1, 2, 0.2)])
def test_softmax_asl(gamma_neg: float, gamma_pos: float, clip: float) -> None:
    loss = f"asl(gamma_neg={gamma_neg}, gamma_pos={gamma_pos}, clip={clip}, detach_focus=False)"
    ours = partial(single_label_loss, targets=T, loss=loss, reduction="none")
    theirs = partial(softmax_asl, t=T, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
    torch.testing.assert_close(ours(Z), theirs(Z), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(oracle.gradient(ours, Z), oracle.gradient(theirs, Z), rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(ours, Z.clone().requires_grad_())


def test_log_odds_are_exact_where_softmax_saturates() -> None:
    z = torch.tensor([[1000.0, 0.0, -3.0], [-1e4, 1e4, 1e4], [40.0, 0.0, 0.0]], requires_grad=True)
    expected = torch.tensor(
        [[1000 - 0.0485874, -1000.0, -1003.0], [-2e4 - 0.6931472, 0.0, 0.0], [40 - 0.6931472, -40.0, -40.0]]
    )
    torch.testing.assert_close(log_odds(z), expected)
    (grad,) = torch.autograd.grad(log_odds(z).sum(), z)
    assert grad.isfinite().all()
    assert log_odds(z.half()).dtype == torch.float32


def test_one_hot_recipe_and_reductions() -> None:
    right = torch.nn.functional.one_hot(T, 4)
    rows = multilabel_loss(Z, right, "asl", reduction="none")
    torch.testing.assert_close(single_label_loss(Z, T, activation="sigmoid", reduction="none"), rows)
    torch.testing.assert_close(single_label_loss(Z, T, activation="sigmoid"), rows.mean())
    torch.testing.assert_close(single_label_loss(Z, T, activation="sigmoid", reduction="sum"), rows.sum())
    ignored = torch.tensor([0, -100, 1])
    torch.testing.assert_close(single_label_loss(Z, ignored), single_label_loss(Z[[0, 2]], T[[0, 2]]))
    torch.testing.assert_close(
        official_single_label_loss(Z, ignored, eps=0.0), cross_entropy(Z, ignored)
    )  # gamma_neg is inert without smoothing, as upstream
    poisoned = Z.clone()
    poisoned[1] = NAN
    for loss in (single_label_loss, official_single_label_loss):
        grad = oracle.gradient(lambda z, loss=loss: loss(z, ignored), poisoned)  # type: ignore[misc]
        assert (grad[1] == 0).all()
        assert grad[[0, 2]].abs().min() > 0
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    weighted = multilabel_loss(Z, right, "asl", weight=weight, reduction="none")
    torch.testing.assert_close(single_label_loss(Z, T, activation="sigmoid", weight=weight, reduction="none"), weighted)
    leading = single_label_loss(Z.view(3, 1, 4), T.view(3, 1), reduction="none")
    torch.testing.assert_close(leading, single_label_loss(Z, T, reduction="none").view(3, 1))


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (T.float(), {}, r"class indices of shape \(3,\), got torch.float32"),
        (torch.eye(3, 4).long(), {}, "several labels per row are for multilabel_loss"),
        (torch.tensor([0, 4, 1]), {}, r"class indices must lie in \[0, 4\) or be ignore_index=-100"),
        (T, {"activation": "tanh"}, "activation must be 'softmax' or 'sigmoid', got 'tanh'"),
    ],
)
def test_bad_single_label_input_is_named(targets: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        single_label_loss(Z, targets, **options)
    with pytest.raises(ValueError, match="at least 2 classes"):
        single_label_loss(Z[:, :1], torch.zeros(3, dtype=torch.long))


# ---- detection


def torchvisions_focal_loss(inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2) -> Tensor:
    """As its documentation says: alpha_t (1 - p_t)^gamma BCE, element by element."""
    p = torch.sigmoid(inputs)
    right = p * targets + (1 - p) * (1 - targets)
    balance = alpha * targets + (1 - alpha) * (1 - targets) if alpha >= 0 else 1.0
    return balance * (1 - right) ** gamma * -torch.log(right)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1, 2.0), (0.6, 0.5)])
def test_the_detection_form_takes_the_place_of_the_focal_loss(alpha: float, gamma: float) -> None:
    z = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (torch.rand(z.shape, generator=torch.Generator().manual_seed(1)) < 0.2).double()
    theirs = torchvisions_focal_loss(z, y, alpha, gamma)
    torch.testing.assert_close(lopsided.sigmoid_asymmetric_loss(z, y, alpha, gamma, "none"), theirs)
    torch.testing.assert_close(lopsided.sigmoid_asymmetric_loss(z, y, alpha, gamma, "mean"), theirs.mean())
    torch.testing.assert_close(lopsided.sigmoid_asymmetric_loss(z, y, alpha, gamma, "sum"), theirs.sum())
    normalized = lopsided.sigmoid_asymmetric_loss(z, y, alpha, gamma, "positives")
    torch.testing.assert_close(normalized, theirs.sum() / y.sum())
    given = lopsided.sigmoid_asymmetric_loss(z, y, alpha, gamma, "positives", num_positives=7.5)
    torch.testing.assert_close(given, theirs.sum() / 7.5)
    few = lopsided.sigmoid_asymmetric_loss(z, y, alpha, gamma, "positives", num_positives=torch.tensor(0.25))
    torch.testing.assert_close(few, theirs.sum())


def test_detection_without_positives_and_with_ignored_anchors() -> None:
    z = torch.randn(4, 3)
    assert lopsided.sigmoid_asymmetric_loss(z, torch.zeros(4, 3), reduction="positives").isfinite()
    y = torch.zeros(4, 3)
    y[0, 0], y[2] = 1, -1
    kept = [0, 1, 3]
    ours = lopsided.sigmoid_asymmetric_loss(z, y, reduction="positives", gamma_pos=1, clip=0.05, ignore_index=-1)
    theirs = lopsided.sigmoid_asymmetric_loss(z[kept], y[kept], reduction="positives", gamma_pos=1, clip=0.05)
    torch.testing.assert_close(ours, theirs)
    asl = multilabel_loss(
        z[kept], y[kept], "asl(gamma_neg=2, gamma_pos=1, alpha=0.25, detach_focus=False)", reduction="sum"
    )
    torch.testing.assert_close(theirs, asl)
    with pytest.raises(ValueError, match="none, mean, sum, positives; got 'avg'"):
        lopsided.sigmoid_asymmetric_loss(z, y, reduction="avg")
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\), got 0"):
        lopsided.sigmoid_asymmetric_loss(z, y, alpha=0)
    with pytest.raises(ValueError, match="num_positives is for reduction='positives'"):
        lopsided.sigmoid_asymmetric_loss(z, y, num_positives=3)


# ---- partial labels

NAN = torch.nan
PARTIAL = torch.tensor([[1, NAN, 0, NAN], [NAN, 0.5, NAN, 0], [NAN, NAN, NAN, NAN]], dtype=torch.float64)


def test_partial_modes() -> None:
    known = ~PARTIAL.isnan()
    filled = PARTIAL.nan_to_num(0)
    for reduction in ("none", "sum", "mean", "batchmean"):
        ignored = lopsided.partial_loss(Z, PARTIAL, "asl", mode="ignore", reduction=reduction)
        torch.testing.assert_close(ignored, multilabel_loss(Z, PARTIAL, "asl", reduction=reduction))
        negative = lopsided.partial_loss(Z, PARTIAL, "asl", mode="negative", unknown_loss=None, reduction=reduction)
        torch.testing.assert_close(negative, multilabel_loss(Z, filled, "asl", reduction=reduction))
        same = lopsided.partial_loss(Z, PARTIAL, "asl", mode="negative", unknown_loss="asl", reduction=reduction)
        torch.testing.assert_close(same, negative)
    both = lopsided.partial_loss(Z, PARTIAL, "bce", mode="negative", unknown_loss="focal")
    parts = multilabel_loss(Z, filled, "bce", mask=known, reduction="sum")
    parts = parts + multilabel_loss(Z, filled, "focal", mask=~known, reduction="sum")
    torch.testing.assert_close(both, parts / 12)
    rows = lopsided.partial_loss(Z, PARTIAL, "bce", unknown_loss="focal", top=100, reduction="none")
    torch.testing.assert_close(rows, multilabel_loss(Z, PARTIAL, "bce", reduction="none"))
    by_rows = lopsided.partial_loss(Z, PARTIAL, "bce", unknown_loss="focal", top=100, reduction="batchmean")
    torch.testing.assert_close(by_rows, rows.sum() / 2)  # nothing of the third row counts
    nothing = lopsided.partial_loss(Z[2:], PARTIAL[2:], "bce", top=100)
    assert nothing == 0
    coupled = lopsided.partial_loss(Z, PARTIAL, "zlpr", mode="negative", unknown_loss=None)
    torch.testing.assert_close(coupled, multilabel_loss(Z, filled, "zlpr"))
    with pytest.raises(ValueError, match="must both be label-wise"):
        lopsided.partial_loss(Z, PARTIAL, "zlpr", mode="negative")


def test_selective_leaves_out_the_likeliest_unknown() -> None:
    known = ~PARTIAL.isnan()
    kept = selected_negatives(Z, known, top=1)
    dropped = (~known & ~kept).nonzero().tolist()
    # the three highest logits among the unknown: 6, 3 and 1 (one of two)
    assert [2, 1] in dropped
    assert [0, 3] in dropped
    assert len(dropped) == 3
    assert not (kept & known).any()
    assert torch.equal(selected_negatives(Z, known, top=0), ~known)
    assert not selected_negatives(Z, known, top=100).any()
    priors = torch.tensor([0.1, 0.9, 0.1, 0.1])
    by_prior = selected_negatives(Z, known, top=0, priors=priors)
    assert torch.equal(by_prior, ~known & (priors < 0.5))
    assert torch.equal(selected_negatives(Z, known, top=0, priors=priors, prior_threshold=0.95), ~known)
    # the top are taken from all unknown labels, of frequent classes too
    assert torch.equal(selected_negatives(Z, known, top=1, priors=priors), kept & (priors < 0.5))
    value = lopsided.partial_loss(Z, PARTIAL, "bce", unknown_loss="bce", top=1)
    torch.testing.assert_close(value, multilabel_loss(Z, PARTIAL.nan_to_num(0), "bce", mask=known | kept))
    with pytest.raises(ValueError, match="mode must be one of ignore, negative, selective, flip; got 'drop'"):
        lopsided.partial_loss(Z, PARTIAL, mode="drop")
    with pytest.raises(ValueError, match="none, mean, batchmean, sum; got 'avg'"):
        lopsided.partial_loss(Z, PARTIAL, mode="negative", reduction="avg")
    with pytest.raises(TypeError, match="float with NaN where unknown"):
        lopsided.partial_loss(Z, PARTIAL.nan_to_num(-1).long())


# ---- divergence and R-Drop


def test_symmetric_kl_is_the_authors(shared: Path) -> None:
    (case,) = [case for case in json.loads((shared / "oracle/vectors.json").read_text()) if "KL" in case["fn"]]
    s, t = (torch.tensor(case[key], dtype=torch.float64) for key in ("logits", "targets"))
    rows = partial(lopsided.symmetric_kl, other=t, reduction="none")
    torch.testing.assert_close(rows(s), torch.tensor(case["loss"], dtype=torch.float64).squeeze(), rtol=0, atol=1e-9)
    grad = torch.tensor(case["grad_of_sum"], dtype=torch.float64)
    torch.testing.assert_close(oracle.gradient(rows, s), grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_symmetric_kl_is_the_sum_of_two_divergences(scale: float) -> None:
    s, t = Z[:2], Z[1:]
    p, q = torch.sigmoid(scale * s), torch.sigmoid(scale * t)
    forward = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    backward = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    rows = lopsided.symmetric_kl(s, t, scale=scale, reduction="none")
    torch.testing.assert_close(rows, (forward + backward).sum(1))
    torch.testing.assert_close(lopsided.symmetric_kl(t, s, scale=scale), rows.mean())
    assert lopsided.symmetric_kl(s, s) == 0
    mask = torch.tensor([True, False, True, True]).expand_as(s)
    masked = lopsided.symmetric_kl(s.masked_fill(~mask, NAN), t, scale=scale, mask=mask, reduction="sum")
    torch.testing.assert_close(masked, (forward + backward)[mask].sum())
    half = mask & torch.tensor([[True], [False]])
    rows_that_count = lopsided.symmetric_kl(s, t, scale=scale, mask=half)
    torch.testing.assert_close(rows_that_count, (forward + backward)[half].sum())
    assert lopsided.symmetric_kl(s[:0], t[:0]) == 0
    with pytest.raises(ValueError, match="mask must be bool of shape"):
        lopsided.symmetric_kl(s, t, mask=mask[0])
    far = torch.tensor([[1e4, -1e4]])
    assert lopsided.symmetric_kl(far, -far).isfinite()


def test_r_drop() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.Linear(32, 4))
    x, y = torch.randn(5, 6), torch.rand(5, 4) < 0.4
    loss = lopsided.ZLPRLoss()
    torch.manual_seed(1)
    value = lopsided.r_drop(model, x, y, loss, alpha=3.0)
    torch.manual_seed(1)
    one, two = model(x), model(x)
    assert not torch.equal(one, two)
    p, q = torch.sigmoid(one), torch.sigmoid(two)
    divergence = ((p - q) * (one - two)).sum(1).mean()
    torch.testing.assert_close(value, (loss(one, y) + loss(two, y)) / 2 + 3 / 4 * divergence)
    expected = torch.autograd.grad((loss(one, y) + loss(two, y)) / 2 + 3 / 4 * divergence, list(model.parameters()))
    torch.testing.assert_close(torch.autograd.grad(value, list(model.parameters())), expected)
    torch.manual_seed(1)
    doubled = lopsided.r_drop(model, x, y, loss, alpha=3.0, scale=2.0)
    p, q = torch.sigmoid(2 * one), torch.sigmoid(2 * two)
    divergence = ((p - q) * 2 * (one - two)).sum(1).mean()
    torch.testing.assert_close(doubled, (loss(one, y) + loss(two, y)) / 2 + 3 / 4 * divergence)
    model.eval()
    torch.testing.assert_close(lopsided.r_drop(model, (x,), y, loss), loss(model(x), y))
    torch.testing.assert_close(lopsided.r_drop(model, {"input": x}, y, loss), loss(model(x), y))


# ---- label powerset


def test_powerset_marginals_and_log_odds() -> None:
    targets = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1]])
    powerset = lopsided.LabelPowerset(targets)
    assert powerset.sets.tolist() == [[True, False, False], [True, True, False], [True, False, True]]
    assert powerset.encode(targets).tolist() == [0, 1, 0, 1, 0, 2]
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    p = scores.softmax(1)
    expected = torch.stack([p.sum(1), p[:, 1], p[:, 2]], 1)
    torch.testing.assert_close(powerset.marginals(scores), expected)
    odds = powerset.log_odds(scores)
    torch.testing.assert_close(odds[:, 1:], torch.logit(expected[:, 1:]))
    assert (odds[:, 0] == torch.tensor(1e30)).all()
    assert odds.isfinite().all()
    torch.testing.assert_close(powerset.loss(scores, targets[:4]), cross_entropy(scores, torch.tensor([0, 1, 0, 1])))
    # a confident score that a probability in float32 could not tell from 1
    assert powerset.log_odds(torch.tensor([[0.0, 50.0, 0.0]]))[0, 1] == pytest.approx(50 - 0.6931472, rel=1e-6)


def test_powerset_keeps_the_frequent_and_encodes_the_rest_as_the_nearest() -> None:
    targets = torch.tensor([[1, 0, 0, 0]] * 5 + [[0, 1, 1, 0]] * 3 + [[0, 1, 1, 1]])
    powerset = lopsided.LabelPowerset(targets, max_sets=2)
    assert powerset.num_sets == 2
    assert powerset.encode(targets[-1:]).tolist() == [1]
    with pytest.raises(ValueError, match=r"targets must be \(rows, labels\) of 0 and 1"):
        lopsided.LabelPowerset(targets * 0.5)
    with pytest.raises(ValueError, match=r"targets must be \(rows, 4\) of 0 and 1"):
        powerset.encode(torch.full((2, 4), NAN))
    with pytest.raises(ValueError, match=r"scores must be \(2, 2\), got \(2, 9\)"):
        powerset.loss(torch.zeros(2, 9), targets[:2])


def test_powerset_is_exact_under_autocast() -> None:
    """Sets of more than 256 labels, which bfloat16 does not count exactly."""
    targets = torch.zeros(40, 3000, dtype=torch.bool)
    targets[:, :1000] = True
    targets[torch.arange(40), 1000 + torch.arange(40)] = True
    powerset = lopsided.LabelPowerset(targets)
    scores = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    sets, marginals = powerset.encode(targets), powerset.marginals(scores)
    assert len(sets.unique()) == 40
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(powerset.encode(targets), sets)
        assert torch.equal(powerset.marginals(scores), marginals)
    assert powerset.log_odds(scores)[0, [0, 2999]].tolist() == pytest.approx([1e30, -1e30])


# ---- weights from frequencies


def test_weights_from_frequencies() -> None:
    counts = torch.tensor([0, 1, 50, 99])
    assert lopsided.positive_weights(counts, 100).tolist() == pytest.approx([10, 10, 1, 1 / 99])
    assert lopsided.positive_weights(counts, 100, cap=100).tolist() == pytest.approx([100, 99, 1, 1 / 99])
    criterion = lopsided.AsymmetricLoss(pos_weight=lopsided.positive_weights(counts, 100))
    assert criterion.decision_threshold().isfinite().all()
    beta, n = 0.99, torch.tensor([1, 1, 50, 99], dtype=torch.float64)
    raw = (1 - beta) / (1 - beta**n)
    torch.testing.assert_close(
        lopsided.class_balanced_weights(counts, beta).double(), raw / raw.mean(), rtol=1e-6, atol=0
    )
    assert lopsided.class_balanced_weights(counts, 0.0).tolist() == [1, 1, 1, 1]
    almost = lopsided.class_balanced_weights(torch.tensor([1, 10]), 1 - 1e-9)  # inverse frequency in the limit
    assert (almost[0] / almost[1]).item() == pytest.approx(10, rel=1e-5)
    priors = torch.tensor([0.02, 0.5])
    torch.testing.assert_close(lopsided.logit_adjustment(priors, 2.0), 2 * torch.log(priors / (1 - priors)))
    with pytest.raises(ValueError, match=r"priors must lie in \(0, 1\)"):
        lopsided.logit_adjustment(torch.tensor([0.0, 0.5]))
    with pytest.raises(ValueError, match="a label has 200 positives, but there are only 100 rows"):
        lopsided.positive_weights(torch.tensor([200]), 100)
    with pytest.raises(ValueError, match="counts must be"):
        lopsided.positive_weights(torch.tensor([-1]), 3)
    with pytest.raises(ValueError, match="counts must be"):
        lopsided.positive_weights(torch.tensor([NAN]), 3)
    with pytest.raises(ValueError, match="look like shares of the rows"):
        lopsided.class_balanced_weights(torch.tensor([0.5, 0.02]))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("counts", lambda numbers: lopsided.positive_weights(numbers, 100)),
        ("counts", lopsided.class_balanced_weights),
        ("priors", lopsided.logit_adjustment),
        ("pos_weight", lambda numbers: lopsided.BinaryCrossEntropyLoss(pos_weight=numbers)),
        ("weight", lambda numbers: lopsided.loss("zlpr", weight=numbers)),
        ("label_weight", lambda numbers: lopsided.LinearHead(4, 2, "bce", label_weight=numbers)),
    ],
)
def test_lists_of_numbers_are_refused_by_the_name_of_the_argument(name: str, call: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be a tensor, got list: .*: pass torch.as_tensor\(...\)"):
        call([0.1, 0.5])


def test_logit_adjustment_learns_balanced_odds() -> None:
    """A bias alone, trained with the offset, ends at even odds whatever the prior."""
    y = (torch.arange(200) < 8).double()[:, None]
    offset = lopsided.logit_adjustment(y.mean(0)).double()
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([bias], max_iter=100, tolerance_grad=1e-10)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = multilabel_loss((bias + offset).expand(200, 1), y, "bce")
        value.backward()
        return value

    optimizer.step(closure)
    assert bias.item() == pytest.approx(0, abs=1e-6)
