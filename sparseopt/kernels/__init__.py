"""The compiled part: picks, once, the build of the sweep for the best instruction set that this processor has.

SPARSEOPT_ISA=baseline, avx2 or avx512 in the environment forces one.
"""

import importlib
import os

from . import cpu


def _load():
    built = ("avx512", "avx2", "baseline")
    supported = cpu.supported()
    wanted = os.environ.get("SPARSEOPT_ISA")
    if wanted and wanted not in supported:
        raise ImportError(f"SPARSEOPT_ISA={wanted!r}: this processor runs {', '.join(supported)}")
    for isa in [wanted] if wanted else [name for name in built if name in supported]:
        try:
            return isa, importlib.import_module(f"{__name__}.{isa}")
        except ModuleNotFoundError as error:
            missing = error
    raise ImportError(f"sparseopt's compiled modules are missing ({missing}); install it with `pip install .` and import it "
                      "from outside its source folder") from missing


isa, _module = _load()
Sweep = _module.Sweep
BUILD = _module.BUILD
