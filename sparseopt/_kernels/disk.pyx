# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The rows of a table that stand in memory, and the file with the others.

a) A record of the file holds all numbers of one row: weights, state, count. Its bytes are a multiple of 512, so one
   read or one write brings a row, with O_DIRECT too.
b) A Cache has slots, and a row in each. `find` says in which slots rows stand. `begin` has threads bring rows to slots,
   and write back the rows that stood there, if they have changed. `settle` waits for the threads, and then says where
   rows stand. `begin` and `settle` run no Python while they change anything, so a signal finds each whole.
c) If a write fails, its row stays in its slot. If a read fails, its row is still in the file, and the slot is free.
d) Threads are made for each call, and call no Python. So a forked child inherits none.
e) The victim of CLOCK: the hand passes slot after slot and takes a use off each. A row without uses leaves.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pythread cimport (WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
                               PyThread_release_lock, PyThread_type_lock)
from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from libc.string cimport memcpy, memset

cimport numpy as cnp

import os

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    #define sparseopt_add(p, x) _InterlockedExchangeAdd((p), (x))
    #else
    #define sparseopt_add(p, x) __atomic_fetch_add((p), (x), __ATOMIC_SEQ_CST)
    #endif

    #if defined(_WIN32)
    #include <windows.h>
    #include <io.h>
    #include <process.h>
    #define sparseopt_process _getpid
    static long long sparseopt_transfer(int file, void *memory, size_t n, long long at, int writes) {
        OVERLAPPED place = {0};
        DWORD done = 0, wanted = (DWORD)(n < (1u << 30) ? n : (1u << 30));
        HANDLE handle = (HANDLE)_get_osfhandle(file);
        place.Offset = (DWORD)at;
        place.OffsetHigh = (DWORD)(at >> 32);
        if (writes ? WriteFile(handle, memory, wanted, &done, &place) : ReadFile(handle, memory, wanted, &done, &place))
            return done;
        errno = EIO;
        return -1;
    }
    #define sparseopt_close _close
    #else
    #include <unistd.h>
    #define sparseopt_process getpid
    #define sparseopt_close close
    static long long sparseopt_transfer(int file, void *memory, size_t n, long long at, int writes) {
        return writes ? pwrite(file, memory, n, at) : pread(file, memory, n, at);
    }
    #endif
    """
    long fetch_add "sparseopt_add"(long*, long) noexcept nogil
    long long transfer "sparseopt_transfer"(int, void*, size_t, long long, int) noexcept nogil
    int process "sparseopt_process"() noexcept nogil
    int close_file "sparseopt_close"(int) noexcept nogil

cdef extern from "pythread.h":
    unsigned long PyThread_start_new_thread(void (*)(void*) noexcept, void*) noexcept
    unsigned long PYTHREAD_INVALID_THREAD_ID

cdef enum:
    SECTOR = 512
    PAGE = 4096
    MOST_PARTS = 8
    MOST_THREADS = 256
    MOST_USES = 3           # that a row can have, so that a row of long ago leaves in the end
    AHEAD = 16              # rows between the prefetch of a number and its use
    CHANGED = 1             # of a slot: the row is to be written back
    STORED = 2              # of a slot: the file has a record of the row

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define sparseopt_fetch(p) __builtin_prefetch(p)
    #else
    #define sparseopt_fetch(p) ((void)(p))
    #endif
    """
    void prefetch "sparseopt_fetch"(const void*) noexcept nogil

ctypedef fused index:
    int32_t
    int64_t


cdef struct Records:        # the arrays that hold the numbers of rows, and the file
    int file
    Py_ssize_t n_bytes      # of a record
    int n_parts
    char* part[MOST_PARTS]
    Py_ssize_t width[MOST_PARTS]


cdef struct Job:            # rows to bring
    Records records
    Py_ssize_t n
    const int64_t* rows
    const int32_t* slots
    const int64_t* leaving  # the rows that stood in the slots; -1: none
    const int64_t* fresh    # for a row without a record: its position among the new rows; -1: the file has a record
    char* values[MOST_PARTS]    # the numbers of new rows
    const uint8_t* flags    # of all slots
    int32_t* failed         # 0, or errno of a read, or -errno of a write
    char* buffers
    long next               # the first row that no thread has taken
    long workers            # buffers given out
    long at_work            # threads that have not ended
    PyThread_type_lock done # held while threads are at work


