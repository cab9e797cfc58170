# Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", Algorithm 2, with epsilon where torch.optim.Adamax has it.


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
    # at: a 3 x 3 matrix for (w, m / u while u falls, m / ε once it has come down to ε); β1^J, β2^J
    cdef real sum_ = at[1], left = at[9], fallen = at[10], eps = h[4]
    cdef real never = eps / larger(fallen, h[5])        # from here down, to come to ε matters
    cdef int reach = 0
    cdef Py_ssize_t j
    for j in range(n):
        reach |= (u[j] < never) & (m[j] != 0)
    for j in range(n):
        if not reach:
            w[j] = w[j] + m[j] / larger(u[j], eps) * sum_
        elif m[j] != 0:
            w[j] = w[j] + (<real>adamax_falls(<const Gap*>g, m[j], u[j], eps) if u[j] < never else m[j] / u[j] * sum_)
        m[j] = left * m[j]
        u[j] = larger(fallen * u[j], eps)


cdef double adamax_falls(const Gap* gap, double m, double u, double eps) noexcept nogil:
    # What an element adds: the first k steps with m / u, the others with m / ε
    cdef double all_[9]
    cdef double later[9]
    cdef const Past* past = gap.past
    cdef int64_t missed = past.now - gap.s, k = 0
    cdef double b1 = past.powers[0].low[1], b2 = past.powers[1].low[1]
    if u > eps:
        k = <int64_t>min(<double>missed, log(eps / u) / log(b2))
    product_of(&past.products, gap.s - past.start, all_)
    product_of(&past.products, gap.s + k - past.start, later)
    return m / u * (all_[1] - pow(b1 / b2, <double>k) * later[1]) + m / eps * power(&past.powers[0], k) * later[2]
