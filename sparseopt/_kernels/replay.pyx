# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Replay of missed steps: bring a row from step s to the last step, `now`, in one update.

A row at step s has missed the steps t = s + 1 ... now. Its gradient was 0 in all of these steps.
A `History` keeps three kinds of numbers for every s:

1. Products of matrices (`product_of`). Decay and momentum are linear, so step t multiplies by a small matrix M(t):
   1 x 1 for decay, 2 x 2 for the weight and its momentum, 3 x 3 for Adamax.
2. Powers β^(now - s) for the decay of averages, from tables (`power`).
3. Adam's sum over the missed steps, as a polynomial (`polynomial_of`). The formulas follow below.
4. `append_step` takes one more step into account: `append_product` and `append_term` update the numbers of every s.
5. `numbers_of` writes the numbers of one s. The row functions named *_missed in rules/ apply these numbers to a row.
6. `make_ready` stores the numbers of all recent s, which saves time if an update of many rows follows.
7. `plan_of` chooses the degree of the polynomials from the betas and the accuracy of the dtype.

Products. The steps are divided into blocks. M(now) ... M(s + 1) is the product of two stored matrices.
One leads from s to the end of its block, one from there to `now`. A new step changes all matrices of the last block,
and one matrix of each earlier block. Neither logarithms nor divisions are used, so the factors may be 0 or negative.

Adam's sum. Let m and v be the averages of an element at step s. Let y = √v and j = t - s.
All missed steps together subtract m R(y) from the weight:

    R(y) = Σ_j a_j / (y / c_j + ε),     a_j = r_t α_t β1^j D(t),     c_j = β2^(-j/2) √(1 - β2^t).

r_t is the learning rate.  α_t corrects the bias of m: 1 / (1 - β1^t) for Adam. D(t) is the product of the weight decay
factors of the steps after t. Under amsgrad c_j = √(1 - β2^t), because the largest v does not decay.

A direct sum needs a division per step and element. A polynomial of low degree costs much less.
Choose one of the c_j as the centre c, and let e = ε c. Let τ = (e - y) / (e + y).
As y goes from 0 to ∞, τ goes from 1 to -1. In τ every term is a series of Chebyshev polynomials T_p, so that exactly

    R(y) = 1 / (y + e) · Σ_p C_p T_p(τ),     C_p = n_p Σ_j w_j θ_j^p,     n_0 = 1, else n_p = 2,
    w_j = a_j c_j / g_j,     θ_j = (1 - g_j) / (1 + g_j),     g_j = √(c_j / c).

Without the terms above degree d, the error of R(y) (y + e) is at most Σ_j 2 w_j |θ_j|^(d+1) / (1 - |θ_j|) for every y.
`plan_of` finds the centre with the least d. The bias corrections depend on s, so each range of s (band) has its own
centre and degree.

C_p is a sum over steps, so a new step adds one term to the C_p of every s. The terms decrease like (β1 / √β2)^j.
After `window` steps they are negligible. The polynomial of s then stays as it is: its coefficients of τ^0 ... τ^d are
stored in `records`.
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
    STRIP = 64              # values of s that append_term processes together, so that its scratch arrays stay small

# For each dtype: the largest relative error of R, and of the terms outside the window.
_ACCURACY = {np.dtype(np.float32): (5e-8, 1e-12), np.dtype(np.float64): (2e-10, 1e-16)}
_MAX_WINDOW = 1 << 16
_MAX_TABLE = 1 << 23          # times 256 this is more than the largest step count


class Plan(NamedTuple):
    """Window, centres and degrees of the polynomials. They depend on betas and accuracy alone."""

    b1: float
    b2: float
    amsgrad: bool
    growth: float           # growth of log c per step, without the bias correction
    window: int
    bands: tuple            # (first s, lag of the centre, degree) of each range of s


@functools.lru_cache(maxsize=64)
def plan_of(b1, b2, amsgrad, dtype):
    """The Plan for a pair of betas. Raises ValueError if no degree up to MAX_DEGREE is accurate enough."""
    with np.errstate(all="ignore"):             # an overflow leads to the ValueError
        return _make_plan(b1, b2, amsgrad, dtype)


