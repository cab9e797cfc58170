"""Metrics of predictions: log-loss and AUC of clicks; precision, recall, NDCG, MAP and AUC at k of rankings."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ._ratings import Ratings, known_pairs, places
from ._text import shown
from .gradients import checked

__all__ = [
    "TimeSplit", "auc", "evaluate", "log_loss", "ranking_metrics", "train_test_split_at_random",
    "train_test_split_by_time",
]


def log_loss(y: npt.ArrayLike, p: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
    r"""Return the log-loss of predicted probabilities: the mean of :math:`-y \log p - (1 - y) \log(1 - p)`.

    Parameters
    ----------
    y : array of 0 and 1, or bool, shape (n,)
    p : array of floats, shape (n,)
        The predicted probability of a 1. A logarithm is taken of at least the machine epsilon of the dtype, so that the
        result is finite.
    sample_weight : None or array of floats, shape (n,)
        The weight of each sample: finite, at least 0, and not all 0. None gives each sample the weight 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If y is not of 0 and 1, p is not from 0 to 1, a shape does not fit, or a weight is not allowed.

    Examples
    --------
    >>> from sparseopt.evaluation import log_loss
    >>> round(log_loss([1, 0], [0.8, 0.4]), 4)                  # (-log 0.8 - log 0.6) / 2
    0.367
    """
    y, p, weight = _checked("p", y, p, sample_weight)
    if not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"p has values from {p.min()} to {p.max()}; probabilities must be from 0 to 1")
    p = np.where(y, p, 1 - p)
    least = np.finfo(p.dtype).eps
    return float(np.average(-np.log(np.maximum(p, least).astype(np.float64)), weights=weight))


def auc(y: npt.ArrayLike, score: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
    """Return the area under the ROC curve: the share of pairs of a 1 and a 0 in which the 1 has the higher score.

    A pair with equal scores counts one half.

    Parameters
    ----------
    y : array of 0 and 1, or bool, shape (n,)
        Both must occur.
    score : array of floats, shape (n,)
        A higher score means that a 1 is more likely. Probabilities and log-odds give the same result.
    sample_weight : None or array of floats, shape (n,)
        The weight of each sample: finite, at least 0, and not all 0. None gives each sample the weight 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If y is not of 0 and 1, only one class has a weight above 0, a score is NaN, a shape does not fit, or a weight
        is not allowed.

    Examples
    --------
    >>> from sparseopt.evaluation import auc
    >>> auc([0, 1, 0, 1], [0.1, 0.3, 0.3, 0.9])                 # of 4 pairs, 3 are in order and 1 is tied
    0.875
    """
    y, score, weight = _checked("score", y, score, sample_weight)
    order = np.argsort(score)
    score, y = score[order], y[order]
    weight = np.ones(len(y)) if weight is None else weight[order]
    last = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1)       # the ends of runs of equal scores
    ones, zeros = (np.diff(np.cumsum(weight * which)[last], prepend=0) for which in (y, ~y))
    pairs = ones.sum() * zeros.sum()
    if not pairs > 0:
        raise ValueError("y has only one class with a weight above 0; it must have both 0 and 1")
    return float(ones @ (np.cumsum(zeros) - zeros / 2) / pairs)


def _checked(name, y, numbers, weight):
    y, numbers = np.asarray(y), np.asarray(numbers)
    numbers = numbers.astype(numbers.dtype if numbers.dtype in (np.float32, np.float64) else np.float64, copy=False)
    if y.ndim != 1 or y.shape != numbers.shape or not len(y):
        raise ValueError(f"y has shape {y.shape} and {name} {numbers.shape}; both must have the same shape (n,), with "
                         "n of at least 1")
    if not ((y == 0) | (y == 1)).all():
        raise ValueError(f"y has {shown(y[(y != 0) & (y != 1)][0])}; all of y must be 0 or 1")
    if np.isnan(numbers).any():
        raise ValueError(f"{name} has NaN at position {np.isnan(numbers).argmax()}; it must have no NaN")
    if weight is not None:
        weight = np.asarray(weight, dtype=np.float64)
        if weight.shape != y.shape or not (np.isfinite(weight).all() and weight.min() >= 0 and weight.any()):
            raise ValueError(f"sample_weight has shape {weight.shape} and {_extremes(weight)}; it must be {len(y)} "
                             "finite numbers, at least 0 and not all 0")
    return y.astype(bool), numbers, weight


def _extremes(numbers):
    return f"values from {numbers.min()} to {numbers.max()}" if numbers.size else "no values"


def train_test_split_by_time(users: npt.ArrayLike, times: npt.ArrayLike, test_size: float = 0.2,
                             items: npt.ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Split samples by time: the last samples of each user are the test set.

    If a user has n samples, the last ⌊n · test_size⌋ of these are held out. Samples of the same time keep their order.

    Parameters
    ----------
    users : array of integers, shape (n,)
        The user of each sample.
    times : array of numbers, shape (n,)
        The time of each sample.
    test_size : float
        The share of samples to hold out, above 0 and below 1.
    items : None or array of integers, shape (n,)
        The item of each sample. With items, all samples of a pair of a user and an item are in the same part. The pair
        counts once, and its time is that of its last sample. Without items, a pair that comes again can be in both
        parts: a test on such pairs is too easy.

    Returns
    -------
    train, test : arrays of integers
        Positions of the samples, sorted.

    Raises
    ------
    ValueError
        If the shapes differ, a time is NaN, or test_size is not allowed.

    Examples
    --------
    >>> from sparseopt.evaluation import train_test_split_by_time
    >>> train_test_split_by_time([0, 0, 1, 0, 0, 1], [5, 1, 2, 4, 3, 1], test_size=0.5)
    (array([1, 4, 5]), array([0, 2, 3]))
    >>> train_test_split_by_time([0, 0, 0, 0], [1, 2, 3, 4], test_size=0.5, items=[7, 8, 8, 7])
    (array([1, 2]), array([0, 3]))
    """
    users, times = np.asarray(users), np.asarray(times)
    if users.ndim != 1 or times.shape != users.shape:
        raise ValueError(f"users has shape {users.shape} and times {times.shape}; both must have the same shape (n,)")
    if times.dtype.kind == "f" and np.isnan(times).any():
        raise ValueError(f"times has NaN at position {np.isnan(times).argmax()}; it must have no NaN")
    if not isinstance(test_size, Real) or not 0 < test_size < 1:
        raise ValueError(f"test_size is {shown(test_size)}; it must be a number above 0 and below 1")
    if items is not None:
        samples, last = _pairs(users, items, times)
        _, test = train_test_split_by_time(users[last], times[last], test_size)
        held_out = np.isin(samples, test)
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)
    later, n = _later(users, times)
    held_out = later < np.floor(n * test_size + 1e-9)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _later(users, times):
    """Return for each sample how many samples of its user come later, and how many samples its user has in all."""
    order = np.lexsort((times, users))
    _, first, n = np.unique(users[order], return_index=True, return_counts=True)
    later, of_user = np.empty(len(users), np.int64), np.empty(len(users), np.int64)
    later[order] = np.repeat(first + n, n) - 1 - np.arange(len(users))
    of_user[order] = np.repeat(n, n)
    return later, of_user


