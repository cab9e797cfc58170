"""A reader of files that hold ratings of items by users, or counts of plays or purchases."""

import contextlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone

import numpy as np

from .._checks import flag
from .._ratings import Duplicates, Ratings, check_rule, numbered
from .._text import escaped, listed, shown
from .._typing import FilePath
from . import _columns, _tables

Column = str | int | None

# Names of columns that are found without an option, in small letters without signs. The first that a file has counts.
_KNOWN = {
    "user": "user userid uid userhash usersha1 username reviewer reviewerid customer customerid member memberid "
            "visitor visitorid account accountid listener listenerid reader readerid session sessionid u",
    "item": "item itemid iid movie movieid film filmid book bookid isbn asin parentasin product productid artist "
            "artistid artistmbid artmbid song songid track trackid album albumid article articleid business businessid "
            "game gameid anime animeid recipe recipeid beer beerid video videoid show showid joke jokeid place placeid "
            "venue venueid stockcode sku i",
    "rating": "rating ratings bookrating score overall stars grade userrating movierating reviewscore reviewoverall "
              "preference liked like feedback label target value r",
    "weight": "weight weights plays play playcount nplays numplays count counts listens listencount clicks views "
              "purchases quantity qty freq frequency",
    "time": "timestamp time unixreviewtime unixtime datetime date ts createdat ratingtimestamp eventtime reviewdate "
            "invoicedate viewedat listenedat",
}
_KNOWN = {role: names.split() for role, names in _KNOWN.items()}
_TITLES = ["title", "name", "itemtitle", "movietitle", "booktitle", "songtitle", "productname", "artistname",
           "itemname", "trackname", "description"]
_ROLES = tuple(_KNOWN)
_ALL_KNOWN = {name for names in _KNOWN.values() for name in names if len(name) > 1}

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.0+)?")
_SLASHES = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})(?:[ T](\d{1,2}):(\d\d)(?::(\d\d))?)?")
_MISSING = {"", "na", "n/a", "nan", "null", "none", "\\n"}         # in small letters.
_SINCE_1973 = 1e8               # seconds since 1970: no rating is so high.
_MOST = 100                     # no scale of ratings goes further.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))        # from this size on, so many of the unit make a second.


