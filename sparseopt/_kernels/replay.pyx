# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Missed steps: everything about them that depends on s, the step a row was last brought up to, and on the last step alone.

A row at s has missed the steps t = s + 1 ... now, in which its gradient was 0.  With rates r_t and lags j = t - s, a `History`
has for every s, and brings forward by one step at a time, as the dense run does:

*Products* of the matrices by which each missed step maps what is linear in it: a number (decay), or 2 x 2 (the weight and its
momentum), or 3 x 3 (Adamax).  In two levels, from s to the end of its block of steps and from there to now, so that a step costs a block and a
number a block, and a query one product.  No logarithm and no division: factors may be 0 or negative.

*Powers* β^(now - s), from tables.

*The resolvent*: an element of Adam's family moves by m R(y), y = √v, in all missed steps together,

    R(y) = Σ_j a_j / (y / c_j + ε),     a_j = r_t β1^j α_t D(t, now),     c_j = β2^(-j/2) √(1 - β2^t),

α_t = 1 / (1 - β1^t) for Adam, D the decays after t.  With a centre c among the c_j, e = ε c and the Möbius variable
τ = (e - y) / (e + y), which runs over [-1, 1] as y runs over [0, ∞),

    R(y) = 1 / (y + e) · Σ_p C_p T_p(τ),     C_p = (2 - [p = 0]) Σ_j w_j θ_j^p,
    g_j = √(c_j / c),     θ_j = (1 - g_j) / (1 + g_j),     w_j = a_j c_j / g_j,

exactly, T_p being Chebyshev's polynomials: each term is a geometric series.  Cut at the degree p = d, R is off by at most
Σ_j 2 w_j |θ_j|^(d+1) / (1 - |θ_j|), whatever y: `plan_of` finds for every s the centre with the least d.  C is linear in the terms, so a
step adds one vector to every s within the window, after which terms count no more and C becomes a record that stays.
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawRealloc
from libc.math cimport sqrt
from libc.string cimport memcpy, memmove, memset

import functools
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

cnp.import_array()

cdef enum:
    STRIP = 64

# By dtype: what R may be off by, relative to itself; and what the terms past the window come to.
_ACCURACY = {np.dtype(np.float32): (5e-8, 1e-12), np.dtype(np.float64): (2e-10, 1e-16)}
_LONGEST_WINDOW = 1 << 16
_LONGEST_POWERS = 1 << 23          # times 256: more steps than are counted


class Plan(NamedTuple):
    """Window, centres and degrees of a resolvent: all that depends on betas and accuracy alone."""

    b1: float
    b2: float
    amsgrad: bool
    growth: float           # of log c a step, once the bias correction has gone
    window: int
    bands: tuple            # (first s, lag of the centre, degree); a band holds until the next one


@functools.lru_cache(maxsize=64)
def plan_of(b1, b2, amsgrad, dtype):
    """The Plan for a pair of betas.  Raises ValueError where there is none."""
    with np.errstate(all="ignore"):             # what overflows on the way is what leads to no plan
        return _planned(b1, b2, amsgrad, dtype)


