# The touch limit: what it costs merely to add a gradient to every array that an update reads and writes, in the same rows.
# No rule, no plan, no settings: the least that memory has to do.  It knows nothing of the sweep, so as to be a measure of it.


cdef void touch_rows(const void* rows, bint wide, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t n, const real* values,
                     Py_ssize_t dim, real** arrays, int n_arrays, real** numbers, int n_numbers,
                     int32_t* steps, Py_ssize_t ahead) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef int64_t row
    cdef int a
    cdef real* restrict w
    cdef const real* restrict g
    for i in range(lo, hi):
        if i + ahead < n:
            row = number(rows, wide, i + ahead)
            for a in range(n_arrays):
                prefetch_row(<const char*>(arrays[a] + row * dim), dim * sizeof(real))
            for a in range(n_numbers):
                prefetch(numbers[a] + row)
            if steps:
                prefetch(steps + row)
        row = number(rows, wide, i)
        g = values + i * dim
        for a in range(n_arrays):
            w = arrays[a] + row * dim
            for j in range(dim):
                w[j] = w[j] + g[j]
        for a in range(n_numbers):
            numbers[a][row] = numbers[a][row] + 1
        if steps:
            steps[row] += 1


cdef void touch_all(const void* rows, bint wide, Py_ssize_t n, const real* values, Py_ssize_t dim, real** arrays,
                    int n_arrays, real** numbers, int n_numbers, int32_t* steps, Py_ssize_t ahead,
                    int threads) noexcept nogil:
    cdef Py_ssize_t part
    if threads == 1:
        touch_rows(rows, wide, 0, n, n, values, dim, arrays, n_arrays, numbers, n_numbers, steps, ahead)
        return
    for part in prange(threads, num_threads=threads, schedule="static"):
        touch_rows(rows, wide, part * n // threads, (part + 1) * n // threads, n, values, dim, arrays, n_arrays, numbers,
                   n_numbers, steps, ahead)


def touch(cnp.ndarray rows, cnp.ndarray values, list arrays, list numbers, steps, Py_ssize_t ahead, int threads):
    """Add `values` (k, dim) to the given rows of arrays (n_rows, dim), and 1 to those of `numbers` and `steps` (n_rows,)."""
    cdef double* a64[8]
    cdef float* a32[8]
    cdef double* n64[8]
    cdef float* n32[8]
    cdef Py_ssize_t n = rows.shape[0], dim = values.shape[1] if values.ndim == 2 else 1
    cdef bint wide = cnp.PyArray_ITEMSIZE(rows) == 8
    cdef const void* r = cnp.PyArray_DATA(rows)
    cdef const void* v = cnp.PyArray_DATA(values)
    cdef int32_t* s = <int32_t*>cnp.PyArray_DATA(steps) if steps is not None else NULL
    cdef int n_arrays = len(arrays), n_numbers = len(numbers)
    for i, array in enumerate(arrays):
        a64[i] = <double*>cnp.PyArray_DATA(array)
        a32[i] = <float*>cnp.PyArray_DATA(array)
    for i, array in enumerate(numbers):
        n64[i] = <double*>cnp.PyArray_DATA(array)
        n32[i] = <float*>cnp.PyArray_DATA(array)
    with nogil:
        if cnp.PyArray_ITEMSIZE(values) == 8:
            touch_all(r, wide, n, <const double*>v, dim, a64, n_arrays, n64, n_numbers, s, ahead, threads)
        else:
            touch_all(r, wide, n, <const float*>v, dim, a32, n_arrays, n32, n_numbers, s, ahead, threads)
