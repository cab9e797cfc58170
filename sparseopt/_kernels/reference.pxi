# The reference loop of the benchmark: add the gradient to every array that an update reads and writes, in the same
# rows. The loop has no rule, no plan and no settings, and uses nothing of the driver that is compared with it.


cdef enum:
    ENTRIES_FAR = 32        # entries from the prefetch of unordered values into the L2 cache to the use.
    ENTRIES_CLOSE = 8       # and into the L1 cache.
    ONE_THREAD = 65536      # numbers of a gradient below which one thread adds, as in a step.


cdef struct Reference:
    const void* rows        # NULL: 0, 1, 2, ...
    bint wide
    Py_ssize_t n
    const int64_t* starts   # row i has the entries starts[i] to starts[i + 1] - 1; NULL: entry i.
    const int64_t* order    # entry e stands at values[order[e]]; NULL: at values[e].
    Py_ssize_t n_entries
    Py_ssize_t dim
    void* arrays[8]         # with one row for each row of the table.
    int n_arrays
    void* numbers[8]        # with one number for each row.
    int n_numbers
    int32_t* steps
    Py_ssize_t ahead        # rows from the prefetch into the L2 cache to the use.
    Py_ssize_t near         # rows from the prefetch into the L1 cache to the use; 0: none.
    bint close              # whether whole rows go into the L1 cache, or their first lines.
    Py_ssize_t together     # rows whose first lines are prefetched at once; 0: none.
    Py_ssize_t values_ahead # rows from the prefetch of a gradient to its use; 0: none.


cdef inline void fetch(const void* start, Py_ssize_t n_bytes, bint close) noexcept nogil:
    cdef const char* line = <const char*>start
    cdef const char* end = line + n_bytes
    while line < end:
        if close:
            prefetch_near(line)
        else:
            prefetch(line)
        line += 64


cdef inline const real* values_of(const Reference* t, Py_ssize_t i, const real* values, real* sum_) noexcept nogil:
    """The gradient of the i-th row: in place if it has one entry, else summed."""
    cdef int64_t e
    cdef Py_ssize_t j
    cdef const real* g = values + i * t.dim
    cdef bint alone = not t.starts or t.starts[i + 1] == t.starts[i] + 1
    if not t.starts and t.values_ahead:
        fetch(g + t.values_ahead * t.dim, t.dim * sizeof(real), True)
    if t.starts:
        for e in range(t.starts[i], t.starts[i + 1]):
            if t.order and e + ENTRIES_FAR < t.n_entries:
                fetch(values + t.order[e + ENTRIES_FAR] * t.dim, t.dim * sizeof(real), False)
                prefetch_near(values + t.order[e + ENTRIES_CLOSE] * t.dim)
            elif t.values_ahead and not t.order:
                fetch(values + (e + t.values_ahead) * t.dim, t.dim * sizeof(real), True)
            g = values + (t.order[e] if t.order else e) * t.dim
            if not alone:
                if e == t.starts[i]:
                    memcpy(sum_, g, t.dim * sizeof(real))
                else:
                    for j in range(t.dim):
                        sum_[j] = sum_[j] + g[j]
    return g if alone else sum_


cdef void reference_together(const Reference* t, Py_ssize_t lo, Py_ssize_t hi, const real* values) noexcept nogil:
    # values only sets the fused type
    cdef Py_ssize_t i
    cdef int a
    for a in range(t.n_arrays):
        for i in range(lo, hi):
            prefetch(<real*>t.arrays[a] + number(t.rows, t.wide, i) * t.dim)
    if t.steps:
        for i in range(lo, hi):
            prefetch(t.steps + number(t.rows, t.wide, i))


