# The touch limit: what it costs merely to add a gradient to every array that an update reads and writes, in the same rows.
# No rule, no plan, no settings: the least that memory has to do.  It knows nothing of the sweep, so as to be a measure of it.


cdef struct Touch:
    const void* rows
    bint wide
    Py_ssize_t n
    const int64_t* starts
    const int64_t* order
    Py_ssize_t n_entries
    Py_ssize_t dim
    void* arrays[8]
    int n_arrays
    void* numbers[8]
    int n_numbers
    int32_t* steps
    Py_ssize_t ahead
    Py_ssize_t near
    bint close
    Py_ssize_t together
    Py_ssize_t values


cdef inline const real* values_of(const Touch* t, Py_ssize_t i, const real* values, real* sum_) noexcept nogil:
    cdef int64_t e
    cdef const real* g = values + i * t.dim
    cdef bint alone = not t.starts or t.starts[i + 1] == t.starts[i] + 1
    if not t.starts and t.values:
        prefetch_row(True, <const char*>(g + t.values * t.dim), t.dim * sizeof(real))
    if t.starts:
        for e in range(t.starts[i], t.starts[i + 1]):
            if t.order and e + SCATTERED < t.n_entries:
                prefetch_row(False, <const char*>(values + t.order[e + SCATTERED] * t.dim), t.dim * sizeof(real))
                prefetch_near(values + t.order[e + NEAR_ENTRIES] * t.dim)
            elif t.values and not t.order:
                prefetch_row(True, <const char*>(values + (e + t.values) * t.dim), t.dim * sizeof(real))
            g = values + (t.order[e] if t.order else e) * t.dim
            if not alone:
                if e == t.starts[i]:
                    memcpy(sum_, g, t.dim * sizeof(real))
                else:
                    add(sum_, g, t.dim)
    return g if alone else sum_


cdef void touch_together(const Touch* t, Py_ssize_t lo, Py_ssize_t hi, const real* values) noexcept nogil:
    # values: for their type
    cdef Py_ssize_t i
    cdef int a
    for a in range(t.n_arrays):
        for i in range(lo, hi):
            prefetch(<real*>t.arrays[a] + number(t.rows, t.wide, i) * t.dim)
    if t.steps:
        for i in range(lo, hi):
            prefetch(t.steps + number(t.rows, t.wide, i))


cdef void touch_rows(const Touch* touched, Py_ssize_t lo, Py_ssize_t hi, const real* values, real* sum_) noexcept nogil:
    cdef Touch t = touched[0]
    cdef Py_ssize_t i, j
    cdef int64_t row, later
    cdef int a
    cdef real* restrict w
    cdef const real* restrict g
    for i in range(lo - t.ahead, hi):
        row = number(t.rows, t.wide, max(i, lo)) if t.rows else max(i, lo)
        later = number(t.rows, t.wide, i + t.ahead) if t.rows and i + t.ahead < t.n else i + t.ahead
        if t.together and t.rows and i >= lo and (i - lo) % t.together == 0:
            touch_together(&t, min(t.n, i + t.ahead + t.together), min(t.n, i + t.ahead + 2 * t.together), values)
        if i + t.ahead < t.n and (i <= lo or later != row + t.ahead):
            for a in range(t.n_arrays):
                prefetch_row(False, <const char*>(<real*>t.arrays[a] + later * t.dim), t.dim * sizeof(real))
            for a in range(t.n_numbers):
                prefetch(<real*>t.numbers[a] + later)
            if t.steps:
                prefetch(t.steps + later)
            if t.near and i + t.near >= lo:
                later = number(t.rows, t.wide, i + t.near) if t.rows else i + t.near
                for a in range(t.n_arrays):
                    prefetch_row(True, <const char*>(<real*>t.arrays[a] + later * t.dim),
                                 t.dim * sizeof(real) if t.close else 1)
        if i < lo:
            continue
        g = values_of(touched, i, values, sum_)
        for a in range(t.n_arrays):
            w = <real*>t.arrays[a] + row * t.dim
            for j in range(t.dim):
                w[j] = w[j] + g[j]
        for a in range(t.n_numbers):
            (<real*>t.numbers[a])[row] = (<real*>t.numbers[a])[row] + 1
        if t.steps:
            t.steps[row] += 1


cdef void touch_all(const Touch* t, const real* values, int threads, real* sums, Py_ssize_t pad) noexcept nogil:
    cdef Py_ssize_t part
    if threads == 1:
        touch_rows(t, 0, t.n, values, sums)
        return
    for part in prange(threads, num_threads=threads, schedule="static"):
        touch_rows(t, part * t.n // threads, (part + 1) * t.n // threads, values, sums + part * pad)


def touch(rows, cnp.ndarray values, starts, order, list arrays, list numbers, steps, Py_ssize_t ahead, Py_ssize_t near,
          bint close, Py_ssize_t together, Py_ssize_t values_ahead, int threads):
    """Add `values` to the given rows of arrays (n_rows, dim), and 1 to those of `numbers` and `steps` (n_rows,).

    Without rows, to the first ones.  Row `rows[i]` gets `values[i]`, or, with `starts` (int64, one more than rows), the sum
    of values[starts[i]:starts[i + 1]], or, with `order` (int64) too, of values[order[starts[i]:starts[i + 1]]].
    Whole rows are prefetched `ahead` rows before their use; `near` rows before it once more, their first lines or, if `close`,
    all of them; first lines, if `together` is not 0, already so many rows before the rest, and so many at a time; and values,
    unless in another order, `values_ahead` of theirs before.  Each is left out where it is 0.
    """
    cdef Touch t
    t.n = len(rows) if rows is not None else len(values)
    t.dim = values.shape[1] if values.ndim == 2 else 1
    t.wide = rows is not None and cnp.PyArray_ITEMSIZE(<cnp.ndarray>rows) == 8
    t.rows = cnp.PyArray_DATA(<cnp.ndarray>rows) if rows is not None else NULL
    t.starts = <const int64_t*>cnp.PyArray_DATA(starts) if starts is not None else NULL
    t.order = <const int64_t*>cnp.PyArray_DATA(order) if order is not None else NULL
    t.n_entries = len(values)
    t.steps = <int32_t*>cnp.PyArray_DATA(steps) if steps is not None else NULL
    t.ahead = ahead
    t.near = near
    t.close = close
    t.values = values_ahead
    t.together = together
    t.n_arrays = len(arrays)
    t.n_numbers = len(numbers)
    cdef const void* v = cnp.PyArray_DATA(values)
    if t.n_arrays > 8 or t.n_numbers > 8:
        raise ValueError(f"{t.n_arrays} arrays and {t.n_numbers} numbers; at most 8 of each")
    if t.n * (t.dim + 8) < WORTH_THREADS:
        threads = 1
    cdef Scratch scratch = scratch_of(t.dim, cnp.PyArray_ITEMSIZE(values), threads)
    for i, array in enumerate(arrays):
        t.arrays[i] = cnp.PyArray_DATA(array)
    for i, array in enumerate(numbers):
        t.numbers[i] = cnp.PyArray_DATA(array)
    with nogil:
        if cnp.PyArray_ITEMSIZE(values) == 8:
            touch_all(&t, <const double*>v, threads, <double*>scratch.rows, scratch.pad)
        else:
            touch_all(&t, <const float*>v, threads, <float*>scratch.rows, scratch.pad)
