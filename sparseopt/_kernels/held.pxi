# How an array was when it was bound, so that a step notices an array that moved.


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
