# Random numbers that depend on their place alone: on a key, on the row in the whole table, and on the column. So any
# number of threads, any order of rows and any instruction set give the same bits.
#
# The generator is Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
# SC 2011. A counter of four words and a key of two give four random words. The words of the counter are the lower and
# the upper half of the row, the block of columns, and the purpose. A block is four columns of float, or two of double.

cdef enum:
    COUNTERS = 16              # counters that are worked on side by side


cdef struct Counters:
    uint32_t a[COUNTERS]
    uint32_t b[COUNTERS]
    uint32_t c[COUNTERS]
    uint32_t d[COUNTERS]


cdef struct Places:         # where random numbers stand
    const void* numbers     # of the rows; NULL: first, first + step, first + 2 * step, ...
    bint wide               # numbers are int64, else int32
    int64_t first
    int64_t step
    Py_ssize_t dim
    uint32_t low_key
    uint32_t high_key
    uint32_t purpose


cdef inline void philox(const Counters* x, uint32_t low_key, uint32_t high_key, uint32_t* words) noexcept nogil:
    """Four random words for each counter."""
    cdef uint32_t a, b, c, d, low, high
    cdef uint64_t first, second
    cdef int i, turn
    for i in range(COUNTERS):
        a, b, c, d, low, high = x.a[i], x.b[i], x.c[i], x.d[i], low_key, high_key
        for turn in range(10):
            first, second = <uint64_t>0xD2511F53u * a, <uint64_t>0xCD9E8D57u * c
            a, b = <uint32_t>(second >> 32) ^ b ^ low, <uint32_t>second
            c, d = <uint32_t>(first >> 32) ^ d ^ high, <uint32_t>first
            low, high = low + 0x9E3779B9u, high + 0xBB67AE85u
        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = a, b, c, d


# The inverse of the normal distribution function: the rational functions of Wichura, "Algorithm AS 241: the percentage
# points of the normal distribution", Applied Statistics 37 (1988), PPND7 for float and PPND16 for double.
# q is the probability minus 1/2, and p = 1/2 - |q| is the probability of the tail.


cdef inline real normal_centre(real q) noexcept nogil:
    """For |q| <= 0.425."""
    cdef real r = <real>0.180625 - q * q
    if real is float:
        return q * (((<real>59.10937472 * r + <real>159.29113202) * r + <real>50.434271938) * r + <real>3.3871327179
                    ) / (((<real>67.1875636 * r + <real>78.757757664) * r + <real>17.895169469) * r + 1)
    else:
        return q * (((((((2509.0809287301226727 * r + 33430.575583588128105) * r + 67265.770927008700853) * r
                        + 45921.953931549871457) * r + 13731.693765509461125) * r + 1971.5909503065514427) * r
                     + 133.14166789178437745) * r + 3.387132872796366608
                    ) / (((((((5226.495278852854561 * r + 28729.085735721942674) * r + 39307.89580009271061) * r
                             + 21213.794301586595867) * r + 5394.1960214247511077) * r + 687.1870074920579083) * r
                          + 42.313330701600911252) * r + 1)


cdef inline real normal_tail(real p) noexcept nogil:
    """The size of the value. For float, p must be at least exp(-25)."""
    cdef real r = root(-logarithm(p))
    if real is float:
        r = r - <real>1.6
        return (((<real>0.17023821103 * r + <real>1.3067284816) * r + <real>2.75681539) * r + <real>1.4234372777
                ) / ((<real>0.12021132975 * r + <real>0.7370016425) * r + 1)
    elif r <= 5:
        r = r - 1.6
        return (((((((7.7454501427834140764e-4 * r + 0.0227238449892691845833) * r + 0.24178072517745061177) * r
                    + 1.27045825245236838258) * r + 3.64784832476320460504) * r + 5.7694972214606914055) * r
                 + 4.6303378461565452959) * r + 1.42343711074968357734
                ) / (((((((1.05075007164441684324e-9 * r + 5.475938084995344946e-4) * r + 0.0151986665636164571966) * r
                         + 0.14810397642748007459) * r + 0.68976733498510000455) * r + 1.6763848301838038494) * r
                      + 2.05319162663775882187) * r + 1)
    else:
        r = r - 5
        return (((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r + 0.0012426609473880784386) * r
                    + 0.026532189526576123093) * r + 0.29656057182850489123) * r + 1.7848265399172913358) * r
                 + 5.4637849111641143699) * r + 6.6579046435011037772
                ) / (((((((2.04426310338993978564e-15 * r + 1.4215117583164458887e-7) * r
                          + 1.8463183175100546818e-5) * r + 7.868691311456132591e-4) * r + 0.0148753612908506148525) * r
                       + 0.13692988092273580531) * r + 0.59983220655588793769) * r + 1)


def normal_tails(real[::1] p, real[::1] out):
    """Set out[i] to the size of the value with probability p[i] beyond it. Tests compare these values with scipy's."""
    cdef Py_ssize_t i
    for i in range(p.shape[0]):
        out[i] = normal_tail(p[i])


