"""How good predictions are: of clicks, log-loss and AUC; of rankings, precision, recall, NDCG, MAP and AUC at k."""

from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp

from ._text import shown
from .gradients import checked


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
        raise ValueError(f"y has {shown(y[(y != 0) & (y != 1)][0])}; it must be of 0 and 1")
    if np.isnan(numbers).any():
        raise ValueError(f"{name} has a NaN at {np.isnan(numbers).argmax()}")
    if weight is not None:
        weight = np.asarray(weight, dtype=np.float64)
        if weight.shape != y.shape or not (np.isfinite(weight).all() and weight.min() >= 0 and weight.any()):
            raise ValueError(f"sample_weight must be {len(y)} finite numbers, 0 or more and not all 0")
    return y.astype(bool), numbers, weight


def train_test_split_by_time(users, times, test_size=0.2):
    """Return which samples to train on and which to test on: the last ones of each user are held out.

    Of a user's n samples the last ⌊n · test_size⌋ are held out; those of the same time count in the order in which they come.

    Parameters
    ----------
    users : array of integers, shape (n,)
        Whose each sample is.
    times : array of numbers, shape (n,)
        When each sample was.
    test_size : float
        The share to hold out, between 0 and 1.

    Returns
    -------
    train, test : arrays of integers
        Positions among the samples, rising.

    Raises
    ------
    ValueError
        If something is not as said above.

    Examples
    --------
    >>> from sparseopt.evaluation import train_test_split_by_time
    >>> train_test_split_by_time([0, 0, 1, 0, 0, 1], [5, 1, 2, 4, 3, 1], test_size=0.5)
    (array([1, 4, 5]), array([0, 2, 3]))
    """
    users, times = np.asarray(users), np.asarray(times)
    if users.ndim != 1 or times.shape != users.shape:
        raise ValueError(f"users have shape {users.shape} and times {times.shape}; both must be (n,)")
    if times.dtype.kind == "f" and np.isnan(times).any():
        raise ValueError(f"times has NaN at position {np.isnan(times).argmax()}; they must be numbers that have an order")
    if not isinstance(test_size, Real) or not 0 < test_size < 1:
        raise ValueError(f"test_size is {shown(test_size)}; it must be a share between 0 and 1")
    order = np.lexsort((times, users))
    _, first, n = np.unique(users[order], return_index=True, return_counts=True)
    place = np.arange(len(users)) - np.repeat(first, n)
    held_out = place >= np.repeat(n - np.floor(n * test_size + 1e-9).astype(np.int64), n)
    return np.sort(order[~held_out]), np.sort(order[held_out])


