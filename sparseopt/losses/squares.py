"""Squared errors of a dot product plus biases: ratings, and logarithms of counts."""

import numpy as np
import numpy.typing as npt

from .. import _config, _kernels
from .._checks import not_negative, positive
from .._text import shown
from .._typing import Floats
from ..gradients import RowGradient
from ._checks import floats, rows, table

_BLOCK = 256            # samples whose losses a kernel adds up at a time

Gradients = tuple[RowGradient, RowGradient, RowGradient, RowGradient]


def squared_error(A: Floats, B: Floats, a: Floats, b: Floats, i: npt.ArrayLike, j: npt.ArrayLike,
                  targets: npt.ArrayLike, weights: npt.ArrayLike | None = None,
                  regularization: float = 0.0) -> tuple[float, Gradients]:
    r"""Return the squared error of dot products plus biases, and its gradients: matrix factorization.

    .. math:: L = \tfrac12 \sum_k f_k \left[\left(p \cdot q + b_i + b_j - y_k\right)^2
                  + \lambda \left(\|p\|^2 + \|q\|^2 + b_i^2 + b_j^2\right)\right], \qquad
              p = A_{i_k}, \quad q = B_{j_k}, \quad b_i = a_{i_k}, \quad b_j = b_{j_k}

    Parameters
    ----------
    A, B : arrays of float32 or float64, shapes (n, dim) and (m, dim)
        The tables of users and of items.
    a, b : arrays of the same dtype, shapes (n,) and (m,)
        The biases of users and of items.
    i, j : arrays of integers, shape (k,)
        Rows of A and a, and rows of B and b.
    targets : array of numbers, shape (k,)
        y. For ratings, usually the rating minus the mean of all ratings.
    weights : None or array of numbers, shape (k,)
        f, 0 or more. None stands for 1.
    regularization : float
        λ, 0 or more.

    Returns
    -------
    loss : float
    gradients : tuple of four RowGradients
        Those of A, B, a and b.

    Raises
    ------
    TypeError, ValueError, IndexError
        If a parameter is not as described above, or a row is out of range.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> users, items = so.normal((3, 8), scale=0.1, seed=0), so.normal((4, 8), scale=0.1, seed=1)
    >>> opt = so.Adam({"users": users, "items": items, "user_bias": so.zeros(3), "item_bias": so.zeros(4)}, lr=0.1)
    >>> u, i, ratings = [0, 0, 1, 2], [0, 3, 1, 3], np.array([1, -1, 0.5, 1])
    >>> for step in range(100):
    ...     loss, gradients = so.losses.squared_error(*opt.params.values(), u, i, ratings)
    ...     opt.step(dict(zip(opt.params, gradients)))
    >>> loss < 0.01
    True

    References
    ----------
    Koren, Bell and Volinsky 2009, "Matrix Factorization Techniques for Recommender Systems", eq. 5.
    """
    A, B, a, b, i, j = _tables("A", A, "B", B, "a", a, "b", b, i, j)
    targets = floats("targets", targets, i.shape, A.dtype)
    if weights is not None:
        weights = floats("weights", weights, i.shape, A.dtype)
        if weights.size and weights.min() < 0:
            raise ValueError(f"weights has {shown(weights.min().item())}; weights must be 0 or more")
    regularization = not_negative("regularization", regularization)
    squares, norms, gradients = _squares_of(A, B, a, b, i, j, targets, weights, regularization, regularization)
    return 0.5 * (squares + norms), gradients


