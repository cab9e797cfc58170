"""Recommendations from implicit feedback (clicks, purchases): matrix factorization with ranking losses."""

import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .. import embedding, evaluation
from .._ratings import Ratings, known_pairs
from .._text import shown
from ..gradients import _numbers, checked
from . import _pairwise, _softmax, _square
from ._base import MakeOptimizer, Schedule, Seed
from ._places import MakeTables
from ._recommender import Recommender, not_sparse

_ALL = 1 << 14              # up to this number of items, softmax uses all items
_BATCH = 1 << 12
# Scores of users that differ less, by their standard deviation, say nothing of the user.
_COLLAPSED = {"softmax": 0.02, "square": 1e-3}
_LEAST_STEPS = 8            # of an epoch of softmax and square: with fewer, a small data set trains too little
# The values of parameters that are None, and the standard deviation of the product of two new vectors.
_DEFAULTS = {
    "softmax": {"negatives": 2048, "popularity": 0.5, "regularization": 0.2, "spread": 0.1, "epochs": 15},
    "square": {"unobserved_weight": 0.5, "regularization": 0.003, "spread": 0.02, "epochs": 15},
    "bpr": {"negatives": 2, "popularity": 0.5, "regularization": 0.04, "spread": 0.08, "epochs": 20},
    "warp": {"negatives": 1000, "popularity": 0.0, "regularization": 0.2, "spread": 1e-4, "epochs": 20},
}


