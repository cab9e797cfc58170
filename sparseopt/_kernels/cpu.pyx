# cython: language_level=3
"""Detects the instruction sets and the model of this processor.

This module is built without special instructions, so that it runs on every processor.
"""

cdef extern from *:
    """
    #if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    #include <cpuid.h>
    static int sparseopt_amd_family(void) {
        unsigned int a, b, c, d;
        __builtin_cpu_init();
        return __builtin_cpu_is("amd") && __get_cpuid(1, &a, &b, &c, &d) ? (a >> 8 & 15) + (a >> 20 & 255) : 0;
    }
    static int sparseopt_avx2(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")
            && __builtin_cpu_supports("bmi2");
    }
    static int sparseopt_avx512(void) {
        return sparseopt_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl");
    }
    #else
    static int sparseopt_amd_family(void) { return 0; }
    static int sparseopt_avx2(void) { return 0; }
    static int sparseopt_avx512(void) { return 0; }
    #endif
    """
    int amd_family "sparseopt_amd_family"()         # 0: not AMD
    bint has_avx2 "sparseopt_avx2"()
    bint has_avx512 "sparseopt_avx512"()


def supported():
    """The names of the instruction sets that this processor has, best first."""
    return [*(["avx512"] if has_avx512() else []), *(["avx2"] if has_avx2() else []), "baseline"]


def nearest():
    """The name of this processor in processors.py, or "other"."""
    if amd_family() == 26:
        return "Zen 5"
    if amd_family() == 25:
        return "Zen 4" if has_avx512() else "Zen 3"
    return "other"
