# Skip-gram and CBOW with negative sampling.  Mikolov et al. 2013, "Distributed Representations of Words and Phrases and
# their Compositionality", eq. 4.
#
# 1. A bag holds the words s around one word t of a text. The outputs k of the bag are t, then its negatives.
# 2. Skip-gram: each word of the bag predicts the outputs, x = w_s · c_k. CBOW: the mean h of the bag does, x = h · c_k.
# 3. The loss of t is -log σ(x), and the loss of a negative is -log σ(-x). A negative that is t itself does not count.
# 4. Threads take blocks of bags. Rows of a block are copied, and padded with zeros: then loops have no rest.

cdef enum:
    BAGS = 4                # bags of a block, whose rows fit the L1 cache
    LANES = 16              # a sum has so many parts, and a padded row is a multiple of this long
    UNCOUNTED = -40         # σ and the loss of this are 0 beside any other


cdef struct Bags:
    Rows w                  # the rows of all bags, one bag after the other
    Rows c                  # the outputs of all bags
    const void* offsets     # bag b has the rows of w from offsets[b] - offsets[0] on
    bint wide               # offsets are int64, else int32
    Py_ssize_t n            # bags
    Py_ssize_t each         # outputs of a bag
    Py_ssize_t dim
    Py_ssize_t padded       # dim, rounded up to a multiple of LANES


cdef inline Py_ssize_t bag_begin(const Bags* s, Py_ssize_t b) noexcept nogil:
    return number(s.offsets, s.wide, b) - number(s.offsets, s.wide, 0)


cdef inline bint is_repeated(const Bags* s, Py_ssize_t b, Py_ssize_t k) noexcept nogil:
    """Whether output k of a bag is a negative that is the bag's own word."""
    return k > 0 and (number(s.c.numbers, s.c.wide, b * s.each + k) == number(s.c.numbers, s.c.wide, b * s.each))


cdef real* copied(const Bags* s, const Rows* rows, Py_ssize_t lo, Py_ssize_t hi, real* out) noexcept nogil:
    """Copy rows to `out`, padded with zeros. Returns the end of the copies."""
    cdef Py_ssize_t i, j
    for i in range(lo, hi):
        prefetch_later_row(rows, i, s.dim * sizeof(real))
        memcpy(out, address_of_row(rows, i), s.dim * sizeof(real))
        for j in range(s.dim, s.padded):
            out[j] = 0
        out += s.padded
    return out


cdef inline void dots_of_three(const real* x, const real* a, const real* b, const real* c, real* out,
                               Py_ssize_t padded) noexcept nogil:
    cdef real s[LANES]
    cdef real t[LANES]
    cdef real u[LANES]
    cdef Py_ssize_t i = 0, j
    for j in range(LANES):
        s[j] = 0
        t[j] = 0
        u[j] = 0
    while True:
        for j in range(LANES):
            s[j] = s[j] + x[i + j] * a[i + j]
            t[j] = t[j] + x[i + j] * b[i + j]
            u[j] = u[j] + x[i + j] * c[i + j]
        i += LANES
        if i == padded:
            break
    out[0] = total(s)
    out[1] = total(t)
    out[2] = total(u)


cdef inline real total(real* lane) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(8):
        lane[j] = lane[j] + lane[j + 8]
    for j in range(4):
        lane[j] = lane[j] + lane[j + 4]
    return (lane[0] + lane[2]) + (lane[1] + lane[3])


cdef void dots_with(const real* x, const real* rows, Py_ssize_t n, real* out, Py_ssize_t padded) noexcept nogil:
    """out[k] = x · row k, for k < n"""
    cdef Py_ssize_t k = 0
    if n < 3:
        for k in range(n):
            out[k] = dot(x, rows + k * padded, padded)
        return
    while k < n:
        k = min(k, n - 3)               # a repeated dot product has the same bits
        dots_of_three(x, rows + k * padded, rows + (k + 1) * padded, rows + (k + 2) * padded, out + k, padded)
        k += 3


cdef void weighted_sum(const real* weights, Py_ssize_t step, const real* rows, Py_ssize_t n, real* out, Py_ssize_t dim,
                       Py_ssize_t padded) noexcept nogil:
    """out = the sum of weights[i * step] times row i, for i < n"""
    cdef real sum_[LANES]
    cdef Py_ssize_t i, j, lo = 0
    if n == 0:
        memset(out, 0, dim * sizeof(real))
        return
    while lo < dim:
        for j in range(LANES):
            sum_[j] = 0
        i = 0
        while True:
            for j in range(LANES):
                sum_[j] = sum_[j] + weights[i * step] * rows[i * padded + lo + j]
            i += 1
            if i == n:
                break
        if lo + LANES <= dim:
            for j in range(LANES):
                out[lo + j] = sum_[j]
        else:
            for j in range(dim - lo):
                out[lo + j] = sum_[j]
        lo += LANES


