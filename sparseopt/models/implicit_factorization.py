"""Recommendations from what users turned to: matrix factorization by ranking losses."""

import numpy as np
import scipy.sparse as sp

from .. import embedding
from .._text import shown
from ..gradients import RowGradient, _numbers, checked
from ._base import Progress
from ._recommender import Recommender

_ALL = 1 << 14              # items up to which softmax takes all of them
# What parameters that are None come to.
_DEFAULTS = {
    "softmax": {"negatives": 2048, "popularity": 0.5, "regularization": 0.2},
    "bpr": {"negatives": 1, "popularity": 0.5, "regularization": 0.03},
    "warp": {"negatives": 32, "popularity": 0.0, "regularization": 0.1},
}


class ImplicitFactorization(Recommender):
    r"""Recommendations from what users turned to: scores s = p_u · q_i + b_i, higher for the items of a user than for others.

    For the pairs (u, i) of the matrix, with weights w (its entries) and I_u the items of u, the loss is one of the following.
    What is not in the matrix counts as not chosen: `partial_fit` wants all pairs too, not the new ones alone. The weights of
    a pair with several entries add up: each purchase may be an entry of its own.

    .. math::
        \text{softmax:} \quad & -\sum w_{ui} \log \frac{e^{s_{ui}}}{e^{s_{ui}} + \sum_{j \notin I_u} e^{s_{uj}}} \\
        \text{bpr:} \quad & -\sum w_{ui} \operatorname*{mean}_{j \notin I_u} \log \sigma(s_{ui} - s_{uj}) \\
        \text{warp:} \quad & \sum w_{ui} \log\left(\text{rank}_{ui}\right) \max(0, 1 - s_{ui} + s_{uj})

    - **softmax**, the best as a rule: a step takes some users whole, and all items, or where these are more than 16,384 some
      that are drawn, each counted by one over the probability of its draw (log Q correction).
    - **bpr**: a step takes some pairs, each beside items that are drawn; those of the user are left out.
    - **warp**: a step takes some pairs, and for each the first item drawn that is not of the user and less than 1 behind; the
      rank is estimated as ⌊(n_items - 1) / number of draws⌋. Pairs that find none take no part.

    Parameters
    ----------
    loss : "softmax", "bpr" or "warp"
    dim : int
        Length of a vector.
    optimizer : str or callable
        The name of an optimizer of this library, or a callable from a dict of tables to one:
        `lambda tables: so.Adam(tables, lr=0.01, betas=(0.9, 0.99))`. With softmax, one given by name steps on one thread,
        beside the threads of BLAS.
    lr : None, float or callable
        The learning rate, with an optimizer given by name; None is that of `LEARNING_RATES`, chosen for each loss of this
        model, else the optimizer's default.
    epochs : int
        Passes over the pairs that `fit` makes.
    batch_size : int
        Pairs a step; softmax takes the users whose pairs come to about as many.
    negatives : None, int or "batch"
        bpr: items drawn for each pair (None: 1). warp: the most items drawn for each pair (None: 32). softmax: items drawn for
        all users of a step (None: 2048 of more than 16,384 items, else all), or "batch": the items of all its users.
    popularity : None or float
        Items are drawn in proportion to 1 + the number of their pairs, to this power; 0 is all alike. None is 0.5 for softmax
        and bpr, 0 for warp. To be left at None where none are drawn.
    regularization : None or float
        λ: ½ λ w (‖p_u‖² + ‖q_i‖²) is part of the loss of a pair, and ½ λ w ‖q_j‖² for an item drawn for it (not by
        softmax, which draws for all). None is 0.2 for softmax, 0.03 for bpr, 0.1 for warp.
    weight_decay : float
        That of the optimizer, with one given by name: AdamW's is decoupled, for each step that touches a row (under
        missed="replay" for every step).
    missed : "skip" or "replay"
        What happens to users and items in the steps of batches without them, with an optimizer given by name: nothing, or
        what the dense optimizer does, caught up when a batch or a reader needs them.
    random_state : None, int, numpy.random.Generator or RandomState
        Of the starting values and of all that is drawn. Training with the same integer gives the same bits, whatever
        `so.get_num_threads()` is.

    Attributes
    ----------
    optimizer_ : Optimizer
        With the tables: `optimizer_.params` has "users" (n_users, dim), "items" (n_items, dim) and "item_bias".
    loss_curve_ : list of float
        Mean loss of a pair over each epoch without the decay, measured as it went on.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if X or a parameter is not as said above; the model is then as before.

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
    >>> newcomer = sp.csr_array(([1.0, 1.0], ([0, 0], [0, 2])), shape=(1, 50))    # has turned to items 0 and 2
    >>> X = sp.vstack([X, newcomer], format="csr")
    >>> for _ in range(5):
    ...     model = model.partial_fit(X)
    >>> model.recommend(200, n=5, seen=X)[0] % 2
    array([0, 0, 0, 0, 0])

    References
    ----------
    bpr: Rendle et al. 2009, "BPR: Bayesian Personalized Ranking from Implicit Feedback". warp: Weston, Bengio and Usunier
    2011, "WSABIE: Scaling Up To Large Vocabulary Image Annotation". softmax: Bengio and Senécal 2008, "Adaptive Importance
    Sampling to Accelerate Training of a Neural Probabilistic Language Model"; Rendle 2021, "Item Recommendation from Implicit
    Feedback".
    """

    LEARNING_RATES = {  # noqa: RUF012
        "softmax": {"SGD": 0.01, "Adagrad": 0.1, "RowwiseAdagrad": 0.2, "Adadelta": 10.0, "RMSprop": 0.02, "Adam": 0.05,
                    "AdamW": 0.05, "RowwiseAdam": 0.05, "Adamax": 0.1, "NAdam": 0.05, "Ftrl": 0.3, "Lion": 0.02},
        "bpr": {"SGD": 0.1, "Adagrad": 0.1, "RowwiseAdagrad": 0.05, "Adadelta": 3.0, "RMSprop": 0.01, "Adam": 0.01,
                "AdamW": 0.01, "RowwiseAdam": 0.01, "Adamax": 0.02, "NAdam": 0.01, "Ftrl": 0.3, "Lion": 0.003},
        "warp": {"SGD": 0.003, "Adagrad": 0.03, "RowwiseAdagrad": 0.02, "Adadelta": 1.0, "RMSprop": 0.003, "Adam": 0.003,
                 "AdamW": 0.003, "RowwiseAdam": 0.003, "Adamax": 0.006, "NAdam": 0.003, "Ftrl": 0.1, "Lion": 0.001},
    }

    def __init__(self, loss="softmax", dim=64, optimizer="Adagrad", lr=None, epochs=20, batch_size=4096, negatives=None,
                 popularity=None, regularization=None, weight_decay=0.0, missed="skip", random_state=0):
        self.loss = loss
        self.dim = dim
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.negatives = negatives
        self.popularity = popularity
        self.regularization = regularization
        self.weight_decay = weight_decay
        self.missed = missed
        self.random_state = random_state

    def predict(self, users, items):
        """Return the scores of pairs of a user and an item: higher is better, and only differences for one user mean anything.

        Parameters
        ----------
        users, items : arrays of integers, shape (k,)

        Returns
        -------
        array of float32, shape (k,)

        Raises
        ------
        TypeError, ValueError, IndexError
            If there is no such user or item, or the lengths differ.
        """
        users, items = self._pairs(users, items)
        self._catch_up({"users": users, "items": items, "item_bias": items})
        tables = self.optimizer_.params
        return embedding.dots(tables["users"], users, tables["items"], items) + tables["item_bias"][items]

    def _check_settings(self, X):
        self._check_one_of("loss", *_DEFAULTS)
        super()._check_settings(X)
        if self.negatives is not None and not (self.loss == "softmax" and self.negatives == "batch"):
            self._check_integers(negatives=1)
        if self.popularity is not None:
            self._check_numbers("popularity", zero=True)
            if self.negatives == "batch" or self._takes_all(X.shape[1]):
                raise ValueError(f"popularity is {self.popularity!r} and negatives {shown(self.negatives)}, with which softmax "
                                 f"draws none of {X.shape[1]} items; leave popularity at None, or make negatives a number")

    def _takes_all(self, n_items):
        return self.loss == "softmax" and self.negatives is None and n_items <= _ALL

    def _setting(self, name):
        value = getattr(self, name)
        return _DEFAULTS[self.loss][name] if value is None else value

    def _default_rate(self, name):
        return self.LEARNING_RATES[self.loss].get(name)

    def _checked(self, X):
        if not sp.issparse(X) or X.ndim != 2:
            raise TypeError(f"X is a {type(X).__name__} of shape {getattr(X, 'shape', None)}; it must be a scipy sparse array "
                            "(n_users, n_items)")
        X = checked(X, "X").tocsr()
        with np.errstate(over="ignore"):
            X = sp.csr_array((_numbers(X.data, "X").astype(np.float32), X.indices.copy(), X.indptr.copy()), shape=X.shape)
        if X.nnz and not (np.isfinite(X.data).all() and X.data.min() >= 0):
            raise ValueError(f"X has entries from {X.data.min()} to {X.data.max()}; weights must be finite and 0 or more")
        X.sum_duplicates()
        X.eliminate_zeros()
        if not X.nnz:
            raise ValueError("X has no positive entries; there is nothing to train on")
        return X

    @property
    def _threads(self):
        return 1 if self.loss == "softmax" else None        # beside those of BLAS

    def _epoch(self, X, callback):
        epoch, done, total = len(self.loss_curve_), 0, 0.0
        rng = self._rng(epoch)
        counts = np.bincount(X.indices, minlength=X.shape[1])
        negatives = embedding.Alias((counts + 1)**self._setting("popularity"))      # + 1: any item can be drawn
        batches = self._of_users if self.loss == "softmax" else self._of_pairs
        for pairs, loss in batches(X, counts, negatives, rng):
            done += pairs
            total += loss
            if callback and callback(Progress(self, epoch, done, X.nnz, total / done)):
                self.loss_curve_.append(total / done)
                return True
        self.loss_curve_.append(total / done)
        return False

    # Softmax: users whole, so that one product of matrices has all their scores.  BLAS has the cores for these; all else here
    # is on one thread, since threads of two kinds that wait for each other's work take longer than the work.

    def _of_users(self, X, counts, negatives, rng):
        """Steps on all pairs of some users at a time; yields the number of pairs and the loss of each."""
        users = np.flatnonzero(np.diff(X.indptr))
        rng.shuffle(users)
        ends = np.cumsum(np.diff(X.indptr)[users])
        batch = (ends - 1) // self.batch_size           # by where a user's last pair falls
        everything, negatives_each = self._takes_all(X.shape[1]), self._setting("negatives")
        share = counts if negatives_each == "batch" else (counts + 1)**self._setting("popularity")
        log_share = np.log(np.maximum(share, np.finfo(np.float64).tiny) / share.sum())
        for some in np.split(users, np.flatnonzero(np.diff(batch)) + 1):
            theirs = X[some]
            if everything:
                items, weight = np.arange(X.shape[1]), np.zeros(X.shape[1], np.float32)
            else:
                drawn = theirs.indices if negatives_each == "batch" else negatives.draw(negatives_each, rng)
                items, times = np.unique(np.concatenate([drawn, theirs.indices]), return_inverse=True)
                times = np.bincount(times[:len(drawn)], minlength=len(items))
                with np.errstate(divide="ignore"):      # -inf: one that was not drawn is nobody's negative
                    weight = (np.log(times) - np.log(len(drawn)) - log_share[items]).astype(np.float32)
            yield theirs.nnz, self._softmax_step(some, theirs, items, weight)

    def _softmax_step(self, users, X, items, weight):
        """One step on the pairs X of these users beside these items, each counted e^weight times; returns the loss."""
        self._catch_up({"users": users, "items": items, "item_bias": items})
        tables = self.optimizer_.params
        p = tables["users"][users]
        q = tables["items"] if len(items) == X.shape[1] else tables["items"][items]
        row = np.repeat(np.arange(len(users)), np.diff(X.indptr))
        column = np.searchsorted(items, X.indices)
        scores = p @ q.T
        scores += tables["item_bias"][items]
        own = scores[row, column]
        scores += weight
        scores[row, column] = -np.inf                   # no item of a user is a negative of the user's others
        top = np.maximum(scores.max(axis=1), np.maximum.reduceat(own, X.indptr[:-1]))
        scores -= top[:, None]
        others = np.exp(scores, out=scores)
        others_sum = others.sum(axis=1)[row]
        own_exp = np.exp(own - top[row])
        all_sum = own_exp + others_sum
        loss = float(X.data @ (np.log(all_sum) + top[row] - own))
        slope = others
        slope *= np.add.reduceat(X.data / all_sum, X.indptr[:-1])[:, None]
        slope[row, column] = -X.data * (others_sum / all_sum)
        dp, dq = slope @ q, slope.T @ p
        decay = np.float32(self._setting("regularization"))
        dp += decay * np.add.reduceat(X.data, X.indptr[:-1])[:, None] * p
        dq += decay * np.bincount(column, X.data, len(items)).astype(q.dtype)[:, None] * q
        self.optimizer_.step({"users": RowGradient(users, dp), "items": RowGradient(items, dq),
                              "item_bias": RowGradient(items, slope.sum(axis=0))})
        return loss

    # BPR and WARP: pairs in any order, each against an item of its own.

    def _of_pairs(self, X, counts, negatives, rng):
        """Steps on some pairs at a time; yields the number of pairs and the loss of each."""
        users = np.repeat(np.arange(X.shape[0], dtype=np.int32), np.diff(X.indptr))
        keys = users * np.int64(X.shape[1]) + X.indices
        order = rng.permutation(X.nnz)
        for start in range(0, X.nnz, self.batch_size):
            batch = order[start:start + self.batch_size]
            yield len(batch), self._pairs_step(users[batch], X.indices[batch], X.data[batch], keys, negatives, rng)

    def _pairs_step(self, users, items, weights, keys, negatives, rng):
        """One step on these pairs, where `keys` has all there are; returns the loss."""
        each = self._setting("negatives")
        drawn = negatives.draw((len(users), each), rng)
        compared = self._bpr if self.loss == "bpr" else self._warp
        self._catch_up({"users": users, "items": np.append(drawn, items), "item_bias": np.append(drawn, items)})
        users, items, others, weights, slope, loss = compared(users, items, weights, drawn, keys)
        tables = self.optimizer_.params
        p = embedding.gather(tables["users"], users)
        q, r = (embedding.gather(tables["items"], rows) for rows in (items, others))
        decay = (np.float32(self._setting("regularization")) * weights)[:, None]
        slope = slope[:, None]
        both = np.concatenate([items, others])
        self.optimizer_.step({
            "users": RowGradient(users, slope * (r - q) + decay * p),
            "items": RowGradient(both, np.concatenate([decay * q - slope * p, decay * r + slope * p])),
            "item_bias": RowGradient(both, np.concatenate([-slope[:, 0], slope[:, 0]])),
        })
        return loss

    def _bpr(self, users, items, weights, drawn, keys):
        """Triplets (user, item, other item) with their weights, and the loss: -log σ(score - other score), and its slope."""
        each = drawn.shape[1]
        users, items, weights = np.repeat(users, each), np.repeat(items, each), np.repeat(weights / np.float32(each), each)
        others = drawn.reshape(-1)
        kept = ~_among(keys, users, others, self._shape[1])
        users, items, weights, others = users[kept], items[kept], weights[kept], others[kept]
        ahead = self.predict(users, items) - self.predict(users, others)
        wrong = np.exp(-np.logaddexp(0, ahead))         # σ(-ahead)
        return users, items, others, weights, weights * wrong, float(weights @ np.logaddexp(0, -ahead))

    def _warp(self, users, items, weights, drawn, keys):
        """The same of the first item drawn that is no more than 1 behind: log(estimated rank) · (1 - score + other score)."""
        tables = self.optimizer_.params
        behind = 1 - self.predict(users, items)[:, None]
        behind = behind + embedding.dots(embedding.gather(tables["users"], users), None, tables["items"], drawn)
        behind += tables["item_bias"][drawn]
        near = behind > 0
        pair, draw = np.nonzero(near)
        near[pair, draw] = ~_among(keys, users[pair], drawn[pair, draw], self._shape[1])
        pair = np.flatnonzero(near.any(axis=1))
        draw = near[pair].argmax(axis=1)
        users, items, weights, others = users[pair], items[pair], weights[pair], drawn[pair, draw]
        rank = np.maximum((self._shape[1] - 1) // (draw + 1), 1)
        slope = weights * np.log(rank).astype(np.float32)
        return users, items, others, weights, slope, float(slope @ behind[pair, draw])


def _among(keys, users, items, n_items):
    """Which pairs (user, item) are among those with these rising keys, user · n_items + item."""
    wanted = users * np.int64(n_items) + items
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return keys[place] == wanted
