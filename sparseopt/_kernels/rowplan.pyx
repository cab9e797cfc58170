# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Plan an update: find the rows that a gradient touches, and the entries of each row.

1. `plan` takes the arrays of one gradient. `checked_copy` copies and checks all row, column and source numbers.
   The update reads only these copies, so a later change by another thread or a user's hook does no harm.
2. `checked_copy` also finds whether the row numbers are increasing, sorted with repeats, or unsorted.
3. Increasing rows are visited as given (`set_rows`).
4. Sorted rows with repeats are runs of equal numbers (`set_from_sorted`).
5. Unsorted rows without repeats are visited as given, unless the caller asks for sorted rows.
   One bit per table row finds repeats (`all_distinct`), if the table is not much larger than the gradient.
6. All other rows are sorted (`set_from_unsorted`, `radix_sort`). The sort is stable, so repeats add up as given.
7. After a sort, rows of values stay in place. Matrix cells and product terms are permuted (`reorder_entries`).
8. A compressed matrix has an indptr instead of row numbers. Its non-empty rows are touched (`set_from_indptr`).
9. Gradients that leave the process are summed by row before (`RowPlan.sums`), in the order in which an update adds.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

cnp.import_array()

ctypedef fused index:
    int32_t
    int64_t

ctypedef fused out_index:
    int32_t
    int64_t

ctypedef fused real:
    float
    double

cdef enum:
    BITMAP_RATIO = 32               # all_distinct is used up to this many table rows per entry
    AHEAD = 12                      # rows of values from a prefetch to the sum
    BLOCK = 256                     # numbers processed together
    LANES = 8                       # independent accumulators of a vectorised loop
    MIN_CHECKS_PER_THREAD = 1 << 15 # numbers to copy and check
    MIN_SORT_PER_THREAD = 1 << 16   # entries to sort; large, because threads wait for each other in every pass
    PREFETCH_BYTES = 8192           # prefetch distance; hardware prefetchers stop at the end of a page
    MAX_BUCKETS = 1 << 12           # of one radix sort pass
    SMALL_SORT = 2048               # up to this many entries a pass has at most SMALL_BUCKETS
    SMALL_BUCKETS = 1 << 8
    COUNT_STRIDE = MAX_BUCKETS + 16 # from one thread's counts to the next; a power of 2 would cause cache conflicts
    # Flags of checked numbers; any combination can occur.
    OUT_OF_BOUNDS = 1               # a number is negative or not below the bound
    DECREASES = 2                   # a number is less than its predecessor
    REPEATS = 4                     # a number is equal to or less than its predecessor
    # Sortedness of row numbers.
    INCREASING = 0                  # sorted, without repeats
    SORTED = 1                      # sorted, with repeats
    UNSORTED = 2


cdef class RowPlan:
    """The touched rows of one gradient, and the entries whose sum is the gradient of each row."""

    @property
    def rows(self):
        """The distinct row numbers, in the order of the visit."""
        return np.arange(self.n) if self.touched is None else self.touched

    cdef int check_in_place(self) except -1:
        """Raise ValueError if the user's arrays of values were moved or resized after the check."""
        cdef const Source* s = &self.source
        cdef cnp.ndarray values = <cnp.ndarray>self.entries[0]
        if cnp.PyArray_DATA(values) != s.values or cnp.PyArray_DIM(values, 0) != s.value_rows or (
                s.weights and (cnp.PyArray_DATA(<cnp.ndarray>self.entries[3]) != s.weights
                               or cnp.PyArray_SIZE(<cnp.ndarray>self.entries[3]) != s.n_weights)):
            raise ValueError("the gradient's values have changed their memory or length since they were checked")
        return 0

    def sums(self, Py_ssize_t dim):
        """The gradients of the touched rows, shape (n, dim), with the bits that an update would form.

        The values themselves, if each row has one row of values in the order of the visit.
        """
        cdef const Source* s = &self.source
        cdef cnp.ndarray values = <cnp.ndarray>self.entries[0], out
        self.check_in_place()
        if not (s.starts or s.order or s.columns or s.sources):
            return values
        out = np.empty((self.n, dim), values.dtype)
        with nogil:
            if cnp.PyArray_ITEMSIZE(out) == 8:
                sum_all(s, <double*>cnp.PyArray_DATA(out), self.n, dim)
            else:
                sum_all(s, <float*>cnp.PyArray_DATA(out), self.n, dim)
        return out

    def positions(self):
        """For each entry, the position of its row among `rows`; None if entry i belongs to row i of them."""
        cdef Py_ssize_t i, p
        cdef const int64_t* order = self.source.order
        if self.source.starts == NULL and order == NULL:
            return None
        stops = np.arange(1, self.n + 1, dtype=np.int64) if self.source.stops == NULL else np.ascontiguousarray(
            self.stops)
        cdef const int64_t* stop = <const int64_t*>cnp.PyArray_DATA(<cnp.ndarray>stops)
        out = np.empty(stops[self.n - 1], dtype=np.int64)
        cdef int64_t* position = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>out)
        with nogil:
            p = 0
            for i in range(self.n):
                while p < stop[i]:
                    position[order[p] if order else p] = i
                    p += 1
        return out

    def without(self, left_out):
        """A copy of this plan without the touched rows that the boolean array `left_out` marks."""
        kept = ~left_out
        if self.source.starts == NULL:
            starts = np.arange(self.n, dtype=np.int64)
            stops = starts + 1
        else:
            starts, stops = self.starts, self.stops
        cdef RowPlan plan = RowPlan.__new__(RowPlan)
        plan.source = self.source
        plan.longest = self.longest
        plan.entries = self.entries
        set_rows(plan, np.ascontiguousarray(self.rows[kept]), starts[kept], stops[kept], self.order)
        return plan


