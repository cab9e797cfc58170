"""How good predictions are."""

import numpy as np


def log_loss(y, p, sample_weight=None):
    r"""Return the mean of :math:`-y \log p - (1 - y) \log(1 - p)`: what a probability costs when the truth comes out.

    Parameters
    ----------
    y : array of 0 and 1, or bool, shape (n,)
    p : array of floats, shape (n,)
        The predicted probability of a 1. Where it is 0 or 1, a machine epsilon of its dtype keeps its logarithm finite.
    sample_weight : None or array of floats, shape (n,)
        What each sample counts, 0 or more and not all 0; None is 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If something is not as said above.

    Examples
    --------
    >>> from sparseopt.evaluation import log_loss
    >>> round(log_loss([1, 0], [0.8, 0.4]), 4)                  # (-log 0.8 - log 0.6) / 2
    0.367
    """
    y, p, weight = _checked("p", y, p, sample_weight)
    if not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"p is from {p.min()} to {p.max()}; probabilities must be from 0 to 1")
    p = np.where(y, p, 1 - p)
    least = np.finfo(p.dtype).eps
    return float(np.average(-np.log(np.maximum(p, least).astype(np.float64)), weights=weight))


def auc(y, score, sample_weight=None):
    """Return the area under the ROC curve: how often a 1 scores higher than a 0, ties counting half.

    Parameters
    ----------
    y : array of 0 and 1, or bool, shape (n,)
        Both must occur.
    score : array of floats, shape (n,)
        Higher where a 1 is more likely: probabilities, log-odds or anything that rises with them.
    sample_weight : None or array of floats, shape (n,)
        What each sample counts, 0 or more; None is 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If something is not as said above.

    Examples
    --------
    >>> from sparseopt.evaluation import auc
    >>> auc([0, 1, 0, 1], [0.1, 0.3, 0.3, 0.9])                 # 3 pairs of 4 in order, one tied
    0.875
    """
    y, score, weight = _checked("score", y, score, sample_weight)
    order = np.argsort(score)
    score, y = score[order], y[order]
    weight = np.ones(len(y)) if weight is None else weight[order]
    last = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1)       # of each group of equal scores
    ones, zeros = (np.diff(np.cumsum(weight * which)[last], prepend=0) for which in (y, ~y))
    pairs = ones.sum() * zeros.sum()
    if not pairs > 0:
        raise ValueError("y has only one class, or the other counts nothing; there must be both")
    return float(ones @ (np.cumsum(zeros) - zeros / 2) / pairs)


def _checked(name, y, numbers, weight):
    y, numbers = np.asarray(y), np.asarray(numbers)
    numbers = numbers.astype(numbers.dtype if numbers.dtype in (np.float32, np.float64) else np.float64, copy=False)
    if y.ndim != 1 or y.shape != numbers.shape or not len(y):
        raise ValueError(f"y has shape {y.shape} and {name} {numbers.shape}; they must be the same, (n,), of at least 1")
    if not ((y == 0) | (y == 1)).all():
        raise ValueError(f"y has {y[(y != 0) & (y != 1)][0]!r}; it must be of 0 and 1")
    if np.isnan(numbers).any():
        raise ValueError(f"{name} has a NaN at {np.isnan(numbers).argmax()}")
    if weight is not None:
        weight = np.asarray(weight, dtype=np.float64)
        if weight.shape != y.shape or not (np.isfinite(weight).all() and weight.min() >= 0 and weight.any()):
            raise ValueError(f"sample_weight must be {len(y)} finite numbers, 0 or more and not all 0")
    return y.astype(bool), numbers, weight
