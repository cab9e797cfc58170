# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""From the rows that a gradient names to the rows that an update visits.

A gradient's numbers (rows, columns, sources) are copied in the pass that checks them.  Whoever changes them afterwards, another
thread or a hook of the user's, changes no number that an update reads.

An update visits every touched row once.  Sorted row numbers without repeats keep their order.  Unsorted ones without repeats
keep their order too, unless the table is so large that sorting pays.  One bit for each row of the table finds repeats, where
the table has not many more rows than the gradient.  Sorted row numbers with repeats are runs.  All else becomes (row, position)
pairs for a stable radix sort, in as many parts as there are threads.  Rows of values stay where they are.  The two numbers of
each cell, or of each term of a product, are put in order.  A row's repeats are summed in the order in which they stand.
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

ctypedef fused copied:
    int32_t
    int64_t

cdef enum:
    MARKED = 32             # rows of a table for each entry of a gradient up to which all of them are marked to find repeats
    TOGETHER = 256          # lines of a compressed matrix that are looked at together
    LANES = 8               # numbers that are compared at the same time
    WORTH_A_LOOK = 1 << 15      # numbers to copy and check, for each thread
    WORTH_A_THREAD = 1 << 16    # entries to sort, for each thread: several have to wait for each other in every pass
    FORESEEN = 8192         # bytes to prefetch ahead of a pass: a processor foresees by itself no further than a page's end
    BUCKETS = 4096          # of a pass of the sort, at the most
    FEW = 2048              # entries, which one thread sorts,
    FEW_BUCKETS = 256       # and with no more buckets than that
    OUTSIDE = 1             # what can hold of numbers: one is not below their bound,
    FALLS = 2               # one is below the number before it,
    REPEATS = 4             # one is the same as or below the number before it
    STRICT = 0              # how row numbers rise: each is above the one before it,
    RUNS = 1                # or the same,
    NEITHER = 2             # or neither
    COUNTS = BUCKETS + 16   # numbers from one thread's counts to the next one's: not a power of 2, which a cache likes least


cdef class RowPlan:
    """The touched rows of one gradient, and for each of them the entries that it is the sum of."""

    @property
    def rows(self):
        """The touched rows' numbers, each once, in the order in which they are visited."""
        return np.arange(self.n) if self.touched is None else self.touched

    cdef int check_in_place(self) except -1:
        """Raise ValueError if the user's arrays of values are no longer where they were when they were checked."""
        cdef const Source* s = &self.source
        cdef cnp.ndarray values = <cnp.ndarray>self.entries[0]
        if cnp.PyArray_DATA(values) != s.values or cnp.PyArray_DIM(values, 0) != s.value_rows or (
                s.weights and (cnp.PyArray_DATA(<cnp.ndarray>self.entries[3]) != s.weights
                               or cnp.PyArray_SIZE(<cnp.ndarray>self.entries[3]) != s.n_weights)):
            raise ValueError("the gradient's values have changed their memory or length since they were checked")
        return 0

    def without(self, left_out):
        """The same plan less the touched rows marked in a boolean array."""
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


cdef set_rows(RowPlan plan, rows, starts, stops, order):
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
    return cnp.PyArray_ITEMSIZE(<cnp.ndarray>array) == 8


def plan(str what, Py_ssize_t n_rows, Py_ssize_t dim, rows, cnp.ndarray values, indptr=None, columns=None, sources=None,
         weights=None, bint rising=False, int num_threads=1):
    """Check the row, column and source numbers of a gradient and plan the visit of its rows.

    `rows` (int32 or int64) names the row of every entry; without it `indptr` gives each table row its range of entries;
    without both, entry i belongs to row i.  `values`, `columns`, `sources` and `weights` are as in rowplan.pxd.
    `rising` has rows visited in rising order even where none repeats.  The plan does not depend on `num_threads`.
    Raises IndexError naming the gradient (`what`), the first offending number and its position.
    """
    cdef RowPlan self = RowPlan.__new__(RowPlan)
    cdef Source* s = &self.source
    s.values = cnp.PyArray_DATA(values)
    s.value_rows = values.shape[0]
    s.value_columns = values.shape[1] if values.ndim == 2 else 1
    s.stride = values.strides[0] // values.itemsize if values.ndim == 2 else 1
    s.weights = address(weights)
    s.n_weights = len(weights) if weights is not None else 0
    cdef int rise = STRICT
    check_lengths(what, rows, values, columns, sources, weights)
    if columns is not None:
        columns = owned(what, "column", columns, dim, num_threads, &rise)
        s.columns = address(columns)
        s.index_wide = is_wide(columns)
    if sources is not None:
        sources = owned(what, "sample", sources, s.value_rows, num_threads, &rise)
        s.sources = address(sources)
        s.index_wide = is_wide(sources)
    self.entries = values, columns, sources, weights

    self.longest = 1
    if indptr is not None:
        set_touched(self, what, indptr, len(sources) if columns is None else len(columns))
    elif rows is None:
        self.n = n_rows
    else:
        rows = owned(what, "row", rows, n_rows, num_threads, &rise)
        if rise == STRICT:
            set_rows(self, rows, None, None, None)
        elif rise == RUNS:
            set_runs(self, rows)
        else:
            set_sorted(self, rows, n_rows, rising, num_threads)
            s.unsorted = s.starts == NULL and self.order is None
            if self.order is not None and (columns is not None or sources is not None):
                put_in_order(self, num_threads)
    return self


