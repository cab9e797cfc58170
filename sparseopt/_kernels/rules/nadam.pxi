# Dozat 2016, "Incorporating Nesterov Momentum into Adam", Algorithm 8, with the momentum schedule of torch.optim.NAdam.


cdef void nadam(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real b1 = h[1], c1 = h[2], b2 = h[3], c2 = h[4], eps = h[5], keep = h[6]
    cdef real rate_g = h[0] * at[0]         # lr (1 - μ_k) / (1 - Πμ)
    cdef real rate_m = h[0] * at[1]         # lr μ_{k+1} / (1 - Πμ μ_{k+1})
    cdef real scale = at[2]                 # 1 / √(1 - β2^k)
    cdef Py_ssize_t j
    for j in range(n):
        m[j] = b1 * m[j] + c1 * g[j]
        v[j] = b2 * v[j] + c2 * g[j] * g[j]
        w[j] = keep * w[j] - (rate_g * g[j] + rate_m * m[j]) / (root(v[j]) * scale + eps)
    if some_zero(g, n):
        fade(m, g, n)
        fade(v, g, n)


cdef void nadam_by_row(real* restrict w, const real* restrict g, real* restrict m, real* restrict v,
                       real* restrict product,
                       const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # product: Πμ over the steps of this row, one number per row.  at: μ_k, μ_{k+1}, 1 / √(1 - β2^k).
    cdef real numbers[3]
    product[0] = product[0] * at[0]
    numbers[0] = (1 - at[0]) / (1 - product[0])
    numbers[1] = at[1] / (1 - product[0] * at[1])
    numbers[2] = at[2]
    nadam(w, g, m, v, numbers, h, n)
