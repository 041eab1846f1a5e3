"""Printed from `lopsided/losses/curves.py` by `python -m lopsided.compute.triton.printer`. Do not edit.

Each maps a tile of float32 logits to values and slopes; s are the settings, constants of the compiler.
"""

import triton
import triton.language as tl

from lopsided.compute.triton.math import exp, log1p, log1p_unit, maximum, minimum, power, reciprocal


@triton.jit
def polynomial_positive(z, s: tl.constexpr):
    v0 = z - s[2]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = log1p_unit(v1) - minimum(v0, 0.0)
    v4 = reciprocal(1.0 + v1)
    v5 = -tl.where(v2, (v1 * v4), v4)
    return v3, v5


@triton.jit
def polynomial_negative(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = log1p_unit(v0) + maximum(0.0, z)
    v3 = reciprocal(1.0 + v0)
    v4 = tl.where(v1, v3, (v0 * v3))
    return v2, v4


@triton.jit
def polynomial_negative_margin(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3) - s[1]
    v5 = maximum(v4, 0.0)
    v6 = -log1p((-v5))
    v7 = tl.where((0.0 >= v5), 0.0, (reciprocal((s[1] + tl.where(v0, v3, v2))) * (v2 * v3)))
    return v6, v7


@triton.jit
def polynomial_positive_2terms(z, s: tl.constexpr):
    v0 = z - s[2]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = reciprocal(1.0 + v1)
    v4 = v1 * v3
    v5 = tl.where(v2, v4, v3)
    v6 = (log1p_unit(v1) - minimum(v0, 0.0)) + (v5 * (s[6] + (s[7] * v5)))
    v7 = (s[6] + 1.0) + (v5 * ((tl.where(v2, v3, v4) * (s[7] * 2.0)) - s[6]))
    v8 = -(v5 * v7)
    return v6, v8


@triton.jit
def polynomial_negative_2terms(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = reciprocal(1.0 + v0)
    v3 = v0 * v2
    v4 = tl.where(v1, v2, v3)
    v5 = (log1p_unit(v0) + maximum(0.0, z)) + (v4 * (s[6] + (s[7] * v4)))
    v6 = s[4] + v5
    v7 = v4 * ((tl.where(v1, v3, v2) * (s[6] + (v4 * (s[7] * 2.0)))) + 1.0)
    return v6, v7


@triton.jit
def polynomial_negative_margin_2terms(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3) - s[1]
    v5 = maximum(v4, 0.0)
    v6 = s[4] + ((-log1p((-v5))) + (v5 * (s[6] + (s[7] * v5))))
    v7 = reciprocal((s[1] + tl.where(v0, v3, v2))) + (s[6] + (v5 * (s[7] * 2.0)))
    v8 = tl.where((0.0 >= v5), 0.0, ((v2 * v3) * v7))
    return v6, v8


@triton.jit
def polynomial_positive_8terms(z, s: tl.constexpr):
    v0 = z - s[2]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = reciprocal(1.0 + v1)
    v4 = v1 * v3
    v5 = tl.where(v2, v4, v3)
    v6 = v5 * (s[10] + (v5 * (s[11] + (v5 * (s[12] + (s[13] * v5))))))
    v7 = v5 * (s[6] + (v5 * (s[7] + (v5 * (s[8] + (v5 * (s[9] + v6)))))))
    v8 = (log1p_unit(v1) - minimum(v0, 0.0)) + v7
    v9 = (s[11] * 6.0) + (v5 * ((s[12] * 7.0) + (v5 * (s[13] * 8.0))))
    v10 = (s[8] * 3.0) + (v5 * ((s[9] * 4.0) + (v5 * ((s[10] * 5.0) + (v5 * v9)))))
    v11 = v5 * ((tl.where(v2, v3, v4) * ((s[7] * 2.0) + (v5 * v10))) - s[6])
    v12 = -(v5 * ((s[6] + 1.0) + v11))
    return v8, v12


@triton.jit
def polynomial_negative_8terms(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = reciprocal(1.0 + v0)
    v3 = v0 * v2
    v4 = tl.where(v1, v2, v3)
    v5 = v4 * (s[10] + (v4 * (s[11] + (v4 * (s[12] + (s[13] * v4))))))
    v6 = v4 * (s[6] + (v4 * (s[7] + (v4 * (s[8] + (v4 * (s[9] + v5)))))))
    v7 = s[4] + ((log1p_unit(v0) + maximum(0.0, z)) + v6)
    v8 = (s[11] * 6.0) + (v4 * ((s[12] * 7.0) + (v4 * (s[13] * 8.0))))
    v9 = (s[8] * 3.0) + (v4 * ((s[9] * 4.0) + (v4 * ((s[10] * 5.0) + (v4 * v8)))))
    v10 = tl.where(v1, v3, v2) * (s[6] + (v4 * ((s[7] * 2.0) + (v4 * v9))))
    v11 = v4 * (v10 + 1.0)
    return v7, v11


@triton.jit
def polynomial_negative_margin_8terms(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3) - s[1]
    v5 = maximum(v4, 0.0)
    v6 = v5 * (s[10] + (v5 * (s[11] + (v5 * (s[12] + (s[13] * v5))))))
    v7 = v5 * (s[6] + (v5 * (s[7] + (v5 * (s[8] + (v5 * (s[9] + v6)))))))
    v8 = s[4] + ((-log1p((-v5))) + v7)
    v9 = (s[11] * 6.0) + (v5 * ((s[12] * 7.0) + (v5 * (s[13] * 8.0))))
    v10 = (s[8] * 3.0) + (v5 * ((s[9] * 4.0) + (v5 * ((s[10] * 5.0) + (v5 * v9)))))
    v11 = reciprocal((s[1] + tl.where(v0, v3, v2))) + (s[6] + (v5 * ((s[7] * 2.0) + (v5 * v10))))
    v12 = tl.where((0.0 >= v5), 0.0, ((v2 * v3) * v11))
    return v8, v12


@triton.jit
def polynomial_positive_gamma(z, s: tl.constexpr):
    v0 = z - s[2]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = log1p_unit(v1) - minimum(v0, 0.0)
    v4 = reciprocal(1.0 + v1)
    v5 = v1 * v4
    v6 = tl.where(v2, v5, v4)
    v7 = power(v6, s[0])
    v8 = v3 * v7
    v9 = v7 * ((-v6) - (v3 * (s[0] * tl.where(v2, v4, v5))))
    return v8, v9


@triton.jit
def polynomial_negative_gamma(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = log1p_unit(v0) + maximum(0.0, z)
    v3 = reciprocal(1.0 + v0)
    v4 = v0 * v3
    v5 = tl.where(v1, v3, v4)
    v6 = power(v5, s[0])
    v7 = v2 * v6
    v8 = v6 * (v5 + (v2 * (s[0] * tl.where(v1, v4, v3))))
    return v7, v8


@triton.jit
def polynomial_negative_margin_gamma(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3) - s[1]
    v5 = maximum(v4, 0.0)
    v6 = log1p((-v5))
    v7 = power(v5, (s[0] - 1.0))
    v8 = v5 * v7
    v9 = -(v6 * v8)
    v10 = (reciprocal((s[1] + tl.where(v0, v3, v2))) * v8) + (-(v6 * (s[0] * v7)))
    v11 = (v2 * v3) * v10
    return v9, v11


@triton.jit
def polynomial_positive_gamma_2terms(z, s: tl.constexpr):
    v0 = z - s[2]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = reciprocal(1.0 + v1)
    v4 = v1 * v3
    v5 = tl.where(v2, v4, v3)
    v6 = (log1p_unit(v1) - minimum(v0, 0.0)) + (v5 * (s[6] + (s[7] * v5)))
    v7 = power(v5, s[0])
    v8 = v6 * v7
    v9 = tl.where(v2, v3, v4)
    v10 = (-(v5 * ((s[6] + 1.0) + (v5 * ((v9 * (s[7] * 2.0)) - s[6]))))) - (v6 * (s[0] * v9))
    v11 = v7 * v10
    return v8, v11


@triton.jit
def polynomial_negative_gamma_2terms(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = reciprocal(1.0 + v0)
    v3 = v0 * v2
    v4 = tl.where(v1, v2, v3)
    v5 = (log1p_unit(v0) + maximum(0.0, z)) + (v4 * (s[6] + (s[7] * v4)))
    v6 = s[4] + v5
    v7 = power(v4, s[0])
    v8 = v6 * v7
    v9 = tl.where(v1, v3, v2)
    v10 = (v4 * ((v9 * (s[6] + (v4 * (s[7] * 2.0)))) + 1.0)) + (v6 * (s[0] * v9))
    v11 = v7 * v10
    return v8, v11


@triton.jit
def polynomial_negative_margin_gamma_2terms(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3) - s[1]
    v5 = maximum(v4, 0.0)
    v6 = s[4] + ((-log1p((-v5))) + (v5 * (s[6] + (s[7] * v5))))
    v7 = power(v5, (s[0] - 1.0))
    v8 = v5 * v7
    v9 = v6 * v8
    v10 = reciprocal((s[1] + tl.where(v0, v3, v2))) + (s[6] + (v5 * (s[7] * 2.0)))
    v11 = tl.where((0.0 >= v5), 0.0, ((v2 * v3) * ((v10 * v8) + (v6 * (s[0] * v7)))))
    return v9, v11


@triton.jit
def polynomial_positive_gamma_8terms(z, s: tl.constexpr):
    v0 = z - s[2]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = reciprocal(1.0 + v1)
    v4 = v1 * v3
    v5 = tl.where(v2, v4, v3)
    v6 = v5 * (s[10] + (v5 * (s[11] + (v5 * (s[12] + (s[13] * v5))))))
    v7 = v5 * (s[6] + (v5 * (s[7] + (v5 * (s[8] + (v5 * (s[9] + v6)))))))
    v8 = (log1p_unit(v1) - minimum(v0, 0.0)) + v7
    v9 = power(v5, s[0])
    v10 = v8 * v9
    v11 = tl.where(v2, v3, v4)
    v12 = (s[11] * 6.0) + (v5 * ((s[12] * 7.0) + (v5 * (s[13] * 8.0))))
    v13 = (s[8] * 3.0) + (v5 * ((s[9] * 4.0) + (v5 * ((s[10] * 5.0) + (v5 * v12)))))
    v14 = (s[6] + 1.0) + (v5 * ((v11 * ((s[7] * 2.0) + (v5 * v13))) - s[6]))
    v15 = v9 * ((-(v5 * v14)) - (v8 * (s[0] * v11)))
    return v10, v15


@triton.jit
def polynomial_negative_gamma_8terms(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = reciprocal(1.0 + v0)
    v3 = v0 * v2
    v4 = tl.where(v1, v2, v3)
    v5 = v4 * (s[10] + (v4 * (s[11] + (v4 * (s[12] + (s[13] * v4))))))
    v6 = v4 * (s[6] + (v4 * (s[7] + (v4 * (s[8] + (v4 * (s[9] + v5)))))))
    v7 = s[4] + ((log1p_unit(v0) + maximum(0.0, z)) + v6)
    v8 = power(v4, s[0])
    v9 = v7 * v8
    v10 = tl.where(v1, v3, v2)
    v11 = (s[11] * 6.0) + (v4 * ((s[12] * 7.0) + (v4 * (s[13] * 8.0))))
    v12 = (s[8] * 3.0) + (v4 * ((s[9] * 4.0) + (v4 * ((s[10] * 5.0) + (v4 * v11)))))
    v13 = v4 * ((v10 * (s[6] + (v4 * ((s[7] * 2.0) + (v4 * v12))))) + 1.0)
    v14 = v8 * (v13 + (v7 * (s[0] * v10)))
    return v9, v14


@triton.jit
def polynomial_negative_margin_gamma_8terms(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3) - s[1]
    v5 = maximum(v4, 0.0)
    v6 = v5 * (s[10] + (v5 * (s[11] + (v5 * (s[12] + (s[13] * v5))))))
    v7 = v5 * (s[6] + (v5 * (s[7] + (v5 * (s[8] + (v5 * (s[9] + v6)))))))
    v8 = s[4] + ((-log1p((-v5))) + v7)
    v9 = power(v5, (s[0] - 1.0))
    v10 = v5 * v9
    v11 = v8 * v10
    v12 = (s[11] * 6.0) + (v5 * ((s[12] * 7.0) + (v5 * (s[13] * 8.0))))
    v13 = (s[8] * 3.0) + (v5 * ((s[9] * 4.0) + (v5 * ((s[10] * 5.0) + (v5 * v12)))))
    v14 = reciprocal((s[1] + tl.where(v0, v3, v2))) + (s[6] + (v5 * ((s[7] * 2.0) + (v5 * v13))))
    v15 = tl.where((0.0 >= v5), 0.0, ((v2 * v3) * ((v14 * v10) + (v8 * (s[0] * v9)))))
    return v11, v15


@triton.jit
def polynomial_positive_gamma_detach(z, s: tl.constexpr):
    v0 = z - s[2]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = reciprocal(1.0 + v1)
    v4 = tl.where(v2, (v1 * v3), v3)
    v5 = power(v4, s[0])
    v6 = (log1p_unit(v1) - minimum(v0, 0.0)) * v5
    v7 = -(v4 * v5)
    return v6, v7


@triton.jit
def polynomial_negative_gamma_detach(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = reciprocal(1.0 + v0)
    v3 = tl.where(v1, v2, (v0 * v2))
    v4 = power(v3, s[0])
    v5 = (log1p_unit(v0) + maximum(0.0, z)) * v4
    v6 = v3 * v4
    return v5, v6


@triton.jit
def polynomial_negative_margin_gamma_detach(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3) - s[1]
    v5 = maximum(v4, 0.0)
    v6 = v5 * power(v5, (s[0] - 1.0))
    v7 = -(log1p((-v5)) * v6)
    v8 = (v2 * v3) * (reciprocal((s[1] + tl.where(v0, v3, v2))) * v6)
    return v7, v8


@triton.jit
def polynomial_positive_gamma_detach_2terms(z, s: tl.constexpr):
    v0 = z - s[2]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = reciprocal(1.0 + v1)
    v4 = v1 * v3
    v5 = tl.where(v2, v4, v3)
    v6 = (log1p_unit(v1) - minimum(v0, 0.0)) + (v5 * (s[6] + (s[7] * v5)))
    v7 = power(v5, s[0])
    v8 = v6 * v7
    v9 = (s[6] + 1.0) + (v5 * ((tl.where(v2, v3, v4) * (s[7] * 2.0)) - s[6]))
    v10 = -((v5 * v9) * v7)
    return v8, v10


@triton.jit
def polynomial_negative_gamma_detach_2terms(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = reciprocal(1.0 + v0)
    v3 = v0 * v2
    v4 = tl.where(v1, v2, v3)
    v5 = (log1p_unit(v0) + maximum(0.0, z)) + (v4 * (s[6] + (s[7] * v4)))
    v6 = power(v4, s[0])
    v7 = (s[4] + v5) * v6
    v8 = v4 * ((tl.where(v1, v3, v2) * (s[6] + (v4 * (s[7] * 2.0)))) + 1.0)
    v9 = v8 * v6
    return v7, v9


@triton.jit
def polynomial_negative_margin_gamma_detach_2terms(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3) - s[1]
    v5 = maximum(v4, 0.0)
    v6 = v5 * power(v5, (s[0] - 1.0))
    v7 = (s[4] + ((-log1p((-v5))) + (v5 * (s[6] + (s[7] * v5))))) * v6
    v8 = reciprocal((s[1] + tl.where(v0, v3, v2))) + (s[6] + (v5 * (s[7] * 2.0)))
    v9 = tl.where((0.0 >= v5), 0.0, ((v2 * v3) * (v8 * v6)))
    return v7, v9


@triton.jit
def polynomial_positive_gamma_detach_8terms(z, s: tl.constexpr):
    v0 = z - s[2]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = reciprocal(1.0 + v1)
    v4 = v1 * v3
    v5 = tl.where(v2, v4, v3)
    v6 = v5 * (s[10] + (v5 * (s[11] + (v5 * (s[12] + (s[13] * v5))))))
    v7 = v5 * (s[6] + (v5 * (s[7] + (v5 * (s[8] + (v5 * (s[9] + v6)))))))
    v8 = power(v5, s[0])
    v9 = ((log1p_unit(v1) - minimum(v0, 0.0)) + v7) * v8
    v10 = (s[11] * 6.0) + (v5 * ((s[12] * 7.0) + (v5 * (s[13] * 8.0))))
    v11 = (s[8] * 3.0) + (v5 * ((s[9] * 4.0) + (v5 * ((s[10] * 5.0) + (v5 * v10)))))
    v12 = v5 * ((tl.where(v2, v3, v4) * ((s[7] * 2.0) + (v5 * v11))) - s[6])
    v13 = -((v5 * ((s[6] + 1.0) + v12)) * v8)
    return v9, v13


@triton.jit
def polynomial_negative_gamma_detach_8terms(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = reciprocal(1.0 + v0)
    v3 = v0 * v2
    v4 = tl.where(v1, v2, v3)
    v5 = v4 * (s[10] + (v4 * (s[11] + (v4 * (s[12] + (s[13] * v4))))))
    v6 = v4 * (s[6] + (v4 * (s[7] + (v4 * (s[8] + (v4 * (s[9] + v5)))))))
    v7 = power(v4, s[0])
    v8 = (s[4] + ((log1p_unit(v0) + maximum(0.0, z)) + v6)) * v7
    v9 = (s[11] * 6.0) + (v4 * ((s[12] * 7.0) + (v4 * (s[13] * 8.0))))
    v10 = (s[8] * 3.0) + (v4 * ((s[9] * 4.0) + (v4 * ((s[10] * 5.0) + (v4 * v9)))))
    v11 = tl.where(v1, v3, v2) * (s[6] + (v4 * ((s[7] * 2.0) + (v4 * v10))))
    v12 = (v4 * (v11 + 1.0)) * v7
    return v8, v12


@triton.jit
def polynomial_negative_margin_gamma_detach_8terms(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3) - s[1]
    v5 = maximum(v4, 0.0)
    v6 = v5 * (s[10] + (v5 * (s[11] + (v5 * (s[12] + (s[13] * v5))))))
    v7 = v5 * (s[6] + (v5 * (s[7] + (v5 * (s[8] + (v5 * (s[9] + v6)))))))
    v8 = v5 * power(v5, (s[0] - 1.0))
    v9 = (s[4] + ((-log1p((-v5))) + v7)) * v8
    v10 = (s[11] * 6.0) + (v5 * ((s[12] * 7.0) + (v5 * (s[13] * 8.0))))
    v11 = (s[8] * 3.0) + (v5 * ((s[9] * 4.0) + (v5 * ((s[10] * 5.0) + (v5 * v10)))))
    v12 = reciprocal((s[1] + tl.where(v0, v3, v2))) + (s[6] + (v5 * ((s[7] * 2.0) + (v5 * v11))))
    v13 = tl.where((0.0 >= v5), 0.0, ((v2 * v3) * (v12 * v8)))
    return v9, v13


@triton.jit
def robust_negative(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = log1p_unit(v0) + maximum(0.0, z)
    v3 = reciprocal(1.0 + v0)
    v4 = v0 * v3
    v5 = tl.where(v1, v3, v4)
    v6 = (s[5] - 1.0) + maximum(v5, 0.0)
    v7 = (v5 * v5) * (s[5] - v5)
    v8 = v6 * v7
    v9 = v2 * v8
    v10 = (v5 * v6) * (((s[5] * 2.0) - 3.0) + (tl.where(v1, v4, v3) * 3.0))
    v11 = (v5 * v8) + (v2 * ((v3 * v4) * (v7 + v10)))
    return v9, v11


@triton.jit
def robust_negative_margin(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3)
    v5 = v4 - s[1]
    v6 = maximum(v5, 0.0)
    v7 = log1p((-v6))
    v8 = (v4 * v4) * (s[5] - v4)
    v9 = v6 + (s[5] - 1.0)
    v10 = v8 * v9
    v11 = -(v7 * v10)
    v12 = tl.where(v0, v3, v2)
    v13 = v2 * v3
    v14 = tl.where((0.0 >= v6), 0.0, (reciprocal((s[1] + v12)) * v13)) * v10
    v15 = v13 * (v8 + ((((s[5] * 2.0) - 3.0) + (v12 * 3.0)) * (v4 * v9)))
    v16 = v14 + (-(v7 * v15))
    return v11, v16


@triton.jit
def robust_negative_gamma(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = log1p_unit(v0) + maximum(0.0, z)
    v3 = reciprocal(1.0 + v0)
    v4 = v0 * v3
    v5 = tl.where(v1, v3, v4)
    v6 = power(v5, s[0])
    v7 = v2 * v6
    v8 = (s[5] - 1.0) + maximum(v5, 0.0)
    v9 = (v5 * v5) * (s[5] - v5)
    v10 = v8 * v9
    v11 = v7 * v10
    v12 = tl.where(v1, v4, v3)
    v13 = (v3 * v4) * (v9 + ((v5 * v8) * (((s[5] * 2.0) - 3.0) + (v12 * 3.0))))
    v14 = ((v6 * (v5 + (v2 * (s[0] * v12)))) * v10) + (v7 * v13)
    return v11, v14


@triton.jit
def robust_negative_margin_gamma(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3)
    v5 = v4 - s[1]
    v6 = maximum(v5, 0.0)
    v7 = log1p((-v6))
    v8 = power(v6, (s[0] - 1.0))
    v9 = v6 * v8
    v10 = v7 * v9
    v11 = (v4 * v4) * (s[5] - v4)
    v12 = v6 + (s[5] - 1.0)
    v13 = v11 * v12
    v14 = -(v10 * v13)
    v15 = v2 * v3
    v16 = tl.where(v0, v3, v2)
    v17 = v15 * ((reciprocal((s[1] + v16)) * v9) + (-(v7 * (s[0] * v8))))
    v18 = v15 * (v11 + ((((s[5] * 2.0) - 3.0) + (v16 * 3.0)) * (v4 * v12)))
    v19 = (v17 * v13) + (-(v10 * v18))
    return v14, v19


@triton.jit
def robust_negative_gamma_detach(z, s: tl.constexpr):
    v0 = exp((-tl.abs(z)))
    v1 = z >= 0.0
    v2 = reciprocal(1.0 + v0)
    v3 = v0 * v2
    v4 = tl.where(v1, v2, v3)
    v5 = power(v4, s[0])
    v6 = (log1p_unit(v0) + maximum(0.0, z)) * v5
    v7 = (s[5] - 1.0) + maximum(v4, 0.0)
    v8 = (v4 * v4) * (s[5] - v4)
    v9 = v7 * v8
    v10 = v6 * v9
    v11 = (v4 * v7) * (((s[5] * 2.0) - 3.0) + (tl.where(v1, v3, v2) * 3.0))
    v12 = (v6 * ((v2 * v3) * (v8 + v11))) + ((v4 * v5) * v9)
    return v10, v12


@triton.jit
def robust_negative_margin_gamma_detach(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3)
    v5 = v4 - s[1]
    v6 = maximum(v5, 0.0)
    v7 = v6 * power(v6, (s[0] - 1.0))
    v8 = log1p((-v6)) * v7
    v9 = (v4 * v4) * (s[5] - v4)
    v10 = v6 + (s[5] - 1.0)
    v11 = v9 * v10
    v12 = -(v8 * v11)
    v13 = v2 * v3
    v14 = tl.where(v0, v3, v2)
    v15 = v13 * (v9 + ((((s[5] * 2.0) - 3.0) + (v14 * 3.0)) * (v4 * v10)))
    v16 = (-(v8 * v15)) + ((v13 * (reciprocal((s[1] + v14)) * v7)) * v11)
    return v12, v16


@triton.jit
def hill_negative(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = tl.where(v0, v2, v3)
    v5 = v4 * v4
    v6 = v5 * (s[5] - v4)
    v7 = tl.where(v0, v3, v2)
    v8 = (((s[5] * 2.0) - 3.0) + (v7 * 3.0)) * (v7 * v5)
    return v6, v8


@triton.jit
def tolerant_negative(z, s: tl.constexpr):
    v0 = z * s[3]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = (log1p_unit(v1) + maximum(0.0, v0)) * reciprocal(s[3])
    v4 = reciprocal(1.0 + v1)
    v5 = tl.where(v2, v4, (v1 * v4))
    return v3, v5


@triton.jit
def tolerant_negative_gamma(z, s: tl.constexpr):
    v0 = z * s[3]
    v1 = exp((-tl.abs(v0)))
    v2 = v0 >= 0.0
    v3 = log1p_unit(v1) + maximum(0.0, v0)
    v4 = reciprocal(1.0 + v1)
    v5 = v1 * v4
    v6 = tl.where(v2, v4, v5)
    v7 = power(v6, s[0])
    v8 = reciprocal(s[3]) * (v3 * v7)
    v9 = v7 * (v6 + (v3 * (s[0] * tl.where(v2, v5, v4))))
    return v8, v9


@triton.jit
def confidence_negative_gamma(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = power(tl.where(v0, v2, v3), s[0])
    v5 = log1p_unit(v1) - minimum(z, 0.0)
    v6 = v4 * v5
    v7 = (tl.where(v0, v3, v2) * v4) * ((s[0] * v5) - 1.0)
    return v6, v7


@triton.jit
def confidence_negative(z, s: tl.constexpr):
    v0 = z >= 0.0
    v1 = exp((-tl.abs(z)))
    v2 = reciprocal(1.0 + v1)
    v3 = v1 * v2
    v4 = power(tl.where(v0, v2, v3), s[0])
    v5 = log1p_unit(v1) - minimum(z, 0.0)
    v6 = v4 * v5
    v7 = (tl.where(v0, v3, v2) * v4) * ((s[0] * v5) - 1.0)
    return v6, v7


@triton.jit
def exponent(z, s: tl.constexpr):
    v0 = s[3] * (z - s[2])
    return v0, tl.full(z.shape, s[3], tl.float32)


@triton.jit
def bounded_exponent(z, s: tl.constexpr):
    v0 = z * 2.0
    v1 = v0 >= 0.0
    v2 = exp((-tl.abs(v0)))
    v3 = reciprocal(1.0 + v2)
    v4 = v2 * v3
    v5 = s[3] * (tl.where(v1, v3, v4) - tl.where(v1, v4, v3))
    v6 = (s[3] * 4.0) * (v3 * v4)
    return v5, v6


@triton.jit
def hinge(z, s: tl.constexpr):
    v0 = (z * s[3]) + 1.0
    v1 = maximum(v0, 0.0)
    v2 = tl.where((v1 >= 8.673617379884035e-19), s[3], v1)
    return v1, v2


@triton.jit
def squared_hinge(z, s: tl.constexpr):
    v0 = (z * s[3]) + 1.0
    v1 = maximum(v0, 0.0)
    v2 = minimum(v1, 16384.0)
    v3 = v2 * v2
    v4 = v2 * (s[3] * 2.0)
    return v3, v4


@triton.jit
def evaluate(z, CURVE: tl.constexpr, s: tl.constexpr):
    if CURVE == "polynomial_positive":
        value, slope = polynomial_positive(z, s)
    elif CURVE == "polynomial_negative":
        value, slope = polynomial_negative(z, s)
    elif CURVE == "polynomial_negative_margin":
        value, slope = polynomial_negative_margin(z, s)
    elif CURVE == "polynomial_positive_2terms":
        value, slope = polynomial_positive_2terms(z, s)
    elif CURVE == "polynomial_negative_2terms":
        value, slope = polynomial_negative_2terms(z, s)
    elif CURVE == "polynomial_negative_margin_2terms":
        value, slope = polynomial_negative_margin_2terms(z, s)
    elif CURVE == "polynomial_positive_8terms":
        value, slope = polynomial_positive_8terms(z, s)
    elif CURVE == "polynomial_negative_8terms":
        value, slope = polynomial_negative_8terms(z, s)
    elif CURVE == "polynomial_negative_margin_8terms":
        value, slope = polynomial_negative_margin_8terms(z, s)
    elif CURVE == "polynomial_positive_gamma":
        value, slope = polynomial_positive_gamma(z, s)
    elif CURVE == "polynomial_negative_gamma":
        value, slope = polynomial_negative_gamma(z, s)
    elif CURVE == "polynomial_negative_margin_gamma":
        value, slope = polynomial_negative_margin_gamma(z, s)
    elif CURVE == "polynomial_positive_gamma_2terms":
        value, slope = polynomial_positive_gamma_2terms(z, s)
    elif CURVE == "polynomial_negative_gamma_2terms":
        value, slope = polynomial_negative_gamma_2terms(z, s)
    elif CURVE == "polynomial_negative_margin_gamma_2terms":
        value, slope = polynomial_negative_margin_gamma_2terms(z, s)
    elif CURVE == "polynomial_positive_gamma_8terms":
        value, slope = polynomial_positive_gamma_8terms(z, s)
    elif CURVE == "polynomial_negative_gamma_8terms":
        value, slope = polynomial_negative_gamma_8terms(z, s)
    elif CURVE == "polynomial_negative_margin_gamma_8terms":
        value, slope = polynomial_negative_margin_gamma_8terms(z, s)
    elif CURVE == "polynomial_positive_gamma_detach":
        value, slope = polynomial_positive_gamma_detach(z, s)
    elif CURVE == "polynomial_negative_gamma_detach":
        value, slope = polynomial_negative_gamma_detach(z, s)
    elif CURVE == "polynomial_negative_margin_gamma_detach":
        value, slope = polynomial_negative_margin_gamma_detach(z, s)
    elif CURVE == "polynomial_positive_gamma_detach_2terms":
        value, slope = polynomial_positive_gamma_detach_2terms(z, s)
    elif CURVE == "polynomial_negative_gamma_detach_2terms":
        value, slope = polynomial_negative_gamma_detach_2terms(z, s)
    elif CURVE == "polynomial_negative_margin_gamma_detach_2terms":
        value, slope = polynomial_negative_margin_gamma_detach_2terms(z, s)
    elif CURVE == "polynomial_positive_gamma_detach_8terms":
        value, slope = polynomial_positive_gamma_detach_8terms(z, s)
    elif CURVE == "polynomial_negative_gamma_detach_8terms":
        value, slope = polynomial_negative_gamma_detach_8terms(z, s)
    elif CURVE == "polynomial_negative_margin_gamma_detach_8terms":
        value, slope = polynomial_negative_margin_gamma_detach_8terms(z, s)
    elif CURVE == "robust_negative":
        value, slope = robust_negative(z, s)
    elif CURVE == "robust_negative_margin":
        value, slope = robust_negative_margin(z, s)
    elif CURVE == "robust_negative_gamma":
        value, slope = robust_negative_gamma(z, s)
    elif CURVE == "robust_negative_margin_gamma":
        value, slope = robust_negative_margin_gamma(z, s)
    elif CURVE == "robust_negative_gamma_detach":
        value, slope = robust_negative_gamma_detach(z, s)
    elif CURVE == "robust_negative_margin_gamma_detach":
        value, slope = robust_negative_margin_gamma_detach(z, s)
    elif CURVE == "hill_negative":
        value, slope = hill_negative(z, s)
    elif CURVE == "tolerant_negative":
        value, slope = tolerant_negative(z, s)
    elif CURVE == "tolerant_negative_gamma":
        value, slope = tolerant_negative_gamma(z, s)
    elif CURVE == "confidence_negative_gamma":
        value, slope = confidence_negative_gamma(z, s)
    elif CURVE == "confidence_negative":
        value, slope = confidence_negative(z, s)
    elif CURVE == "exponent":
        value, slope = exponent(z, s)
    elif CURVE == "bounded_exponent":
        value, slope = bounded_exponent(z, s)
    elif CURVE == "hinge":
        value, slope = hinge(z, s)
    elif CURVE == "squared_hinge":
        value, slope = squared_hinge(z, s)
    return value, slope
