# How the driver calls a rule, and how a rule is registered. A rule takes one row: the weights, the gradient, each
# state, the numbers that depend on the step count, the hyper-parameters, and the number of elements.

ctypedef void (*Rule0_32)(float*, const float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule1_32)(float*, const float*, float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule2_32)(float*, const float*, float*, float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule3_32)(float*, const float*, float*, float*, float*, const float*, const float*,
                          Py_ssize_t) noexcept nogil
ctypedef void (*Rule0_64)(double*, const double*, const double*, const double*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule1_64)(double*, const double*, double*, const double*, const double*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule2_64)(double*, const double*, double*, double*, const double*, const double*,
                          Py_ssize_t) noexcept nogil
ctypedef void (*Rule3_64)(double*, const double*, double*, double*, double*, const double*, const double*,
                          Py_ssize_t) noexcept nogil

RULES = {}          # from a rule's name to its number of states and its two versions


cdef rule0(str name, Rule0_32 single, Rule0_64 double_):
    RULES[name] = 0, <uintptr_t>single, <uintptr_t>double_


cdef rule1(str name, Rule1_32 single, Rule1_64 double_):
    RULES[name] = 1, <uintptr_t>single, <uintptr_t>double_


cdef rule2(str name, Rule2_32 single, Rule2_64 double_):
    RULES[name] = 2, <uintptr_t>single, <uintptr_t>double_


cdef rule3(str name, Rule3_32 single, Rule3_64 double_):
    RULES[name] = 3, <uintptr_t>single, <uintptr_t>double_


cdef inline real* state_of(const Target* t, int state, int64_t row, Py_ssize_t lo, const real* g) noexcept nogil:
    # g only sets the fused type
    return <real*>(t.state[state] + row * t.state_bytes[state]) + lo


cdef inline void apply(uintptr_t rule, const Target* t, int64_t row, Py_ssize_t lo, Py_ssize_t n, const real* g,
                       const real* at, const real* h) noexcept nogil:
    """Apply a rule to the n elements of a row from the lo-th on."""
    cdef real* w = <real*>(t.table + row * t.row_bytes) + lo
    if t.n_states == 0:
        (<void (*)(real*, const real*, const real*, const real*, Py_ssize_t) noexcept nogil>rule)(w, g, at, h, n)
    elif t.n_states == 1:
        (<void (*)(real*, const real*, real*, const real*, const real*, Py_ssize_t) noexcept nogil>rule)(
            w, g, state_of(t, 0, row, lo, g), at, h, n)
    elif t.n_states == 2:
        (<void (*)(real*, const real*, real*, real*, const real*, const real*, Py_ssize_t) noexcept nogil>rule)(
            w, g, state_of(t, 0, row, lo, g), state_of(t, 1, row, lo, g), at, h, n)
    else:
        (<void (*)(real*, const real*, real*, real*, real*, const real*, const real*, Py_ssize_t) noexcept nogil>rule)(
            w, g, state_of(t, 0, row, lo, g), state_of(t, 1, row, lo, g), state_of(t, 2, row, lo, g), at, h, n)
