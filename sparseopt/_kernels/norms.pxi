# Norms of rows: sum of squares, 2-norm, largest magnitude. Sums have a fixed order: all builds give the same bits.


cdef double square_sum(const real* restrict g, Py_ssize_t n) noexcept nogil:
    cdef double lane[8]
    cdef Py_ssize_t i, j, whole = n - n % 8
    for j in range(8):
        lane[j] = 0
    for i in range(0, whole, 8):
        for j in range(8):
            lane[j] = lane[j] + <double>g[i + j] * <double>g[i + j]
    for j in range(n - whole):
        lane[j] = lane[j] + <double>g[whole + j] * <double>g[whole + j]
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]))


cdef inline int32_t size32(float x) noexcept nogil:
    # Without the sign bit, floats read as integers have the order of their magnitudes. NaN comes last.
    return <int32_t>(bits32(x) & <uint32_t>0x7FFFFFFF)


cdef inline int64_t size64(double x) noexcept nogil:
    return <int64_t>(bits64(x) & <uint64_t>0x7FFFFFFFFFFFFFFF)


cdef real largest_magnitude(const real* x, Py_ssize_t n) noexcept nogil:
    # Four streams use more memory bandwidth than one.
    cdef Py_ssize_t i, part = n // 4
    cdef int32_t top32 = 0
    cdef int64_t top64 = 0
    cdef real value
    if real is float:
        for i in range(part):
            top32 = max(top32, max(max(size32(x[i]), size32(x[part + i])),
                                   max(size32(x[2 * part + i]), size32(x[3 * part + i]))))
        for i in range(4 * part, n):
            top32 = max(top32, size32(x[i]))
        memcpy(&value, &top32, sizeof(value))
    else:
        for i in range(part):
            top64 = max(top64, max(max(size64(x[i]), size64(x[part + i])),
                                   max(size64(x[2 * part + i]), size64(x[3 * part + i]))))
        for i in range(4 * part, n):
            top64 = max(top64, size64(x[i]))
        memcpy(&value, &top64, sizeof(value))
    return value


cdef inline real top_of(real x, real y) noexcept nogil:
    return y if y > x or y != y else x          # a NaN is on top of all


cdef double norm_of(const real* x, Py_ssize_t n) noexcept nogil:
    """The 2-norm of a row, also where the sum of squares overflows."""
    cdef double sum_ = square_sum(x, n), top
    cdef Py_ssize_t j
    if sum_ < INFINITY or sum_ != sum_:
        return sqrt(sum_)
    top = largest_magnitude(x, n)
    sum_ = 0
    for j in range(n):
        sum_ += (x[j] / top) * (x[j] / top)
    return top * sqrt(sum_)


cdef void project(real* w, Py_ssize_t dim, double max_norm) noexcept nogil:
    """Scale a row down to max_norm, as torch.nn.Embedding does."""
    cdef double norm = norm_of(w, dim)
    cdef real factor
    cdef Py_ssize_t j
    if norm > max_norm:
        factor = <real>(max_norm / (norm + 1e-7))
        for j in range(dim):
            w[j] = factor * w[j]
