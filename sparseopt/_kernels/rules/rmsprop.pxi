# RMSprop: Tieleman and Hinton 2012, "Lecture 6.5: rmsprop".
# Centered: Graves 2013, "Generating Sequences With Recurrent Neural Networks", eq. 38 to 45.
# Epsilon is added outside the root, as in torch.optim.RMSprop.


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
    # Rounding can make the variance negative: the deviation is then 0, while torch returns NaN.
    # The variance is NaN if both squares overflow: the deviation is then infinite.
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


# Missed steps. Without momentum at[0] is α^J for J missed steps. With momentum at[0] ... at[3] is a 2 x 2 matrix for
# (w, buf), and at[4] is α^J.


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
