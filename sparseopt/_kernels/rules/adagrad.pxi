# Duchi, Hazan, Singer 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", Figure 1.


cdef void adagrad(real* restrict w, const real* restrict g, real* restrict s,
                  const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real rate = h[0] / at[0], eps = h[1]   # at: 1 + (k - 1) lr_decay
    cdef Py_ssize_t j
    for j in range(n):
        s[j] = s[j] + g[j] * g[j]
        w[j] = w[j] - rate * g[j] / (root(s[j]) + eps)


cdef inline void adagrad_of_row(real* restrict w, const real* restrict g, real* restrict s,
                                const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # s: one number for the row
    cdef real eps = h[1], rate
    cdef Py_ssize_t j
    s[0] = s[0] + mean_square(g, n)
    rate = h[0] / at[0] / (root(s[0]) + eps)
    for j in range(n):
        w[j] = w[j] - rate * g[j]


cdef void rowwise_adagrad(real* restrict w, const real* restrict g, real* restrict s,
                          const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # What to do about any length takes as long as the numbers of a short row; the usual ones are compiled by themselves.
    if not LENGTHS:
        adagrad_of_row(w, g, s, at, h, n)
    elif n == 8:
        adagrad_of_row(w, g, s, at, h, 8)
    elif n == 16:
        adagrad_of_row(w, g, s, at, h, 16)
    elif n == 32:
        adagrad_of_row(w, g, s, at, h, 32)
    elif n == 64:
        adagrad_of_row(w, g, s, at, h, 64)
    else:
        adagrad_of_row(w, g, s, at, h, n)
