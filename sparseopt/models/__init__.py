"""Models that the optimizers train."""

from ._base import Model, Progress
from .glove import GloVe

__all__ = ["GloVe", "Model", "Progress"]