def train_test_split_at_random(users: npt.ArrayLike, test_size: float = 0.2, items: npt.ArrayLike | None = None,
                               random_state: int | np.random.Generator | None = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split samples without times: samples of each user, drawn at random, are the test set.

    Parameters
    ----------
    users, test_size, items
        As in `train_test_split_by_time`.
    random_state : None, int or numpy.random.Generator
        The seed of the draws. The same integer gives the same split.

    Returns
    -------
    train, test : arrays of integers
        Positions of the samples, sorted.

    Raises
    ------
    ValueError
        As in `train_test_split_by_time`.

    Examples
    --------
    >>> from sparseopt.evaluation import train_test_split_at_random
    >>> train, test = train_test_split_at_random([0, 0, 1, 0, 0, 1], test_size=0.5)
    >>> len(train), len(test)
    (3, 3)
    """
    order = np.random.default_rng(random_state).permutation(len(np.asarray(users)))
    return train_test_split_by_time(users, order, test_size, items)


def _pairs(users, items, times):
    """The number of each sample's pair of a user and an item, and the position of each pair's last sample."""
    items = np.asarray(items)
    if items.shape != users.shape:
        raise ValueError(f"users has shape {users.shape} and items {items.shape}; both must have the same shape (n,)")
    order = np.lexsort((times, items, users))
    ends = np.append((np.diff(users[order]) != 0) | (np.diff(items[order]) != 0), True)[:len(order)]
    samples = np.empty(len(order), np.int64)
    samples[order] = np.cumsum(ends) - ends
    return samples, order[ends]


class TimeSplit:
    """Splits Ratings by time, as `cv=` of scikit-learn's tools: the last pairs of each user are the test set.

    With several splits, each has its own test set, and trains on the pairs before it, as scikit-learn's
    TimeSeriesSplit does for one series. The last split has the last pairs.

    Other splitters cut users apart: whole users are in the test set, of whom the model knows nothing. The recommenders
    refuse such a split.

    Parameters
    ----------
    n_splits : int
        The number of splits, 1 or more.
    test_size : float or int
        The size of each test set. A float is the share of each user's pairs, above 0: of n pairs, the test set has
        ⌊n · test_size⌋. n_splits · test_size must be below 1. An integer is the number of pairs of each user. Users
        with n_splits · test_size pairs or fewer are then in training only.

    Raises
    ------
    ValueError
        If a parameter is not as described above.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.datasets import interactions
    >>> from sparseopt.evaluation import TimeSplit
    >>> bought = interactions({"who": ["ann"] * 3 + ["bob"], "what": ["tea", "jam", "rye", "tea"],
    ...                        "when": [3, 1, 2, 9]}, user="who", item="what", time="when")
    >>> for train, test in TimeSplit(n_splits=2, test_size=1).split(bought):
    ...     print(train, test)
    [1 3] [2]
    [1 2 3] [0]
    """

    def __init__(self, n_splits: int = 1, test_size: float | int = 0.2) -> None:
        if not isinstance(n_splits, Integral) or isinstance(n_splits, bool) or n_splits < 1:
            raise ValueError(f"n_splits is {shown(n_splits)}; it must be an integer of at least 1")
        number = isinstance(test_size, Integral) and not isinstance(test_size, bool)
        if not (number and test_size >= 1) and not (
                isinstance(test_size, Real) and not number and 0 < n_splits * test_size < 1):
            raise ValueError(f"test_size is {shown(test_size)} and n_splits is {n_splits}; test_size must be an "
                             f"integer of at least 1, or a share above 0 and below {1 / n_splits:g}")
        self.n_splits = n_splits
        self.test_size = test_size

    def __repr__(self) -> str:
        return f"TimeSplit(n_splits={self.n_splits}, test_size={self.test_size})"

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits. The arguments are those of scikit-learn's splitters, and change nothing."""
        return int(self.n_splits)

    def split(self, X: Ratings, y: None = None, groups: None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the positions of the training set and of the test set for each split.

        Parameters
        ----------
        X : Ratings
            With times. If a pair of a user and an item comes again, all of its ratings are in the same set, as in
            `train_test_split_by_time`.
        y, groups : None
            As scikit-learn's splitters have these.

        Raises
        ------
        TypeError, ValueError
            If X is not Ratings with times, or no user has enough pairs for a test set.
        """
        if not isinstance(X, Ratings):
            raise TypeError(f"X is a {type(X).__name__}; it must be Ratings, such as datasets.read_ratings and "
                            "datasets.interactions return")
        if X.times is None:
            raise ValueError("X has no times; Ratings must have times for a split by time. datasets.interactions(..., "
                             "time=...) names their column")
        samples, last = _pairs(X.users, X.items, X.times)
        later, n = _later(X.users[last], X.times[last])
        held_out = np.floor(n * self.test_size + 1e-9)
        if isinstance(self.test_size, Integral):
            held_out = np.where(n > self.n_splits * self.test_size, self.test_size, 0)
        if not held_out.any():
            raise ValueError(f"no user has enough pairs for {self}; the most are {n.max(initial=0)}, so test_size must "
                             "be another")
        for after in reversed(range(self.n_splits)):
            test = (later >= after * held_out) & (later < (after + 1) * held_out)
            train = later >= (after + 1) * held_out
            yield np.flatnonzero(train[samples]), np.flatnonzero(test[samples])


def ranking_metrics(recommended: npt.ArrayLike, test: sp.sparray | sp.spmatrix) -> dict[str, float]:
    r"""Return precision, recall, NDCG, MAP and AUC at k of recommendations.

    The metrics are means over the users u that have test items. Let h_r = 1 if the item at rank r is one of the user's
    n test items, else 0. Let m = min(k, n).

    .. math:: \text{precision} = \frac{\sum_u \sum_r h_r}{\sum_u m}, \qquad
              \text{recall} = \operatorname{mean}_u \frac{\sum_r h_r}{n}

    .. math:: \text{ndcg} = \operatorname{mean}_u
              \frac{\sum_r h_r / \log_2(r + 1)}{\sum_{r \le m} 1 / \log_2(r + 1)}, \qquad
              \text{map} = \operatorname{mean}_u \frac1m \sum_r \frac{h_r}{r} \sum_{s \le r} h_s

    AUC is the share of pairs of a test item and another item that are in the right order. Items that are not
    recommended count as ordered at random. So AUC at k is near one half unless k is near the number of items; it is not
    the AUC of a ranking of all items. All metrics but recall are computed as the package `implicit` does.

    Parameters
    ----------
    recommended : array of integers, shape (n_users, k)
        The items for each user, the best first; -1 stands for no item. Training items should not be among these.
    test : scipy sparse array, shape (n_users, n_items)
        Each stored entry is a test item of its user, whatever its value.

    Returns
    -------
    dict of float
        The keys are "precision", "recall", "ndcg", "map" and "auc".

    Raises
    ------
    TypeError
        If test is not a scipy sparse array, or recommended is not of integers.
    ValueError
        If the shapes do not fit, an item is out of range, or test has no stored entries.

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
        raise TypeError(f"recommended has dtype {recommended.dtype}; it must be integers, the numbers of items")
    if recommended.size and not (recommended.min() >= -1 and recommended.max() < test.shape[1]):
        raise ValueError(f"recommended has items from {recommended.min()} to {recommended.max()}; items must be from 0 "
                         f"to {test.shape[1] - 1}, or -1 for none")
    n = np.diff(test.indptr)
    asked = n > 0
    if not asked.any():
        raise ValueError("test has no stored entries; it must have at least one")
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


def evaluate(model: Any, train: Ratings | sp.sparray | sp.spmatrix, test: Ratings | sp.sparray | sp.spmatrix,
             k: int = 10) -> dict[str, float]:
    """Return the `ranking_metrics` of a model's recommendations. Items of the training set are not recommended.

    Parameters
    ----------
    model : ImplicitFactorization, MatrixFactorization or an object with their method `recommend`
        A fitted model. `recommend(users, n, seen)` returns the items and the scores.
    train, test : Ratings, or scipy sparse arrays of shape (n_users, n_items)
        The training set and the test set. The model must know all users and items of the test set.
    k : int
        Number of items to recommend to each user.

    Returns
    -------
    dict of float
        The result of `ranking_metrics`.

    Raises
    ------
    TypeError
        If train or test is not a scipy sparse array.
    ValueError
        If the shapes differ, k is not from 1 to n_items, or test has no stored entries.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sparseopt.evaluation import evaluate
    >>> from sparseopt.models import ImplicitFactorization
    >>> rng = np.random.default_rng(0)
    >>> taste = np.arange(200)[:, None] % 2 == np.arange(50) % 2         # users like every second item
    >>> train = sp.csr_array(taste & (rng.random((200, 50)) < 0.4))
    >>> test = sp.csr_array(taste & ~train.toarray())
    >>> bool(evaluate(ImplicitFactorization(dim=8).fit(train), train, test, k=5)["precision"] > 0.9)
    True
    """
    test, train = (_matrix(name, _of_model(name, X, model)) for name, X in (("test", test), ("train", train)))
    if train.shape != test.shape:
        raise ValueError(f"train has shape {train.shape} and test {test.shape}; both must have the same shape")
    if not isinstance(k, Integral) or isinstance(k, bool) or not 1 <= k <= test.shape[1]:
        raise ValueError(f"k is {shown(k)}; it must be an integer from 1 to {test.shape[1]}, the number of items")
    recommended = np.full((test.shape[0], k), -1)
    users = np.flatnonzero(np.diff(test.indptr))
    if len(users):
        knows_ids = hasattr(model, "user_ids_")
        items, scores = model.recommend(model.user_ids_[users] if knows_ids else users, k, seen=train)
        if knows_ids:
            items = places(model.item_ids_, np.ravel(items)).reshape(items.shape)
            items[np.isneginf(scores)] = -1
        recommended[users] = items
    return ranking_metrics(recommended, test)


def _of_model(name, X, model):
    """Return Ratings as a matrix with the rows and columns of a model. Pairs that it does not know cannot be tested."""
    if not isinstance(X, Ratings):
        return X
    if not hasattr(model, "user_ids_"):
        return X.matrix()
    matrix, known = known_pairs(X, model.user_ids_, model.item_ids_)
    if name == "test" and not known.all():
        raise ValueError(f"test has {(~known).sum()} ratings of users or items that the model does not know; it must "
                         "have known ones alone")
    return matrix


def _matrix(name, X):
    if not sp.issparse(X) or X.ndim != 2:
        raise TypeError(f"{name} is a {type(X).__name__}; it must be a scipy sparse array (n_users, n_items)")
    X = checked(X, name).tocsr(copy=True)
    X.sum_duplicates()
    return X


def _stored(X, items):
    """True for each items[u, r] that is stored in row u of a canonical CSR array; -1 never is."""
    keys = np.repeat(np.arange(X.shape[0], dtype=np.int64), np.diff(X.indptr)) * X.shape[1] + X.indices
    asked = np.arange(len(items), dtype=np.int64)[:, None] * X.shape[1] + items
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return (keys[place] == asked) & (items >= 0)
