"""The base of the recommenders: tables of users and items that can grow, recommendations, and similar items."""

from numbers import Integral
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .. import _memory, embedding
from .._kernels import rowplan
from .._text import shown
from .._typing import Self
from ..gradients import checked, row_numbers
from ..optimizers import Optimizer
from ._base import Callback, Model
from ._growing import grown
from ._neighbours import nearest

_SCORES = 1 << 23           # scores that are computed at a time, which bounds the memory


class Recommender(Model):
    """A model with the tables "users", "items" and "item_bias". A score is a product of two rows, plus a bias."""

    _axes: ClassVar = {"users": ("user", "dim"), "items": ("item", "dim"), "item_bias": ("item",)}
    _spread = 1e-4          # approximate standard deviation of the product of two new vectors

    def fit(self, X: sp.sparray | sp.spmatrix, callback: Callback | None = None) -> Self:
        """Train new vectors for the users and items of a matrix.

        After an error the model is as before.

        Parameters
        ----------
        X : scipy sparse array, shape (n_users, n_items)
            As the class describes. `sparseopt.datasets.read_ratings(path).matrix()` makes one from a file.
        callback : None or callable
            Called after every batch with a `sparseopt.models.Progress`. A true result ends the training.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            If X or a parameter of the model is not as described.
        """
        _check_callback(callback)
        X = self._checked(X)
        self._check_settings(X)
        self._start(X)
        for _ in range(self.epochs):
            if self._epoch(X, callback):
                break
        return self

    def partial_fit(self, X: sp.sparray | sp.spmatrix, callback: Callback | None = None) -> Self:
        """Train the present vectors for one more epoch. New users and items get new vectors.

        Parameters
        ----------
        X : scipy sparse array, shape (n_users, n_items)
            The first rows and columns are the known users and items. Further rows and columns are new users and items.
        callback : None or callable
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `fit`, and if X has fewer rows or columns than the model has users or items.
        """
        _check_callback(callback)
        X = self._checked(X)
        self._check_settings(X)
        if not hasattr(self, "optimizer_"):
            self._start(X)
        known = self._shape
        if X.shape[0] < known[0] or X.shape[1] < known[1]:
            raise ValueError(f"X has shape {X.shape}; the model knows {known[0]} users and {known[1]} items, so X must "
                             "have at least as many rows and columns")
        if X.shape != known:
            self._grow(*X.shape)
        self._epoch(X, callback)
        return self

    def recommend(self, users: npt.ArrayLike, n: int = 10,
                  seen: sp.sparray | sp.spmatrix | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the n items with the highest scores for each user, and the scores. The highest comes first.

        Parameters
        ----------
        users : int, or array of integers, shape (k,)
        n : int
            The number of items for each user, 1 or more.
        seen : None or scipy sparse array, shape (n_users, n_items)
            The stored entries of a user's row are not recommended to that user. Usually this is the X of the training.

        Returns
        -------
        items : array of integers, shape (n,) or (k, n)
            -1 stands at the end if fewer than n items are left for a user.
        scores : array of floats, of the same shape
            The scores of `predict`, and -inf beside -1.

        Raises
        ------
        TypeError, ValueError, IndexError
            If a parameter is not as described above, if there is no such user, or if the model is not fitted.

        Examples
        --------
        The examples of the class show a call.
        """
        self._check_fitted()
        n_items = self._shape[1]
        single, numbers = np.ndim(users) == 0, self._numbers("users", users)
        _check_count("n", n, n_items)
        if seen is not None:
            if not sp.issparse(seen) or seen.shape != self._shape:
                raise TypeError(f"seen is a {type(seen).__name__} of shape {getattr(seen, 'shape', None)}; it must be "
                                f"a scipy sparse array of shape {self._shape}")
            seen = checked(seen, "seen").tocsr()
        self._catch_up()
        items, scores = np.empty((len(numbers), n), np.int64), np.empty((len(numbers), n), np.float32)
        at_once = max(1, _SCORES // n_items)
        for start in range(0, len(numbers), at_once):
            some = numbers[start:start + at_once]
            all_scores = self._scores(some)
            if seen is not None:
                theirs = seen[some]
                all_scores[np.repeat(np.arange(len(some)), np.diff(theirs.indptr)), theirs.indices] = -np.inf
            items[start:start + at_once], scores[start:start + at_once] = highest(all_scores, n)
        items[np.isneginf(scores)] = -1
        return (items[0], scores[0]) if single else (items, scores)

    def similar_items(self, item: int, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Return the n items whose vectors have the highest cosine with the vector of an item. The nearest comes first.

        Parameters
        ----------
        item : int
        n : int
            From 1 to the number of other items.

        Returns
        -------
        items : array of integers, shape (n,)
        cosines : array of floats, shape (n,)

        Raises
        ------
        TypeError, ValueError, IndexError
            If there is no such item, if n is out of range, or if the model is not fitted.
        """
        self._check_fitted()
        if np.ndim(item):
            raise TypeError(f"item is an array of shape {np.shape(item)}; it must be one item's number")
        row = self._numbers("item", item)
        _check_count("n", n, self._shape[1] - 1)
        self._catch_up()
        vectors = self.optimizer_.params["items"]
        rows, cosines = nearest(vectors, vectors[row], n, [row])
        return rows[0], cosines[0]

    def _own(self, items, name, values):
        """Return the items of someone who was not trained on, and one value for each item or None, both checked."""
        self._check_fitted()
        items = self._numbers("items", items)
        different, counts = np.unique(items, return_counts=True)
        if not len(items) or len(different) < len(items):
            what = f"has {different[counts > 1][0]} twice" if len(items) else "is empty"
            raise ValueError(f"items {what}; it must have at least one item, and each item once")
        if values is not None:
            values = np.asarray(values)
            if values.shape != items.shape or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
                raise ValueError(f"{name} is {shown(values)}; it must be None or {len(items)} finite numbers, one for "
                                 "each item")
            values = values.astype(np.float64)
        return items, values

    def _best(self, scores, items, n):
        """Return the n items with the highest scores, and the scores, without some items."""
        _check_count("n", n, self._shape[1])
        scores[items] = -np.inf
        found, scores = (rows[0] for rows in highest(scores[None].astype(np.float32), n))
        found[np.isneginf(scores)] = -1
        return found, scores

    @property
    def _shape(self):
        tables = self.optimizer_.params
        return len(tables["users"]), len(tables["items"])

    def _numbers(self, name, numbers):
        """Return the numbers of users or items, flat and checked."""
        flat = row_numbers(np.asarray(numbers), name)
        rowplan.check(name, name.rstrip("s"), flat, self._shape[0] if name.startswith("user") else self._shape[1])
        return flat

    def _pairs(self, users, items):
        self._check_fitted()
        users, items = self._numbers("users", users), self._numbers("items", items)
        if len(users) != len(items):
            raise ValueError(f"users has {len(users)} numbers and items has {len(items)}; they must be pairs")
        return users, items

    def _check_settings(self, X):
        self._check_integers(dim=1, epochs=0, batch_size=1)
        self._check_numbers("weight_decay", *(["regularization"] if self.regularization is not None else []), zero=True)

    def _make_optimizer(self, tables):
        if callable(self.optimizer) and self.weight_decay:
            raise ValueError(f"weight_decay is {shown(self.weight_decay)} and optimizer is a callable, which sets the "
                             "decay itself; weight_decay must be 0")
        return super()._make_optimizer(tables, weight_decay=self.weight_decay)

    def _start(self, X):
        self.optimizer_: Optimizer = self._make_optimizer(self._new_tables(*X.shape, self._rng()))
        self.loss_curve_: list[float] = []

    def _new_tables(self, n_users, n_items, rng):
        """Return tables of untrained rows."""
        scale = np.sqrt(self._spread / np.sqrt(self.dim))
        return {"users": _memory.normal((n_users, self.dim), scale=scale, seed=rng),
                "items": _memory.normal((n_items, self.dim), scale=scale, seed=rng),
                "item_bias": _memory.zeros(n_items)}

    def _grow(self, n_users, n_items):
        known = self._shape
        new_rows = self._new_tables(n_users - known[0], n_items - known[1], self._rng(*known, n_users, n_items))
        tables = {}
        for name, rows in new_rows.items():
            old = self.optimizer_.params[name]
            tables[name] = _memory.empty((len(old) + len(rows), *rows.shape[1:]))
            tables[name][len(old):] = rows
        self.optimizer_ = grown(self.optimizer_, tables)

    def _scores(self, users):
        """Return the scores of all items for these users, shape (k, n_items)."""
        tables = self.optimizer_.params
        scores = embedding.gather(tables["users"], users) @ tables["items"].T
        scores += tables["item_bias"]
        return scores


def highest(scores, n):
    """Return columns and values of the n highest numbers of each row. Ties are in the order of their columns."""
    columns = np.argpartition(-scores, n - 1, axis=1)[:, :n]
    found = np.take_along_axis(scores, columns, 1)
    order = np.lexsort((columns, -found), axis=1)
    return np.take_along_axis(columns, order, 1), np.take_along_axis(found, order, 1)


def not_sparse(X):
    """The error for an X that is no sparse matrix."""
    return TypeError(f"X is a {type(X).__name__} of shape {getattr(X, 'shape', None)}; it must be a scipy sparse array "
                     "(n_users, n_items). datasets.read_ratings(path).matrix() makes one from a file; np.unique(ids, "
                     "return_inverse=True) numbers the users and items of a table")


def _check_callback(callback):
    if callback is not None and not callable(callback):
        raise TypeError(f"callback is a {type(callback).__name__}; it must be None or callable. A recommender has no "
                        "y: the ratings are the entries of X")


def _check_count(name, value, most):
    if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} is {shown(value)}; it must be an integer from 1 to {most}")
