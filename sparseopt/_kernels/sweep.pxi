# The driver, written once for all rules: visit the touched rows, gather each one's gradient, count its step, apply the rule.
# It knows tables, plans and threads; of the rule it knows a pointer.

cimport numpy as cnp
from cython.parallel cimport prange, threadid
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.math cimport INFINITY, isfinite
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.string cimport memcpy

from sparseopt._kernels.atomic cimport Counts
from sparseopt._kernels.replay cimport (MOST_NUMBERS, Gap, History, Past, Term, append_step, make_ready, numbers_of, place_of,
                                       power, product_of, term_of)
from sparseopt._kernels.rowplan cimport RowPlan, Source, number, prefetch_read

import numpy as np
from sparseopt import _memory
from sparseopt._kernels import cpu

include "rules/registry.pxi"

cnp.import_array()

cdef extern from *:
    """
    #ifndef SPARSEOPT_FLAGS
    #define SPARSEOPT_FLAGS ""
    #endif
    #if defined(__GNUC__)
    /* The empty asm keeps gcc from finding that a function which only prefetches has no effect, and dropping calls of it. */
    #define sparseopt_prefetch(p) do { __builtin_prefetch((p), 1, 2); __asm__ volatile (""); } while (0)
    #define sparseopt_prefetch_near(p) do { __builtin_prefetch((p), 1, 3); __asm__ volatile (""); } while (0)
    #define SPARSEOPT_COMPILER __VERSION__
    #define sparseopt_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define sparseopt_set_relaxed(p, x) __atomic_store_n((p), (x), __ATOMIC_RELAXED)
    #else
    #define sparseopt_relaxed(p) (*(const volatile int *)(p))
    #define sparseopt_set_relaxed(p, x) (*(volatile int *)(p) = (x))
    #define sparseopt_prefetch(p)
    #define sparseopt_prefetch_near(p)
    #define SPARSEOPT_COMPILER ""
    #endif
    #include <string.h>
    static inline unsigned int sparseopt_bits32(float x) { unsigned int b; memcpy(&b, &x, 4); return b; }
    static inline unsigned long long sparseopt_bits64(double x) { unsigned long long b; memcpy(&b, &x, 8); return b; }
    #ifdef _OPENMP
    #include <omp.h>
    #define SPARSEOPT_OPENMP 1
    #else
    #define SPARSEOPT_OPENMP 0
    #endif
    """
    void prefetch "sparseopt_prefetch"(const void*) noexcept nogil               # into the second-level cache
    void prefetch_near "sparseopt_prefetch_near"(const void*) noexcept nogil     # into the first
    int32_t relaxed "sparseopt_relaxed"(const int32_t*) noexcept nogil           # read while another thread may write
    void set_relaxed "sparseopt_set_relaxed"(int32_t*, int32_t) noexcept nogil   # while another thread may read
    uint32_t bits32 "sparseopt_bits32"(float) noexcept nogil
    uint64_t bits64 "sparseopt_bits64"(double) noexcept nogil
    const char* FLAGS "SPARSEOPT_FLAGS"
    const char* COMPILER "SPARSEOPT_COMPILER"
    int OPENMP "SPARSEOPT_OPENMP"

BUILD = {"flags": FLAGS.decode(), "compiler": COMPILER.decode(), "openmp": bool(OPENMP)}

# A rule takes the weights, the gradient, each of its states, what depends on the count, hyper-parameters, and their length.
ctypedef void (*Rule0_32)(float*, const float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule1_32)(float*, const float*, float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule2_32)(float*, const float*, float*, float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule3_32)(float*, const float*, float*, float*, float*, const float*, const float*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule0_64)(double*, const double*, const double*, const double*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule1_64)(double*, const double*, double*, const double*, const double*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule2_64)(double*, const double*, double*, double*, const double*, const double*, Py_ssize_t) noexcept nogil
ctypedef void (*Rule3_64)(double*, const double*, double*, double*, double*, const double*, const double*, Py_ssize_t) noexcept nogil


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


