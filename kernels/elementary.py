"""Functions of one number for loops: exp, log, tanh, sigmoid, erf and more; sums over a row.

Calls of the C library cannot be vectorised, so float32 has short polynomials in place of them,
which are; float64 has the C library's functions. Bounds are in units in the last place (ulp) of
float32, over the whole range: tests/kernels/test_elementary.py holds them, docs/kernels.md shows
them.

exp(x) = 2ⁿ · exp(r) with n = round(x / ln 2), so |r| ≤ ln 2 / 2. The exponent of a float is an
integer in its bits: 2ⁿ needs no multiplication.
"""

from __future__ import annotations

import math

from .loops import Bits, F, Instruction, helper

ROUND = 12582912.0  # 1.5 · 2²³: a float32 that is added to it and subtracted again is rounded
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # ln 2; n · LN2_HIGH is exact
SQRT_HALF = 0x3F3504F3  # the bits of √½
INFINITY, NAN = math.inf, math.nan  # as globals they have F's dtype; math.inf would be a float64


@Instruction
def fma(builder, a: F, b: F, c: F) -> F:
    """a · b + c, rounded once."""
    return builder.fma(a, b, c)


@Instruction
def power_of_two(builder, n: F) -> F:
    """2ⁿ of an integer -127 < n < 128, given as a float32."""
    i = builder.fptosi(n, _int32())
    i = builder.shl(builder.add(i, i.type(127)), i.type(23))
    return builder.bitcast(i, n.type)


@Instruction
def ordered(builder, x: F) -> Bits:
    """An integer that is larger for a larger x; larger than all others for NaN."""
    bits = _int_like(x)
    i = builder.bitcast(x, bits)
    mask = builder.lshr(builder.ashr(i, bits(bits.width - 1)), bits(1))
    return builder.xor(i, mask)


@Instruction
def unordered(builder, i: Bits) -> F:
    """The x with ordered(x) == i."""
    mask = builder.lshr(builder.ashr(i, i.type(i.type.width - 1)), i.type(1))
    return builder.bitcast(builder.xor(i, mask), _float_like(i))


def _int32():
    from llvmlite import ir

    return ir.IntType(32)


def _int_like(x):
    from llvmlite import ir

    return ir.IntType(32 if x.type == ir.FloatType() else 64)


def _float_like(i):
    from llvmlite import ir

    return ir.FloatType() if i.type.width == 32 else ir.DoubleType()


@helper()
def reduced(x):
    """n = round(x / ln 2), and eʳ - 1 for the rest r = x - n · ln 2."""
    n = fma(x, 1.4426950408889634, ROUND) - ROUND
    r = fma(n, -LN2_HIGH, x)
    r = fma(n, -LN2_LOW, r)
    p = fma(1.9875691500e-4, r, 1.3981999507e-3)  # Cephes's expf (Moshier)
    p = fma(p, r, 8.3334519073e-3)
    p = fma(p, r, 4.1665795894e-2)
    p = fma(p, r, 1.6666665459e-1)
    p = fma(p, r, 5.0000001201e-1)
    return n, fma(p * r, r, r)


@helper(double=math.exp)
def exp(x):
    """eˣ to 1.1 ulp. 0 below -104, inf above 88.8."""
    x = -104.0 if x < -104.0 else x
    x = 89.0 if x > 89.0 else x  # NaN stays: it is neither
    n, rest = reduced(x)
    p = rest + 1.0
    half = fma(n, 0.5, ROUND) - ROUND  # in two steps: 2ⁿ itself may be too large, or too small
    return p * power_of_two(half) * power_of_two(n - half)


@helper()
def sigmoid(x):
    """1 / (1 + e⁻ˣ) to 2.5 ulp; e⁻ˣ is never large, so a small result keeps its digits."""
    e = exp(-abs(x))
    return (e if x < 0.0 else 1.0) / (1.0 + e)


