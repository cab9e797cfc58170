# The machine under the kernels: its cache lines, and the work that pays for a second thread.


cdef enum:
    LINE = 64               # bytes of a cache line.
    WORTH_THREADS = 65536   # elements below which waking a thread costs more than the thread saves.


cdef inline void prefetch_line(bint close, const char* line) noexcept nogil:
    if close:
        prefetch_near(line)
    else:
        prefetch(line)


cdef inline void prefetch_row(bint close, const char* row, Py_ssize_t n_bytes) noexcept nogil:
    """All cache lines of a row, into the L1 cache if its use is close."""
    cdef const char* line = <const char*>((<uintptr_t>row | (LINE - 1)) + 1)
    prefetch_line(close, row)
    while line < row + n_bytes:
        prefetch_line(close, line)
        line += LINE