cdef inline void prefetch_line(bint close, const char* line) noexcept nogil:
    if close:
        prefetch_near(line)
    else:
        prefetch(line)


cdef inline void prefetch_row(bint close, const char* row, Py_ssize_t n_bytes) noexcept nogil:
    """All lines of a row, into the first-level cache if its use is close."""
    cdef const char* line = row
    cdef const char* last = row + n_bytes - 1
    while line + 3 * LINE <= last:
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


cdef inline void prefetch_ahead(const Target* t, const int64_t* rows, Py_ssize_t known) noexcept nogil:
    if t.ahead < known and rows[t.ahead] != rows[0] + t.ahead:      # neighbours the processor foresees by itself
        prefetch_target(t, rows[t.ahead])
        if t.near:
            prefetch_target_near(t, rows[t.near])


cdef inline bint run_begins(const Target* t, const int64_t* rows) noexcept nogil:
    """Whether the next RUN rows are neighbours and have taken as many steps."""
    cdef Py_ssize_t j
    if rows[RUN - 1] != rows[0] + RUN - 1:
        return False
    for j in range(1, RUN):
        if rows[j] != rows[0] + j or (t.steps and t.steps[rows[j]] != t.steps[rows[0]]):
            return False
    return True


cdef const real* gather(const Target* t, const Source* s, Py_ssize_t i, real* scratch) noexcept nogil:
    """The gradient of the i-th touched row: in place where it stands alone, else summed in scratch."""
    cdef const real* values = <const real*>s.values
    cdef const real* weights = <const real*>s.weights
    cdef const real* term
    cdef int64_t e, start = i, stop = i + 1
    cdef Py_ssize_t j, dim = t.dim, near = t.near if t.near else NEAR_ENTRIES
    if s.starts:
        start = s.starts[i]
        stop = s.stops[i]
    if s.columns:
        for j in range(dim):
            scratch[j] = 0
        for e in range(start, stop):
            j = number(s.columns, s.index_wide, e)
            scratch[j] = scratch[j] + values[e]
    elif s.sources:
        for e in range(start, stop):
            if e + SCATTERED < s.n_weights:
                prefetch_row(False, <const char*>(values + number(s.sources, s.index_wide, e + SCATTERED) * s.stride),
                             dim * sizeof(real))
            term = values + number(s.sources, s.index_wide, e) * s.stride
            if e == start:
                set_scaled(scratch, weights[e], term, dim)
            else:
                add_scaled(scratch, weights[e], term, dim)
    else:
        for e in range(start, stop):
            if s.order and e + SCATTERED < s.n_entries:
                if t.close:
                    prefetch_row(True, <const char*>(values + s.order[e + SCATTERED] * s.stride), dim * sizeof(real))
                else:
                    prefetch_row(False, <const char*>(values + s.order[e + SCATTERED] * s.stride), dim * sizeof(real))
                    prefetch_near(values + s.order[e + near] * s.stride)
            elif t.values and not s.order:
                prefetch_row(True, <const char*>(values + (e + t.values) * s.stride), dim * sizeof(real))
            term = values + (s.order[e] if s.order else e) * s.stride
            if stop - start == 1:
                return term
            if e == start:
                memcpy(scratch, term, dim * sizeof(real))
            else:
                add(scratch, term, dim)
    return scratch