@helper(double=math.tanh)
def tanh(x):
    """tanh to 1.5 ulp: a polynomial near 0, where 1 - 2 / (e²ˣ + 1) would lose digits."""
    square = x * x
    p = fma(-5.70498872745e-3, square, 2.06390887954e-2)  # Cephes's tanhf
    p = fma(p, square, -5.37397155531e-2)
    p = fma(p, square, 1.33314422036e-1)
    p = fma(p, square, -3.33332819422e-1)
    near = fma(p * square, x, x)
    far = 1.0 - 2.0 / (exp(2.0 * abs(x)) + 1.0)
    far = -far if x < 0.0 else far
    far = near if abs(x) < 0.625 else far
    return x if x == 0.0 else far  # -0 stays


@helper(double=math.erf)
def erf(x):
    """erf to 4 ulp: tanh(x · p(x²)), p fitted (weighted minimax) for |x| ≤ 4; beyond it is 1."""
    square = x * x
    square = 17.0 if square > 17.0 else square
    p = fma(1.4185262839181668e-7, square, -5.6684834535980985e-6)
    p = fma(p, square, 8.763738079600779e-5)
    p = fma(p, square, -6.197848173121604e-4)
    p = fma(p, square, -1.9183059732144885e-4)
    p = fma(p, square, 0.10276905569172663)
    return tanh(x * fma(p, square, 1.1283792743186163))


ROWS = 64  # rows that a sum over rows adds up before they join its total: the rounding error then
# grows with n / ROWS + ROWS, not with n


# Over one row


@helper()
def row_max(x):
    """The largest number of a row; NaN if there is one, -inf if the row is empty.

    A comparison of floats is not vectorised, because NaN has no place in their order.
    """
    top = ordered(-INFINITY)
    for j in range(len(x)):
        top = max(top, ordered(x[j]))
    return unordered(top)


@helper(sums=True)
def row_sum(x):
    """Σ x."""
    total = 0.0
    for j in range(len(x)):
        total += x[j]
    return total


@helper(sums=True)
def row_dot(x, y):
    """Σ x · y."""
    total = 0.0
    for j in range(len(x)):
        total += x[j] * y[j]
    return total


# For attention: exponentials of scores less the largest one


@Instruction
def power_of_rounded(builder, t: F) -> F:
    """2ⁿ of an integer -127 < n < 128, given as n + ROUND: n is in its lowest bits. 0 for -127."""
    i = builder.bitcast(t, _int32())
    i = builder.add(builder.shl(i, i.type(23)), i.type(127 << 23))
    return builder.bitcast(i, t.type)


@helper(double=math.exp)
def exp_negative(x):
    """eˣ of x ≤ 0 (up to 88), to 1.4 ulp for x > -20 and 4.5 beyond; 0 below -87.7.

    It takes two thirds of exp's time: one power of 2 is enough, and 2⁻¹²⁷ is 0 by itself.
    """
    x = -88.0 if x < -88.0 else x
    n = fma(x, 1.4426950408889634, ROUND)
    r = fma(n - ROUND, -0.6931471805599453, x)
    square = r * r
    p = fma(1.9875691500e-4, r, 1.3981999507e-3)  # as exp, but in pairs: a shorter chain
    p = fma(p, square, fma(8.3334519073e-3, r, 4.1665795894e-2))
    p = fma(p, square, fma(1.6666665459e-1, r, 5.0000001201e-1))
    return fma(p, square, r + 1.0) * power_of_rounded(n)


# More functions of one number


@Instruction
def log_exponent(builder, x: F) -> F:
    """The integer n with √½ ≤ x / 2ⁿ < √2, of a normal float32."""
    i = builder.sub(builder.bitcast(x, _int32()), _int32()(SQRT_HALF))
    return builder.sitofp(builder.ashr(i, i.type(23)), x.type)


