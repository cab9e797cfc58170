# Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", Algorithm 2. Epsilon is added to |g|, as in
# torch.optim.Adamax.


cdef void adamax(real* restrict w, const real* restrict g, real* restrict m, real* restrict u,
                 const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real b1 = h[1], c1 = h[2], b2 = h[3], eps = h[4]
    cdef real rate = h[0] / at[0]                       # lr / (1 - β1^k)
    cdef Py_ssize_t j
    for j in range(n):
        m[j] = b1 * m[j] + c1 * g[j]
        u[j] = larger(b2 * u[j], absolute(g[j]) + eps)
        w[j] = w[j] - rate * m[j] / u[j]
    if some_zero(g, n):
        fade(m, g, n)


cdef void adamax_missed(real* restrict w, const real* restrict g, real* restrict m, real* restrict u,
                        const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # at[0] ... at[8]: a 3 x 3 matrix for (w, m / u, m / ε). J missed steps: at[9] is β1^J, at[10] is β2^J.
    # u decreases to ε and then stays. Until then a step uses m / u, afterwards m / ε.
    cdef real sum_ = at[1], m_factor = at[9], u_factor = at[10], eps = h[4]
    # If u is at least the threshold, either u stays above ε, or m is negligible when u reaches ε.
    cdef real threshold = eps / larger(u_factor, h[5])
    cdef int reaches_eps = 0
    cdef Py_ssize_t j
    for j in range(n):
        reaches_eps |= (u[j] < threshold) & (m[j] != 0)
    for j in range(n):
        if not reaches_eps:
            w[j] = w[j] + m[j] / larger(u[j], eps) * sum_
        elif m[j] != 0:
            w[j] = w[j] + (<real>adamax_sum(<const Gap*>g, m[j], u[j], eps) if u[j] < threshold else m[j] / u[j] * sum_)
        m[j] = m_factor * m[j]
        u[j] = larger(u_factor * u[j], eps)


cdef double adamax_sum(const Gap* gap, double m, double u, double eps) noexcept nogil:
    # The change of one weight. The first k missed steps use m / u, the remaining steps use m / ε.
    cdef double from_start[9]
    cdef double from_k[9]
    cdef const Past* past = gap.past
    cdef int64_t missed = past.now - gap.s, k = 0
    cdef double b1 = past.powers[0].low[1], b2 = past.powers[1].low[1]
    if u > eps:
        k = <int64_t>min(<double>missed, log(eps / u) / log(b2))
    product_of(&past.products, gap.s - past.start, from_start)
    product_of(&past.products, gap.s + k - past.start, from_k)
    return (m / u * (from_start[1] - pow(b1 / b2, <double>k) * from_k[1])
            + m / eps * power(&past.powers[0], k) * from_k[2])
