"""Losses of linear models and of factorization machines, for samples that are rows of a sparse array."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .. import _samples
from .._text import listed, shown
from .._typing import Floats, Sparse
from ..gradients import RowGradient, csr_parts
from . import _checks

_LOSSES = {"log_loss": _samples.LOG_LOSS, "squared_error": _samples.SQUARED_ERROR}


def linear(weights: Floats, intercept: Floats | None, X: Sparse, y: npt.ArrayLike, *,
           loss: Literal["log_loss", "squared_error"] = "log_loss", sample_weight: npt.ArrayLike | None = None,
           rows: npt.ArrayLike | None = None) -> tuple[float, tuple[RowGradient, Floats | None]]:
    r"""Return the loss of a linear model on sparse samples, and its gradients.

    .. math:: L = \sum_i s_i \, \ell(y_i, z_i), \qquad z_i = b + \sum_j x_{ij} w_j

    ===============  ====================  =========================================
    loss             weights               :math:`\ell(y, z)`
    ===============  ====================  =========================================
    "log_loss"       shape (n_features,)   :math:`\log(1 + e^z) - y z`, y is 0 or 1
    "log_loss"       (n_features, k)       :math:`\log \sum_c e^{z_c} - z_y`
    "squared_error"  shape (n_features,)   :math:`\frac12 (z - y)^2`
    ===============  ====================  =========================================

    Only the features of the samples are read, so the cost does not grow with n_features.

    Parameters
    ----------
    weights : array of float32 or float64, shape (n_features,), or (n_features, k) for k classes
    intercept : None or array of the dtype of weights, shape (1,) or (k,)
    X : scipy sparse array, shape (n_samples, n_features)
        CSR of the dtype of weights is read in place. All else is converted in each call.
    y : array, shape (n_samples,)
        The targets: 0 and 1, numbers of classes from 0 to k - 1, or any numbers.
    loss : "log_loss" or "squared_error"
    sample_weight : None or array of floats, shape (n_samples,)
        The factors s. None stands for 1.
    rows : None or array of integers, shape (batch,)
        The samples of the batch: rows of X, and items of y and of sample_weight. None stands for all.

    Returns
    -------
    loss : float
    gradients : tuple
        A RowGradient of the weights, and an array for the intercept, or None.

    Raises
    ------
    TypeError, ValueError, IndexError
        If a parameter is not as described above, or a number in X or in rows is out of range.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, sparseopt as so
    >>> X, y = sp.csr_array(np.array([[1, 0, 2], [0, 3, 0]], np.float32)), [1, 0]
    >>> weights, intercept = so.zeros(3), so.zeros(1)
    >>> opt = so.Adagrad([weights, intercept], lr=0.1)
    >>> for _ in range(10):
    ...     loss, gradients = so.losses.linear(weights, intercept, X, y)
    ...     opt.step(gradients)
    >>> round(loss, 2)
    0.53
    """
    weights, intercept, batch, *targets = _checked(weights, intercept, X, y, loss, sample_weight, rows)
    return _samples.linear(batch, weights, intercept, *targets)


def factorization_machine(weights: Floats, factors: Floats, intercept: Floats | None, X: Sparse, y: npt.ArrayLike, *,
                          loss: Literal["log_loss", "squared_error"] = "log_loss",
                          sample_weight: npt.ArrayLike | None = None,
                          rows: npt.ArrayLike | None = None) -> tuple[float, tuple[RowGradient, RowGradient,
                                                                                   Floats | None]]:
    r"""Return the loss of a factorization machine on sparse samples, and its gradients.

    .. math:: L = \sum_i s_i \, \ell(y_i, z_i), \qquad
              z_i = b + \sum_j x_{ij} w_j + \sum_{j < k} x_{ij} x_{ik} \langle v_j, v_k \rangle

    Entries of a row of X that share a column are summed first.

    Parameters
    ----------
    weights, intercept, X, y, loss, sample_weight, rows
        As in `linear`.
    factors : array of the dtype of weights, shape (n_features, dim), or (n_features, k · dim) for k classes
        The vectors v. With k classes, a row has the vectors of all classes, one behind the other.

    Returns
    -------
    loss : float
    gradients : tuple
        A RowGradient of the weights, one of the factors, and an array for the intercept, or None.

    Raises
    ------
    TypeError, ValueError, IndexError
        As in `linear`, and if factors is not as described above.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, sparseopt as so
    >>> X, y = sp.csr_array(np.array([[1, 0, 1], [0, 1, 1]], np.float32)), [1, 0]
    >>> weights, factors = so.zeros(3), np.ones((3, 2), np.float32)
    >>> loss, gradients = so.losses.factorization_machine(weights, factors, None, X, y)
    >>> round(loss, 3), gradients[1].values.shape
    (2.254, (3, 2))

    References
    ----------
    Rendle 2010, "Factorization Machines", eq. 1 and lemma 3.1.
    """
    weights, intercept, batch, *targets = _checked(weights, intercept, X, y, loss, sample_weight, rows, merged=True)
    factors = _checks.table("factors", factors)
    k = weights.shape[1] if weights.ndim == 2 else 1
    if factors.dtype != weights.dtype or len(factors) != len(weights) or factors.shape[1] % k:
        raise ValueError(f"factors has shape {factors.shape} and dtype {factors.dtype}; with weights of shape "
                         f"{weights.shape} and dtype {weights.dtype} it must have {len(weights)} rows of a multiple of "
                         f"{k}, and this dtype")
    return _samples.factorization_machine(batch, weights, factors, intercept, *targets)


def _checked(weights, intercept, X, y, loss, sample_weight, rows, merged=False):
    weights = _checks.table("weights", weights, ndim=2 if np.ndim(weights) == 2 else 1)
    k = weights.shape[1] if weights.ndim == 2 else 1
    if not k:
        raise ValueError(f"weights has shape {weights.shape}; it must have at least one column")
    if intercept is not None:
        intercept = _checks.table("intercept", intercept, weights, 1)
        if intercept.shape != (k,):
            raise ValueError(f"intercept has shape {intercept.shape}; with weights of shape {weights.shape} it must "
                             f"have shape {(k,)}")
    if loss not in _LOSSES:
        raise ValueError(f"loss is {shown(loss)}; it must be one of {listed(_LOSSES)}")
    if loss == "squared_error" and weights.ndim == 2:
        raise ValueError(f"loss is 'squared_error' and weights has shape {weights.shape}; it must have one dimension")
    X = _readable(X, weights)
    n = X.shape[0]
    if rows is not None:
        rows = _checks.rows("rows", rows, n)
    batch = _samples.Batches(X, merged=merged)(0, n if rows is None else len(rows), rows)
    kind = _samples.SOFTMAX if weights.ndim == 2 else _LOSSES[loss]
    y = _checks.floats("y", y, (n,), weights.dtype if kind == _samples.SQUARED_ERROR else np.float64)
    if sample_weight is not None:
        sample_weight = _checks.floats("sample_weight", sample_weight, (n,), np.float64)
    if rows is not None:
        y, sample_weight = y[rows], None if sample_weight is None else sample_weight[rows]
    if kind != _samples.SQUARED_ERROR:
        classes = k if kind == _samples.SOFTMAX else 2
        outside = (y != np.floor(y)) | (y < 0) | (y >= classes)
        if outside.any():
            raise ValueError(f"y has {shown(y[outside][0].item())}; with weights of shape {weights.shape} and loss "
                             f"'log_loss' it must be an integer from 0 to {classes - 1}")
        y = y.astype(np.int64 if kind == _samples.SOFTMAX else weights.dtype)
    return weights, intercept, batch, kind, y, sample_weight


def _readable(X, weights):
    """Return X as CSR of the dtype of the weights. Numbers of columns are checked where a batch is made."""
    if not sp.issparse(X) or X.ndim != 2:
        raise TypeError(f"X is a {type(X).__name__}; it must be a scipy sparse array of two dimensions")
    if X.shape[1] != len(weights):
        raise ValueError(f"X has shape {X.shape} and weights {weights.shape}; X must have as many columns as weights "
                         "rows")
    if X.format == "csr" and X.dtype == weights.dtype and _samples.is_readable(X):
        return X
    values, indices, indptr = csr_parts(X, "X")
    if values.dtype.kind not in "fiub":
        raise TypeError(f"X has dtype {values.dtype}; it must be of numbers")
    with np.errstate(over="ignore"):
        return sp.csr_array((np.ascontiguousarray(values, weights.dtype), indices, indptr), shape=X.shape)