def read_ratings(path: FilePath, columns: Mapping[str, Column] | None = None, sep: str | None = None,
                 header: bool | None = None, encoding: str = "utf-8", weights: bool = False,
                 duplicates: Duplicates | None = None) -> Ratings:
    """Return the ratings, or the counts of plays or purchases, of a file.

    The file is a delimited text, or JSON lines, or Parquet. The end of its name says which. A text or JSON lines may be
    packed by gzip.

    ===============  ================================================================================
    end of the name  read as
    ===============  ================================================================================
    .parquet         Parquet, with the package pyarrow (the extra `parquet`)
    .jsonl, .json    a JSON object on each line, whose keys are the names of columns
    any other        a delimited text; pyarrow reads it where that is installed, as it is much faster
    ===============  ================================================================================

    Columns are found by well-known names: userId, user_id, reviewerID, movieId, asin, ISBN, artistID, rating, overall,
    Book-Rating, plays, weight, timestamp, unixReviewTime and others. Case and signs do not matter. Without names, the
    columns are user, item, rating and time, in this order; two to four columns. The third is taken for something else
    in two cases:

    ===============================================  ==========================================
    third column without a name                      taken for
    ===============================================  ==========================================
    all are dates, or numbers of 10^8 or more        time; an error if there is a fourth column
    all are whole numbers from 1 on, some above 100  weight: counts
    ===============================================  ==========================================

    A column of weights is a column of counts. Without a column of ratings or of weights, each row counts 1. Ids are
    integers if all are integers, such as 7 or 7.0, without leading zeros. Else they are texts. Ratings between
    semicolons can have a comma as decimal point.

    Rows in which a cell of a used column is empty are left out. NA, N/A, NaN, null, None and \\N, in any case, count as
    empty in columns of ratings, weights and times. Among ids these words are ids like others, as somebody's name can be
    Null. If all other ids are integers, these words count as empty there too.

    Parameters
    ----------
    path : str or path
    columns : None or mapping
        Says which column is which: {"user": "who", "item": 2}. The keys are "user", "item", "rating" or "weight", and
        "time". A value is the name of a column or its position from 0; None says that there is no such column. Other
        columns are found by their names. In a file without names, no others are used.
    sep : None or str
        The separator. None finds it out: a comma, tab, ``::``, semicolon or ``|``.
    header : None or bool
        True if the first line of the text has names, and False if not. None finds it out.
    encoding : str
        The encoding of the text.
    weights : bool
        True if the values are counts, whatever the name of their column.
    duplicates : None, "last", "first", "mean", "sum" or "max"
        Which rating counts if a pair of a user and an item comes again, as in `Ratings.without_duplicates`.

    Returns
    -------
    Ratings
        In the order of the file, each pair once. Times are in seconds since 1970: numbers in milliseconds,
        microseconds or nanoseconds are told by their size. Dates of ISO 8601 without a time zone are of UTC. Dates such
        as 12/31/2009 7:49 are read if a number above 12 stands at the place of the day, and never at the other place.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a parameter is not allowed, a cell is malformed, or there is no rating. The message names the line or row.
    ImportError
        If pyarrow is needed and not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparseopt.datasets import read_ratings
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "ratings.dat")
    ...     with open(path, "w") as file:
    ...         _ = file.write("7::B0020::4::964982703\\n9::B0010::3.5::964982224\\n")
    ...     ratings = read_ratings(path)
    >>> ratings.user_ids, ratings.item_ids, ratings.values
    (array([7, 9]), array(['B0010', 'B0020'], dtype=object), array([4. , 3.5]))
    >>> ratings.columns
    'user: column 0; item: column 1; rating: column 2; time: column 3 (::, no header)'
    """
    check_reading(columns, sep, header, encoding, weights, duplicates)
    wanted = dict(columns or {})
    table = _Table(path, sep, header, encoding)
    roles = _roles(table, wanted)
    numbers = [roles[role] for role in ("user", "item", "time") if role in roles]
    used = dict(zip(roles, table.columns(list(roles.values()), numbers), strict=True))
    n = len(_codes(used["user"]))
    if not table.named and not wanted and "rating" in used:
        used, roles = _retaken(table, used, roles)
    if weights and "rating" in used:
        used, roles = ({"weight" if role == "rating" else role: one for role, one in kept.items()}
                       for kept in (used, roles))
    keep = np.ones(n, bool)
    for role, column in used.items():
        if isinstance(column, _columns.Column):
            empty = _empty(column.texts, role)
            if empty.any():
                keep &= ~empty[column.codes]
    if not keep.any():
        raise ValueError(f"{path} has no ratings; a file must have at least one row without empty cells")

    def cells(role, convert):
        return convert(used[role], keep, lambda row, text, allowed: table.wrong(row, role, roles[role], text, allowed))

    values = np.ones(int(keep.sum()))
    for role in {"rating", "weight"} & set(used):
        if table.layout and table.layout.separator == ";":          # which leaves the comma to the numbers: 3,5
            used[role] = used[role]._replace(texts=[_with_point(text, role) for text in used[role].texts])
        values = cells(role, _numbers)
    times = cells("time", _times) if "time" in used else None
    (user_ids, users), (item_ids, items) = (_ids(used[role], keep) for role in ("user", "item"))
    found = Ratings(users, items, values, times, user_ids, item_ids, "rating" not in used, table.said(roles),
                    int(n - len(values)))
    return found.without_duplicates(duplicates)


