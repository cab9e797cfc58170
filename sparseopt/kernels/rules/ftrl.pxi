# McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches", Algorithm 1 (FTRL-Proximal).


cdef inline real ftrl_weight(real z, real s_root, real rate, real beta, real l1, real l2) noexcept nogil:
    # As far as z is beyond ±l1, against its sign; of a NaN: NaN.  0 - x: no weight becomes -0.
    cdef real within = smaller(larger(z, -l1), l1)
    return 0 - (z - within) / ((beta + s_root) * rate + l2)


cdef void ftrl(real* restrict w, const real* restrict g, real* restrict z, real* restrict s,
               const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # s: the paper's n: the sum of squared gradients
    cdef real rate = h[0], beta = h[1], l1 = h[2], l2 = h[3]       # 1 / α
    cdef real before, after
    cdef Py_ssize_t j
    for j in range(n):
        before = root(s[j])
        s[j] = s[j] + g[j] * g[j]
        after = root(s[j])
        z[j] = z[j] + g[j] - (after - before) * rate * w[j]
        w[j] = ftrl_weight(z[j], after, rate, beta, l1, l2)


cdef void ftrl_missed(real* restrict w, const real* restrict g, real* restrict z, real* restrict s,
                      const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # without a gradient, w is what z and s make of it at the last step's rate
    cdef real rate = at[0], beta = h[1], l1 = h[2], l2 = h[3]
    cdef Py_ssize_t j
    for j in range(n):
        w[j] = ftrl_weight(z[j], root(s[j]), rate, beta, l1, l2)