cdef void sum_all(const Source* s, real* out, Py_ssize_t n, Py_ssize_t dim) noexcept nogil:
    """Write the sum of each row's entries. The order of additions is that of gather.pxi."""
    cdef const real* values = <const real*>s.values
    cdef const real* weights = <const real*>s.weights
    cdef const real* row
    cdef int64_t e, start, stop
    cdef Py_ssize_t i, j
    for i in range(n):
        start = s.starts[i] if s.starts else i
        stop = s.stops[i] if s.starts else i + 1
        if s.columns:
            memset(out, 0, dim * sizeof(real))
        for e in range(start, stop):
            if s.columns:
                j = number(s.columns, s.index_wide, e)
                out[j] = out[j] + values[e]
                continue
            if s.sources:
                row = values + number(s.sources, s.index_wide, e) * s.stride
                if e == start:
                    for j in range(dim):
                        out[j] = weights[e] * row[j]
                else:
                    for j in range(dim):
                        out[j] = out[j] + weights[e] * row[j]
                continue
            if s.order and e + AHEAD < s.n_entries:
                for j in range(0, dim * sizeof(real), 64):
                    prefetch_read(<const char*>(values + s.order[e + AHEAD] * s.stride) + j)
            row = values + (s.order[e] if s.order else e) * s.stride
            if e == start:
                memcpy(out, row, dim * sizeof(real))
            else:
                for j in range(dim):
                    out[j] = out[j] + row[j]
        out += dim


cdef set_rows(RowPlan plan, rows, starts, stops, order):
    """Set the touched rows and the range of entries of each row: see Source in rowplan.pxd."""
    plan.touched, plan.starts, plan.stops, plan.order = rows, starts, stops, order
    plan.source.rows = address(rows)
    plan.source.rows_wide = rows is not None and is_wide(rows)
    plan.source.starts = <const int64_t*>address(starts)
    plan.source.stops = <const int64_t*>address(stops)
    plan.source.order = <const int64_t*>address(order)
    plan.source.n_entries = len(order) if order is not None else 0
    if rows is not None:
        plan.n = len(rows)


cdef inline const void* address(array) except? NULL:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline bint is_wide(array) except -1:
    """Whether the items have 8 bytes, not 4."""
    return cnp.PyArray_ITEMSIZE(<cnp.ndarray>array) == 8


