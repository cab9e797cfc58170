# Stochastic gradient descent, as torch.optim.SGD.  Sutskever et al. 2013, "On the importance of initialization and
# momentum in deep learning".


cdef void sgd(real* restrict w, const real* restrict g,
              const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0]
    cdef Py_ssize_t j
    for j in range(n):
        w[j] = w[j] - lr * g[j]


cdef void momentum(real* restrict w, const real* restrict g, real* restrict buf,
                   const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0]
    cdef real mu = at[0], gain = at[1]          # 0 and 1 in the first step, then momentum and 1 - dampening
    cdef Py_ssize_t j
    for j in range(n):
        buf[j] = mu * buf[j] + gain * g[j]
        w[j] = w[j] - lr * buf[j]
    if some_zero(g, n):
        fade(buf, g, n)


cdef void nesterov(real* restrict w, const real* restrict g, real* restrict buf,
                   const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0], ahead = h[1]
    cdef real mu = at[0], gain = at[1]
    cdef Py_ssize_t j
    for j in range(n):
        buf[j] = mu * buf[j] + gain * g[j]
        w[j] = w[j] - lr * (g[j] + ahead * buf[j])
    if some_zero(g, n):
        fade(buf, g, n)


cdef void sgd_missed(real* restrict w, const real* restrict g,
                     const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j                           # at[0]: product of the decay factors
    for j in range(n):
        w[j] = at[0] * w[j]


cdef void momentum_missed(real* restrict w, const real* restrict g, real* restrict buf,
                          const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real ww = at[0], wb = at[1], bw = at[2], bb = at[3]        # a 2 x 2 matrix for (w, buf)
    cdef real old
    cdef Py_ssize_t j
    for j in range(n):
        old = w[j]
        w[j] = ww * old + wb * buf[j]
        buf[j] = bw * old + bb * buf[j]
