# Rows of a CSR array as a small CSR array of their own, whose columns are only the features that occur. All that a loss
# then reads and writes fits into the processor's cache.
#
# A hash table finds the column of a feature: a slot holds the feature in its upper half, the column in its lower half.
# The table begins with a slot for two entries, and doubles whenever a quarter is full.


cdef enum:
    FAR_ROWS = 8            # rows from the prefetch of a row's bounds to the use
    NEAR_ROWS = 4           # rows from the prefetch of a row's entries to the use
    MOST_PREFETCHED = 128   # entries of a row: the processor itself prefetches the rest of a long row
    LEAST_SLOT_BITS = 6


cdef struct Samples:        # some rows of a CSR array
    const void* indices
    bint indices_wide
    Py_ssize_t n_entries    # of the whole array
    Py_ssize_t most         # entries that the result has room for
    int64_t n_features
    const void* indptr
    bint indptr_wide
    const void* rows        # the numbers of the rows; NULL: first, first + 1, ...
    bint rows_wide
    Py_ssize_t first
    Py_ssize_t n


cdef struct Columns:
    int64_t* features       # the feature of each column
    int64_t* last           # the last entry of each column; NULL if entries of a row may share a column
    uint64_t* slots
    uint64_t n_slots        # a power of two
    int shift               # 64 - log2(n_slots)
    int64_t n


cdef inline bint is_empty(uint64_t slot) noexcept nogil:
    return ~slot == 0


cdef inline uint64_t slot_of(const Columns* c, uint64_t feature) noexcept nogil:
    """The slot of a feature, or the empty slot where it belongs."""
    cdef uint64_t slot = (feature * <uint64_t>0x9E3779B97F4A7C15) >> c.shift
    while not is_empty(c.slots[slot]) and c.slots[slot] >> 32 != feature:
        slot = (slot + 1) & (c.n_slots - 1)
    return slot


cdef void use_slots(Columns* c, int shift) noexcept nogil:
    """Enter all columns into a table of 2^(64 - shift) slots."""
    cdef int64_t i
    c.shift, c.n_slots = shift, <uint64_t>1 << (64 - shift)
    memset(c.slots, 0xFF, c.n_slots * sizeof(uint64_t))
    for i in range(c.n):
        c.slots[slot_of(c, c.features[i])] = <uint64_t>c.features[i] << 32 | <uint64_t>i


cdef inline int64_t column_of(Columns* c, uint64_t feature) noexcept nogil:
    """The column of a feature, a new one if the feature has none."""
    cdef uint64_t slot = slot_of(c, feature)
    if not is_empty(c.slots[slot]):
        return <uint32_t>c.slots[slot]
    c.slots[slot] = feature << 32 | <uint64_t>c.n
    c.features[c.n] = feature
    if c.last:
        c.last[c.n] = -1
    c.n += 1
    if 4 * <uint64_t>c.n > c.n_slots:
        use_slots(c, c.shift - 1)
    return c.n - 1


cdef inline Py_ssize_t row_number(const Samples* s, Py_ssize_t i) noexcept nogil:
    return number(s.rows, s.rows_wide, i) if s.rows else s.first + i


cdef inline Py_ssize_t begin_of(const Samples* s, Py_ssize_t row) noexcept nogil:
    return number(s.indptr, s.indptr_wide, row)


cdef inline void prefetch_sample(const Samples* s, const real* data, Py_ssize_t i) noexcept nogil:
    cdef Py_ssize_t lo, n
    if i + FAR_ROWS < s.n:
        prefetch_near(<const char*>s.indptr + row_number(s, i + FAR_ROWS) * (8 if s.indptr_wide else 4))
    if i + NEAR_ROWS < s.n:
        lo = begin_of(s, row_number(s, i + NEAR_ROWS))
        n = min(begin_of(s, row_number(s, i + NEAR_ROWS) + 1) - lo, MOST_PREFETCHED)
        prefetch_row(True, <const char*>(data + lo), n * sizeof(real))
        prefetch_row(True, <const char*>s.indices + lo * (8 if s.indices_wide else 4), n * (8 if s.indices_wide else 4))


