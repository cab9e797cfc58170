# cython: language_level=3, freethreading_compatible=True
"""Detects the instruction sets and the model of this processor.

This module is built without special instructions, so that it runs on every processor.
"""

cdef extern from *:
    """
    #if defined(__x86_64__) || defined(_M_X64)
    #if defined(_MSC_VER)
    #include <intrin.h>
    static void sparseopt_cpuid(unsigned int leaf, unsigned int r[4]) { __cpuidex((int *)r, (int)leaf, 0); }
    static unsigned int sparseopt_saved(void) { return (unsigned int)_xgetbv(0); }
    #else
    #include <cpuid.h>
    static void sparseopt_cpuid(unsigned int leaf, unsigned int r[4]) {
        __cpuid_count(leaf, 0, r[0], r[1], r[2], r[3]);
    }
    static unsigned int sparseopt_saved(void) {
        unsigned int low, high;
        __asm__ volatile ("xgetbv" : "=a" (low), "=d" (high) : "c" (0));
        return low;
    }
    #endif
    static int sparseopt_amd_family(void) {
        unsigned int vendor[4], r[4];
        sparseopt_cpuid(0, vendor);
        sparseopt_cpuid(1, r);
        return vendor[1] == 0x68747541 ? (int)((r[0] >> 8 & 15) + (r[0] >> 20 & 255)) : 0;      /* "Auth" */
    }
    /* The extensions of x86-64-v3 or of x86-64-v4, and registers that the operating system saves. */
    static int sparseopt_level(int level) {
        const unsigned int first = 0x38d83201;      /* AVX, CX16, F16C, FMA, MOVBE, OSXSAVE, POPCNT, SSE3 to SSE4.2 */
        const unsigned int extended = 0x21;         /* LAHF, LZCNT */
        const unsigned int seventh = level < 4 ? 0x128 : 0xd0030128;    /* AVX2, BMI1, BMI2; AVX512 F, DQ, CD, BW, VL */
        const unsigned int saved = level < 4 ? 0x6 : 0xe6;
        unsigned int r[4];
        sparseopt_cpuid(0, r);
        if (r[0] < 7) return 0;
        sparseopt_cpuid(1, r);
        if ((r[2] & first) != first || (sparseopt_saved() & saved) != saved) return 0;
        sparseopt_cpuid(7, r);
        if ((r[1] & seventh) != seventh) return 0;
        sparseopt_cpuid(0x80000001, r);
        return (r[2] & extended) == extended;
    }
    #else
    static int sparseopt_amd_family(void) { return 0; }
    static int sparseopt_level(int level) { return 0; }
    #endif
    """
    int amd_family "sparseopt_amd_family"()         # 0: not AMD
    bint has_level "sparseopt_level"(int)           # 3 or 4: x86-64-v3 or x86-64-v4


def supported():
    """The names of the instruction sets that this processor has, best first."""
    return [*(["avx512"] if has_level(4) else []), *(["avx2"] if has_level(3) else []), "baseline"]


def nearest():
    """The name of this processor in processors.py, or "other"."""
    if amd_family() == 26:
        return "Zen 5"
    if amd_family() == 25:
        return "Zen 4" if has_level(4) else "Zen 3"
    return "other"