def ranking_metrics(recommended, test):
    r"""Compare recommendations with what users turned to: precision, recall, NDCG, MAP and AUC at k, of users with a test.

    With h_r = 1 where the item at rank r is one of the user's n test items, and m = min(k, n):

    .. math:: \text{precision} = \frac{\sum_u \sum_r h_r}{\sum_u m}, \qquad
              \text{recall} = \operatorname*{mean}_u \frac{\sum_r h_r}{n}, \qquad
              \text{ndcg} = \operatorname*{mean}_u \frac{\sum_r h_r / \log_2(r + 1)}{\sum_{r \le m} 1 / \log_2(r + 1)}, \qquad
              \text{map} = \operatorname*{mean}_u \frac1m \sum_r \frac{h_r}{r} \sum_{s \le r} h_s

    and AUC the share of pairs (test item, other item) in the right order, where items that are not recommended are taken for
    ordered at random: all as the package `implicit` computes them (which has no recall).

    Parameters
    ----------
    recommended : array of integers, shape (n_users, k)
        For each user the items in order, the best first; -1 where there is none. What was trained on should not be in it.
    test : scipy sparse array, shape (n_users, n_items)
        The stored entries count, whatever their values.

    Returns
    -------
    dict of float
        "precision", "recall", "ndcg", "map", "auc".

    Raises
    ------
    TypeError, ValueError
        If something is not as said above, or the test is empty.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from sparseopt.evaluation import ranking_metrics
    >>> test = sp.csr_array([[0, 1, 1, 0], [1, 0, 0, 0]])
    >>> {name: round(value, 3) for name, value in ranking_metrics([[2, 0], [3, 0]], test).items()}
    {'precision': 0.667, 'recall': 0.75, 'ndcg': 0.622, 'map': 0.5, 'auc': 0.646}

    References
    ----------
    Järvelin and Kekäläinen 2002, "Cumulated Gain-Based Evaluation of IR Techniques"; the package `implicit`, in
    `implicit.evaluation.ranking_metrics_at_k`.
    """
    test = _matrix("test", test)
    recommended = np.asarray(recommended)
    if recommended.ndim != 2 or len(recommended) != test.shape[0] or not recommended.shape[1]:
        raise ValueError(f"recommended has shape {recommended.shape}; with a test of shape {test.shape} it must be "
                         f"({test.shape[0]}, k)")
    if recommended.dtype.kind not in "iu":
        raise TypeError(f"recommended has dtype {recommended.dtype}; it must be item numbers")
    if recommended.size and not (recommended.min() >= -1 and recommended.max() < test.shape[1]):
        raise ValueError(f"recommended has items from {recommended.min()} to {recommended.max()}; the test has "
                         f"{test.shape[1]} (-1 is none)")
    n = np.diff(test.indptr)
    asked = n > 0
    if not asked.any():
        raise ValueError("test has no stored entries; there is nothing to compare with")
    hits = _stored(test, recommended)[asked]
    n, k = n[asked], recommended.shape[1]
    ranks = np.arange(1, k + 1)
    possible, gain = np.minimum(n, k), 1 / np.log2(ranks + 1)
    hit = hits.sum(axis=1)
    before = hits.cumsum(axis=1)
    others = test.shape[1] - n
    rightly = ((~hits) * before).sum(axis=1) + (hit + n) / 2 * (others - (k - hit))
    pairs = n * others
    return {
        "precision": float(hit.sum() / possible.sum()),
        "recall": float((hit / n).mean()),
        "ndcg": float((hits @ gain / gain.cumsum()[possible - 1]).mean()),
        "map": float(((hits * before / ranks).sum(axis=1) / possible).mean()),
        "auc": float(np.divide(rightly, pairs, out=np.ones(len(n)), where=pairs > 0).mean()),
    }


def evaluate(model, train, test, k=10):
    """Return the `ranking_metrics` of a model's recommendations, with what was trained on left out of them.

    Parameters
    ----------
    model
        Fitted, with `recommend(users, n, seen)`: a `sparseopt.models.ImplicitFactorization` or `MatrixFactorization`.
    train, test : scipy sparse arrays, shape (n_users, n_items)
        What the model was trained on, and what was held out.
    k : int
        Items to recommend to each user.

    Returns
    -------
    dict of float
        As `ranking_metrics`.

    Raises
    ------
    TypeError, ValueError
        If something is not as said above.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sparseopt.evaluation import evaluate
    >>> from sparseopt.models import ImplicitFactorization
    >>> rng = np.random.default_rng(0)
    >>> taste = np.arange(200)[:, None] % 2 == np.arange(50) % 2         # users like every other item
    >>> train = sp.csr_array(taste & (rng.random((200, 50)) < 0.4))
    >>> test = sp.csr_array(taste & ~train.toarray())
    >>> bool(evaluate(ImplicitFactorization(dim=8).fit(train), train, test, k=5)["precision"] > 0.9)
    True
    """
    test, train = _matrix("test", test), _matrix("train", train)
    if train.shape != test.shape:
        raise ValueError(f"train has shape {train.shape} and test {test.shape}; they must have the same")
    if not isinstance(k, Integral) or isinstance(k, bool) or not 1 <= k <= test.shape[1]:
        raise ValueError(f"k is {shown(k)}; it must be an integer from 1 to {test.shape[1]}, the number of items")
    recommended = np.full((test.shape[0], k), -1)
    users = np.flatnonzero(np.diff(test.indptr))
    if len(users):
        recommended[users] = model.recommend(users, k, seen=train)[0]
    return ranking_metrics(recommended, test)


def _matrix(name, X):
    if not sp.issparse(X) or X.ndim != 2:
        raise TypeError(f"{name} is a {type(X).__name__}; it must be a scipy sparse array (n_users, n_items)")
    X = checked(X, name).tocsr(copy=True)
    X.sum_duplicates()
    return X


def _stored(X, items):
    """Which items[u, r] are stored in row u of a canonical CSR array; -1 is not."""
    keys = np.repeat(np.arange(X.shape[0], dtype=np.int64), np.diff(X.indptr)) * X.shape[1] + X.indices
    asked = np.arange(len(items), dtype=np.int64)[:, None] * X.shape[1] + items
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return (keys[place] == asked) & (items >= 0)
