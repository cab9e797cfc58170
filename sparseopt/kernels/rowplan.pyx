# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""From the rows that a gradient names to the rows that an update visits.

An update visits every touched row once, in rising order.  Row numbers that already rise are used as they stand.
Others are sorted by a stable radix sort of (row, position) pairs; the values stay where they are, and a row's repeats are
summed in the order in which they stand.
"""

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

import numpy as np

cnp.import_array()


cdef class RowPlan:
    """The touched rows of one gradient, and for each of them the entries that it is the sum of."""

    @property
    def rows(self):
        """The touched rows' numbers, rising."""
        return np.arange(self.n) if self.arrays["rows"] is None else self.arrays["rows"]

    @property
    def order(self):
        """The entries in the order of their rows; None if they stand in it."""
        return self.arrays["order"]

    def without(self, left_out):
        """The same plan less the touched rows marked in a boolean array."""
        kept = ~left_out
        if self.source.starts == NULL:
            starts = np.arange(self.n, dtype=np.int64)
            stops = starts + 1
        else:
            starts, stops = self.arrays["starts"], self.arrays["stops"]
        cdef RowPlan plan = RowPlan.__new__(RowPlan)
        plan.source = self.source
        plan.longest = self.longest
        plan.arrays = dict(self.arrays)
        set_rows(plan, np.ascontiguousarray(self.rows[kept]), starts[kept], stops[kept], self.arrays["order"])
        return plan


cdef set_rows(RowPlan plan, rows, starts, stops, order):
    plan.arrays.update(rows=rows, starts=starts, stops=stops, order=order)
    plan.source.rows = address(rows)
    plan.source.rows_wide = rows is not None and is_wide(rows)
    plan.source.starts = <const int64_t*>address(starts)
    plan.source.stops = <const int64_t*>address(stops)
    plan.source.order = <const int64_t*>address(order)
    if rows is not None:
        plan.n = len(rows)


cdef inline const void* address(array) except? NULL:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline bint is_wide(array) except -1:
    return cnp.PyArray_ITEMSIZE(<cnp.ndarray>array) == 8


def plan(str what, Py_ssize_t n_rows, Py_ssize_t dim, rows, values, indptr=None, columns=None, sources=None,
         weights=None):
    """Check the row, column and source numbers of a gradient and plan the visit of its rows.

    `rows` (int32 or int64) names the row of every entry; without it `indptr` gives each table row its range of entries;
    without both, entry i belongs to row i.  `values`, `columns`, `sources` and `weights` are as in rowplan.pxd.
    Raises IndexError naming the gradient (`what`), the first offending number and its position.
    """
    cdef RowPlan self = RowPlan.__new__(RowPlan)
    cdef cnp.ndarray v = values
    cdef Source* s = &self.source
    self.arrays = {"values": values, "columns": columns, "sources": sources, "weights": weights}
    s.values = cnp.PyArray_DATA(v)
    s.value_rows = v.shape[0]
    s.value_columns = v.shape[1] if v.ndim == 2 else 1
    s.stride = v.strides[0] // v.itemsize if v.ndim == 2 else 1
    s.columns = address(columns)
    s.sources = address(sources)
    s.weights = address(weights)
    s.n_weights = len(weights) if weights is not None else 0

    of_entries = [a for a in (rows, columns, sources, weights, values if sources is None else None) if a is not None]
    if any(a.ndim != 1 for a in of_entries if a is not values or columns is not None):
        raise ValueError(f"{what} is malformed: one of its index or data arrays has more than one dimension")
    n_entries = {len(a) for a in of_entries}
    if len(n_entries) > 1:
        raise ValueError(f"{what} is malformed: its arrays give it {' and '.join(map(str, sorted(n_entries)))} entries")
    if columns is not None:
        s.index_wide = is_wide(columns)
        check(what, "column", columns, dim)
    if sources is not None:
        s.index_wide = is_wide(sources)
        check(what, "sample", sources, s.value_rows)

    self.longest = 1
    if indptr is not None:
        check_indptr(what, "row", indptr, len(sources) if columns is None else len(columns))
        set_touched(self, indptr)
    elif rows is None:
        self.n = n_rows
        set_rows(self, None, None, None, None)
    elif columns is None and sources is None and strictly_rising(rows, n_rows):
        set_rows(self, rows, None, None, None)
    else:
        check(what, "row", rows, n_rows)
        set_sorted(self, rows, n_rows)
    return self


