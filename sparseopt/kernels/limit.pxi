# The touch limit: what it costs merely to add a gradient to every array that an update reads and writes, in the same rows.
# No rule, no plan, no settings: the least that memory has to do.  It knows nothing of the sweep, so as to be a measure of it.


cdef void touch_rows(const void* rows, bint wide, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t n, const real* values,
                     const int64_t* starts, Py_ssize_t dim, real** arrays, int n_arrays, real** numbers, int n_numbers,
                     int32_t* steps, Py_ssize_t ahead, Py_ssize_t near, real* sum_) noexcept nogil:
    cdef Py_ssize_t i, j, e
    cdef int64_t row, later
    cdef int a
    cdef real* restrict w
    cdef const real* restrict g
    for i in range(lo - ahead, hi):
        row = number(rows, wide, max(i, lo)) if rows else max(i, lo)
        later = number(rows, wide, i + ahead) if rows and i + ahead < n else i + ahead
        if i + ahead < n and (i <= lo or later != row + ahead):
            for a in range(n_arrays):
                prefetch_row(<const char*>(arrays[a] + later * dim), dim * sizeof(real))
            for a in range(n_numbers):
                prefetch(numbers[a] + later)
            if steps:
                prefetch(steps + later)
            if near and i + near >= lo:
                later = number(rows, wide, i + near) if rows else i + near
                for a in range(n_arrays):
                    prefetch_near(arrays[a] + later * dim)
        if i < lo:
            continue
        g = values + (starts[i] if starts else i) * dim
        if starts and starts[i + 1] > starts[i] + 1:
            memcpy(sum_, g, dim * sizeof(real))
            for e in range(starts[i] + 1, starts[i + 1]):
                add(sum_, values + e * dim, dim)
            g = sum_
        for a in range(n_arrays):
            w = arrays[a] + row * dim
            for j in range(dim):
                w[j] = w[j] + g[j]
        for a in range(n_numbers):
            numbers[a][row] = numbers[a][row] + 1
        if steps:
            steps[row] += 1


cdef void touch_all(const void* rows, bint wide, Py_ssize_t n, const real* values, const int64_t* starts, Py_ssize_t dim,
                    real** arrays, int n_arrays, real** numbers, int n_numbers, int32_t* steps, Py_ssize_t ahead,
                    Py_ssize_t near, int threads, real* sums, Py_ssize_t pad) noexcept nogil:
    cdef Py_ssize_t part
    if threads == 1:
        touch_rows(rows, wide, 0, n, n, values, starts, dim, arrays, n_arrays, numbers, n_numbers, steps, ahead, near,
                   sums)
        return
    for part in prange(threads, num_threads=threads, schedule="static"):
        touch_rows(rows, wide, part * n // threads, (part + 1) * n // threads, n, values, starts, dim, arrays, n_arrays,
                   numbers, n_numbers, steps, ahead, near, sums + part * pad)


def touch(rows, cnp.ndarray values, starts, list arrays, list numbers, steps, Py_ssize_t ahead,
          Py_ssize_t near, int threads):
    """Add `values` to the given rows of arrays (n_rows, dim), and 1 to those of `numbers` and `steps` (n_rows,).

    Without rows, to the first ones.  Row `rows[i]` gets `values[i]`, or, with `starts` (int64, one more than rows), the sum
    of values[starts[i]:starts[i + 1]].
    Whole rows are prefetched `ahead` rows before their use, and their first lines once more `near` rows before it.
    """
    cdef double* a64[8]
    cdef float* a32[8]
    cdef double* n64[8]
    cdef float* n32[8]
    cdef Py_ssize_t n = len(rows) if rows is not None else len(values), dim = values.shape[1] if values.ndim == 2 else 1
    cdef bint wide = rows is not None and cnp.PyArray_ITEMSIZE(<cnp.ndarray>rows) == 8
    cdef const void* r = cnp.PyArray_DATA(<cnp.ndarray>rows) if rows is not None else NULL
    cdef const void* v = cnp.PyArray_DATA(values)
    cdef int32_t* s = <int32_t*>cnp.PyArray_DATA(steps) if steps is not None else NULL
    cdef const int64_t* first = <const int64_t*>cnp.PyArray_DATA(starts) if starts is not None else NULL
    cdef Scratch scratch = Scratch(dim, cnp.PyArray_ITEMSIZE(values), threads)
    cdef int n_arrays = len(arrays), n_numbers = len(numbers)
    if n_arrays > 8 or n_numbers > 8:
        raise ValueError(f"{n_arrays} arrays and {n_numbers} numbers; at most 8 of each")
    if n * (dim + 8) < WORTH_THREADS:
        threads = 1
    for i, array in enumerate(arrays):
        a64[i] = <double*>cnp.PyArray_DATA(array)
        a32[i] = <float*>cnp.PyArray_DATA(array)
    for i, array in enumerate(numbers):
        n64[i] = <double*>cnp.PyArray_DATA(array)
        n32[i] = <float*>cnp.PyArray_DATA(array)
    with nogil:
        if cnp.PyArray_ITEMSIZE(values) == 8:
            touch_all(r, wide, n, <const double*>v, first, dim, a64, n_arrays, n64, n_numbers, s, ahead, near, threads,
                      <double*>scratch.rows, scratch.pad)
        else:
            touch_all(r, wide, n, <const float*>v, first, dim, a32, n_arrays, n32, n_numbers, s, ahead, near, threads,
                      <float*>scratch.rows, scratch.pad)