cdef int move(int file, char* memory, Py_ssize_t n, long long at, bint writes) noexcept nogil:
    """Read or write all of n bytes, and return 0 or an errno."""
    cdef long long got
    while n:
        got = transfer(file, memory, n, at, writes)
        if got < 0 and errno == EINTR:
            continue
        if got <= 0:
            return errno if got < 0 else EIO        # 0 bytes: the file is shorter than it was
        memory += got
        at += got
        n -= got
    return 0


cdef void encode(const Records* r, Py_ssize_t slot, char* record) noexcept nogil:
    cdef int j
    for j in range(r.n_parts):
        memcpy(record, r.part[j] + slot * r.width[j], r.width[j])
        record += r.width[j]


cdef void decode(const Records* r, Py_ssize_t slot, const char* record) noexcept nogil:
    cdef int j
    for j in range(r.n_parts):
        memcpy(r.part[j] + slot * r.width[j], record, r.width[j])
        record += r.width[j]


cdef int bring(const Job* job, Py_ssize_t i, char* record) noexcept nogil:
    """Write back the row that leaves, and read the row that comes. Return what `Job.failed` has."""
    cdef const Records* r = &job.records
    cdef Py_ssize_t slot = job.slots[i]
    cdef int error, j
    if job.leaving[i] >= 0 and job.flags[slot] & CHANGED:
        encode(r, slot, record)
        error = move(r.file, record, r.n_bytes, job.leaving[i] * <long long>r.n_bytes, True)
        if error:
            return -error
    if job.fresh[i] >= 0:
        for j in range(r.n_parts):
            memcpy(r.part[j] + slot * r.width[j], job.values[j] + job.fresh[i] * r.width[j], r.width[j])
        return 0
    error = move(r.file, record, r.n_bytes, job.rows[i] * <long long>r.n_bytes, False)
    if error == 0:
        decode(r, slot, record)
    return error


cdef void take_part(Job* job) noexcept nogil:
    cdef long i = fetch_add(&job.workers, 1)
    cdef char* record = job.buffers + i * job.records.n_bytes
    while True:
        i = fetch_add(&job.next, 1)
        if i >= job.n:
            return
        job.failed[i] = bring(job, i, record)


cdef void thread(void* job) noexcept nogil:
    take_part(<Job*>job)
    leave(<Job*>job)


cdef void leave(Job* job) noexcept nogil:
    if fetch_add(&job.at_work, -1) == 1:
        PyThread_release_lock(job.done)