cdef double losses_and_slopes(real* x, Py_ssize_t n) noexcept nogil:
    """Replace each x by the derivative σ(x) of its loss -log σ(-x). Returns the sum of the losses."""
    cdef Py_ssize_t i = 0, j
    cdef real last[LANES]
    cdef real lane[LANES]
    cdef double loss = 0
    for j in range(LANES):
        lane[j] = 0
        last[j] = UNCOUNTED
    while i + LANES <= n:
        add_losses(lane, x + i)
        i += LANES
    if i < n:
        memcpy(last, x + i, (n - i) * sizeof(real))
        add_losses(lane, last)
        memcpy(x + i, last, (n - i) * sizeof(real))
    for j in range(LANES):
        loss += lane[j]
    return loss


cdef inline void add_losses(real* restrict lane, real* restrict x) noexcept nogil:
    cdef Py_ssize_t j
    cdef real small
    for j in range(LANES):
        small = exponential(-absolute(x[j]))
        lane[j] = lane[j] + ((x[j] if x[j] > 0 else 0) + logarithm_of_quotient(small / (2 + small)))
        x[j] = (1 if x[j] > 0 else small) / (1 + small)


cdef void set_signs(const Bags* s, Py_ssize_t b, real* x, Py_ssize_t n, real uncounted) noexcept nogil:
    """Turn the sign of a bag's word in n rows of scores or slopes. Replace those of its repeated negatives."""
    cdef Py_ssize_t i, k
    for i in range(n):
        x[i * s.each] = -x[i * s.each]
    for k in range(1, s.each):
        if is_repeated(s, b, k):
            for i in range(n):
                x[i * s.each + k] = uncounted


cdef double skip_gram_block(const Bags* s, real* scratch, real* gw, real* gc, Py_ssize_t first,
                            Py_ssize_t stop) noexcept nogil:
    cdef Py_ssize_t b, i, k, n, begin = bag_begin(s, first), end = bag_begin(s, stop), each = s.each, padded = s.padded
    cdef real* w = scratch
    cdef real* c = copied(s, &s.w, begin, end, w)
    cdef real* slopes = copied(s, &s.c, first * each, stop * each, c)
    cdef real* x = slopes
    cdef double loss
    for b in range(first, stop):
        n = bag_begin(s, b + 1) - bag_begin(s, b)
        for i in range(n):
            dots_with(w + i * padded, c, each, x + i * each, padded)
        set_signs(s, b, x, n, <real>UNCOUNTED)
        x, w, c = x + n * each, w + n * padded, c + each * padded
    loss = losses_and_slopes(slopes, x - slopes)
    x, w, c = slopes, scratch, scratch + (end - begin) * padded
    gw, gc = gw + begin * s.dim, gc + first * each * s.dim
    for b in range(first, stop):
        n = bag_begin(s, b + 1) - bag_begin(s, b)
        set_signs(s, b, x, n, <real>0)
        for i in range(n):
            weighted_sum(x + i * each, 1, c, each, gw + i * s.dim, s.dim, padded)
        for k in range(each):
            weighted_sum(x + k, each, w, n, gc + k * s.dim, s.dim, padded)
        x, w, c = x + n * each, w + n * padded, c + each * padded
        gw, gc = gw + n * s.dim, gc + each * s.dim
    return loss


cdef double cbow_block(const Bags* s, real* scratch, real* gw, real* gc, Py_ssize_t first,
                       Py_ssize_t stop) noexcept nogil:
    cdef Py_ssize_t b, i, k, n, each = s.each, padded = s.padded
    cdef real* gradient = scratch       # of the loss with respect to h
    cdef real* h = gradient + padded
    cdef real* c = h + (stop - first) * padded
    cdef real* slopes = copied(s, &s.c, first * each, stop * each, c)
    cdef real* x = slopes
    cdef double loss
    for b in range(first, stop):
        n = bag_begin(s, b + 1) - bag_begin(s, b)
        mean_of(s, bag_begin(s, b), n, h)
        dots_with(h, c, each, x, padded)
        set_signs(s, b, x, 1, <real>UNCOUNTED)
        x, h, c = x + each, h + padded, c + each * padded
    loss = losses_and_slopes(slopes, x - slopes)
    x, h, c = slopes, gradient + padded, gradient + (stop - first + 1) * padded
    gw, gc = gw + bag_begin(s, first) * s.dim, gc + first * each * s.dim
    for b in range(first, stop):
        set_signs(s, b, x, 1, <real>0)
        n = bag_begin(s, b + 1) - bag_begin(s, b)
        weighted_sum(x, 1, c, each, gradient, s.dim, padded)
        for i in range(n):              # each of the n words has 1 / n of the gradient of the mean
            set_scaled(gw + i * s.dim, <real>1 / <real>n, gradient, s.dim)
        for k in range(each):
            set_scaled(gc + k * s.dim, x[k], h, s.dim)
        x, h, c = x + each, h + padded, c + each * padded
        gw, gc = gw + n * s.dim, gc + each * s.dim
    return loss


