# McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches", Algorithm 1 (FTRL-Proximal), for a weight w that is not 0
# without its z: (β + √n) w / α + λ2 w + sign(w) λ1 = -z.  So the weight in the table is what counts, whoever wrote it there, and
# a new rate moves no weight.  z says how far a weight of 0 is from leaving it.


cdef inline real within(real x, real bound) noexcept nogil:
    return smaller(larger(x, -bound), bound)


cdef void ftrl(real* restrict w, const real* restrict g, real* restrict z, real* restrict s,
               const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # s: the paper's n: the sum of squared gradients
    cdef real rate = 1 / h[0], beta = h[1], l1 = h[2], l2 = h[3], decay = h[4]
    cdef real slope, total, per, y, after
    cdef Py_ssize_t j
    for j in range(n):
        slope = g[j] + decay * w[j]
        s[j] = s[j] + g[j] * g[j]
        total = (beta + root(s[j])) * rate + l2
        per = 1 / total
        y = w[j] + ((signed(l1, w[j]) if w[j] != 0 else -within(z[j], l1)) - slope) * per     # -z / total: no large w overflows
        after = y - within(y, l1 * per) + <real>0               # + 0: no weight becomes -0
        # No slope, no move, to the bit.  An infinite total is a rate of 0 or a square that overflows.
        z[j] = z[j] if slope == 0 or total == <real>INFINITY else -y * total
        w[j] = w[j] if slope == 0 or total == <real>INFINITY else after