@Instruction
def log_mantissa(builder, x: F) -> F:
    """x / 2ⁿ for that n."""
    i = builder.sub(builder.bitcast(x, _int32()), _int32()(SQRT_HALF))
    i = builder.and_(i, i.type(0x7FFFFF))
    return builder.bitcast(builder.add(i, i.type(SQRT_HALF)), x.type)


@helper(double=math.log)
def log(x):
    """ln x to 1 ulp: n · ln 2 + ln m, for x = 2ⁿ · m. -inf of 0, NaN below."""
    small = x < 1.1754943508222875e-38  # a subnormal has no exponent of its own
    normal = x * 8388608.0 if small else x
    n = log_exponent(normal) - (23.0 if small else 0.0)
    m = log_mantissa(normal) - 1.0
    square = m * m
    p = fma(7.0376836292e-2, m, -1.1514610310e-1)  # Cephes's logf
    p = fma(p, m, 1.1676998740e-1)
    p = fma(p, m, -1.2420140846e-1)
    p = fma(p, m, 1.4249322787e-1)
    p = fma(p, m, -1.6668057665e-1)
    p = fma(p, m, 2.0000714765e-1)
    p = fma(p, m, -2.4999993993e-1)
    p = fma(p, m, 3.3333331174e-1)
    p = fma(n, LN2_LOW, p * square * m)
    y = fma(n, LN2_HIGH, fma(-0.5, square, p) + m)
    y = y if x < INFINITY else x  # inf, and NaN, which is not below it
    y = NAN if x < 0.0 else y
    return -INFINITY if x == 0.0 else y


@helper(double=math.log1p)
def log1p(x):
    """ln(1 + x) to 1.6 ulp: u = 1 + x is rounded, and the term behind log puts that right."""
    u = 1.0 + x
    lost = (x - (u - 1.0)) / u
    lost = lost if lost == lost else 0.0  # NaN: u is 0 or inf
    return x if x == 0.0 else log(u) + lost  # -0 stays


@helper(double=math.expm1)
def expm1(x):
    """eˣ - 1 to 1.6 ulp: as exp, but 1 is taken off 2ⁿ before the small terms are added."""
    x = -18.0 if x < -18.0 else x
    x = 89.0 if x > 89.0 else x
    n, rest = reduced(x)
    half = power_of_two(n - 1.0)  # 2ⁿ itself may be too large
    y = 2.0 * fma(rest, half, half - 0.5)
    return x if abs(x) < 5.9e-8 else y  # -0 and subnormals stay


@helper()
def normal_double(x):
    """Φ(x) and φ(x), by erf."""
    return 0.5 * (1.0 + erf(x * 0.7071067811865476)), exp(-0.5 * x * x) * 0.3989422804014327


@helper(double=normal_double)
def normal(x):
    """The normal distribution Φ(x) to 9 ulp, where it is no subnormal, and its density φ(x).

    One exponential serves both: Φ(-a) = exp(-a²/2) · m(a), where m falls slowly; it is a polynomial
    in t = 1 / (1 + 0.27 a), fitted (weighted minimax) for a ≤ 15. Beyond, Φ is 0 or 1.
    """
    a = 15.0 if abs(x) > 15.0 else abs(x)
    square = a * a
    lost = fma(a, a, -square)  # by rounding: exp would make 100 times as much of it
    e = exp(-0.5 * square)
    e = fma(e, -0.5 * lost, e)
    t = 1.0 / fma(0.27, a, 1.0)
    p = fma(2.8995445376941178e-2, t, -0.1266584021395223)
    p = fma(p, t, 0.17015563133650313)
    p = fma(p, t, -6.965018134036095e-2)
    p = fma(p, t, 0.10814227364860479)
    p = fma(p, t, 7.19084251977347e-2)
    p = fma(p, t, 0.10184854220506759)
    p = fma(p, t, 0.10753727405316543)
    p = fma(p, t, 0.10772100364136647)
    below = p * t * e
    return below if x < 0.0 else 1.0 - below, e * 0.3989422804014327