cdef bint strictly_rising(cnp.ndarray rows, int64_t n_rows) except -1:
    cdef Py_ssize_t i, n = rows.shape[0]
    cdef const void* r = cnp.PyArray_DATA(rows)
    cdef const int32_t* narrow = <const int32_t*>r
    cdef const int64_t* wide = <const int64_t*>r
    cdef int falls = 0                  # counted, not returned at: so the loop vectorises
    if n == 0:
        return True
    if is_wide(rows):
        for i in range(1, n):
            falls |= wide[i] <= wide[i - 1]
        return not falls and wide[0] >= 0 and wide[n - 1] < n_rows
    for i in range(1, n):
        falls |= narrow[i] <= narrow[i - 1]
    return not falls and narrow[0] >= 0 and narrow[n - 1] < n_rows


cdef check(str what, str kind, cnp.ndarray numbers, int64_t bound):
    cdef Py_ssize_t i, n = numbers.shape[0]
    cdef const void* a = cnp.PyArray_DATA(numbers)
    cdef const int32_t* narrow = <const int32_t*>a
    cdef const int64_t* wide = <const int64_t*>a
    cdef int64_t x
    cdef int outside = 0
    if is_wide(numbers):
        for i in range(n):
            outside |= (wide[i] < 0) | (wide[i] >= bound)
    else:
        for i in range(n):
            outside |= (narrow[i] < 0) | (narrow[i] >= bound)
    if not outside:
        return
    for i in range(n):
        x = number(a, is_wide(numbers), i)
        if x < 0 or x >= bound:
            owner = "it" if kind == "sample" else "the table"
            raise IndexError(f"{what} has {kind} {x} at position {i}; {owner} has {bound} {kind}s")


cdef check_indptr(str what, str kind, cnp.ndarray indptr, int64_t n_entries):
    cdef Py_ssize_t i, n = indptr.shape[0] - 1
    cdef const void* p = cnp.PyArray_DATA(indptr)
    cdef bint wide = is_wide(indptr)
    if indptr.ndim != 1:
        raise ValueError(f"{what} is malformed: its indptr has {indptr.ndim} dimensions")
    if number(p, wide, 0) != 0 or number(p, wide, n) != n_entries:
        raise ValueError(f"{what} has an indptr from {number(p, wide, 0)} to {number(p, wide, n)}; "
                         f"it must run from 0 to its {n_entries} entries")
    for i in range(n):
        if number(p, wide, i + 1) < number(p, wide, i):
            raise ValueError(f"{what} has an indptr that falls at {kind} {i}, "
                             f"from {number(p, wide, i)} to {number(p, wide, i + 1)}")


def expanded(str what, str kind, cnp.ndarray indptr, cnp.ndarray indices):
    """The line of a compressed matrix (its row, column or sample: `kind`) that each of its entries lies in."""
    check_indptr(what, kind, indptr, len(indices))
    return np.repeat(np.arange(len(indptr) - 1, dtype=indices.dtype), np.diff(indptr))


cdef set_touched(RowPlan plan, cnp.ndarray indptr):
    """The rows that have entries in a compressed matrix, and the ranges of their entries."""
    cdef Py_ssize_t i, n = indptr.shape[0] - 1, found = 0
    cdef const void* p = cnp.PyArray_DATA(indptr)
    cdef bint wide = is_wide(indptr)
    cdef int64_t start, stop
    for i in range(n):
        found += number(p, wide, i + 1) > number(p, wide, i)
    rows, starts, stops = (np.empty(found, dtype=np.int64) for _ in range(3))
    cdef int64_t* r = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>rows)
    cdef int64_t* a = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>starts)
    cdef int64_t* b = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>stops)
    found = 0
    start = 0
    for i in range(n):
        stop = number(p, wide, i + 1)
        if stop > start:
            r[found] = i
            a[found] = start
            b[found] = stop
            found += 1
            plan.longest = max(plan.longest, stop - start)
        start = stop
    set_rows(plan, rows, starts, stops, None)