class ImplicitFactorization(Recommender):
    r"""Recommendations from implicit feedback. A user's own items get higher scores than other items.

    The score of an item i for a user u is :math:`s_{ui} = p_u \cdot q_i + b_i`.

    The stored entries of X are the pairs (u, i) of users with their items. The entry is the weight w of the pair. If a
    pair has several entries, the weights add up: each purchase may be an entry. I_u are the items of u. All other items
    count as not chosen. So `partial_fit` needs all pairs too, not only the new pairs. X may also be
    `sparseopt.datasets.Ratings`, with ids of users and items. The loss is one of these:

    .. math::
        \text{softmax:} \quad & -\sum w_{ui} \log \frac{e^{s_{ui}}}{e^{s_{ui}} + \sum_{j \notin I_u} e^{s_{uj}}} \\
        \text{square:} \quad & \tfrac12 \sum w_{ui} (s_{ui} - 1)^2 + \tfrac12 \alpha \sum_{\text{all } u, i} s_{ui}^2
            \\
        \text{bpr:} \quad & -\sum w_{ui} \operatorname{mean}_{j \notin I_u} \log \sigma(s_{ui} - s_{uj}) \\
        \text{warp:} \quad & \sum w_{ui} \log\left(\text{rank}_{ui}\right) \max(0, 1 - s_{ui} + s_{uj})

    =======  =======================  ====================================================================
    loss     a step takes             negatives j, never items of the user
    =======  =======================  ====================================================================
    softmax  all pairs of some users  all items; or drawn items, if there are more than 16,384 items
    square   all pairs of some users  all items, all with the weight α, at the price of the pairs
    bpr      some pairs               drawn items for each pair
    warp     some pairs               for each pair, the first drawn item with 1 - s_ui + s_uj > 0; a pair
                                      without such an item is left out; pairs share what is drawn for the
                                      step
    =======  =======================  ====================================================================

    softmax usually gives the best recommendations. It divides the exponential of a drawn item by the probability of the
    draw (log Q correction). square is the loss of alternating least squares (iALS). It takes less time than softmax,
    above all with many items. It has no biases: "item_bias" stays 0. warp estimates the rank as
    ⌊(n_items - 1) / number of items tried⌋.

    Parameters
    ----------
    loss : "softmax", "square", "bpr" or "warp"
    dim : int
        The length of a vector, 1 or more.
    optimizer : str or callable
        The name of an optimizer of this library. Or a callable that takes a dict of tables and returns an optimizer:
        `lambda tables: so.Adam(tables, lr=0.01, betas=(0.9, 0.99))`.
    lr : None, float or callable
        The learning rate of an optimizer given by name. None stands for the rate in `LEARNING_RATES`, chosen for each
        loss of this model. If that table has no rate, None stands for the optimizer's default.
    epochs : None or int
        Passes over the pairs in `fit`, 0 or more. None stands for 15 with softmax and square, and 20 with bpr and warp.
    batch_size : None or int
        Pairs per step, 1 or more. softmax and square take users who have about so many pairs together. None stands for
        4096; with softmax and square, for an eighth of the pairs if that is less.
    negatives : None, int or "batch"
        How many items are drawn or tried, 1 or more.

        =======  =============================  ==================================  ========================
        loss     an integer                     None                                "batch"
        =======  =============================  ==================================  ========================
        softmax  items for all users of a step  2048 if n_items > 16,384, else all  the items of these users
        square   not allowed                    all                                 not allowed
        bpr      items for each pair            2                                   not allowed
        warp     the most items tried           1000                                not allowed
                 for each pair
        =======  =============================  ==================================  ========================
    popularity : None or float
        The probability of an item is proportional to (1 + the number of its pairs) to this power: 0 or more. With 0,
        all items are equally likely. None stands for 0.5 with softmax and bpr, and for 0 with warp. If no items are
        drawn, as with square, popularity must be None.
    unobserved_weight : None or float
        α of square, above 0: the weight of every pair, chosen or not. None stands for 0.5. With another loss it must be
        None.
    regularization : None or float
        λ, 0 or more. With square, the loss also includes ½ λ ((n_u + α n_items) ‖p_u‖² + (n_i + α n_users) ‖q_i‖²) for
        each user and item, where n is the sum of the weights of its pairs. With another loss, the loss of a pair
        includes ½ λ w (‖p_u‖² + ‖q_i‖²); with bpr and warp also ½ λ w ‖q_j‖² for an item j drawn for the pair. None
        stands for 0.2 with softmax, 0.003 with square, 0.04 with bpr, and 0.2 with warp.
    weight_decay : float
        The weight decay of an optimizer given by name, 0 or more; AdamW's is decoupled. A row decays at each step that
        touches the row. Under missed="replay", a row decays at every step.
    missed : "skip" or "replay"
        How steps treat users and items that are not in the batch. "skip" leaves them as they are. "replay" gives the
        results of the dense optimizer: missed steps are applied before a row is read. A callable as optimizer needs
        "skip".
    random_state : None, int, numpy.random.Generator or RandomState
        The seed of the first values and of all draws. The same integer gives the same bits, for any number of threads
        of this library.
    tables : None or callable
        Where the tables are: in memory for None. A callable takes a dict of `sparseopt.Rows` and a function that makes
        the optimizer, and returns a store: `functools.partial(so.DiskTables, "folder")` for a disk, or
        `functools.partial(so.sharded.Tables, shards=4, workers=2)` for shards. A store does not grow. With the loss
        square, tables must be None.

    Attributes
    ----------
    optimizer_ : Optimizer
        Holds the tables: `optimizer_.params` has "users" (n_users, dim), "items" (n_items, dim) and "item_bias"
        (n_items,).
    store_ : None or Store
        What `tables` returned. The store stays open for more training, until `store_.close()`. `optimizer_`
        is then a copy of all tables in memory, made anew after each step, and changes of the copy are lost.
    user_ids_, item_ids_ : arrays of int64 or of str (dtype object)
        The ids of the rows, if the model was fitted to Ratings.
    loss_curve_ : list of float
        The mean loss of a pair in each epoch, without the decay. The loss is measured before the step on its batch.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if X or a parameter is not as described above. The model is then as before.

    Warns
    -----
    UserWarning
        By `fit`, if softmax or square leaves almost nothing of the vectors. The regularization is too much then.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sparseopt.models import ImplicitFactorization
    >>> rng = np.random.default_rng(0)
    >>> taste = np.arange(200)[:, None] % 2 == np.arange(50) % 2         # users like every other item
    >>> X = sp.csr_array(taste & (rng.random((200, 50)) < 0.4))
    >>> model = ImplicitFactorization(dim=8).fit(X)
    >>> items, scores = model.recommend(3, n=5, seen=X)
    >>> items % 2, X[[3]].toarray()[0, items]
    (array([1, 1, 1, 1, 1]), array([False, False, False, False, False]))
    >>> newcomer = sp.csr_array((np.ones(3), ([0, 0, 0], [0, 2, 4])), shape=(1, 50))      # a user who chose 3 items
    >>> X = sp.vstack([X, newcomer], format="csr")
    >>> for _ in range(5):
    ...     model = model.partial_fit(X)
    >>> model.recommend(200, n=5, seen=X)[0] % 2
    array([0, 0, 0, 0, 0])

    References
    ----------
    bpr: Rendle et al. 2009, "BPR: Bayesian Personalized Ranking from Implicit Feedback". warp:
    Weston, Bengio and Usunier 2011, "WSABIE: Scaling Up To Large Vocabulary Image Annotation". softmax: Bengio and
    Senécal 2008, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model"; Rendle
    2021, "Item Recommendation from Implicit Feedback". square: Rendle, Krichene, Zhang and Koren 2022, "Revisiting the
    Performance of iALS on Item Recommendation Benchmarks".
    """

    _may_be_none = frozenset(["epochs", "batch_size"])
    LEARNING_RATES = {  # noqa: RUF012
        "softmax": {"SGD": 0.01, "Adagrad": 0.2, "RowwiseAdagrad": 0.2, "Adadelta": 10.0, "RMSprop": 0.02, "Adam": 0.05,
                    "AdamW": 0.05, "RowwiseAdam": 0.05, "Adamax": 0.1, "NAdam": 0.05, "Ftrl": 0.3, "Lion": 0.02},
        "square": {"SGD": 0.03, "Adagrad": 0.1, "RowwiseAdagrad": 0.1, "Adadelta": 3.0, "RMSprop": 0.01, "Adam": 0.05,
                   "AdamW": 0.05, "RowwiseAdam": 0.05, "Adamax": 0.1, "NAdam": 0.03, "Ftrl": 0.1, "Lion": 0.01},
        "bpr": {"SGD": 0.1, "Adagrad": 0.2, "RowwiseAdagrad": 0.05, "Adadelta": 3.0, "RMSprop": 0.01, "Adam": 0.01,
                "AdamW": 0.01, "RowwiseAdam": 0.01, "Adamax": 0.02, "NAdam": 0.01, "Ftrl": 0.3, "Lion": 0.006},
        "warp": {"SGD": 0.003, "Adagrad": 0.03, "RowwiseAdagrad": 0.04, "Adadelta": 1.0, "RMSprop": 0.003,
                 "Adam": 0.006, "AdamW": 0.006, "RowwiseAdam": 0.006, "Adamax": 0.012, "NAdam": 0.006, "Ftrl": 0.1,
                 "Lion": 0.002},
    }

    def __init__(self, loss: Literal["softmax", "square", "bpr", "warp"] = "softmax", dim: int = 64,
                 optimizer: str | MakeOptimizer = "Adagrad", lr: float | Schedule | None = None,
                 epochs: int | None = None, batch_size: int | None = None,
                 negatives: int | Literal["batch"] | None = None, popularity: float | None = None,
                 unobserved_weight: float | None = None, regularization: float | None = None, weight_decay: float = 0.0,
                 missed: Literal["skip", "replay"] = "skip", random_state: Seed | None = 0,
                 tables: MakeTables | None = None) -> None:
        self.loss = loss
        self.dim = dim
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.negatives = negatives
        self.popularity = popularity
        self.unobserved_weight = unobserved_weight
        self.regularization = regularization
        self.weight_decay = weight_decay
        self.missed = missed
        self.random_state = random_state
        self.tables = tables

    def predict(self, users: npt.ArrayLike, items: npt.ArrayLike) -> np.ndarray:
        """Return the scores of pairs of a user and an item. Higher is better.

        Only differences between the scores of one user have a meaning.

        Parameters
        ----------
        users, items : arrays of integers or str, shape (k,)
            Ids if the model knows ids, else the numbers of rows and columns.

        Returns
        -------
        array of float32, shape (k,)

        Raises
        ------
        TypeError, ValueError, IndexError
            If there is no such user or item, if the lengths differ, or if the model is not fitted.
        """
        return self._predicted(*self._pairs(users, items))

    def _predicted(self, users, items):
        self._catch_up({"users": users, "items": items, "item_bias": items})
        tables = self.optimizer_.params
        return embedding.dots(tables["users"], users, tables["items"], items) + tables["item_bias"][items]

    def recommend_for(self, items: npt.ArrayLike, n: int = 10,
                      weights: npt.ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
        r"""Return n items for someone who is not in the training, from that person's items, and their scores.

        The vector p of this user is the one that is best for the items as they are. With loss="square", p minimizes
        this loss. For every other `loss` of the model, p minimizes the loss of softmax over all items. Here I has the
        given items:

        .. math:: \min_p -\sum_{i \in I} w_i \log \frac{e^{s_i}}{e^{s_i} + \sum_{j \notin I} e^{s_j}}
                  + \tfrac12 \lambda \sum_i w_i \|p\|^2, \qquad s_i = p \cdot q_i + b_i

        Both problems are convex. The model stays as it is.

        Parameters
        ----------
        items : array of integers or str, shape (k,)
            The items that the person has chosen, each once. The result has none of these.
        n : int
            From 1 to the number of items.
        weights : None or array of numbers, shape (k,)
            The weight of each item, above 0. None stands for 1 each.

        Returns
        -------
        items : array of integers or str, shape (n,)
            As in `recommend`. The highest score comes first.
        scores : array of floats, shape (n,)
            The scores as in `predict`, and -inf where there is no item.

        Raises
        ------
        TypeError, ValueError, IndexError
            If a parameter is not as described above, if there is no such item, or if the model is not fitted.

        Examples
        --------
        >>> import numpy as np, scipy.sparse as sp
        >>> from sparseopt.models import ImplicitFactorization
        >>> rng = np.random.default_rng(0)
        >>> taste = np.arange(200)[:, None] % 2 == np.arange(50) % 2         # users like every other item
        >>> model = ImplicitFactorization(dim=2).fit(sp.csr_array(taste & (rng.random((200, 50)) < 0.4)))
        >>> model.recommend_for([1, 7], n=5)[0] % 2
        array([1, 1, 1, 1, 1])
        """
        from scipy.optimize import minimize  # importing this takes a tenth of a second

        items, weights = self._own(items, "weights", weights)
        weights = np.ones(len(items)) if weights is None else weights
        if not weights.min() > 0:
            raise ValueError(f"weights has {weights.min()}; weights must be above 0")
        self._catch_up()
        if self.loss == "square":
            p = _square.folded_in(self, items, weights)
            return self._best(self.optimizer_.params["items"] @ p, items, n)
        tables = self.optimizer_.params
        Q, bias, decay = tables["items"], tables["item_bias"], self._setting("regularization") * weights.sum()

        def loss(p):
            scores = (Q @ p.astype(np.float32) + bias).astype(np.float64)
            top = scores.max()
            slope = np.exp(scores - top)
            own = slope[items]
            slope[items] = 0
            both = own + slope.sum()
            slope *= (weights / both).sum()
            slope[items] = weights * (own / both - 1)
            return (weights @ (np.log(both) + top - scores[items]) + decay / 2 * p @ p,
                    (slope.astype(np.float32) @ Q).astype(np.float64) + decay * p)

        p = minimize(loss, np.zeros(self.dim), jac=True, method="L-BFGS-B").x.astype(np.float32)
        return self._best(Q @ p + bias, items, n)

    def score(self, X: Ratings | sp.sparray | sp.spmatrix, y: None = None,
              seen: Ratings | sp.sparray | sp.spmatrix | None = None) -> float:
        """Return NDCG@10 of the pairs of X, which the model was not trained on: from 0 to 1, and higher is better.

        The measure is that of `sparseopt.evaluation.ranking_metrics`, over the users that have pairs in X. With fewer
        than 10 items, it is that of all items.

        Parameters
        ----------
        X : Ratings, or scipy sparse array of shape (n_users, n_items)
        y : None
            Part of scikit-learn's convention.
        seen : None, Ratings, or scipy sparse array of shape (n_users, n_items)
            The pairs whose items are not recommended again. None stands for the X of the last `fit` or `partial_fit`,
            of which the model keeps the pairs for this purpose. A file of the model does not have these.

        Raises
        ------
        TypeError, ValueError, IndexError
            If X is not as in `fit`, or its shape differs from the model's, or if the model is not fitted. If the model
            does not know a user or an item, or a user has no pair in seen: the score would mean nothing. If seen is
            None and the model comes from a file.
        """
        X = self._held_out(X, y)
        if seen is None:
            if not hasattr(self, "_trained_on"):
                raise ValueError("seen is None, and the model comes from a file, which does not have the pairs of the "
                                 "training; seen must have these")
            seen = self._trained_on
        elif isinstance(seen, Ratings):
            seen = known_pairs(seen, self.user_ids_, self.item_ids_)[0] if self._knows_ids else seen.matrix()
        if sp.issparse(seen) and seen.shape == X.shape:
            new = np.flatnonzero((np.diff(X.indptr) > 0) & (np.diff(checked(seen, "seen").tocsr().indptr) == 0))
            if len(new):
                user = self.user_ids_[new[:1]].tolist()[0] if self._knows_ids else int(new[0])
                raise ValueError(f"X has pairs of {len(new)} users without pairs in the training, the first is "
                                 f"{shown(user)}; the model has not learnt what they like, so the score would mean "
                                 "nothing. evaluation.TimeSplit leaves pairs of each user in the training")
        return evaluation.evaluate(self, seen, X, min(10, X.shape[1]))["ndcg"]

    def _check_ratings(self, ratings):
        super()._check_ratings(ratings)
        if not ratings.counts and (ratings.values != ratings.values[0]).any():
            raise ValueError(f"X has ratings from {ratings.values.min():g} to {ratings.values.max():g}, of which low "
                             "ones may mean dislike; X.chosen() has the pairs that show that a user likes an item")

    def _start(self, X):
        super()._start(X)
        self._trained_on = X
        if self.loss == "square":               # which is the least where users and items without pairs have zeros
            tables = self.optimizer_.params
            tables["users"][np.diff(X.indptr) == 0] = 0
            tables["items"][np.bincount(X.indices, minlength=X.shape[1]) == 0] = 0

    def _check_settings(self, X):
        self._check_one_of("loss", *_DEFAULTS)
        super()._check_settings(X)
        if self.loss == "square" and self.tables is not None:
            raise ValueError(f"tables is {shown(self.tables)} and loss is 'square', which needs products of whole "
                             "tables in every step; tables must be None")
        for name in ("negatives", "popularity") if self.loss == "square" else ("unobserved_weight",):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is {shown(getattr(self, name))} and loss is {shown(self.loss)}, which has no "
                                 f"such parameter; {name} must be None")
        if self.unobserved_weight is not None:
            self._check_numbers("unobserved_weight")
        if self.negatives is not None and not (self.loss == "softmax" and self.negatives == "batch"):
            self._check_integers(negatives=1)
        if self.popularity is not None:
            self._check_numbers("popularity", zero=True)
            if self.negatives == "batch" or self._takes_all(X.shape[1]):
                raise ValueError(f"popularity is {self.popularity!r} and negatives is {shown(self.negatives)}, with "
                                 f"which softmax draws none of the {X.shape[1]} items; popularity must be None, or "
                                 "negatives an integer")

    def _takes_all(self, n_items):
        return self.loss == "softmax" and self.negatives is None and n_items <= _ALL

    def _setting(self, name):
        value = getattr(self, name)
        return _DEFAULTS[self.loss][name] if value is None else value

    def _default_rate(self, name):
        return self.LEARNING_RATES[self.loss].get(name)

    def _checked(self, X):
        if not sp.issparse(X) or X.ndim != 2:
            raise not_sparse(X)
        X = checked(X, "X").tocsr()
        with np.errstate(over="ignore"):
            data = _numbers(X.data, "X").astype(np.float32)
        X = sp.csr_array((data, X.indices.copy(), X.indptr.copy()), shape=X.shape)
        if X.nnz and not (np.isfinite(X.data).all() and X.data.min() >= 0):
            raise ValueError(f"X has entries from {X.data.min()} to {X.data.max()}; weights must be finite and 0 or "
                             "more")
        X.sum_duplicates()
        X.eliminate_zeros()
        if not X.nnz:
            raise ValueError("X has no positive entries; there is nothing to train on")
        return X

    def _warn_if_useless(self, X):
        with_pairs = {"users": np.diff(X.indptr) > 0, "items": np.bincount(X.indices, minlength=X.shape[1]) > 0}
        squares = [np.mean(self._some_rows(name, np.flatnonzero(rows))**2, dtype=np.float64)
                   for name, rows in with_pairs.items()]
        if len(self.loss_curve_) >= 5 and np.sqrt(self.dim * np.prod(squares)) < _COLLAPSED.get(self.loss, 0):
            warnings.warn("the vectors have shrunk to almost zero, so all users get the same recommendations. "
                          f"regularization is {self._setting('regularization')!r}, which is too much for these pairs; "
                          "set a lower one", stacklevel=3)

    @property
    def _spread(self):
        return _DEFAULTS[self.loss]["spread"]

    def _pairs_of_step(self, X):
        if self.batch_size is not None:
            return self.batch_size
        return _BATCH if self.loss in ("bpr", "warp") else min(_BATCH, -(-X.nnz // _LEAST_STEPS))

    @property
    def _n_epochs(self):
        return self._setting("epochs")

    def _epoch(self, X, callback):
        self._trained_on = X
        size, regularization = self._pairs_of_step(X), self._setting("regularization")
        if self.loss == "square":
            task = _square.AllPairs(X, size, self._setting("unobserved_weight"), regularization)
        else:
            negatives, popularity = self._setting("negatives"), self._setting("popularity")
            if self.loss == "softmax":
                task = _softmax.Users(X, size, None if self._takes_all(X.shape[1]) else negatives, popularity,
                                      regularization)
            else:
                task = _pairwise.Pairs(X, self.loss == "warp", size, negatives, popularity, regularization)
        return self._take_steps(task, X.nnz, callback)
