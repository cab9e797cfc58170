# Factorization machines of order 2 (Rendle 2010). With k classes, the columns of the factors are the vectors of the
# first class, those of the second, and so on; `dim` is the length of each.
#
# The score has a sum over features, and a sum over pairs of features. Lemma 3.1 gives the second sum without pairs.
#
#     score           = b + sum of x w + sum over pairs of x x' <v, v'>
#     sum over pairs  = 1/2 sum over f of (S_f^2 - Q_f),  S_f = sum of x v_f,  Q_f = sum of (x v_f)^2
#     d score / d v_f = x (S_f - x v_f)


cdef enum:
    PADDED = 8              # numbers that are computed together: rows of factors are padded to a multiple


cdef inline void sums_of_lanes(const Batch* b, const real* v, Py_ssize_t i, Py_ssize_t stride, real* S,
                               real* pairs) noexcept nogil:
    """S_f, and (S_f^2 - Q_f) / 2, for eight neighbouring f of a sample."""
    cdef const real* x = <const real*>b.values
    cdef const real* row
    cdef real sums[PADDED]
    cdef real squares[PADDED]
    cdef real term
    cdef int64_t e
    cdef int j
    for j in range(PADDED):
        sums[j] = squares[j] = 0
    for e in range(b.bounds[i], b.bounds[i + 1]):
        row = v + b.columns[e] * stride
        for j in range(PADDED):
            term = x[e] * row[j]
            sums[j] = sums[j] + term
            squares[j] = squares[j] + term * term
    for j in range(PADDED):
        S[j] = sums[j]
        pairs[j] = (sums[j] * sums[j] - squares[j]) * <real>0.5


cdef inline void gradient_of_lanes(const Batch* b, const real* v, Py_ssize_t i, Py_ssize_t stride, const real* S,
                                   const double* slope, double* sums) noexcept nogil:
    """Add slope x (S_f - x v_f) to the rows of the gradient, for eight neighbouring f of a sample."""
    cdef const real* values = <const real*>b.values
    cdef const real* row
    cdef double* out
    cdef double scaled[PADDED]
    cdef double slopes[PADDED]
    cdef double x
    cdef int64_t e
    cdef int j
    for j in range(PADDED):
        slopes[j] = slope[j]
        scaled[j] = slope[j] * S[j]
    for e in range(b.bounds[i], b.bounds[i + 1]):
        row, out, x = v + b.columns[e] * stride, sums + b.columns[e] * stride, values[e]
        for j in range(PADDED):
            out[j] = out[j] + x * (scaled[j] - x * slopes[j] * row[j])


cdef void factorization_scores(const Batch* b, const real* v, Py_ssize_t dim, Py_ssize_t stride, real* S, real* pairs,
                               real* z, Py_ssize_t k) noexcept nogil:
    """Add the sums over pairs to the linear scores z. Sets S for all samples."""
    cdef Py_ssize_t i, f
    for i in range(b.n):
        for f in range(stride // PADDED):
            sums_of_lanes(b, v + f * PADDED, i, stride, S + i * stride + f * PADDED, pairs + f * PADDED)
        for f in range(k * dim):
            z[i * k + f // dim] = z[i * k + f // dim] + pairs[f]


cdef void factorization_gradient(const Batch* b, const real* v, Py_ssize_t dim, Py_ssize_t stride, const real* S,
                                 const double* slopes, double* sums, real* g, Py_ssize_t k) noexcept nogil:
    cdef double* slope_of_f = sums + b.n_columns * stride
    cdef Py_ssize_t i, f
    memset(sums, 0, (b.n_columns + 1) * stride * sizeof(double))
    for i in range(b.n):
        for f in range(k * dim):
            slope_of_f[f] = slopes[i * k + f // dim]
        for f in range(stride // PADDED):
            gradient_of_lanes(b, v + f * PADDED, i, stride, S + i * stride + f * PADDED, slope_of_f + f * PADDED,
                              sums + f * PADDED)
    for i in range(b.n_columns):
        for f in range(k * dim):
            g[i * k * dim + f] = <real>sums[i * stride + f]


def factorization_machine(batch, cnp.ndarray weights, cnp.ndarray factors, intercept, cnp.ndarray scores, targets=None,
                          gradient=None, of_factors=None, of_intercept=None):
    """As `linear`, with the gradient of the factors."""
    cdef Batch b = batch_of(batch)
    cdef Targets t
    cdef double loss = 0
    cdef Py_ssize_t k = weights.shape[1] if weights.ndim == 2 else 1, dim = factors.shape[1] // k
    cdef Py_ssize_t stride = (k * dim + PADDED - 1) // PADDED * PADDED
    cdef bint double_ = weights.itemsize == 8, train = targets is not None
    cdef cnp.ndarray reals = np.empty(b.n_columns * (k + stride) + (b.n + 1) * stride, weights.dtype)
    cdef cnp.ndarray doubles = np.empty((b.n + b.n_columns + 1) * (k + stride) if train else 0)
    cdef double* slopes = <double*>cnp.PyArray_DATA(doubles)
    cdef double* sums = slopes + b.n * k
    cdef Py_ssize_t itemsize = weights.itemsize
    cdef char* v = <char*>cnp.PyArray_DATA(reals)
    cdef char* S = v + b.n_columns * stride * itemsize
    cdef char* pairs = S + b.n * stride * itemsize
    cdef char* w = pairs + stride * itemsize
    cdef void* of_w = cnp.PyArray_DATA(weights)
    cdef void* of_v = cnp.PyArray_DATA(factors)
    cdef void* z = cnp.PyArray_DATA(scores)
    cdef void* c = address_or_null(intercept)
    cdef void* g = address_or_null(gradient)
    cdef void* gv = address_or_null(of_factors)
    cdef void* gc = address_or_null(of_intercept)
    if train:
        t = targets_of(targets)
    with nogil:
        if double_:
            take_rows(of_w, &b, <double*>w, k, k)
            take_rows(of_v, &b, <double*>v, k * dim, stride)
            linear_scores(&b, <double*>w, <double*>c, <double*>z, k)
            factorization_scores(&b, <double*>v, dim, stride, <double*>S, <double*>pairs, <double*>z, k)
            if train:
                loss = slopes_of(&t, <double*>z, slopes, b.n, k)
            if g:
                linear_gradient(&b, slopes, sums, <double*>g, <double*>gc, k)
                factorization_gradient(&b, <double*>v, dim, stride, <double*>S, slopes, sums, <double*>gv, k)
        else:
            take_rows(of_w, &b, <float*>w, k, k)
            take_rows(of_v, &b, <float*>v, k * dim, stride)
            linear_scores(&b, <float*>w, <float*>c, <float*>z, k)
            factorization_scores(&b, <float*>v, dim, stride, <float*>S, <float*>pairs, <float*>z, k)
            if train:
                loss = slopes_of(&t, <float*>z, slopes, b.n, k)
            if g:
                linear_gradient(&b, slopes, sums, <float*>g, <float*>gc, k)
                factorization_gradient(&b, <float*>v, dim, stride, <float*>S, slopes, sums, <float*>gv, k)
    return loss
