from libc.stdint cimport int32_t, int64_t

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define sparseopt_prefetch_read(p) __builtin_prefetch((p), 0, 3)
    #elif defined(_MSC_VER) && defined(_M_X64)
    #include <intrin.h>
    #define sparseopt_prefetch_read(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
    #else
    #define sparseopt_prefetch_read(p)
    #endif
    """
    void prefetch_read "sparseopt_prefetch_read"(const void*) noexcept nogil

# The touched rows of a gradient and their entries. The i-th touched row has the positions starts[i] to stops[i] - 1.
# If starts is NULL, the row has position i alone. Position p holds entry order[p], or entry p if order is NULL.
# The gradient of the row is the sum of its entries:
#
#     form                       given               entry e adds
#     rows of values             values              values[e, :]
#     cells of a sparse matrix   columns             values[e] at column columns[e]
#     terms of a sparse product  sources, weights    weights[e] * values[sources[e], :]
cdef struct Source:
    const void* rows            # numbers of the touched rows; NULL: 0, 1, 2, ...
    bint rows_wide              # rows are int64, else int32
    const int64_t* starts
    const int64_t* stops
    const int64_t* order        # NULL for cells and terms, which are permuted instead
    Py_ssize_t n_entries        # length of order
    const void* values
    Py_ssize_t stride           # elements from one row of `values` to the next
    Py_ssize_t value_rows
    Py_ssize_t value_columns
    const void* columns
    const void* sources
    bint index_wide             # columns or sources are int64, else int32
    const void* weights
    Py_ssize_t n_weights        # including the weights of rows that were left out


cdef inline int64_t number(const void* array, bint wide, Py_ssize_t i) noexcept nogil:
    """array[i], for an int64 (`wide`) or int32 array."""
    return (<const int64_t*>array)[i] if wide else (<const int32_t*>array)[i]


cdef class RowPlan:
    cdef Source source
    cdef readonly Py_ssize_t n          # number of touched rows
    cdef readonly Py_ssize_t longest    # largest number of entries in a row
    # `source` points into these arrays, which must stay alive.
    cdef object touched, starts, stops
    cdef readonly object order          # entry numbers sorted by row; None: entries are read as given
    cdef tuple entries                  # values, columns, sources, weights
    cdef int check_in_place(self) except -1
