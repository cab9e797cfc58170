# A table with its state (Target), the numbers of one step (Settings), and step counts.


cdef enum:
    MOST_STATES = 3
    MOST_COLUMNS = 4        # numbers of a row that depend on its step count.
    MOST_AHEAD = 64         # largest l2_ahead.
    FAR_ENTRIES = 32        # entries between L2 prefetch and use of unordered gradient rows.
    CLOSE_ENTRIES = 8       # entries between L1 prefetch and use.
    MOST_BURST = 8          # most rows that are prefetched together.
    RUN = 16                # neighbouring rows that an element-wise rule takes as one.
    BLOCK = 4096            # most rows that one of several threads takes at a time.
    WINDOW = 256            # rows whose numbers are written out as int64 at a time.
    BEYOND = 2 * MOST_AHEAD # row numbers written out after a window: prefetch_missed looks so far.


cdef Py_ssize_t APART = _memory.APART         # bytes by which a table and its states are offset in their pages


cdef struct Target:
    char* table
    Py_ssize_t row_bytes
    Py_ssize_t dim
    int n_states
    int n_long              # states with rows as long as the table's.
    char* state[MOST_STATES]
    Py_ssize_t state_bytes[MOST_STATES]
    int32_t* steps          # one count a row, or NULL.
    uintptr_t rule
    uintptr_t missed        # the rule for all missed steps of a row at once; 0: missed steps change nothing.
    Py_ssize_t l2_ahead     # rows from the prefetch into the L2 cache to the use.
    Py_ssize_t l1_ahead     # rows from the prefetch into the L1 cache to the use; 0: none.
    bint l1_whole           # whether the L1 prefetch takes whole rows, else first lines.
    Py_ssize_t gradient_ahead   # rows from the prefetch of a gradient that is read in place to its use; 0: none.
    Py_ssize_t burst        # rows that are prefetched together, a power of two.
    bint by_elements        # whether the rule is element-wise, so that neighbouring rows may be updated as one.


cdef struct Settings:
    double scale            # of the gradient: -1 to maximize, below 1 to clip.
    double decay            # coupled weight decay: scale * g + decay * w.
    double clip_value       # bound on each number of the gradient; INFINITY: none.
    double max_row_norm     # bound on the 2-norm of a row's gradient; INFINITY: none.
    double max_norm         # bound on the 2-norm of an updated row; INFINITY: none.
    const void* hyper       # hyper-parameters, as the rule reads them.
    int n_columns           # of numbers that depend on the step count.
    const void* column[MOST_COLUMNS]        # the numbers for the counts from first on; the last one is for all further.
    Py_ssize_t n_counts[MOST_COLUMNS]
    Py_ssize_t first
    double slope            # without columns, the one number of count k is 1 + (k - 1) slope.
    Py_ssize_t count        # the count of every row, if steps is NULL or there is a past.
    const Past* past        # the steps that rows may have missed; NULL under missed="skip".


cdef struct Window:         # some of the touched rows
    Py_ssize_t start        # the position of the first one among all touched rows.
    Py_ssize_t n            # rows to update.
    Py_ssize_t known        # row numbers written out: more than n, for prefetches.
    int64_t rows[WINDOW + BEYOND]


cdef void row_numbers(const Source* s, Py_ssize_t lo, Py_ssize_t hi, int64_t* out) noexcept nogil:
    # One loop for each width: a single loop becomes masked loads of both widths, slow past an array's end.
    cdef const int64_t* wide = <const int64_t*>s.rows + lo
    cdef const int32_t* narrow = <const int32_t*>s.rows + lo
    cdef Py_ssize_t i, n = hi - lo
    if s.rows == NULL:
        for i in range(n):
            out[i] = lo + i
    elif s.rows_wide:
        memcpy(out, wide, n * sizeof(int64_t))
    else:
        for i in range(n):
            out[i] = narrow[i]


cdef inline const real* numbers_at(const Settings* how, int64_t k, real* own) noexcept nogil:
    """The numbers that depend on the count k alone, in `own`, which has room for MOST_COLUMNS."""
    cdef int j
    for j in range(how.n_columns):
        own[j] = (<const real*>how.column[j])[max(0, min(k - how.first, how.n_counts[j] - 1))]
    if how.n_columns == 0:
        own[0] = <real>(1 + <double>(k - 1) * how.slope)
    return own


cdef inline int64_t next_count(const Target* t, int64_t row) noexcept nogil:
    """Count a step of a row."""
    if t.steps[row] < INT32_MAX:
        t.steps[row] += 1
    return t.steps[row]
