# Prefetches: into the L2 cache far ahead, into the L1 cache close to the use.


cdef inline void prefetch_line(bint close, const char* line) noexcept nogil:
    if close:
        prefetch_near(line)
    else:
        prefetch(line)


cdef inline void prefetch_row(bint close, const char* row, Py_ssize_t n_bytes) noexcept nogil:
    """All lines of a row, into the first-level cache if its use is close."""
    cdef const char* line = row
    cdef const char* last = row + n_bytes - 1
    while FOUR_LINES and line + 3 * LINE <= last:
        prefetch_line(close, line)
        prefetch_line(close, line + LINE)
        prefetch_line(close, line + 2 * LINE)
        prefetch_line(close, line + 3 * LINE)
        line += 4 * LINE
    while line <= last:
        prefetch_line(close, line)
        line += LINE
    if <uintptr_t>last % LINE < <uintptr_t>row % LINE:
        prefetch_line(close, last)


cdef inline void prefetch_part(const char* row, Py_ssize_t n_bytes) noexcept nogil:
    # One line after the other: parts of long rows, between which the rule goes on, take a tenth longer with four at a time.
    cdef const char* line = row + LINE
    cdef const char* last = row + n_bytes - 1
    prefetch(row)
    while line <= last:
        prefetch(line)
        line += LINE
    if <uintptr_t>last % LINE < <uintptr_t>row % LINE:
        prefetch(last)


cdef inline void prefetch_target(const Target* t, int64_t row) noexcept nogil:
    cdef int i
    prefetch_row(False, t.table + row * t.row_bytes, t.row_bytes)
    for i in range(t.n_states):
        prefetch_row(False, t.state[i] + row * t.state_bytes[i], t.state_bytes[i])
    if t.steps:
        prefetch(t.steps + row)


cdef inline void prefetch_target_near(const Target* t, int64_t row) noexcept nogil:
    cdef int i
    prefetch_row(True, t.table + row * t.row_bytes, t.row_bytes if t.close else 1)
    for i in range(t.n_states):
        prefetch_row(True, t.state[i] + row * t.state_bytes[i], t.state_bytes[i] if t.close else 1)


cdef inline void prefetch_together(const Target* t, const int64_t* rows, Py_ssize_t n, Py_ssize_t known) noexcept nogil:
    """The first lines of n rows, some way after the first of these, of which `known` are known."""
    # A prefetch waits for the address of its page, and what follows it waits too, but for the next few hundred
    # instructions: so many rows' prefetches stand close together, and their pages are looked up at the same time.
    cdef Py_ssize_t first = t.ahead + t.together, end = min(first + n, known), i, j
    if end <= first or rows[end - 1] == rows[0] + end - 1:      # neighbours the processor foresees by itself
        return
    for i in range(first, end):
        prefetch(t.table + rows[i] * t.row_bytes)
    for j in range(t.n_states):
        for i in range(first, end):
            prefetch(t.state[j] + rows[i] * t.state_bytes[j])
    if t.steps:
        for i in range(first, end):
            prefetch(t.steps + rows[i])


cdef inline void prefetch_ahead(const Target* t, const int64_t* rows, Py_ssize_t known) noexcept nogil:
    if t.ahead < known and rows[t.ahead] != rows[0] + t.ahead:      # neighbours the processor foresees by itself
        prefetch_target(t, rows[t.ahead])
        if t.near:
            prefetch_target_near(t, rows[t.near])


cdef inline void prefetch_missed(const Target* t, const Source* s, const Past* past, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """What a row that comes later needs to be brought up: its step count, then what its missed steps come to, and itself."""
    cdef int64_t row
    cdef int32_t step
    if i + 2 * t.ahead < n:
        prefetch(t.steps + row_number(s, i + 2 * t.ahead))
    if i + t.ahead < n:
        row = row_number(s, i + t.ahead)
        step = relaxed(t.steps + row)       # another thread may be writing it
        if t.missed and step < past.now:
            prefetch(place_of(past, max(past.start, step)))
