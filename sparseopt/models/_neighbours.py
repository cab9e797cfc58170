"""The rows of a table that are nearest to given vectors, by cosine."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def nearest(vectors: np.ndarray, queries: np.ndarray, n: int = 10,
            leave_out: Sequence[npt.ArrayLike] | np.ndarray = ()) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows nearest to each query by cosine, and the cosines. The nearest row comes first.

    Parameters
    ----------
    vectors : array of floats, shape (n_rows, dim)
    queries : array of floats, shape (k, dim)
    n : int
        Number of rows to return for each query.
    leave_out : sequence of length k, of integers or arrays of integers
        For each query the rows to leave out, such as the query's own row.

    Returns
    -------
    rows : array of integers, shape (k, min(n, n_rows))
    cosines : array of floats, shape (k, min(n, n_rows))

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.models.words import nearest
    >>> vectors = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> nearest(vectors, vectors[[0]], 2, [[0]])
    (array([[1, 2]]), array([[0.70710678, 0.        ]]))
    """
    cosines = unit(queries) @ unit(vectors).T
    for row, own in zip(cosines, leave_out, strict=False):
        row[own] = -np.inf
    n = min(n, len(vectors))
    rows = np.argpartition(-cosines, n - 1, axis=1)[:, :n]
    rows = np.take_along_axis(rows, np.lexsort((rows, -np.take_along_axis(cosines, rows, 1)), axis=1), 1)
    return rows, np.take_along_axis(cosines, rows, 1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale each vector to length 1; a vector of zeros stays as it is."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