def plan(str what, Py_ssize_t n_rows, Py_ssize_t dim, rows, cnp.ndarray values, indptr=None, columns=None, sources=None,
         weights=None, bint rising=False, int num_threads=1):
    """Check the row, column and source numbers of a gradient and return its RowPlan.

    `rows` (int32 or int64) holds the row number of every entry. Without `rows`, `indptr` gives the range of entries of
    each table row. Without both, entry i belongs to row i.
    rowplan.pxd describes `values`, `columns`, `sources` and `weights`.
    With `rising`, rows are visited in increasing order even if no row repeats.
    The plan does not depend on `num_threads`.
    Raises IndexError for a bad number. The error names the gradient (`what`), the number and its position.
    """
    cdef RowPlan self = RowPlan.__new__(RowPlan)
    cdef Source* s = &self.source
    s.values = cnp.PyArray_DATA(values)
    s.value_rows = values.shape[0]
    s.value_columns = values.shape[1] if values.ndim == 2 else 1
    s.stride = values.strides[0] // values.itemsize if values.ndim == 2 else 1
    s.weights = address(weights)
    s.n_weights = len(weights) if weights is not None else 0
    cdef int sortedness = INCREASING
    check_lengths(what, rows, values, columns, sources, weights)
    if columns is not None:
        columns = checked_copy(what, "column", columns, dim, num_threads, &sortedness)
        s.columns = address(columns)
        s.index_wide = is_wide(columns)
    if sources is not None:
        sources = checked_copy(what, "sample", sources, s.value_rows, num_threads, &sortedness)
        s.sources = address(sources)
        s.index_wide = is_wide(sources)
    self.entries = values, columns, sources, weights

    self.longest = 1
    if indptr is not None:
        set_from_indptr(self, what, indptr, len(sources) if columns is None else len(columns))
    elif rows is None:
        self.n = n_rows
    else:
        rows = checked_copy(what, "row", rows, n_rows, num_threads, &sortedness)
        if sortedness == INCREASING:
            set_rows(self, rows, None, None, None)
        elif sortedness == SORTED:
            set_from_sorted(self, rows)
        else:
            set_from_unsorted(self, rows, n_rows, rising, num_threads)
            if self.order is not None and (columns is not None or sources is not None):
                reorder_entries(self, num_threads)
    return self


