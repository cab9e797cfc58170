# The driver: visit the touched rows, form each gradient, count the step, apply the rule. One driver serves all rules.


cdef void bring_up(const Target* t, const Past* past, int64_t row, const real* h) noexcept nogil:
    """Take a row through the steps that it has missed, and say so in its step count."""
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


cdef const real* prepare(const Target* t, const Source* s, const Settings* how, Py_ssize_t i, Py_ssize_t n,
                         real* scratch) noexcept nogil:
    """Bring the i-th touched row up to the last step and form its gradient; NULL if no step is to follow.

    What a step on plain rows does without stands here: every instruction between two rows' prefetches takes room of the few
    hundred that a processor looks ahead.
    """
    cdef int64_t row = row_number(s, i)
    cdef const real* g
    if how.past:
        prefetch_missed(t, s, how.past, i, n)
        bring_up(t, how.past, row, <const real*>how.hyper)
        if how.count == how.past.now:
            return NULL
        set_relaxed(t.steps + row, <int32_t>how.count)
    if s.starts or s.order or s.columns or s.sources:
        g = gather(t, s, i, scratch)
    else:                       # as gather() would, without a call
        g = <const real*>s.values + i * s.stride
        if t.values:
            prefetch_row(True, <const char*>(g + t.values * s.stride), t.row_bytes)
    if how.clip_value < INFINITY or how.max_row_norm < INFINITY:
        g = clipped(how, g, scratch, t.dim)
    if how.scale != 1 or how.decay != 0:
        scale_and_decay(scratch, g, <real*>(t.table + row * t.row_bytes), <real>how.scale, <real>how.decay, t.dim)
        g = scratch
    return g


cdef inline void visit(bint plain, const Target* target, const Source* s, const Settings* how,
                       const int64_t* rows, Py_ssize_t start, Py_ssize_t n_rows, Py_ssize_t known, Py_ssize_t n,
                       real* scratch) noexcept nogil:
    """Update the n_rows touched rows from the start-th on; `known` numbers, from there on too, are at hand.

    `plain` says that gradients are read where they stand. Told so where this is called, a compiler makes two loops of it:
    short rows feel every instruction.
    """
    # A copy, since a compiler cannot know that a store to a table leaves it as it is, and would read it again.
    cdef Target t = target[0]
    cdef Py_ssize_t stride = s.stride
    cdef const real* values = <const real*>s.values + start * stride
    cdef const real* g
    cdef real own
    cdef const real* at = numbers_at(how, how.count, &own)
    cdef const real* h = <const real*>how.hyper
    cdef bint counted = t.steps != NULL and not how.past
    cdef bint runs = RUNS and plain and t.by_elements and stride == t.dim
    cdef Py_ssize_t i = 0
    while i < n_rows:
        if t.together and i & (t.together - 1) == 0:
            prefetch_together(&t, rows + i, t.together, known - i)
        if runs and i + RUN <= n_rows and run_begins(&t, rows + i):
            update_run(target, how, rows + i, known - i, values + i * stride, at)
            i += RUN
            continue
        if t.whole:
            prefetch_ahead(&t, rows + i, known - i)
        if plain:
            g = values + i * stride
            if t.values:
                prefetch_row(True, <const char*>(g + t.values * stride), t.row_bytes)
        else:
            g = prepare(target, s, how, start + i, n, scratch)
        if plain or g != NULL:
            if counted:
                at = numbers_at(how, next_count(t.steps + rows[i]), &own)
            if t.part:
                update_in_parts(target, rows + i, known - i, g, at, h)
            else:
                apply(t.rule, &t, rows[i], 0, t.dim, g, at, h)
            if not plain and how.max_norm < INFINITY:
                project(<real*>(t.table + rows[i] * t.row_bytes), t.dim, how.max_norm)
        i += 1


cdef void update_rows(const Target* target, const Source* s, const Settings* how, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t n,
                      real* scratch) noexcept nogil:
    cdef Target t = target[0]
    cdef bint as_it_stands = how.scale == 1 and how.decay == 0 and how.clip_value == how.max_row_norm == how.max_norm == INFINITY
    cdef bint plain = as_it_stands and not (s.starts or s.order or s.columns or s.sources or how.past)
    cdef int64_t rows[WINDOW + BEYOND]
    cdef Py_ssize_t start = lo, n_rows, known, i
    if how.past and t.part:         # what rows have missed is done to them whole
        t.part = 0
        t.whole = True
    while start < hi:
        n_rows = min(hi - start, WINDOW)
        known = min(n - start, n_rows + BEYOND)
        row_numbers(s, start, start + known, rows)
        if start == lo:
            for i in range(min(n_rows, t.ahead + t.together)):
                prefetch_target(&t, rows[i])
        if PLAIN and plain:
            visit(True, &t, s, how, rows, start, n_rows, known, n, scratch)
        else:
            visit(False, &t, s, how, rows, start, n_rows, known, n, scratch)
        start += n_rows


cdef void update_all(const Target* target, const Source* s, const Settings* how, Py_ssize_t n, real* scratch, Py_ssize_t pad,
                     int threads) noexcept nogil:
    cdef Target t = target[0]
    cdef Py_ssize_t block, size = max(1, min(BLOCK, n // (4 * threads))), n_blocks = (n + size - 1) // size
    if t.once and (threads == 1 or s.unsorted) and not (s.starts or s.order or s.sources):
        t.near = 0
    if threads == 1:
        update_rows(&t, s, how, 0, n, n, scratch)
        return
    for block in prange(n_blocks, schedule="dynamic", num_threads=threads):
        update_rows(&t, s, how, block * size, min(n, (block + 1) * size), n, scratch + threadid() * pad)
