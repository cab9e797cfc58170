# Exponentials and logarithms. libm's functions differ between processors in the last bit. These are the same on every
# instruction set, and they have no branch, so loops over them vectorise. Errors are a few units of the last place.


cdef inline real exponential(real x) noexcept nogil:
    """e^x = 2^k e^r with |r| <= ln(2) / 2, and e^r by its Taylor series. x is cut to the range of normal results."""
    cdef real k, r
    if real is float:
        x = -87 if x < -87 else 88 if x > 88 else x         # a NaN stays a NaN
        k = (x * <real>1.44269504088896341 + <real>12582912) - <real>12582912           # rounds: 1.5 * 2^23
        r = (x - k * <real>0.693359375) + k * <real>2.12194440054690583e-4              # ln(2) in two parts
        return float_of(<uint32_t>(<int32_t>k + 127) << 23) * taylor(r)
    else:
        x = -708 if x < -708 else 709 if x > 709 else x
        k = (x * 1.44269504088896341 + 6755399441055744.0) - 6755399441055744.0         # 1.5 * 2^52
        r = (x - k * 0.693145751953125) - k * 1.42860682030941723212e-6
        return double_of(<uint64_t>(<int64_t><int32_t>k + 1023) << 52) * taylor(r)


cdef inline real taylor(real r) noexcept nogil:
    cdef real sum_
    if real is float:
        sum_ = 1 + r * <real>(1 / 7.0)
        sum_ = 1 + sum_ * r * <real>(1 / 6.0)
    else:
        sum_ = 1 + r * (1 / 13.0)
        sum_ = 1 + sum_ * r * (1 / 12.0)
        sum_ = 1 + sum_ * r * (1 / 11.0)
        sum_ = 1 + sum_ * r * (1 / 10.0)
        sum_ = 1 + sum_ * r * (1 / 9.0)
        sum_ = 1 + sum_ * r * (1 / 8.0)
        sum_ = 1 + sum_ * r * (1 / 7.0)
        sum_ = 1 + sum_ * r * (1 / 6.0)
    sum_ = 1 + sum_ * r * <real>(1 / 5.0)
    sum_ = 1 + sum_ * r * <real>(1 / 4.0)
    sum_ = 1 + sum_ * r * <real>(1 / 3.0)
    sum_ = 1 + sum_ * r * <real>0.5
    return 1 + sum_ * r


cdef inline real logarithm(real x) noexcept nogil:
    """log(x) = k log(2) + log(m), with m between sqrt(1/2) and sqrt(2). x must be a positive normal number."""
    cdef int32_t low
    cdef int64_t high
    cdef real m, k
    if real is float:
        low = <int32_t>bits32(x) - 0x3F3504F3               # the bits of sqrt(1/2)
        low = low >> 23
        m, k = float_of(bits32(x) - (<uint32_t>low << 23)), <real>low
    else:
        high = <int64_t>bits64(x) - <int64_t>0x3FE6A09E667F3BCDULL
        low = <int32_t>(high >> 52)
        m, k = double_of(bits64(x) - (<uint64_t><int64_t>low << 52)), low
    return k * <real>0.693147180559945309 + logarithm_of_quotient((m - 1) / (m + 1))


cdef inline real logarithm_of_quotient(real w) noexcept nogil:
    """log((1 + w) / (1 - w)) for |w| <= 1/3."""
    cdef real square = w * w, sum_ = 0
    if real is double:
        sum_ = 1 / 31.0
        sum_ = sum_ * square + 1 / 29.0
        sum_ = sum_ * square + 1 / 27.0
        sum_ = sum_ * square + 1 / 25.0
        sum_ = sum_ * square + 1 / 23.0
        sum_ = sum_ * square + 1 / 21.0
        sum_ = sum_ * square + 1 / 19.0
        sum_ = sum_ * square + 1 / 17.0
    sum_ = sum_ * square + <real>(1 / 15.0)
    sum_ = sum_ * square + <real>(1 / 13.0)
    sum_ = sum_ * square + <real>(1 / 11.0)
    sum_ = sum_ * square + <real>(1 / 9.0)
    sum_ = sum_ * square + <real>(1 / 7.0)
    sum_ = sum_ * square + <real>(1 / 5.0)
    sum_ = sum_ * square + <real>(1 / 3.0)
    return 2 * w * (sum_ * square + 1)


cdef inline real softplus(real x) noexcept nogil:
    """log(1 + e^x)"""
    cdef real small = exponential(-absolute(x))
    return (x if x > 0 else 0) + logarithm_of_quotient(small / (2 + small))


cdef inline real sigmoid(real x) noexcept nogil:
    """1 / (1 + e^-x)"""
    return 1 / (1 + exponential(-x))


FUNCTIONS = "exponential", "logarithm", "softplus", "sigmoid"


def apply(str function, real[::1] x, real[::1] out):
    """Set out[i] to function(x[i]). Tests compare these values with libm's."""
    cdef Py_ssize_t i
    cdef int chosen = FUNCTIONS.index(function)
    with nogil:
        if chosen == 0:
            for i in range(x.shape[0]):
                out[i] = exponential(x[i])
        elif chosen == 1:
            for i in range(x.shape[0]):
                out[i] = logarithm(x[i])
        elif chosen == 2:
            for i in range(x.shape[0]):
                out[i] = softplus(x[i])
        else:
            for i in range(x.shape[0]):
                out[i] = sigmoid(x[i])
