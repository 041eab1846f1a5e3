"""The rest of the catalog: losses that are one more pool, or one more curve, and otherwise made of what is there."""

from __future__ import annotations

from lopsided.losses import catalog as catalog  # whose losses come first
from lopsided.losses import curves
from lopsided.losses.entries import curve_of, entry, named
from lopsided.losses.formulas import Formula
from lopsided.losses.pools import ThresholdSoftmax


@entry("atl", "arXiv 2010.11304")
def adaptive_threshold() -> Formula:
    """ATL: sum_pos log((1 + sum_pos e^z) / e^z) + log(1 + sum_neg e^z), decided at 0. Zhou et al. 2021, ATLOP.

    z is the logit of a label less that of the threshold class: with `threshold_logit=0` the first logit of each row is
    that class. Without, the threshold is 0, which a model with a bias for each label learns as well.
    """
    up, down = curve_of(curves.exponent, scale=-1.0), curve_of(curves.exponent, scale=1.0)
    return named("atl", up, down, ThresholdSoftmax())
