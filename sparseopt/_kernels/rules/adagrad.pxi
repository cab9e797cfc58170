# Duchi, Hazan, Singer 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", Figure 1.


cdef void adagrad(real* restrict w, const real* restrict g, real* restrict s,
                  const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real rate = h[0] / at[0], eps = h[1]   # at[0]: 1 + (k - 1) lr_decay
    cdef Py_ssize_t j
    for j in range(n):
        s[j] = s[j] + g[j] * g[j]
        w[j] = w[j] - rate * g[j] / (root(s[j]) + eps)


cdef inline void rowwise_adagrad_of_length(real* restrict w, const real* restrict g, real* restrict s,
                                           const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # s: one number per row
    cdef real eps = h[1], rate
    cdef Py_ssize_t j
    s[0] = s[0] + mean_square(g, n)
    rate = h[0] / at[0] / (root(s[0]) + eps)
    for j in range(n):
        w[j] = w[j] - rate * g[j]


cdef void rowwise_adagrad(real* restrict w, const real* restrict g, real* restrict s,
                          const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # For a short row, code that serves any length takes as long as the arithmetic.
    # So each common length gets its own loop.
    if n == 8:
        rowwise_adagrad_of_length(w, g, s, at, h, 8)
    elif n == 16:
        rowwise_adagrad_of_length(w, g, s, at, h, 16)
    elif n == 32:
        rowwise_adagrad_of_length(w, g, s, at, h, 32)
    else:
        rowwise_adagrad_of_length(w, g, s, at, h, n)
