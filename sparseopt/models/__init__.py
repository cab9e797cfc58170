"""Models that the optimizers train."""

from ._base import Model, Progress
from .glove import GloVe
from .skipgram import SkipGram

__all__ = ["GloVe", "Model", "Progress", "SkipGram"]