def check_reading(columns: Mapping[str, Column] | None, sep: str | None, header: bool | None, encoding: str,
                  weights: bool, duplicates: str | None) -> None:
    """Raise an error if an argument of `read_ratings` is not allowed. No file is read."""
    flag("weights", weights)
    if duplicates is not None:
        check_rule(duplicates, False)
    _tables.check(sep, header, encoding)
    if columns is None:
        return
    if not isinstance(columns, Mapping):
        raise TypeError(f"columns is {shown(columns)}; it must be a dict such as {{'user': 'who', 'item': 2}}")
    for role, column in columns.items():
        if role not in _ROLES or (column is not None and not isinstance(column, str | int)):
            raise ValueError(f"columns (--columns) has {shown(role)}: {shown(column)}; the keys must be of "
                             f"{', '.join(_ROLES)}, and the values names or positions of columns, or None")
    for role in ("user", "item"):
        if role in columns and columns[role] is None:
            raise ValueError(f"columns (--columns) has {role}: None; every file must have users and items")
    if columns.get("rating") is not None and columns.get("weight") is not None:
        raise ValueError("columns (--columns) has both a rating and a weight; the values must be one of these")


def read_titles(path: FilePath, encoding: str = "utf-8", by_name: bool = True) -> dict[str, str]:
    """Return a dict from the ids of items, as texts, to titles, from a file of one of the kinds of `read_ratings`.

    The ids are in a column with a well-known name of items, or the first; with by_name=False in the first. The titles
    are in a column with a well-known name of titles, or the first other one. If an item has several titles, as in a
    list of purchases, the most frequent counts.
    """
    table = _Table(path, None, None, encoding, _TITLES)
    folded = [_folded(name) for name in table.names] if table.named else []
    ids = next((folded.index(name) for name in _KNOWN["item"] if by_name and name in folded), 0)
    if folded and folded[ids] in _KNOWN["user"]:
        if not by_name:
            return {}
        raise ValueError(f"{path}: no column is known to be the item, and the first is {table.title(0)}; titles "
                         "(--titles) need a column of items, such as itemId")
    title = next((folded.index(name) for name in _TITLES if name in folded and folded.index(name) != ids),
                 1 if ids == 0 else 0)
    if table.layout:
        cells = ((row[ids].strip(), row[title].strip()) for _, row in _tables.rows(path, table.layout, encoding, False)
                 if len(row) > max(ids, title))
    else:
        cells = zip(*([column.texts[code] for code in column.codes.tolist()] for column in
                      map(_as_texts, table.columns([ids, title], []))), strict=True)
    found = Counter((one, text) for one, text in cells if text).most_common()
    return {str(as_integer(one)): text for (one, text), _ in reversed(found)}


def as_integer(text: str) -> int | str:
    """Return an id as the reader does where all ids are integers: 7 of "7" and of "7.0"; else the text as it is."""
    return int(text.partition(".")[0]) if _INTEGER.fullmatch(text) else text


def _as_texts(column):
    if isinstance(column, _columns.Column):
        return column
    different, codes = np.unique(column, return_inverse=True)
    return _columns.Column(codes, list(map(str, different.tolist())))


