# The gradient of one touched row: repeats summed, then clipped, scaled and decayed.


cdef const real* gather(const Target* t, const Source* s, Py_ssize_t i, real* scratch) noexcept nogil:
    """The gradient of the i-th touched row: in place where it stands alone, else summed in scratch."""
    cdef const real* values = <const real*>s.values
    cdef const real* weights = <const real*>s.weights
    cdef const real* term
    cdef int64_t e, start = i, stop = i + 1
    cdef Py_ssize_t j, dim = t.dim, near = t.near if t.near else NEAR_ENTRIES
    if s.starts:
        start = s.starts[i]
        stop = s.stops[i]
    if s.columns:
        for j in range(dim):
            scratch[j] = 0
        for e in range(start, stop):
            j = number(s.columns, s.index_wide, e)
            scratch[j] = scratch[j] + values[e]
    elif s.sources:
        for e in range(start, stop):
            if e + SCATTERED < s.n_weights:
                prefetch_row(False, <const char*>(values + number(s.sources, s.index_wide, e + SCATTERED) * s.stride),
                             dim * sizeof(real))
            term = values + number(s.sources, s.index_wide, e) * s.stride
            if e == start:
                set_scaled(scratch, weights[e], term, dim)
            else:
                add_scaled(scratch, weights[e], term, dim)
    else:
        for e in range(start, stop):
            if s.order and e + SCATTERED < s.n_entries:
                if t.close:
                    prefetch_row(True, <const char*>(values + s.order[e + SCATTERED] * s.stride), dim * sizeof(real))
                else:
                    prefetch_row(False, <const char*>(values + s.order[e + SCATTERED] * s.stride), dim * sizeof(real))
                    prefetch_near(values + s.order[e + near] * s.stride)
            elif t.values and not s.order:
                prefetch_row(True, <const char*>(values + (e + t.values) * s.stride), dim * sizeof(real))
            term = values + (s.order[e] if s.order else e) * s.stride
            if stop - start == 1:
                return term
            if e == start:
                memcpy(scratch, term, dim * sizeof(real))
            else:
                add(scratch, term, dim)
    return scratch


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


cdef inline void scale_and_decay(real* scratch, const real* g, const real* restrict w, real scale, real decay,
                                 Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t j
    if decay == 0:                      # so that 0 * w cannot make a NaN of an infinite weight
        for j in range(dim):
            scratch[j] = scale * g[j]
    else:
        for j in range(dim):
            scratch[j] = scale * g[j] + decay * w[j]


cdef const real* clipped(const Settings* how, const real* g, real* scratch, Py_ssize_t dim) noexcept nogil:
    """A row's gradient within clip_value, then within max_row_norm; a NaN stays one."""
    cdef real bound = <real>how.clip_value, factor
    cdef double norm
    cdef Py_ssize_t j
    if how.clip_value < INFINITY:
        for j in range(dim):
            scratch[j] = bound if g[j] > bound else -bound if g[j] < -bound else g[j]
        g = scratch
    if how.max_row_norm < INFINITY:
        norm = norm_of(g, dim)
        if not norm <= how.max_row_norm:
            factor = <real>(how.max_row_norm / norm)
            for j in range(dim):
                scratch[j] = factor * g[j]
            g = scratch
    return g
