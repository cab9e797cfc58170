from libc.stdint cimport int32_t, int64_t

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define sparseopt_prefetch_read(p) __builtin_prefetch((p), 0, 3)
    #else
    #define sparseopt_prefetch_read(p)
    #endif
    """
    void prefetch_read "sparseopt_prefetch_read"(const void*) noexcept nogil

# Where the gradient of the i-th touched row comes from.  Its entries are starts[i] to stops[i] (entry i alone, if NULL),
# looked up through `order` if there is one; cells and the terms of a product stand in that order.  An entry e adds
#     values[e, :]                      when columns and sources are NULL,
#     values[e] at column columns[e]    when `columns` is given (a cell of a sparse matrix),
#     weights[e] * values[sources[e]]   when `sources` is given (a term of a product).
cdef struct Source:
    const void* rows            # the touched rows' numbers; NULL: 0, 1, 2, ...
    bint rows_wide              # int64, else int32
    bint unsorted               # no row repeats, and they do not rise
    const int64_t* starts
    const int64_t* stops
    const int64_t* order
    Py_ssize_t n_entries        # in order
    const void* values
    Py_ssize_t stride           # elements from one row of `values` to the next
    Py_ssize_t value_rows
    Py_ssize_t value_columns
    const void* columns
    const void* sources
    bint index_wide             # columns or sources are int64, else int32
    const void* weights
    Py_ssize_t n_weights        # those of rows left out included


cdef inline int64_t number(const void* array, bint wide, Py_ssize_t i) noexcept nogil:
    return (<const int64_t*>array)[i] if wide else (<const int32_t*>array)[i]


cdef class RowPlan:
    cdef Source source
    cdef readonly Py_ssize_t n          # rows touched
    cdef readonly Py_ssize_t longest    # entries of the longest row
    cdef object touched, starts, stops
    cdef readonly object order          # the entries in the order of their rows; None if they stand in it
    cdef tuple entries                  # these and those above are what the pointers look into
    cdef int check_in_place(self) except -1