cdef void mean_of(const Bags* s, Py_ssize_t lo, Py_ssize_t n, real* restrict h) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef real share = <real>1 / <real>max(1, n)
    for j in range(s.padded):
        h[j] = 0
    for i in range(lo, lo + n):
        prefetch_later_row(&s.w, i, s.dim * sizeof(real))
        add(h, <const real*>address_of_row(&s.w, i), s.dim)
    for j in range(s.dim):
        h[j] = h[j] * share


cdef double block_of(bint cbow, const Bags* s, real* scratch, real* gw, real* gc, Py_ssize_t block) noexcept nogil:
    cdef Py_ssize_t first = block * BAGS, stop = min(s.n, first + BAGS)
    if cbow:
        return cbow_block(s, scratch, gw, gc, first, stop)
    return skip_gram_block(s, scratch, gw, gc, first, stop)


cdef void all_blocks(bint cbow, const Bags* s, real* scratch, Py_ssize_t pad, real* gw, real* gc, double* losses,
                     int threads) noexcept nogil:
    cdef Py_ssize_t block, n = (s.n + BAGS - 1) // BAGS
    if threads == 1:
        for block in range(n):
            losses[block] = block_of(cbow, s, scratch, gw, gc, block)
        return
    for block in prange(n, schedule="static", num_threads=threads):
        losses[block] = block_of(cbow, s, scratch + threadid() * pad, gw, gc, block)


cdef inline Py_ssize_t padded_dim(Py_ssize_t dim) noexcept nogil:
    return max(LANES, (dim + LANES - 1) // LANES * LANES)


def room_for_bags(Py_ssize_t longest, Py_ssize_t each, Py_ssize_t dim):
    """The number of elements of working memory that a thread needs. `longest` is the number of words of a bag."""
    return BAGS * ((max(1, longest) + each) * padded_dim(dim) + max(1, longest) * each) + padded_dim(dim)


def blocks_of_bags(Py_ssize_t n):
    """The number of parts in which the loss of n bags comes."""
    return (n + BAGS - 1) // BAGS


def negative_sampling(bint cbow, cnp.ndarray words, cnp.ndarray contexts, cnp.ndarray inputs, cnp.ndarray offsets,
                      cnp.ndarray outputs, cnp.ndarray scratch, cnp.ndarray gw, cnp.ndarray gc, cnp.ndarray losses,
                      int threads):
    """The loss of CBOW or skip-gram in parts, and the gradients: a row for each of the inputs and of the outputs.

    All numbers must be checked. Bag b has inputs[offsets[b] - offsets[0]:offsets[b + 1] - offsets[0]].
    `scratch` has a row for each thread.
    """
    cdef Bags s
    s.w, s.c = make_rows(words, inputs), make_rows(contexts, outputs)
    s.offsets, s.wide = cnp.PyArray_DATA(offsets), offsets.itemsize == 8
    s.n, s.each, s.dim = outputs.shape[0], outputs.shape[1], words.shape[1]
    s.padded = padded_dim(s.dim)
    cdef void* x = cnp.PyArray_DATA(scratch)
    cdef void* p = cnp.PyArray_DATA(gw)
    cdef void* q = cnp.PyArray_DATA(gc)
    cdef double* parts = <double*>cnp.PyArray_DATA(losses)
    cdef Py_ssize_t pad = scratch.shape[1]
    cdef bint double_ = words.itemsize == 8
    threads = min(<int>scratch.shape[0], useful_threads(inputs.size * s.each * s.dim, threads))
    with nogil:
        if double_:
            all_blocks(cbow, &s, <double*>x, pad, <double*>p, <double*>q, parts, threads)
        else:
            all_blocks(cbow, &s, <float*>x, pad, <float*>p, <float*>q, parts, threads)


def windows(const int32_t[::1] words, const int64_t[::1] sentence, const int32_t[::1] reach, const int64_t[::1] order,
            int32_t[::1] inputs, int64_t[::1] offsets, int32_t[::1] middle):
    """Fill a bag for each place of `order` that has neighbours: words of its sentence within its reach.

    Bag b is inputs[offsets[b]:offsets[b + 1]], around the word middle[b]. Returns the number of bags.
    """
    cdef Py_ssize_t place, t, i, bags = 0, n = 0
    with nogil:
        offsets[0] = 0
        for place in range(order.shape[0]):
            t = order[place]
            for i in range(max(0, t - reach[t]), min(words.shape[0], t + reach[t] + 1)):
                if i != t and sentence[i] == sentence[t]:
                    inputs[n] = words[i]
                    n += 1
            if n > offsets[bags]:
                middle[bags] = words[t]
                bags += 1
                offsets[bags] = n
    return bags
