"""Ratings of items by users, and counts of plays or purchases, with the ids of users and items."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ._checks import one_of
from ._ids import IdMap
from ._text import shown

Duplicates = Literal["last", "first", "mean", "sum", "max"]

_SPARSE = 4                     # ids that are spread wider than so many times their number are sorted.


@dataclass(frozen=True)
class Ratings:
    """Ratings of items by users. Users and items have numbers, and each number belongs to an id.

    The recommenders train on these, and then take and return ids. `ratings[positions]` are some of the ratings.

    Attributes
    ----------
    users, items : arrays of int32, shape (n,)
        The user and the item of each rating: numbers from 0, in the order of the ids.
    values : array of float64, shape (n,)
        The ratings; or counts, such as numbers of plays.
    times : None, or array of float64, shape (n,)
        The time of each rating, in seconds since 1970.
    user_ids, item_ids : arrays of int64 or of str (dtype object)
        The id of each user and of each item, sorted.
    counts : bool
        True if the values are counts, and False if they are ratings.
    columns : str
        What the reader took each column of the file for, in one line.
    left_out, merged : int
        How many rows the reader left out because a cell is empty, and how many because their pair came again.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.datasets import Ratings
    >>> ratings = Ratings(users=np.array([0, 0, 1]), items=np.array([0, 1, 1]), values=np.array([5.0, 2.0, 4.0]),
    ...                   times=None, user_ids=np.array([7, 9]), item_ids=np.array([10, 20]))
    >>> ratings.matrix().toarray()
    array([[5., 2.],
           [0., 4.]], dtype=float32)
    >>> ratings.where(ratings.users == 1).item_ids
    array([20])
    """

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    times: np.ndarray | None
    user_ids: np.ndarray
    item_ids: np.ndarray
    counts: bool = False
    columns: str = ""
    left_out: int = 0
    merged: int = 0

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        kind = "counts" if self.counts else "ratings"
        return f"Ratings({len(self)} {kind}, {len(self.user_ids)} users, {len(self.item_ids)} items)"

    @property
    def shape(self) -> tuple[int]:
        return (len(self.values),)

    def __getitem__(self, which: slice | npt.ArrayLike) -> "Ratings":
        """Return the ratings at some positions, or those that a mask selects. All numbers and ids stay.

        scikit-learn's splitters and searches select samples by this method.
        """
        if isinstance(which, tuple) and len(which) == 2 and which[1] is Ellipsis:       # as scikit-learn asks
            which = which[0]
        if not isinstance(which, slice):
            which = np.atleast_1d(which)
            which = which if which.size else which.astype(np.intp)          # NumPy makes floats of an empty list
        return self._at(which)

    def where(self, keep: np.ndarray) -> "Ratings":
        """Return the ratings that a mask of bools selects, without users and items that have no selected rating.

        Parameters
        ----------
        keep : array of bools, shape (n,)

        Returns
        -------
        Ratings
            Users and items have new numbers; their ids stay.
        """
        kept_users, users = numbered(self.users[keep])
        kept_items, items = numbered(self.items[keep])
        return replace(self._at(keep), users=users, items=items, user_ids=self.user_ids[kept_users],
                       item_ids=self.item_ids[kept_items])

    def matrix(self, which: slice | npt.ArrayLike = slice(None)) -> sp.csr_array:
        """Return the ratings as a matrix with a row for each user and a column for each item.

        If a user has rated an item several times, the last rating counts. Counts add up.

        Parameters
        ----------
        which : slice, array of integers or array of bools
            The ratings to take; the default takes all.

        Returns
        -------
        scipy.sparse.csr_array of float32, shape (len(user_ids), len(item_ids))
            The shape does not depend on `which`.
        """
        once = self._at(which).without_duplicates()
        shape = len(self.user_ids), len(self.item_ids)
        return sp.coo_array((once.values.astype(np.float32), (once.users, once.items)), shape=shape).tocsr()

    def without_duplicates(self, how: Duplicates | None = None) -> "Ratings":
        """Return the ratings with one rating for each pair of a user and an item.

        Parameters
        ----------
        how : None, "last", "first", "mean", "sum" or "max"
            Which rating counts. "last" and "first" go by the times, and without times by the order. Ratings of the same
            time keep their order. None stands for "sum" if the values are counts, else for "last".

        Returns
        -------
        Ratings
            A pair stands where its last rating stood, with the time of that rating; with "first", its first. Numbers
            and ids stay. `merged` grows by the number of ratings that are gone.

        Raises
        ------
        ValueError
            If how is not allowed.

        Examples
        --------
        >>> import numpy as np
        >>> from sparseopt.datasets import Ratings
        >>> ratings = Ratings(users=np.array([0, 0, 0]), items=np.array([0, 1, 0]), values=np.array([5.0, 2.0, 4.0]),
        ...                   times=None, user_ids=np.array([7]), item_ids=np.array([10, 20]))
        >>> ratings.without_duplicates().values, ratings.without_duplicates("mean").values
        (array([2., 4.]), array([2. , 4.5]))
        """
        how = check_rule(how, self.counts)
        pairs = self.users.astype(np.int64) * len(self.item_ids) + self.items
        ordered = np.sort(pairs)
        again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not len(again):
            return self
        order = np.flatnonzero(again[np.minimum(np.searchsorted(again, pairs), len(again) - 1)] == pairs)
        order = order[np.lexsort((pairs[order],) if self.times is None else (self.times[order], pairs[order]))]
        begins = np.flatnonzero(np.diff(pairs[order], prepend=-1))
        ends = np.append(begins[1:], len(order)) - 1
        kept, values = order[begins if how == "first" else ends], self.values.copy()
        if how in ("mean", "sum", "max"):
            values[kept] = (np.maximum if how == "max" else np.add).reduceat(values[order], begins)
            if how == "mean":
                values[kept] /= ends - begins + 1
        once = np.ones(len(self), bool)
        once[order], once[kept] = False, True
        return replace(replace(self, values=values)._at(once), merged=self.merged + len(order) - len(kept))

    def chosen(self, min_rating: float | None = None, unrated: float | None = None) -> "Ratings":
        """Return the pairs that show that a user likes an item, with a weight each, for `ImplicitFactorization`.

        =======  ======================================================  ==================================
        values   kept                                                    weight
        =======  ======================================================  ==================================
        ratings  at least min_rating, by default `default_min_rating()`  1
        counts   above 0                                                 1 + ln(count); 1 for counts till 1
        =======  ======================================================  ==================================

        Parameters
        ----------
        min_rating : None or float
            The least rating of a chosen item. Counts need None.
        unrated : None or float
            A value that counts as chosen, too: the user has turned to the item, and has not rated it. If min_rating is
            None, None stands for the result of `unrated()`.

        Returns
        -------
        Ratings
            The values are the weights. Users and items without a chosen pair are gone. A pair is there once.

        Raises
        ------
        ValueError
            If no pair is left, or the values are counts and min_rating is not None.

        Examples
        --------
        >>> import numpy as np
        >>> from sparseopt.datasets import Ratings
        >>> plays = Ratings(users=np.array([0, 0, 1]), items=np.array([0, 1, 1]), values=np.array([1.0, 0.0, 100.0]),
        ...                 times=None, user_ids=np.array([7, 9]), item_ids=np.array([10, 20]), counts=True)
        >>> plays.chosen().values.round(2)
        array([1.  , 5.61])
        """
        once = self.without_duplicates()
        if self.counts:
            if min_rating is not None:
                raise ValueError(f"min_rating (--min-rating) is {shown(min_rating)}, and the values are counts, not "
                                 "ratings; it must be left out")
            keep, weights = once.values > 0, 1 + np.log(np.maximum(once.values, 1))
        else:
            least = once.default_min_rating() if min_rating is None else min_rating
            keep, weights = once.values >= least, np.ones(len(once))
            unrated = once.unrated() if unrated is None and min_rating is None else unrated
            if unrated is not None:
                keep |= once.values == unrated
        if not keep.any():
            raise ValueError("no count is above 0; at least one must be" if self.counts else
                             f"no rating is at least {least:g}; there must be one, or min_rating (--min-rating) must "
                             "be lower")
        return replace(once, values=weights).where(keep)

    def default_min_rating(self) -> float:
        """Return four fifths of the highest rating: 4 where ratings go up to 5, and 8 where they go up to 10."""
        return float(np.round(0.8 * self.values.max(), 6))

    def unrated(self) -> float | None:
        """Return the value that stands for an item that the user has not rated, or None if there is no such value.

        All ratings must be whole, and some above 1.

        =====  ===========================================================  =============
        value  stands for no rating if                                      as in
        =====  ===========================================================  =============
        0      none is lower, and 0 comes more often than any other rating  Book-Crossing
        -1     no other is below 1                                          MyAnimeList
        =====  ===========================================================  =============
        """
        different, times = np.unique(self.values, return_counts=True)
        if self.counts or different[-1] <= 1 or len(different) < 2 or (different != np.round(different)).any():
            return None
        if different[0] == 0 and times[0] > times[1:].max():
            return 0.0
        return -1.0 if different[0] == -1 and different[1] >= 1 else None

    def _at(self, which):
        """The ratings at some positions, without new numbers."""
        return replace(self, users=self.users[which], items=self.items[which], values=self.values[which],
                       times=None if self.times is None else self.times[which])


def check_rule(how, counts):
    return ("sum" if counts else "last") if how is None else one_of("duplicates", how, "last", "first", "mean", "sum",
                                                                    "max")


def numbered(ids):
    """The different ids, sorted, and the number of each given id among the different ids."""
    ids = np.asarray(ids)
    least, most = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
    if most - least > _SPARSE * len(ids):
        different, numbers = np.unique(ids, return_inverse=True)
        return different, numbers.astype(np.int32)
    there = np.zeros(most - least + 1, bool)            # a table of all ids between is faster than a sort
    there[ids - least] = True
    numbers = np.cumsum(there, dtype=np.int32) - 1
    return (np.flatnonzero(there) + least).astype(ids.dtype), numbers[ids - least]


def id_map(known):
    """Return a map with rows 1, 2, 3, ... for ids. The ids differ from each other."""
    ids = IdMap("str" if known.dtype.kind == "O" else "int64")
    ids.rows(known)
    return ids


def places(known, ids):
    """Return the position of each id among known ids, or -1."""
    if known.dtype.kind != ids.dtype.kind:
        return np.full(len(ids), -1)
    return id_map(known).rows(ids, add=False) - 1


def renumbered(ratings, user_ids, item_ids):
    """Return ratings in which these ids have the first numbers, in their order, and other ids the next ones."""
    if ratings.user_ids is user_ids and ratings.item_ids is item_ids:
        return ratings
    user_ids, users = _joined(user_ids, ratings.user_ids)
    item_ids, items = _joined(item_ids, ratings.item_ids)
    return replace(ratings, users=users[ratings.users], items=items[ratings.items], user_ids=user_ids,
                   item_ids=item_ids)


def known_pairs(ratings, user_ids, item_ids):
    """Return the ratings of known users and items as a matrix, and which of all ratings these are."""
    users, items = (places(*_alike(known, ids))[numbers] for known, ids, numbers in (
        (user_ids, ratings.user_ids, ratings.users), (item_ids, ratings.item_ids, ratings.items)))
    known = (users >= 0) & (items >= 0)
    some = replace(ratings[known], users=users[known], items=items[known], user_ids=user_ids, item_ids=item_ids)
    return some.matrix(), known


def _joined(known, ids):
    """Return the known ids and then the new ones, and the place of each given id among all of these."""
    known, ids = _alike(known, ids)
    all_ids = id_map(known)
    place = all_ids.rows(ids) - 1
    return all_ids.keys(np.arange(1, all_ids.n_rows)), place


def _alike(known, ids):
    """Return two arrays of ids, both of integers or both of texts."""
    if known.dtype.kind != ids.dtype.kind:
        known, ids = (np.array(list(map(str, some.tolist())), object) for some in (known, ids))
    return known, ids
