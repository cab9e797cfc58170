from libc.stdint cimport int64_t

cdef enum:
    MOST_DEGREE = 40
    MOST_NUMBERS = 9 + 2 + 2 + MOST_DEGREE + 1      # a matrix, two powers, e and the degree, the coefficients

# β^0, β^1, ... in two tables: β^j = high[j // 256] * low[j % 256].
cdef struct Powers:
    double low[256]
    double* high
    Py_ssize_t n_high       # beyond it β^j counts as 0

# M(now) ... M(s + 1), the product of the matrices of the steps after s, for every s from the start on.
cdef struct Products:
    int size                # of a matrix: 0 (there are none) to 3
    Py_ssize_t block
    double* within          # from s to the end of its block of steps, or to now in the last one
    double* later           # from the end of a block to now
    Py_ssize_t n_blocks     # that have ended
    Py_ssize_t room_within
    Py_ssize_t room_later

# The sum over Adam's missed steps, as a polynomial for every s: see replay.pyx.
cdef struct Resolvent:
    Py_ssize_t window       # steps after which a term counts no more; 0: there is no resolvent
    double eps
    double tiny             # least normal number of the table's dtype
    double* root            # √c(j) without the bias correction, for lags j = window ... 1
    double* fall            # what is left of a term after j steps, over that
    int n_bands
    int64_t first[64]       # band b holds for s from first[b] on
    int degree[64]
    int most[64]            # the highest degree of this band and all after it
    double centre_root[64]  # √c at the lag of the polynomials' centre, without the bias correction
    double centre_fresh[64] # 1 - β2^(that lag)
    double to_powers[(MOST_DEGREE + 1) * (MOST_DEGREE + 1)]     # of τ, from Chebyshev polynomials
    int planes
    double* C               # planes of coefficients, each for s = base ... base + 2 window
    double* K               # √centre of these
    int64_t base
    bint single             # records are float, else double
    char* records           # of every s that is out of the window: e, and coefficients of powers of τ
    int64_t recorded        # the first of them
    int64_t offset[64]      # in numbers, of the first record of a band
    int64_t n_numbers       # in records,
    Py_ssize_t room_records  # and that they have room for
    char* ready             # all numbers of every s in the window, in the table's dtype, from the latest back,
    Py_ssize_t stride       # so many numbers apart,
    int64_t ready_at        # as of this step

cdef struct Past:
    int64_t start
    int64_t now
    Products products
    int n_powers
    Powers powers[2]
    Resolvent resolvent

# What one step leaves to the rows that miss it.
cdef struct Term:
    double matrix[9]        # row by row
    double rate
    double factor           # the resolvent's α_t
    double fresh            # 1 - β2^t


# The missed steps of one row: what a row function that needs more than numbers gets in place of a gradient.
cdef struct Gap:
    const Past* past
    int64_t s


cdef int numbers_of(const Past* past, int64_t s, double* out) noexcept nogil
cdef int product_of(const Products* p, int64_t s, double* out) noexcept nogil
cdef double power(const Powers* p, int64_t j) noexcept nogil
cdef void make_ready(Past* past) noexcept nogil
cdef const void* place_of(const Past* past, int64_t s) noexcept nogil

cdef class History:
    cdef Past past

cdef Term term_of(History history, matrix, double rate, double factor, double fresh) except *
cdef void append_step(Past* past, const Term* term) noexcept nogil
