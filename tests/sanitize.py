"""Build with AddressSanitizer and UndefinedBehaviorSanitizer and run the tests of gradients, plans, replay and distances on it.

    python tests/sanitize.py [pytest arguments]

In an environment where the test extra is installed; needs gcc and Linux. The build goes to a temporary folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ["tests/test_gradients.py", "tests/test_bad_input.py", "tests/test_properties.py", "tests/test_replay.py",
         "tests/test_config.py::test_what_suits_a_processor_changes_no_bit",
         "-k", "not torchs and not papers and not very_many"]         # long runs, which reach no code that others do not


def main():
    with tempfile.TemporaryDirectory() as folder:
        # built from a copy: objects left in the project's build/ would be taken for those of the next plain build
        source, target = Path(folder) / "source", Path(folder) / "target"
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns("build", ".*", "*.egg-info"))
        flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"
        environment = {**os.environ, "CFLAGS": flags, "LDFLAGS": "-fsanitize=address,undefined"}
        subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target), str(source)],
                       env=environment, check=True)
        runtimes = [subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True).strip()
                    for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
        environment = {**os.environ, "PYTHONPATH": str(target), "LD_PRELOAD": " ".join(runtimes), "PYTHONMALLOC": "malloc",
                       "ASAN_OPTIONS": "detect_leaks=0"}
        pytest = Path(sys.executable).with_name("pytest")
        command = [pytest, "-q", "-s", "-p", "no:cacheprovider", *(sys.argv[1:] or TESTS)]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
