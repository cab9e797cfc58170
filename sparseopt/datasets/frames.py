"""Ratings from data frames: of pandas, of polars, of pyarrow, or from a dict of columns. None of these is imported."""

from collections.abc import Mapping
from datetime import date, datetime, time, timezone
from numbers import Real
from typing import Any

import numpy as np

from .._checks import flag
from .._ratings import Duplicates, Ratings, check_rule, numbered
from .._text import listed, shown
from . import _columns
from .ratings import _time_units
from .ratings import _times as _times_of_cells

_EXACT = 2**53                  # floats of this size and more do not hold every integer.


def interactions(frame: Any, user: str, item: str, rating: str | None = None, time: str | None = None,
                 weights: bool = False, duplicates: Duplicates | None = None) -> Ratings:
    """Return the ratings, or the counts of plays or purchases, of a data frame.

    Parameters
    ----------
    frame : data frame, or mapping from names to columns
        A DataFrame of pandas or polars, a Table of pyarrow, or a dict of arrays or lists. No column may have missing
        values.
    user, item : str
        The names of the columns of users and items. Ids are integers or texts, also in columns of categories. Floats
        are taken for integers if all of them are whole.
    rating : None or str
        The name of the column of ratings, which are finite numbers. None stands for a count of 1 in each row.
    time : None or str
        The name of the column of times. Numbers are seconds, milliseconds, microseconds or nanoseconds since 1970,
        told by their size. Dates, timestamps and texts such as 2000-09-05T06:53:25 are of UTC if they have no zone.
    weights : bool
        True if the column `rating` has counts, such as numbers of plays.
    duplicates : None, "last", "first", "mean", "sum" or "max"
        Which rating counts if a pair of a user and an item comes again, as in `Ratings.without_duplicates`: by default
        the last, and the sum of counts.

    Returns
    -------
    Ratings
        In the order of the frame, each pair once. The recommenders train on these. `chosen()` of ratings has the pairs
        that `ImplicitFactorization` learns from.

    Raises
    ------
    TypeError, ValueError
        If a parameter or a column is not as described above. The message names the column and the row, from 0.

    Examples
    --------
    >>> from sparseopt.datasets import interactions
    >>> from sparseopt.models import ImplicitFactorization
    >>> bought = interactions({"who": ["ann", "ann", "bob"], "what": ["tea", "jam", "tea"]}, user="who", item="what")
    >>> bought.user_ids, bought.item_ids
    (array(['ann', 'bob'], dtype=object), array(['jam', 'tea'], dtype=object))
    >>> model = ImplicitFactorization(dim=2, regularization=0.01).fit(bought)
    >>> model.recommend("bob", n=1, seen=bought)[0]
    array(['jam'], dtype=object)
    """
    flag("weights", weights)
    if duplicates is not None:
        check_rule(duplicates, False)
    if weights and rating is None:
        raise ValueError("weights is True and rating is None; rating must name the column of the counts")
    named = {"user": user, "item": item, "rating": rating, "time": time}
    given = {role: name for role, name in named.items() if name is not None or role in ("user", "item")}
    if len(set(map(str, given.values()))) < len(given):
        said = ", ".join(f"{role}={shown(name)}" for role, name in given.items())
        raise ValueError(f"one column is named for two things: {said}")
    columns = {role: _column(frame, role, name) for role, name in given.items()}
    n = len(columns["user"])
    for role, column in columns.items():
        if len(column) != n:
            raise ValueError(f"column {shown(given[role])} ({role}) has {len(column)} rows and column {shown(user)} "
                             f"has {n}; all columns must have the same length")
    if not n:
        raise ValueError("frame has no rows; it must have at least one")
    (user_ids, users), (item_ids, items) = (_ids(f"column {shown(given[role])} ({role})", columns[role])
                                            for role in ("user", "item"))
    values = np.ones(n) if rating is None else _ratings(f"column {shown(rating)} (rating)", columns["rating"])
    times = None if time is None else _times(f"column {shown(time)} (time)", columns["time"])
    said = "; ".join(f"{'weight' if weights and role == 'rating' else role}: {name}" for role, name in given.items())
    return Ratings(users, items, values, times, user_ids, item_ids, weights or rating is None, said).without_duplicates(
        duplicates)


def _column(frame, role, name):
    """Return a column as an array of one dimension without missing values."""
    if not isinstance(name, str):
        raise TypeError(f"{role} is {shown(name)}; it must be the name of a column")
    if hasattr(type(frame), "collect"):         # of the type, since pandas has columns as attributes of a frame
        raise TypeError(f"frame is a {type(frame).__name__}, which is not computed yet; it must be frame.collect()")
    named = "column_names" if hasattr(type(frame), "column_names") else "columns"
    names = frame if isinstance(frame, Mapping) else getattr(frame, named, None)
    if names is None or not hasattr(frame, "__getitem__"):
        raise TypeError(f"frame is a {type(frame).__name__}; it must be a data frame, or a dict of columns")
    names = list(names)
    if names.count(name) != 1:
        raise ValueError(f"{role} is {shown(name)}, and frame has {names.count(name) or 'no'} such "
                         f"{'columns' if names.count(name) else 'column'}; the columns are {listed(names)}")
    try:
        column = frame[name]
        missing, found = _missing(column), np.asarray(column)
        if found.dtype.kind == "T" or (isinstance(column, list | tuple) and _converted(found.dtype.kind, column)):
            found = np.asarray(column, dtype=object)
    except Exception as error:          # polars has classes of its own
        raise TypeError(f"column {shown(name)} ({role}) of the {type(frame).__name__} cannot be read as an array "
                        f"({type(error).__name__}: {shown(str(error), 160)[1:-1]}); frame must be a data frame in "
                        "memory, or a dict of columns") from error
    if found.ndim != 1:
        raise ValueError(f"column {shown(name)} ({role}) has shape {found.shape}; it must have one dimension")
    if missing is None:
        missing = _missing_in(found)
    if missing.any():
        raise ValueError(f"column {shown(name)} ({role}) has {missing.sum()} missing values, the first in row "
                         f"{missing.argmax()}; such rows must be left out, or the values filled in")
    return found


