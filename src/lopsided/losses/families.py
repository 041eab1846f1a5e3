"""The rest of the catalog: losses that are one more pool, or one more curve, and otherwise made of what is there."""

from __future__ import annotations

from lopsided.losses import catalog as catalog  # whose losses come first
from lopsided.losses import curves
from lopsided.losses.checks import check_clip, check_number
from lopsided.losses.entries import Range, curve_of, entry, named
from lopsided.losses.formulas import Formula
from lopsided.losses.none_class import NoneClass
from lopsided.losses.pools import DecoupledSoftmax, SideMeans, Sum, ThresholdSoftmax

EXPONENTS = curve_of(curves.exponent, scale=-1.0), curve_of(curves.exponent, scale=1.0)  # of both sides


@entry("atl", "arXiv 2010.11304")
def adaptive_threshold() -> Formula:
    """ATL: sum_pos log((1 + sum_pos e^z) / e^z) + log(1 + sum_neg e^z), decided at 0. Zhou et al. 2021, ATLOP.

    z is the logit of a label less that of the threshold class: with `threshold_logit=0` the first logit of each row is
    that class. Without, the threshold is 0, which a model with a bias for each label learns as well.
    """
    return named("atl", *EXPONENTS, ThresholdSoftmax())


@entry("mean_sat", "EMNLP 2023 Findings, HingeABL")
def mean_separated_threshold() -> Formula:
    """Mean-SAT: mean of log(1 + e^-z) over the positives plus mean of log(1 + e^z) over the negatives, decided at 0.

    z as in atl. As in the code of Wang et al. 2023, without its exponentials, which overflow.
    """
    return named("mean_sat", *EXPONENTS, SideMeans())


@entry("hinge_abl", "EMNLP 2023 Findings, HingeABL", margin=Range(1, 10))
def hinge_adaptive_balance(margin: float = 5.0) -> Formula:
    """HingeABL: mean-SAT whose means are weighed by max(margin - z, 0) of positives, max(margin + z, 0) of negatives.

    z as in atl, decided at 0. The weights have a gradient too, as in the code of Wang et al. 2023; without its
    exponentials, which overflow.
    """
    margin = check_number("margin", margin, low=0.001, high=1000)
    return named("hinge_abl", *EXPONENTS, SideMeans(margin), margin=margin)


@entry("ncrl", "arXiv 2205.00476", clip=Range(0, 0.1))
def none_class_ranking(clip: float = 0.0) -> Formula:
    """NCRL: bce, negatives with a clip, and once more for the none class, of logit -mean z. Zhou and Lee 2022.

    z as in atl, decided at 0. The none class is a positive where no label is. Differs from the official code: no eps
    clamp; with soft targets the none class is there to the share 1 - y of the row's most probable label.
    """
    clip = check_clip(clip)
    return named("ncrl", *EXPONENTS, NoneClass(clip), clip=clip)


@entry("decoupled", "arXiv 2310.10636")
def decoupled_softmax() -> Formula:
    """Decoupled softmax: mean over the positives of log(1 + e^-z sum_neg e^z): positives do not compete.

    Gupta et al. 2024. Rows without a positive cost nothing.
    """
    return named("decoupled", *EXPONENTS, DecoupledSoftmax())


@entry("sat", "EMNLP 2023 Findings, HingeABL")
def separated_threshold() -> Formula:
    """SAT: log(1 + e^-z) for positives, log(1 + e^z) for negatives: binary cross-entropy, of z as in atl.

    As in the code of Wang et al. 2023, without its exponentials, which overflow.
    """
    formula = catalog.binary_cross_entropy()
    return named("sat", formula.positive, formula.negative, formula.pool)


@entry("aml", "KDD 2022, SagDRE")
def adaptive_margin() -> Formula:
    """AML: max(0, 1 - z) for positives, max(0, 1 + z) for negatives: the hinge, of z as in atl. Wei and Li 2022.

    Their rule is to decide at 0. It follows from no probability: whatever is more likely than not settles at 1.
    """
    return named("aml", curve_of(curves.hinge, scale=-1.0), curve_of(curves.hinge, scale=1.0), Sum())