cdef set_sorted(RowPlan plan, cnp.ndarray rows, int64_t n_rows):
    """Sort entries by row, stably: unique rows, the starts and stops of their entries, and the order of the entries."""
    cdef Py_ssize_t i, n = rows.shape[0], found
    cdef const void* numbers = cnp.PyArray_DATA(rows)
    cdef bint wide = is_wide(rows)
    cdef int bits = 0
    cdef uint64_t* pairs
    cdef int64_t row, last
    ordered = np.empty(n, dtype=np.int64)
    cdef int64_t* order = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>ordered)

    while bits < 62 and (<int64_t>1 << bits) < n_rows:
        bits += 1
    if bits <= 32 and n < (<int64_t>1 << 32):
        # One 64-bit word holds a row and its position, and rising words are rows in rising order, each in its own.
        work = np.empty(2 * n, dtype=np.uint64)
        pairs = <uint64_t*>cnp.PyArray_DATA(<cnp.ndarray>work)
        with nogil:
            for i in range(n):
                pairs[i] = <uint64_t>number(numbers, wide, i) << 32 | <uint64_t>i
            pairs = radix_sort(pairs, pairs + n, n, bits)
            for i in range(n):
                order[i] = <uint32_t>pairs[i]         # the position
    else:
        ordered[:] = np.argsort(rows, kind="stable")

    found = 0
    last = -1
    for i in range(n):
        row = number(numbers, wide, order[i])
        found += row != last
        last = row
    unique = np.empty(found, dtype=np.int64)
    bounds = np.empty(found + 1, dtype=np.int64)
    cdef int64_t* r = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>unique)
    cdef int64_t* b = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>bounds)
    found = 0
    last = -1
    for i in range(n):
        row = number(numbers, wide, order[i])
        if row != last:
            r[found] = row
            b[found] = i
            found += 1
            last = row
    b[found] = n
    for i in range(found):
        plan.longest = max(plan.longest, b[i + 1] - b[i])
    set_rows(plan, unique, bounds[:found], bounds[1:], ordered)


cdef uint64_t* radix_sort(uint64_t* a, uint64_t* b, Py_ssize_t n, int bits) noexcept nogil:
    """Sort words by their bits 32 to 32 + `bits`; ties keep their order.  Returns whichever of a, b holds the result."""
    cdef Py_ssize_t count[2048]
    cdef Py_ssize_t i, j, total, here
    cdef int passes, width, shift, digit
    cdef uint64_t word
    if n <= 48:
        for i in range(1, n):
            word = a[i]
            j = i
            while j > 0 and a[j - 1] > word:
                a[j] = a[j - 1]
                j -= 1
            a[j] = word
        return a
    passes = (bits + 10) // 11
    width = (bits + passes - 1) // passes if passes else 0
    for digit in range(passes):
        shift = 32 + digit * width
        for i in range(<Py_ssize_t>1 << width):
            count[i] = 0
        for i in range(n):
            count[(a[i] >> shift) & ((1 << width) - 1)] += 1
        total = 0
        for i in range(<Py_ssize_t>1 << width):
            here = count[i]
            count[i] = total
            total += here
        for i in range(n):
            j = (a[i] >> shift) & ((1 << width) - 1)
            b[count[j]] = a[i]
            count[j] += 1
        a, b = b, a
    return a


def overlap(read, tuple written):
    """Whether an array of a gradient (or None) lies in the memory of one of the arrays that a step writes."""
    cdef const char* lo
    cdef const char* hi
    cdef const char* start
    cdef cnp.ndarray array
    for one in read:
        if one is not None:
            extent(<cnp.ndarray?>one, &lo, &hi)
            for array in written:
                start = <const char*>cnp.PyArray_DATA(array)
                if lo < start + cnp.PyArray_NBYTES(array) and start < hi:
                    return True
    return False


cdef void extent(cnp.ndarray a, const char** lo, const char** hi) noexcept:
    cdef int axis
    lo[0] = hi[0] = <const char*>cnp.PyArray_DATA(a)
    if a.size:
        for axis in range(a.ndim):
            if a.strides[axis] < 0:
                lo[0] += (a.shape[axis] - 1) * a.strides[axis]
            else:
                hi[0] += (a.shape[axis] - 1) * a.strides[axis]
        hi[0] += a.itemsize