cdef cnp.ndarray checked_copy(str what, str kind, cnp.ndarray numbers, int64_t bound, int threads, int* sortedness):
    """A copy of the row, column or source numbers. Raises IndexError unless 0 <= number < bound.

    `sortedness` is set to INCREASING, SORTED or UNSORTED.
    """
    cdef cnp.npy_intp n = numbers.shape[0]
    cdef bint wide = is_wide(numbers)
    cdef cnp.ndarray copy = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT64 if bound > INT32_MAX and wide else cnp.NPY_INT32, 0)
    cdef const void* source = cnp.PyArray_DATA(numbers)
    cdef void* out = cnp.PyArray_DATA(copy)
    cdef int parts = threads if n // threads >= MIN_CHECKS_PER_THREAD else 1, part, flags = 0
    if parts == 1:
        flags = copy_and_check(source, wide, out, is_wide(copy), 0, n, bound)
    else:
        with nogil:
            for part in prange(parts, schedule="static", num_threads=parts):
                flags |= copy_and_check(source, wide, out, copy_is_wide(bound, wide), n * part // parts,
                                        n * (part + 1) // parts, bound)
        for part in range(1, parts):
            flags |= compare_neighbours(out, is_wide(copy), n * part // parts)
    if flags & OUT_OF_BOUNDS:
        check(what, kind, numbers, bound)
        raise IndexError(f"{what}: its {kind} numbers were changed by other code during this call")
    sortedness[0] = UNSORTED if flags & DECREASES else SORTED if flags & REPEATS else INCREASING
    return copy


cdef inline bint copy_is_wide(int64_t bound, bint wide) noexcept nogil:
    return bound > INT32_MAX and wide


cdef int copy_and_check(const void* source, bint wide, void* out, bint out_wide, Py_ssize_t lo, Py_ssize_t hi,
                        int64_t bound) noexcept nogil:
    """Copy the numbers from lo to hi. Returns their flags."""
    cdef Py_ssize_t start = lo, n
    cdef int flags = 0
    while start < hi:
        n = min(BLOCK, hi - start)
        if out_wide:
            flags |= copy_and_check_block(<const int64_t*>source + start, <int64_t*>out + start, n, bound - 1)
        elif wide:
            flags |= copy_and_check_block(<const int64_t*>source + start, <int32_t*>out + start, n, bound - 1)
        else:
            flags |= copy_and_check_block(<const int32_t*>source + start, <int32_t*>out + start, n,
                                          <int32_t>min(bound - 1, INT32_MAX))
        if start > lo:
            flags |= compare_neighbours(out, out_wide, start)
        start += n
    return flags


cdef inline int compare_neighbours(const void* numbers, bint wide, Py_ssize_t i) noexcept nogil:
    """DECREASES, REPEATS or 0, for the i-th number and its predecessor."""
    cdef int64_t before, here
    if i == 0:
        return 0
    before, here = number(numbers, wide, i - 1), number(numbers, wide, i)
    return DECREASES if here < before else REPEATS if here == before else 0


cdef int copy_and_check_block(const index* source, out_index* out, Py_ssize_t n, index last) noexcept nogil:
    # `block` is private: another thread could change `source` between the check and the copy.
    # Sign bits replace comparisons, so that the loops vectorise on every instruction set.
    cdef index block[BLOCK]
    cdef index outside = 0, decreases = 0, increases
    cdef Py_ssize_t i
    memcpy(block, source, n * sizeof(index))
    # `increases` stays negative while all numbers are nonnegative and increasing. Such differences cannot overflow.
    increases = ~block[0]
    for i in range(1, n):
        increases &= difference(block[i - 1], block[i]) & ~block[i]
    for i in range(n):
        out[i] = <out_index>block[i]
    if increases < 0:
        return OUT_OF_BOUNDS if block[n - 1] > last else 0
    for i in range(n):
        outside |= block[i] | difference(last, block[i])
    for i in range(1, n):
        decreases |= difference(block[i], block[i - 1])
    return REPEATS | (OUT_OF_BOUNDS if outside < 0 else 0) | (DECREASES if decreases < 0 else 0)


cdef reorder_entries(RowPlan plan, int threads):
    """Sort the matrix cells or product terms of a plan by row, so that the update reads them in sequence."""
    values, columns, sources, weights = plan.entries
    order = plan.order
    if columns is not None:
        values, columns = permuted(values, order, threads), permuted(columns, order, threads)
    else:
        sources, weights = permuted(sources, order, threads), permuted(weights, order, threads)
    plan.entries = values, columns, sources, weights
    plan.source.values = address(values)
    plan.source.columns = address(columns)
    plan.source.sources = address(sources)
    plan.source.weights = address(weights)
    set_rows(plan, plan.touched, plan.starts, plan.stops, None)


cdef permuted(cnp.ndarray array, cnp.ndarray order, int threads):
    """array[order], for items of 4 or 8 bytes."""
    cdef cnp.ndarray out = np.empty(len(order), dtype=array.dtype)
    cdef const void* source = cnp.PyArray_DATA(array)
    cdef void* target = cnp.PyArray_DATA(out)
    cdef const int64_t* o = <const int64_t*>cnp.PyArray_DATA(order)
    cdef Py_ssize_t n = len(order)
    cdef bint wide = is_wide(array)
    cdef int part, parts = n_parts(n, threads)
    with nogil:
        for part in prange(parts, schedule="static", num_threads=parts):
            if wide:
                permute_part(<const int64_t*>source, <int64_t*>target, o, n * part // parts, n * (part + 1) // parts)
            else:
                permute_part(<const int32_t*>source, <int32_t*>target, o, n * part // parts, n * (part + 1) // parts)
    return out


cdef void permute_part(const index* array, index* out, const int64_t* order, Py_ssize_t lo,
                       Py_ssize_t hi) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(lo, hi):
        out[i] = array[order[i]]


cdef check_lengths(str what, rows, cnp.ndarray values, columns, sources, weights):
    """Raise ValueError unless all arrays with one item per entry have the same length."""
    cdef Py_ssize_t n = -1, length
    for array in (rows, columns, sources, weights, values if sources is None else None):
        if array is None:
            continue
        if (<cnp.ndarray>array).ndim != 1 and (array is not values or columns is not None):
            raise ValueError(f"{what} is malformed: one of its index or data arrays has more than one dimension")
        length = (<cnp.ndarray>array).shape[0]
        if n >= 0 and length != n:
            raise ValueError(f"{what} is malformed: its arrays give it {min(n, length)} and {max(n, length)} entries")
        n = length


cpdef check(str what, str kind, cnp.ndarray numbers, int64_t bound):
    """Raise IndexError for the first of the numbers (int32 or int64) that is negative or not below `bound`."""
    cdef Py_ssize_t i, n = numbers.shape[0]
    cdef const void* a = cnp.PyArray_DATA(numbers)
    cdef bint wide = is_wide(numbers)
    cdef int64_t x
    if (any_out_of_bounds(<const int64_t*>a, n, bound) if wide
            else any_out_of_bounds(<const int32_t*>a, n, <int32_t>min(bound, INT32_MAX))):
        for i in range(n):
            x = number(a, wide, i)
            if x < 0 or x >= bound:
                owner = "it" if kind == "sample" else "the table"
                raise IndexError(f"{what} has {kind} {x} at position {i}; {owner} has {bound} {kind}s")


cdef bint any_out_of_bounds(const index* x, Py_ssize_t n, index bound) noexcept nogil:
    """Whether any number is negative or not below `bound`.

    An int32 array with a larger bound is checked against INT32_MAX, so INT32_MAX itself gives a false alarm.
    `check` therefore tests every number again.
    """
    cdef Py_ssize_t i
    cdef index either = 0               # its sign bit replaces comparisons: see copy_and_check_block
    for i in range(n):
        either |= x[i] | difference(bound - 1, x[i])
    return either < 0


cdef check_indptr(str what, str kind, cnp.ndarray indptr, int64_t n_entries):
    """Raise ValueError unless `indptr` begins with 0, ends with `n_entries` and never decreases."""
    cdef Py_ssize_t n = check_ends(what, indptr, n_entries)
    if is_wide(indptr):
        check_not_decreasing(<const int64_t*>cnp.PyArray_DATA(indptr), 0, n, what, kind)
    else:
        check_not_decreasing(<const int32_t*>cnp.PyArray_DATA(indptr), 0, n, what, kind)


cdef Py_ssize_t check_ends(str what, cnp.ndarray indptr, int64_t n_entries) except -1:
    cdef Py_ssize_t n = indptr.shape[0] - 1
    cdef const void* p = cnp.PyArray_DATA(indptr)
    cdef bint wide = is_wide(indptr)
    if indptr.ndim != 1:
        raise ValueError(f"{what} is malformed: its indptr has {indptr.ndim} dimensions")
    if number(p, wide, 0) != 0 or number(p, wide, n) != n_entries:
        raise ValueError(f"{what} has an indptr from {number(p, wide, 0)} to {number(p, wide, n)}; "
                         f"it must run from 0 to its {n_entries} entries")
    return n


cdef int check_not_decreasing(const index* p, Py_ssize_t lo, Py_ssize_t hi, str what, str kind) except -1:
    """Raise ValueError if p decreases in lines lo to hi or is negative after line lo."""
    cdef Py_ssize_t i
    cdef index below = 0                # its sign bit replaces comparisons: see copy_and_check_block
    for i in range(lo, hi):
        below |= difference(p[i + 1], p[i]) | p[i + 1]      # the difference overflows only if a number is negative
    if below < 0:
        for i in range(lo, hi):
            if p[i + 1] < p[i]:
                raise ValueError(f"{what} has an indptr that falls at {kind} {i}, from {p[i]} to {p[i + 1]}; "
                                 "it must never fall")
    return 0


cdef bint all_equal(const index* p, Py_ssize_t n) noexcept nogil:
    """Whether all n numbers are equal.  n must be at least 1."""
    cdef Py_ssize_t i, j
    cdef index first = p[0], differs = 0
    cdef index lane[LANES]              # independent accumulators, so that the processor overlaps their operations
    memset(lane, 0, sizeof(lane))
    for i in range(n // LANES):
        for j in range(LANES):
            lane[j] |= p[i * LANES + j] ^ first
    for i in range(n // LANES * LANES, n):
        differs |= p[i] ^ first
    for j in range(LANES):
        differs |= lane[j]
    return differs == 0


cdef inline index difference(index x, index y) noexcept nogil:
    if index is int32_t:
        return <int32_t>(<uint32_t>x - <uint32_t>y)
    else:
        return <int64_t>(<uint64_t>x - <uint64_t>y)


def check_csr(str what, cnp.ndarray indptr, cnp.ndarray indices, int64_t n_columns, int64_t n_values):
    """Raise ValueError or IndexError unless the arrays form a valid CSR array with `n_columns` columns."""
    check_indptr(what, "row", indptr, n_values)
    if len(indices) != n_values:
        raise ValueError(f"{what} is malformed: it has {len(indices)} indices and {n_values} values")
    check(what, "column", indices, n_columns)


def expanded(str what, str kind, cnp.ndarray indptr, cnp.ndarray indices):
    """The line number of each entry of a compressed matrix. `kind` says what a line is: row, column or sample."""
    check_indptr(what, kind, indptr, len(indices))
    return np.repeat(np.arange(len(indptr) - 1, dtype=indices.dtype), np.diff(indptr))


cdef set_from_indptr(RowPlan plan, str what, cnp.ndarray indptr, int64_t n_entries):
    """Touch the non-empty rows of a compressed matrix."""
    cdef Py_ssize_t n = check_ends(what, indptr, n_entries)
    if is_wide(indptr):
        rows = nonempty_rows(<const int64_t*>cnp.PyArray_DATA(indptr), n, what)
    else:
        rows = nonempty_rows(<const int32_t*>cnp.PyArray_DATA(indptr), n, what)
    starts = indptr[rows].astype(np.int64)
    stops = indptr[rows + 1].astype(np.int64)
    if len(rows):
        plan.longest = (stops - starts).max()
        if starts.min() < 0 or (stops - starts).min() < 0 or stops.max() > n_entries:
            raise ValueError(f"{what}: its indptr was changed by other code during this call")
    set_rows(plan, rows, starts, stops, None)


cdef nonempty_rows(const index* p, Py_ssize_t n, str what):
    """The numbers of the non-empty lines. Raises ValueError if p decreases.

    Most blocks of a very sparse matrix have only empty lines. The numbers of such a block are equal and need no check.
    Equal numbers cannot be negative here, since p[0] is 0 and neighbouring blocks share one number.
    """
    cdef Py_ssize_t i, block, lo, hi, found = 0, capacity = 4 * BLOCK
    rows = np.empty(capacity, dtype=np.int64)
    cdef int64_t* r = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>rows)
    for block in range((n + BLOCK - 1) // BLOCK):
        lo = block * BLOCK
        hi = min(n, lo + BLOCK)
        for i in range(BLOCK * sizeof(index) // 64):
            prefetch_read(<const char*>(p + lo) + PREFETCH_BYTES + 64 * i)
        if all_equal(p + lo, hi - lo + 1):
            continue
        check_not_decreasing(p, lo, hi, what, "row")
        if found + BLOCK > capacity:
            capacity *= 2
            rows.resize(capacity, refcheck=False)
            r = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>rows)
        for i in range(lo, hi):
            r[found] = i
            found += p[i + 1] != p[i]
    rows.resize(found, refcheck=False)
    return rows


cdef set_from_unsorted(RowPlan plan, cnp.ndarray rows, int64_t n_rows, bint rising, int threads):
    """Set a plan for unsorted row numbers: visit the rows as given if possible, else sort."""
    cdef Py_ssize_t n = rows.shape[0], found
    cdef const void* numbers = cnp.PyArray_DATA(rows)
    cdef bint wide = is_wide(rows)
    cdef int bits = 0
    cdef uint64_t* keys
    cdef uint64_t* first
    cdef uint32_t* counts

    if not rising and n_rows <= BITMAP_RATIO * n and all_distinct(numbers, wide, n, n_rows):
        set_rows(plan, rows, None, None, None)
        return
    while bits < 62 and (<int64_t>1 << bits) < n_rows:
        bits += 1
    if bits > 32 or n >= (<int64_t>1 << 32):        # row and position do not fit into one key
        order = np.argsort(rows, kind="stable")
        unique, starts = np.unique(rows[order], return_index=True)
        if len(unique) < n:
            set_ranges(plan, unique.astype(np.int64), np.append(starts, n), order)
        elif rising:
            set_rows(plan, unique, None, None, order)
        else:
            set_rows(plan, rows, None, None, None)
        return
    threads = n_parts(n, threads)
    n_counts = threads * (COUNT_STRIDE // 2) if n > SMALL_SORT else SMALL_BUCKETS // 2
    # One allocation holds all arrays, because glibc keeps one freed block for the next step.
    # Several freed blocks would go back to the operating system, and the next step would cause page faults.
    memory = np.empty(4 * n + 1 + n_counts, dtype=np.int64)
    first = <uint64_t*>cnp.PyArray_DATA(<cnp.ndarray>memory)
    counts = <uint32_t*>(first + 4 * n + 1)
    with nogil:
        keys = radix_sort(numbers, wide, first, first + n, n, bits, counts, threads)
        found = count_rows(keys, n, counts, threads)
    if found == n and not rising:                   # without repeats, reading the values in sequence is faster
        set_rows(plan, rows, None, None, None)
        return
    order = memory[n:2 * n] if keys == first else memory[:n]        # the buffer without the result
    unique = memory[2 * n:2 * n + found]
    bounds = memory[3 * n:3 * n + found + 1] if found < n else None
    cdef int64_t* r = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>unique)
    cdef int64_t* position = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>order)
    cdef int64_t* b = <int64_t*>address(bounds)
    with nogil:
        unpack(keys, n, counts, r, position, b, threads)
    if found == n:
        set_rows(plan, unique, None, None, order)
    else:
        set_ranges(plan, unique, bounds, order)


cdef set_from_sorted(RowPlan plan, cnp.ndarray rows):
    """Set a plan for sorted row numbers with repeats."""
    new = np.empty(len(rows), dtype=np.bool_)
    new[0] = True
    np.not_equal(rows[1:], rows[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    set_ranges(plan, rows[starts], np.append(starts, len(rows)), None)


cdef inline int n_parts(Py_ssize_t n, int threads) noexcept:
    """The number of threads for a sort of n entries: fewer if a thread would get too few entries."""
    return max(1, min(threads, n // MIN_SORT_PER_THREAD))


cdef bint all_distinct(const void* rows, bint wide, Py_ssize_t n, int64_t n_rows) except -1:
    """Whether no row number repeats."""
    cdef Py_ssize_t i, block, n_words = (n_rows + 63) // 64
    cdef int64_t row
    cdef uint64_t repeats = 0, bit
    bitmap = np.empty(n_words, dtype=np.uint64)
    cdef uint64_t* seen = <uint64_t*>cnp.PyArray_DATA(<cnp.ndarray>bitmap)
    with nogil:
        memset(seen, 0, n_words * sizeof(uint64_t))
        for block in range((n + BLOCK - 1) // BLOCK):
            for i in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
                row = number(rows, wide, i)
                bit = <uint64_t>1 << (row & 63)
                repeats |= seen[row >> 6] & bit
                seen[row >> 6] |= bit
            if repeats:
                break
    return repeats == 0


cdef set_ranges(RowPlan plan, unique, bounds, order):
    """Set rows with repeats: row i has the positions bounds[i] to bounds[i + 1] - 1."""
    plan.longest = largest_difference(<const int64_t*>address(bounds), len(bounds))
    set_rows(plan, unique, bounds[:-1], bounds[1:], order)


cdef int64_t largest_difference(const int64_t* numbers, Py_ssize_t n) noexcept nogil:
    """The largest difference of neighbours, or 1 if all are smaller."""
    cdef int64_t largest = 1
    cdef Py_ssize_t i
    for i in range(1, n):
        largest = max(largest, numbers[i] - numbers[i - 1])
    return largest


cdef inline uint64_t key_of(const void* rows, bint wide, const uint64_t* keys, Py_ssize_t i) noexcept nogil:
    """The i-th key. Before the first pass `keys` is NULL and the key is made from `rows`."""
    return <uint64_t>number(rows, wide, i) << 32 | <uint64_t>i if keys == NULL else keys[i]


cdef uint64_t* radix_sort(const void* rows, bint wide, uint64_t* a, uint64_t* b, Py_ssize_t n, int bits,
                          uint32_t* counts, int threads) noexcept nogil:
    """Stable radix sort of the keys row * 2^32 + position, for row numbers of `bits` bits.

    a and b are buffers of n keys. Returns the buffer with the result.
    In each pass every thread counts the digits of its part of the keys (`count_digits`).
    Prefix sums over digits and parts give each thread its target positions (`scatter`).
    """
    cdef Py_ssize_t i, j
    cdef uint32_t total, here
    cdef int passes, digit, part, digit_bits = 12 if n > SMALL_SORT else 8      # log2 of MAX_BUCKETS or SMALL_BUCKETS
    cdef uint64_t key
    cdef const uint64_t* keys = NULL
    if n <= 48:                                     # for few keys, insertion sort is faster
        for i in range(n):
            key = key_of(rows, wide, NULL, i)
            j = i
            while j > 0 and a[j - 1] > key:
                a[j] = a[j - 1]
                j -= 1
            a[j] = key
        return a
    passes = max(1, (bits + digit_bits - 1) // digit_bits)
    digit_bits = (bits + passes - 1) // passes
    for digit in range(passes):
        for part in prange(threads, schedule="static", num_threads=threads):
            count_digits(rows, wide, keys, n * part // threads, n * (part + 1) // threads,
                         32 + digit * digit_bits, digit_bits, counts + part * COUNT_STRIDE)
        total = 0
        for i in range(<Py_ssize_t>1 << digit_bits):
            for part in range(threads):
                here = counts[part * COUNT_STRIDE + i]
                counts[part * COUNT_STRIDE + i] = total
                total += here
        for part in prange(threads, schedule="static", num_threads=threads):
            scatter(rows, wide, keys, b, n * part // threads, n * (part + 1) // threads,
                    32 + digit * digit_bits, digit_bits, counts + part * COUNT_STRIDE)
        keys = b
        a, b = b, a
    return a


cdef void count_digits(const void* rows, bint wide, const uint64_t* keys, Py_ssize_t lo, Py_ssize_t hi, int shift,
                       int digit_bits, uint32_t* count) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint64_t mask = (<uint64_t>1 << digit_bits) - 1
    memset(count, 0, (mask + 1) * sizeof(uint32_t))
    for i in range(lo, hi):
        count[(key_of(rows, wide, keys, i) >> shift) & mask] += 1


cdef void scatter(const void* rows, bint wide, const uint64_t* keys, uint64_t* b, Py_ssize_t lo, Py_ssize_t hi,
                  int shift, int digit_bits, uint32_t* count) noexcept nogil:
    cdef Py_ssize_t i, digit
    cdef uint64_t key, mask = (<uint64_t>1 << digit_bits) - 1
    for i in range(lo, hi):
        key = key_of(rows, wide, keys, i)
        digit = (key >> shift) & mask
        b[count[digit]] = key
        count[digit] += 1


cdef inline Py_ssize_t part_begin(const uint64_t* keys, Py_ssize_t n, int part, int threads) noexcept nogil:
    """The first key of a part of the sorted keys. All keys of a row lie in the same part."""
    cdef Py_ssize_t i = n * part // threads
    while 0 < i < n and keys[i] >> 32 == keys[i - 1] >> 32:
        i += 1
    return i


cdef Py_ssize_t count_rows(const uint64_t* keys, Py_ssize_t n, uint32_t* counts, int threads) noexcept nogil:
    """The number of distinct rows in sorted keys.  counts[p] is set to the number of rows before part p."""
    cdef Py_ssize_t found = 0
    cdef uint32_t here
    cdef int part
    for part in prange(threads, schedule="static", num_threads=threads):
        counts[part] = count_rows_in_part(keys, part_begin(keys, n, part, threads),
                                          part_begin(keys, n, part + 1, threads))
    for part in range(threads):
        here = counts[part]
        counts[part] = <uint32_t>found
        found += here
    return found


cdef uint32_t count_rows_in_part(const uint64_t* keys, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint64_t found = lo < hi
    # The term is 1 if the row differs from its predecessor, else 0. A comparison would keep the loop from vectorising.
    for i in range(lo + 1, hi):
        found += 1 - ((((keys[i] ^ keys[i - 1]) >> 32) - 1) >> 63)
    return <uint32_t>found


cdef void unpack(const uint64_t* keys, Py_ssize_t n, const uint32_t* before, int64_t* rows, int64_t* order,
                 int64_t* bounds, int threads) noexcept nogil:
    """Split sorted keys into distinct rows and positions (`order`).

    Row i has the positions bounds[i] to bounds[i + 1] - 1. `bounds` may be NULL.
    `before` holds the counts that count_rows sets.
    """
    cdef int part
    if bounds:
        bounds[0] = 0
    for part in prange(threads, schedule="static", num_threads=threads):
        unpack_part(keys, part_begin(keys, n, part, threads), part_begin(keys, n, part + 1, threads), before[part],
                    rows, order, bounds)


cdef void unpack_part(const uint64_t* keys, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t found, int64_t* rows,
                      int64_t* order, int64_t* bounds) noexcept nogil:
    cdef Py_ssize_t i
    cdef int64_t row, last = -1
    for i in range(lo, hi):
        row = keys[i] >> 32
        order[i] = <uint32_t>keys[i]
        found += row != last
        last = row
        rows[found - 1] = row                       # written for every entry, which is faster than a branch
        if bounds:
            bounds[found] = i + 1


def overlap(read, tuple written):
    """Whether an array of `read` shares memory with an array of `written`. Items of `read` may be None."""
    cdef const char* lo
    cdef const char* hi
    cdef const char* start
    cdef cnp.ndarray array
    for one in read:
        if one is not None:
            memory_range(<cnp.ndarray?>one, &lo, &hi)
            for array in written:
                start = <const char*>cnp.PyArray_DATA(array)
                if lo < start + cnp.PyArray_NBYTES(array) and start < hi:
                    return True
    return False


cdef void memory_range(cnp.ndarray a, const char** lo, const char** hi) noexcept:
    """Set lo and hi to the first byte and the byte after the last one. Strides may be negative."""
    cdef int axis
    lo[0] = hi[0] = <const char*>cnp.PyArray_DATA(a)
    if a.size:
        for axis in range(a.ndim):
            if a.strides[axis] < 0:
                lo[0] += (a.shape[axis] - 1) * a.strides[axis]
            else:
                hi[0] += (a.shape[axis] - 1) * a.strides[axis]
        hi[0] += a.itemsize
