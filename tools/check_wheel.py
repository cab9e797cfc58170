"""Check that the installed wheel is complete: print each fault, and exit with status 1 if there is one.

setup.py leaves out an instruction set, or OpenMP, if the compiler does not take the flags. That is right for a user
who builds for one machine. A wheel for everyone must have all:

    cd / && python .../tools/check_wheel.py         # with the Python that the wheel is installed into
"""

import importlib.util
import platform
import sys
from pathlib import Path

import sparseopt
from sparseopt import _kernels


def faults():
    """Return a text for each fault of the installed wheel on this platform."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    wanted = ("avx512", "avx2", "baseline") if x86 else ("baseline",)
    built = [name for name in wanted if all(importlib.util.find_spec(f"{_kernels.__name__}.{part}{name}")
                                            for part in ("", "losses_"))]
    found = [f"the instruction set {name} is missing" for name in wanted if name not in built]
    # A machine that builds wheels may lack AVX-512, so only the sets of this processor are available.
    if _kernels.available != _kernels.cpu.supported():
        found.append(f"sparseopt._kernels.available is {_kernels.available}; "
                     f"this processor allows {_kernels.cpu.supported()}")
    if sys.platform == "darwin" and _kernels.BUILD["openmp"]:
        found.append("the wheel uses OpenMP; a second libomp beside torch's crashes on macOS")
    if sys.platform != "darwin" and not _kernels.BUILD["openmp"]:
        found.append("OpenMP is missing")
    folder = Path(sparseopt.__file__).parent
    found += [f"{name} is missing" for name in ("py.typed", *(f"_kernels/{name}.pyi" for name in built))
              if not (folder / name).is_file()]
    found += [f"{path.relative_to(folder)} is a source file" for path in sorted(folder.rglob("*"))
              if path.suffix in (".c", ".pyx", ".pxd", ".pxi")]
    return found


if __name__ == "__main__":
    print(f"sparseopt {sparseopt.__version__} of {Path(sparseopt.__file__).parent} on {platform.machine()}: "
          f"{', '.join(_kernels.available)}; {_kernels.BUILD}")
    for fault in faults():
        print(fault, file=sys.stderr)
    sys.exit(bool(faults()))
