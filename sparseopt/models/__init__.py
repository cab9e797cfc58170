"""Models that the optimizers train."""

from ._base import Model, Progress
from .factorization_machine import FactorizationMachineClassifier, FactorizationMachineRegressor
from .glove import GloVe
from .linear import LogisticRegression
from .skipgram import SkipGram

__all__ = [
    "FactorizationMachineClassifier", "FactorizationMachineRegressor", "GloVe", "LogisticRegression", "Model", "Progress",
    "SkipGram",
]
