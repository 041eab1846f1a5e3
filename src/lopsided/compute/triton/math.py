"""The vocabulary of the printed curves, for Triton: no vendor's library, so that every GPU runs the same arithmetic.

Logarithms are polynomials in float32, those of `csrc/real.h`. Reciprocals and exponentials are made of `tl.rsqrt` and
`tl.exp2`, one instruction each on NVIDIA's GPUs, where a division and `tl.exp` take several.
"""

import triton
import triton.language as tl


@triton.jit
def exp(x):
    """Computes exp, 0 below the smallest normal number; its error grows with |x|, to 64 ulp and that of exp2 at -87."""
    return tl.exp2(x * 1.4426950408889634)


@triton.jit
def reciprocal(x):
    """Computes 1 / x of a normal x > 0; at most 5 ulp."""
    root = tl.rsqrt(x)
    return root * root


@triton.jit
def maximum(x, floor):
    """Returns the larger one; NaN stays NaN."""
    return tl.maximum(x, floor, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def minimum(x, ceiling):
    return tl.minimum(x, ceiling, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _split(x):
    """Splits x = m 2^k with m in [1/sqrt 2, sqrt 2): returns the bits of 2^-k, and k."""
    k = (x.to(tl.int32, bitcast=True) - 0x3F3504F3) >> 23
    return (0x3F800000 - (k << 23)).to(tl.float32, bitcast=True), k.to(tl.float32)


@triton.jit
def _log_tail(f, k):
    """Computes log(1 + f) + k log 2."""
    tail = 0.087357648 * f - 0.14308189
    tail = tail * f + 0.14917964
    tail = tail * f - 0.16570427
    tail = tail * f + 0.19962065
    tail = tail * f - 0.25001758
    tail = tail * f + 0.33333951
    tail = tail * f - 0.49999991
    return k * 0.6931471805599453 + (f * f * tail + f)


@triton.jit
def log(x):
    """Computes log of the smallest normal number and above; at most 4 ulp. NaN is passed on."""
    scale, k = _split(x)
    return _log_tail(x * scale - 1.0, k)


@triton.jit
def log1p(x):
    """Computes log(1 + x) for -1 < x <= 2; at most 4 ulp, also of a tiny x. NaN is passed on."""
    scale, k = _split(1.0 + x)
    return _log_tail(tl.where(k == 0, x, (1.0 + x) * scale - 1.0), k)


@triton.jit
def log1p_unit(e):
    """Computes log(1 + e) for 0 <= e <= 1; at most 2 ulp."""
    tail = 5.3648268e-3 * e - 0.030065803
    tail = tail * e + 0.07920455
    tail = tail * e - 0.13753803
    tail = tail * e + 0.19153656
    tail = tail * e - 0.24857163
    tail = tail * e + 0.33321324
    tail = tail * e - 0.49999648
    return e * e * tail + e


@triton.jit
def power(x, GAMMA: tl.constexpr):
    """Computes x^GAMMA, x in [0, 1]: products for whole exponents up to 8, else exp(GAMMA log x), x at least 2^-126."""
    square = x * x
    if GAMMA == 1:
        result = x
    elif GAMMA == 2:
        result = square
    elif GAMMA == 3:
        result = square * x
    elif GAMMA == 4:
        result = square * square
    elif GAMMA == 5:
        result = square * square * x
    elif GAMMA == 6:
        result = square * square * square
    elif GAMMA == 7:
        result = square * square * square * x
    elif GAMMA == 8:
        result = (square * square) * (square * square)
    elif GAMMA == 0:
        result = tl.full(x.shape, 1.0, tl.float32)
    else:
        result = exp(GAMMA * log(tl.where(x < 1.17549435e-38, 1.17549435e-38, x)))
    return result


@triton.jit
def softplus(x):
    """Computes log(1 + exp x)."""
    return tl.where(x > 0, x, 0.0) + log1p_unit(exp(-tl.abs(x)))


@triton.jit
def sigmoid(x):
    e = exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)
