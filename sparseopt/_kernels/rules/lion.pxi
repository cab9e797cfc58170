# Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", Algorithm 2.


cdef inline real least(real mean) noexcept nogil:
    # Without a gradient, m keeps its sign, however small it becomes.  So it stops where b1 m is still a normal number.
    return 16 * tiny(mean)


cdef void lion(real* restrict w, const real* restrict g, real* restrict m,
               const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0], b1 = h[1], c1 = h[2], b2 = h[3], c2 = h[4], keep = h[5]    # keep = 1 - lr λ
    cdef real mean
    cdef Py_ssize_t j
    for j in range(n):
        mean = b2 * m[j] + c2 * g[j]
        w[j] = keep * w[j] - signed(lr, b1 * m[j] + c1 * g[j])
        m[j] = signed(least(mean), mean) if (absolute(mean) < least(mean)) & (g[j] == 0) else mean


cdef void lion_missed(real* restrict w, const real* restrict g, real* restrict m,
                      const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real keep = at[0], moved = at[1], left = at[4]         # at: a matrix for (w, sign of m); β2^J
    cdef real lowest = at[3] * least(left)                      # 0 if the sign does not last: β2 = 0
    cdef Py_ssize_t j
    for j in range(n):
        w[j] = keep * w[j] - moved * signed(<real>1, m[j])
        m[j] = signed(larger(left * absolute(m[j]), lowest), m[j])
