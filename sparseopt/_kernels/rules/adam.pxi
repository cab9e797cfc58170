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
    if some_zero(g, n):
        fade(m, g, n)
        fade(v, g, n)


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
    if some_zero(g, n):
        fade(m, g, n)
        fade(v, g, n)


cdef void rowwise_adam(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                       const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # v: one number for the row
    cdef real b1 = h[1], c1 = h[2], b2 = h[3], c2 = h[4], eps = h[5], keep = h[6]
    cdef real rate, square = mean_square(g, n)
    cdef Py_ssize_t j
    v[0] = faded(b2 * v[0] + c2 * square, square)
    rate = h[0] / at[0] / (root(v[0]) * at[1] + eps)
    for j in range(n):
        m[j] = b1 * m[j] + c1 * g[j]
        w[j] = keep * w[j] - rate * m[j]
    if some_zero(g, n):
        fade(m, g, n)


# Missed steps.  at: what is left of w, m and v; then R, by which m has moved w, as a polynomial: see _kernels/replay.pyx.


cdef inline void resolvent(const real* restrict v, const real* r, real* restrict inverse, real* restrict phi,
                           Py_ssize_t n) noexcept nogil:
    # R(√v) = inverse * phi.  r: e, the degree, the coefficients of powers of τ
    cdef real e = r[0], y, c
    cdef real most = 1 / tiny(e)                        # far above any root: an infinite v stands for more
    cdef real tau[STRIP]
    cdef int degree = <int>r[1], p
    cdef Py_ssize_t j
    for j in range(n):
        y = smaller(root(v[j]), most)
        inverse[j] = 1 / (y + e)
        tau[j] = (e - y) * inverse[j]
        inverse[j] = inverse[j] if y < most else <real>0
        phi[j] = r[2 + degree]
    for p in range(degree - 1, -1, -1):
        c = r[2 + p]
        for j in range(n):
            phi[j] = phi[j] * tau[j] + c


cdef inline void adam_moves(real* restrict w, real* restrict m, const real* restrict v, const real* at,
                            Py_ssize_t n) noexcept nogil:
    cdef real keep = at[0], left = at[1]
    cdef real inverse[STRIP]
    cdef real phi[STRIP]
    cdef Py_ssize_t j, lo, size
    if at[4] <= 4:
        adam_moves_4(w, m, v, at, n)
        return
    for lo in range((n + STRIP - 1) // STRIP):
        size = min(STRIP, n - lo * STRIP)
        resolvent(v, at + 3, inverse, phi, size)
        for j in range(size):
            w[j] = keep * w[j] - (m[j] * inverse[j]) * phi[j]       # in this order an m of 0 stays 0 however large the rest
            m[j] = left * m[j]
        w, m, v = w + size, m + size, v + size


cdef inline void adam_moves_4(real* restrict w, real* restrict m, const real* restrict v, const real* at,
                              Py_ssize_t n) noexcept nogil:
    # The same up to degree 4, which after some hundred steps is all there is: in registers.
    cdef real keep = at[0], left = at[1], e = at[3]
    cdef real k[5]
    cdef real k0, k1, k2, k3, k4, y, inverse, tau, phi
    cdef real most = 1 / tiny(e)
    cdef Py_ssize_t j
    for j in range(5):
        k[j] = at[5 + j] if j <= at[4] else <real>0
    k0, k1, k2, k3, k4 = k[0], k[1], k[2], k[3], k[4]
    for j in range(n):
        y = smaller(root(v[j]), most)
        inverse = 1 / (y + e)
        tau = (e - y) * inverse
        inverse = inverse if y < most else <real>0
        phi = (((k4 * tau + k3) * tau + k2) * tau + k1) * tau + k0
        w[j] = keep * w[j] - (m[j] * inverse) * phi
        m[j] = left * m[j]


cdef void adam_missed(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                      const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real left = at[2]
    cdef Py_ssize_t j
    adam_moves(w, m, v, at, n)
    for j in range(n):
        v[j] = left * v[j]


cdef void amsgrad_missed(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                         real* restrict top,
                         const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real left = at[2]
    cdef Py_ssize_t j
    adam_moves(w, m, top, at, n)                                        # v falls, so its maximum stays
    for j in range(n):
        v[j] = left * v[j]


cdef void rowwise_adam_missed(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                              const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real keep = at[0], left = at[1]
    cdef real inverse, phi
    cdef Py_ssize_t j
    resolvent(v, at + 3, &inverse, &phi, 1)
    v[0] = at[2] * v[0]
    for j in range(n):
        w[j] = keep * w[j] - (m[j] * inverse) * phi
        m[j] = left * m[j]
