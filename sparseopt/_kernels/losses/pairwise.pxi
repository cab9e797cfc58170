# Pairwise ranking: the score of a user's item against the scores of items that are not the user's.
#
# 1. `find` chooses among the items drawn for each pair of a user and an item. bpr takes all that the user does not own.
#    warp takes the first of these whose score comes too near. Pairs without such an item are left out.
# 2. `compare` turns what is left into a loss and into rows of gradients.

cdef enum:
    PAIRS = 64      # pairs of a block, which a thread takes at a time


cdef struct Drawn:              # pairs of a user and an item, with drawn items
    Rows users
    Rows items
    Rows others                 # `each` of a pair, pair after pair
    Py_ssize_t each
    Py_ssize_t tries            # warp: a pair goes on with the items of the next pairs, up to so many
    Py_ssize_t dim
    const void* bias            # of all items
    const void* indptr          # the users' own items as in a CSR array, each row in ascending order
    const void* indices         # NULL: users own nothing
    bint indptr_wide
    bint indices_wide


cdef inline int64_t row_of(const Rows* rows, Py_ssize_t i) noexcept nogil:
    return number(rows.numbers, rows.wide, i)


cdef inline Py_ssize_t place_of_try(const Drawn* x, Py_ssize_t k, Py_ssize_t j) noexcept nogil:
    return (k * x.each + j) % x.others.n


cdef inline real score(const real* p, const Rows* items, Py_ssize_t i, const void* bias, Py_ssize_t dim) noexcept nogil:
    """p · q + b, for the i-th of some items."""
    return dot(p, <const real*>address_of_row(items, i), dim) + (<const real*>bias)[row_of(items, i)]


cdef void mark_own(const Drawn* x, const int64_t* users, const int64_t* items, Py_ssize_t n,
                   uint8_t* own) noexcept nogil:
    """Whether users own items, for at most PAIRS of both. Binary searches go side by side, so that loads overlap."""
    cdef int64_t lo[PAIRS]
    cdef int64_t left[PAIRS]
    cdef int64_t half, longest = 0
    cdef Py_ssize_t i
    for i in range(n):
        lo[i] = number(x.indptr, x.indptr_wide, users[i]) if x.indices != NULL else 0
        left[i] = number(x.indptr, x.indptr_wide, users[i] + 1) - lo[i] if x.indices != NULL else 0
        lo[i] = lo[i] if left[i] else 0         # the place of a row without items may be past the end
        longest = max(longest, left[i])
    while longest > 1:
        for i in range(n):
            half = left[i] >> 1
            lo[i] += half & -<int64_t>(number(x.indices, x.indices_wide, lo[i] + half) <= items[i])    # no branch
            left[i] -= half
        longest -= longest >> 1
    for i in range(n):
        own[i] = left[i] and number(x.indices, x.indices_wide, lo[i]) == items[i]


cdef void find_bpr(const Drawn* x, Py_ssize_t lo, Py_ssize_t hi, int32_t* draws) noexcept nogil:
    """Set the draws from lo to hi - 1: -1 for a user's own item, else 0."""
    cdef int64_t users[PAIRS]
    cdef int64_t items[PAIRS]
    cdef uint8_t own[PAIRS]
    cdef Py_ssize_t i, n = hi - lo, k = lo // x.each, end = (k + 1) * x.each
    for i in range(n):
        if lo + i == end:
            k += 1
            end += x.each
        users[i], items[i] = row_of(&x.users, k), row_of(&x.others, lo + i)
    mark_own(x, users, items, n, own)
    for i in range(n):
        draws[lo + i] = -<int32_t>own[i]