cdef inline void add(real* restrict sum_, const real* restrict term, Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(dim):
        sum_[j] = sum_[j] + term[j]


cdef inline void set_scaled(real* restrict sum_, real weight, const real* restrict term, Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(dim):
        sum_[j] = weight * term[j]


cdef inline void add_scaled(real* restrict sum_, real weight, const real* restrict term, Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(dim):
        sum_[j] = sum_[j] + weight * term[j]


cdef inline void scale_and_decay(real* scratch, const real* g, const real* restrict w, real scale, real decay,
                                 Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t j
    if decay == 0:                      # so that 0 * w cannot make a NaN of an infinite weight
        for j in range(dim):
            scratch[j] = scale * g[j]
    else:
        for j in range(dim):
            scratch[j] = scale * g[j] + decay * w[j]


cdef const real* clipped(const Settings* how, const real* g, real* scratch, Py_ssize_t dim) noexcept nogil:
    """A row's gradient within clip_value, then within max_row_norm; a NaN stays one."""
    cdef real bound = <real>how.clip_value, factor
    cdef double norm
    cdef Py_ssize_t j
    if how.clip_value < INFINITY:
        for j in range(dim):
            scratch[j] = bound if g[j] > bound else -bound if g[j] < -bound else g[j]
        g = scratch
    if how.max_row_norm < INFINITY:
        norm = norm_of(g, dim)
        if not norm <= how.max_row_norm:
            factor = <real>(how.max_row_norm / norm)
            for j in range(dim):
                scratch[j] = factor * g[j]
            g = scratch
    return g


cdef double norm_of(const real* x, Py_ssize_t n) noexcept nogil:
    """The 2-norm of a row, also where the sum of squares overflows."""
    cdef double sum_ = square_sum(x, n), top
    cdef Py_ssize_t j
    if sum_ < INFINITY or sum_ != sum_:
        return sqrt(sum_)
    top = largest_magnitude(x, n)
    sum_ = 0
    for j in range(n):
        sum_ += (x[j] / top) * (x[j] / top)
    return top * sqrt(sum_)


cdef void project(real* w, Py_ssize_t dim, double max_norm) noexcept nogil:
    """Scale a row down to max_norm, as torch.nn.Embedding does."""
    cdef double norm = norm_of(w, dim)
    cdef real factor
    cdef Py_ssize_t j
    if norm > max_norm:
        factor = <real>(max_norm / (norm + 1e-7))
        for j in range(dim):
            w[j] = factor * w[j]


cdef inline void* of_row(const Target* t, int state, int64_t row, Py_ssize_t offset) noexcept nogil:
    return t.state[state] + row * t.state_bytes[state] + offset


cdef inline void apply(uintptr_t rule, const Target* t, int64_t row, Py_ssize_t lo, Py_ssize_t n, const real* g, const real* at,
                       const real* h) noexcept nogil:
    """Apply a rule to the n elements of a row from the lo-th on."""
    cdef Py_ssize_t o = lo * sizeof(real)
    cdef real* w = <real*>(t.table + row * t.row_bytes + o)
    if real is float:
        if t.n_states == 0:
            (<Rule0_32>rule)(w, g, at, h, n)
        elif t.n_states == 1:
            (<Rule1_32>rule)(w, g, <float*>of_row(t, 0, row, o), at, h, n)
        elif t.n_states == 2:
            (<Rule2_32>rule)(w, g, <float*>of_row(t, 0, row, o), <float*>of_row(t, 1, row, o), at, h, n)
        else:
            (<Rule3_32>rule)(w, g, <float*>of_row(t, 0, row, o), <float*>of_row(t, 1, row, o), <float*>of_row(t, 2, row, o),
                               at, h, n)
    else:
        if t.n_states == 0:
            (<Rule0_64>rule)(w, g, at, h, n)
        elif t.n_states == 1:
            (<Rule1_64>rule)(w, g, <double*>of_row(t, 0, row, o), at, h, n)
        elif t.n_states == 2:
            (<Rule2_64>rule)(w, g, <double*>of_row(t, 0, row, o), <double*>of_row(t, 1, row, o), at, h, n)
        else:
            (<Rule3_64>rule)(w, g, <double*>of_row(t, 0, row, o), <double*>of_row(t, 1, row, o), <double*>of_row(t, 2, row, o),
                               at, h, n)


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
    cdef bint runs = plain and t.by_elements and stride == t.dim
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
        if plain:
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


cdef double square_sum(const real* restrict g, Py_ssize_t n) noexcept nogil:
    cdef double lane[8]
    cdef Py_ssize_t i, j, whole = n - n % 8
    for j in range(8):
        lane[j] = 0
    for i in range(0, whole, 8):
        for j in range(8):
            lane[j] = lane[j] + <double>g[i + j] * <double>g[i + j]
    for j in range(n - whole):
        lane[j] = lane[j] + <double>g[whole + j] * <double>g[whole + j]
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]))


cdef void square_sums(const Target* t, const Source* s, const Settings* how, double* sums, Py_ssize_t n, real* scratch,
                      Py_ssize_t pad, int threads) noexcept nogil:
    cdef Py_ssize_t i
    for i in prange(n, schedule="static", num_threads=threads):
        sums[i] = square_sum_of(t, s, how, i, scratch + threadid() * pad)


cdef double square_sum_of(const Target* t, const Source* s, const Settings* how, Py_ssize_t i, real* scratch) noexcept nogil:
    return square_sum(clipped(how, gather(t, s, i, scratch), scratch, t.dim), t.dim)


cdef inline int32_t size32(float x) noexcept nogil:
    # Without their sign, floating-point numbers are ordered as their bits are; infinity and NaN come last.
    return <int32_t>(bits32(x) & <uint32_t>0x7FFFFFFF)


cdef inline int64_t size64(double x) noexcept nogil:
    return <int64_t>(bits64(x) & <uint64_t>0x7FFFFFFFFFFFFFFF)


cdef real largest_magnitude(const real* x, Py_ssize_t n) noexcept nogil:
    # In four places at the same time, which memory answers sooner than one after the other.
    cdef Py_ssize_t i, part = n // 4
    cdef int32_t top32 = 0
    cdef int64_t top64 = 0
    cdef real value
    if real is float:
        for i in range(part):
            top32 = max(top32, max(max(size32(x[i]), size32(x[part + i])),
                                   max(size32(x[2 * part + i]), size32(x[3 * part + i]))))
        for i in range(4 * part, n):
            top32 = max(top32, size32(x[i]))
        memcpy(&value, &top32, sizeof(value))
    else:
        for i in range(part):
            top64 = max(top64, max(max(size64(x[i]), size64(x[part + i])),
                                   max(size64(x[2 * part + i]), size64(x[3 * part + i]))))
        for i in range(4 * part, n):
            top64 = max(top64, size64(x[i]))
        memcpy(&value, &top64, sizeof(value))
    return value


cdef inline real top_of(real x, real y) noexcept nogil:
    return y if y > x or y != y else x          # a NaN is on top of all


cdef real largest_of_rows(const real* x, Py_ssize_t stride, Py_ssize_t lo, Py_ssize_t hi, Py_ssize_t columns) noexcept nogil:
    cdef Py_ssize_t i
    cdef real top = 0
    if stride == columns:
        return largest_magnitude(x + lo * stride, (hi - lo) * columns)
    for i in range(lo, hi):
        top = top_of(top, largest_magnitude(x + i * stride, columns))
    return top


cdef void largest_of_blocks(const real* x, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t height,
                            double* tops, Py_ssize_t n_blocks, int threads) noexcept nogil:
    # From the last block to the first, so that what the update reads first is what caches were given last.
    cdef Py_ssize_t i, block
    for i in prange(n_blocks, schedule="static", chunksize=1, num_threads=threads):
        block = n_blocks - 1 - i
        tops[block] = largest_of_rows(x, stride, block * height, min(rows, (block + 1) * height), columns)


cdef double largest(const real* x, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t columns, int threads) except? -1:
    """The largest magnitude in an array; infinity or NaN if it has one."""
    cdef Py_ssize_t height = max(1, 65536 // max(1, columns)), block, n_blocks = (rows + height - 1) // height
    cdef double top = 0
    cdef double* tops
    if n_blocks <= 1:
        return largest_of_rows(x, stride, 0, rows, columns)
    tops = <double*>PyMem_RawMalloc(n_blocks * sizeof(double))
    if tops == NULL:
        raise MemoryError
    with nogil:
        largest_of_blocks(x, stride, rows, columns, height, tops, n_blocks, threads)
        for block in range(n_blocks):
            top = top_of(top, tops[block])
    PyMem_RawFree(tops)
    return top


cdef void mark_nonfinite(const Target* t, const Source* s, uint8_t* marks, Py_ssize_t n, real* scratch) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        marks[i] = not isfinite(largest_magnitude(gather(t, s, i, scratch), t.dim))


cdef class Scratch:
    """One row of working memory a thread, each on cache lines of its own."""
    cdef char* memory
    cdef void* rows
    cdef Py_ssize_t pad
    cdef int threads

    cdef int allocate(self, Py_ssize_t dim, Py_ssize_t itemsize, int threads) except -1:
        self.threads = threads
        # What a sum prefetches beyond its row is not the next thread's.
        self.pad = (dim * itemsize + SOON + 2 * LINE - 1) // LINE * LINE // itemsize
        self.memory = <char*>PyMem_RawMalloc(threads * self.pad * itemsize + LINE)
        if self.memory == NULL:
            raise MemoryError
        self.rows = <void*>((<uintptr_t>self.memory + LINE - 1) // LINE * LINE)
        return 0

    def __dealloc__(self):
        PyMem_RawFree(self.memory)


cdef Scratch scratch_of(Py_ssize_t dim, Py_ssize_t itemsize, int threads):
    cdef Scratch scratch = Scratch.__new__(Scratch)
    scratch.allocate(dim, itemsize, threads)
    return scratch


cdef struct Held:           # an array as it was when it was bound
    void* data
    int type
    int ndim
    Py_ssize_t shape[2]
    Py_ssize_t strides[2]


cdef void hold(Held* held, cnp.ndarray array) noexcept:
    cdef int axis
    held.data = cnp.PyArray_DATA(array)
    held.type = cnp.PyArray_TYPE(array)
    held.ndim = cnp.PyArray_NDIM(array)
    for axis in range(held.ndim):
        held.shape[axis] = cnp.PyArray_DIM(array, axis)
        held.strides[axis] = cnp.PyArray_STRIDE(array, axis)


cdef bint is_held(const Held* held, cnp.ndarray array) noexcept:
    cdef int axis
    if cnp.PyArray_DATA(array) != held.data or cnp.PyArray_TYPE(array) != held.type or not cnp.PyArray_ISBEHAVED(array) \
            or cnp.PyArray_NDIM(array) != held.ndim:
        return False
    for axis in range(held.ndim):
        if cnp.PyArray_DIM(array, axis) != held.shape[axis] or cnp.PyArray_STRIDE(array, axis) != held.strides[axis]:
            return False
    return True


cdef class Sweep:
    """One table with its state and its rule, bound once, and what the steps so far have left: counts and history."""
    cdef Target target
    cdef readonly bint rising       # its rows are better visited in rising order, even if their values do not stand in it
    cdef bint double_
    cdef list arrays
    cdef public int64_t count       # steps of the table
    cdef public History history     # of the steps that rows may have missed; None where nothing is replayed
    cdef public object missed       # what the history was made for
    cdef public object last_hyper   # the hyper-parameters of the last step in the history; None before one
    cdef int32_t* shared            # the one step count of all rows, or NULL
    cdef Held held[MOST_STATES + 2]
    cdef str title                  # of the table, for errors

    def __init__(self, str rule, table, states, steps, missed=None, bint by_elements=False,
                 str title="the optimizer"):
        """`steps` counts for each row, or of dimension 0 for all rows, or is None.

        `by_elements` says that the rule knows no rows: what it does to an element depends on that alone.
        """
        self.shared = NULL
        if steps is not None and steps.ndim == 0:
            self.shared = <int32_t*>cnp.PyArray_DATA(steps)
        self.title = title
        self.arrays = [array for array in (table, *states, steps) if array is not None]
        for i, array in enumerate(self.arrays):
            hold(&self.held[i], array)
        self.double_ = table.dtype == np.float64
        cdef Target* t = &self.target
        t.rule = self.function(rule, len(states))
        t.missed = self.function(missed, len(states)) if missed else 0
        t.table = <char*>cnp.PyArray_DATA(table)
        t.row_bytes = table.strides[0] if table.size else 0
        t.dim = table.shape[1] if table.ndim == 2 else 1
        t.n_states = len(states)
        t.by_elements = by_elements
        for i, state in enumerate(states):
            t.state[i] = <char*>cnp.PyArray_DATA(state)
            t.state_bytes[i] = state.strides[0] if state.size else 0
        t.n_long = sum(state.ndim == table.ndim for state in states)
        t.steps = <int32_t*>cnp.PyArray_DATA(steps) if steps is not None and not self.shared else NULL
        n_bytes = sum(array.nbytes for array in self.arrays)
        set_distances(t, &processor, n_bytes)
        self.rising = n_bytes > processor.reach

    cdef uintptr_t function(self, str rule, n_states) except 0:
        taken, rule32, rule64 = RULES[rule]
        if n_states != taken:
            raise ValueError(f"rule {rule!r} takes {taken} states; the optimizer names {n_states}")
        return rule64 if self.double_ else rule32

    cdef int threads(self, RowPlan plan, int wanted):
        cdef Py_ssize_t work = plan.n * (self.target.dim + 8) + plan.source.value_rows * 8
        return wanted if work >= WORTH_THREADS else 1

    def largest(self, RowPlan plan, int num_threads):
        """A bound on every number of a gradient: finite only if all of them are, repeats summed and rounded."""
        return self.bound_of(plan, self.threads(plan, num_threads))

    cdef double bound_of(self, RowPlan plan, int num_threads) except? -1:
        cdef Source* s = &plan.source
        cdef double value, weight = 1
        plan.check_in_place()
        if self.double_:
            value = largest(<const double*>s.values, s.stride, s.value_rows, s.value_columns, num_threads)
            if s.weights:
                weight = largest(<const double*>s.weights, 1, s.n_weights, 1, num_threads)
            return 2 * value * weight * plan.longest
        value = largest(<const float*>s.values, s.stride, s.value_rows, s.value_columns, num_threads)
        if s.weights:
            weight = largest(<const float*>s.weights, 1, s.n_weights, 1, num_threads)
        return <double><float>(2 * value * weight * plan.longest)

    def nonfinite(self, RowPlan plan):
        """Which of the touched rows have a NaN or an infinity in their gradient: a boolean array."""
        plan.check_in_place()
        marks = np.empty(plan.n, dtype=np.bool_)
        cdef uint8_t* m = <uint8_t*>cnp.PyArray_DATA(marks)
        cdef Scratch scratch = scratch_of(self.target.dim, 8 if self.double_ else 4, 1)
        with nogil:
            if self.double_:
                mark_nonfinite(&self.target, &plan.source, m, plan.n, <double*>scratch.rows)
            else:
                mark_nonfinite(&self.target, &plan.source, m, plan.n, <float*>scratch.rows)
        return marks

    def gradient(self, RowPlan plan, Py_ssize_t i):
        """The gradient of the i-th touched row, repeats summed, as a list."""
        plan.check_in_place()
        cdef Scratch scratch = scratch_of(self.target.dim, 8 if self.double_ else 4, 1)
        cdef const double* g64
        cdef const float* g32
        if self.double_:
            g64 = gather(&self.target, &plan.source, i, <double*>scratch.rows)
            return [g64[j] for j in range(self.target.dim)]
        g32 = gather(&self.target, &plan.source, i, <float*>scratch.rows)
        return [g32[j] for j in range(self.target.dim)]

    def check_in_place(self):
        """Raise ValueError if the table or its state is no longer where and what it was when this was made."""
        self.check_held()

    cdef int check_held(self) except -1:
        cdef Py_ssize_t i
        for i in range(len(self.arrays)):
            if not is_held(&self.held[i], <cnp.ndarray>self.arrays[i]):
                self.say_what_changed(i)
        return 0

    cdef say_what_changed(self, Py_ssize_t i):
        array, held = self.arrays[i], self.held[i]
        what = f"the {'state' if i else 'table'} of {self.title}"
        shape = tuple([held.shape[axis] for axis in range(held.ndim)])
        if array.shape != shape:
            raise ValueError(f"{what} has changed its shape from {shape} to {array.shape}")
        if not array.flags.writeable:
            raise ValueError(f"{what} has become read-only; it is updated in place")
        raise ValueError(f"{what} has changed its memory, dtype or strides since the optimizer was made; it must stay where it is")

    def prepare(self, RowPlan plan not None, int num_threads, tuple numbers):
        """The Update that applies the rule to every touched row.

        `numbers` are hyper-parameters, what depends on the count alone, the count of rows that keep none of their own, scale
        and decay; then, or none of these, clip_value, max_row_norm, max_norm and slope.
        """
        cdef Update update = self.new_update(plan, num_threads)
        cdef Settings* how = &update.how
        cdef cnp.ndarray hyper = <cnp.ndarray?>numbers[0], by_count = <cnp.ndarray?>numbers[1]
        update.hyper, update.by_count, update.takes_a_step = hyper, by_count, True
        how.hyper = cnp.PyArray_DATA(hyper)
        how.by_count = cnp.PyArray_DATA(by_count)
        how.n_counts = cnp.PyArray_DIM(by_count, 0)
        how.n_by_count = cnp.PyArray_DIM(by_count, 1)
        how.count, how.scale, how.decay = numbers[2], numbers[3], numbers[4]
        how.clip_value = how.max_row_norm = how.max_norm = INFINITY
        how.slope = 0
        if len(numbers) > 5:
            how.clip_value, how.max_row_norm, how.max_norm, how.slope = numbers[5], numbers[6], numbers[7], numbers[8]
        return update

    def prepare_catching_up(self, RowPlan plan, int num_threads):
        """The Update that brings rows up to the last step of their history."""
        cdef Update update = self.new_update(plan, num_threads)
        self.set_catching_up(&update.how)
        update.hyper = self.last_hyper
        update.history = self.history
        return update

    def prepare_nothing(self, int num_threads):
        """An Update of no row, for what is to come before it."""
        return self.new_update(None, num_threads)

    cdef Update new_update(self, RowPlan plan, int num_threads):
        cdef Update update = Update.__new__(Update)
        update.sweep, update.plan = self, plan
        update.allocate(self.target.dim, 8 if self.double_ else 4,
                        self.threads(plan, num_threads) if plan is not None else num_threads)
        return update

    cdef void set_catching_up(self, Settings* how):
        how.scale = 1
        how.decay = 0
        how.clip_value = how.max_row_norm = how.max_norm = INFINITY
        how.slope = 0
        how.n_counts = how.n_by_count = 1
        if self.last_hyper is None:             # before the first step no row has missed any
            how.hyper = how.by_count = NULL
        else:
            how.hyper = how.by_count = cnp.PyArray_DATA(<cnp.ndarray>self.last_hyper)
        how.past = &self.history.past
        how.count = self.history.past.now

    @staticmethod
    def not_finite(list updates):
        """The positions of the updates whose gradients may have a NaN or an infinity."""
        cdef Update update
        cdef list found = []
        cdef Py_ssize_t i
        for i in range(len(updates)):
            update = <Update?>updates[i]
            if not isfinite(update.sweep.bound_of(update.plan, update.threads)):
                found.append(i)
        return found

    @staticmethod
    def apply(list updates, Counts counts=None, Py_ssize_t left_out=0):
        """Do what was prepared, for all tables, and count: no Python runs from the first write to the last.

        Raises ValueError if a table or a gradient is no longer where it was; nothing has been written then.
        """
        cdef Update update
        for update in updates:
            update.sweep.check_held()
            if update.plan is not None:
                update.plan.check_in_place()
        for update in updates:
            update.run()
        if counts is not None:
            counts.steps += 1
            counts.nonfinite_rows += left_out

    cdef void run(self, RowPlan plan, Settings* how, Scratch scratch):
        if how.past and 0 < how.past.resolvent.window < 2 * plan.n:
            make_ready(<Past*>how.past)
        with nogil:
            if self.double_:
                update_all(&self.target, &plan.source, how, plan.n, <double*>scratch.rows, scratch.pad, scratch.threads)
            else:
                update_all(&self.target, &plan.source, how, plan.n, <float*>scratch.rows, scratch.pad, scratch.threads)


cdef class Update(Scratch):
    """One table's share of a call.  All that can fail is done when this is made; `run` only writes."""
    cdef Sweep sweep
    cdef public RowPlan plan        # None: no row is to be updated
    cdef Settings how
    cdef object hyper, by_count     # what `how` points into
    cdef bint takes_a_step          # or else rows are only brought up
    cdef History history            # that the table has from here on; None where nothing is replayed
    cdef RowPlan whole              # all rows, to be brought up first, where another history begins; else None
    cdef object missed              # what that history is made for
    cdef cnp.ndarray number         # of the whole table, that has this value after the step; or None
    cdef double value
    cdef Term term                  # what the step leaves to rows that miss it

    def square_sum(self):
        """The sum of squares of the gradient, repeats summed and rows clipped: the same bits for any number of threads."""
        cdef Sweep sweep = self.sweep
        cdef RowPlan plan = self.plan
        plan.check_in_place()
        sums = np.empty(plan.n, dtype=np.float64)
        cdef double* out = <double*>cnp.PyArray_DATA(sums)
        with nogil:
            if sweep.double_:
                square_sums(&sweep.target, &plan.source, &self.how, out, plan.n, <double*>self.rows, self.pad, self.threads)
            else:
                square_sums(&sweep.target, &plan.source, &self.how, out, plan.n, <float*>self.rows, self.pad, self.threads)
        sums.sort()                 # so that it matters to no bit in which order rows are visited
        return float(sums.sum())

    def scale(self, double factor):
        """Scale the gradient."""
        self.how.scale *= factor

    def replay(self, History history, matrix=(), double rate=0, double factor=0, double fresh=1):
        """Let the step be the next one in a history, and leave its term to the rows that miss it."""
        history.reserve()
        self.history = history
        self.term = term_of(history, matrix, rate, factor, fresh)

    def set_number(self, cnp.ndarray array, double value):
        """Let an array of one float64 have this value after the step."""
        self.number, self.value = array, value

    def begin(self, RowPlan whole, History history, missed):
        """Before all, bring every row up to the end of the history so far, and let another one begin."""
        self.whole, self.history, self.missed = whole, history, missed

    cdef void run(self):
        cdef Sweep sweep = self.sweep
        cdef Settings catching_up
        if self.whole is not None:
            if sweep.last_hyper is not None:
                sweep.set_catching_up(&catching_up)
                sweep.run(self.whole, &catching_up, self)
            sweep.history, sweep.missed, sweep.last_hyper = self.history, self.missed, None
        if self.plan is None:
            return
        self.how.past = &self.history.past if self.history is not None else NULL
        if self.takes_a_step or self.hyper is not None:
            sweep.run(self.plan, &self.how, self)
        if not self.takes_a_step:
            return
        if self.history is not None:
            append_step(&self.history.past, &self.term)
            sweep.last_hyper = self.hyper
        if sweep.count < INT32_MAX:
            sweep.count += 1
        if sweep.shared:
            sweep.shared[0] = <int32_t>sweep.count
        if self.number is not None:
            (<double*>cnp.PyArray_DATA(self.number))[0] = self.value


include "embedding.pxi"
include "limit.pxi"