cdef inline float normal_of_word(uint32_t word) noexcept nogil:
    cdef int32_t v = <int32_t>word
    cdef float q = (<float>v + <float>0.5) * <float>2.3283064365386963e-10              # 2^-32
    cdef float p = (<float>(0x7FFFFFFF - (v ^ (v >> 31))) + <float>0.5) * <float>2.3283064365386963e-10
    cdef float centre = normal_centre(q), tail = normal_tail(p)
    return centre if absolute(q) <= <float>0.425 else copysignf(tail, q)


cdef inline void normals(const uint32_t* words, real* z) noexcept nogil:
    """From random words to values of the normal distribution."""
    cdef int i
    cdef double q[2 * COUNTERS]
    if real is float:
        for i in range(4 * COUNTERS):
            z[i] = normal_of_word(words[i])
    else:
        for i in range(2 * COUNTERS):
            q[i] = half_open(words + 2 * i) - 0.5 + 1.1102230246251565e-16         # 2^-53
            z[i] = normal_centre(q[i])
        for i in range(2 * COUNTERS):       # one in seven, so a branch costs less than a tail for all
            if absolute(q[i]) > 0.425:
                z[i] = copysign(normal_tail(0.5 - absolute(q[i])), q[i])


cdef inline void uniforms(const uint32_t* words, real* z) noexcept nogil:
    """From random words to values in [0, 1)."""
    cdef int i
    if real is float:
        for i in range(4 * COUNTERS):
            z[i] = <float>(<int32_t>(words[i] >> 8)) * <float>5.9604644775390625e-08        # 2^-24
    else:
        for i in range(2 * COUNTERS):
            z[i] = half_open(words + 2 * i)


cdef inline double half_open(const uint32_t* words) noexcept nogil:
    """The first 52 bits of two words as a number in [0, 1)."""
    return double_of(<uint64_t>0x3FF0000000000000 | (<uint64_t>words[0] << 20 | words[1] >> 12)) - 1


cdef inline int64_t place_of(const Places* p, Py_ssize_t i) noexcept nogil:
    return number(p.numbers, p.wide, i) if p.numbers else p.first + i * p.step


cdef void draw_rows(const Places* p, bint normal, real scale, real shift, real* out, Py_ssize_t lo,
                    Py_ssize_t hi) noexcept nogil:
    """Set out[i] to scale * z + shift for the rows lo to hi - 1 of the list."""
    cdef Counters x
    cdef uint32_t words[4 * COUNTERS]
    cdef real z[4 * COUNTERS]
    cdef Py_ssize_t each = 16 // sizeof(real), blocks = (p.dim + each - 1) // each, i = lo, block = 0, start, n
    cdef Py_ssize_t left = (hi - lo) * blocks
    cdef int64_t row = place_of(p, lo) if hi > lo else 0
    cdef int lane, lanes, j
    out += lo * p.dim
    while left > 0:
        lanes = <int>min(left, COUNTERS)
        start = block
        for lane in range(lanes):
            x.a[lane], x.b[lane] = <uint32_t>row, <uint32_t>(row >> 32)
            x.c[lane], x.d[lane] = <uint32_t>block, p.purpose
            block += 1
            if block == blocks:
                block = 0
                i += 1
                if i < hi:
                    row = place_of(p, i)
        for lane in range(lanes, COUNTERS):
            x.a[lane] = x.b[lane] = x.c[lane] = x.d[lane] = 0
        philox(&x, p.low_key, p.high_key, words)
        if normal:
            normals(words, z)
        else:
            uniforms(words, z)
        for j in range(4 * COUNTERS):
            if j < each * COUNTERS:
                z[j] = scale * z[j] + shift
        for lane in range(lanes):
            n = min(each, p.dim - each * start)
            memcpy(out, z + lane * each, n * sizeof(real))
            out += n
            start = 0 if start + 1 == blocks else start + 1
        left -= lanes


cdef void draw_all(const Places* p, bint normal, real scale, real shift, real* out, Py_ssize_t n,
                   int threads) noexcept nogil:
    cdef Py_ssize_t block, size = rows_per_block(n, threads)
    if threads == 1:
        draw_rows(p, normal, scale, shift, out, 0, n)
        return
    for block in prange((n + size - 1) // size, schedule="static", num_threads=threads):
        draw_rows(p, normal, scale, shift, out, block * size, min(n, (block + 1) * size))


def draw(bint normal, uint64_t key, numbers, int64_t first, int64_t step, double scale, double shift, cnp.ndarray out,
         int threads):
    """Set out[i, j] to scale * z + shift, where z depends on the key, on the i-th row and on column j.

    z is normally distributed, or uniform in [0, 1). The rows are those of `numbers`; or first, first + step and so on.
    """
    cdef Places p
    cdef void* o = cnp.PyArray_DATA(out)
    cdef Py_ssize_t n = out.shape[0]
    cdef bint double_ = out.itemsize == 8
    p.numbers = cnp.PyArray_DATA(<cnp.ndarray>numbers) if numbers is not None else NULL
    p.wide = numbers is not None and (<cnp.ndarray>numbers).itemsize == 8
    p.first, p.step, p.dim = first, step, out.shape[1]
    p.low_key, p.high_key, p.purpose = <uint32_t>key, <uint32_t>(key >> 32), 0
    threads = useful_threads(out.size, threads)
    with nogil:
        if double_:
            draw_all(&p, normal, scale, shift, <double*>o, n, threads)
        else:
            draw_all(&p, normal, <float>scale, <float>shift, <float*>o, n, threads)
