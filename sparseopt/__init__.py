"""Sparse optimizers for NumPy tables: Adam, Adagrad and their family update only the rows that a gradient touches."""

import importlib
from typing import TYPE_CHECKING

from . import checkpoint, embedding, gradients, init, optimizers, schedules, training
from ._config import get_num_threads, set_num_threads, show_config
from ._ids import IdMap
from ._memory import empty, normal, uniform, zeros
from ._reserve import reserve
from ._rows import Rows
from ._version import __version__ as __version__
from ._workspace import Workspace
from .checkpoint import load, save
from .gradients import MatmulGradient, RowGradient
from .optimizers import *  # noqa: F403

__all__ = [
    *optimizers.__all__, "DiskTable", "DiskTables", "IdMap", "MatmulGradient", "RowGradient", "Rows", "Workspace",
    "checkpoint", "datasets", "embedding", "empty", "evaluation", "get_num_threads", "gradients", "init", "load",
    "losses", "models", "normal", "optimizers", "reserve", "save", "schedules", "set_num_threads", "sharded",
    "show_config", "training", "uniform", "zeros",
]

if TYPE_CHECKING:           # __getattr__ would have a type checker accept every name
    from . import datasets, evaluation, losses, models, sharded
    from .disk import DiskTable, DiskTables
else:
    # A program that only steps does not pay for importing these.
    _IMPORTED_WHEN_USED = "datasets", "evaluation", "losses", "models", "sharded"
    _CLASSES = {"DiskTable": "disk", "DiskTables": "disk"}          # the modules that have them

    def __getattr__(name):
        if name in _IMPORTED_WHEN_USED:
            return importlib.import_module(f"{__name__}.{name}")
        if name in _CLASSES:
            return getattr(importlib.import_module(f"{__name__}.{_CLASSES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted([*__all__, "__version__"])
