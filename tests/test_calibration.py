import math

import pytest
import torch

import lopsided

# sigmoid at the point where the implied posterior is 0.5, and the posterior at p = .5, .7, .8, .9, .99: derived and
# computed once outside this project
TABLE = {
    "bce": (0.5, [0.5, 0.7, 0.8, 0.9, 0.99]),
    "asl(gamma_neg=0)": (0.525, [0.476, 0.667, 0.762, 0.857, 0.943]),
    "focal": (0.5, [0.5, 0.906, 0.977, 0.997, 1.0]),
    "asl(detach_focus=False)": (0.684, [0.128, 0.538, 0.743, 0.880, 0.957]),
    "asl": (0.799, [0.036, 0.263, 0.503, 0.758, 0.928]),
    "asl(gamma_pos=1, detach_focus=False)": (0.639, [0.147, 0.679, 0.884, 0.974, 0.999]),
    "asl(gamma_pos=1)": (0.687, [0.069, 0.543, 0.835, 0.969, 0.999]),
    "asl(gamma_neg=2, clip=0.2)": (0.846, [0.060, 0.259, 0.419, 0.595, 0.746]),
    "asl(gamma_neg=7)": (0.858, [0.003, 0.089, 0.299, 0.658, 0.915]),
    "apl": (0.763, [0.032, 0.302, 0.628, 0.906, 0.997]),
    "apl(detach_focus=False)": (0.670, [0.115, 0.585, 0.828, 0.958, 0.998]),
}


@pytest.mark.parametrize("spec", TABLE)
def test_posterior_and_threshold(spec: str) -> None:
    threshold, posteriors = TABLE[spec]
    loss = lopsided.loss(spec)
    assert torch.sigmoid(torch.tensor(loss.decision_threshold())).item() == pytest.approx(threshold, abs=6e-4)
    p = torch.tensor([0.5, 0.7, 0.8, 0.9, 0.99], dtype=torch.float64)
    torch.testing.assert_close(
        loss.posterior(torch.logit(p)), torch.tensor(posteriors, dtype=torch.float64), rtol=0, atol=6e-4
    )


@pytest.mark.parametrize("spec", ["bce", "focal", "asl(detach_focus=False)", "apl(detach_focus=False)"])
@pytest.mark.parametrize("eta", [0.1, 0.5, 0.8])
def test_the_threshold_is_where_training_settles(spec: str, eta: float) -> None:
    """A logit fitted to a label of probability eta ends at the threshold of eta, found here by brute force."""
    z = torch.linspace(-8, 8, 160_001, dtype=torch.float64)[:, None]
    risk = lopsided.functional.multilabel_loss(z, torch.full_like(z, eta), lopsided.loss(spec), reduction="none")
    assert z[risk.argmin()].item() == pytest.approx(lopsided.loss(spec).decision_threshold(eta), abs=2e-4)


def test_saturation_and_coupling() -> None:
    assert lopsided.loss("asl(clip=0.5)").decision_threshold() == math.inf
    assert lopsided.loss("zlpr").decision_threshold() == 0
    with pytest.raises(ValueError, match="couple"):
        lopsided.loss("zlpr").posterior(torch.zeros(1))