class _Table:
    """A file of one of the three kinds: its names, its columns, and the places of its cells."""

    def __init__(self, path, sep, header, encoding, more=()):
        known = _ALL_KNOWN.union(more)
        self.path, self.layout, self.encoding, self.named = path, None, encoding, True
        self.kind = {".parquet": "Parquet", ".jsonl": "JSON lines", ".json": "JSON lines"}.get(_tables.ending(path))
        if self.kind:
            if sep is not None or header is not None:
                name, option = ("sep", "--sep") if sep is not None else ("header", "--no-header")
                raise ValueError(f"{name} ({option}) is given, and {path} is read as {self.kind}; it must be left out")
            if self.kind == "Parquet":
                with _tables.open_parquet(path) as file:
                    self.names, self.first = tuple(file.schema_arrow.names), None
            else:
                self.names, self.first = _columns.json_names(path, encoding)
        else:
            self.layout = _tables.layout(path, sep, header, encoding, lambda name: _folded(name) in known)
            self.names, self.first, self.named = self.layout.names, self.layout.first, self.layout.header

    def columns(self, positions, numbers):
        if self.kind:
            names = [self.names[at] for at in positions]
            return (_columns.parquet_columns(self.path, names) if self.kind == "Parquet" else
                    _columns.json_columns(self.path, self.encoding, names))
        return _columns.text_columns(self.path, self.layout, self.encoding, positions, numbers)

    def said(self, roles):
        unused = [self.title(at) for at in range(len(self.names)) if at not in roles.values()]
        return ("; ".join(f"{role}: {self.title(at)}" for role, at in roles.items())
                + (f"; not used: {listed(unused, show=str)}" if unused else "") + f" ({self.layout or self.kind})")

    def title(self, at):
        return (escaped(self.names[at], 80) if self.named else "") or f"column {at}"

    def unfit(self, why):
        """An error for a file whose columns do not fit."""
        how = str(self.layout or self.kind)
        seen = f"; the first line is {shown(self.first, 160)} ({how})" if self.first is not None else f" ({how})"
        names = f"; the columns are {_tables.named(self.names)}" if self.named else ""
        return ValueError(f"{self.path}: {why}{seen}{names}; columns (--columns user=...,item=...,rating=...,time=...) "
                          "must say which is which by name or by position from 0"
                          + (", and sep (--sep), header (--no-header) and encoding (--encoding) how the text is built"
                             if self.layout else ""))

    def wrong(self, row, role, at, text, allowed):
        """An error for a cell."""
        place = f"row {row + 1}"
        if self.layout:
            place = f"line {_columns.line_of(self.path, self.layout, self.encoding, row)}"
        first = f"; the first line is {shown(self.first, 160)}" if self.first is not None else ""
        none = ", or say that there is none (time: None, or --columns time=)" if role == "time" else ""
        return ValueError(f"{self.path}, {place}: the {role} ({self.title(at)}) is {shown(text)}; it must be {allowed}"
                          f"{first}; columns (--columns {role}=...) can name another column for the {role}{none}")


def _folded(name):
    return re.sub(r"[\W_]", "", name.lower())


def _roles(table, wanted):
    """From the roles of columns to their positions."""
    roles = {role: _tables.position(table.path, table.names, column) for role, column in wanted.items()
             if column is not None}
    if table.named:
        folded = [_folded(name) for name in table.names]
        taken = set(roles.values())
        for role, known in _KNOWN.items():
            other = {"weight": "rating", "rating": "weight"}.get(role)
            if role in wanted or (other and other in roles):
                continue
            found = next((folded.index(name) for name in known if name in folded and folded.index(name) not in taken),
                         None)
            if found is not None:
                roles[role] = found
                taken.add(found)
    elif not wanted:
        if len(table.names) > 4:
            raise table.unfit(f"without names, two to four columns are user, item, rating and time, and the file has "
                              f"{len(table.names)}")
        roles = dict(zip(("user", "item", "rating", "time"), range(len(table.names)), strict=False))
    for role in ("user", "item"):
        if role not in roles:
            raise table.unfit(f"no column is known to be the {role}")
    places = list(roles.values())
    if len(set(places)) < len(places):
        raise table.unfit("one column is taken for two things: "
                          + ", ".join(f"{role}={table.title(at)}" for role, at in roles.items()))
    return {role: roles[role] for role in _ROLES if role in roles}


def _retaken(table, used, roles):
    """Columns and roles, where a third column without a name that can be no rating is taken for times or counts."""
    texts = [text for text in used["rating"].texts if not _missing(text)]
    numbers = np.array([_number(text) for text in texts])
    role = "rating"
    if texts and ((numbers >= _SINCE_1973).all() or (np.isnan(numbers).all() and not np.isnan(_time(texts[0])))):
        if "time" in roles:
            raise table.unfit("column 2 is taken for the rating, and has times: dates, or numbers of 10^8 or more")
        role = "time"
    elif texts and (numbers >= 1).all() and (numbers == np.round(numbers)).all() and numbers.max() > _MOST:
        role = "weight"
    return ({role if key == "rating" else key: one for key, one in kept.items()} for kept in (used, roles))


def _empty(texts, role):
    """Which texts of a column stand for nothing."""
    if role in ("rating", "weight", "time") or all(_INTEGER.fullmatch(text) or _missing(text) for text in texts):
        return np.fromiter(map(_missing, texts), bool, len(texts))
    empty = np.zeros(len(texts), bool)
    if "" in texts:
        empty[texts.index("")] = True
    return empty


