# Two faster ways to apply a rule that is element-wise: to neighbouring rows at once, and to a long row in parts.


cdef inline bint run_begins(const Target* t, const int64_t* rows) noexcept nogil:
    """Whether the next RUN rows are neighbours and have taken as many steps."""
    cdef Py_ssize_t j
    if rows[RUN - 1] != rows[0] + RUN - 1:
        return False
    for j in range(1, RUN):
        if rows[j] != rows[0] + j or (t.steps and t.steps[rows[j]] != t.steps[rows[0]]):
            return False
    return True


cdef void update_run(const Target* t, const Settings* how, const int64_t* rows, Py_ssize_t known, const real* g,
                     const real* at) noexcept nogil:
    """Apply the rule to RUN neighbours as if they were one row."""
    cdef Py_ssize_t j, lo = 0, end = RUN * t.dim, piece = end
    cdef real own
    if t.n_long > 1:        # longer ones would lie at the same places of their pages in several arrays
        piece = max(1, APART // max(1, t.row_bytes)) * t.dim
    if t.whole or t.part:
        for j in range(RUN):
            prefetch_ahead(t, rows + j, known - j)
    else:
        prefetch_together(t, rows, RUN + t.together, known)         # as far as the next turn's will not reach back
    if t.steps:
        for j in range(RUN):
            at = numbers_at(how, next_count(t.steps + rows[j]), &own)
    while lo < end:
        apply(t.rule, t, rows[0], lo, min(piece, end - lo), g + lo, at, <const real*>how.hyper)
        lo += piece


cdef void update_in_parts(const Target* t, const int64_t* rows, Py_ssize_t known, const real* g, const real* at,
                          const real* h) noexcept nogil:
    """Apply the rule to a long row, and prefetch a later one, a part of both at a time."""
    # Prefetches of more lines than a processor waits for at a time would keep the rule waiting too, and after them, while
    # the rule computes, memory would stand still.
    cdef Py_ssize_t lo = 0, n, part = t.part // sizeof(real), o
    cdef int64_t row = rows[0], later = rows[t.ahead] if t.ahead < known else row
    cdef int i
    if t.ahead >= known or later == row + t.ahead:      # neighbours the processor foresees by itself
        apply(t.rule, t, row, 0, t.dim, g, at, h)
        return
    if t.steps:
        prefetch(t.steps + later)
    while lo < t.dim:
        n = min(part, t.dim - lo)
        o = lo * sizeof(real)
        prefetch_part(t.table + later * t.row_bytes + o, n * sizeof(real))
        for i in range(t.n_states):
            prefetch_part(t.state[i] + later * t.state_bytes[i] + o, n * sizeof(real))
        if lo == 0 and t.near:
            prefetch_target_near(t, rows[t.near])
        apply(t.rule, t, row, lo, n, g + lo, at, h)
        lo += n
