# Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", Algorithm 2, with epsilon where torch.optim.Adamax has it.


cdef void adamax(real* restrict w, const real* restrict g, real* restrict m, real* restrict u,
                 const real* at, const real* h, Py_ssize_t n) noexcept nogil:
    cdef real b1 = h[1], c1 = h[2], b2 = h[3], eps = h[4]
    cdef real rate = h[0] / at[0]                       # lr / (1 - β1^k)
    cdef Py_ssize_t j
    for j in range(n):
        m[j] = b1 * m[j] + c1 * g[j]
        u[j] = larger(b2 * u[j], absolute(g[j]) + eps)
        w[j] = w[j] - rate * m[j] / u[j]
