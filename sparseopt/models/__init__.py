"""Models that the optimizers train."""

from ._base import Model, Progress
from .cbow import CBOW
from .factorization_machine import FactorizationMachineClassifier, FactorizationMachineRegressor
from .glove import GloVe
from .implicit_factorization import ImplicitFactorization
from .linear import LogisticRegression
from .matrix_factorization import MatrixFactorization
from .skipgram import SkipGram

__all__ = [
    "CBOW", "FactorizationMachineClassifier", "FactorizationMachineRegressor", "GloVe", "ImplicitFactorization",
    "LogisticRegression", "MatrixFactorization", "Model", "Progress", "SkipGram",
]
