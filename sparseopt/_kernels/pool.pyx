# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Memory for NumPy's arrays that is kept when an array is freed, and given to the next array of about this size.

NumPy asks a handler for the memory of each array (NEP 49). A Pool is such a handler. An array keeps its handler alive,
so arrays may outlive the time in which the pool is used.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.pythread cimport (WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
                               PyThread_release_lock, PyThread_type_lock)
from libc.stdint cimport uint8_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strcmp, strcpy

cimport numpy as cnp

cnp.import_array()

include "huge.pxi"

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void* ctx
        void* (*malloc)(void*, size_t) noexcept nogil
        void* (*calloc)(void*, size_t, size_t) noexcept nogil
        void* (*realloc)(void*, void*, size_t) noexcept nogil
        void (*free)(void*, void*, size_t) noexcept nogil

    ctypedef struct PyDataMem_Handler:
        char name[127]
        uint8_t version
        PyDataMemAllocator allocator

    object PyDataMem_SetHandler(object)
    object set_handler "PyDataMem_SetHandler"(PyObject*)

cdef enum:
    LINE = 64               # bytes of a cache line; arrays start on one.
    STEPS = 4               # sizes of blocks between a power of two and the next.
    SIZES = 64 * STEPS


cdef struct Block:          # stands before an array's memory, which starts LINE bytes after it
    char* memory            # from malloc
    size_t n_bytes
    int size                # its list in the pool
    Block* next             # in that list


cdef struct Blocks:         # what a capsule holds
    PyDataMem_Handler handler
    PyThread_type_lock lock
    int entered             # freed memory is kept while this is above 0
    size_t most             # bytes to keep
    size_t kept
    Block* free[SIZES]


cdef int size_of(size_t wanted, size_t* n_bytes) noexcept nogil:
    """The number of the smallest size of block with room, and its bytes: 1, 1.25, 1.5 or 1.75 times a power of 2."""
    cdef int power = 10, step
    while (<size_t>2 << power) <= wanted:
        power += 1
    for step in range(STEPS):
        n_bytes[0] = (<size_t>1 << power) + step * (<size_t>1 << power) // STEPS
        if n_bytes[0] >= wanted:
            return power * STEPS + step
    n_bytes[0] = <size_t>2 << power
    return (power + 1) * STEPS


cdef void* allocate(void* ctx, size_t wanted) noexcept nogil:
    cdef Blocks* b = <Blocks*>ctx
    cdef size_t n_bytes
    cdef Block* block
    cdef char* memory
    if wanted >= <size_t>1 << 60:
        return NULL
    cdef int size = size_of(wanted, &n_bytes)
    PyThread_acquire_lock(b.lock, WAIT_LOCK)
    block = b.free[size]
    if block != NULL:
        b.free[size] = block.next
        b.kept -= block.n_bytes
    PyThread_release_lock(b.lock)
    if block == NULL:
        memory = <char*>malloc(n_bytes + 2 * LINE)
        if memory == NULL:
            return NULL
        ask_for_huge_pages(memory, n_bytes)
        block = <Block*>((<uintptr_t>memory + LINE - 1) // LINE * LINE)
        block.memory, block.n_bytes, block.size = memory, n_bytes, size
    return <char*>block + LINE


cdef void* allocate_zeros(void* ctx, size_t n, size_t item) noexcept nogil:
    cdef void* array
    if item and n > (<size_t>1 << 60) // item:
        return NULL
    array = allocate(ctx, n * item)
    if array != NULL:
        memset(array, 0, n * item)
    return array


cdef void* allocate_again(void* ctx, void* array, size_t wanted) noexcept nogil:
    cdef void* larger
    cdef size_t before
    if array == NULL:
        return allocate(ctx, wanted)
    before = (<Block*>(<char*>array - LINE)).n_bytes
    if wanted <= before:
        return array
    larger = allocate(ctx, wanted)
    if larger != NULL:
        memcpy(larger, array, before)
        give_back(ctx, array, before)
    return larger


cdef void give_back(void* ctx, void* array, size_t n) noexcept nogil:
    cdef Blocks* b = <Blocks*>ctx
    cdef Block* block
    cdef Block* dropped = NULL
    if array == NULL:
        return
    block = <Block*>(<char*>array - LINE)
    PyThread_acquire_lock(b.lock, WAIT_LOCK)
    if b.entered == 0 or block.n_bytes > b.most:
        block.next = NULL
        dropped = block
    else:
        if b.kept + block.n_bytes > b.most:     # the sizes in demand have changed: begin anew
            dropped = take_all(b)
        block.next = b.free[block.size]
        b.free[block.size] = block
        b.kept += block.n_bytes
    PyThread_release_lock(b.lock)
    free_all(dropped)


cdef Block* take_all(Blocks* b) noexcept nogil:
    """All kept blocks, as one list. The pool keeps none after this."""
    cdef Block* found = NULL
    cdef Block* block
    cdef int size
    for size in range(SIZES):
        while b.free[size] != NULL:
            block = b.free[size]
            b.free[size] = block.next
            block.next = found
            found = block
    b.kept = 0
    return found


cdef void free_all(Block* block) noexcept nogil:
    cdef Block* next_
    while block != NULL:
        next_ = block.next
        free(block.memory)
        block = next_


cdef void free_blocks(object capsule) noexcept:
    cdef Blocks* b = <Blocks*>PyCapsule_GetPointer(capsule, "mem_handler")
    free_all(take_all(b))
    PyThread_free_lock(b.lock)
    PyMem_RawFree(b)


cdef class Pool:
    """Keeps up to `most` bytes of freed arrays."""
    cdef Blocks* blocks
    cdef object capsule

    def __init__(self, size_t most):
        cdef Blocks* b = <Blocks*>PyMem_RawMalloc(sizeof(Blocks))
        if b == NULL:
            raise MemoryError
        memset(b, 0, sizeof(Blocks))
        b.lock = PyThread_allocate_lock()
        if b.lock == NULL:
            PyMem_RawFree(b)
            raise MemoryError
        strcpy(b.handler.name, "sparseopt")
        b.handler.version = 1
        b.handler.allocator = PyDataMemAllocator(b, allocate, allocate_zeros, allocate_again, give_back)
        b.most = most
        self.capsule = PyCapsule_New(b, "mem_handler", <void (*)(object) noexcept>free_blocks)
        self.blocks = b

    @property
    def kept(self):
        """Bytes of freed arrays that wait for the next."""
        return self.blocks.kept

    def enter(self):
        """Have new arrays of this context take their memory here. Returns the handler before, for `leave`."""
        before = PyDataMem_SetHandler(self.capsule)
        PyThread_acquire_lock(self.blocks.lock, WAIT_LOCK)
        self.blocks.entered += 1
        PyThread_release_lock(self.blocks.lock)
        return before

    def leave(self, before):
        """Have new arrays take their memory from the handler before. The last to leave frees the kept memory."""
        cdef Block* dropped = NULL
        cdef Blocks* b = <Blocks*>PyCapsule_GetPointer(before, "mem_handler")
        # Blocks of generators may interleave. Then the handler before may be that of a block that has ended.
        ended = strcmp(b.handler.name, self.blocks.handler.name) == 0 and b.entered == 0
        set_handler(NULL if ended else <PyObject*>before)       # NULL: NumPy's own
        PyThread_acquire_lock(self.blocks.lock, WAIT_LOCK)
        self.blocks.entered -= 1
        if self.blocks.entered == 0:
            dropped = take_all(self.blocks)
        PyThread_release_lock(self.blocks.lock)
        free_all(dropped)
