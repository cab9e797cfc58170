"""The extension modules, one build of the kernels for each instruction set."""

import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# No contraction and no fast-math, so every instruction set gives the same bits; shims.pxi turns contraction off for
# MSVC. No debug information, which is four times as large as the code.
FLAGS = {"unix": ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"], "msvc": ["/O2"]}
OPENMP = {"unix": ["-fopenmp"], "msvc": ["/openmp"]}
STRIPPED = ["-Wl,-s"] if sys.platform == "linux" else []
INSTRUCTION_SETS = {"baseline": {"unix": [], "msvc": []}}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS["avx2"] = {"unix": ["-march=x86-64-v3"], "msvc": ["/arch:AVX2"]}
    INSTRUCTION_SETS["avx512"] = {"unix": ["-march=x86-64-v4", "-mprefer-vector-width=512"], "msvc": ["/arch:AVX512"]}

# The optimizers' step, and what stands before it: look-ups and losses.
PARTS = "", "losses_"


def extension(name):
    return Extension(f"sparseopt._kernels.{name}", [f"sparseopt/_kernels/{name}.pyx"],
                     include_dirs=[numpy.get_include()],
                     define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")])


class BuildExt(build_ext):
    """Compile side by side, with OpenMP if the compiler has it, for the instruction sets that the compiler knows.

    Each module is told the flags that it was built with. OpenMP is for modules with threads alone: the package
    loads cpu before it says how OpenMP waits, and some linkers keep a library that a module does not use.
    """

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        kind = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        openmp = OPENMP[kind] if self.compiles("#include <omp.h>\nint probe(void) { return omp_get_max_threads(); }",
                                               OPENMP[kind]) else []
        sanitized = "-fsanitize" in os.environ.get("CFLAGS", "")
        own = {f"sparseopt._kernels.{part}{name}": flags[kind] for name, flags in INSTRUCTION_SETS.items()
               for part in PARTS}
        self.extensions = [module for module in self.extensions
                           if not own.get(module.name) or self.compiles("int probe(void) { return 0; }",
                                                                        own[module.name])]
        for module in self.extensions:
            threads = openmp if module.name in own or module.name.endswith(".rowplan") else []
            module.extra_compile_args = [*FLAGS[kind], *own.get(module.name, []), *threads]
            module.extra_link_args += [*(threads if kind == "unix" else []),    # the linker of MSVC has no such option
                                       *([] if sanitized else STRIPPED)]
            module.define_macros.append(("SPARSEOPT_FLAGS", '"' + " ".join(module.extra_compile_args) + '"'))
        super().build_extensions()

    def compiles(self, program, flags):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text(program)
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                # The linker of MSVC takes no flag of its compiler; those begin with a slash.
                self.compiler.link_shared_object(objects, str(Path(folder) / "probe.so"),
                                                 extra_postargs=[flag for flag in flags if flag[0] == "-"])
            except Exception:           # each compiler has its own exception for "no"
                print(f"sparseopt: this compiler does not take {' '.join(flags)}; built without")
                return False
        return True


setup(
    ext_modules=cythonize(
        [extension(name) for name in ("atomic", "cpu", "disk", "ids", "pool", "replay", "rowplan",
                                           *(part + name for name in INSTRUCTION_SETS for part in PARTS))],
        build_dir="build/cython"),
    cmdclass={"build_ext": BuildExt},
)
