# The losses of linear models: log-loss of two classes, log-loss of more, half the squared error.
# score = b + sum of x w over the features of a sample.


cdef enum:
    LOG_LOSS = 0            # y is 0 or 1
    SQUARED_ERROR = 1
    SOFTMAX = 2             # y is the number of a class
    LOSS_BLOCK = 256        # samples whose losses are computed together


cdef struct Batch:          # a small CSR array that compact has written
    const void* values
    const int32_t* columns
    const int64_t* bounds
    const int64_t* features
    Py_ssize_t n            # samples
    Py_ssize_t n_columns


cdef struct Targets:
    int kind
    const void* y           # real; with SOFTMAX, int64
    const double* weight    # of each sample; NULL: 1


cdef inline real log_loss(real y, real z, real* slope) noexcept nogil:
    """-log P(y) with P(1) = 1 / (1 + e^-z), and its derivative with respect to z."""
    cdef real sign = 1 - 2 * y
    slope[0] = sign * sigmoid(sign * z)
    return softplus(sign * z)


cdef inline real half_square(real y, real z, real* slope) noexcept nogil:
    """(z - y)^2 / 2, and its derivative with respect to z."""
    slope[0] = z - y
    return slope[0] * slope[0] * <real>0.5


cdef inline real softmax_loss(int64_t y, real* z, Py_ssize_t k) noexcept nogil:
    """-log P(y) with P(c) = e^z[c] / sum of all e^z. Sets z to the derivatives with respect to z."""
    cdef real highest = z[0], total = 0, loss
    cdef Py_ssize_t c
    for c in range(1, k):
        highest = larger(highest, z[c])
    loss = highest - z[y]
    for c in range(k):
        z[c] = exponential(z[c] - highest)
    for c in range(k):
        total = total + z[c]
    for c in range(k):
        z[c] = z[c] / total
    z[y] = z[y] - 1
    return loss + logarithm(total) + (total - total)    # a NaN stays a NaN


