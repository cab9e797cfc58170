"""How good a ranking is, on what was held out: precision, recall, NDCG, MAP and AUC at k; and a split by time."""

from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp


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
        raise ValueError(f"test_size is {test_size!r}; it must be a share between 0 and 1")
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
        raise ValueError(f"k is {k!r}; it must be an integer from 1 to {test.shape[1]}, the number of items")
    recommended = np.full((test.shape[0], k), -1)
    users = np.flatnonzero(np.diff(test.indptr))
    if len(users):
        recommended[users] = model.recommend(users, k, seen=train)[0]
    return ranking_metrics(recommended, test)


def _matrix(name, X):
    if not sp.issparse(X) or X.ndim != 2:
        raise TypeError(f"{name} is a {type(X).__name__}; it must be a scipy sparse array (n_users, n_items)")
    X = X.tocsr(copy=True)
    X.sum_duplicates()
    return X


def _stored(X, items):
    """Which items[u, r] are stored in row u of a canonical CSR array; -1 is not."""
    keys = np.repeat(np.arange(X.shape[0], dtype=np.int64), np.diff(X.indptr)) * X.shape[1] + X.indices
    asked = np.arange(len(items), dtype=np.int64)[:, None] * X.shape[1] + items
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return (keys[place] == asked) & (items >= 0)
