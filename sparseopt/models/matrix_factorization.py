"""Predictions of ratings: matrix factorization with biases."""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .. import embedding
from .._ratings import Ratings
from .._rows import Rows
from ..gradients import _numbers, checked
from ..losses.squares import _squares_of
from ._base import MakeOptimizer, Schedule, Seed, repeats, shuffled
from ._places import MakeTables
from ._recommender import Recommender, not_sparse

_NAMES = "users", "items", "user_bias", "item_bias"


class MatrixFactorization(Recommender):
    r"""Predicts the ratings of items by users, from a vector and a bias for each user and each item.

    .. math:: \min \tfrac12 \sum_{(u, i) \in X} \left(r_{ui} - \hat r_{ui}\right)^2
                   + \lambda \left(\|p_u\|^2 + \|q_i\|^2 + b_u^2 + b_i^2\right), \qquad
              \hat r_{ui} = \mu + b_u + b_i + p_u \cdot q_i

    The sum runs over the stored entries of X. A step on a batch of entries touches only the users and items of the
    batch. μ is the mean of the ratings in the first X. **Every stored entry is a rating: a stored 0 is a rating of 0.**
    All other ratings are unknown. For clicks and purchases, use `ImplicitFactorization`.

    An X with several entries for one pair is refused, because it does not say which of the ratings counts.

    Parameters
    ----------
    dim : int
        The length of a vector, 1 or more.
    optimizer : str or callable
        The name of an optimizer of this library. Or a callable that takes a dict of tables and returns an optimizer:
        `lambda tables: so.Adam(tables, lr=0.01, betas=(0.9, 0.99))`.
    lr : None, float or callable
        The learning rate of an optimizer given by name. None stands for the rate in `LEARNING_RATES`, chosen for this
        model.
    epochs : int
        Passes over the ratings in `fit`, 0 or more.
    batch_size : int
        Ratings per step, 1 or more.
    regularization : float
        λ, 0 or more: a decay as part of the loss of each rating. So users and items with many ratings decay more often.
    weight_decay : float
        The weight decay of an optimizer given by name, 0 or more; AdamW's is decoupled. A row decays at each step that
        touches the row. Under missed="replay", a row decays at every step.
    missed : "skip" or "replay"
        How steps treat users and items that are not in the batch. "skip" leaves them as they are. "replay" gives the
        results of the dense optimizer: missed steps are applied before a row is read. A callable as optimizer needs
        "skip".
    random_state : None, int, numpy.random.Generator or RandomState
        The seed of the first values and of the order of ratings. The same integer gives the same bits.
    tables : None or callable
        Where the tables are: in memory for None. A callable takes a dict of `sparseopt.Rows` and a function that makes
        the optimizer, and returns a store: `functools.partial(so.DiskTables, "folder")` for a disk, or
        `functools.partial(so.sharded.Tables, shards=4, workers=2)` for shards. A store does not grow.

    Attributes
    ----------
    optimizer_ : Optimizer
        Holds the tables: `optimizer_.params` has "users" (n_users, dim), "items" (n_items, dim), "user_bias" (n_users,)
        and "item_bias" (n_items,).
    store_ : None or Store
        What `tables` returned. The store stays open for more training, until `store_.close()`. `optimizer_`
        is then a copy of all tables in memory, made anew after each step, and changes of the copy are lost.
    user_ids_, item_ids_ : arrays of int64 or of str (dtype object)
        The ids of the rows, if the model was fitted to Ratings.
    mean_, std_ : float
        μ, and the standard deviation of the same ratings.
    loss_curve_ : list of float
        The mean squared error of each epoch. The error of a rating is measured before the step on its batch.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if X or a parameter is not as described above. The model is then as before.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sparseopt.models import MatrixFactorization
    >>> rng = np.random.default_rng(0)
    >>> truth = 3 + rng.standard_normal((300, 2)) @ rng.standard_normal((2, 80))
    >>> known = rng.random(truth.shape) < 0.3
    >>> model = MatrixFactorization(dim=4, regularization=0.02, epochs=60).fit(sp.csr_array(truth * known))
    >>> users, items = np.nonzero(~known)
    >>> bool(np.sqrt(np.mean((model.predict(users, items) - truth[users, items]) ** 2)) < 0.4 * truth.std())
    True
    >>> model.recommend(7, n=3)[0].shape
    (3,)

    References
    ----------
    Koren, Bell and Volinsky 2009, "Matrix Factorization Techniques for Recommender Systems", eq. 5.
    """

    LEARNING_RATES = {  # noqa: RUF012
        "SGD": 0.02, "Adagrad": 0.02, "RowwiseAdagrad": 0.03, "Adadelta": 1.0, "RMSprop": 0.003, "Adam": 0.003,
        "AdamW": 0.003, "RowwiseAdam": 0.003, "Adamax": 0.008, "NAdam": 0.003, "Ftrl": 0.08, "Lion": 0.002,
    }

    _axes: ClassVar = {**Recommender._axes, "user_bias": ("user",)}

    mean_: float
    std_: float

    def __init__(self, dim: int = 64, optimizer: str | MakeOptimizer = "Adam", lr: float | Schedule | None = None,
                 epochs: int = 20, batch_size: int = 1024, regularization: float = 0.1, weight_decay: float = 0.0,
                 missed: Literal["skip", "replay"] = "skip", random_state: Seed | None = 0,
                 tables: MakeTables | None = None) -> None:
        self.dim = dim
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.regularization = regularization
        self.weight_decay = weight_decay
        self.missed = missed
        self.random_state = random_state
        self.tables = tables

    def predict(self, users: npt.ArrayLike, items: npt.ArrayLike) -> np.ndarray:
        """Return the predicted ratings of pairs of a user and an item.

        Parameters
        ----------
        users, items : arrays of integers or str, shape (k,)
            Ids if the model knows ids, else the numbers of rows and columns.

        Returns
        -------
        array of float32, shape (k,)
            The predictions can lie outside the range of the ratings.

        Raises
        ------
        TypeError, ValueError, IndexError
            If there is no such user or item, if the lengths differ, or if the model is not fitted.
        """
        return self._predicted(*self._pairs(users, items))

    def _predicted(self, users, items):
        self._catch_up({"users": users, "items": items, "user_bias": users, "item_bias": items})
        tables = self.optimizer_.params
        return (embedding.dots(tables["users"], users, tables["items"], items)
                + tables["user_bias"][users] + tables["item_bias"][items] + np.float32(self.mean_))

    def recommend_for(self, items: npt.ArrayLike, n: int = 10,
                      ratings: npt.ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
        r"""Return n items for someone who is not in the training, from that person's ratings, and their scores.

        The vector p and the bias b of this user are those that are best for the items as they are:

        .. math:: \min_{p, b} \tfrac12 \sum_i (r_i - \mu - b - b_i - p \cdot q_i)^2 + \tfrac12 \lambda k (\|p\|^2 + b^2)

        Here k is the number of items. The model stays as it is.

        Parameters
        ----------
        items : array of integers or str, shape (k,)
            The items that the person has rated, each once. The result has none of these.
        n : int
            From 1 to the number of items.
        ratings : None or array of numbers, shape (k,)
            The ratings of these items. None stands for items that the person likes: the mean of all ratings plus one
            standard deviation, `mean_ + std_`.

        Returns
        -------
        items : array of integers or str, shape (n,)
            As in `recommend`. The highest score comes first.
        scores : array of floats, shape (n,)
            The predicted ratings, and -inf where there is no item.

        Raises
        ------
        TypeError, ValueError, IndexError
            If a parameter is not as described above, if there is no such item, or if the model is not fitted.

        Examples
        --------
        >>> import numpy as np, scipy.sparse as sp
        >>> from sparseopt.models import MatrixFactorization
        >>> R = sp.csr_array(np.array([[5, 1, 5, 1], [1, 5, 1, 5]] * 20, float))
        >>> model = MatrixFactorization(dim=2, epochs=60, regularization=0.02).fit(R)
        >>> model.recommend_for([0, 1], n=2, ratings=[5, 1])[0]
        array([2, 3])
        """
        items, ratings = self._own(items, "ratings", ratings)
        self._catch_up()
        tables = self.optimizer_.params
        if ratings is None:
            ratings = np.full(len(items), self.mean_ + self.std_)
        A = np.column_stack([tables["items"][items], np.ones(len(items))]).astype(np.float64)
        decay = np.sqrt(self.regularization * len(items)) * np.eye(A.shape[1])
        target = np.append(ratings - self.mean_ - tables["item_bias"][items], np.zeros(len(decay)))
        found = np.linalg.lstsq(np.concatenate([A, decay]), target, rcond=None)[0].astype(np.float32)
        scores = tables["items"] @ found[:-1] + tables["item_bias"] + (found[-1] + np.float32(self.mean_))
        return self._best(scores, items, n)

    def score(self, X: Ratings | sp.sparray | sp.spmatrix, y: None = None) -> float:
        """Return minus the root mean squared error of the stored ratings. Higher is better, and 0 is the best.

        Parameters
        ----------
        X : Ratings, or scipy sparse array of shape (n_users, n_items)
        y : None
            Part of scikit-learn's convention.

        Raises
        ------
        TypeError, ValueError, IndexError
            If X is not as in `fit`, if its shape differs from the model's, or if the model is not fitted. If the model
            does not know a user or an item of Ratings.
        """
        X = self._held_out(X, y)
        error = self._predicted(*X.coords) - X.data
        return -float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))

    def _check_ratings(self, ratings):
        super()._check_ratings(ratings)
        if ratings.counts:
            raise ValueError("X has counts, such as numbers of plays, and not ratings; ImplicitFactorization learns "
                             "from these")

    def _checked(self, X):
        if not sp.issparse(X) or X.ndim != 2:
            raise not_sparse(X)
        X = checked(X, "X").tocoo()
        with np.errstate(over="ignore"):
            X = sp.coo_array((_numbers(X.data, "X").astype(np.float32), X.coords), shape=X.shape)
        if not X.nnz:
            raise ValueError("X has no stored entries; there is nothing to train on")
        if more := repeats(X):
            _, first = np.unique(np.stack(X.coords), axis=1, return_index=True)
            again = np.setdiff1d(np.arange(X.nnz), first)[0]
            raise ValueError(f"X has {more} entries that repeat a pair of a user and an item, the first at row "
                             f"{X.coords[0][again]}, column {X.coords[1][again]}; a pair must have one rating")
        if not np.isfinite(X.data).all():
            first = int(np.isfinite(X.data).argmin())
            raise ValueError(f"X has {X.data[first]} at row {X.coords[0][first]}, column {X.coords[1][first]}; ratings "
                             "must be finite")
        return X

    def _start(self, X):
        super()._start(X)
        self.mean_ = float(X.data.mean(dtype=np.float64))
        self.std_ = float(X.data.std(dtype=np.float64))

    def _rows(self, n_users, n_items):
        return {**super()._rows(n_users, n_items), "user_bias": Rows(n_users, None)}

    def _epoch(self, X, callback):
        return self._take_steps(_Entries(X, self.batch_size, self.mean_, float(self.regularization)), X.nnz, callback)

    def _scores(self, users):
        scores = super()._scores(users)
        scores += self.optimizer_.params["user_bias"][users, None]
        scores += np.float32(self.mean_)
        return scores

    def _fitted(self):
        return {**super()._fitted(), "mean": self.mean_, "std": self.std_}

    def _restore(self, metadata):
        super()._restore(metadata)
        self.mean_, self.std_ = metadata["mean"], metadata["std"]


class _Entries:
    """The task of an epoch: batches of ratings in random order. Each worker takes the ratings of some users."""

    def __init__(self, X, size, mean, decay):
        self._entries, self._size, self._mean, self._decay = (*X.coords, X.data), size, np.float32(mean), decay

    def batches(self, rng, worker, workers):
        return shuffled(rng, self._entries, self._size, worker, workers)

    def gradients(self, reader, batch):
        u, i, ratings = batch
        tables, (u, i) = reader.read((["users", "user_bias"], u), (["items", "item_bias"], i))
        squares, _, gradients = _squares_of(*(tables[name] for name in _NAMES), u, i, ratings - self._mean, None,
                                            self._decay, self._decay)
        return dict(zip(_NAMES, gradients, strict=True)), (len(u), len(u), squares)
