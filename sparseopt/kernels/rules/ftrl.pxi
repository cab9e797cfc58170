# McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches", Algorithm 1 (FTRL-Proximal).


cdef void ftrl(real* restrict w, const real* restrict g, real* restrict z, real* restrict s,
               const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # s: the paper's n: the sum of squared gradients
    cdef real rate = h[0], beta = h[1], l1 = h[2], l2 = h[3]       # 1 / α
    cdef real before, after, shrunk
    cdef Py_ssize_t j
    for j in range(n):
        before = root(s[j])
        s[j] = s[j] + g[j] * g[j]
        after = root(s[j])
        z[j] = z[j] + g[j] - (after - before) * rate * w[j]
        shrunk = larger(absolute(z[j]) - l1, <real>0)
        w[j] = 0 - sign(z[j]) * shrunk / ((beta + after) * rate + l2)     # 0 - x: no weight becomes -0