def record_bytes(list arrays):
    """The bytes of a record of rows whose numbers are in these arrays."""
    n = sum([array.nbytes // max(1, len(array)) for array in arrays])
    return max(1, (n + SECTOR - 1) // SECTOR) * SECTOR


cdef class Cache:
    """Slots in memory for the rows of a table, and the file with one record for each row.

    Parameters
    ----------
    file : int
        A descriptor, open for reading and writing. The cache keeps a duplicate of it.
    n_rows : int
    arrays : list of contiguous arrays
        The table of the slots, its state and its counts: (n_slots, ...) each.
    num_threads : int
        Threads that read and write.
    """
    cdef Job job
    cdef void* memory           # the buffers of the threads are in it
    cdef list arrays            # `job.records` points into these
    cdef object work            # the arrays of the job at work, or None
    cdef readonly Py_ssize_t n_rows, n_slots, record_bytes
    cdef readonly Py_ssize_t n_free         # slots without a row
    cdef readonly int64_t calls             # of `find`
    cdef readonly int64_t brought           # rows that have come to slots so far
    cdef readonly object row_of             # the row in each slot, or -1: int64
    cdef cnp.ndarray places     # of each row: its slot + 1, or -1: in the file, or 0: nobody has changed it
    cdef cnp.ndarray flag_array, use_array, seen_array
    cdef int32_t* place
    cdef int64_t* row
    cdef uint8_t* flags
    cdef uint8_t* uses
    cdef int64_t* seen          # the call that last found the row in a slot
    cdef Py_ssize_t hand
    cdef int threads
    cdef int process            # that made it
    cdef readonly int file

    def __cinit__(self):
        self.file = -1

    def __init__(self, int file, Py_ssize_t n_rows, list arrays, int num_threads):
        cdef int j
        cdef cnp.ndarray array
        if len(arrays) > MOST_PARTS or not 1 <= num_threads <= MOST_THREADS:
            raise ValueError(f"{len(arrays)} arrays and {num_threads} threads; at most {MOST_PARTS} and {MOST_THREADS}")
        self.process = process()
        self.arrays, self.n_rows, self.n_slots = arrays, n_rows, len(arrays[0])
        self.threads = num_threads
        cdef Records* r = &self.job.records
        r.n_parts = len(arrays)
        for j, array in enumerate(arrays):
            r.part[j] = <char*>cnp.PyArray_DATA(array)
            r.width[j] = array.nbytes // max(1, len(array))
        self.record_bytes = r.n_bytes = record_bytes(arrays)
        self.places = np.zeros(n_rows, np.int32)
        self.row_of, self.flag_array = np.full(self.n_slots, -1, np.int64), np.zeros(self.n_slots, np.uint8)
        self.use_array, self.seen_array = np.zeros(self.n_slots, np.uint8), np.zeros(self.n_slots, np.int64)
        self.place = <int32_t*>cnp.PyArray_DATA(self.places)
        self.row = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>self.row_of)
        self.flags = <uint8_t*>cnp.PyArray_DATA(self.flag_array)
        self.uses = <uint8_t*>cnp.PyArray_DATA(self.use_array)
        self.seen = <int64_t*>cnp.PyArray_DATA(self.seen_array)
        self.n_free = self.n_slots
        self.job.flags = self.flags
        self.memory = PyMem_RawMalloc((num_threads + 1) * r.n_bytes + PAGE)
        if self.memory == NULL:
            raise MemoryError
        self.job.buffers = <char*>((<uintptr_t>self.memory + PAGE - 1) // PAGE * PAGE)
        self.job.done = PyThread_allocate_lock()
        if self.job.done == NULL:
            raise MemoryError
        self.file = r.file = os.dup(file)

    def __dealloc__(self):
        if self.process == process():       # a forked child has none of the threads
            self.wait()
        if self.job.done != NULL:
            PyThread_free_lock(self.job.done)
        PyMem_RawFree(self.memory)
        if self.file >= 0:
            close_file(self.file)

    def close(self):
        """Give the file back, after the rows on their way. No other method may be called after this one."""
        self.wait()
        self.work = None
        if self.file >= 0:
            close_file(self.file)
        self.file = -1

    @property
    def at_work(self):
        """Whether rows are on their way: `settle` waits for them."""
        return self.work is not None

    # Where rows stand.

    def find(self, cnp.ndarray rows, cnp.ndarray slots, bint used):
        """Write the slot of each row into `slots`, -1 if it has none. `used` adds a use to the rows that have one.

        Returns the number of different rows with a slot, and an array of the rows without, as often as they come.
        """
        if rows.dtype == np.int64:
            return self._find[int64_t](rows, slots, used, 0)
        return self._find[int32_t](rows, slots, used, 0)

    cdef _find(self, cnp.ndarray rows, cnp.ndarray slots, bint used, index like):
        cdef const index* numbers = <const index*>cnp.PyArray_DATA(rows)
        cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(slots)
        cdef Py_ssize_t i, n = cnp.PyArray_DIM(rows, 0), n_missing = 0, n_found = 0
        cdef int32_t slot
        cdef int64_t* without
        self.calls += 1
        with nogil:
            for i in range(n):
                if i + 2 * AHEAD < n:
                    prefetch(self.place + numbers[i + 2 * AHEAD])
                out[i] = max(0, self.place[numbers[i]]) - 1
                n_missing += out[i] < 0
            for i in range(n):
                if i + AHEAD < n and out[i + AHEAD] >= 0:
                    prefetch(self.seen + out[i + AHEAD])
                    prefetch(self.uses + out[i + AHEAD])
                slot = out[i]
                if slot >= 0 and self.seen[slot] != self.calls:
                    self.seen[slot] = self.calls
                    n_found += 1
                    if used and self.uses[slot] < MOST_USES:
                        self.uses[slot] += 1
        missing = np.empty(n_missing, np.int64)
        without = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>missing)
        if n_missing:
            n_missing = 0
            for i in range(n):
                if out[i] < 0:
                    without[n_missing] = numbers[i]
                    n_missing += 1
        return n_found, missing

    def unwritten(self, cnp.ndarray rows):
        """Return those of the rows, int64 and without a slot, that the file has no record of."""
        return rows[self.places[rows] == 0]

    def change(self, cnp.ndarray slots):
        """Say that the rows in slots have changed, so that they are written back before they leave."""
        cdef const int32_t* numbers = <const int32_t*>cnp.PyArray_DATA(slots)
        cdef Py_ssize_t i, n = cnp.PyArray_DIM(slots, 0)
        with nogil:
            for i in range(n):
                self.flags[numbers[i]] |= CHANGED

    # Rows that come and go.

    def begin(self, cnp.ndarray rows, list values, int64_t since):
        """Begin to bring rows without a slot to slots: int64, each one once. Nothing may be at work.

        Parameters
        ----------
        rows : array of int64
        values : list of arrays
            The numbers of the rows that have no record, in the order of `rows`: an array for each of the cache.
        since : int
            Rows that `find` has found from this call on stay. If there are too few others, only the first of the rows
            are brought.
        """
        cdef Py_ssize_t i, n = cnp.PyArray_DIM(rows, 0), passed = 0
        cdef int64_t n_fresh = 0
        cdef bint only_free = n <= self.n_free
        cdef Job* job = &self.job
        if self.work is not None:
            raise RuntimeError("rows are on their way")
        slots, leaving = np.empty(n, np.int32), np.empty(n, np.int64)
        fresh, failed = np.empty(n, np.int64), np.zeros(n, np.int32)
        cdef int32_t* slot = <int32_t*>cnp.PyArray_DATA(<cnp.ndarray>slots)
        cdef int64_t* old = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>leaving)
        cdef int64_t* source = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>fresh)
        cdef const int64_t* new = <const int64_t*>cnp.PyArray_DATA(rows)
        for i in range(n):
            source[i] = -1
            if self.place[new[i]] == 0:
                source[i] = n_fresh
                n_fresh += 1
        if n_fresh and min(map(len, values)) < n_fresh:
            raise ValueError(f"{n_fresh} rows have no record")
        work = rows, values, slots, leaving, fresh, failed
        for i in range(len(values)):
            job.values[i] = <char*>cnp.PyArray_DATA(<cnp.ndarray?>values[i])
        job.rows, job.slots, job.leaving, job.fresh = new, slot, old, source
        job.failed = <int32_t*>cnp.PyArray_DATA(<cnp.ndarray>failed)
        with nogil:
            i = 0
            while i < n and passed < (MOST_USES + 2) * self.n_slots:
                if self.takes(since, only_free):
                    slot[i], old[i] = <int32_t>self.hand, self.row[self.hand]
                    if old[i] >= 0:
                        self.place[old[i]] = -1         # `settle` says whether the file has its record
                    else:
                        self.n_free -= 1
                    self.seen[self.hand] = self.calls   # so the hand does not take it again
                    i += 1
                self.hand = self.hand + 1 if self.hand + 1 < self.n_slots else 0
                passed += 1
        job.n, job.next, job.workers = i, 0, 0
        self.work = work
        self.start()

    cdef bint takes(self, int64_t since, bint only_free) noexcept nogil:
        """Whether the slot under the hand is free, or its row leaves."""
        if self.row[self.hand] < 0 or only_free or self.seen[self.hand] >= since:
            return self.row[self.hand] < 0 and self.seen[self.hand] < self.calls
        if self.uses[self.hand]:
            self.uses[self.hand] -= 1
            return False
        return True

    cdef void start(self):
        cdef Job* job = &self.job
        cdef int i, n = <int>min(self.threads, (job.n + 3) // 4)
        job.at_work = 1                 # this call, so that no thread is the last before all have begun
        PyThread_acquire_lock(job.done, WAIT_LOCK)
        for i in range(n):
            fetch_add(&job.at_work, 1)
            if PyThread_start_new_thread(thread, job) == PYTHREAD_INVALID_THREAD_ID:
                fetch_add(&job.at_work, -1)         # `wait` does what no thread does
                break
        leave(job)

    cdef void wait(self) noexcept:
        cdef Job* job = &self.job
        if self.work is not None:
            with nogil:
                take_part(job)
                PyThread_acquire_lock(job.done, WAIT_LOCK)
                PyThread_release_lock(job.done)

    def settle(self):
        """Wait for the rows on their way. Returns 0, or what failed first: errno of a read, -errno of a write."""
        cdef Job* job = &self.job
        cdef Py_ssize_t i, slot
        cdef int first = 0, failed
        cdef int64_t old
        if self.work is None:
            return 0
        self.wait()
        for i in range(job.n):
            slot, old, failed = job.slots[i], job.leaving[i], job.failed[i]
            if failed and not first:
                first = failed
            if failed < 0:
                self.place[old] = <int32_t>slot + 1
                continue
            if old >= 0 and not self.flags[slot]:
                self.place[old] = 0                 # it is as it was when it came for the first time
            self.uses[slot] = 0
            if failed:
                self.row[slot], self.flags[slot], self.seen[slot] = -1, 0, 0
                self.n_free += 1
                continue
            self.brought += 1
            self.row[slot] = job.rows[i]
            self.place[job.rows[i]] = <int32_t>slot + 1
            self.flags[slot] = STORED if job.fresh[i] < 0 else 0
        self.work = None
        return first

    # All rows, in order.

    def read(self, Py_ssize_t first, list out, cnp.ndarray buffer):
        """Copy the rows from `first` on into arrays, all but those without a record. Nothing may be at work.

        `out` has an array for each of the cache. Returns 0 or the errno of a read, and which rows have no record.
        """
        cdef Records* r = &self.job.records
        cdef Records target = r[0]
        cdef Py_ssize_t i, n = len(out[0]), lo = n, hi = 0
        cdef char* memory = <char*>cnp.PyArray_DATA(buffer)
        cdef int error = 0, j
        for j in range(r.n_parts):
            target.part[j] = <char*>cnp.PyArray_DATA(<cnp.ndarray?>out[j])
        for i in range(n):
            if self.place[first + i] < 0:
                lo, hi = min(lo, i), i + 1
        if lo < hi:
            with nogil:
                error = move(r.file, memory, (hi - lo) * r.n_bytes, (first + lo) * <long long>r.n_bytes, False)
        if error == 0:
            with nogil:
                for i in range(n):
                    if self.place[first + i] < 0:
                        decode(&target, i, memory + (i - lo) * r.n_bytes)
                    elif self.place[first + i]:
                        for j in range(r.n_parts):
                            memcpy(target.part[j] + i * r.width[j],
                                   r.part[j] + (self.place[first + i] - 1) * r.width[j], r.width[j])
        return error, self.places[first:first + n] == 0

    def write(self, Py_ssize_t first, list values, cnp.ndarray buffer):
        """Write the records of the rows from `first` on. Returns 0 or an errno. `all_written` makes them count."""
        cdef Records* r = &self.job.records
        cdef Records source = r[0]
        cdef Py_ssize_t i, n = len(values[0])
        cdef char* memory = <char*>cnp.PyArray_DATA(buffer)
        cdef int error, j
        for j in range(r.n_parts):
            source.part[j] = <char*>cnp.PyArray_DATA(<cnp.ndarray?>values[j])
        with nogil:
            memset(memory, 0, n * r.n_bytes)
            for i in range(n):
                encode(&source, i, memory + i * r.n_bytes)
            error = move(r.file, memory, n * r.n_bytes, first * <long long>r.n_bytes, True)
        return error

    def all_written(self):
        """Say that the file has a record of every row. No row may have a slot."""
        memset(self.place, 0xFF, self.n_rows * sizeof(int32_t))


def reserve(int file, int64_t first, cnp.ndarray zeros):
    """Write zeros from a byte of a file on. Returns 0 or an errno."""
    cdef char* memory = <char*>cnp.PyArray_DATA(zeros)
    cdef Py_ssize_t n = zeros.nbytes
    cdef int error
    with nogil:
        error = move(file, memory, n, first, True)
    return error
