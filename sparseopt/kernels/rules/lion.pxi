# Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", Algorithm 2.


cdef void lion(real* restrict w, const real* restrict g, real* restrict m,
               const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0], b1 = h[1], c1 = h[2], b2 = h[3], c2 = h[4], keep = h[5]    # keep = 1 - lr λ
    cdef Py_ssize_t j
    for j in range(n):
        w[j] = keep * w[j] - lr * sign(b1 * m[j] + c1 * g[j])
        m[j] = b2 * m[j] + c2 * g[j]
