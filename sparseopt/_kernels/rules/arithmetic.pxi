# What the rules need beyond + - * /.  One name for float and double: `sqrt` of libc.math alone would turn a float
# rule into double arithmetic.  All of it is exactly rounded, so every instruction set gives the same bits.

from libc.float cimport DBL_MIN, FLT_MIN
from libc.math cimport INFINITY, copysign, copysignf, fabs, fabsf, log, pow, sqrt, sqrtf

cdef enum:
    STRIP = 64          # elements of a row that are taken together where a rule needs memory of its own
    SOON = 3072         # bytes ahead of a sum: what only adds up reads faster than a processor foresees by itself

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
    # size * sign(x) of a size that is not negative; of a NaN: NaN
    if real is float:
        return copysignf(size, x) if fabsf(x) > 0 else x
    else:
        return copysign(size, x) if fabs(x) > 0 else x


cdef inline real tiny(real x) noexcept nogil:
    return FLT_MIN if real is float else DBL_MIN        # the least normal number of x's type


# An average to which no gradient is added becomes 0 below the least normal number: arithmetic with subnormal numbers takes many
# times as long.  Where there is a gradient it stays exact, for a small average may have to be divided by.


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
    share = 1 / <real>n                     # divided early, off the chain of what waits for the sums
    for j in range(whole, n):
        rest = rest + g[j] * g[j]
    return (sum_of_squares(g, whole) + rest) * share


cdef inline real sum_of_squares(const real* restrict g, Py_ssize_t n) noexcept nogil:
    # Of 16 or 32 or ... elements.  Sixteen running sums, folded in a fixed order: a compiler may keep them in one, two or
    # four registers (as the loop has at least one turn: not in memory), and the bits stay the same.
    cdef real lane[16]
    cdef Py_ssize_t i = 0, j
    for j in range(16):
        lane[j] = 0
    while True:
        if SOON_ADDED and n > 32:                                      # a short row's length is known to the compiler, and costs nothing
            prefetch_read(<const char*>(g + i) + SOON)  # where the next rows' gradients stand, if it is read in place
            if real is double:
                prefetch_read(<const char*>(g + i) + SOON + 64)
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
