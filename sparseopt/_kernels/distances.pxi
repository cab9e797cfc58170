# How far ahead of its use a row is prefetched, from the numbers of the processor. See processors.py.

processor = processors.own()        # of tables that are bound from now on; bench/tricks.py sets other numbers


cdef void set_distances(Target* t, p):
    cdef Py_ssize_t lines = max(1, t.row_bytes // LINE), arrays = 1 + t.n_long
    t.l2_ahead = min(MOST_AHEAD, max(p.l2_rows, p.l2_lines // lines))
    t.l1_whole = p.l1_whole_rows
    t.l1_ahead = 0          # a row on one cache line comes too fast: a second prefetch costs more than a miss
    if lines > 1:
        t.l1_ahead = min(t.l2_ahead // 2, p.l1_lines // (lines * (1 + arrays) if t.l1_whole else arrays))
    t.gradient_ahead = p.gradient_lines // lines
    t.burst = 1
    while t.burst < MOST_BURST and 2 * t.burst * lines * arrays <= p.burst_lines:
        t.burst *= 2