cdef void find_warp(const Drawn* x, Py_ssize_t lo, Py_ssize_t hi, int32_t* draws, real like) noexcept nogil:
    """Set the draws of the pairs from lo to hi - 1: the first j with s_uj > s_ui - 1 that is not the user's, or -1."""
    cdef int64_t users[PAIRS]
    cdef int64_t items[PAIRS]
    cdef real far[PAIRS]
    cdef Py_ssize_t looking[PAIRS]
    cdef uint8_t own[PAIRS]
    cdef Py_ssize_t i, k, near, n = hi - lo
    for i in range(n):
        k = lo + i
        prefetch_later_row(&x.users, k, x.dim * sizeof(real))
        prefetch_later_row(&x.items, k, x.dim * sizeof(real))
        far[i] = score(<const real*>address_of_row(&x.users, k), &x.items, k, x.bias, x.dim) - 1
        draws[k] = -1
        looking[i] = k
    while n:
        near = 0
        for i in range(n):
            k = looking[i]
            draws[k] = next_near(x, k, draws[k] + 1, far[k - lo])
            if draws[k] >= 0:
                looking[near] = k
                users[near], items[near] = row_of(&x.users, k), row_of(
                    &x.others, place_of_try(x, k, draws[k]))
                near += 1
        mark_own(x, users, items, near, own)
        n = 0
        for i in range(near):
            if own[i]:                          # the search goes on after the user's own item
                looking[n] = looking[i]
                n += 1


cdef inline int32_t next_near(const Drawn* x, Py_ssize_t k, Py_ssize_t first, real far) noexcept nogil:
    cdef const real* p = <const real*>address_of_row(&x.users, k)
    cdef Py_ssize_t j
    for j in range(first, x.tries):
        if not score(p, &x.others, place_of_try(x, k, j), x.bias, x.dim) <= far:     # a NaN is near, so the loss is NaN
            return <int32_t>j
    return -1


