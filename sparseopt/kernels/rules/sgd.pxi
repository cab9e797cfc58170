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
    cdef real mu = at[0], gain = at[1]          # 0 and 1 on the first touch, then momentum and 1 - dampening
    cdef Py_ssize_t j
    for j in range(n):
        buf[j] = mu * buf[j] + gain * g[j]
        w[j] = w[j] - lr * buf[j]


cdef void nesterov(real* restrict w, const real* restrict g, real* restrict buf,
                   const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0], ahead = h[1]
    cdef real mu = at[0], gain = at[1]
    cdef Py_ssize_t j
    for j in range(n):
        buf[j] = mu * buf[j] + gain * g[j]
        w[j] = w[j] - lr * (g[j] + ahead * buf[j])
