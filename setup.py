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

# No contraction and no fast-math, so every instruction set gives the same bits. No debug information, which is four
# times as large as the code.
FLAGS = {"unix": ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"], "msvc": ["/O2"]}
OPENMP = {"unix": ["-fopenmp"], "msvc": ["/openmp"]}
STRIPPED = ["-Wl,-s"] if sys.platform == "linux" else []
INSTRUCTION_SETS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTION_SETS["avx2"] = ["-march=x86-64-v3"]
    INSTRUCTION_SETS["avx512"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]


def extension(name, flags=()):
    return Extension(f"sparseopt._kernels.{name}", [f"sparseopt/_kernels/{name}.pyx"],
                     extra_compile_args=list(flags), include_dirs=[numpy.get_include()],
                     define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")])


class BuildExt(build_ext):
    """Compile side by side, with OpenMP if the compiler has it, for the instruction sets that the compiler knows.

    Each module is told the flags that it was built with.
    """

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        kind = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        openmp = OPENMP[kind] if self.compiles("#include <omp.h>\nint probe(void) { return omp_get_max_threads(); }",
                                               OPENMP[kind]) else []
        sanitized = "-fsanitize" in os.environ.get("CFLAGS", "")
        self.extensions = [module for module in self.extensions
                           if not module.extra_compile_args or self.compiles("int probe(void) { return 0; }",
                                                                             module.extra_compile_args)]
        for module in self.extensions:
            module.extra_compile_args = [*FLAGS[kind], *module.extra_compile_args, *openmp]
            module.extra_link_args += [*openmp, *([] if sanitized else STRIPPED)]
            module.define_macros.append(("SPARSEOPT_FLAGS", '"' + " ".join(module.extra_compile_args) + '"'))
        super().build_extensions()

    def compiles(self, program, flags):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text(program)
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                self.compiler.link_shared_object(objects, str(Path(folder) / "probe.so"), extra_postargs=flags)
            except Exception:           # each compiler has its own exception for "no"
                print(f"sparseopt: this compiler does not take {' '.join(flags)}; built without")
                return False
        return True


setup(
    ext_modules=cythonize(
        [extension("atomic"), extension("cpu"), extension("replay"), extension("rowplan"),
         *(extension(name, flags) for name, flags in INSTRUCTION_SETS.items())],
        build_dir="build/cython"),
    cmdclass={"build_ext": BuildExt},
)
