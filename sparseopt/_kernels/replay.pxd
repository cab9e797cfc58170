from libc.stdint cimport int64_t

cdef enum:
    MAX_DEGREE = 40
    MOST_NUMBERS = 9 + 2 + 2 + MAX_DEGREE + 1       # a 3 x 3 matrix, two powers, e and the degree, the coefficients

# See the head of replay.pyx for the formulas and letters.

# Powers of β: β^j = high[j // 256] * low[j % 256].
cdef struct Powers:
    double low[256]
    double* high
    Py_ssize_t n_high       # powers beyond the table count as 0

# M(now) ... M(s + 1), the product of the matrices of the steps after s, for every s since the start.
cdef struct Products:
    int size                # of a matrix: 1, 2 or 3; 0: no matrices
    Py_ssize_t block        # steps per block
    double* within          # for each s: the product to the end of its block, or to now in the last block
    double* later           # for each complete block: the product from its end to now
    Py_ssize_t n_blocks     # complete blocks
    Py_ssize_t within_capacity
    Py_ssize_t later_capacity

# Adam's sum R(y) over the missed steps, as a polynomial for every s. A sum of poles 1 / (y + x) is called a resolvent.
cdef struct Resolvent:
    Py_ssize_t window       # steps after which the terms of the sum are negligible; 0: there is no sum
    double eps
    double tiny             # smallest normal number of the table's dtype
    double* sqrt_c          # √c_j without the bias correction, for lags j = window ... 1
    double* b1_sqrt_c       # β1^j √c_j without the bias correction, for the same lags
    int n_bands
    int64_t first[64]       # band b begins at s = first[b]
    int degree[64]
    int max_degree[64]      # highest degree of this band and all later bands
    double centre_sqrt_c[64]    # √c of the centre, without the bias correction
    double centre_correction[64]    # 1 - β2^h, if h is the lag of the centre
    double chebyshev[(MAX_DEGREE + 1) * (MAX_DEGREE + 1)]   # row p: coefficients of T_p
    int n_coefficients
    double* C               # row p: C_p for s = base ... base + 2 window, with the factor 2 for p = 0, too
    double* sqrt_centre     # √c of the centre, for the same s
    int64_t base
    bint single             # records and ready are float, else double
    char* records           # for each s before the window: e and the coefficients of τ^0 ... τ^d
    int64_t first_record    # the s of the first record
    int64_t offset[64]      # of the first record of each band, counted in numbers
    int64_t n_numbers       # length of records, counted in numbers
    Py_ssize_t record_capacity
    char* ready             # results of numbers_of for each s in the window, latest first
    Py_ssize_t stride       # numbers from one s to the next in ready
    int64_t ready_at        # the step for which ready was computed

# All numbers of a History.
cdef struct Past:
    int64_t start
    int64_t now
    Products products
    int n_powers
    Powers powers[2]
    Resolvent resolvent

# The numbers of one step, for the rows that miss it.
cdef struct Term:
    double matrix[9]        # M(t), row by row
    double rate             # r_t
    double factor           # α_t
    double fresh            # 1 - β2^t


# The missed steps of one row. A row function *_missed gets this struct in place of a gradient.
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
