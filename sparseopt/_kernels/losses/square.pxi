# Squared errors over all pairs of some users with all items, most of them unobserved.


cdef double square_rows(const real* p, const real* q, const void* columns, bint wide, const real* w, const void* indptr,
                        bint indptr_wide, real a, const real* p_decay, const real* q_decay, const real* q_share,
                        real* dp, real* dq, Py_ssize_t users, Py_ssize_t items, Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t u, i, j, e
    cdef real error
    cdef double loss = 0
    for i in range(items):
        for j in range(i * dim, (i + 1) * dim):
            dq[j] = q_share[i] * (a * dq[j] + q_decay[i] * q[j])
    for u in range(users):
        loss += a * dot(p + u * dim, dp + u * dim, dim)             # a * the sum of s² over all items
        for j in range(u * dim, (u + 1) * dim):
            dp[j] = a * dp[j] + p_decay[u] * p[j]
        for e in range(number(indptr, indptr_wide, u), number(indptr, indptr_wide, u + 1)):
            i = number(columns, wide, e)
            error = dot(p + u * dim, q + i * dim, dim) - 1
            loss += <double>(w[e] * error) * error
            add_scaled(dp + u * dim, w[e] * error, q + i * dim, dim)
            add_scaled(dq + i * dim, w[e] * error, p + u * dim, dim)
    return loss / 2


def square(cnp.ndarray p, cnp.ndarray q, cnp.ndarray columns, cnp.ndarray weights, cnp.ndarray indptr, double a,
           cnp.ndarray p_decay, cnp.ndarray q_decay, cnp.ndarray q_share, cnp.ndarray dp, cnp.ndarray dq):
    """Turn dp = p G and dq = q H into gradients, where G and H are the Gramians of the other table. Return the loss.

    `columns`, `weights` and `indptr` are those of a CSR array: row u has the items of user u, as rows of q. `a` is the
    weight of unobserved pairs. The terms of unobserved pairs and the decay of row i of q count q_share[i] times.
    """
    cdef const void* c = cnp.PyArray_DATA(columns)
    cdef const void* s = cnp.PyArray_DATA(indptr)
    cdef bint wide = columns.itemsize == 8, indptr_wide = indptr.itemsize == 8, double_ = p.itemsize == 8
    cdef const void* x = cnp.PyArray_DATA(p)
    cdef const void* y = cnp.PyArray_DATA(q)
    cdef const void* w = cnp.PyArray_DATA(weights)
    cdef const void* f = cnp.PyArray_DATA(p_decay)
    cdef const void* g = cnp.PyArray_DATA(q_decay)
    cdef const void* h = cnp.PyArray_DATA(q_share)
    cdef void* dx = cnp.PyArray_DATA(dp)
    cdef void* dy = cnp.PyArray_DATA(dq)
    cdef Py_ssize_t users = p.shape[0], items = q.shape[0], dim = p.shape[1]
    cdef double loss
    with nogil:
        if double_:
            loss = square_rows(<const double*>x, <const double*>y, c, wide, <const double*>w, s, indptr_wide, a,
                               <const double*>f, <const double*>g, <const double*>h, <double*>dx, <double*>dy, users,
                               items, dim)
        else:
            loss = square_rows(<const float*>x, <const float*>y, c, wide, <const float*>w, s, indptr_wide, <float>a,
                               <const float*>f, <const float*>g, <const float*>h, <float*>dx, <float*>dy, users, items,
                               dim)
    return loss