cdef void reference_rows(const Reference* reference, Py_ssize_t lo, Py_ssize_t hi, const real* values,
                         real* sum_) noexcept nogil:
    cdef Reference t = reference[0]
    cdef Py_ssize_t i, j
    cdef int64_t row, later
    cdef int a
    cdef real* restrict w
    cdef const real* restrict g
    for i in range(lo - t.ahead, hi):
        row = number(t.rows, t.wide, max(i, lo)) if t.rows else max(i, lo)
        later = number(t.rows, t.wide, i + t.ahead) if t.rows and i + t.ahead < t.n else i + t.ahead
        if t.together and t.rows and i >= lo and (i - lo) % t.together == 0:
            reference_together(&t, min(t.n, i + t.ahead + t.together), min(t.n, i + t.ahead + 2 * t.together), values)
        if i + t.ahead < t.n and (i <= lo or later != row + t.ahead):
            for a in range(t.n_arrays):
                fetch(<real*>t.arrays[a] + later * t.dim, t.dim * sizeof(real), False)
            for a in range(t.n_numbers):
                prefetch(<real*>t.numbers[a] + later)
            if t.steps:
                prefetch(t.steps + later)
            if t.near and i + t.near >= lo:
                later = number(t.rows, t.wide, i + t.near) if t.rows else i + t.near
                for a in range(t.n_arrays):
                    fetch(<real*>t.arrays[a] + later * t.dim, t.dim * sizeof(real) if t.close else 1, True)
        if i < lo:
            continue
        g = values_of(reference, i, values, sum_)
        for a in range(t.n_arrays):
            w = <real*>t.arrays[a] + row * t.dim
            for j in range(t.dim):
                w[j] = w[j] + g[j]
        for a in range(t.n_numbers):
            (<real*>t.numbers[a])[row] = (<real*>t.numbers[a])[row] + 1
        if t.steps:
            t.steps[row] += 1


cdef void reference_all(const Reference* t, const real* values, int threads, real* sums) noexcept nogil:
    cdef Py_ssize_t part
    if threads == 1:
        reference_rows(t, 0, t.n, values, sums)
        return
    for part in prange(threads, num_threads=threads, schedule="static"):
        reference_rows(t, part * t.n // threads, (part + 1) * t.n // threads, values, sums + part * (t.dim + 64))


def reference_loop(rows, cnp.ndarray values, starts, order, list arrays, list numbers, steps, Py_ssize_t ahead,
                   Py_ssize_t near, bint close, Py_ssize_t together, Py_ssize_t values_ahead, int threads):
    """Add a gradient to rows of `arrays` (n_rows, dim), and 1 to the same rows of `numbers` and `steps` (n_rows,).

    Row `rows[i]`, or row i without `rows`, gets `values[i]`. With `starts` (int64, one more than rows) the row gets the
    sum of values[starts[i]:starts[i + 1]], and with `order` (int64) of values[order[starts[i]:starts[i + 1]]].

    The distances of the prefetches, in rows: the fields of `Reference` explain each.
    """
    cdef Reference t
    cdef bint double_ = cnp.PyArray_ITEMSIZE(values) == 8
    t.n = len(rows) if rows is not None else len(values)
    t.dim = values.shape[1] if values.ndim == 2 else 1
    t.wide = rows is not None and cnp.PyArray_ITEMSIZE(<cnp.ndarray>rows) == 8
    t.rows = cnp.PyArray_DATA(<cnp.ndarray>rows) if rows is not None else NULL
    t.starts = <const int64_t*>cnp.PyArray_DATA(starts) if starts is not None else NULL
    t.order = <const int64_t*>cnp.PyArray_DATA(order) if order is not None else NULL
    t.steps = <int32_t*>cnp.PyArray_DATA(steps) if steps is not None else NULL
    t.n_entries = len(values)
    t.ahead, t.near, t.close, t.together, t.values_ahead = ahead, near, close, together, values_ahead
    t.n_arrays, t.n_numbers = len(arrays), len(numbers)
    if t.n_arrays > 8 or t.n_numbers > 8:
        raise ValueError(f"{t.n_arrays} arrays and {t.n_numbers} numbers; at most 8 of each")
    if t.n * (t.dim + 8) < ONE_THREAD:
        threads = 1
    for i, array in enumerate(arrays):
        t.arrays[i] = cnp.PyArray_DATA(array)
    for i, array in enumerate(numbers):
        t.numbers[i] = cnp.PyArray_DATA(array)
    cdef cnp.ndarray sums = np.empty((threads, t.dim + 64), dtype=values.dtype)     # 64 more: no shared cache lines.
    cdef const void* v = cnp.PyArray_DATA(values)
    cdef void* s = cnp.PyArray_DATA(sums)
    with nogil:
        if double_:
            reference_all(&t, <const double*>v, threads, <double*>s)
        else:
            reference_all(&t, <const float*>v, threads, <float*>s)