def _planned(b1, b2, amsgrad, dtype):
    tolerance, cut = _ACCURACY[np.dtype(dtype)]
    # Under amsgrad the denominator does not fall with v.
    growth = 0.0 if amsgrad else -0.5 * np.log(b2) if b2 else np.inf
    q = b1 * np.exp(growth) if b1 else 0.0          # a_j c_j falls like q^j
    if not q < 1:
        raise ValueError(f"betas are {b1} and {b2}; {'β1' if amsgrad else 'β1 / √β2'} must be below 1")
    if q == 0:
        return Plan(b1, b2, amsgrad, 0.0, 1, ((1, 1, 0),))
    window = int(np.ceil(np.log(cut * (1 - q)) / np.log(q)))
    if window >= _LONGEST_WINDOW:
        raise ValueError(f"betas are {b1} and {b2}; the steps that count would be {window}, more than {_LONGEST_WINDOW}")
    lags = np.arange(1.0, window + 1, max(1, window // 1024))
    candidates = np.unique(np.geomspace(1, window, 24).astype(int))
    bands, first = [], 1
    while True:
        settled = _fresh(b2, first) == 1 or first > 2**30
        degree, centre = min((max(_degree(s, centre, b1, b2, growth, lags, tolerance)
                                  for s in ((first,) if settled else (first, 2 * first - 1))), centre)
                             for centre in candidates)
        if degree > MOST_DEGREE:
            raise ValueError(f"betas are {b1} and {b2}; a β1 so near to β2 or above makes steps without gradient grow "
                             "beyond what can be summed at once")
        if not bands or bands[len(bands) - 1][1:] != (centre, degree):
            bands.append((first, int(centre), degree))
        if settled:
            return Plan(b1, b2, amsgrad, float(growth), window, tuple(bands))
        first *= 2


def _fresh(beta, t):
    """1 - β^t without cancellation."""
    return -np.expm1(t * np.log(beta)) if beta else np.ones_like(t, dtype=np.float64)


def _degree(s, centre, b1, b2, growth, lags, tolerance):
    """The least degree that keeps R within the tolerance for any y and any number of missed steps at a constant rate."""
    a = b1**lags / _fresh(b1, s + lags)
    c, middle = (np.exp(growth * j) * np.sqrt(_fresh(b2, s + j)) for j in (lags, float(centre)))
    g = np.sqrt(c / middle)
    theta = np.abs((1 - g) / (1 + g))
    least = np.minimum(np.cumsum(a * c), np.cumsum(a) * middle)         # R(y) (y + e) is at least this
    rest = 2 * a * c / g / (1 - np.minimum(theta, 1 - 1e-12))
    for degree in range(MOST_DEGREE + 1):
        rest = rest * theta                                             # |C_p| for all p above the degree, term by term
        if (np.cumsum(rest) / least).max() < tolerance:
            return degree
    return MOST_DEGREE + 1


cdef int numbers_of(const Past* past, int64_t s, double* out) noexcept nogil:
    """What the missed steps of a row at s come to: the product, the powers, the polynomial; returns how many numbers."""
    cdef int i, n = product_of(&past.products, s - past.start, out)
    if past.resolvent.window and n == 0:
        out[0] = 1
        n = 1
    for i in range(past.n_powers):
        out[n] = power(&past.powers[i], past.now - s)
        n += 1
    if past.resolvent.window:
        n += polynomial_of(past, s, out + n)
    return n


cdef void make_ready(Past* past) noexcept nogil:
    """What the missed steps of every s in the window come to: worth it before many rows."""
    cdef double numbers[MOST_NUMBERS]
    cdef Resolvent* r = &past.resolvent
    cdef Py_ssize_t lag, i, n
    if r.ready_at == past.now:
        return
    for lag in range(1, min(r.window, past.now - past.start + 1)):
        n = numbers_of(past, past.now - lag, numbers)
        for i in range(n):
            if r.single:
                (<float*>r.ready)[lag * r.stride + i] = <float>numbers[i]
            else:
                (<double*>r.ready)[lag * r.stride + i] = numbers[i]
    r.ready_at = past.now


cdef const void* place_of(const Past* past, int64_t s) noexcept nogil:
    """Where in memory the most of this stands, to be prefetched."""
    cdef const Resolvent* r = &past.resolvent
    if r.window:
        return r.records + record_at(r, s) * (4 if r.single else 8) if r.recorded <= s <= past.now - r.window else NULL
    return past.products.within + (s - past.start) * past.products.size * past.products.size


cdef double power(const Powers* p, int64_t j) noexcept nogil:
    return p.high[j // 256] * p.low[j % 256] if j // 256 < p.n_high else 0


cdef int product_of(const Products* p, int64_t s, double* out) noexcept nogil:
    """The product of the steps after s, counted from the start; returns how many numbers it has."""
    cdef int cells = p.size * p.size
    cdef Py_ssize_t block = s // p.block
    if cells == 0:
        return 0
    memcpy(out, p.within + s * cells, cells * sizeof(double))
    if block < p.n_blocks:
        multiply(p.size, p.later + block * cells, out)
    return cells


cdef inline void multiply(int size, const double* m, double* x) noexcept nogil:
    """x <- m x"""
    cdef double a, b, c
    cdef int i
    if size == 1:
        x[0] *= m[0]
    elif size == 2:
        for i in range(2):
            a, b = x[i], x[2 + i]
            x[i] = m[0] * a + m[1] * b
            x[2 + i] = m[2] * a + m[3] * b
    elif size == 3:
        for i in range(3):
            a, b, c = x[i], x[3 + i], x[6 + i]
            x[i] = m[0] * a + m[1] * b + m[2] * c
            x[3 + i] = m[3] * a + m[4] * b + m[5] * c
            x[6 + i] = m[6] * a + m[7] * b + m[8] * c


cdef int polynomial_of(const Past* past, int64_t s, double* out) noexcept nogil:
    """e, the degree, and the coefficients of powers of τ, lowest first."""
    cdef const Resolvent* r = &past.resolvent
    cdef double decays[4]
    cdef int i, degree
    if s < r.recorded and s == 0:                   # before the first step m is 0
        out[0] = 1
        out[1] = 0
        out[2] = 0
        return 3
    degree = r.degree[band_of(r, s)]
    out[1] = degree
    if s > past.now - r.window:
        out[0] = coefficients(r, s, degree, out + 2)
        return degree + 3
    read_record(r, s, degree, out)
    if product_of(&past.products, s + r.window - past.start, decays):   # those up to there are in the record
        for i in range(degree + 1):
            out[2 + i] *= decays[0]
    return degree + 3


cdef void read_record(const Resolvent* r, int64_t s, int degree, double* out) noexcept nogil:
    cdef int64_t at = record_at(r, s)
    cdef const float* single = <const float*>r.records + at
    cdef const double* wide = <const double*>r.records + at
    cdef int i
    out[0] = single[0] if r.single else wide[0]
    for i in range(degree + 1):
        out[2 + i] = single[1 + i] if r.single else wide[1 + i]


cdef inline int64_t record_at(const Resolvent* r, int64_t s) noexcept nogil:
    cdef int band = band_of(r, s)
    return r.offset[band] + (s - max(r.first[band], r.recorded)) * (r.degree[band] + 2)


cdef inline int band_of(const Resolvent* r, int64_t s) noexcept nogil:
    cdef int band = r.n_bands - 1
    while r.first[band] > s:
        band -= 1
    return band


cdef double coefficients(const Resolvent* r, int64_t s, int degree, double* out) noexcept nogil:
    """Coefficients of powers of τ; returns e."""
    cdef Py_ssize_t room = 2 * r.window + 1, i = s - r.base
    cdef int p, q
    cdef double c
    for q in range(degree + 1):
        out[q] = 0
    for p in range(degree + 1):
        c = r.C[p * room + i] * (1 if p else 0.5)
        for q in range(p + 1):
            out[q] += c * r.to_powers[p * (MOST_DEGREE + 1) + q]
    return max(r.eps * r.K[i] * r.K[i], r.tiny)


cdef void append_product(Products* p, int64_t now, const double* m) noexcept nogil:
    """One step more; `now` is counted from the start, without it."""
    cdef int cells = p.size * p.size
    cdef int64_t s
    cdef Py_ssize_t block
    if cells == 0:
        return
    for s in range(p.n_blocks * p.block, now + 1):
        multiply(p.size, m, p.within + s * cells)
    for block in range(p.n_blocks):
        multiply(p.size, m, p.later + block * cells)
    identity(p.size, p.within + (now + 1) * cells)
    if (now + 1) % p.block == 0:
        identity(p.size, p.later + p.n_blocks * cells)
        p.n_blocks += 1


cdef inline void identity(int size, double* m) noexcept nogil:
    cdef int i
    memset(m, 0, size * size * sizeof(double))
    for i in range(size):
        m[i * (size + 1)] = 1


cdef void append_term(Resolvent* r, int64_t t, double rate, double keep, double fresh) noexcept nogil:
    """Step t: its term to every s in the window.  rate: r_t α_t; keep: of what came before; fresh: 1 - β2^t."""
    cdef Py_ssize_t room = 2 * r.window + 1, i, n, at, lag, strip
    cdef int64_t s, lo = max(t - r.window, r.recorded)
    cdef int p, degree
    cdef double bias = sqrt(sqrt(fresh)), u = 2 * rate * bias, x
    cdef double w[STRIP]
    cdef double theta[STRIP]
    cdef double* plane
    if lo < t:
        degree = r.most[band_of(r, lo)]
        for strip in range((t - lo + STRIP - 1) // STRIP):
            s = lo + strip * STRIP
            n = min(STRIP, t - s)
            at = s - r.base
            lag = r.window - t + s                  # of the tables, which go from lag `window` down to 1
            for i in range(n):
                x = r.root[lag + i] * bias
                theta[i] = (r.K[at + i] - x) / (r.K[at + i] + x)
                w[i] = u * r.fall[lag + i] * r.K[at + i]
            for p in range(degree + 1):
                plane = r.C + p * room + at
                for i in range(n):
                    plane[i] = keep * plane[i] + w[i]
                    w[i] = w[i] * theta[i]
    if t - r.window >= r.recorded:
        write_record(r, t - r.window)
    open_row(r, t, fresh)


cdef void open_row(Resolvent* r, int64_t s, double fresh) noexcept nogil:
    """Begin the sums of rows at s, which have missed nothing yet.  fresh: 1 - β2^s."""
    cdef Py_ssize_t room = 2 * r.window + 1, p
    cdef int band = band_of(r, max(s, 1))
    if s - r.base == room:
        for p in range(r.planes):
            memmove(r.C + p * room, r.C + p * room + room - r.window, r.window * sizeof(double))
        memmove(r.K, r.K + room - r.window, r.window * sizeof(double))
        r.base = s - r.window
    for p in range(r.planes):
        r.C[p * room + s - r.base] = 0
    # √c at the lag h of the centre: 1 - β2^(s+h) is what is fresh after h more steps
    r.K[s - r.base] = r.centre_root[band] * sqrt(sqrt(r.centre_fresh[band] + (1 - r.centre_fresh[band]) * fresh))


cdef void write_record(Resolvent* r, int64_t s) noexcept nogil:
    cdef double numbers[MOST_DEGREE + 2]
    cdef int band = band_of(r, s), i, degree = r.degree[band]
    cdef int64_t at
    if r.offset[band] < 0:
        r.offset[band] = r.n_numbers
    at = record_at(r, s)
    numbers[0] = coefficients(r, s, degree, numbers + 1)
    for i in range(degree + 2):
        if r.single:
            (<float*>r.records)[at + i] = <float>numbers[i]
        else:
            (<double*>r.records)[at + i] = numbers[i]
    r.n_numbers = at + degree + 2


cdef class History:
    """The missed steps of one table, from the step `start` on, at which all its rows stand.

    `size` is that of the products' matrices, `powers` the numbers whose powers count, `plan` and `eps` are the resolvent's.
    """

    def __init__(self, int64_t start, int size=0, powers=(), plan=None, double eps=0, dtype=np.float64):
        cdef Past* past = &self.past
        past.start = past.now = start
        past.products.size = size
        past.products.block = 1024 if size == 1 else 256
        past.n_powers = len(powers)
        for i, beta in enumerate(powers):
            set_powers(&past.powers[i], beta)
        if plan is not None:
            set_resolvent(&past.resolvent, plan, eps, np.dtype(dtype), start)
        self.reserve()
        if size:
            identity(size, past.products.within)

    def __dealloc__(self):
        PyMem_RawFree(self.past.products.within)
        PyMem_RawFree(self.past.products.later)
        PyMem_RawFree(self.past.powers[0].high)
        PyMem_RawFree(self.past.powers[1].high)
        PyMem_RawFree(self.past.resolvent.root)
        PyMem_RawFree(self.past.resolvent.fall)
        PyMem_RawFree(self.past.resolvent.C)
        PyMem_RawFree(self.past.resolvent.K)
        PyMem_RawFree(self.past.resolvent.records)
        PyMem_RawFree(self.past.resolvent.ready)

    @property
    def start(self):
        return self.past.start

    @property
    def now(self):
        return self.past.now

    @property
    def nbytes(self):
        """Bytes that grow with the steps."""
        cdef Past* past = &self.past
        return ((past.now - past.start) * past.products.size ** 2 * 8
                + past.resolvent.n_numbers * (4 if past.resolvent.single else 8))

    def reserve(self):
        """Room for one step more, so that `append` cannot fail."""
        cdef Past* past = &self.past
        cdef Products* p = &past.products
        cdef Resolvent* r = &past.resolvent
        cdef Py_ssize_t cells = p.size * p.size
        if cells:
            p.within = <double*>grown(p.within, &p.room_within, past.now - past.start + 2, cells * 8)
            p.later = <double*>grown(p.later, &p.room_later, p.n_blocks + 1, cells * 8)
        if r.window:
            r.records = <char*>grown(r.records, &r.room_records, r.n_numbers + MOST_DEGREE + 2, 4 if r.single else 8)

    def append(self, matrix=(), double rate=0, double factor=0, double fresh=1):
        """One step more: its matrix (row by row), its rate, and for the resolvent the factor α_t and 1 - β2^t."""
        cdef Term term = term_of(self, matrix, rate, factor, fresh)
        append_step(&self.past, &term)

    def arrays(self):
        """All of it, for a checkpoint: copies."""
        cdef Past* past = &self.past
        cdef Resolvent* r = &past.resolvent
        cdef Py_ssize_t cells = past.products.size * past.products.size, room = 2 * r.window + 1 if r.window else 0
        kept = {
            "counts": np.array([past.start, past.now, r.base], dtype=np.int64),
            "within": doubles(past.products.within, (past.now - past.start + 1) * cells),
            "later": doubles(past.products.later, past.products.n_blocks * cells),
            "open": doubles(r.C, r.planes * room),
            "centres": doubles(r.K, room),
            "records": np.empty(r.n_numbers, dtype=np.float32 if r.single else np.float64),
        }
        if r.n_numbers:
            memcpy(cnp.PyArray_DATA(kept["records"]), r.records, kept["records"].nbytes)
        return kept

    def restore(self, dict kept):
        """Take over what `arrays` of a history of the same kind returned.  Raises ValueError if it is none."""
        cdef Past* past = &self.past
        cdef Resolvent* r = &past.resolvent
        cdef Py_ssize_t cells = past.products.size * past.products.size, room = 2 * r.window + 1 if r.window else 0
        mine = {name: (array.dtype, array.ndim) for name, array in self.arrays().items()}
        arrays = {name: np.ascontiguousarray(kept[name]) for name in mine}
        if set(kept) != set(mine) or {name: (a.dtype, a.ndim) for name, a in arrays.items()} != mine:
            raise ValueError(f"its arrays are {sorted(kept)}; they must be {sorted(mine)}, of the same types")
        if arrays["counts"].size != 3:
            raise ValueError("its counts do not fit")
        start, now, base = (int(x) for x in arrays["counts"])
        if not (0 <= start <= now < 2**31 - 1 and (not r.window or start <= base <= max(start, now - r.window)
                                                    <= now <= base + 2 * r.window)):
            raise ValueError(f"its counts {start}, {now} and {base} do not fit")
        r.recorded = max(1, start)
        set_offsets(r, now)
        past.products.n_blocks = (now - start) // past.products.block if cells else 0
        sizes = {"within": (now - start + 1) * cells, "later": past.products.n_blocks * cells,
                 "open": r.planes * room, "centres": room, "records": r.n_numbers}
        wrong = [name for name, size in sizes.items() if arrays[name].size != size]
        if wrong:
            raise ValueError(f"its arrays {wrong} do not fit")
        past.start, past.now, r.base, r.ready_at = start, now, base, -1
        self.reserve()
        for name, memory in (("within", <size_t>past.products.within), ("later", <size_t>past.products.later),
                             ("open", <size_t>r.C), ("centres", <size_t>r.K), ("records", <size_t>r.records)):
            if arrays[name].nbytes:
                memcpy(<void*><size_t>memory, cnp.PyArray_DATA(arrays[name]), arrays[name].nbytes)

    def numbers(self, int64_t s):
        """What the missed steps of a row at s come to, as the row functions take it."""
        cdef double out[MOST_NUMBERS]
        return np.array([out[i] for i in range(numbers_of(&self.past, s, out))])


cdef Term term_of(History history, matrix, double rate, double factor, double fresh) except *:
    cdef Term term
    cdef int i, cells = history.past.products.size * history.past.products.size
    term.matrix[0] = 1
    for i in range(cells):
        term.matrix[i] = matrix[i]
    term.rate, term.factor, term.fresh = rate, factor, fresh
    return term


cdef void append_step(Past* past, const Term* term) noexcept nogil:
    append_product(&past.products, past.now - past.start, term.matrix)
    past.now += 1
    if past.resolvent.window:
        append_term(&past.resolvent, past.now, term.rate * term.factor, term.matrix[0], term.fresh)


cdef void* grown(void* memory, Py_ssize_t* room, Py_ssize_t needed, Py_ssize_t itemsize) except NULL:
    if memory != NULL and needed <= room[0]:
        return memory
    cdef Py_ssize_t size = max(needed, 64, room[0] + room[0] // 2)
    cdef void* larger = PyMem_RawRealloc(memory, size * itemsize)
    if larger == NULL:
        raise MemoryError
    room[0] = size
    return larger


cdef doubles(const double* memory, Py_ssize_t n):
    array = np.empty(n)
    if n:
        memcpy(cnp.PyArray_DATA(array), memory, n * sizeof(double))
    return array


cdef void set_offsets(Resolvent* r, int64_t now) noexcept:
    """Where the records of each band begin, once `now` steps are taken, and how many numbers there are in all."""
    cdef int band
    cdef int64_t lo, hi
    r.n_numbers = 0
    for band in range(r.n_bands):
        lo = max(r.first[band], r.recorded)
        hi = min(now - r.window + 1, r.first[band + 1] if band + 1 < r.n_bands else now)
        r.offset[band] = r.n_numbers if lo < hi else -1
        if lo < hi:
            r.n_numbers += (hi - lo) * (r.degree[band] + 2)


cdef double* zeros(Py_ssize_t n) except NULL:
    cdef double* memory = <double*>PyMem_RawCalloc(n, sizeof(double))
    if memory == NULL:
        raise MemoryError
    return memory


cdef set_powers(Powers* p, double beta):
    cdef Py_ssize_t i
    cdef double leap
    p.low[0] = 1
    for i in range(1, 256):
        p.low[i] = p.low[i - 1] * beta
    leap = p.low[255] * beta
    p.n_high = 1
    if 0 < leap < 1:                                # below 2^-100 a state is nothing, and would slow as a denormal
        p.n_high = int(min(np.ceil(-100 * np.log(2) / np.log(leap)), _LONGEST_POWERS))
    p.high = zeros(p.n_high)
    p.high[0] = 1
    for i in range(1, p.n_high):
        p.high[i] = p.high[i - 1] * leap


@functools.lru_cache(maxsize=1)
def _to_powers():
    """Coefficients of powers, lowest first, of the Chebyshev polynomial of each degree."""
    matrix = np.zeros((MOST_DEGREE + 1, MOST_DEGREE + 1))
    for degree in range(MOST_DEGREE + 1):
        matrix[degree, :degree + 1] = chebyshev.cheb2poly(np.eye(degree + 1)[degree])
    return matrix


cdef set_resolvent(Resolvent* r, plan, double eps, dtype, int64_t start):
    cdef Py_ssize_t i
    cdef double quarter, beta
    r.window = plan.window
    r.eps = eps
    r.tiny = np.finfo(dtype).tiny
    r.single = dtype == np.float32
    r.n_bands = len(plan.bands)
    r.planes = max(degree for _, _, degree in plan.bands) + 1
    r.recorded = max(1, start)
    r.base = start
    for i, (first, centre, degree) in enumerate(plan.bands):
        r.first[i] = first
        r.degree[i] = degree
        r.most[i] = max(d for _, _, d in plan.bands[i:])
        r.centre_root[i] = np.exp(0.5 * plan.growth * centre)
        r.centre_fresh[i] = _fresh(plan.b2, centre)
        r.offset[i] = -1
    r.root = zeros(r.window)
    r.fall = zeros(r.window)
    r.C = zeros(r.planes * (2 * r.window + 1))
    r.K = zeros(2 * r.window + 1)
    lags = np.arange(r.window, 0, -1.0)
    roots = np.exp(0.5 * plan.growth * lags)
    falls = plan.b1**lags * roots
    for i in range(r.window):
        r.root[i] = roots[i]
        r.fall[i] = falls[i]
    cdef const double[:, ::1] to_powers = _to_powers()
    memcpy(r.to_powers, &to_powers[0, 0], sizeof(r.to_powers))
    r.stride = (1 + 2 + 2 + r.planes + 15) // 16 * 16
    r.ready = <char*>zeros(r.window * r.stride)
    r.ready_at = -1
    open_row(r, start, _fresh(plan.b2, start))
