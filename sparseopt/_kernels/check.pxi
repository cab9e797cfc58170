# Passes over a whole gradient before a step: its norm, its largest magnitude, its rows that are not finite.


cdef void square_sums(const Target* t, const Source* s, const Settings* how, double* sums, Py_ssize_t n, real* scratch,
                      Py_ssize_t pad, int threads) noexcept nogil:
    cdef Py_ssize_t i
    for i in prange(n, schedule="static", num_threads=threads):
        sums[i] = square_sum_of(t, s, how, i, scratch + threadid() * pad)


cdef double square_sum_of(const Target* t, const Source* s, const Settings* how, Py_ssize_t i,
                          real* scratch) noexcept nogil:
    return square_sum(clipped(how, gather(t, s, i, scratch), scratch, t.dim), t.dim)


cdef real largest_of_rows(const real* x, Py_ssize_t stride, Py_ssize_t lo, Py_ssize_t hi,
                          Py_ssize_t columns) noexcept nogil:
    cdef Py_ssize_t i
    cdef real top = 0
    if stride == columns:
        return largest_magnitude(x + lo * stride, (hi - lo) * columns)
    for i in range(lo, hi):
        top = top_of(top, largest_magnitude(x + i * stride, columns))
    return top


cdef void largest_of_blocks(const real* x, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t height,
                            double* tops, Py_ssize_t n_blocks, int threads) noexcept nogil:
    # From the last block to the first: the update begins with the blocks that the caches still hold.
    cdef Py_ssize_t i, block
    for i in prange(n_blocks, schedule="static", chunksize=1, num_threads=threads):
        block = n_blocks - 1 - i
        tops[block] = largest_of_rows(x, stride, block * height, min(rows, (block + 1) * height), columns)


cdef double largest(const real* x, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t columns, int threads) except? -1:
    """The largest magnitude in an array; infinity or NaN if the array has one."""
    cdef Py_ssize_t height = max(1, 65536 // max(1, columns)), block, n_blocks = (rows + height - 1) // height
    cdef double top = 0
    cdef double* tops
    if n_blocks <= 1:
        return largest_of_rows(x, stride, 0, rows, columns)
    tops = <double*>PyMem_RawMalloc(n_blocks * sizeof(double))
    if tops == NULL:
        raise MemoryError
    with nogil:
        largest_of_blocks(x, stride, rows, columns, height, tops, n_blocks, threads)
        for block in range(n_blocks):
            top = top_of(top, tops[block])
    PyMem_RawFree(tops)
    return top


cdef double bound(const Source* s, Py_ssize_t longest, int threads, real like) except? -1:
    """A bound on the magnitude of a gradient's numbers, for rows of `longest` entries at most. `like` sets the type."""
    cdef double value = largest(<const real*>s.values, s.stride, s.value_rows, s.value_columns, threads), weight = 1
    if s.weights:
        weight = largest(<const real*>s.weights, 1, s.n_weights, 1, threads)
    return <double><real>(2 * value * weight * longest)


cdef void mark_nonfinite(const Target* t, const Source* s, uint8_t* marks, Py_ssize_t n, real* scratch) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        marks[i] = not isfinite(largest_magnitude(gather(t, s, i, scratch), t.dim))
