# Zeiler 2012, "ADADELTA: An Adaptive Learning Rate Method", Algorithm 1.


cdef void adadelta(real* restrict w, const real* restrict g, real* restrict v, real* restrict d,
                   const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    # v: the paper's E[g²].  d: the paper's E[Δ²].
    cdef real lr = h[0], rho = h[1], fresh = h[2], eps = h[3]       # fresh = 1 - rho
    cdef real delta
    cdef Py_ssize_t j
    for j in range(n):
        v[j] = rho * v[j] + fresh * g[j] * g[j]
        delta = root(d[j] + eps) / root(v[j] + eps) * g[j]
        d[j] = rho * d[j] + fresh * delta * delta
        w[j] = w[j] - lr * delta
    if some_zero(g, n):
        fade(v, g, n)
        fade(d, g, n)


cdef void adadelta_missed(real* restrict w, const real* restrict g, real* restrict v, real* restrict d,
                          const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t j                           # at[0]: ρ^J for J missed steps
    for j in range(n):
        v[j] = at[0] * v[j]
        d[j] = at[0] * d[j]