def _converted(kind, cells):
    """Return whether NumPy made texts of other cells of a list, or numbers of bools."""
    return kind == "U" or (kind in "iuf" and any(isinstance(one, bool | np.bool_) for one in cells))


def _missing(column):
    """Which values of a column are missing, or None if the column is an array or a list."""
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.getmaskarray(column) | _missing_in(column.data)
    for method in ("isna", "is_null"):
        if hasattr(column, method):
            missing = np.asarray(getattr(column, method)(), dtype=bool)
            found = getattr(column, "is_nan", None)             # polars tells these from null
            if found is not None and str(getattr(column, "dtype", "")).startswith("Float"):
                missing = missing | np.asarray(found().fill_null(True), dtype=bool)
            return missing
    return None


def _missing_in(array):
    if array.dtype.kind in "mM":
        return np.isnat(array)
    if array.dtype.kind == "f":
        return np.isnan(array)
    if array.dtype.kind == "O":
        return np.fromiter((one is None or bool(isinstance(one, float) and one != one) for one in array), bool,
                           len(array))
    return np.zeros(len(array), bool)


def _ids(place, column):
    """Return the different ids, sorted, and the number of each row's id."""
    if column.dtype.kind == "O":
        kinds = {type(one) for one in column.tolist()}
        if kinds and all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds):
            try:
                column = column.astype(np.int64)
            except OverflowError:
                raise ValueError(f"{place} has integers outside int64; ids must be integers of int64, or "
                                 "texts") from None
        elif not all(issubclass(kind, str) for kind in kinds):
            at = next((row for row, one in enumerate(column.tolist()) if type(one) is not type(column[0])), 0)
            raise TypeError(f"{place} has {shown(column[at])} in row {at}; ids must all be integers or all be texts. "
                            "str makes texts of other values")
    if column.dtype.kind == "f":
        column = column.astype(np.promote_types(column.dtype, np.float64))      # float16 cannot hold _EXACT
        odd = (column != np.floor(column)) | (np.abs(column) >= _EXACT)
        if odd.any():
            raise ValueError(f"{place} has {column[odd][0]} in row {odd.argmax()}; ids must be integers or texts")
        column = column.astype(np.int64)
    if column.dtype.kind == "u" and len(column) and column.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{place} has {column.max()} in row {column.argmax()}; ids must be integers of int64, or "
                         "texts")
    if column.dtype.kind in "iu":
        return numbered(column.astype(np.int64))
    if column.dtype.kind not in "OUT":
        raise TypeError(f"{place} has dtype {column.dtype}; ids must be integers or texts")
    texts = list(map(str, column.tolist()))
    different = sorted(set(texts))
    number = dict(zip(different, range(len(different)), strict=True))
    return np.array(different, object), np.fromiter(map(number.__getitem__, texts), np.int32, len(texts))


def _ratings(place, column):
    if column.dtype.kind == "O":
        column = _numbers(place, column)                        # such as decimal numbers
    if column.dtype.kind not in "biuf":
        raise TypeError(f"{place} has {shown(column[:1].tolist()[0])} in row 0, of dtype {column.dtype}; ratings must "
                        "be numbers")
    column = column.astype(np.float64)
    if not np.isfinite(column).all():
        at = int(np.isfinite(column).argmin())
        raise ValueError(f"{place} has {column[at]} in row {at}; ratings must be finite")
    return column


def _numbers(place, column):
    numbers = np.empty(len(column))
    for row, one in enumerate(column.tolist()):
        try:
            if isinstance(one, str | bytes):
                raise TypeError
            numbers[row] = one
        except (TypeError, ValueError, OverflowError):
            raise TypeError(f"{place} has {shown(one)} in row {row}; ratings must be numbers within float64") from None
    return numbers


def _times(place, column):
    """Return seconds since 1970."""
    if column.dtype.kind == "M":
        return column.astype("datetime64[us]").astype(np.int64) / 1e6
    if column.dtype.kind in "iuf":
        if not np.isfinite(column).all():
            raise ValueError(f"{place} has {column[~np.isfinite(column)][0]}; times must be finite")
        return _time_units(column.astype(np.float64))
    values = column.tolist()
    if column.dtype.kind in "OUT" and all(isinstance(one, date) for one in values):
        return np.array([_seconds(one) for one in values])
    if column.dtype.kind in "OUT" and all(isinstance(one, str) for one in values):
        texts = list(dict.fromkeys(values))
        code = dict(zip(texts, range(len(texts)), strict=True))

        def wrong(row, text, allowed):
            return ValueError(f"{place} has {shown(text)} in row {row}; it must be {allowed}")

        codes = np.fromiter(map(code.__getitem__, values), np.int64, len(values))
        return _times_of_cells(_columns.Column(codes, texts), np.ones(len(values), bool), wrong)
    if column.dtype.kind == "O" and all(isinstance(one, Real) and not isinstance(one, bool) for one in values):
        return _times(place, column.astype(np.float64))
    row = next((row for row, one in enumerate(values) if type(one) is not type(values[0])), 0)
    raise TypeError(f"{place} has {shown(values[row])} in row {row}, of dtype {column.dtype}; times must all be "
                    "numbers, all be dates or all be texts of dates")


def _seconds(moment):
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
