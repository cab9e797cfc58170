# cython: language_level=3, boundscheck=False, wraparound=False
"""What must happen whole or not at all, though a signal handler can run between any two steps of Python.

Signal handlers, other threads' calls and finalizers of Python run between bytecodes, never inside a compiled call that keeps
to C.  So a change of several things is prepared in Python, where it may fail, and made in one such call.
"""

cimport numpy as cnp
from cpython.dict cimport PyDict_Update
from cpython.object cimport PyObject_GenericSetAttr
from libc.stdint cimport uintptr_t
from libc.string cimport memmove

import bisect

cnp.import_array()


cdef class Counts:
    """What an optimizer counts, and as a context manager, the proof that no other call is at work in that optimizer."""

    def __enter__(self):
        if self.busy:
            raise RuntimeError("this optimizer is at work in another call: in another thread, or in the call that runs this "
                               "schedule or hook; make one call at a time")
        self.busy = True
        return self

    def __exit__(self, kind, value, traceback):
        self.busy = False


def adopt(list copies, list updates, list attributes):
    """Copy arrays over arrays, update dicts and set attributes, with no Python between the first change and the last.

    `copies` are pairs (target, source) of arrays of one dtype and shape; `updates` are pairs (dict, new values) with keys that
    the dict has; `attributes` are (object, name, value).  Raises ValueError before anything is changed.
    """
    cdef cnp.ndarray target, source
    copies = [(one, as_bytes(one, other)) for one, other in copies]
    copies = apart(copies)
    for target, source in copies:
        if cnp.PyArray_DATA(target) != cnp.PyArray_DATA(source):
            memmove(cnp.PyArray_DATA(target), cnp.PyArray_DATA(source), cnp.PyArray_NBYTES(target))
    for old, new in updates:
        PyDict_Update(old, new)
    for owner, name, value in attributes:
        PyObject_GenericSetAttr(owner, name, value)       # never a __setattr__, which would be Python


cdef list apart(list copies):
    """The same pairs, with copies of the sources that lie in the target of another pair."""
    cdef cnp.ndarray target, source
    ends = sorted([(address(target), address(target) + cnp.PyArray_NBYTES(target)) for target, _ in copies])
    kept = []
    for target, source in copies:
        start = address(source)
        if start != address(target):
            before = bisect.bisect_left(ends, (start + cnp.PyArray_NBYTES(source),)) - 1       # the last one that begins before its end
            if before >= 0 and ends[before][1] > start:
                source = source.copy()
        kept.append((target, source))
    return kept


cdef inline address(cnp.ndarray array):
    return <uintptr_t>cnp.PyArray_DATA(array)


cdef cnp.ndarray as_bytes(cnp.ndarray target, other):
    cdef cnp.ndarray source = cnp.PyArray_GETCONTIGUOUS(other)
    if source.dtype != target.dtype or (<object>source).shape != (<object>target).shape:
        raise ValueError(f"an array of shape {(<object>source).shape} and dtype {source.dtype} cannot replace one of shape "
                         f"{(<object>target).shape} and dtype {target.dtype}")
    if not cnp.PyArray_ISCARRAY(target):
        raise ValueError("an array to be written is read-only or not C-contiguous")
    return source
