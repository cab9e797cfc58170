"""Models that the optimizers train."""

from .glove import GloVe

__all__ = ["GloVe"]
