# Softmax over a row of scores. The pairs of a row are its own items, each against all other items of the row.
# All passes over a row run while the row is in the cache.
#
#     loss = sum over own items k of w_k (log(e^s_k + Z) - s_k)
#     Z    = sum over the other items j of e^s_j


cdef inline real largest(const real* restrict x, Py_ssize_t n) noexcept nogil:
    """The largest number of x that is not NaN."""
    cdef real lane[16]
    cdef Py_ssize_t i, j, whole = n - n % 16
    for j in range(16):
        lane[j] = -INFINITY
    for i in range(0, whole, 16):
        for j in range(16):
            lane[j] = x[i + j] if x[i + j] > lane[j] else lane[j]
    for j in range(whole, n):
        lane[0] = x[j] if x[j] > lane[0] else lane[0]
    for j in range(1, 16):
        lane[0] = lane[j] if lane[j] > lane[0] else lane[0]
    return lane[0]


cdef inline real exponential_or_zero(real x) noexcept nogil:
    cdef real e = exponential(x)        # before the choice, so that there is no branch
    if real is float:
        return 0 if x < -87 else e
    else:
        return 0 if x < -708 else e


cdef inline real sum_of(const real* restrict x, Py_ssize_t n) noexcept nogil:
    # 16 partial sums in a fixed order, as in `dot`.
    cdef real lane[16]
    cdef real rest = 0
    cdef Py_ssize_t i, j, whole = n - n % 16
    for j in range(16):
        lane[j] = 0
    for i in range(0, whole, 16):
        for j in range(16):
            lane[j] = lane[j] + x[i + j]
    for j in range(whole, n):
        rest = rest + x[j]
    for j in range(8):
        lane[j] = lane[j] + lane[j + 8]
    for j in range(4):
        lane[j] = lane[j] + lane[j + 4]
    return ((lane[0] + lane[2]) + (lane[1] + lane[3])) + rest


cdef inline double softmax_row(real* s, const real* bias, const real* shift, Py_ssize_t n, const void* columns,
                               bint wide, const real* w, real* own, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    """Replace the scores of a row by the derivatives of its loss. Return the loss. own is scratch, as long as w.

    With L = log Z, the loss of a pair is w_k log(1 + e^(L - s_k)). So scores may be as far apart as numbers can be.
    """
    cdef real top, Z, L, scale = 0
    cdef double loss = 0
    cdef Py_ssize_t i, k
    for k in range(lo, hi):
        i = number(columns, wide, k)
        own[k] = s[i] + bias[i]
        s[i] = -INFINITY
    add(s, shift, n)
    top = largest(s, n)
    top = top if top > -INFINITY else 0
    for i in range(n):
        s[i] = exponential_or_zero(s[i] - top)
    Z = sum_of(s, n)
    if Z == 0:                          # there are no other items
        return 0
    L = top + logarithm(Z) if Z < INFINITY else Z - Z           # NaN if a score is not finite
    for k in range(lo, hi):
        loss += <double>w[k] * softplus(L - own[k])
        own[k] = w[k] * sigmoid(L - own[k])
        scale = scale + own[k]
    scale = scale / Z
    for i in range(n):
        s[i] = s[i] * scale
    for k in range(lo, hi):
        s[number(columns, wide, k)] = -own[k]
    return loss


def softmax_rows(real[:, ::1] scores, const real[::1] bias, const real[::1] shift, cnp.ndarray indptr,
                 cnp.ndarray columns, const real[::1] weights, real[::1] own, double[::1] losses, int threads):
    """Replace products of vectors by the derivatives of the loss with respect to the scores. Set the loss of each row.

    shift is added to the products of items that are not the row's own, and bias to the row's own. indptr and columns
    are those of a checked CSR array without repeated entries.
    """
    cdef Py_ssize_t r, n = scores.shape[1], rows = scores.shape[0]
    cdef bint wide = columns.itemsize == 8, indptr_wide = indptr.itemsize == 8
    cdef const void* c = cnp.PyArray_DATA(columns)
    cdef const void* p = cnp.PyArray_DATA(indptr)
    if n == 0 or rows == 0:
        losses[:] = 0
        return
    cdef real* first = &scores[0, 0]
    cdef const real* w = &weights[0] if weights.shape[0] else NULL
    cdef real* o = &own[0] if own.shape[0] else NULL
    cdef const real* b = &bias[0]
    cdef const real* h = &shift[0]
    threads = useful_threads(scores.size * 16, threads)
    with nogil:
        for r in prange(rows, schedule="static", num_threads=threads):
            losses[r] = softmax_row(first + r * n, b, h, n, c, wide, w, o, number(p, indptr_wide, r),
                                    number(p, indptr_wide, r + 1))


def add_scaled_rows(real[:, ::1] sums, real[::1] weights, real[:, ::1] terms):
    """Add weights[i] * terms[i] to each row of sums. Rows of weight 0 are not read."""
    cdef Py_ssize_t i, dim = sums.shape[1]
    with nogil:
        for i in range(sums.shape[0]):
            if weights[i] != 0:
                add_scaled(&sums[i, 0], weights[i], &terms[i, 0], dim)
