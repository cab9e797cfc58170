# Adam: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", Algorithm 1.
# AdamW: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", Algorithm 2. AdamW has keep = 1 - lr λ.
# AMSGrad: Reddi et al. 2018, "On the Convergence of Adam and Beyond", Algorithm 2.


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
                  real* restrict max_v,
                  const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real b1 = h[1], c1 = h[2], b2 = h[3], c2 = h[4], eps = h[5], keep = h[6]
    cdef real rate = h[0] / at[0], scale = at[1]
    cdef Py_ssize_t j
    for j in range(n):
        m[j] = b1 * m[j] + c1 * g[j]
        v[j] = b2 * v[j] + c2 * g[j] * g[j]
        max_v[j] = larger(max_v[j], v[j])
        w[j] = keep * w[j] - rate * m[j] / (root(max_v[j]) * scale + eps)
    if some_zero(g, n):
        fade(m, g, n)
        fade(v, g, n)


cdef void rowwise_adam(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                       const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # v: one number per row
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


# Missed steps: w <- at[0] w - m R(√v), m <- at[1] m, v <- at[2] v.  at[0] is the product of the weight decay factors.
# After J missed steps at[1] is β1^J and at[2] is β2^J.  at[3], at[4], ... describe R as a polynomial: e, the degree d
# and the coefficients of τ^0 ... τ^d. The head of _kernels/replay.pyx has the formulas.


cdef inline void evaluate_resolvent(const real* restrict v, const real* r, real* restrict inverse, real* restrict phi,
                                    Py_ssize_t n) noexcept nogil:
    # R(√v) = inverse * phi.  r: e, the degree, the coefficients.
    cdef real e = r[0], y, c
    cdef real max_root = 1 / tiny(e)                    # larger than the root of every finite v
    cdef real tau[STRIP]
    cdef int degree = <int>r[1], p
    cdef Py_ssize_t j
    for j in range(n):
        y = smaller(root(v[j]), max_root)
        inverse[j] = 1 / (y + e)
        tau[j] = (e - y) * inverse[j]
        inverse[j] = inverse[j] if y < max_root else <real>0    # R is 0 for an infinite v
        phi[j] = r[2 + degree]
    for p in range(degree - 1, -1, -1):
        c = r[2 + p]
        for j in range(n):
            phi[j] = phi[j] * tau[j] + c


cdef inline void subtract_resolvent(real* restrict w, real* restrict m, const real* restrict v, const real* at,
                                    Py_ssize_t n) noexcept nogil:
    cdef real keep = at[0], left = at[1]
    cdef real inverse[STRIP]
    cdef real phi[STRIP]
    cdef Py_ssize_t j, lo, size
    if at[4] <= 4:
        subtract_resolvent_degree_4(w, m, v, at, n)
        return
    for lo in range((n + STRIP - 1) // STRIP):
        size = min(STRIP, n - lo * STRIP)
        evaluate_resolvent(v, at + 3, inverse, phi, size)
        for j in range(size):
            # In this order the product is 0 for m = 0, even if inverse * phi overflows.
            w[j] = keep * w[j] - (m[j] * inverse[j]) * phi[j]
            m[j] = left * m[j]
        w, m, v = w + size, m + size, v + size


cdef inline void subtract_resolvent_degree_4(real* restrict w, real* restrict m, const real* restrict v,
                                             const real* at, Py_ssize_t n) noexcept nogil:
    # Up to degree 4 all coefficients fit into registers. After some hundred steps, no higher degree occurs.
    cdef real keep = at[0], left = at[1], e = at[3]
    cdef real k[5]
    cdef real k0, k1, k2, k3, k4, y, inverse, tau, phi
    cdef real max_root = 1 / tiny(e)
    cdef Py_ssize_t j
    for j in range(5):
        k[j] = at[5 + j] if j <= at[4] else <real>0
    k0, k1, k2, k3, k4 = k[0], k[1], k[2], k[3], k[4]
    for j in range(n):
        y = smaller(root(v[j]), max_root)
        inverse = 1 / (y + e)
        tau = (e - y) * inverse
        inverse = inverse if y < max_root else <real>0
        phi = (((k4 * tau + k3) * tau + k2) * tau + k1) * tau + k0
        w[j] = keep * w[j] - (m[j] * inverse) * phi
        m[j] = left * m[j]


cdef void adam_missed(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                      const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real left = at[2]
    cdef Py_ssize_t j
    subtract_resolvent(w, m, v, at, n)
    for j in range(n):
        v[j] = left * v[j]


cdef void amsgrad_missed(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                         real* restrict max_v,
                         const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real left = at[2]
    cdef Py_ssize_t j
    subtract_resolvent(w, m, max_v, at, n)              # v decreases, so its maximum stays
    for j in range(n):
        v[j] = left * v[j]


cdef void rowwise_adam_missed(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                              const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real keep = at[0], left = at[1]
    cdef real inverse, phi
    cdef Py_ssize_t j
    evaluate_resolvent(v, at + 3, &inverse, &phi, 1)
    v[0] = at[2] * v[0]
    for j in range(n):
        w[j] = keep * w[j] - (m[j] * inverse) * phi
        m[j] = left * m[j]