def _missing(text):
    return len(text) <= 4 and text.lower() in _MISSING


def _codes(column):
    return column.codes if isinstance(column, _columns.Column) else column


def _number(text):
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def _with_point(text, role):
    """A number with a point for its comma. The comma of a count of 1,234 stays: thousands may stand before it."""
    decimals = r"(?!\d{3}$)\d+" if role == "weight" else r"\d+"
    return text.replace(",", ".") if re.fullmatch(rf"-?\d+,{decimals}", text) else text


def _numbers(column, keep, wrong):
    """The numbers of a column of ratings or counts."""
    if not isinstance(column, _columns.Column):
        return column[keep].astype(np.float64)
    numbers = np.array([_number(text) for text in column.texts])
    return _checked(column, numbers, keep, wrong, "a finite number")


def _checked(column, numbers, keep, wrong, allowed):
    bad = keep & ~np.isfinite(numbers)[column.codes]
    if bad.any():
        row = int(bad.argmax())
        raise wrong(row, column.texts[column.codes[row]], allowed)
    return numbers[column.codes[keep]]


def _times(column, keep, wrong):
    """Seconds since 1970."""
    if isinstance(column, _columns.Column):
        numbers = np.array([_time(text) for text in column.texts])
        if np.isnan(numbers).any():
            numbers = _slash_dates(column.texts, numbers)
        times = _checked(column, numbers, keep, wrong, "a number of seconds or milliseconds since 1970, or a date such "
                         "as 2000-09-05T06:53:25. 9/5/2000 and 9/5/2000 6:53 are read where a number above 12 in the "
                         "column shows which part is the day")
    else:
        times = column[keep].astype(np.float64)
    return _time_units(times)


def _time_units(times):
    """Seconds since 1970, from numbers of a unit that their size tells."""
    size = np.median(np.abs(times))
    return times / next((unit for least, unit in _UNITS if size >= least), 1)


def _time(text):
    number = _number(text)
    if not math.isnan(number) or not text[:4].isdecimal():
        return number
    text = text.removesuffix("Z").removesuffix(" UTC")
    try:                                # Python 3.10 takes only fractions of 3 or 6 digits
        found = datetime.fromisoformat(re.sub(r"\.(\d+)", lambda digits: f".{digits[1][:6]:0<6}", text))
    except ValueError:
        return math.nan
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def _slash_dates(texts, numbers):
    """The numbers with those of dates such as 12/31/2009 7:49, if the dates show which part is the day."""
    found = [(place, [int(part or 0) for part in match.groups()]) for place, text in enumerate(texts)
             if (match := _SLASHES.fullmatch(text))]
    days = [sum(parts[which] > 12 for _, parts in found) for which in (0, 1)]
    if (days[0] > 0) == (days[1] > 0):
        return numbers
    numbers = numbers.copy()
    for place, (first, second, year, *clock) in found:
        day, month = (first, second) if days[0] else (second, first)
        with contextlib.suppress(ValueError):
            numbers[place] = datetime(year, month, day, *clock, tzinfo=timezone.utc).timestamp()
    return numbers


def _ids(column, keep):
    """The different ids, sorted, and the number of each cell's id among these."""
    if not isinstance(column, _columns.Column):
        return numbered(column[keep].astype(np.int64))
    codes = column.codes[keep]
    seen = np.flatnonzero(np.bincount(codes, minlength=len(column.texts)))
    texts = [column.texts[code] for code in seen.tolist()] if len(seen) < len(column.texts) else column.texts
    integers = None
    if all(map(_INTEGER.fullmatch, texts)):
        with contextlib.suppress(OverflowError):            # some are outside int64
            integers = np.array([int(text.partition(".")[0]) for text in texts], np.int64)
    if integers is not None:
        ids, numbers = numbered(integers)
    else:
        ids = np.array(sorted(texts), object)
        places = dict(zip(ids.tolist(), range(len(ids)), strict=True))
        numbers = np.fromiter(map(places.__getitem__, texts), np.int32, len(texts))
    of_code = np.zeros(len(column.texts), np.int32)
    of_code[seen] = numbers
    return ids, of_code[codes]
