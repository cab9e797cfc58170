# A table with its state (Target), the numbers of one step (Settings), and step counts.


cdef enum:
    MOST_STATES = 3
    MOST_AHEAD = 64         # rows between prefetch and use, at the most
    NEAR_ENTRIES = 8        # as SCATTERED, into the first-level cache, where nothing else is followed
    SCATTERED = 32          # entries between prefetch and use of values that do not stand in the order of their rows
    RUN = 16                # neighbouring rows that a rule may take as one
    LINE = 64               # bytes of a cache line
    BLOCK = 4096            # rows that a thread takes at a time, at the most
    WINDOW = 256            # rows whose numbers are written out as int64 at a time,
    BEYOND = 96             # with as many after them as are prefetched: MOST_AHEAD, RUN, and twice those together
    WORTH_THREADS = 65536   # elements below which waking a thread costs more than it saves


cdef Py_ssize_t APART = _memory.APART         # bytes by which a table and its states stand apart in their pages


cdef struct Target:
    char* table
    Py_ssize_t row_bytes
    Py_ssize_t dim
    int n_states
    int n_long              # states with a row as long as the table's, which stand before those with one number a row
    char* state[MOST_STATES]
    Py_ssize_t state_bytes[MOST_STATES]
    int32_t* steps          # one count a row, or NULL
    uintptr_t rule
    uintptr_t missed        # the same for all steps that a row has missed together, or 0 where it does not move in them
    Py_ssize_t ahead        # rows from the prefetch of a whole row to its use
    Py_ssize_t near         # rows from the prefetch of its first line into the first-level cache to its use; 0: none
    bint close              # whether the rest of the row is prefetched then, too
    bint once               # whether one thread, or unsorted rows, do without `near` while gradients are read in place
    Py_ssize_t values       # rows from the prefetch of a gradient to its use; 0: none
    Py_ssize_t together     # rows whose first lines are prefetched at the same time, a power of two; 0: none
    bint whole              # whether each row is (then) prefetched by itself, and whole
    bint by_elements        # whether the rule knows no rows, so that it may take neighbours as one, and a row in parts
    Py_ssize_t part         # bytes of a row's part; 0: rows are taken whole


cdef struct Settings:
    double scale            # of the gradient: -1 to maximize, less than 1 to clip
    double decay            # coupled weight decay: scale * g + decay * w
    double clip_value       # bound on each number of the gradient; INFINITY: none
    double max_row_norm     # bound on the 2-norm of a row's gradient; INFINITY: none
    double max_norm         # bound on the 2-norm of an updated row; INFINITY: none
    const void* hyper
    const void* by_count    # what depends on the step count alone, a row a count
    Py_ssize_t n_counts
    Py_ssize_t n_by_count
    double slope            # or, unless 0, at step k that is the one number 1 + (k - 1) slope
    Py_ssize_t count        # the count of every row, if steps is NULL or there is a past
    const Past* past        # of the table, where rows are brought up to it first, and steps says up to where they are; or NULL


cdef inline int64_t row_number(const Source* s, Py_ssize_t i) noexcept nogil:
    return number(s.rows, s.rows_wide, i) if s.rows else i


cdef void row_numbers(const Source* s, Py_ssize_t lo, Py_ssize_t hi, int64_t* out) noexcept nogil:
    # A loop for each width: of one loop, a compiler makes masked loads of both widths, and these are slow past an array's end.
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
    """What depends on the count k alone; `own` has room for a number."""
    if how.slope != 0:
        own[0] = <real>(1 + <double>(k - 1) * how.slope)
        return own
    return <const real*>how.by_count + (max(1, min(k, how.n_counts)) - 1) * how.n_by_count


cdef inline int64_t next_count(int32_t* steps) noexcept nogil:
    if steps[0] < INT32_MAX:
        steps[0] += 1
    return steps[0]
