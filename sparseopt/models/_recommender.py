"""The base of the recommenders: tables of users and items that can grow, recommendations, and similar items."""

from numbers import Integral
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .. import embedding, init
from .._kernels import rowplan
from .._ratings import Ratings, known_pairs, renumbered
from .._rows import Rows
from .._text import shown
from .._typing import Self
from ..gradients import checked, row_numbers
from ._base import Callback
from ._neighbours import nearest
from ._places import Placed

_SCORES = 1 << 23           # scores that are computed at a time, which bounds the memory


class Recommender(Placed):
    """A model with the tables "users", "items" and "item_bias". A score is a product of two rows, plus a bias."""

    _axes: ClassVar = {"users": ("user", "dim"), "items": ("item", "dim"), "item_bias": ("item",)}
    _may_be_none: ClassVar = frozenset()       # of epochs and batch_size
    _spread = 1e-4          # approximate standard deviation of the product of two new vectors

    user_ids_: np.ndarray
    item_ids_: np.ndarray

    def fit(self, X: Ratings | sp.sparray | sp.spmatrix, callback: Callback | None = None) -> Self:
        """Train new vectors for the users and items of a matrix.

        After an error the model is as before.

        Parameters
        ----------
        X : Ratings, or scipy sparse array of shape (n_users, n_items)
            As the class describes. `sparseopt.datasets` makes Ratings from a file by `read_ratings`, and from a data
            frame by `interactions`. Each user of Ratings must have a pair in X.
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
        ratings, X = self._first(X)
        X = self._checked(X)
        self._check_settings(X)
        self._know(None)                # a signal may leave new tables: without ids rather than with those of before
        self._start(X)
        self._know(ratings)
        for _ in range(self._n_epochs):
            if self._train(X, callback):
                break
        self._warn_if_useless(X)
        return self

    def partial_fit(self, X: Ratings | sp.sparray | sp.spmatrix, callback: Callback | None = None) -> Self:
        """Train the present vectors for one more epoch. New users and items get new vectors.

        Parameters
        ----------
        X : Ratings, or scipy sparse array of shape (n_users, n_items)
            In Ratings, ids that the model does not know are new users and items. If known ids are integers and those of
            X are texts, all become texts. In a matrix, the first rows and columns are the known users and items.
            Further rows and columns are new users and items.
        callback : None or callable
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `fit`, and if X has fewer rows or columns than the model has users or items. If the model knows ids
            and X is a matrix with new users or items, which have no ids, or the other way round.
        """
        _check_callback(callback)
        begun = self._is_fitted
        if not begun:
            ratings, X = self._first(X)
        elif isinstance(X, Ratings):
            if not self._knows_ids:
                raise ValueError("X is Ratings, and the model was fitted to a matrix, so it knows no ids; X must be a "
                                 "matrix")
            self._check_ratings(X)
            ratings = renumbered(X, self.user_ids_, self.item_ids_)
            _check_users(ratings, self._shape[0])
            X = ratings.matrix()
        else:
            ratings = None
        X = self._checked(X)
        self._check_settings(X)
        if not begun:
            self._start(X)
            self._know(ratings)
        known = self._shape
        if X.shape[0] < known[0] or X.shape[1] < known[1]:
            raise ValueError(f"X has shape {X.shape}; the model knows {known[0]} users and {known[1]} items, so X must "
                             "have at least as many rows and columns")
        if X.shape != known:
            if self._knows_ids and ratings is None:
                raise ValueError(f"X has shape {X.shape}; the model knows {known[0]} users and {known[1]} items by "
                                 "their ids, and new ones in a matrix have no ids. X must be Ratings")
            known_ids = {} if ratings is None else {"user_ids_": ratings.user_ids, "item_ids_": ratings.item_ids}
            self._grow(self._rows(*X.shape), known_ids)
        elif ratings is not None:
            self._know(ratings)
        self._train(X, callback)
        return self

    def recommend(self, users: npt.ArrayLike, n: int = 10,
                  seen: Ratings | sp.sparray | sp.spmatrix | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the n items with the highest scores for each user, and the scores. The highest comes first.

        Parameters
        ----------
        users : int or str, or array of these, shape (k,)
            The ids of users, if the model was fitted to Ratings; else the numbers of rows.
        n : int
            The number of items for each user, 1 or more.
        seen : None, Ratings, or scipy sparse array of shape (n_users, n_items)
            The items of a user's pairs are not recommended to that user. Usually this is the X of the training.

        Returns
        -------
        items : array of integers or str, shape (n,) or (k, n)
            The ids of items if the model knows ids, else the numbers of columns. If fewer than n items are left for a
            user, -1 stands at the end; or None among ids that are texts.
        scores : array of floats, of the same shape
            The scores of `predict`, and -inf where there is no item.

        Raises
        ------
        TypeError, ValueError, IndexError
            If a parameter is not as described above, if there is no such user, or if the model is not fitted.

        Examples
        --------
        The examples of the class show a call.
        """
        self._check_fitted()
        single, numbers = np.ndim(users) == 0, self._numbers("users", users)
        _check_count("n", n, self._shape[1])
        items, scores = self._recommended(numbers, n, seen)
        items = self._item_ids(items)
        return (items[0], scores[0]) if single else (items, scores)

    def _recommended(self, numbers, n, seen):
        """Return the numbers of the best items for the rows of users, and the scores."""
        n_items = self._shape[1]
        if isinstance(seen, Ratings):
            seen = known_pairs(seen, self.user_ids_, self.item_ids_)[0] if self._knows_ids else seen.matrix()
        if seen is not None:
            if not sp.issparse(seen) or seen.shape != self._shape:
                raise TypeError(f"seen is a {type(seen).__name__} of shape {getattr(seen, 'shape', None)}; it must be "
                                f"Ratings or a scipy sparse array of shape {self._shape}")
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
        return items, scores

    def similar_items(self, item: int | str, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Return the n items whose vectors have the highest cosine with the vector of an item. The nearest comes first.

        Parameters
        ----------
        item : int or str
            The id of an item if the model knows ids, else the number of a column.
        n : int
            From 1 to the number of other items.

        Returns
        -------
        items : array of integers or str, shape (n,)
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
        return self._item_ids(rows[0]), cosines[0]

    def _own(self, items, name, values):
        """Return the items of someone who was not trained on, and one value for each item or None, both checked."""
        self._check_fitted()
        given = np.ravel(np.asarray(items))
        items = self._numbers("items", items)
        different, first = np.unique(items, return_index=True)
        if not len(items) or len(different) < len(items):
            again = np.setdiff1d(np.arange(len(items)), first)[:1]
            what = f"has {shown(given[again].tolist()[0])} twice" if len(items) else "is empty"
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
        return self._item_ids(found), scores

    @property
    def _shape(self):
        return self._n_rows("users"), self._n_rows("items")

    @property
    def _knows_ids(self):
        return hasattr(self, "user_ids_")

    def _know(self, ratings):
        """Keep the ids of users and items, or none if the model was fitted to a matrix."""
        if ratings is not None:
            self.user_ids_, self.item_ids_ = ratings.user_ids, ratings.item_ids
        elif self._knows_ids:
            del self.user_ids_, self.item_ids_

    def _first(self, X):
        """Return the X of a new model as Ratings, or None if it is a matrix; and as a matrix."""
        if not isinstance(X, Ratings):
            return None, X
        self._check_ratings(X)
        _check_users(X, 0)
        return X, X.matrix()

    def _held_out(self, X, y):
        """Return the X of `score`, checked, as a matrix."""
        self._check_fitted()
        check_no_y(y)
        if isinstance(X, Ratings):
            self._check_ratings(X)
        X = self._checked(self._as_matrix("X", X))
        if X.shape != self._shape:
            raise other_shape(X, self._shape)
        return X

    def _check_ratings(self, ratings):
        """Raise ValueError if the values of Ratings are not those that the model learns."""
        if not len(ratings):
            raise ValueError("X has no ratings; it must have at least one")
        for name in "user", "item":
            numbers, ids = getattr(ratings, f"{name}s"), getattr(ratings, f"{name}_ids")
            if not isinstance(ids, np.ndarray) or ids.dtype not in (np.int64, object):
                raise TypeError(f"{name}_ids of X are {shown(ids)}; they must be an array of int64, or of str with "
                                "dtype object")
            if len(set(ids.tolist())) < len(ids):
                raise ValueError(f"{name}_ids of X are {shown(ids)}; each must come once")
            if numbers.min() < 0 or numbers.max() >= len(ids):
                raise ValueError(f"{name}s of X have numbers from {numbers.min()} to {numbers.max()}; there are "
                                 f"{len(ids)} {name}_ids")

    def _item_ids(self, numbers):
        """Return the ids of items, if the model knows ids. -1 stays, or becomes None among texts."""
        if not self._knows_ids:
            return numbers
        found = self.item_ids_[numbers]
        found[numbers < 0] = None if found.dtype.kind == "O" else -1
        return found

    def _numbers_of_ids(self, name, ids):
        """Return the numbers of ids of users or items."""
        asked = np.atleast_1d(np.asarray(ids)).ravel()
        which = "user" if name.startswith("user") else "item"
        known = getattr(self, f"{which}_ids_")
        kept = self.__dict__.setdefault("_lookups", {}).get(which)
        if kept is None or kept[0] is not known:
            kept = self._lookups[which] = known, dict(zip(known.tolist(), range(len(known)), strict=True))
        wanted = asked.tolist() if asked.dtype.kind in "iufUTO" else []
        numbers = np.fromiter((kept[1].get(one, -1) for one in wanted), np.int64, len(wanted))
        if len(numbers) < len(asked) or (numbers < 0).any():
            at = int((numbers < 0).argmax()) if wanted else 0
            raise ValueError(f"{name} has {shown(asked[at:at + 1].tolist()[0])} at position {at}, which is no {which} "
                             f"that the model knows; it must be an id such as {shown(known[:1].tolist()[0])}")
        return numbers

    def _as_matrix(self, name, X):
        """Return X, or the matrix of Ratings, whose users and items the model must know."""
        if not isinstance(X, Ratings):
            return X
        if not self._knows_ids:
            return X.matrix()
        matrix, known = known_pairs(X, self.user_ids_, self.item_ids_)
        if not known.all():
            first = int(known.argmin())
            raise ValueError(f"{name} has {(~known).sum()} ratings of users or items that the model does not know, the "
                             f"first at position {first}: user {shown(X.user_ids.tolist()[X.users[first]])}, item "
                             f"{shown(X.item_ids.tolist()[X.items[first]])}; it must have known ones alone")
        return matrix

    def _numbers(self, name, numbers):
        """Return the numbers of users or items, flat and checked."""
        if self._knows_ids:
            return self._numbers_of_ids(name, numbers)
        flat = row_numbers(np.asarray(numbers), name)
        rowplan.check(name, name.rstrip("s"), flat, self._shape[0] if name.startswith("user") else self._shape[1])
        return flat

    def _pairs(self, users, items):
        self._check_fitted()
        users, items = self._numbers("users", users), self._numbers("items", items)
        if len(users) != len(items):
            raise ValueError(f"users has {len(users)} numbers and items has {len(items)}; they must be pairs")
        return users, items

    def _fitted(self):
        ids = {name: getattr(self, f"{name}_").tolist() for name in ("user_ids", "item_ids") if self._knows_ids}
        return {**super()._fitted(), **ids}

    def _restore(self, metadata):
        super()._restore(metadata)
        if {"user_ids", "item_ids"} <= set(metadata):
            users, items = (np.array(metadata[name], object if isinstance(metadata[name][0], str) else np.int64)
                            for name in ("user_ids", "item_ids"))
            if (len(users), len(items)) != self._shape:
                raise ValueError(f"it has {len(users)} ids of users and {len(items)} of items for tables of "
                                 f"{self._shape} rows")
            self.user_ids_, self.item_ids_ = users, items

    def _check_settings(self, X):
        self._check_integers(**{name: least for name, least in {"dim": 1, "epochs": 0, "batch_size": 1}.items()
                                if name not in self._may_be_none or getattr(self, name) is not None})
        self._check_tables_parameter()
        self._check_numbers("weight_decay", *(["regularization"] if self.regularization is not None else []), zero=True)

    def _make_optimizer(self):
        if callable(self.optimizer) and self.weight_decay:
            raise ValueError(f"weight_decay is {shown(self.weight_decay)} and optimizer is a callable, which sets the "
                             "decay itself; weight_decay must be 0")
        return super()._make_optimizer(weight_decay=self.weight_decay)

    def _start(self, X):
        self._set({**self._new(self._rows(*X.shape), self._make_optimizer()), "loss_curve_": []})

    def _warn_if_useless(self, X):
        """Warn after `fit` if the vectors tell users or items apart no longer."""

    def _rows(self, n_users, n_items):
        """Return the rows of the tables. A row starts with the same values however many rows there are."""
        seed, scale = self._seed(), float(np.sqrt(self._spread / np.sqrt(self.dim)))
        return {"users": Rows(n_users, self.dim, init=init.Normal(scale, seed=[seed, 0])),
                "items": Rows(n_items, self.dim, init=init.Normal(scale, seed=[seed, 1])),
                "item_bias": Rows(n_items, None)}

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
    return TypeError(f"X is a {type(X).__name__} of shape {getattr(X, 'shape', None)}; it must be Ratings, or a scipy "
                     "sparse array (n_users, n_items). datasets.read_ratings(path) makes Ratings from a file, and "
                     "datasets.interactions(frame, user, item) from a data frame or a dict of columns")


def other_shape(X, shape):
    """The error for a matrix to score whose users and items are not those of the model."""
    return ValueError(f"X has shape {X.shape}; the model has {shape[0]} users and {shape[1]} items, so X must have as "
                      "many rows and columns. A split of the rows of a matrix cuts users apart: split Ratings by "
                      "evaluation.TimeSplit, cv=TimeSplit()")


def _check_users(ratings, known):
    """Raise ValueError if a user after the known ones has no pair."""
    without = known + np.flatnonzero(np.bincount(ratings.users, minlength=len(ratings.user_ids))[known:] == 0)
    if len(without):
        raise ValueError(f"X has no pair of {len(without)} of its {len(ratings.user_ids) - known} new users, the first "
                         f"is {shown(ratings.user_ids[without].tolist()[0])}; nothing shows what they like. A split "
                         "must not cut users apart: evaluation.TimeSplit leaves pairs of each user in the training. "
                         "X.where(mask) drops users without pairs")


def check_no_y(y):
    if y is not None:
        raise TypeError(f"y is {shown(y)}; it must be None. A recommender has no y: the ratings are in X")


def _check_callback(callback):
    if callback is not None and not callable(callback):
        raise TypeError(f"callback is a {type(callback).__name__}; it must be None or callable. A recommender has no "
                        "y: the ratings are the entries of X")


def _check_count(name, value, most):
    if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} is {shown(value)}; it must be an integer from 1 to {most}")
