# Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", Algorithm 1; Reddi et al. 2018, "On the Convergence of
# Adam and Beyond", Algorithm 2 (amsgrad); Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization",
# Algorithm 2, is the same row with keep = 1 - lr λ.


cdef void adam(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
               const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real b1 = h[1], c1 = h[2], b2 = h[3], c2 = h[4], eps = h[5], keep = h[6]   # c = 1 - b
    cdef real rate = h[0] / at[0], scale = at[1]        # lr / (1 - β1^k), 1 / √(1 - β2^k)
    cdef Py_ssize_t j
    for j in range(n):
        m[j] = b1 * m[j] + c1 * g[j]
        v[j] = b2 * v[j] + c2 * g[j] * g[j]
        w[j] = keep * w[j] - rate * m[j] / (root(v[j]) * scale + eps)


cdef void amsgrad(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                  real* restrict top,
                  const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real b1 = h[1], c1 = h[2], b2 = h[3], c2 = h[4], eps = h[5], keep = h[6]
    cdef real rate = h[0] / at[0], scale = at[1]
    cdef Py_ssize_t j
    for j in range(n):
        m[j] = b1 * m[j] + c1 * g[j]
        v[j] = b2 * v[j] + c2 * g[j] * g[j]
        top[j] = larger(top[j], v[j])
        w[j] = keep * w[j] - rate * m[j] / (root(top[j]) * scale + eps)


cdef void rowwise_adam(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                       const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # v: one number for the row
    cdef real b1 = h[1], c1 = h[2], b2 = h[3], c2 = h[4], eps = h[5], keep = h[6]
    cdef real rate
    cdef Py_ssize_t j
    v[0] = b2 * v[0] + c2 * mean_square(g, n)
    rate = h[0] / at[0] / (root(v[0]) * at[1] + eps)
    for j in range(n):
        m[j] = b1 * m[j] + c1 * g[j]
        w[j] = keep * w[j] - rate * m[j]
