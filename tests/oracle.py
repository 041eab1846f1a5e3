"""The losses once more, straight from the papers, in float64 and with none of lopsided's code.

Textbook forms: exact only for moderate logits, which is where the tests use them. The focusing weight is
detached by hand where asked, and gradients are autograd's.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def asymmetric_polynomial(
    z: Tensor,
    y: Tensor,
    gamma_neg: float = 0,
    gamma_pos: float = 0,
    clip: float = 0,
    epsilon_pos: float = 0,
    epsilon_neg: float = 0,
    epsilon_pos_pow: float = 0,
    detach_focus: bool = False,
    alpha: float | None = None,
    hill: float | None = None,
) -> Tensor:
    """ASL and APL, with zeros BCE and focal, with `hill` RAL: one value per row."""
    p = 1 / (1 + torch.exp(-z))
    shifted = torch.where(p > clip, p - clip, torch.zeros_like(p))
    weight_pos, weight_neg = (1 - p) ** gamma_pos, shifted**gamma_neg
    if detach_focus:
        weight_pos, weight_neg = weight_pos.detach(), weight_neg.detach()
    positive = torch.log(p) + epsilon_pos * (1 - p) + epsilon_pos_pow / 2 * (1 - p) ** 2
    negative = torch.log(1 - shifted) + epsilon_neg * (1 - shifted)
    if alpha is not None:
        weight_pos, weight_neg = alpha * weight_pos, (1 - alpha) * weight_neg
    if hill is not None:
        negative = negative * (hill - p) * p**2 * (hill - (1 - shifted))
    return -(y * weight_pos * positive + (1 - y) * weight_neg * negative).sum(-1)


def taylor(z: Tensor, y: Tensor, alphas: Sequence[float], betas: Sequence[float]) -> Tensor:
    """Cross-entropy, with the leading terms of its two series taken out and put back with other coefficients."""
    p = torch.sigmoid(z)
    positive, negative = -torch.log(p), -torch.log(1 - p)
    for order, alpha in enumerate(alphas, start=1):
        positive = positive - (1 - p) ** order / order + alpha * (1 - p) ** order
    for order, beta in enumerate(betas, start=1):
        negative = negative - p**order / order + beta * p**order
    return (y * positive + (1 - y) * negative).sum(-1)


def hill(z: Tensor, y: Tensor, gamma: float = 2, margin: float = 1, lamb: float = 1.5) -> Tensor:
    p, shifted = torch.sigmoid(z), torch.sigmoid(z - margin)
    return (-y * (1 - shifted) ** gamma * torch.log(shifted) + (1 - y) * (lamb - p) * p**2).sum(-1)


def squared_hinge(z: Tensor, y: Tensor) -> Tensor:
    """With a sign for the truth, as support vector machines write it: soft targets mix the two."""
    signs = torch.tensor([1, -1], dtype=z.dtype).view(2, *[1] * z.ndim)
    return (torch.stack([y, 1 - y]) * torch.relu(1 - signs * z) ** 2).sum((0, -1))


def zlpr(z: Tensor, y: Tensor, threshold: float = 0, scale: float = 1, margin: float = 0) -> Tensor:
    up, down = torch.exp(scale * (z - threshold + margin)), torch.exp(-scale * (z - threshold - margin))
    return torch.log(1 + (y * down).sum(-1)) + torch.log(1 + ((1 - y) * up).sum(-1))


def lsep(z: Tensor, y: Tensor) -> Tensor:
    """Over all pairs, one by one."""
    pairs = y.unsqueeze(-1) * (1 - y).unsqueeze(-2) * torch.exp(z.unsqueeze(-2) - z.unsqueeze(-1))
    return torch.log(1 + pairs.sum((-1, -2)))


def two_way_rows(z: Tensor, y: Tensor, temperature_pos: float = 4, temperature_neg: float = 1) -> Tensor:
    """One way of the two: over the last dimension."""
    up = (y * torch.exp(-z / temperature_pos)).sum(-1) ** temperature_pos
    down = ((1 - y) * torch.exp(z / temperature_neg)).sum(-1) ** temperature_neg
    return torch.log(1 + up * down)


def bp_mll(z: Tensor, y: Tensor) -> Tensor:
    """Mean over all pairs, one by one."""
    c = torch.tanh(z)
    pairs = y.unsqueeze(-1) * (1 - y).unsqueeze(-2)
    total = (pairs * torch.exp(c.unsqueeze(-2) - c.unsqueeze(-1))).sum((-1, -2))
    return torch.where(pairs.sum((-1, -2)) > 0, total / pairs.sum((-1, -2)).clamp_min(1e-300), 0)


def softmax(z: Tensor, y: Tensor) -> Tensor:
    count = y.sum(-1, keepdim=True)
    return -(torch.where(count > 0, y / count.clamp_min(1e-300), 0) * torch.log(softmax_of(z))).sum(-1)


def atl(z: Tensor, y: Tensor) -> Tensor:
    """As its paper has it: softmaxes over logits of which one more, the threshold's, is 0."""
    zero = torch.zeros_like(z[..., :1])
    positive = torch.cat([zero + 1, y * torch.exp(z)], -1).sum(-1, keepdim=True)
    negative = torch.cat([zero + 1, (1 - y) * torch.exp(z)], -1).sum(-1, keepdim=True)
    return -(y * torch.log(torch.exp(z) / positive)).sum(-1) - torch.log(1 / negative).squeeze(-1)


