"""The compiled part: picks, once, the build of the sweep for the best instruction set that this processor has.

SPARSEOPT_ISA=baseline, avx2 or avx512 in the environment forces one.
"""

import importlib.util
import os

try:
    from . import cpu
except ImportError as missing:
    raise ImportError("sparseopt's compiled modules are missing: install it with `pip install .`, and import it from outside "
                      "its source folder") from missing


def _load():
    supported = [name for name in cpu.supported() if importlib.util.find_spec(f"{__name__}.{name}")]
    wanted = os.environ.get("SPARSEOPT_ISA")
    if wanted and wanted not in supported:
        raise ImportError(f"SPARSEOPT_ISA={wanted!r}: this processor and this build run {', '.join(supported)}")
    best = wanted or supported[0]
    return best, importlib.import_module(f"{__name__}.{best}")


isa, _module = _load()
Sweep = _module.Sweep
BUILD = _module.BUILD
