# Sums and products of rows. Every sum has a fixed order, so each instruction set gives the same bits.


cdef inline void add(real* restrict sum_, const real* restrict term, Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(dim):
        sum_[j] = sum_[j] + term[j]


cdef inline void set_scaled(real* restrict sum_, real weight, const real* restrict term, Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(dim):
        sum_[j] = weight * term[j]


cdef inline void add_scaled(real* restrict sum_, real weight, const real* restrict term, Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(dim):
        sum_[j] = sum_[j] + weight * term[j]


cdef real dot(const real* restrict x, const real* restrict y, Py_ssize_t n) noexcept nogil:
    # 16 partial sums in a fixed order: see sum_of_squares in rules/arithmetic.pxi.
    cdef real lane[16]
    cdef real rest = 0
    cdef Py_ssize_t i, j, whole = n - n % 16
    for j in range(16):
        lane[j] = 0
    for i in range(0, whole, 16):
        for j in range(16):
            lane[j] = lane[j] + x[i + j] * y[i + j]
    for j in range(whole, n):
        rest = rest + x[j] * y[j]
    for j in range(8):
        lane[j] = lane[j] + lane[j + 8]
    for j in range(4):
        lane[j] = lane[j] + lane[j + 4]
    return ((lane[0] + lane[2]) + (lane[1] + lane[3])) + rest