cdef inline int64_t compact_row(const Samples* s, bint wide, const real* data, Columns* c, Py_ssize_t row, real* values,
                                int32_t* columns, int64_t start) noexcept nogil:
    """Append the entries of a row behind the first `start` ones. Returns their new number, -1 for a bad row."""
    # `wide` is a constant of each call, so that each has a compiled loop of its own.
    cdef int64_t n = start, feature, at
    cdef Py_ssize_t e, lo = begin_of(s, row), hi = begin_of(s, row + 1)
    if not (0 <= lo <= hi <= s.n_entries and start + hi - lo <= s.most):
        return -1
    for e in range(lo, hi):
        feature = number(s.indices, wide, e)
        if <uint64_t>feature >= <uint64_t>s.n_features:
            return -1
        at = column_of(c, feature)
        if c.last:
            if c.last[at] >= start:                     # an entry of this row has the column
                values[c.last[at]] = values[c.last[at]] + data[e]
                continue
            c.last[at] = n
        columns[n] = <int32_t>at
        values[n] = data[e]
        n += 1
    return n


cdef int64_t compact_rows(const Samples* s, const real* data, Columns* columns, real* values, int32_t* of_entry,
                          int64_t* bounds) noexcept nogil:
    """Write all rows. Returns the number of features; -1 if a number of a row or of a feature is out of range."""
    cdef Columns c = columns[0]         # a copy: after each store, gcc would read the original again
    cdef Py_ssize_t i
    bounds[0] = 0
    for i in range(s.n):
        if s.rows:
            prefetch_sample(s, data, i)
        if s.indices_wide:
            bounds[i + 1] = compact_row(s, True, data, &c, row_number(s, i), values, of_entry, bounds[i])
        else:
            bounds[i + 1] = compact_row(s, False, data, &c, row_number(s, i), values, of_entry, bounds[i])
        if bounds[i + 1] < 0:
            return -1
    return c.n


def compact(tuple X, rows, Py_ssize_t first, cnp.ndarray slots, cnp.ndarray features, last, cnp.ndarray values,
            cnp.ndarray columns, cnp.ndarray bounds):
    """Write rows of a CSR array (data, indices, indptr, n_features) as values, columns and bounds.

    The rows are those of the checked numbers `rows`; or from `first` on, as many as bounds has room for. With `last`,
    entries of a row that share a feature are summed. There must be four slots an entry, rounded up to a power of two.

    Returns the number of features; -1 if a number in X is out of range. A program may change X at any time, so the
    numbers are checked where they are read.
    """
    cdef Samples s
    cdef Columns c
    cdef cnp.ndarray data = X[0], indices = X[1], indptr = X[2]
    cdef bint double_ = data.itemsize == 8
    cdef void* d = cnp.PyArray_DATA(data)
    cdef void* v = cnp.PyArray_DATA(values)
    cdef int32_t* of_entry = <int32_t*>cnp.PyArray_DATA(columns)
    cdef int64_t* b = <int64_t*>cnp.PyArray_DATA(bounds)
    cdef int64_t found
    cdef int shift = 64 - LEAST_SLOT_BITS
    s.indices, s.indices_wide = cnp.PyArray_DATA(indices), indices.itemsize == 8
    s.indptr, s.indptr_wide = cnp.PyArray_DATA(indptr), indptr.itemsize == 8
    s.n_entries, s.n_features, s.most = indices.shape[0], X[3], values.shape[0]
    s.rows = address_or_null(rows)
    s.rows_wide = rows is not None and (<cnp.ndarray>rows).itemsize == 8
    s.first, s.n = first, bounds.shape[0] - 1
    c.features, c.n = <int64_t*>cnp.PyArray_DATA(features), 0
    c.last = <int64_t*>address_or_null(last)
    c.slots = <uint64_t*>cnp.PyArray_DATA(slots)
    while 8 * (<int64_t>1 << (64 - shift)) < slots.shape[0]:
        shift -= 1
    with nogil:
        use_slots(&c, shift)
        if double_:
            found = compact_rows(&s, <const double*>d, &c, <double*>v, of_entry, b)
        else:
            found = compact_rows(&s, <const float*>d, &c, <float*>v, of_entry, b)
    return found


def count_entries(cnp.ndarray indptr, cnp.ndarray rows, Py_ssize_t n_entries):
    """The number of entries of some rows, -1 for a bad row. The numbers of the rows must be checked."""
    cdef const void* p = cnp.PyArray_DATA(indptr)
    cdef const void* r = cnp.PyArray_DATA(rows)
    cdef bint wide = indptr.itemsize == 8, rows_wide = rows.itemsize == 8
    cdef Py_ssize_t i, lo, hi, n = 0
    for i in range(rows.shape[0]):
        lo, hi = number(p, wide, number(r, rows_wide, i)), number(p, wide, number(r, rows_wide, i) + 1)
        if not 0 <= lo <= hi <= n_entries:
            return -1
        n += hi - lo
    return n


cdef void* address_or_null(array):
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)
