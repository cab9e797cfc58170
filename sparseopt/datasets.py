"""Real input to try things on, and readers for what users have."""

import ast
import math
import re
import sysconfig
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

_FRAME = re.compile(r"\*\*\* ?(START|END) OF TH[EI]S? PROJECT GUTENBERG[^\n]*")


def python_documentation():
    """Return the documentation that every Python carries: the language reference and the docstrings of its library.

    Returns
    -------
    list of str
        One text a topic of the reference (`pydoc_data.topics`), and one a module of the standard library: all docstrings of
        it, read from the source without importing it. Modules whose source is not installed are left out.

    Examples
    --------
    >>> from sparseopt import datasets
    >>> texts = datasets.python_documentation()
    >>> any("with statement" in text for text in texts)
    True
    """
    from pydoc_data.topics import topics

    texts = [topics[name] for name in sorted(topics)]
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        folders = path.relative_to(library).parts[:-1]
        if {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "pydoc_data"}.intersection(folders):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):      # a template, or a file for another version
            continue
        nodes = (n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef))
        docstrings = [text for text in map(ast.get_docstring, nodes) if text]
        if docstrings:
            texts.append("\n\n".join(docstrings))
    return texts


def read_texts(paths):
    """Return the contents of text files, without the frame that Project Gutenberg puts around its books.

    Parameters
    ----------
    paths : sequence of str or path
        UTF-8 text; bytes that are none become U+FFFD.

    Returns
    -------
    list of str

    Raises
    ------
    OSError
        If a file cannot be read.
    ValueError
        If a file is empty, or holds a byte of 0, as text never does.
    """
    texts = []
    for path in paths:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise ValueError(f"{path}, line {line}: a byte of 0; it must be plain text")
        marks = {match[1]: match for match in _FRAME.finditer(text)}
        start = marks["START"].end() if "START" in marks else 0
        text = text[start:marks["END"].start() if "END" in marks else None]
        if not text.strip():
            raise ValueError(f"{path} is empty; it must hold text")
        texts.append(text)
    return texts


@dataclass(frozen=True)
class Ratings:
    """Ratings of items by users, each with its time; users and items by number, and the ids that belong to the numbers.

    Attributes
    ----------
    users, items : arrays of int32, shape (n,)
        Numbers from 0, in the order of the ids.
    values : array of float64, shape (n,)
    times : array of int64, shape (n,)
        Seconds since 1970.
    user_ids, item_ids : arrays of int64
        The id of each number.

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

    def __len__(self):
        return len(self.values)

    def where(self, keep):
        """Return the ratings that a mask of bools keeps, without the users and items that have none left."""
        kept_users, users = _numbered(self.users[keep])
        kept_items, items = _numbered(self.items[keep])
        return Ratings(users, items, self.values[keep], self.times[keep], self.user_ids[kept_users], self.item_ids[kept_items])

    def matrix(self, which=slice(None)):
        """Return the ratings at these positions (all) as a CSR array of float32, always of all users × all items.

        Repeated ratings of an item by a user are added up.
        """
        shape = len(self.user_ids), len(self.item_ids)
        values = self.values[which].astype(np.float32)
        return sp.coo_array((values, (self.users[which], self.items[which])), shape=shape).tocsr()


_RATINGS_HEAD = "userId,movieId,rating,timestamp"


def read_ratings(path):
    """Return the ratings of a file in the format of MovieLens (grouplens.org): `ratings.csv`.

    Parameters
    ----------
    path : str or path
        A head line `userId,movieId,rating,timestamp`, and lines of an integer, an integer, a number and an integer.

    Returns
    -------
    Ratings
        In the order of the file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        Naming the first line that is not as said above; or if there is no rating.

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
    users, items, values, times = array("q"), array("q"), array("d"), array("q")
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        if file.readline().strip() != _RATINGS_HEAD:
            raise ValueError(f"{path}, line 1: expected the head line {_RATINGS_HEAD}")
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
                raise ValueError(f"{path}, line {number}: expected {_RATINGS_HEAD}, which are an integer, an integer, a finite "
                                 f"number and an integer; it has {line.strip()[:80]!r}") from None
    if not values:
        raise ValueError(f"{path} has no ratings; it must have at least one line below the head line")
    user_ids, users = _numbered(users)
    item_ids, items = _numbered(items)
    return Ratings(users, items, np.array(values), np.array(times), user_ids, item_ids)


def _numbered(ids):
    """The different ids, rising, and the number of each id among them."""
    different, numbers = np.unique(np.asarray(ids), return_inverse=True)
    return different, numbers.astype(np.int32)
