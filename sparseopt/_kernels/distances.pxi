# How far ahead of its use a row is prefetched. Distances change the time of a step, never a bit of a result.


cdef struct Processor:      # what suits it, where it was measured; none of it changes a bit of what comes out
    Py_ssize_t far          # cache lines of an array between prefetch and use,
    Py_ssize_t least        # but at least so many rows, and at most MOST_AHEAD
    Py_ssize_t values       # and of the gradient; 0: left to its own prefetcher
    Py_ssize_t close        # lines of rows and their gradients that are prefetched once more, close to their use; or 0: then
    Py_ssize_t near         # first lines are, on that part of the way, and its own prefetcher fetches what follows them,
    Py_ssize_t streams      # of so many rows of all arrays together at a time
    Py_ssize_t kept         # bytes of table and states beyond which it does not keep the addresses of most pages
    Py_ssize_t together     # rows whose pages are looked up at the same time then,
    Py_ssize_t shortest     # if of so many lines, two or more (for shorter ones without long states see Target.once),
    Py_ssize_t longest      # and at most so many;
    Py_ssize_t of_a_line    # of one line, always,
    Py_ssize_t shorter      # and of less: powers of two, all three
    bint lines_of_states    # whether that suits rows of a line or less that have long states, too
    Py_ssize_t whole        # cache lines that a row may have which is not taken in parts,
    Py_ssize_t misses       # and those of all arrays together
    Py_ssize_t part         # bytes of such a part, whole lines; 0: no row is
    Py_ssize_t reach        # bytes of table and states beyond which rows in random order are better sorted


cdef Processor processor
nearest = cpu.nearest()
if nearest == "Zen 5":
    processor = Processor(far=120, least=4, values=64, close=75, near=0, streams=0, kept=0, together=4, shortest=3, longest=5,
                          of_a_line=4, shorter=4, lines_of_states=True, whole=16, misses=34, part=640,
                          reach=<Py_ssize_t>2 << 30)
elif nearest == "Zen 4":
    processor = Processor(far=64, least=8, values=0, close=0, near=2, streams=12, kept=3 << 27, together=8, shortest=2,
                          longest=1 << 30, of_a_line=8, shorter=8, lines_of_states=False, whole=0, misses=0, part=0,
                          reach=1 << 30)
elif nearest == "Zen 3":
    processor = Processor(far=32, least=8, values=0, close=0, near=2, streams=12, kept=3 << 27, together=2, shortest=2,
                          longest=1 << 30, of_a_line=2, shorter=8, lines_of_states=False, whole=0, misses=22, part=128,
                          reach=1 << 30)
else:
    raise ImportError(f"no distances for {nearest!r}")


cdef void set_distances(Target* t, const Processor* p, Py_ssize_t n_bytes) noexcept:
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
            t.near = min(t.ahead // p.near, p.streams // (1 + t.n_long))
    elif (t.n_long == 0 or p.lines_of_states) and t.row_bytes and LINE % t.row_bytes == 0 \
            and <uintptr_t>t.table % t.row_bytes == 0:      # each on a single line
        t.together = p.of_a_line if t.row_bytes == LINE else p.shorter
        t.whole = False
    elif t.n_states and t.state_bytes[0] >= LINE:       # short rows come fast: sooner, and only where there is much to fetch
        t.near = 16
