# How an array was when it was bound, so that a step notices an array that moved.


cdef struct Held:
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
    if cnp.PyArray_DATA(array) != held.data or cnp.PyArray_TYPE(array) != held.type:
        return False
    if cnp.PyArray_NDIM(array) != held.ndim or not cnp.PyArray_ISBEHAVED(array):
        return False
    for axis in range(held.ndim):
        if cnp.PyArray_DIM(array, axis) != held.shape[axis] or cnp.PyArray_STRIDE(array, axis) != held.strides[axis]:
            return False
    return True


cdef say_what_changed(str what, const Held* held, array):
    """Raise ValueError for an array that is no longer as it was held."""
    shape = tuple([held.shape[axis] for axis in range(held.ndim)])
    if array.shape != shape:
        raise ValueError(f"{what} has changed its shape from {shape} to {array.shape}")
    if not array.flags.writeable:
        raise ValueError(f"{what} has become read-only; it is updated in place")
    raise ValueError(f"{what} has changed its memory, dtype or strides since the optimizer was made; it must stay "
                     "where it is")
