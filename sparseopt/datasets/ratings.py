"""Ratings of items by users, and a reader of files in MovieLens' format."""

import math
import os
from array import array
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .._text import shown
from ._tables import named, open_parquet


@dataclass(frozen=True)
class Ratings:
    """Ratings of items by users, each with its time. Users and items have numbers, and each number belongs to an id.

    Attributes
    ----------
    users, items : arrays of int32, shape (n,)
        The user and the item of each rating: numbers from 0, in the order of the ids.
    values : array of float64, shape (n,)
        The ratings.
    times : array of int64, shape (n,)
        The time of each rating, in seconds since 1970.
    user_ids, item_ids : arrays of int64
        The id of each user and of each item, sorted.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.datasets import Ratings
    >>> ratings = Ratings(users=np.array([0, 0, 1]), items=np.array([0, 1, 1]), values=np.array([5.0, 2.0, 4.0]),
    ...                   times=np.array([1, 2, 3]), user_ids=np.array([7, 9]), item_ids=np.array([10, 20]))
    >>> ratings.matrix().toarray()
    array([[5., 2.],
           [0., 4.]], dtype=float32)
    >>> ratings.where(ratings.users == 1).item_ids
    array([20])
    """

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    times: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

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
        kept_users, users = _numbered(self.users[keep])
        kept_items, items = _numbered(self.items[keep])
        return Ratings(users, items, self.values[keep], self.times[keep], self.user_ids[kept_users],
                       self.item_ids[kept_items])

    def matrix(self, which: slice | npt.ArrayLike = slice(None)) -> sp.csr_array:
        """Return the ratings as a matrix with a row for each user and a column for each item.

        If a user has rated an item several times, only the last of these ratings counts, as in `latest`.

        Parameters
        ----------
        which : slice, array of integers or array of bools
            The ratings to take; the default takes all.

        Returns
        -------
        scipy.sparse.csr_array of float32, shape (len(user_ids), len(item_ids))
            The shape does not depend on `which`.
        """
        users, items, values, times = (array[which] for array in (self.users, self.items, self.values, self.times))
        last = _last_of_pairs(users, items, times)
        shape = len(self.user_ids), len(self.item_ids)
        return sp.coo_array((values[last].astype(np.float32), (users[last], items[last])), shape=shape).tocsr()

    def latest(self) -> "Ratings":
        """Return the last rating of each pair of a user and an item.

        If several ratings of a pair have the same time, the last of these in the arrays counts.

        Returns
        -------
        Ratings
            The order, the numbers and the ids stay.

        Examples
        --------
        >>> import numpy as np
        >>> from sparseopt.datasets import Ratings
        >>> ratings = Ratings(users=np.array([0, 0, 0]), items=np.array([0, 1, 0]), values=np.array([5.0, 2.0, 4.0]),
        ...                   times=np.array([1, 2, 3]), user_ids=np.array([7]), item_ids=np.array([10, 20]))
        >>> ratings.latest().values
        array([2., 4.])
        """
        last = _last_of_pairs(self.users, self.items, self.times)
        return replace(self, users=self.users[last], items=self.items[last], values=self.values[last],
                       times=self.times[last])


def _last_of_pairs(users, items, times):
    """The positions of the last rating of each pair of a user and an item, sorted."""
    order = np.lexsort((times, items, users))
    users, items, last = users[order], items[order], np.ones(len(order), bool)
    last[:-1] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    return np.sort(order[last])


_HEADER = "userId,movieId,rating,timestamp"
_CELLS = "which are an integer, an integer, a finite number and an integer"


def read_ratings(path: str | os.PathLike) -> Ratings:
    """Return the ratings of a file in the format of MovieLens (grouplens.org), such as `ratings.csv`.

    Parameters
    ----------
    path : str or path
        A text file whose first line is `userId,movieId,rating,timestamp`. Each other line has an integer, an integer, a
        finite number and an integer. A file whose name ends in .parquet is read as Parquet: it has these four columns,
        may have more columns, and needs the package pyarrow (the extra `parquet`).

    Returns
    -------
    Ratings
        In the order of the file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a line, or a row of a Parquet file, is malformed, or there is no rating. The message names the line or row.
    ImportError
        If pyarrow is needed and not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparseopt.datasets import read_ratings
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "ratings.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("userId,movieId,rating,timestamp\\n7,20,4.0,964982703\\n9,10,3.5,964982224\\n")
    ...     ratings = read_ratings(path)
    >>> ratings.users, ratings.items, ratings.values
    (array([0, 1], dtype=int32), array([1, 0], dtype=int32), array([4. , 3.5]))
    """
    users, items, values, times = (_parquet_ratings if str(path).lower().endswith(".parquet") else _csv_ratings)(path)
    if not len(values):
        raise ValueError(f"{path} has no ratings; a file must have at least one")
    user_ids, users = _numbered(users)
    item_ids, items = _numbered(items)
    return Ratings(users, items, np.array(values), np.array(times), user_ids, item_ids)


def _csv_ratings(path):
    users, items, values, times = array("q"), array("q"), array("d"), array("q")
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        if file.readline().strip() != _HEADER:
            raise ValueError(f"{path}, line 1: expected the header {_HEADER}")
        for number, line in enumerate(file, 2):
            if not line.strip():
                continue
            try:
                user, item, value, time = line.split(",")
                user, item, value, time = int(user), int(item), float(value), int(time)
                if not math.isfinite(value):
                    raise ValueError
                for column, cell in zip((users, items, values, times), (user, item, value, time), strict=True):
                    column.append(cell)
            except (ValueError, OverflowError):
                raise ValueError(f"{path}, line {number}: expected {_HEADER}, {_CELLS}; the line is "
                                 f"{shown(line.strip())}") from None
    return users, items, values, times


def _parquet_ratings(path):
    names = _HEADER.split(",")
    with open_parquet(path) as file:
        if any(file.schema_arrow.names.count(name) != 1 for name in names):
            raise ValueError(f"{path}: expected the columns {_HEADER}, each once; the file has "
                             f"{named(file.schema_arrow.names)}")
        table = file.read(names)
    columns = [table[name].to_numpy() for name in names]        # a column with missing integers becomes floats with NaN
    for column, name in zip(columns, names, strict=True):
        wrong = np.ones(len(column), bool) if column.dtype.kind not in "iuf" else ~np.isfinite(column)
        if name != "rating" and column.dtype.kind in "uf":
            wrong |= (column != np.trunc(column)) | ~(np.abs(column.astype(np.float64)) < 2.0**63)
        if wrong.any():
            row = wrong.argmax()
            raise ValueError(f"{path}, row {row + 1}: expected {_HEADER}, {_CELLS}; {name} is "
                             f"{shown(table[name][row].as_py())} ({table.schema.field(name).type})")
    return [column.astype(kind, copy=False) for column, kind in zip(columns, (np.int64, np.int64, np.float64, np.int64),
                                                                    strict=True)]


def _numbered(ids):
    """The different ids, sorted, and the number of each given id among the different ids."""
    different, numbers = np.unique(np.asarray(ids), return_inverse=True)
    return different, numbers.astype(np.int32)
