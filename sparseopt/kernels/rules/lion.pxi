# Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", Algorithm 2.


cdef void lion(real* restrict w, const real* restrict g, real* restrict m,
               const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0], b1 = h[1], c1 = h[2], b2 = h[3], c2 = h[4], keep = h[5]    # keep = 1 - lr λ
    cdef real direction, mean
    cdef Py_ssize_t j
    for j in range(n):                  # without a gradient m fades, but keeps its sign: it never becomes 0
        direction = b1 * m[j] + c1 * g[j]
        direction = m[j] if direction == 0 and g[j] == 0 and b1 > 0 else direction
        mean = b2 * m[j] + c2 * g[j]
        w[j] = keep * w[j] - signed(lr, direction)
        m[j] = m[j] if mean == 0 and g[j] == 0 and b2 > 0 else mean


cdef void lion_missed(real* restrict w, const real* restrict g, real* restrict m,
                      const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # m keeps its sign, however small it becomes, so it stops at the least number that is none too small
    cdef real keep = at[0], moved = at[1], left = at[4]         # at: a matrix for (w, sign of m); β2^J
    cdef real least = at[3] * tiny(left)                        # 0 if the sign does not last: β2 = 0
    cdef Py_ssize_t j
    for j in range(n):
        w[j] = keep * w[j] - moved * signed(<real>1, m[j])
        m[j] = signed(larger(left * absolute(m[j]), least), m[j])
