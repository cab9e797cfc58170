"""The compiled kernels: loads the build for the best instruction set of this processor.

The environment variable SPARSEOPT_ISA chooses another build: baseline, avx2 or avx512.
The environment variable GOMP_SPINCOUNT sets how long idle threads spin.
"""

import importlib.util
import os

try:
    from . import cpu
except ImportError as missing:
    raise ImportError("sparseopt's compiled modules are missing; install sparseopt with `pip install .`, "
                      "and import sparseopt outside its source folder") from missing


available = [name for name in cpu.supported() if importlib.util.find_spec(f"{__name__}.{name}")]      # best first
isa = os.environ.get("SPARSEOPT_ISA") or available[0]
if isa not in available:
    raise ImportError(f"SPARSEOPT_ISA={isa!r}; this processor and this build allow {', '.join(available)}")

# A waiting thread of GNU OpenMP spins for milliseconds by default. If other processes are busy, the spinning thread
# may occupy the core that the awaited thread needs. With GOMP_SPINCOUNT the thread sleeps after TURNS iterations.
# bench/busy.py compares values.
TURNS = "1000"
_chosen_by_user = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"} & set(os.environ)
if not _chosen_by_user:
    os.environ["GOMP_SPINCOUNT"] = TURNS            # OpenMP reads the variable only while the next lines load it
try:
    _step, losses = (importlib.import_module(f"{__name__}.{name}") for name in (isa, f"losses_{isa}"))
finally:
    if not _chosen_by_user:
        del os.environ["GOMP_SPINCOUNT"]            # child processes and other libraries must not inherit this choice
Sweep, BUILD = _step.Sweep, _step.BUILD
take, dots, matmul = losses.take, losses.dots, losses.matmul
alias_table, alias_draw = losses.alias_table, losses.alias_draw