def glove(words: Floats, contexts: Floats, word_bias: Floats, context_bias: Floats, i: npt.ArrayLike, j: npt.ArrayLike,
          counts: npt.ArrayLike, x_max: float = 100.0, alpha: float = 0.75,
          regularization: float = 0.0) -> tuple[float, Gradients]:
    r"""Return the loss of GloVe, the weighted squared error of logarithms of counts, and its gradients.

    .. math:: L = \tfrac12 \sum_k f(x_k) \left[\left(w_{i_k} \cdot \tilde w_{j_k} + b_{i_k} + \tilde b_{j_k}
                  - \log x_k\right)^2 + \lambda \left(\|w_{i_k}\|^2 + \|\tilde w_{j_k}\|^2\right)\right], \qquad
              f(x) = \min\left(1, (x / x_\text{max})^\alpha\right)

    Parameters
    ----------
    words, contexts : arrays of float32 or float64, shapes (n, dim) and (m, dim)
    word_bias, context_bias : arrays of the same dtype, shapes (n,) and (m,)
    i, j : arrays of integers, shape (k,)
        The rows of the words, and of their contexts.
    counts : array of numbers, shape (k,)
        x, above 0: how often word i and context j occur together.
    x_max, alpha : float
        The parameters of the weight f, above 0.
    regularization : float
        λ, 0 or more. The paper has none.

    Returns
    -------
    loss : float
    gradients : tuple of four RowGradients
        Those of words, contexts, word_bias and context_bias.

    Raises
    ------
    TypeError, ValueError, IndexError
        If a parameter is not as described above, or a row is out of range.

    Examples
    --------
    >>> import sparseopt as so
    >>> words, contexts = (so.uniform((3, 4), low=-0.1, high=0.1, seed=seed) for seed in (0, 1))
    >>> loss, gradients = so.losses.glove(words, contexts, so.zeros(3), so.zeros(3), [0, 0, 2], [1, 2, 0], [7, 1, 1])
    >>> gradients[0]
    RowGradient(rows: (3,), values: (3, 4) float32)

    References
    ----------
    Pennington, Socher and Manning 2014, "GloVe: Global Vectors for Word Representation", eq. 8 and 9.
    """
    words, contexts, word_bias, context_bias, i, j = _tables(
        "words", words, "contexts", contexts, "word_bias", word_bias, "context_bias", context_bias, i, j)
    counts = floats("counts", counts, i.shape, words.dtype)
    if counts.size and counts.min() < np.finfo(np.float64).tiny:
        raise ValueError(f"counts has {shown(counts.min().item())}; counts must be above 0, and normal numbers")
    x_max, alpha = positive("x_max", x_max), positive("alpha", alpha)
    regularization = not_negative("regularization", regularization)
    squares, norms, gradients = _glove_of(words, contexts, word_bias, context_bias, i, j, counts, x_max, alpha,
                                          regularization)
    return 0.5 * (squares + norms), gradients


def _squares_of(A, B, a, b, i, j, targets, weights, decay, bias_decay):
    """Return the sums of weighted squared errors and of weighted penalties, and the gradients. All must be checked."""
    values = [np.empty((len(i), *table.shape[1:]), table.dtype) for table in (A, B, a, b)]
    parts = np.empty((2, -(-len(i) // _BLOCK)))
    squares, norms = _kernels.losses.squares(A, i, B, j, a, b, targets, weights, decay, bias_decay, *values, parts,
                                             _config.threads_for())
    return squares, norms, tuple(map(RowGradient, (i, j, i, j), values))


def _glove_of(words, contexts, word_bias, context_bias, i, j, counts, x_max, alpha, decay):
    """Return what `_squares_of` returns, for logarithms of counts. All must be checked."""
    targets, weights = np.empty_like(counts), np.empty_like(counts)
    _kernels.losses.glove_targets(counts, x_max, alpha, targets, weights)
    return _squares_of(words, contexts, word_bias, context_bias, i, j, targets, weights, decay, 0.0)


def _tables(A_name, A, B_name, B, a_name, a, b_name, b, i, j):
    A = table(A_name, A)
    B = table(B_name, B, like=A)
    i, j = rows("i", i, len(A)), rows("j", j, len(B), np.shape(i))
    found = [table(name, bias, like=A, ndim=1) for name, bias in ((a_name, a), (b_name, b))]
    for name, bias, of_name, of in zip((a_name, b_name), found, (A_name, B_name), (A, B), strict=True):
        if len(bias) != len(of):
            raise ValueError(f"{name} has shape {bias.shape} and {of_name} {of.shape}; there must be a bias for each "
                             "row")
    return A, B, *found, i, j
