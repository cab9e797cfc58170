# Tieleman and Hinton 2012, "Lecture 6.5: rmsprop"; centered: Graves 2013, "Generating Sequences With Recurrent Neural
# Networks", eq. 38 to 45, with epsilon where torch.optim.RMSprop has it.


cdef void rmsprop(real* restrict w, const real* restrict g, real* restrict v,
                  const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0], alpha = h[1], fresh = h[2], eps = h[3]     # fresh = 1 - alpha
    cdef Py_ssize_t j
    for j in range(n):
        v[j] = alpha * v[j] + fresh * g[j] * g[j]
        w[j] = w[j] - lr * g[j] / (root(v[j]) + eps)
    if some_zero(g, n):
        fade(v, g, n)


cdef void rmsprop_momentum(real* restrict w, const real* restrict g, real* restrict v, real* restrict buf,
                           const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0], alpha = h[1], fresh = h[2], eps = h[3], mu = h[4]
    cdef Py_ssize_t j
    for j in range(n):
        v[j] = alpha * v[j] + fresh * g[j] * g[j]
        buf[j] = mu * buf[j] + g[j] / (root(v[j]) + eps)
        w[j] = w[j] - lr * buf[j]
    if some_zero(g, n):
        fade(v, g, n)
        fade(buf, g, n)


cdef inline real deviation(real v, real mean) noexcept nogil:
    # Rounding can take the variance below 0, where torch returns NaN.  Where both squares overflow it is infinite.
    cdef real variance = v - mean * mean
    return root(variance) if variance > 0 else <real>0 if variance <= 0 else <real>INFINITY


cdef void rmsprop_centered(real* restrict w, const real* restrict g, real* restrict v, real* restrict mean,
                           const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0], alpha = h[1], fresh = h[2], eps = h[3]
    cdef Py_ssize_t j
    for j in range(n):
        v[j] = alpha * v[j] + fresh * g[j] * g[j]
        mean[j] = alpha * mean[j] + fresh * g[j]
        w[j] = w[j] - lr * g[j] / (deviation(v[j], mean[j]) + eps)
    if some_zero(g, n):
        fade(v, g, n)
        fade(mean, g, n)


cdef void rmsprop_centered_momentum(real* restrict w, const real* restrict g, real* restrict v,
                                    real* restrict mean, real* restrict buf,
                                    const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real lr = h[0], alpha = h[1], fresh = h[2], eps = h[3], mu = h[4]
    cdef Py_ssize_t j
    for j in range(n):
        v[j] = alpha * v[j] + fresh * g[j] * g[j]
        mean[j] = alpha * mean[j] + fresh * g[j]
        buf[j] = mu * buf[j] + g[j] / (deviation(v[j], mean[j]) + eps)
        w[j] = w[j] - lr * buf[j]
    if some_zero(g, n):
        fade(v, g, n)
        fade(mean, g, n)
        fade(buf, g, n)


# Missed steps.  at: the matrix that takes (w, buf) through them, with momentum; then α^J.


cdef void rmsprop_missed(real* restrict w, const real* restrict g, real* restrict v,
                         const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        v[j] = at[0] * v[j]


cdef void rmsprop_momentum_missed(real* restrict w, const real* restrict g, real* restrict v, real* restrict buf,
                                  const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    momentum_missed(w, g, buf, at, h, n)
    rmsprop_missed(w, g, v, at + 4, h, n)


cdef void rmsprop_centered_missed(real* restrict w, const real* restrict g, real* restrict v, real* restrict mean,
                                  const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    rmsprop_missed(w, g, v, at, h, n)
    rmsprop_missed(w, g, mean, at, h, n)


cdef void rmsprop_centered_momentum_missed(real* restrict w, const real* restrict g, real* restrict v,
                                           real* restrict mean, real* restrict buf,
                                           const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    momentum_missed(w, g, buf, at, h, n)
    rmsprop_centered_missed(w, g, v, mean, at + 4, h, n)
