# Draws by weight in constant time: Walker's alias table.


def alias_table(const double[::1] weights, double total):
    """Walker's alias table, built by Vose's method, for draws of i with probability weights[i] / total.

    Returns (threshold, alias). A draw first chooses a place i at random.
    The draw returns i with probability threshold[i] / 2^32, else alias[i].
    """
    cdef Py_ssize_t n = weights.shape[0], small = 0, large = n, heaviest = 0, i, k
    cdef double[::1] share = np.empty(n)
    threshold, alias, waiting = np.empty(n, np.uint64), np.arange(n), np.empty(n, np.int64)
    cdef uint64_t[::1] t = threshold
    # `waiting` holds places with a share below 1 at its left end, and the other places at its right end.
    cdef int64_t[::1] a = alias, w = waiting
    with nogil:
        for i in range(n):
            share[i] = weights[i] / total * n
            if weights[i] > weights[heaviest]:
                heaviest = i
            if share[i] < 1:
                w[small] = i
                small += 1
            else:
                large -= 1
                w[large] = i
        while small > 0 and large < n:
            small -= 1
            i = w[small]
            k = w[large]
            a[i] = k
            t[i] = <uint64_t>(share[i] * 4294967296.0)
            share[k] -= 1 - share[i]
            if share[k] < 1:
                large += 1
                w[small] = k
                small += 1
        for i in range(small):                      # rounding errors leave places on one side
            a[w[i]] = heaviest
            t[w[i]] = <uint64_t>1 << 32 if weights[w[i]] > 0 else 0
        for i in range(large, n):
            t[w[i]] = <uint64_t>1 << 32
    return threshold, alias


def alias_draw(const uint64_t[::1] threshold, const int64_t[::1] alias, const uint64_t[::1] bits, int32_t[::1] out):
    """Draw one number for each 64-bit random word.

    The upper 32 bits choose a place of the table. The lower 32 bits choose between the place and its alias.
    """
    cdef Py_ssize_t i
    cdef uint64_t place, n = threshold.shape[0]
    with nogil:
        for i in range(bits.shape[0]):
            place = (bits[i] >> 32) * n >> 32
            out[i] = <int32_t>(<int64_t>place if <uint32_t>bits[i] < threshold[place] else alias[place])
