"""The table of instruction sets, and the extension modules made of it."""

import platform
import sys
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MSVC = sys.platform == "win32"
X86_64 = platform.machine().lower() in ("x86_64", "amd64") and not MSVC

# No contraction, no fast-math: every instruction set gives the same bits.
FLAGS = ["/O2"] if MSVC else ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
OPENMP = ["/openmp"] if MSVC else ["-fopenmp"]
INSTRUCTION_SETS = {"baseline": []}
if X86_64:
    INSTRUCTION_SETS["avx2"] = ["-march=x86-64-v3"]
    INSTRUCTION_SETS["avx512"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]


def extension(name, flags=()):
    return Extension(
        f"sparseopt.kernels.{name}", [f"sparseopt/kernels/{name}.pyx"], extra_compile_args=[*FLAGS, *flags],
        include_dirs=[numpy.get_include()], define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")])


class BuildExt(build_ext):
    """Adds OpenMP where the compiler has it, and tells each module the flags it was built with."""

    def build_extensions(self):
        openmp = OPENMP if self.compiles_and_links(OPENMP) else []
        for module in self.extensions:
            module.extra_compile_args += openmp
            module.extra_link_args += openmp
            module.define_macros.append(("SPARSEOPT_FLAGS", '"' + " ".join(module.extra_compile_args) + '"'))
        super().build_extensions()

    def compiles_and_links(self, flags):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                self.compiler.link_executable(objects, str(Path(folder) / "probe"), extra_postargs=flags)
            except Exception:           # each compiler has its own exception for "no"
                print("sparseopt: this compiler has no OpenMP; the kernels will run on one thread")
                return False
        return True


setup(
    ext_modules=cythonize(
        [extension("cpu"), extension("rowplan"), *(extension(name, flags) for name, flags in INSTRUCTION_SETS.items())],
        build_dir="build/cython"),
    cmdclass={"build_ext": BuildExt},
)
