# Prefetches of the rows of an update: into the L2 cache far ahead of their use, and into the L1 cache close to it.


cdef inline void prefetch_rows(const Target* t, const int64_t* rows, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    # Array by array, so that the processor looks up the pages of several rows at the same time.
    cdef Py_ssize_t i
    cdef int j
    for i in range(lo, hi):
        prefetch_row(False, t.table + rows[i] * t.row_bytes, t.row_bytes)
    for j in range(t.n_states):
        for i in range(lo, hi):
            prefetch_row(False, t.state[j] + rows[i] * t.state_bytes[j], t.state_bytes[j])
    if t.steps:
        for i in range(lo, hi):
            prefetch(t.steps + rows[i])


cdef inline void prefetch_far(const Target* t, const Window* w, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """The n rows that come l2_ahead rows after the i-th. Neighbours are left to the processor, which predicts them."""
    cdef Py_ssize_t lo = i + t.l2_ahead, hi = min(lo + n, w.known)
    if lo < hi and w.rows[hi - 1] != w.rows[i] + (hi - 1 - i):
        prefetch_rows(t, w.rows, lo, hi)


cdef inline void prefetch_close(const Target* t, const Window* w, Py_ssize_t i) noexcept nogil:
    """The row that comes l1_ahead rows after the i-th, unless both are among neighbours."""
    cdef Py_ssize_t later = i + t.l1_ahead
    cdef int64_t row
    cdef int j
    if t.l1_ahead and later < w.known and w.rows[later] != w.rows[i] + t.l1_ahead:
        row = w.rows[later]
        prefetch_row(True, t.table + row * t.row_bytes, t.row_bytes if t.l1_whole else 1)
        for j in range(t.n_states):
            prefetch_row(True, t.state[j] + row * t.state_bytes[j], t.state_bytes[j] if t.l1_whole else 1)


cdef inline void prefetch_missed(const Target* t, const Past* past, const Window* w, Py_ssize_t i) noexcept nogil:
    """For a later row: its step count, then the numbers of the steps that the row has missed."""
    cdef Py_ssize_t far = i + 2 * t.l2_ahead, close = i + t.l2_ahead
    cdef int32_t step
    if far < w.known:
        prefetch(t.steps + w.rows[far])
    if close < w.known:
        step = relaxed(t.steps + w.rows[close])       # another thread may be writing the count
        if t.missed and step < past.now:
            prefetch(place_of(past, max(past.start, step)))
