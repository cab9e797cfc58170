# Huge pages for large memory, which make random accesses cheaper.

cdef extern from *:
    """
    #if defined(__linux__)
    #include <sys/mman.h>
    /* As NumPy's own handler: huge pages for arrays of 4 MiB and more. */
    static void sparseopt_huge(char *memory, size_t n) {
        size_t page = 4096, skipped = page - (size_t)memory % page;
        if (n >= ((size_t)1 << 22)) madvise(memory + skipped, n - skipped, MADV_HUGEPAGE);
    }
    #else
    static void sparseopt_huge(char *memory, size_t n) { (void)memory; (void)n; }
    #endif
    """
    void ask_for_huge_pages "sparseopt_huge"(char*, size_t) noexcept nogil