def side_means(z: Tensor, y: Tensor, margin: float | None = None) -> Tensor:
    """Mean-SAT and HingeABL: two weighted means."""
    total = torch.zeros(z.shape[:-1], dtype=z.dtype)
    for d, a in ((-z, y), (z, 1 - y)):
        weight = a if margin is None else a * torch.relu(margin + d)
        mass = weight.sum(-1)
        total = total + torch.where(mass > 0, (weight * torch.log(1 + torch.exp(d))).sum(-1) / mass.clamp_min(1e-30), 0)
    return total


def none_class_ranking(z: Tensor, y: Tensor, clip: float = 0) -> Tensor:
    """As its code has it: labels and the none class through one cross-entropy, the threshold's logit being 0."""
    none = 1 - y.max(-1, keepdim=True).values
    logits, targets = torch.cat([z, -z.mean(-1, keepdim=True)], -1), torch.cat([y, none], -1)
    p = 1 / (1 + torch.exp(-logits))
    absent = torch.minimum(1 - p + clip, torch.ones_like(p))
    return -(targets * torch.log(p) + (1 - targets) * torch.log(absent)).sum(-1)


def hinge(z: Tensor, y: Tensor) -> Tensor:
    return (y * torch.relu(1 - z) + (1 - y) * torch.relu(1 + z)).sum(-1)


def decoupled(z: Tensor, y: Tensor) -> Tensor:
    """A softmax for each positive: that one, and all negatives."""
    negatives = ((1 - y) * torch.exp(z)).sum(-1, keepdim=True)
    costs = -torch.log(torch.exp(z) / (torch.exp(z) + negatives))
    return (y * costs).sum(-1) / y.sum(-1).clamp_min(1e-30)


def softmax_of(z: Tensor) -> Tensor:
    return torch.exp(z) / torch.exp(z).sum(-1, keepdim=True)


def posterior_by_search(loss: Callable[[Tensor, Tensor], Tensor], eta: float) -> float:
    """The logit that minimises the risk of a label with probability eta, found by brute force."""
    z = torch.linspace(-8, 8, 160_001, dtype=torch.float64)[:, None]
    risk = eta * loss(z, torch.ones_like(z)) + (1 - eta) * loss(z, torch.zeros_like(z))
    at = int(risk.argmin())
    return math.inf if at == len(z) - 1 else float(z[at])


def gradient(rows: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """d (sum of rows) / d z."""
    z = z.detach().clone().requires_grad_()
    return torch.autograd.grad(rows(z).sum(), z)[0]
