# Kernels of sparseopt.embedding: gather rows of a table, dot products of rows, products of a CSR array and a table.
# Every sum has a fixed order, so the number of threads and the instruction set change no bit.

cdef enum:
    LOOKUP_PREFETCH_ROWS = 16       # rows from a prefetch to the use
    LOOKUP_BLOCK_ROWS = 256         # largest number of rows that a thread takes at a time


cdef struct Rows:           # a sequence of rows of an array
    const char* array
    Py_ssize_t row_bytes
    const void* numbers     # row numbers; NULL: 0, 1, 2, ...
    bint wide               # numbers are int64, else int32
    Py_ssize_t n            # length of the sequence


cdef inline const char* address_of_row(const Rows* r, Py_ssize_t i) noexcept nogil:
    return r.array + (number(r.numbers, r.wide, i) if r.numbers else i) * r.row_bytes


cdef inline void prefetch_later_row(const Rows* r, Py_ssize_t i, Py_ssize_t n_bytes) noexcept nogil:
    if r.numbers and i + LOOKUP_PREFETCH_ROWS < r.n:
        prefetch_row(False, address_of_row(r, i + LOOKUP_PREFETCH_ROWS), n_bytes)


cdef inline Py_ssize_t rows_per_block(Py_ssize_t n, int threads) noexcept nogil:
    return max(1, min(LOOKUP_BLOCK_ROWS, n // (4 * threads)))


cdef void copy_rows(const Rows* rows, char* out, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(lo, hi):
        prefetch_later_row(rows, i, rows.row_bytes)
        memcpy(out + i * rows.row_bytes, address_of_row(rows, i), rows.row_bytes)


cdef void dot_rows(const Rows* x, const Rows* y, Py_ssize_t each, real* out, Py_ssize_t dim, Py_ssize_t lo,
                   Py_ssize_t hi) noexcept nogil:
    # Row i of x meets the rows i * each ... (i + 1) * each - 1 of y.
    cdef Py_ssize_t i, k
    for i in range(lo, hi):
        prefetch_later_row(x, i, dim * sizeof(real))
        for k in range(i * each, (i + 1) * each):
            prefetch_later_row(y, k, dim * sizeof(real))
            out[k] = dot(<const real*>address_of_row(x, i), <const real*>address_of_row(y, k), dim)


cdef void dot_all(const Rows* x, const Rows* y, Py_ssize_t each, real* out, Py_ssize_t dim, int threads) noexcept nogil:
    cdef Py_ssize_t block, size = rows_per_block(x.n, threads)
    if threads == 1:
        dot_rows(x, y, each, out, dim, 0, x.n)
        return
    for block in prange((x.n + size - 1) // size, schedule="static", num_threads=threads):
        dot_rows(x, y, each, out, dim, block * size, min(x.n, (block + 1) * size))


cdef void matmul_rows(const real* weights, const Rows* rows, const void* indptr, bint indptr_wide, real* out,
                      Py_ssize_t dim, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    cdef Py_ssize_t i, j, e
    for i in range(lo, hi):
        for j in range(dim):
            out[i * dim + j] = 0
        for e in range(number(indptr, indptr_wide, i), number(indptr, indptr_wide, i + 1)):
            prefetch_later_row(rows, e, dim * sizeof(real))
            add_scaled(out + i * dim, weights[e], <const real*>address_of_row(rows, e), dim)


cdef void matmul_all(const real* weights, const Rows* rows, const void* indptr, bint indptr_wide, real* out,
                     Py_ssize_t dim, Py_ssize_t n, int threads) noexcept nogil:
    cdef Py_ssize_t block, size = rows_per_block(n, threads)
    if threads == 1:
        matmul_rows(weights, rows, indptr, indptr_wide, out, dim, 0, n)
        return
    for block in prange((n + size - 1) // size, schedule="static", num_threads=threads):
        matmul_rows(weights, rows, indptr, indptr_wide, out, dim, block * size, min(n, (block + 1) * size))


cdef Rows make_rows(cnp.ndarray array, numbers):
    cdef Rows r
    r.array = <const char*>cnp.PyArray_DATA(array)
    r.row_bytes = (array.strides[0] if array.shape[0] > 1
                   else (array.shape[1] if array.ndim == 2 else 1) * array.itemsize)
    r.numbers = cnp.PyArray_DATA(<cnp.ndarray>numbers) if numbers is not None else NULL
    r.wide = numbers is not None and cnp.PyArray_ITEMSIZE(<cnp.ndarray>numbers) == 8
    r.n = (<cnp.ndarray>numbers).size if numbers is not None else array.shape[0]
    return r


cdef int useful_threads(Py_ssize_t work, int threads) noexcept:
    return threads if work >= WORTH_THREADS else 1


def take(cnp.ndarray table, numbers, cnp.ndarray out, int threads):
    """Copy rows of `table` to `out`. The row numbers must be checked; None means all rows."""
    cdef Rows rows = make_rows(table, numbers)
    cdef char* o = <char*>cnp.PyArray_DATA(out)
    cdef Py_ssize_t block, size
    threads = useful_threads(out.size, threads)
    size = rows_per_block(rows.n, threads)
    rows.row_bytes = rows.row_bytes if table.size else 0
    with nogil:
        for block in prange((rows.n + size - 1) // size, schedule="static", num_threads=threads):
            copy_rows(&rows, o, block * size, min(rows.n, (block + 1) * size))


def dots(cnp.ndarray x, i, cnp.ndarray y, j, cnp.ndarray out, int threads):
    """Dot products of rows of x with rows of y.

    i and j are checked row numbers, or None for all rows.  y may have k times as many rows as x.
    Then each row of x meets k consecutive rows of y.
    """
    cdef Rows first = make_rows(x, i), second = make_rows(y, j)
    cdef Py_ssize_t dim = x.shape[1] if x.ndim == 2 else 1, each = out.size // max(1, first.n)
    cdef void* o = cnp.PyArray_DATA(out)
    threads = useful_threads(out.size * (dim + 8), threads)
    cdef bint double_ = out.itemsize == 8
    with nogil:
        if double_:
            dot_all(&first, &second, each, <double*>o, dim, threads)
        else:
            dot_all(&first, &second, each, <float*>o, dim, threads)


def matmul(cnp.ndarray weights, cnp.ndarray indices, cnp.ndarray indptr, cnp.ndarray table, cnp.ndarray out,
           int threads):
    """The product of a CSR array and a table.  indices and indptr must be checked."""
    cdef Rows rows = make_rows(table, indices)
    cdef Py_ssize_t dim = table.shape[1] if table.ndim == 2 else 1, n = indptr.shape[0] - 1
    cdef bint wide = indptr.itemsize == 8
    cdef const void* w = cnp.PyArray_DATA(weights)
    cdef const void* p = cnp.PyArray_DATA(indptr)
    cdef void* o = cnp.PyArray_DATA(out)
    threads = useful_threads(indices.size * (dim + 8), threads)
    cdef bint double_ = out.itemsize == 8
    with nogil:
        if double_:
            matmul_all(<const double*>w, &rows, p, wide, <double*>o, dim, n, threads)
        else:
            matmul_all(<const float*>w, &rows, p, wide, <float*>o, dim, n, threads)
