# Needs of the kernels that Cython lacks: prefetches, relaxed atomics, the bits of a float, the compiler's name.


cdef extern from *:
    """
    #ifndef SPARSEOPT_FLAGS
    #define SPARSEOPT_FLAGS ""
    #endif
    #if defined(__GNUC__)
    /* The empty asm keeps gcc from dropping calls of functions that only prefetch. */
    #define sparseopt_prefetch(p) do { __builtin_prefetch((p), 1, 2); __asm__ volatile (""); } while (0)
    #define sparseopt_prefetch_near(p) do { __builtin_prefetch((p), 1, 3); __asm__ volatile (""); } while (0)
    #define SPARSEOPT_COMPILER __VERSION__
    #define sparseopt_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define sparseopt_set_relaxed(p, x) __atomic_store_n((p), (x), __ATOMIC_RELAXED)
    #else
    #define sparseopt_relaxed(p) (*(const volatile int *)(p))
    #define sparseopt_set_relaxed(p, x) (*(volatile int *)(p) = (x))
    #if defined(_MSC_VER) && defined(_M_X64)
    #include <intrin.h>
    #define sparseopt_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
    #define sparseopt_prefetch_near(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
    #else
    #define sparseopt_prefetch(p)
    #define sparseopt_prefetch_near(p)
    #endif
    #if defined(_MSC_VER)
    #pragma fp_contract (off)       /* on by default before Visual Studio 2022 */
    #define sparseopt_text(x) #x
    #define sparseopt_text_of(x) sparseopt_text(x)
    #define SPARSEOPT_COMPILER "MSVC " sparseopt_text_of(_MSC_FULL_VER)
    #else
    #define SPARSEOPT_COMPILER ""
    #endif
    #endif
    #include <string.h>
    static inline unsigned int sparseopt_bits32(float x) { unsigned int b; memcpy(&b, &x, 4); return b; }
    static inline unsigned long long sparseopt_bits64(double x) { unsigned long long b; memcpy(&b, &x, 8); return b; }
    static inline float sparseopt_float(unsigned int b) { float x; memcpy(&x, &b, 4); return x; }
    static inline double sparseopt_double(unsigned long long b) { double x; memcpy(&x, &b, 8); return x; }
    #ifdef _OPENMP
    #include <omp.h>
    #define SPARSEOPT_OPENMP 1
    #else
    #define SPARSEOPT_OPENMP 0
    #endif
    """
    void prefetch "sparseopt_prefetch"(const void*) noexcept nogil               # into the second-level cache
    void prefetch_near "sparseopt_prefetch_near"(const void*) noexcept nogil     # into the first
    int32_t relaxed "sparseopt_relaxed"(const int32_t*) noexcept nogil           # read while another thread may write
    void set_relaxed "sparseopt_set_relaxed"(int32_t*, int32_t) noexcept nogil   # while another thread may read
    uint32_t bits32 "sparseopt_bits32"(float) noexcept nogil
    uint64_t bits64 "sparseopt_bits64"(double) noexcept nogil
    float float_of "sparseopt_float"(uint32_t) noexcept nogil
    double double_of "sparseopt_double"(uint64_t) noexcept nogil
    const char* FLAGS "SPARSEOPT_FLAGS"
    const char* COMPILER "SPARSEOPT_COMPILER"
    int OPENMP "SPARSEOPT_OPENMP"
