"""Build with the sanitizers of a compiler, and run what they are to look at.

    python tests/sanitize.py [pytest arguments]     the tests of gradients, plans, replay and distances, on a build with
                                                    AddressSanitizer and UndefinedBehaviorSanitizer (gcc)
    python tests/sanitize.py --threads              threaded.py, on a build with ThreadSanitizer (clang)

In an environment where the test extra is installed; needs Linux. The build goes to a temporary folder.

ThreadSanitizer needs clang, its runtime, LLVM's OpenMP and Python's headers, in Debian `clang libclang-rt-dev
libomp-dev python3-dev` (of one version of LLVM): gcc's knows nothing of the barriers of its own OpenMP. It can only be
the sanitizer of a program, not of modules that one loads, so that a `python` is built, too. LLVM 14 does not see what
memcpy reads and writes.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ["tests/test_gradients.py", "tests/test_bad_input.py", "tests/test_properties.py", "tests/test_replay.py",
         "tests/test_config.py::test_what_suits_a_processor_changes_no_bit",
         # The tests left out run long, and reach no code that the rest does not.
         "-k", "not torchs and not papers and not very_many"]
PYTHON = """
#include <Python.h>
int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
"""
RACED = 66          # the exit status of a program in which ThreadSanitizer has seen a race


def built(folder, **environment):
    """Build from a copy, and return the folder: a plain build would take objects left in build/ for its own."""
    source, target = folder / "source", folder / "target"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns("build", ".*", "*.egg-info"))
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target",
                    str(target), str(source)],
                   env={**os.environ, **environment}, check=True)
    return target


def memory(folder, arguments):
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"
    target = built(folder, CFLAGS=flags, LDFLAGS="-fsanitize=address,undefined")
    runtimes = [subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True).strip()
                for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
    environment = {**os.environ, "PYTHONPATH": str(target), "LD_PRELOAD": " ".join(runtimes), "PYTHONMALLOC": "malloc",
                   "ASAN_OPTIONS": "detect_leaks=0"}
    pytest = Path(sys.executable).with_name("pytest")
    command = [pytest, "-q", "-s", "-p", "no:cacheprovider", *(arguments or TESTS)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def threads(folder):
    clang, archer, library = llvm()
    # Without vectors, and on the baseline's instructions: of accesses longer than 16 bytes it sees nothing.
    target = built(folder, CC=clang, LDSHARED=f"{clang} -shared", LDFLAGS="-fsanitize=thread",
                   CFLAGS="-fsanitize=thread -fno-vectorize -fno-slp-vectorize -g -O1")
    (folder / "python.c").write_text(PYTHON)
    lib, version = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDVERSION")
    subprocess.run([clang, "-fsanitize=thread", "-g", folder / "python.c",
                    f"-I{sysconfig.get_paths()['include']}", f"-L{lib}", f"-lpython{version}", f"-Wl,-rpath,{lib}",
                    "-o", folder / "python"], check=True)
    environment = {**os.environ, "PYTHONHOME": sys.base_prefix,
                   "PYTHONPATH": f"{target}:{sysconfig.get_paths()['purelib']}",
                   "LD_LIBRARY_PATH": str(library), "OMP_TOOL_LIBRARIES": str(archer), "OPENBLAS_NUM_THREADS": "1",
                   "SPARSEOPT_ISA": "baseline"}

    def run(*arguments, options=""):
        options = {"TSAN_OPTIONS": f"ignore_noninstrumented_modules=1 exitcode={RACED} {options}"}
        # setarch -R: ThreadSanitizer needs fixed addresses.
        command = ["setarch", "-R", folder / "python", ROOT / "tests" / "threaded.py", *arguments]
        return subprocess.run(command, env={**environment, **options}, capture_output=bool(arguments),
                              check=False).returncode

    status = run("race", options="halt_on_error=1")
    if status != RACED:
        print(f"a race that was made on purpose was not reported (status {status}): nothing that is said here counts")
        return 1
    print("a race that was made on purpose was reported, as it should be", flush=True)
    status = run()
    print({0: "no races", RACED: "there are races: see above"}.get(status, f"it ended with status {status}"))
    return status


def llvm():
    """The paths of clang, of the tool that tells ThreadSanitizer of OpenMP's barriers, and of its OpenMP's folder."""
    for name in ("clang", *(f"clang-{version}" for version in range(30, 13, -1))):
        clang = shutil.which(name)
        if clang is None:
            continue
        library = Path(clang).resolve().parents[1] / "lib"
        runtime = subprocess.check_output([clang, "-print-file-name=libclang_rt.tsan-x86_64.a"], text=True).strip()
        missing = [package for package, path in (("libclang-rt-dev", Path(runtime)),
                                                 ("libomp-dev", library / "libarcher.so"))
                   if not path.is_absolute() or not path.exists()]
        if missing:
            sys.exit(f"{clang} lacks what the packages {' and '.join(missing)} of its version have")
        if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
            sys.exit(f"{sys.executable} has no shared library that a program could be linked with")
        return clang, library / "libarcher.so", library
    sys.exit("there is no clang; it is in the packages clang, libclang-rt-dev and libomp-dev")


def main():
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1:] == ["--threads"]:
            return threads(Path(folder))
        return memory(Path(folder), sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
