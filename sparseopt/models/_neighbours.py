"""The rows of a table nearest to given vectors by cosine."""

import numpy as np


def nearest(vectors, queries, n=10, leave_out=()):
    """Return the rows nearest to each query by cosine, and the cosines, the nearest first.

    Parameters
    ----------
    vectors : array, shape (n_words, dim)
    queries : array, shape (k, dim)
    n : int
    leave_out : sequence of integers or of arrays of them, one a query
        Rows that do not count: the query's own.

    Returns
    -------
    rows : array of integers, shape (k, min(n, n_words))
    cosines : array of floats, of the same shape
    """
    cosines = unit(queries) @ unit(vectors).T
    for row, own in zip(cosines, leave_out, strict=False):
        row[own] = -np.inf
    n = min(n, len(vectors))
    rows = np.argpartition(-cosines, n - 1, axis=1)[:, :n]
    rows = np.take_along_axis(rows, np.lexsort((rows, -np.take_along_axis(cosines, rows, 1)), axis=1), 1)
    return rows, np.take_along_axis(cosines, rows, 1)


def unit(vectors):
    """Vectors of length 1 in the same directions; 0 stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
