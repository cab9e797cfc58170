"""What type checkers find: `python tests/typecheck.py`. The exit status is 1 if a check fails.

| check       | passes if                                                                                            |
|-------------|------------------------------------------------------------------------------------------------------|
| pyright     | it finds nothing in a program that uses every public name, in its strict mode (`typed_program.py`),  |
|             | and exactly the mistakes of `typed_mistakes.py`                                                      |
| mypy        | the same, with --strict                                                                              |
| verifytypes | every public name has a type, as pyright counts                                                      |
| stubtest    | the stubs of compiled modules say what these have, apart from what `stubtest.txt` lists              |

The checks see the installed package. They run in a folder of their own, where no file of the repository counts.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sparseopt import _kernels

HERE = Path(__file__).parent
PROGRAM, MISTAKES = "typed_program.py", "typed_mistakes.py"
BUILDS = {"avx2", "avx512"}         # a processor without these instructions may not import them
NEEDED = "mypy", "pyright", "scipy-stubs", "torch"


def missing():
    """Return the packages that the checks need and that are not installed."""
    there = {each.metadata["Name"].lower() for each in importlib.metadata.distributions()}
    return [name for name in NEEDED if name not in there]


def pyright(folder):
    (folder / "pyrightconfig.json").write_text(json.dumps({"include": ["*.py"], "typeCheckingMode": "strict"}))
    said = printed(folder, "pyright", "--pythonpath", sys.executable, "--outputjson")[1]
    said = json.loads(re.search(r"\{.*\}", said, re.DOTALL)[0])        # advice may stand before
    return compared({(Path(each["file"]).name, each["range"]["start"]["line"] + 1): each["message"]
                     for each in said["generalDiagnostics"]})


def mypy(folder):
    said = printed(folder, "mypy", "--strict", PROGRAM, MISTAKES)[1]
    return compared({(file, int(line)): text for file, line, text in re.findall(r"^(\S+?):(\d+): error: (.*)", said,
                                                                                re.MULTILINE)})


def verifytypes(folder):
    passed, said = printed(folder, "pyright", "--pythonpath", sys.executable, "--verifytypes", "sparseopt",
                           "--ignoreexternal")
    return passed, re.search("Type completeness score.*", said)[0] if passed else said


def stubtest(folder):
    stubs = sorted(path.stem for path in Path(_kernels.__file__).parent.glob("*.pyi"))
    compiled = [f"sparseopt._kernels.{name}" for name in stubs if name not in BUILDS or name in _kernels.available]
    return printed(folder, "mypy.stubtest", *compiled, "--allowlist", str(HERE / "stubtest.txt"))


CHECKS = {check.__name__: check for check in (pyright, mypy, verifytypes, stubtest)}


def printed(folder, *command):
    """Run a module of Python in the folder, and return whether it succeeded, and what it printed."""
    # pyright --verifytypes finds the packages of the first python on the PATH, whatever --pythonpath says.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    result = subprocess.run([sys.executable, "-m", *command], cwd=folder, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, env={**os.environ, "PATH": path})
    return result.returncode == 0, result.stdout.strip()


def compared(found):
    """Return whether errors, by file and line, are exactly the mistakes, and what is wrong or a line that says so."""
    lines = enumerate((HERE / MISTAKES).read_text(encoding="utf-8").splitlines(), 1)
    mistakes = {(MISTAKES, number) for number, line in lines if line.endswith("# mistake")}
    wrong = [f"{file}:{line}: {text}" for (file, line), text in found.items() if (file, line) not in mistakes]
    wrong += [f"{file}:{line}: this mistake was not found" for file, line in sorted(mistakes - found.keys())]
    return not wrong, "\n".join(wrong) or f"found {len(mistakes)} of {len(mistakes)} mistakes, and nothing else"


def run(name):
    """Run a check, and return whether it passed, and what there is to say."""
    with tempfile.TemporaryDirectory() as folder:
        for file in (PROGRAM, MISTAKES):
            shutil.copy(HERE / file, folder)
        return CHECKS[name](Path(folder))


def main():
    if missing():
        print(f"type checks need {', '.join(missing())}: pip install 'sparseopt[dev,torch]'")
        return 1
    failed = []
    for name in CHECKS:
        passed, said = run(name)
        print(f"{name}: {said}", flush=True)
        failed += [] if passed else [name]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
