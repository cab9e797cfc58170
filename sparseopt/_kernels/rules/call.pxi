# How the driver calls a rule: a rule is a function of raw pointers, one type for each number of states and each dtype.

# A rule takes the weights, the gradient, each of its states, what depends on the count, hyper-parameters, and their length.
ctypedef void (*Rule0_32)(float*, const float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule1_32)(float*, const float*, float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule2_32)(float*, const float*, float*, float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule3_32)(float*, const float*, float*, float*, float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule0_64)(double*, const double*, const double*, const double*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule1_64)(double*, const double*, double*, const double*, const double*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule2_64)(double*, const double*, double*, double*, const double*, const double*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule3_64)(double*, const double*, double*, double*, double*, const double*, const double*, Py_ssize_t) noexcept nogil


cdef inline void* of_row(const Target* t, int state, int64_t row, Py_ssize_t offset) noexcept nogil:
    return t.state[state] + row * t.state_bytes[state] + offset


cdef inline void apply(uintptr_t rule, const Target* t, int64_t row, Py_ssize_t lo, Py_ssize_t n, const real* g, const real* at,
                       const real* h) noexcept nogil:
    """Apply a rule to the n elements of a row from the lo-th on."""
    cdef Py_ssize_t o = lo * sizeof(real)
    cdef real* w = <real*>(t.table + row * t.row_bytes + o)
    if real is float:
        if t.n_states == 0:
            (<Rule0_32>rule)(w, g, at, h, n)
        elif t.n_states == 1:
            (<Rule1_32>rule)(w, g, <float*>of_row(t, 0, row, o), at, h, n)
        elif t.n_states == 2:
            (<Rule2_32>rule)(w, g, <float*>of_row(t, 0, row, o), <float*>of_row(t, 1, row, o), at, h, n)
        else:
            (<Rule3_32>rule)(w, g, <float*>of_row(t, 0, row, o), <float*>of_row(t, 1, row, o), <float*>of_row(t, 2, row, o),
                               at, h, n)
    else:
        if t.n_states == 0:
            (<Rule0_64>rule)(w, g, at, h, n)
        elif t.n_states == 1:
            (<Rule1_64>rule)(w, g, <double*>of_row(t, 0, row, o), at, h, n)
        elif t.n_states == 2:
            (<Rule2_64>rule)(w, g, <double*>of_row(t, 0, row, o), <double*>of_row(t, 1, row, o), at, h, n)
        else:
            (<Rule3_64>rule)(w, g, <double*>of_row(t, 0, row, o), <double*>of_row(t, 1, row, o), <double*>of_row(t, 2, row, o),
                               at, h, n)