cdef cnp.ndarray owned(str what, str kind, cnp.ndarray numbers, int64_t bound, int threads, int* rise):
    """A copy of a gradient's numbers, checked to be from 0 to below `bound`; `rise` is set to how they rise."""
    cdef cnp.npy_intp n = numbers.shape[0]
    cdef bint wide = is_wide(numbers)
    cdef cnp.ndarray copy = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT64 if bound > INT32_MAX and wide else cnp.NPY_INT32, 0)
    cdef const void* source = cnp.PyArray_DATA(numbers)
    cdef void* out = cnp.PyArray_DATA(copy)
    cdef int parts = threads if n // threads >= WORTH_A_LOOK else 1, part, fails = 0
    if parts == 1:
        fails = copy_part(source, wide, out, is_wide(copy), 0, n, bound)
    else:
        with nogil:
            for part in prange(parts, schedule="static", num_threads=parts):
                fails |= copy_part(source, wide, out, is_wide_of(bound, wide), n * part // parts, n * (part + 1) // parts,
                                   bound)
        for part in range(1, parts):
            fails |= step_between(out, is_wide(copy), n * part // parts)
    if fails & OUTSIDE:
        check(what, kind, numbers, bound)
        raise IndexError(f"{what}: its {kind}s changed while they were read")
    rise[0] = NEITHER if fails & FALLS else RUNS if fails & REPEATS else STRICT
    return copy


cdef inline bint is_wide_of(int64_t bound, bint wide) noexcept nogil:
    return bound > INT32_MAX and wide


cdef int copy_part(const void* source, bint wide, void* out, bint out_wide, Py_ssize_t lo, Py_ssize_t hi,
                   int64_t bound) noexcept nogil:
    """Copy the numbers from lo to hi; returns which of OUTSIDE, FALLS and REPEATS holds for any."""
    cdef Py_ssize_t start = lo, n
    cdef int fails = 0
    while start < hi:
        n = min(TOGETHER, hi - start)
        if out_wide:
            fails |= copy_block(<const int64_t*>source + start, <int64_t*>out + start, n, bound - 1)
        elif wide:
            fails |= copy_block(<const int64_t*>source + start, <int32_t*>out + start, n, bound - 1)
        else:
            fails |= copy_block(<const int32_t*>source + start, <int32_t*>out + start, n, <int32_t>min(bound - 1, INT32_MAX))
        if start > lo:
            fails |= step_between(out, out_wide, start)
        start += n
    return fails


cdef inline int step_between(const void* numbers, bint wide, Py_ssize_t i) noexcept nogil:
    """FALLS or REPEATS, where the i-th number is below or the same as the one before it."""
    cdef int64_t before, here
    if i == 0:
        return 0
    before, here = number(numbers, wide, i - 1), number(numbers, wide, i)
    return FALLS if here < before else REPEATS if here == before else 0


cdef int copy_block(const index* source, copied* out, Py_ssize_t n, index last) noexcept nogil:
    # Read once, into memory that nobody else can change.  No comparison in the loops: so they vectorise on every processor.
    cdef index block[TOGETHER]
    cdef index outside = 0, falls = 0, up
    cdef Py_ssize_t i
    memcpy(block, source, n * sizeof(index))
    up = ~block[0]
    for i in range(1, n):           # negative while each is above the one before it, and none below 0: then none overflows
        up &= difference(block[i - 1], block[i]) & ~block[i]
    for i in range(n):
        out[i] = <copied>block[i]
    if up < 0:
        return OUTSIDE if block[n - 1] > last else 0
    for i in range(n):
        outside |= block[i] | difference(last, block[i])
    for i in range(1, n):
        falls |= difference(block[i], block[i - 1])
    return REPEATS | (OUTSIDE if outside < 0 else 0) | (FALLS if falls < 0 else 0)


cdef put_in_order(RowPlan plan, int threads):
    """Give a plan its cells, or the terms of its product, in the order of their rows: only `values` of terms are scattered."""
    values, columns, sources, weights = plan.entries
    order = plan.order
    if columns is not None:
        values, columns = taken(values, order, threads), taken(columns, order, threads)
    else:
        sources, weights = taken(sources, order, threads), taken(weights, order, threads)
    plan.entries = values, columns, sources, weights
    plan.source.values = address(values)
    plan.source.columns = address(columns)
    plan.source.sources = address(sources)
    plan.source.weights = address(weights)
    set_rows(plan, plan.touched, plan.starts, plan.stops, None)


cdef taken(cnp.ndarray array, cnp.ndarray order, int threads):
    """array[order], for numbers of 4 or 8 bytes."""
    cdef cnp.ndarray out = np.empty(len(order), dtype=array.dtype)
    cdef const void* source = cnp.PyArray_DATA(array)
    cdef void* target = cnp.PyArray_DATA(out)
    cdef const int64_t* o = <const int64_t*>cnp.PyArray_DATA(order)
    cdef Py_ssize_t n = len(order)
    cdef bint wide = is_wide(array)
    cdef int part, parts = parts_of(n, threads)
    with nogil:
        for part in prange(parts, schedule="static", num_threads=parts):
            if wide:
                take(<const int64_t*>source, <int64_t*>target, o, n * part // parts, n * (part + 1) // parts)
            else:
                take(<const int32_t*>source, <int32_t*>target, o, n * part // parts, n * (part + 1) // parts)
    return out


cdef void take(const index* array, index* out, const int64_t* order, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(lo, hi):
        out[i] = array[order[i]]


cdef check_lengths(str what, rows, cnp.ndarray values, columns, sources, weights):
    """Raise unless everything that has one number an entry has as many."""
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
    """Raise IndexError unless all numbers (int32 or int64) are from 0 to below `bound`, naming the first that is not."""
    cdef Py_ssize_t i, n = numbers.shape[0]
    cdef const void* a = cnp.PyArray_DATA(numbers)
    cdef bint wide = is_wide(numbers)
    cdef int64_t x
    if outside(<const int64_t*>a, n, bound) if wide else outside(<const int32_t*>a, n, <int32_t>min(bound, INT32_MAX)):
        for i in range(n):
            x = number(a, wide, i)
            if x < 0 or x >= bound:
                owner = "it" if kind == "sample" else "the table"
                raise IndexError(f"{what} has {kind} {x} at position {i}; {owner} has {bound} {kind}s")


cdef bint outside(const index* x, Py_ssize_t n, index bound) noexcept nogil:
    """Whether any number is below 0 or not below `bound`; of the bound INT32_MAX for int32 numbers also where one is that."""
    cdef Py_ssize_t i
    cdef index either = 0               # no comparison: so that it vectorises on every processor
    for i in range(n):
        either |= x[i] | difference(bound - 1, x[i])
    return either < 0


cdef check_indptr(str what, str kind, cnp.ndarray indptr, int64_t n_entries):
    """Raise unless a compressed matrix has an indptr that runs from 0 to its entries and never falls."""
    cdef Py_ssize_t n = check_ends(what, indptr, n_entries)
    if is_wide(indptr):
        check_rise(<const int64_t*>cnp.PyArray_DATA(indptr), 0, n, what, kind)
    else:
        check_rise(<const int32_t*>cnp.PyArray_DATA(indptr), 0, n, what, kind)


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


cdef int check_rise(const index* p, Py_ssize_t lo, Py_ssize_t hi, str what, str kind) except -1:
    """Raise if p falls among the lines lo to hi, or below 0."""
    cdef Py_ssize_t i
    cdef index below = 0                # no comparison: so that it vectorises on every processor
    for i in range(lo, hi):
        below |= difference(p[i + 1], p[i]) | p[i + 1]      # without negative numbers, a difference does not overflow
    if below < 0:
        for i in range(lo, hi):
            if p[i + 1] < p[i]:
                raise ValueError(f"{what} has an indptr that falls at {kind} {i}, from {p[i]} to {p[i + 1]}")
    return 0


cdef bint all_same(const index* p, Py_ssize_t n) noexcept nogil:
    """Whether n numbers, one or more, are the same."""
    cdef Py_ssize_t i, j
    cdef index first = p[0], differs = 0
    cdef index lane[LANES]              # each of its own: so that several are under way at a time
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
    """Raise unless the parts of a CSR array, to be multiplied with a table of n_columns rows, fit together."""
    check_indptr(what, "row", indptr, n_values)
    if len(indices) != n_values:
        raise ValueError(f"{what} is malformed: it has {len(indices)} indices and {n_values} values")
    check(what, "column", indices, n_columns)


def expanded(str what, str kind, cnp.ndarray indptr, cnp.ndarray indices):
    """The line of a compressed matrix (its row, column or sample: `kind`) that each of its entries lies in."""
    check_indptr(what, kind, indptr, len(indices))
    return np.repeat(np.arange(len(indptr) - 1, dtype=indices.dtype), np.diff(indptr))


cdef set_touched(RowPlan plan, str what, cnp.ndarray indptr, int64_t n_entries):
    """The rows that have entries in a compressed matrix, and the ranges of their entries."""
    cdef Py_ssize_t n = check_ends(what, indptr, n_entries)
    if is_wide(indptr):
        rows = with_entries(<const int64_t*>cnp.PyArray_DATA(indptr), n, what)
    else:
        rows = with_entries(<const int32_t*>cnp.PyArray_DATA(indptr), n, what)
    starts = indptr[rows].astype(np.int64)
    stops = indptr[rows + 1].astype(np.int64)
    if len(rows):
        plan.longest = (stops - starts).max()
        if starts.min() < 0 or (stops - starts).min() < 0 or stops.max() > n_entries:
            raise ValueError(f"{what}: its indptr changed while it was read")
    set_rows(plan, rows, starts, stops, None)


cdef with_entries(const index* p, Py_ssize_t n, str what):
    """The lines in which p rises.  One pass: only blocks that hold such a line are looked at again, in the cache.

    The first number is known to be 0.  Blocks overlap by a number, so one of equal numbers has none below 0 either.
    """
    cdef Py_ssize_t i, block, lo, hi, found = 0, room = 4 * TOGETHER
    rows = np.empty(room, dtype=np.int64)
    cdef int64_t* r = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>rows)
    for block in range((n + TOGETHER - 1) // TOGETHER):
        lo = block * TOGETHER
        hi = min(n, lo + TOGETHER)
        for i in range(TOGETHER * sizeof(index) // 64):
            prefetch_read(<const char*>(p + lo) + FORESEEN + 64 * i)
        if all_same(p + lo, hi - lo + 1):
            continue
        check_rise(p, lo, hi, what, "row")
        if found + TOGETHER > room:
            room *= 2
            rows.resize(room, refcheck=False)
            r = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>rows)
        for i in range(lo, hi):
            r[found] = i
            found += p[i + 1] != p[i]
    rows.resize(found, refcheck=False)
    return rows


cdef set_sorted(RowPlan plan, cnp.ndarray rows, int64_t n_rows, bint rising, int threads):
    """Sort entries by row, stably: unique rows, the starts and stops of their entries, and the order of the entries."""
    cdef Py_ssize_t n = rows.shape[0], found
    cdef const void* numbers = cnp.PyArray_DATA(rows)
    cdef bint wide = is_wide(rows)
    cdef int bits = 0
    cdef uint64_t* pairs
    cdef uint64_t* first
    cdef uint32_t* counts

    if not rising and n_rows <= MARKED * n and no_repeats(numbers, wide, n, n_rows):
        set_rows(plan, rows, None, None, None)
        return
    while bits < 62 and (<int64_t>1 << bits) < n_rows:
        bits += 1
    if bits > 32 or n >= (<int64_t>1 << 32):
        order = np.argsort(rows, kind="stable")
        unique, starts = np.unique(rows[order], return_index=True)
        if len(unique) < n:
            set_segments(plan, unique.astype(np.int64), np.append(starts, n), order)
        elif rising:
            set_rows(plan, unique, None, None, order)
        else:
            set_rows(plan, rows, None, None, None)
        return
    threads = parts_of(n, threads)
    n_counts = threads * (COUNTS // 2) if n > FEW else FEW_BUCKETS // 2
    # One piece: glibc keeps it for the next step; of several, it would give the system back what it has to ask for again.
    # (From 32 MB on it gives back all, but those are huge pages, which cost little.)
    piece = np.empty(4 * n + 1 + n_counts, dtype=np.int64)
    first = <uint64_t*>cnp.PyArray_DATA(<cnp.ndarray>piece)
    counts = <uint32_t*>(first + 4 * n + 1)
    with nogil:
        pairs = radix_sort(numbers, wide, first, first + n, n, bits, counts, threads)
        found = count_rows(pairs, n, counts, threads)
    if found == n and not rising:                   # no repeats: the order in which the values stand is the better one
        set_rows(plan, rows, None, None, None)
        return
    order = piece[n:2 * n] if pairs == first else piece[:n]         # where no words are left
    unique = piece[2 * n:2 * n + found]
    bounds = piece[3 * n:3 * n + found + 1] if found < n else None
    cdef int64_t* r = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>unique)
    cdef int64_t* position = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>order)
    cdef int64_t* b = <int64_t*>address(bounds)
    with nogil:
        unpack(pairs, n, counts, r, position, b, threads)
    if found == n:
        set_rows(plan, unique, None, None, order)
    else:
        set_segments(plan, unique, bounds, order)


cdef set_runs(RowPlan plan, cnp.ndarray rows):
    """Of rows that never fall: unique rows, and the starts and stops of their entries, which stand in that order."""
    new = np.empty(len(rows), dtype=np.bool_)
    new[0] = True
    np.not_equal(rows[1:], rows[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    set_segments(plan, rows[starts], np.append(starts, len(rows)), None)


cdef inline int parts_of(Py_ssize_t n, int threads) noexcept:
    """The threads that n entries are worth."""
    return max(1, min(threads, n // WORTH_A_THREAD))


cdef bint no_repeats(const void* rows, bint wide, Py_ssize_t n, int64_t n_rows) except -1:
    """Whether every row is named once at the most: one bit for each row of the table says whether it has been."""
    cdef Py_ssize_t i, block, n_words = (n_rows + 63) // 64
    cdef int64_t row
    cdef uint64_t seen = 0, bit
    marks = np.empty(n_words, dtype=np.uint64)
    cdef uint64_t* named = <uint64_t*>cnp.PyArray_DATA(<cnp.ndarray>marks)
    with nogil:
        memset(named, 0, n_words * sizeof(uint64_t))
        for block in range((n + TOGETHER - 1) // TOGETHER):
            for i in range(block * TOGETHER, min(n, (block + 1) * TOGETHER)):
                row = number(rows, wide, i)
                bit = <uint64_t>1 << (row & 63)
                seen |= named[row >> 6] & bit
                named[row >> 6] |= bit
            if seen:
                break
    return seen == 0


cdef set_segments(RowPlan plan, unique, bounds, order):
    if len(unique):
        plan.longest = np.diff(bounds).max()
    set_rows(plan, unique, bounds[:-1], bounds[1:], order)


cdef inline uint64_t word_of(const void* rows, bint wide, const uint64_t* words, Py_ssize_t i) noexcept nogil:
    """The i-th word: a row above its position, from `rows` before the first pass."""
    return <uint64_t>number(rows, wide, i) << 32 | <uint64_t>i if words == NULL else words[i]


cdef uint64_t* radix_sort(const void* rows, bint wide, uint64_t* a, uint64_t* b, Py_ssize_t n, int bits, uint32_t* counts,
                          int threads) noexcept nogil:
    """Sort words that hold a row of `bits` bits above its position, in the memory of a and b; returns the one with the result.

    Rising words are rows in rising order, and ties keep theirs.  Every thread has a part of the words and a line of `counts`:
    in each pass it counts its words' digits, and then puts its words behind those of the same digit of earlier parts.
    """
    cdef Py_ssize_t i, j
    cdef uint32_t total, here
    cdef int passes, digit, part, width = 12 if n > FEW else 8      # bits: of BUCKETS, of FEW_BUCKETS
    cdef uint64_t word
    cdef const uint64_t* words = NULL
    if n <= 48:
        for i in range(n):
            word = word_of(rows, wide, NULL, i)
            j = i
            while j > 0 and a[j - 1] > word:
                a[j] = a[j - 1]
                j -= 1
            a[j] = word
        return a
    passes = max(1, (bits + width - 1) // width)
    width = (bits + passes - 1) // passes
    for digit in range(passes):
        for part in prange(threads, schedule="static", num_threads=threads):
            count_digits(rows, wide, words, n * part // threads, n * (part + 1) // threads, 32 + digit * width, width,
                         counts + part * COUNTS)
        total = 0
        for i in range(<Py_ssize_t>1 << width):
            for part in range(threads):
                here = counts[part * COUNTS + i]
                counts[part * COUNTS + i] = total
                total += here
        for part in prange(threads, schedule="static", num_threads=threads):
            deal(rows, wide, words, b, n * part // threads, n * (part + 1) // threads, 32 + digit * width, width,
                 counts + part * COUNTS)
        words = b
        a, b = b, a
    return a


cdef void count_digits(const void* rows, bint wide, const uint64_t* words, Py_ssize_t lo, Py_ssize_t hi, int shift, int width,
                       uint32_t* count) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint64_t mask = (<uint64_t>1 << width) - 1
    memset(count, 0, (mask + 1) * sizeof(uint32_t))
    for i in range(lo, hi):
        count[(word_of(rows, wide, words, i) >> shift) & mask] += 1


cdef void deal(const void* rows, bint wide, const uint64_t* words, uint64_t* b, Py_ssize_t lo, Py_ssize_t hi, int shift,
               int width, uint32_t* count) noexcept nogil:
    cdef Py_ssize_t i, digit
    cdef uint64_t word, mask = (<uint64_t>1 << width) - 1
    for i in range(lo, hi):
        word = word_of(rows, wide, words, i)
        digit = (word >> shift) & mask
        b[count[digit]] = word
        count[digit] += 1


cdef inline Py_ssize_t part_begin(const uint64_t* pairs, Py_ssize_t n, int part, int threads) noexcept nogil:
    """Where a part of the sorted words begins, so that no row lies in two."""
    cdef Py_ssize_t i = n * part // threads
    while 0 < i < n and pairs[i] >> 32 == pairs[i - 1] >> 32:
        i += 1
    return i


cdef Py_ssize_t count_rows(const uint64_t* pairs, Py_ssize_t n, uint32_t* counts, int threads) noexcept nogil:
    """The number of rows in sorted words; those before part p in counts[p]."""
    cdef Py_ssize_t found = 0
    cdef uint32_t here
    cdef int part
    for part in prange(threads, schedule="static", num_threads=threads):
        counts[part] = rows_between(pairs, part_begin(pairs, n, part, threads), part_begin(pairs, n, part + 1, threads))
    for part in range(threads):
        here = counts[part]
        counts[part] = <uint32_t>found
        found += here
    return found


cdef uint32_t rows_between(const uint64_t* pairs, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint64_t found = lo < hi
    for i in range(lo + 1, hi):                     # 1 for another row, 0 for the same: no comparison, so that it vectorises
        found += 1 - ((((pairs[i] ^ pairs[i - 1]) >> 32) - 1) >> 63)
    return <uint32_t>found


cdef void unpack(const uint64_t* pairs, Py_ssize_t n, const uint32_t* before, int64_t* rows, int64_t* order, int64_t* bounds,
                 int threads) noexcept nogil:
    """Rows, the order of their entries and, unless NULL, where each row's entries begin; `before` as count_rows leaves it."""
    cdef int part
    if bounds:
        bounds[0] = 0
    for part in prange(threads, schedule="static", num_threads=threads):
        unpack_part(pairs, part_begin(pairs, n, part, threads), part_begin(pairs, n, part + 1, threads), before[part],
                    rows, order, bounds)


cdef void unpack_part(const uint64_t* pairs, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t found, int64_t* rows, int64_t* order,
                      int64_t* bounds) noexcept nogil:
    cdef Py_ssize_t i
    cdef int64_t row, last = -1
    for i in range(lo, hi):
        row = pairs[i] >> 32
        order[i] = <uint32_t>pairs[i]
        found += row != last
        last = row
        rows[found - 1] = row                       # again for each of its entries: no branch
        if bounds:
            bounds[found] = i + 1


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
