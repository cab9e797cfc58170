# Weighted squared errors of p · q + b + c, for ratings (matrix factorization) and for logarithms of counts (GloVe).

cdef enum:
    SQUARES_BLOCK = 256     # samples whose losses are added up at a time


cdef struct Squares:        # a batch; i, j, their rows, and the gradients' rows belong to its samples
    Rows first, second      # p and q
    const void* first_bias  # b and c
    const void* second_bias
    const void* target      # y
    const void* weight      # f; NULL: 1
    double decay            # λ of the rows, times f
    double bias_decay       # λ of the biases, times f
    void* first_gradient
    void* second_gradient
    void* first_bias_gradient
    void* second_bias_gradient
    double* squares         # for each block: the sum of f error²
    double* norms           # for each block: the sum of f λ (|p|² + |q|² + b² + c²)
    Py_ssize_t dim


cdef inline real squared_error(real score, real y, real f, double* loss) noexcept nogil:
    """The derivative of f (score - y)² / 2 with respect to the score. Adds twice that loss to `loss`."""
    cdef real error = score - y
    loss[0] = loss[0] + <double>(f * error) * error
    return f * error


cdef inline void set_sums(real* restrict gp, real* restrict gq, const real* restrict p, const real* restrict q,
                          real slope, real decay, Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t d
    for d in range(dim):
        gp[d] = slope * q[d] + decay * p[d]
        gq[d] = slope * p[d] + decay * q[d]


cdef void squares_of(const Squares* s, Py_ssize_t block, const real* f, real* b_gradient) noexcept nogil:
    # b_gradient fixes the type. A sample reads its rows twice, the second time from the first-level cache.
    cdef const real* b = <const real*>s.first_bias
    cdef const real* c = <const real*>s.second_bias
    cdef const real* y = <const real*>s.target
    cdef real* c_gradient = <real*>s.second_bias_gradient
    cdef real slope, weight, decay, bias_decay
    cdef const real* p
    cdef const real* q
    cdef Py_ssize_t k, u, v, dim = s.dim, size = dim * sizeof(real), lo = block * SQUARES_BLOCK
    cdef double squares = 0, norms = 0
    for k in range(lo, min(s.first.n, lo + SQUARES_BLOCK)):
        prefetch_later_row(&s.first, k, size)
        prefetch_later_row(&s.second, k, size)
        u, v = number(s.first.numbers, s.first.wide, k), number(s.second.numbers, s.second.wide, k)
        p, q = <const real*>address_of_row(&s.first, k), <const real*>address_of_row(&s.second, k)
        weight = f[k] if f != NULL else 1
        decay, bias_decay = weight * <real>s.decay, weight * <real>s.bias_decay
        slope = squared_error(dot(p, q, dim) + b[u] + c[v], y[k], weight, &squares)
        set_sums(<real*>s.first_gradient + k * dim, <real*>s.second_gradient + k * dim, p, q, slope, decay, dim)
        b_gradient[k] = slope + bias_decay * b[u]
        c_gradient[k] = slope + bias_decay * c[v]
        if s.decay:
            norms = norms + <double>decay * (<double>dot(p, p, dim) + dot(q, q, dim))
            norms = norms + <double>bias_decay * (<double>b[u] * b[u] + <double>c[v] * c[v])
    s.squares[block] = squares
    s.norms[block] = norms


def squares(cnp.ndarray A, cnp.ndarray i, cnp.ndarray B, cnp.ndarray j, cnp.ndarray a, cnp.ndarray b,
            cnp.ndarray target, weight, double decay, double bias_decay, cnp.ndarray A_gradient, cnp.ndarray B_gradient,
            cnp.ndarray a_gradient, cnp.ndarray b_gradient, cnp.ndarray parts, int threads):
    """Set the gradients of the samples. Return the sums of f error² and of f λ times the squared norms.

    `parts` has shape (2, blocks), with a block for each 256 samples.
    """
    cdef Squares s
    cdef bint double_ = A.itemsize == 8
    cdef Py_ssize_t block, n = parts.shape[1]
    s.first, s.second, s.dim = make_rows(A, i), make_rows(B, j), A.shape[1]
    s.first_bias, s.second_bias = cnp.PyArray_DATA(a), cnp.PyArray_DATA(b)
    s.target, s.decay, s.bias_decay = cnp.PyArray_DATA(target), decay, bias_decay
    s.weight = cnp.PyArray_DATA(<cnp.ndarray>weight) if weight is not None else NULL
    s.first_gradient, s.second_gradient = cnp.PyArray_DATA(A_gradient), cnp.PyArray_DATA(B_gradient)
    s.first_bias_gradient, s.second_bias_gradient = cnp.PyArray_DATA(a_gradient), cnp.PyArray_DATA(b_gradient)
    s.squares = <double*>cnp.PyArray_DATA(parts)
    s.norms = s.squares + n
    threads = useful_threads(s.first.n * (s.dim + 8), threads)
    with nogil:
        for block in prange(n, schedule="static", num_threads=threads):
            if double_:
                squares_of(&s, block, <const double*>s.weight, <double*>s.first_bias_gradient)
            else:
                squares_of(&s, block, <const float*>s.weight, <float*>s.first_bias_gradient)
    cdef double squares = 0, norms = 0
    for block in range(n):
        squares += s.squares[block]
        norms += s.norms[block]
    return squares, norms


# GloVe's targets: y = log(x), f = min(1, (x / x_max)^alpha).


cdef void write_targets(const real* x, real* y, real* f, double x_max, double alpha, Py_ssize_t n) noexcept nogil:
    # In double: there the subnormal numbers of float are normal, as `logarithm` needs.
    cdef double log_x, log_max = logarithm(x_max)
    cdef Py_ssize_t k
    for k in range(n):
        log_x = logarithm(<double>x[k])
        y[k] = <real>log_x
        f[k] = <real>smaller(exponential(alpha * (log_x - log_max)), 1.0)


def glove_targets(cnp.ndarray counts, double x_max, double alpha, cnp.ndarray target, cnp.ndarray weight):
    """Set targets and weights of counts, which must be above 0, and normal numbers in double."""
    cdef void* y = cnp.PyArray_DATA(target)
    cdef void* f = cnp.PyArray_DATA(weight)
    cdef const void* x = cnp.PyArray_DATA(counts)
    cdef Py_ssize_t n = counts.size
    cdef bint double_ = counts.itemsize == 8
    with nogil:
        if double_:
            write_targets(<const double*>x, <double*>y, <double*>f, x_max, alpha, n)
        else:
            write_targets(<const float*>x, <float*>y, <float*>f, x_max, alpha, n)
