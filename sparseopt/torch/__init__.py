"""The optimizers for PyTorch: sparse and dense parameters of a model in one optimizer, on the CPU.

A program gets them by one import::

    import sparseopt.torch

    opt = sparseopt.torch.Adam(model.parameters(), lr=1e-3)

They are subclasses of torch.optim.Optimizer. Each works on the memory of torch's tensors, through the optimizer of the
same name in `sparseopt`.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError:
    raise ImportError("sparseopt.torch needs the package torch: pip install 'sparseopt[torch]'") from None

from ._base import Optimizer
from ._optimizers import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Ftrl,
    Lion,
    NAdam,
    RMSprop,
    RowwiseAdagrad,
    RowwiseAdam,
    SparseAdam,
)

__all__ = [  # noqa: RUF022 (the order of `sparseopt.optimizers`)
    "SGD", "Adagrad", "RowwiseAdagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "RowwiseAdam", "Adamax", "NAdam",
    "Ftrl", "Lion", "SparseAdam", "Optimizer",
]
