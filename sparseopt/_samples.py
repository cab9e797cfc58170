"""Scores, losses and gradients of samples: rows of a CSR array, read where they stand.

A batch is a small CSR array, whose columns are only the features that occur. A kernel makes the batch of the rows, and
another one goes from the batch to the scores, the loss and the gradients. Nothing here has the size of a table.
"""

from typing import NamedTuple

import numpy as np

from . import _kernels
from .gradients import RowGradient, checked

LOG_LOSS, SQUARED_ERROR, SOFTMAX = range(3)         # as in the kernels
MOST_FEATURES = 2**32 - 1       # a slot of the kernel's table holds a feature in 32 bits


class Batch(NamedTuple):
    """Samples as a CSR array (values, columns, bounds), and the feature of each column."""

    features: np.ndarray
    values: np.ndarray
    columns: np.ndarray
    bounds: np.ndarray


class Batches:
    """Makes batches of the rows of a CSR array.

    With `merged`, entries of a row that share a feature are summed. The numbers in X may be unchecked: those of a
    batch's rows are checked.
    """

    def __init__(self, X, merged=False):
        if X.shape[1] > MOST_FEATURES:
            raise ValueError(f"X has {X.shape[1]} features; it must have at most {MOST_FEATURES}")
        self.X, self.merged = X, merged
        self.parts = X.data, X.indices, X.indptr, X.shape[1]
        self.slots = self.last = np.empty(0, np.int64)

    def __call__(self, start, stop, order=None):
        """Return the samples from start to stop, or those whose numbers stand there in `order`."""
        data, _, indptr, n_features = self.parts
        rows = None if order is None else order[start:stop]
        if rows is None:
            n = int(indptr[stop] - indptr[start])
            n = n if n <= len(data) else -1
        else:                   # rows may come again, so that a batch may have more entries than X
            n = _kernels.losses.count_entries(indptr, rows, len(data))
        if n < 0:
            self._raise("X")
        most = min(n, n_features)
        if most >= 2**31:
            raise ValueError(f"a batch has {n} entries; it must have fewer than {2**31}, so batches must be smaller")
        if most > len(self.last) or not len(self.slots):
            self.slots = np.empty(1 << (4 * max(most, 16) - 1).bit_length(), np.uint64)
            self.last = np.empty(most, np.int64)
        batch = Batch(np.empty(most, np.int64), np.empty(n, data.dtype), np.empty(n, np.int32),
                      np.empty(stop - start + 1, np.int64))
        found = _kernels.losses.compact(self.parts, rows, start, self.slots, batch.features,
                                        self.last if self.merged else None, *batch[1:])
        if found < 0:
            self._raise("X")
        return batch._replace(features=batch.features[:found])

    def _raise(self, what):
        """Raise an error for what is wrong with the numbers in X."""
        checked(self.X, what)
        raise IndexError(f"{what}: its row or column numbers were changed by other code during this call")


def is_readable(X):
    """Return whether the kernels can read the parts of a CSR array as they are, whatever numbers these hold."""
    parts = X.data, X.indices, X.indptr
    return (all(isinstance(part, np.ndarray) and not isinstance(part, np.ma.MaskedArray) and part.ndim == 1
                and part.flags.c_contiguous and part.flags.aligned for part in parts)
            and all(part.dtype in (np.int32, np.int64) for part in parts[1:])
            and X.data.dtype.isnative and len(X.indices) == len(X.data) and len(X.indptr) == X.shape[0] + 1)


def linear(batch, weights, intercept, kind=None, y=None, sample_weight=None, gradients=True):
    """Return the scores of a batch; with y, the sum of its losses, and the gradients of weights and intercept."""
    scores = np.empty((len(batch.bounds) - 1, *weights.shape[1:]), weights.dtype)
    if y is None:
        _kernels.losses.linear(batch, weights, intercept, scores)
        return scores
    values = of_intercept = None
    if gradients:
        values = np.empty((len(batch.features), *weights.shape[1:]), weights.dtype)
        of_intercept = None if intercept is None else np.empty_like(intercept)
    loss = _kernels.losses.linear(batch, weights, intercept, scores, (kind, y, sample_weight), values, of_intercept)
    return loss, (RowGradient(batch.features, values), of_intercept) if gradients else None


def factorization_machine(batch, weights, factors, intercept, kind=None, y=None, sample_weight=None, gradients=True):
    """As `linear`, with the gradient of the factors in the second place."""
    scores = np.empty((len(batch.bounds) - 1, *weights.shape[1:]), weights.dtype)
    if y is None:
        _kernels.losses.factorization_machine(batch, weights, factors, intercept, scores)
        return scores
    values = of_factors = of_intercept = None
    if gradients:
        values = np.empty((len(batch.features), *weights.shape[1:]), weights.dtype)
        of_factors = np.empty((len(batch.features), factors.shape[1]), weights.dtype)
        of_intercept = None if intercept is None else np.empty_like(intercept)
    loss = _kernels.losses.factorization_machine(batch, weights, factors, intercept, scores, (kind, y, sample_weight),
                                                 values, of_factors, of_intercept)
    if not gradients:
        return loss, None
    return loss, (RowGradient(batch.features, values), RowGradient(batch.features, of_factors), of_intercept)