cdef void find_all(const Drawn* x, bint warp, Py_ssize_t n, int32_t* draws, real like, int threads) noexcept nogil:
    cdef Py_ssize_t block
    for block in prange((n + PAIRS - 1) // PAIRS, schedule="dynamic", num_threads=threads):
        if warp:
            find_warp(x, block * PAIRS, min(n, (block + 1) * PAIRS), draws, like)
        else:
            find_bpr(x, block * PAIRS, min(n, (block + 1) * PAIRS), draws)


cdef struct Left:               # what `find` writes
    void* users
    void* items                 # a user's item and the other items, user after user
    bint wide                   # items are int64, else int32
    int64_t* starts             # user k has the other items from starts[k] to starts[k + 1] - 1
    void* weights               # of the losses
    void* decays                # of ½ (‖p‖² + ‖q‖² + ‖r‖²), for each other item


cdef inline void set_number(void* array, bint wide, Py_ssize_t i, int64_t value) noexcept nogil:
    if wide:
        (<int64_t*>array)[i] = value
    else:
        (<int32_t*>array)[i] = <int32_t>value


cdef Py_ssize_t keep(const Drawn* x, bint warp, const int32_t* draws, const real* weights, const real* ranks,
                     real regularization, Left* left, real like) noexcept nogil:
    """Write the pairs that have other items to `left`, and return their number."""
    cdef Py_ssize_t k, draw, n = 0, total = 0
    cdef real weight
    for k in range(x.users.n):
        weight = weights[k] if warp else weights[k] / x.each
        set_number(left.items, left.wide, n + total, row_of(&x.items, k))
        left.starts[n] = total
        if warp and draws[k] >= 0:
            set_number(left.items, left.wide, n + 1 + total, row_of(&x.others, place_of_try(x, k, draws[k])))
            total += 1
        elif not warp:
            for draw in range(k * x.each, (k + 1) * x.each):
                if draws[draw] >= 0:
                    set_number(left.items, left.wide, n + 1 + total, row_of(&x.others, draw))
                    total += 1
        if total > left.starts[n]:
            set_number(left.users, x.users.wide, n, row_of(&x.users, k))
            (<real*>left.weights)[n] = weight * ranks[draws[k]] if warp else weight
            (<real*>left.decays)[n] = regularization * weight
            n += 1
    left.starts[n] = total
    return n


cdef struct Compared:
    Rows users                  # as in Left
    Rows items
    const int64_t* starts
    const void* weights
    const void* decays
    const void* bias            # of all items
    Py_ssize_t dim
    bint warp
    void* losses                # of the other items
    void* slopes                # derivatives of the losses by the other items' scores
    void* d_users               # rows of gradients
    void* d_items
    void* d_bias


cdef double compare(const Compared* c, Py_ssize_t lo, Py_ssize_t hi, real like) noexcept nogil:
    """Write the gradients of the users from lo to hi - 1, and return the sum of their losses."""
    cdef real* loss = <real*>c.losses
    cdef real* slope = <real*>c.slopes
    cdef const real* p
    cdef real own
    cdef Py_ssize_t i, k, t
    cdef double total = 0, sum_
    for k in range(lo, hi):
        p = <const real*>address_of_row(&c.users, k)
        prefetch_later_row(&c.users, k, c.dim * sizeof(real))
        for i in range(k + c.starts[k], k + 1 + c.starts[k + 1]):
            prefetch_later_row(&c.items, i, c.dim * sizeof(real))
        own = score(p, &c.items, k + c.starts[k], c.bias, c.dim)
        for t in range(c.starts[k], c.starts[k + 1]):
            slope[t] = own - score(p, &c.items, k + 1 + t, c.bias, c.dim)
    if c.warp:
        for t in range(c.starts[lo], c.starts[hi]):
            warp_loss(slope[t], loss + t, slope + t)
    else:
        for t in range(c.starts[lo], c.starts[hi]):
            bpr_loss(slope[t], loss + t, slope + t)
    for k in range(lo, hi):
        sum_ = 0
        for t in range(c.starts[k], c.starts[k + 1]):
            sum_ += loss[t]
        total += sum_ * (<const real*>c.weights)[k]
        write_gradients(c, k, slope)
    return total


# x = s_ui - s_uj

cdef inline void bpr_loss(real x, real* loss, real* slope) noexcept nogil:
    loss[0] = softplus(-x)
    slope[0] = sigmoid(-x)


cdef inline void warp_loss(real x, real* loss, real* slope) noexcept nogil:
    loss[0] = 1 - x
    slope[0] = 1


cdef inline void write_gradients(const Compared* c, Py_ssize_t k, const real* slopes) noexcept nogil:
    """The gradients of weight · loss + decay / 2 · (‖p‖² + ‖q‖² + ‖r‖²), summed over the other items r."""
    cdef Py_ssize_t t, i = k + c.starts[k], dim = c.dim, n = c.starts[k + 1] - c.starts[k]
    cdef real slope, sum_ = 0, weight = (<const real*>c.weights)[k], decay = (<const real*>c.decays)[k]
    cdef const real* p = <const real*>address_of_row(&c.users, k)
    cdef const real* q = <const real*>address_of_row(&c.items, i)
    cdef const real* r
    cdef real* d_user = <real*>c.d_users + k * dim
    cdef real* d_items = <real*>c.d_items
    cdef real* d_bias = <real*>c.d_bias
    set_scaled(d_user, n * decay, p, dim)
    for t in range(i + 1, i + 1 + n):
        slope = weight * slopes[t - k - 1]
        sum_ += slope
        r = <const real*>address_of_row(&c.items, t)
        add_scaled(d_user, slope, r, dim)
        set_both(d_items + t * dim, slope, p, decay, r, dim)
        d_bias[t] = slope
    add_scaled(d_user, -sum_, q, dim)
    set_both(d_items + i * dim, -sum_, p, n * decay, q, dim)
    d_bias[i] = -sum_


cdef inline void set_both(real* restrict out, real a, const real* restrict x, real b, const real* restrict y,
                          Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(dim):
        out[j] = a * x[j] + b * y[j]


cdef void compare_all(const Compared* c, double* parts, real like, int threads) noexcept nogil:
    cdef Py_ssize_t block, n = c.users.n
    for block in prange((n + PAIRS - 1) // PAIRS, schedule="static", num_threads=threads):
        parts[block] = compare(c, block * PAIRS, min(n, (block + 1) * PAIRS), like)


ctypedef fused integer:
    int32_t
    int64_t


cdef bint is_ascending(const integer* x, Py_ssize_t n, int64_t bound) noexcept nogil:
    cdef Py_ssize_t i
    cdef bint falls = n > 0 and (x[0] < 0 or x[n - 1] >= bound)
    for i in range(1, n):
        falls |= x[i] <= x[i - 1]
    return not falls


def first_unsorted(cnp.ndarray users, cnp.ndarray indptr, cnp.ndarray indices, int64_t n_columns):
    """The place in `users` (checked) of the first one whose row of a CSR array is not in ascending order, or -1."""
    cdef Py_ssize_t i
    cdef int64_t user, lo, hi, n = indices.shape[0]
    cdef bint wide = indptr.itemsize == 8, users_wide = users.itemsize == 8, indices_wide = indices.itemsize == 8
    cdef const void* u = cnp.PyArray_DATA(users)
    cdef const void* p = cnp.PyArray_DATA(indptr)
    cdef const void* x = cnp.PyArray_DATA(indices)
    cdef bint fine
    with nogil:
        for i in range(users.shape[0]):
            user = number(u, users_wide, i)
            lo, hi = number(p, wide, user), number(p, wide, user + 1)
            fine = 0 <= lo and lo <= hi and hi <= n
            if fine and indices_wide:
                fine = is_ascending(<const int64_t*>x + lo, hi - lo, n_columns)
            elif fine:
                fine = is_ascending(<const int32_t*>x + lo, hi - lo, n_columns)
            if not fine:
                break
        else:
            i = -1
    return i


cdef void* data_of(array) noexcept:
    return cnp.PyArray_DATA(<cnp.ndarray>array)


def find_pairs(cnp.ndarray P, cnp.ndarray Q, cnp.ndarray bias, cnp.ndarray users, cnp.ndarray items,
               cnp.ndarray others, weights, own, ranks, double regularization, draws, left, int threads):
    """Choose among the others (k, each) of each pair, and return how many pairs and others are left.

    `own` is (indptr, indices) of a checked CSR array, or None. `ranks` has the logarithm of the rank by the number of
    tries before, for warp; None: bpr. If there are more of these than others of a pair, a pair goes on with the others
    of the next pairs. `draws` is an int32 array of one element for each place to choose for. `left`
    is (users, items, starts, weights, decays), which this call fills.
    """
    cdef Drawn x
    cdef Left l
    cdef bint warp = ranks is not None, double_ = P.itemsize == 8
    cdef Py_ssize_t n, slots = len(draws)
    cdef int32_t* d = <int32_t*>data_of(draws)
    cdef const void* w = data_of(weights)
    cdef const void* r = data_of(ranks) if warp else NULL
    x.users, x.items, x.others = make_rows(P, users), make_rows(Q, items), make_rows(Q, others)
    x.each, x.dim, x.bias = others.shape[1], P.shape[1], data_of(bias)
    x.tries = len(ranks) if warp else 0
    x.indptr, x.indices = (data_of(own[0]), data_of(own[1])) if own is not None and len(own[1]) else (NULL, NULL)
    x.indptr_wide, x.indices_wide = (own[0].itemsize == 8, own[1].itemsize == 8) if own is not None else (False, False)
    l.users, l.items, l.starts = data_of(left[0]), data_of(left[1]), <int64_t*>data_of(left[2])
    l.weights, l.decays, l.wide = data_of(left[3]), data_of(left[4]), left[1].itemsize == 8
    threads = useful_threads(slots * x.dim, threads)
    with nogil:
        if double_:
            find_all[double](&x, warp, slots, d, 0, threads)
            n = keep[double](&x, warp, d, <const double*>w, <const double*>r, regularization, &l, 0)
        else:
            find_all[float](&x, warp, slots, d, 0, threads)
            n = keep[float](&x, warp, d, <const float*>w, <const float*>r, <float>regularization, &l, 0)
    return n, l.starts[n]


def compare_pairs(cnp.ndarray P, cnp.ndarray Q, bias, left, bint warp, losses, slopes, gradients, parts, int threads):
    """Return the loss of what `find_pairs` left, and write `gradients`: (d_users, d_items, d_bias).

    `losses` and `slopes` have an element for each other item, `parts` one for each 64 users or part of these.
    """
    cdef Compared c
    cdef bint double_ = P.itemsize == 8
    cdef double* sums = <double*>data_of(parts)
    cdef double total = 0
    cdef Py_ssize_t i, n = len(parts)
    c.users, c.items, c.starts = make_rows(P, left[0]), make_rows(Q, left[1]), <const int64_t*>data_of(left[2])
    c.weights, c.decays, c.bias = data_of(left[3]), data_of(left[4]), data_of(bias)
    c.dim, c.warp, c.losses, c.slopes = P.shape[1], warp, data_of(losses), data_of(slopes)
    c.d_users, c.d_items, c.d_bias = data_of(gradients[0]), data_of(gradients[1]), data_of(gradients[2])
    threads = useful_threads(c.items.n * c.dim, threads)
    with nogil:
        if double_:
            compare_all[double](&c, sums, 0, threads)
        else:
            compare_all[float](&c, sums, 0, threads)
        for i in range(n):
            total += sums[i]
    return total
