# Working memory of the threads of one call.


cdef class Scratch:
    """One row of working memory a thread, each on cache lines of its own."""
    cdef char* memory
    cdef void* rows
    cdef Py_ssize_t pad
    cdef int threads

    cdef int allocate(self, Py_ssize_t dim, Py_ssize_t itemsize, int threads) except -1:
        self.threads = threads
        self.pad = (dim * itemsize + 2 * LINE - 1) // LINE * LINE // itemsize
        self.memory = <char*>PyMem_RawMalloc(threads * self.pad * itemsize + LINE)
        if self.memory == NULL:
            raise MemoryError
        self.rows = <void*>((<uintptr_t>self.memory + LINE - 1) // LINE * LINE)
        return 0

    def __dealloc__(self):
        PyMem_RawFree(self.memory)


cdef Scratch scratch_of(Py_ssize_t dim, Py_ssize_t itemsize, int threads):
    cdef Scratch scratch = Scratch.__new__(Scratch)
    scratch.allocate(dim, itemsize, threads)
    return scratch