def plan_of_one_step(b1, b2, amsgrad):
    """The Plan for rows that have missed one step or none: a sum of one term, exact for any betas."""
    return Plan(b1, b2, amsgrad, _growth(b2, amsgrad) if b2 else 0.0, 1, ((1, 1, 0),))


def _growth(b2, amsgrad):
    # Under amsgrad the denominator does not decrease with v.
    return 0.0 if amsgrad else -0.5 * float(np.log(b2)) if b2 else np.inf


def _make_plan(b1, b2, amsgrad, dtype):
    tolerance, cutoff = _ACCURACY[np.dtype(dtype)]
    growth = _growth(b2, amsgrad)
    q = b1 * np.exp(growth) if b1 else 0.0          # a_j c_j decreases like q^j
    if not q < 1:
        raise ValueError(f"betas are {b1} and {b2}; {'β1' if amsgrad else 'β1 / √β2'} must be below 1")
    if q == 0:
        return Plan(b1, b2, amsgrad, 0.0, 1, ((1, 1, 0),))
    window = int(np.ceil(np.log(cutoff * (1 - q)) / np.log(q)))
    if window >= _MAX_WINDOW:
        raise ValueError(f"betas are {b1} and {b2}; the sum over missed steps would need {window} terms; "
                         f"at most {_MAX_WINDOW} are supported")
    lags = np.arange(1.0, window + 1, max(1, window // 1024))
    candidates = np.unique(np.geomspace(1, window, 24).astype(int))
    bands, first = [], 1
    while True:
        converged = _one_minus_power(b2, first) == 1 or first > 2**30
        degree, centre = min((max(_least_degree(s, centre, b1, b2, growth, lags, tolerance)
                                  for s in ((first,) if converged else (first, 2 * first - 1))), centre)
                             for centre in candidates)
        if degree > MAX_DEGREE:
            raise ValueError(f"betas are {b1} and {b2}; missed steps would need a polynomial of a degree above "
                             f"{MAX_DEGREE}; β1 must be farther below β2")
        if not bands or bands[len(bands) - 1][1:] != (centre, degree):
            bands.append((first, int(centre), degree))
        if converged:
            return Plan(b1, b2, amsgrad, float(growth), window, tuple(bands))
        first *= 2


def _one_minus_power(beta, t):
    """1 - β^t without cancellation."""
    return -np.expm1(t * np.log(beta)) if beta else np.ones_like(t, dtype=np.float64)


def _least_degree(s, centre, b1, b2, growth, lags, tolerance):
    """The least degree that keeps the relative error of R within the tolerance.

    The tolerance holds for every y and every number of missed steps. The learning rate is taken as constant.
    """
    a = b1**lags / _one_minus_power(b1, s + lags)
    c, c_centre = (np.exp(growth * j) * np.sqrt(_one_minus_power(b2, s + j)) for j in (lags, float(centre)))
    g = np.sqrt(c / c_centre)
    theta = np.abs((1 - g) / (1 + g))
    smallest = np.minimum(np.cumsum(a * c), np.cumsum(a) * c_centre)      # lower bound of R(y) (y + e)
    error = 2 * a * c / g / (1 - np.minimum(theta, 1 - 1e-12))
    for degree in range(MAX_DEGREE + 1):
        error = error * theta                                           # error bound of each term of the sum
        if (np.cumsum(error) / smallest).max() < tolerance:
            return degree
    return MAX_DEGREE + 1


cdef int numbers_of(const Past* past, int64_t s, double* out) noexcept nogil:
    """Write the product, the powers and the polynomial for a row at step s. Returns how many numbers were written."""
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
    """Store the result of numbers_of for every s in the window, in the dtype of the table."""
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
    """The address to prefetch before numbers_of: the largest array that it reads."""
    cdef const Resolvent* r = &past.resolvent
    if r.window:
        return (r.records + record_offset(r, s) * (4 if r.single else 8)
                if r.first_record <= s <= past.now - r.window else NULL)
    return past.products.within + (s - past.start) * past.products.size * past.products.size


cdef double power(const Powers* p, int64_t j) noexcept nogil:
    """β^j."""
    return p.high[j // 256] * p.low[j % 256] if j // 256 < p.n_high else 0


cdef int product_of(const Products* p, int64_t s, double* out) noexcept nogil:
    """Write the product of the matrices of the steps after s. Returns how many numbers were written.

    Here s is counted from the start of the history.
    """
    cdef int cells = p.size * p.size
    cdef Py_ssize_t block = s // p.block
    if cells == 0:
        return 0
    memcpy(out, p.within + s * cells, cells * sizeof(double))
    if block < p.n_blocks:
        multiply(p.size, p.later + block * cells, out)
    return cells


cdef inline void multiply(int size, const double* m, double* x) noexcept nogil:
    """Replace the matrix x by m x."""
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
    """Write e, the degree d and the coefficients of τ^0 ... τ^d. Returns how many numbers were written."""
    cdef const Resolvent* r = &past.resolvent
    cdef double decays[4]
    cdef int i, degree
    if s < r.first_record and s == 0:                   # rows at step 0 have m = 0, so the polynomial may be 0
        out[0] = 1
        out[1] = 0
        out[2] = 0
        return 3
    degree = r.degree[band_of(r, s)]
    out[1] = degree
    if s > past.now - r.window:
        out[0] = power_coefficients(r, s, degree, out + 2)
        return degree + 3
    read_record(r, s, degree, out)
    if product_of(&past.products, s + r.window - past.start, decays):   # the record contains the earlier decay factors
        for i in range(degree + 1):
            out[2 + i] *= decays[0]
    return degree + 3


cdef void read_record(const Resolvent* r, int64_t s, int degree, double* out) noexcept nogil:
    """Write e to out[0] and the coefficients to out[2] and after. The caller writes out[1]."""
    cdef int64_t at = record_offset(r, s)
    cdef const float* single = <const float*>r.records + at
    cdef const double* wide = <const double*>r.records + at
    cdef int i
    out[0] = single[0] if r.single else wide[0]
    for i in range(degree + 1):
        out[2 + i] = single[1 + i] if r.single else wide[1 + i]


cdef inline int64_t record_offset(const Resolvent* r, int64_t s) noexcept nogil:
    """The place of the record of s in `records`, counted in numbers."""
    cdef int band = band_of(r, s)
    return r.offset[band] + (s - max(r.first[band], r.first_record)) * (r.degree[band] + 2)


cdef inline int band_of(const Resolvent* r, int64_t s) noexcept nogil:
    cdef int band = r.n_bands - 1
    while r.first[band] > s:
        band -= 1
    return band


cdef double power_coefficients(const Resolvent* r, int64_t s, int degree, double* out) noexcept nogil:
    """Convert Chebyshev coefficients into the coefficients of τ^0 ... τ^degree. Returns e."""
    cdef Py_ssize_t plane_size = 2 * r.window + 1, i = s - r.base
    cdef int p, q
    cdef double c
    for q in range(degree + 1):
        out[q] = 0
    for p in range(degree + 1):
        c = r.C[p * plane_size + i] * (1 if p else 0.5)         # C has the factor n_p = 2 for p = 0, too
        for q in range(p + 1):
            out[q] += c * r.chebyshev[p * (MAX_DEGREE + 1) + q]
    return max(r.eps * r.sqrt_centre[i] * r.sqrt_centre[i], r.tiny)


cdef void append_product(Products* p, int64_t now, const double* m) noexcept nogil:
    """Multiply all products by the matrix m of a new step. `now`: the step before it, counted from the start."""
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
    """Add the term of step t to the coefficients of every s in the window.

    rate: r_t α_t.  keep: the weight decay factor of step t, which multiplies earlier terms.  fresh: 1 - β2^t.
    """
    cdef Py_ssize_t plane_size = 2 * r.window + 1, i, n, at, lag, strip
    cdef int64_t s, lo = max(t - r.window, r.first_record)
    cdef int p, degree
    # √c_j contains the fourth root of 1 - β2^t.
    cdef double correction = sqrt(sqrt(fresh)), factor = 2 * rate * correction, sqrt_cj
    cdef double w[STRIP]
    cdef double theta[STRIP]
    cdef double* plane
    if lo < t:
        degree = r.max_degree[band_of(r, lo)]
        for strip in range((t - lo + STRIP - 1) // STRIP):
            s = lo + strip * STRIP
            n = min(STRIP, t - s)
            at = s - r.base
            lag = r.window - t + s                  # index into the tables, which go from lag `window` down to 1
            for i in range(n):
                sqrt_cj = r.sqrt_c[lag + i] * correction
                theta[i] = (r.sqrt_centre[at + i] - sqrt_cj) / (r.sqrt_centre[at + i] + sqrt_cj)
                w[i] = factor * r.b1_sqrt_c[lag + i] * r.sqrt_centre[at + i]    # 2 w_j = 2 a_j √(c_j c)
            for p in range(degree + 1):
                plane = r.C + p * plane_size + at
                for i in range(n):
                    plane[i] = keep * plane[i] + w[i]
                    w[i] = w[i] * theta[i]
    if t - r.window >= r.first_record:
        write_record(r, t - r.window)
    start_row(r, t, fresh)


cdef void start_row(Resolvent* r, int64_t s, double fresh) noexcept nogil:
    """Set the coefficients of s to 0: rows at step s have missed no step yet.  fresh: 1 - β2^s."""
    cdef Py_ssize_t plane_size = 2 * r.window + 1, p
    cdef int band = band_of(r, max(s, 1))
    if s - r.base == plane_size:
        for p in range(r.n_coefficients):
            memmove(r.C + p * plane_size, r.C + p * plane_size + plane_size - r.window, r.window * sizeof(double))
        memmove(r.sqrt_centre, r.sqrt_centre + plane_size - r.window, r.window * sizeof(double))
        r.base = s - r.window
    for p in range(r.n_coefficients):
        r.C[p * plane_size + s - r.base] = 0
    # √c at the lag h of the centre.  1 - β2^(s+h) = 1 - β2^h + β2^h (1 - β2^s).
    r.sqrt_centre[s - r.base] = r.centre_sqrt_c[band] * sqrt(sqrt(
        r.centre_correction[band] + (1 - r.centre_correction[band]) * fresh))


cdef void write_record(Resolvent* r, int64_t s) noexcept nogil:
    """Append e and the coefficients of s to `records`."""
    cdef double numbers[MAX_DEGREE + 2]
    cdef int band = band_of(r, s), i, degree = r.degree[band]
    cdef int64_t at
    if r.offset[band] < 0:
        r.offset[band] = r.n_numbers
    at = record_offset(r, s)
    numbers[0] = power_coefficients(r, s, degree, numbers + 1)
    for i in range(degree + 2):
        if r.single:
            (<float*>r.records)[at + i] = <float>numbers[i]
        else:
            (<double*>r.records)[at + i] = numbers[i]
    r.n_numbers = at + degree + 2


cdef class History:
    """The steps of one table since the step `start`, at which all its rows are up to date.

    size: the matrices are size x size; 0 for none.
    powers: the numbers β whose powers are needed, two at most.
    plan, eps, dtype: the polynomials' Plan, Adam's ε and the dtype of the table.
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
        PyMem_RawFree(self.past.resolvent.sqrt_c)
        PyMem_RawFree(self.past.resolvent.b1_sqrt_c)
        PyMem_RawFree(self.past.resolvent.C)
        PyMem_RawFree(self.past.resolvent.sqrt_centre)
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
        """The size of all arrays that grow with the number of steps, in bytes."""
        cdef Past* past = &self.past
        return ((past.now - past.start) * past.products.size ** 2 * 8
                + past.resolvent.n_numbers * (4 if past.resolvent.single else 8))

    def reserve(self):
        """Allocate memory for one more step, so that `append_step` cannot fail."""
        cdef Past* past = &self.past
        cdef Products* p = &past.products
        cdef Resolvent* r = &past.resolvent
        cdef Py_ssize_t cells = p.size * p.size
        if cells:
            p.within = <double*>reallocated(p.within, &p.within_capacity, past.now - past.start + 2, cells * 8)
            p.later = <double*>reallocated(p.later, &p.later_capacity, p.n_blocks + 1, cells * 8)
        if r.window:
            r.records = <char*>reallocated(r.records, &r.record_capacity, r.n_numbers + MAX_DEGREE + 2,
                                           4 if r.single else 8)

    def append(self, matrix=(), double rate=0, double factor=0, double fresh=1):
        """Append one step.

        matrix: M(t), row by row.  rate: the learning rate r_t.  factor: α_t.  fresh: 1 - β2^t.
        """
        cdef Term term = term_of(self, matrix, rate, factor, fresh)
        append_step(&self.past, &term)

    def arrays(self):
        """Copies of all arrays, for a checkpoint."""
        cdef Past* past = &self.past
        cdef Resolvent* r = &past.resolvent
        cdef Py_ssize_t cells = past.products.size * past.products.size
        cdef Py_ssize_t plane_size = 2 * r.window + 1 if r.window else 0
        kept = {
            "counts": np.array([past.start, past.now, r.base], dtype=np.int64),
            "within": copy_of(past.products.within, (past.now - past.start + 1) * cells),
            "later": copy_of(past.products.later, past.products.n_blocks * cells),
            "open": copy_of(r.C, r.n_coefficients * plane_size),
            "centres": copy_of(r.sqrt_centre, plane_size),
            "records": np.empty(r.n_numbers, dtype=np.float32 if r.single else np.float64),
        }
        if r.n_numbers:
            memcpy(cnp.PyArray_DATA(kept["records"]), r.records, kept["records"].nbytes)
        return kept

    def restore(self, dict kept):
        """Take over the result of `arrays`. Raises ValueError if it does not fit this history's parameters."""
        cdef Past* past = &self.past
        cdef Resolvent* r = &past.resolvent
        cdef Py_ssize_t cells = past.products.size * past.products.size
        cdef Py_ssize_t plane_size = 2 * r.window + 1 if r.window else 0
        mine = {name: (array.dtype, array.ndim) for name, array in self.arrays().items()}
        arrays = {name: np.ascontiguousarray(kept[name]) for name in mine}
        if set(kept) != set(mine) or {name: (a.dtype, a.ndim) for name, a in arrays.items()} != mine:
            raise ValueError(f"its arrays are {sorted(kept)}; they must be {sorted(mine)}, each with its own dtype and "
                             "number of dimensions")
        if arrays["counts"].size != 3:
            raise ValueError(f"its array 'counts' has {arrays['counts'].size} numbers; it must have 3")
        start, now, base = (int(x) for x in arrays["counts"])
        if not (0 <= start <= now < 2**31 - 1 and (not r.window or start <= base <= max(start, now - r.window)
                                                    <= now <= base + 2 * r.window)):
            raise ValueError(f"its array 'counts' is [{start}, {now}, {base}]; it must hold the first step, "
                             "the last step and the first step in the array 'open'")
        r.first_record = max(1, start)
        set_offsets(r, now)
        past.products.n_blocks = (now - start) // past.products.block if cells else 0
        sizes = {"within": (now - start + 1) * cells, "later": past.products.n_blocks * cells,
                 "open": r.n_coefficients * plane_size, "centres": plane_size, "records": r.n_numbers}
        for name, size in sizes.items():
            if arrays[name].size != size:
                raise ValueError(f"its array {name!r} has {arrays[name].size} numbers; it must have {size}")
        past.start, past.now, r.base, r.ready_at = start, now, base, -1
        self.reserve()
        for name, memory in (("within", <size_t>past.products.within), ("later", <size_t>past.products.later),
                             ("open", <size_t>r.C), ("centres", <size_t>r.sqrt_centre), ("records", <size_t>r.records)):
            if arrays[name].nbytes:
                memcpy(<void*><size_t>memory, cnp.PyArray_DATA(arrays[name]), arrays[name].nbytes)

    def numbers(self, int64_t s):
        """The numbers that a row function *_missed gets for a row at step s."""
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


cdef void* reallocated(void* memory, Py_ssize_t* capacity, Py_ssize_t needed, Py_ssize_t itemsize) except NULL:
    if memory != NULL and needed <= capacity[0]:
        return memory
    cdef Py_ssize_t size = max(needed, 64, capacity[0] + capacity[0] // 2)
    cdef void* larger = PyMem_RawRealloc(memory, size * itemsize)
    if larger == NULL:
        raise MemoryError
    capacity[0] = size
    return larger


cdef copy_of(const double* memory, Py_ssize_t n):
    array = np.empty(n)
    if n:
        memcpy(cnp.PyArray_DATA(array), memory, n * sizeof(double))
    return array


cdef void set_offsets(Resolvent* r, int64_t now) noexcept:
    """Set the offset of the first record of each band, and the length of all records, after `now` steps."""
    cdef int band
    cdef int64_t lo, hi
    r.n_numbers = 0
    for band in range(r.n_bands):
        lo = max(r.first[band], r.first_record)
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
    cdef double beta_256
    p.low[0] = 1
    for i in range(1, 256):
        p.low[i] = p.low[i - 1] * beta
    beta_256 = p.low[255] * beta
    p.n_high = 1
    if 0 < beta_256 < 1:                                # powers below 2^-100 count as 0: subnormal states would be slow
        p.n_high = int(min(np.ceil(-100 * np.log(2) / np.log(beta_256)), _MAX_TABLE))
    p.high = zeros(p.n_high)
    p.high[0] = 1
    for i in range(1, p.n_high):
        p.high[i] = p.high[i - 1] * beta_256


@functools.lru_cache(maxsize=1)
def _chebyshev_to_powers():
    """The coefficients of the Chebyshev polynomials: row p holds those of T_p, lowest power first."""
    matrix = np.zeros((MAX_DEGREE + 1, MAX_DEGREE + 1))
    for degree in range(MAX_DEGREE + 1):
        matrix[degree, :degree + 1] = chebyshev.cheb2poly(np.eye(degree + 1)[degree])
    return matrix


cdef set_resolvent(Resolvent* r, plan, double eps, dtype, int64_t start):
    cdef Py_ssize_t i
    r.window = plan.window
    r.eps = eps
    r.tiny = np.finfo(dtype).tiny
    r.single = dtype == np.float32
    r.n_bands = len(plan.bands)
    r.n_coefficients = max(degree for _, _, degree in plan.bands) + 1
    r.first_record = max(1, start)
    r.base = start
    for i, (first, centre, degree) in enumerate(plan.bands):
        r.first[i] = first
        r.degree[i] = degree
        r.max_degree[i] = max(d for _, _, d in plan.bands[i:])
        r.centre_sqrt_c[i] = np.exp(0.5 * plan.growth * centre)
        r.centre_correction[i] = _one_minus_power(plan.b2, centre)
        r.offset[i] = -1
    r.sqrt_c = zeros(r.window)
    r.b1_sqrt_c = zeros(r.window)
    r.C = zeros(r.n_coefficients * (2 * r.window + 1))
    r.sqrt_centre = zeros(2 * r.window + 1)
    lags = np.arange(r.window, 0, -1.0)
    sqrt_c = np.exp(0.5 * plan.growth * lags)
    b1_sqrt_c = plan.b1**lags * sqrt_c
    for i in range(r.window):
        r.sqrt_c[i] = sqrt_c[i]
        r.b1_sqrt_c[i] = b1_sqrt_c[i]
    cdef const double[:, ::1] to_powers = _chebyshev_to_powers()
    memcpy(r.chebyshev, &to_powers[0, 0], sizeof(r.chebyshev))
    r.stride = (1 + 2 + 2 + r.n_coefficients + 15) // 16 * 16
    r.ready = <char*>zeros(r.window * r.stride)
    r.ready_at = -1
    start_row(r, start, _one_minus_power(plan.b2, start))