cdef double slopes_of(const Targets* t, real* z, double* slopes, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """The sum of the losses of all samples, and its derivatives with respect to the scores z. Overwrites z."""
    cdef real losses[LOSS_BLOCK]
    cdef const real* y = <const real*>t.y
    cdef double total = 0, weight
    cdef Py_ssize_t i, j, lo = 0, m
    while lo < n:
        m = min(n - lo, LOSS_BLOCK)
        if t.kind == LOG_LOSS:
            for i in range(m):
                losses[i] = log_loss(y[lo + i], z[lo + i], z + lo + i)
        elif t.kind == SQUARED_ERROR:
            for i in range(m):
                losses[i] = half_square(y[lo + i], z[lo + i], z + lo + i)
        else:
            for i in range(m):
                losses[i] = softmax_loss((<const int64_t*>t.y)[lo + i], z + (lo + i) * k, k)
        for i in range(m):
            weight = t.weight[lo + i] if t.weight else 1
            total += weight * losses[i]
            for j in range((lo + i) * k, (lo + i + 1) * k):
                slopes[j] = weight * z[j]
        lo += m
    return total


cdef void take_rows(const void* table, const Batch* b, real* out, Py_ssize_t dim, Py_ssize_t stride) noexcept nogil:
    """Copy the rows of the batch's features. Numbers behind `dim`, up to `stride`, become 0."""
    cdef Rows rows
    cdef Py_ssize_t i, j
    rows.array, rows.row_bytes = <const char*>table, dim * sizeof(real)
    rows.numbers, rows.wide, rows.n = b.features, True, b.n_columns
    for i in range(b.n_columns):
        prefetch_later_row(&rows, i, dim * sizeof(real))
        for j in range(dim):
            out[i * stride + j] = (<const real*>address_of_row(&rows, i))[j]
        for j in range(dim, stride):
            out[i * stride + j] = 0


cdef void linear_scores(const Batch* b, const real* w, const real* intercept, real* z, Py_ssize_t k) noexcept nogil:
    cdef const real* x = <const real*>b.values
    cdef Py_ssize_t i, j
    cdef int64_t e
    cdef real sum_
    for i in range(b.n):
        if k == 1:
            sum_ = intercept[0] if intercept else 0
            for e in range(b.bounds[i], b.bounds[i + 1]):
                sum_ = sum_ + x[e] * w[b.columns[e]]
            z[i] = sum_
            continue
        for j in range(k):
            z[i * k + j] = intercept[j] if intercept else 0
        for e in range(b.bounds[i], b.bounds[i + 1]):
            add_scaled(z + i * k, x[e], w + b.columns[e] * k, k)


cdef void linear_gradient(const Batch* b, const double* slopes, double* sums, real* g, real* of_intercept,
                          Py_ssize_t k) noexcept nogil:
    """The rows of X' slopes. With intercept, also the sum of the slopes."""
    # Sums of doubles: a weight of 3 moves a float as three samples do.
    cdef const real* x = <const real*>b.values
    cdef Py_ssize_t i, j
    cdef int64_t e
    memset(sums, 0, (b.n_columns + 1) * k * sizeof(double))
    for i in range(b.n):
        for e in range(b.bounds[i], b.bounds[i + 1]):
            if k == 1:
                sums[b.columns[e]] += x[e] * slopes[i]
            else:
                add_scaled(sums + b.columns[e] * k, <double>x[e], slopes + i * k, k)
        add(sums + b.n_columns * k, slopes + i * k, k)
    for j in range(b.n_columns * k):
        g[j] = <real>sums[j]
    if of_intercept:
        for j in range(k):
            of_intercept[j] = <real>sums[b.n_columns * k + j]


cdef Batch batch_of(parts):
    cdef Batch b
    features, values, columns, bounds = parts
    b.features, b.n_columns = <const int64_t*>cnp.PyArray_DATA(<cnp.ndarray>features), len(features)
    b.values, b.columns = cnp.PyArray_DATA(<cnp.ndarray>values), <const int32_t*>cnp.PyArray_DATA(<cnp.ndarray>columns)
    b.bounds, b.n = <const int64_t*>cnp.PyArray_DATA(<cnp.ndarray>bounds), len(bounds) - 1
    return b


cdef Targets targets_of(tuple parts):
    cdef Targets t
    t.kind, y, weight = parts
    t.y, t.weight = cnp.PyArray_DATA(<cnp.ndarray>y), <const double*>address_or_null(weight)
    return t


def linear(batch, cnp.ndarray weights, intercept, cnp.ndarray scores, targets=None, gradient=None, of_intercept=None):
    """Set the scores of a batch. With targets, return the sum of the losses, and overwrite the scores.

    `batch` is (features, values, columns, bounds), as `compact` writes these. `targets` are the kind of the loss, y and
    the weights of the samples, or None. Arrays for gradients that are not None are set.
    """
    cdef Batch b = batch_of(batch)
    cdef Targets t
    cdef double loss = 0
    cdef Py_ssize_t k = weights.shape[1] if weights.ndim == 2 else 1
    cdef bint double_ = weights.itemsize == 8, train = targets is not None
    cdef cnp.ndarray local = np.empty(b.n_columns * k, weights.dtype)
    cdef cnp.ndarray doubles = np.empty((b.n + b.n_columns + 1) * k if train else 0)
    cdef double* slopes = <double*>cnp.PyArray_DATA(doubles)
    cdef void* table = cnp.PyArray_DATA(weights)
    cdef void* w = cnp.PyArray_DATA(local)
    cdef void* z = cnp.PyArray_DATA(scores)
    cdef void* c = address_or_null(intercept)
    cdef void* g = address_or_null(gradient)
    cdef void* gc = address_or_null(of_intercept)
    if train:
        t = targets_of(targets)
    with nogil:
        if double_:
            take_rows(table, &b, <double*>w, k, k)
            linear_scores(&b, <double*>w, <double*>c, <double*>z, k)
            if train:
                loss = slopes_of(&t, <double*>z, slopes, b.n, k)
            if g:
                linear_gradient(&b, slopes, slopes + b.n * k, <double*>g, <double*>gc, k)
        else:
            take_rows(table, &b, <float*>w, k, k)
            linear_scores(&b, <float*>w, <float*>c, <float*>z, k)
            if train:
                loss = slopes_of(&t, <float*>z, slopes, b.n, k)
            if g:
                linear_gradient(&b, slopes, slopes + b.n * k, <float*>g, <float*>gc, k)
    return loss
