# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Changes of several objects that take effect completely or not at all.

Python runs signal handlers, other threads and finalizers between bytecodes. None of these runs inside C code
that calls no Python. So Python code first prepares a change and may fail. One call of C code then makes the change.
"""

cimport numpy as cnp
from cpython.dict cimport PyDict_Update
from cpython.object cimport PyObject_GenericSetAttr
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memcpy, memmove

import bisect

cnp.import_array()


cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    #define sparseopt_exchange(p, x) _InterlockedExchange((p), (x))
    #else
    #define sparseopt_exchange(p, x) __atomic_exchange_n((p), (x), __ATOMIC_SEQ_CST)
    #endif
    """
    long exchange "sparseopt_exchange"(long*, long)


cdef class Counts:
    """The counters of an optimizer, and a lock that refuses a second call at the same time."""

    def alone(self, function, *arguments):
        """Return function(*arguments). Raises RuntimeError if another such call is at work.

        Not a context manager: in Python 3.13 an exception of a signal handler can leave a `with` block by a way that
        the block does not guard, at the end of a loop. The lock would stay closed.
        """
        if exchange(&self.busy, 1):         # in one instruction, since a Python without a GIL may run two threads here
            what = getattr(self, "what", "optimizer")           # a subclass may be the lock of another thing
            raise RuntimeError(f"this {what} is at work in another call: in another thread, or in the call that runs "
                               "this schedule or hook; it allows one call at a time")
        try:
            return function(*arguments)
        finally:
            exchange(&self.busy, 0)


def adopt(list copies, list updates, list attributes, list rows=[]):
    """Copy arrays, update dicts, set attributes and write rows. No Python code runs from the first change to the last.

    copies: pairs (target, source) of arrays with the same dtype and shape.
    updates: pairs (dict, new values). The dict must already have all keys of the new values.
    attributes: triples (object, name, value). They come first, and the setter of the first one may raise.
    rows: triples (target, numbers, values): values[i] becomes row numbers[i] of the target. The numbers are int64, and
    no other array may share memory with numbers and values.
    Raises ValueError before the first change.
    """
    cdef cnp.ndarray target, source, numbers
    copies = [(array, checked_source(array, values)) for array, values in copies]
    copies = without_overlap(copies)
    rows = [(array, checked_numbers(array, numbers), checked_source(array, values, len(numbers)))
            for array, numbers, values in rows]
    for owner, name, value in attributes:
        PyObject_GenericSetAttr(owner, name, value)       # this avoids a __setattr__ in Python
    for target, source in copies:
        if cnp.PyArray_DATA(target) != cnp.PyArray_DATA(source):
            memmove(cnp.PyArray_DATA(target), cnp.PyArray_DATA(source), cnp.PyArray_NBYTES(target))
    for target, numbers, source in rows:
        write_rows(target, numbers, source)
    for old, new in updates:
        PyDict_Update(old, new)


cdef void write_rows(cnp.ndarray target, cnp.ndarray numbers, cnp.ndarray values) noexcept:
    cdef const int64_t* number = <const int64_t*>cnp.PyArray_DATA(numbers)
    cdef Py_ssize_t i, n = cnp.PyArray_DIM(numbers, 0), n_bytes = cnp.PyArray_NBYTES(values) // n if n else 0
    for i in range(n):
        memcpy(cnp.PyArray_BYTES(target) + number[i] * n_bytes, cnp.PyArray_BYTES(values) + i * n_bytes, n_bytes)


cdef list without_overlap(list copies):
    """The same pairs. A source that overlaps the target of another pair is replaced by a copy."""
    cdef cnp.ndarray target, source
    ends = sorted([(address(target), address(target) + cnp.PyArray_NBYTES(target)) for target, _ in copies])
    kept = []
    for target, source in copies:
        start = address(source)
        if start != address(target):
            # The last target that begins before the end of the source.
            nearest = bisect.bisect_left(ends, (start + cnp.PyArray_NBYTES(source),)) - 1
            if nearest >= 0 and ends[nearest][1] > start:
                source = source.copy()
        kept.append((target, source))
    return kept


cdef inline address(cnp.ndarray array):
    return <uintptr_t>cnp.PyArray_DATA(array)


cdef cnp.ndarray checked_numbers(cnp.ndarray target, cnp.ndarray numbers):
    """`numbers`. Raises ValueError unless these are the numbers of rows."""
    if not (cnp.PyArray_ISCARRAY(numbers) and numbers.dtype == "int64" and numbers.ndim == 1):
        raise ValueError("row numbers are not a contiguous array of int64")
    if cnp.PyArray_DIM(numbers, 0) and not 0 <= numbers.min() <= numbers.max() < cnp.PyArray_DIM(target, 0):
        raise ValueError(f"rows from {numbers.min()} to {numbers.max()} are not in an array of shape "
                         f"{(<object>target).shape}")
    return numbers


cdef cnp.ndarray checked_source(cnp.ndarray target, other, n_rows=None):
    """`other` as a contiguous array. Raises ValueError unless its bytes can be copied to `target`, or to rows there."""
    cdef cnp.ndarray source = cnp.PyArray_GETCONTIGUOUS(other)
    shape = (<object>target).shape if n_rows is None else (n_rows, *(<object>target).shape[1:])
    if source.dtype != target.dtype or (<object>source).shape != shape:
        raise ValueError(f"an array of shape {(<object>source).shape} and dtype {source.dtype} cannot replace an array "
                         f"of shape {shape} and dtype {target.dtype}")
    if not cnp.PyArray_ISCARRAY(target):
        raise ValueError("an array to be written is read-only or not C-contiguous; "
                         "an array to be written must be writeable and C-contiguous")
    return source
