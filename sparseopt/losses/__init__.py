"""Losses: what stands between tables and gradients. The gradients are ready for the step of an optimizer.

A loss takes tables and a batch, and returns `loss, gradients`: the sum of the losses over the batch, and a tuple of
gradients in the order of the tables. Compiled passes compute both. Each sum has a fixed order, so results are the same
to the bit for any number of threads. Only `softmax` takes its products from BLAS, whose threads may change last digits.
"""

from ._linear import factorization_machine, linear
from .listwise import softmax
from .pairwise import bpr, warp
from .pointwise import square, square_gramian
from .squares import glove, squared_error
from .words import cbow, skip_gram

__all__ = ["bpr", "cbow", "factorization_machine", "glove", "linear", "skip_gram", "softmax", "square",
           "square_gramian", "squared_error", "warp"]
