"""Models that the optimizers train."""

from ._base import Model, Progress
from .glove import GloVe
from .implicit_factorization import ImplicitFactorization
from .matrix_factorization import MatrixFactorization

__all__ = ["GloVe", "ImplicitFactorization", "MatrixFactorization", "Model", "Progress"]
