"""The compiled part: picks, once, the build of the sweep for the best instruction set that this processor has.

SPARSEOPT_ISA=baseline, avx2 or avx512 in the environment forces one; GOMP_SPINCOUNT says how long threads turn.
"""

import importlib.util
import os

try:
    from . import cpu
except ImportError as missing:
    raise ImportError("sparseopt's compiled modules are missing: install it with `pip install .`, and import it from outside "
                      "its source folder") from missing


available = [name for name in cpu.supported() if importlib.util.find_spec(f"{__name__}.{name}")]      # best first
isa = os.environ.get("SPARSEOPT_ISA") or available[0]
if isa not in available:
    raise ImportError(f"SPARSEOPT_ISA={isa!r}: this processor and this build run {', '.join(available)}")

# A waiting thread of GNU's OpenMP spins, by default for milliseconds. Beside other busy processes it keeps a core from the very
# thread that it waits for. After so many turns it sleeps instead: bench/busy.py compares numbers.
TURNS = "1000"
_chosen = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"} & set(os.environ)      # somebody else has
if not _chosen:
    os.environ["GOMP_SPINCOUNT"] = TURNS            # OpenMP reads it once, as it is loaded with this module
try:
    _module = importlib.import_module(f"{__name__}.{isa}")
finally:
    if not _chosen:
        del os.environ["GOMP_SPINCOUNT"]            # child processes and other libraries choose their own
Sweep = _module.Sweep
BUILD = _module.BUILD
take, dots, matmul = _module.take, _module.dots, _module.matmul
alias_table, alias_draw = _module.alias_table, _module.alias_draw
