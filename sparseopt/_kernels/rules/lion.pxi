# Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", Algorithm 2.


cdef inline real min_momentum(real mean) noexcept nogil:
    # Without gradients m decays, but Lion still needs the sign of b1 m.
    # So |m| stops at a bound at which b1 m is still a normal number.
    return 16 * tiny(mean)


cdef void lion(real* restrict w, const real* restrict g, real* restrict m,
               const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0], b1 = h[1], c1 = h[2], b2 = h[3], c2 = h[4], keep = h[5]    # keep = 1 - lr λ
    cdef real mean
    cdef Py_ssize_t j
    for j in range(n):
        mean = b2 * m[j] + c2 * g[j]
        w[j] = keep * w[j] - signed(lr, b1 * m[j] + c1 * g[j])
        m[j] = signed(min_momentum(mean), mean) if (absolute(mean) < min_momentum(mean)) & (g[j] == 0) else mean


cdef void lion_missed(real* restrict w, const real* restrict g, real* restrict m,
                      const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # at[0] ... at[3]: a 2 x 2 matrix for (w, sign(m)).  at[4]: β2^J for J missed steps.
    cdef real keep = at[0], rate_sum = at[1], m_factor = at[4]
    cdef real bound = at[3] * min_momentum(m_factor)    # at[3] is 0 if β2 = 0, because then m becomes 0
    cdef Py_ssize_t j
    for j in range(n):
        w[j] = keep * w[j] - rate_sum * signed(<real>1, m[j])
        m[j] = signed(larger(m_factor * absolute(m[j]), bound), m[j])
