# McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches", Algorithm 1 (FTRL-Proximal).
# A weight w that is not 0 determines z: -z = (β + √n) w / α + λ2 w + sign(w) λ1. So z is read only if w = 0.
# A weight that other code writes into the table therefore takes effect, and a changed learning rate moves no weight.


cdef inline real clamp(real x, real bound) noexcept nogil:
    return smaller(larger(x, -bound), bound)


cdef void ftrl(real* restrict w, const real* restrict g, real* restrict z, real* restrict s,
               const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # s: the paper's n, the sum of squared gradients
    cdef real rate = 1 / h[0], beta = h[1], l1 = h[2], l2 = h[3], decay = h[4]
    cdef real slope, total, inverse, y, w_new
    cdef int kept
    cdef Py_ssize_t j
    for j in range(n):
        slope = g[j] + decay * w[j]
        s[j] = s[j] + g[j] * g[j]
        total = (beta + root(s[j])) * rate + l2
        inverse = 1 / total
        # y = -z / total. This form does not overflow for a large w.
        y = -clamp(z[j], l1)
        y = signed(l1, w[j]) if w[j] != 0 else y
        # The sign of a NaN depends on the order of operands, which a compiler may choose for each instruction set.
        y = one_nan(w[j] + (y - slope) * inverse)
        w_new = y - clamp(y, l1 * inverse) + <real>0          # + 0 turns -0 into 0
        # w and z keep their bits if the slope is 0 or total is infinite. An infinite total means a rate of 0 or an
        # overflow of s. No `or`: the loop would not be vectorised.
        kept = (slope == 0) | (total == <real>INFINITY)
        z[j] = z[j] if kept else one_nan(-y * total)
        w[j] = w[j] if kept else w_new
