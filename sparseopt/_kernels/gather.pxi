# The gradient of one touched row: repeats summed, then clipped, scaled and decayed.


cdef inline const real* in_place(const Target* t, const Source* s, const real* g) noexcept nogil:
    """Return g unchanged, and prefetch a later row of the gradient."""
    if t.gradient_ahead:
        prefetch_row(True, <const char*>(g + t.gradient_ahead * s.stride), t.row_bytes)
    return g


cdef const real* gather(const Target* t, const Source* s, Py_ssize_t i, real* scratch) noexcept nogil:
    """The gradient of the i-th touched row: in place if the row has one row of values, else summed in scratch."""
    cdef int64_t start = s.starts[i] if s.starts else i, stop = s.stops[i] if s.starts else i + 1
    if s.columns:
        return sum_of_cells(s, start, stop, t.dim, scratch)
    if s.sources:
        return sum_of_products(s, start, stop, t.dim, scratch)
    return sum_of_rows(t, s, start, stop, scratch)


cdef inline const real* sum_of_cells(const Source* s, int64_t start, int64_t stop, Py_ssize_t dim,
                                     real* scratch) noexcept nogil:
    cdef const real* values = <const real*>s.values
    cdef int64_t e
    cdef Py_ssize_t j
    for j in range(dim):
        scratch[j] = 0
    for e in range(start, stop):
        j = number(s.columns, s.index_wide, e)
        scratch[j] = scratch[j] + values[e]
    return scratch


cdef inline const real* sum_of_products(const Source* s, int64_t start, int64_t stop, Py_ssize_t dim,
                                        real* scratch) noexcept nogil:
    cdef const real* weights = <const real*>s.weights
    cdef const real* row
    cdef int64_t e
    for e in range(start, stop):
        if e + FAR_ENTRIES < s.n_weights:
            row = <const real*>s.values + number(s.sources, s.index_wide, e + FAR_ENTRIES) * s.stride
            prefetch_row(False, <const char*>row, dim * sizeof(real))
        row = <const real*>s.values + number(s.sources, s.index_wide, e) * s.stride
        if e == start:
            set_scaled(scratch, weights[e], row, dim)
        else:
            add_scaled(scratch, weights[e], row, dim)
    return scratch


cdef inline const real* sum_of_rows(const Target* t, const Source* s, int64_t start, int64_t stop,
                                    real* scratch) noexcept nogil:
    cdef const real* values = <const real*>s.values
    cdef const real* row
    cdef Py_ssize_t n_bytes = t.dim * sizeof(real)
    cdef int64_t e
    for e in range(start, stop):
        if s.order and e + FAR_ENTRIES < s.n_entries:
            prefetch_row(False, <const char*>(values + s.order[e + FAR_ENTRIES] * s.stride), n_bytes)
            prefetch_near(values + s.order[e + CLOSE_ENTRIES] * s.stride)
        elif t.gradient_ahead and not s.order:
            prefetch_row(True, <const char*>(values + (e + t.gradient_ahead) * s.stride), n_bytes)
        row = values + (s.order[e] if s.order else e) * s.stride
        if stop - start == 1:
            return row
        if e == start:
            memcpy(scratch, row, n_bytes)
        else:
            add(scratch, row, t.dim)
    return scratch


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
    """Clip a row's gradient by clip_value, then by max_row_norm. A NaN stays a NaN."""
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
