# Neighbouring rows are one long row to an element-wise rule: a dense gradient is as fast as a dense update.


cdef inline bint run_begins(const Target* t, const Window* w, Py_ssize_t i) noexcept nogil:
    """Whether RUN rows from the i-th on are neighbours with equal step counts."""
    cdef const int64_t* rows = w.rows + i
    cdef Py_ssize_t j
    if i + RUN > w.n or rows[RUN - 1] != rows[0] + RUN - 1:
        return False
    for j in range(1, RUN):
        if rows[j] != rows[0] + j or (t.steps and t.steps[rows[j]] != t.steps[rows[0]]):
            return False
    return True


cdef Py_ssize_t update_run(const Target* t, const Settings* how, const Window* w, Py_ssize_t i, const real* g,
                           const real* at) noexcept nogil:
    """Apply the rule to RUN rows from the i-th on as if they were one row, and return RUN."""
    cdef Py_ssize_t j, lo = 0, end = RUN * t.dim, piece = end
    cdef int64_t count = 0
    cdef real own[MOST_COLUMNS]
    if t.n_long > 1:        # longer pieces would make loads wait for stores to other arrays
        piece = max(1, APART // max(1, t.row_bytes)) * t.dim
    prefetch_far(t, w, i, RUN + t.burst)
    if t.steps:
        for j in range(RUN):
            count = next_count(t, w.rows[i + j])
        at = numbers_at(how, count, own)
    while lo < end:
        apply(t.rule, t, w.rows[i], lo, min(piece, end - lo), g + lo, at, <const real*>how.hyper)
        lo += piece
    return RUN
