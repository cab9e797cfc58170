# How far ahead of its use a row is prefetched. Distances change the time of a step, never a bit of a result.


processor = processors.own()        # of what is bound from now on; bench/tricks.py sets others


cdef void set_distances(Target* t, p, Py_ssize_t n_bytes):
    cdef Py_ssize_t lines = max(1, t.row_bytes // LINE)
    t.ahead = min(MOST_AHEAD, max(p.least, p.far // lines))
    t.near = t.together = 0
    t.close = t.once = False
    t.values = p.values // lines if t.row_bytes >= LINE else 0
    t.part = p.part if t.by_elements and t.n_long and lines > p.whole and lines * (1 + t.n_long) > p.misses else 0
    t.whole = not t.part
    if lines > 1:
        t.close = p.close > 0
        t.together = p.together if t.whole and n_bytes > p.kept and p.shortest <= lines <= p.longest else 0
        if t.close:
            t.near = p.close // (lines * (2 + t.n_long))
            if t.near == 0:             # the processor itself follows so long a row well, and its gradient
                t.values = 0
            if t.n_long == 0:           # few lines to wait for
                t.together = 0
                t.once = lines < p.shortest
        else:
            t.near = min(t.ahead // p.near, p.streams // (1 + t.n_long)) if p.near else 0
    elif (t.n_long == 0 or p.lines_of_states) and t.row_bytes and LINE % t.row_bytes == 0 \
            and <uintptr_t>t.table % t.row_bytes == 0:      # each on a single line
        t.together = p.of_a_line if t.row_bytes == LINE else p.shorter
        t.whole = False
    elif t.n_states and t.state_bytes[0] >= LINE:       # short rows come fast: sooner, and only where there is much to fetch
        t.near = 16
