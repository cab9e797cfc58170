from libc.stdint cimport int64_t

cdef class Counts:
    cdef public int64_t steps
    cdef public int64_t nonfinite_rows
    cdef long busy
