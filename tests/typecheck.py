"""What type checkers find, in four checks: `python tests/typecheck.py`. The exit status is 1 if one of them fails.

| check          | finds                                                                                  |
|----------------|----------------------------------------------------------------------------------------|
| mypy, pyright  | errors in a program of a user (`typed_program.py`), which uses every public name       |
| verifytypes    | public names without a type, by pyright                                                |
| stubtest       | differences between the compiled modules and their stubs, without those of stubtest.txt |

They check the installed package, in a folder of its own, so that no file of the repository changes what they find.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sparseopt import _kernels

HERE = Path(__file__).parent
PROGRAM = "typed_program.py"
STUBS = sorted(path.stem for path in Path(_kernels.__file__).parent.glob("*.pyi"))
BUILDS = {"avx2", "avx512"}         # a processor without these instructions may not import them


def checks():
    compiled = [f"sparseopt._kernels.{name}" for name in STUBS if name not in BUILDS or name in _kernels.available]
    return {
        "mypy": ["mypy", "--strict", PROGRAM],
        "pyright": ["pyright", "--pythonpath", sys.executable, PROGRAM],
        "verifytypes": ["pyright", "--pythonpath", sys.executable, "--verifytypes", "sparseopt", "--ignoreexternal"],
        "stubtest": ["mypy.stubtest", *compiled, "--allowlist", str(HERE / "stubtest.txt")],
    }


def missing():
    """Return the packages that the checks need and that are not installed."""
    return [name for name in ("mypy", "pyright", "torch") if not importlib.util.find_spec(name)]


def run(name):
    """Run a check, and return whether it found nothing, and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(HERE / PROGRAM, folder)
        result = subprocess.run([sys.executable, "-m", *checks()[name]], cwd=folder, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
    return result.returncode == 0, result.stdout


def main():
    if missing():
        print(f"type checks need {', '.join(missing())}: pip install 'sparseopt[dev,torch]'")
        return 1
    failed = []
    for name in checks():
        passed, said = run(name)
        if name == "verifytypes" and passed:
            said = next(line for line in said.splitlines() if "completeness" in line)
        print(f"{name}: {said.strip()}", flush=True)
        failed += [] if passed else [name]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
