"""Sparse optimizers for NumPy tables: Adam, Adagrad and their family, applied only to the rows that a gradient touches."""

from . import embedding, schedules, training
from ._config import get_num_threads, set_num_threads, show_config
from ._memory import empty, normal, uniform, zeros
from ._version import __version__ as __version__
from .checkpoint import load, save
from .gradients import MatmulGradient, RowGradient
from .optimizers import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Ftrl,
    Lion,
    NAdam,
    Optimizer,
    RMSprop,
    RowwiseAdagrad,
    RowwiseAdam,
)

__all__ = [
    "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lion", "MatmulGradient", "NAdam", "Optimizer",
    "RMSprop", "RowGradient", "RowwiseAdagrad", "RowwiseAdam", "embedding", "empty", "get_num_threads", "load", "normal",
    "save", "schedules", "set_num_threads", "show_config", "training", "uniform", "zeros",
]
