"""The elementary functions of the Triton executor, one at a time, for their test."""

import triton
import triton.language as tl

from lopsided.compute.triton.math import exp, log, log1p, log1p_unit, reciprocal


@triton.jit
def apply(given, out, size, NAME: tl.constexpr):
    at = tl.program_id(0) * 1024 + tl.arange(0, 1024)
    x = tl.load(given + at, mask=at < size, other=1.0)
    if NAME == "exp":
        x = exp(x)
    elif NAME == "log":
        x = log(x)
    elif NAME == "log1p":
        x = log1p(x)
    elif NAME == "log1p_unit":
        x = log1p_unit(x)
    else:
        x = reciprocal(x)
    tl.store(out + at, x, mask=at < size)
