# The driver: visit the touched rows, form each gradient, count the step, apply the rule. One driver serves all rules.
#
# 1. update_all gives blocks of rows to the threads. update_rows takes a block in windows, with row numbers as int64.
# 2. visit goes through a window: prefetch later rows, then update the row at hand.
# 3. A gradient that needs no change is read in place (`plain`). form_gradient forms all others.
# 4. Under missed="replay", bring_up first takes the row through the steps that it has missed.


cdef void bring_up(const Target* t, const Past* past, int64_t row, const real* h) noexcept nogil:
    """Take a row through the steps that it has missed, and set its step count."""
    cdef double numbers[MOST_NUMBERS]
    cdef real converted[MOST_NUMBERS]
    cdef const real* at = converted
    cdef Gap gap
    cdef int i, n = 0
    gap.past = past
    gap.s = max(past.start, t.steps[row])
    if gap.s >= past.now:
        return
    if t.missed:
        if past.resolvent.ready_at == past.now and gap.s > past.now - past.resolvent.window:
            at = <const real*>past.resolvent.ready + (past.now - gap.s) * past.resolvent.stride
            n = 1
        else:
            n = numbers_of(past, gap.s, numbers)
            for i in range(n):
                converted[i] = <real>numbers[i]
        if n:
            apply(t.missed, t, row, 0, t.dim, <const real*>&gap, at, h)
    set_relaxed(t.steps + row, <int32_t>past.now)


cdef void bring_up_all(const Target* t, const Settings* how, const Window* w,
                       const real* scratch) noexcept nogil:
    # scratch only sets the fused type
    cdef Py_ssize_t i
    for i in range(w.n):
        prefetch_far(t, w, i, 1)
        prefetch_missed(t, how.past, w, i)
        bring_up(t, how.past, w.rows[i], <const real*>how.hyper)


cdef const real* form_gradient(const Target* t, const Source* s, const Settings* how, const Window* w, Py_ssize_t i,
                         real* scratch) noexcept nogil:
    """Form the gradient of the i-th row of a window. Under missed="replay", first bring the row up to date."""
    cdef int64_t row = w.rows[i]
    cdef const real* g
    if how.past:
        prefetch_missed(t, how.past, w, i)
        bring_up(t, how.past, row, <const real*>how.hyper)
        set_relaxed(t.steps + row, <int32_t>how.count)
    g = gather(t, s, w.start + i, scratch)
    if how.clip_value < INFINITY or how.max_row_norm < INFINITY:
        g = clipped(how, g, scratch, t.dim)
    if how.scale != 1 or how.decay != 0:
        scale_and_decay(scratch, g, <real*>(t.table + row * t.row_bytes), <real>how.scale, <real>how.decay, t.dim)
        g = scratch
    return g


cdef inline void visit(bint plain, const Target* target, const Source* s, const Settings* how, const Window* w,
                       real* scratch) noexcept nogil:
    """Update the rows of a window. `plain` is a constant of each call, so that each has a compiled loop of its own."""
    cdef Target t = target[0]       # a copy: after each store to a table, gcc would read the original again
    cdef const real* values = <const real*>s.values + w.start * s.stride
    cdef const real* g
    cdef real own[MOST_COLUMNS]
    cdef const real* at = numbers_at(how, how.count, own)
    cdef bint runs = plain and t.by_elements and s.stride == t.dim, counted = t.steps != NULL and not how.past
    cdef Py_ssize_t i = 0, n = w.n
    while i < n:
        if i & (t.burst - 1) == 0:
            prefetch_far(&t, w, i, t.burst)
        if runs and run_begins(&t, w, i):
            i += update_run(target, how, w, i, values + i * s.stride, at)
            continue
        prefetch_close(&t, w, i)
        g = in_place(&t, s, values + i * s.stride) if plain else form_gradient(target, s, how, w, i, scratch)
        if counted:
            at = numbers_at(how, next_count(&t, w.rows[i]), own)
        apply(t.rule, &t, w.rows[i], 0, t.dim, g, at, <const real*>how.hyper)
        if not plain and how.max_norm < INFINITY:
            project(<real*>(t.table + w.rows[i] * t.row_bytes), t.dim, how.max_norm)
        i += 1


cdef void update_rows(const Target* t, const Source* s, const Settings* how, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t n,
                      real* scratch) noexcept nogil:
    """Update the touched rows from the lo-th to the one before the hi-th, out of n."""
    cdef bint unbounded = how.clip_value == how.max_row_norm == how.max_norm == INFINITY
    cdef bint plain = (unbounded and how.scale == 1 and how.decay == 0
                       and not (s.starts or s.order or s.columns or s.sources or how.past))
    cdef Window w
    w.start = lo
    while w.start < hi:
        w.n = min(hi - w.start, WINDOW)
        w.known = min(n - w.start, w.n + BEYOND)
        row_numbers(s, w.start, w.start + w.known, w.rows)
        if w.start == lo:
            prefetch_rows(t, w.rows, 0, min(w.n, t.l2_ahead))
        if how.past and how.count == how.past.now:
            bring_up_all(t, how, &w, scratch)
        elif plain:
            visit(True, t, s, how, &w, scratch)
        else:
            visit(False, t, s, how, &w, scratch)
        w.start += w.n


cdef void update_all(const Target* t, const Source* s, const Settings* how, Py_ssize_t n, real* scratch, Py_ssize_t pad,
                     int threads) noexcept nogil:
    cdef Py_ssize_t block, size = max(1, min(BLOCK, n // (4 * threads))), n_blocks = (n + size - 1) // size
    if threads == 1:
        update_rows(t, s, how, 0, n, n, scratch)
        return
    for block in prange(n_blocks, schedule="dynamic", num_threads=threads):
        update_rows(t, s, how, block * size, min(n, (block + 1) * size), n, scratch + threadid() * pad)
