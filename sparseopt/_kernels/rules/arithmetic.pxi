# Arithmetic for rules. Each function serves float and double: `sqrt` of libc.math would turn a float rule into double
# arithmetic. All results are correctly rounded, so every instruction set gives the same bits.

from libc.float cimport DBL_MIN, FLT_MIN
from libc.math cimport INFINITY, NAN, copysign, copysignf, fabs, fabsf, log, pow, sqrt, sqrtf

cdef enum:
    STRIP = 64          # elements of a row per block, in rules that need scratch arrays

ctypedef fused real:
    float
    double


cdef inline real root(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


cdef inline real absolute(real x) noexcept nogil:
    if real is float:
        return fabsf(x)
    else:
        return fabs(x)


cdef inline real larger(real x, real y) noexcept nogil:
    return x if x > y else y


cdef inline real smaller(real x, real y) noexcept nogil:
    return x if x < y else y


cdef inline real signed(real size, real x) noexcept nogil:
    # size * sign(x).  size must not be negative. The result is NaN if x is NaN.
    if real is float:
        return copysignf(size, x) if fabsf(x) > 0 else x
    else:
        return copysign(size, x) if fabs(x) > 0 else x


cdef inline real one_nan(real x) noexcept nogil:
    # x, or for any NaN the same NaN
    return x if x == x else <real>NAN


cdef inline real tiny(real x) noexcept nogil:
    return FLT_MIN if real is float else DBL_MIN        # smallest normal number of x's type


# If gradients stay 0, an average decays to a subnormal number. Arithmetic with subnormal numbers is many times slower.
# `faded` therefore replaces a subnormal average by 0 if the gradient is 0. An average with a gradient stays exact,
# because a small average may be a divisor.


cdef inline real faded(real x, real g) noexcept nogil:
    return <real>0 if (absolute(x) < tiny(x)) & (g == 0) else x


cdef inline bint some_zero(const real* restrict g, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    cdef int found = 0
    for j in range(n):
        found |= g[j] == 0
    return found != 0


cdef inline void fade(real* restrict x, const real* restrict g, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        x[j] = faded(x[j], g[j])


cdef inline real mean_square(const real* restrict g, Py_ssize_t n) noexcept nogil:
    cdef real share, rest = 0
    cdef Py_ssize_t j, whole = n & ~<Py_ssize_t>15
    if whole == 0:
        for j in range(n):
            rest = rest + g[j] * g[j]
        return rest / <real>max(n, 1)
    share = 1 / <real>n                     # computed early, so that the division overlaps the sums
    for j in range(whole, n):
        rest = rest + g[j] * g[j]
    return (sum_of_squares(g, whole) + rest) * share


cdef inline real sum_of_squares(const real* restrict g, Py_ssize_t n) noexcept nogil:
    # n must be a positive multiple of 16. The 16 partial sums are added up in a fixed order. So the bits are the same
    # whether a compiler holds the partial sums in one, two or four registers.
    # The loop has at least one iteration, or the compiler would keep `lane` in memory.
    cdef real lane[16]
    cdef Py_ssize_t i = 0, j
    for j in range(16):
        lane[j] = 0
    while True:
        for j in range(16):
            lane[j] = lane[j] + g[i + j] * g[i + j]
        i += 16
        if i == n:
            break
    for j in range(8):
        lane[j] = lane[j] + lane[j + 8]
    for j in range(4):
        lane[j] = lane[j] + lane[j + 4]
    return (lane[0] + lane[2]) + (lane[1] + lane[3])
