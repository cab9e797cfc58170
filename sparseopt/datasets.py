"""Real input to try things on, and readers for what users have."""

import ast
import csv
import gzip
import itertools
import math
import re
import sysconfig
import zlib
from array import array
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.special import expit

from . import embedding
from ._text import escaped, listed, shown

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


class ClickLog:
    r"""A click log made by a known model: so it is known how well the best possible model predicts it.

    A row has one value for each field (a site, an advertisement, a city), drawn from a Zipf distribution and hashed to a
    feature. Its click is drawn with the probability

    .. math:: p = \frac{1}{1 + e^{-z}}, \qquad z = b + \sum_{j} w_j + \sum_{j < k} \langle v_j, v_k \rangle

    over its features j, where most w are 0, and the pairs, of some fields, are there only if asked for.

    Parameters
    ----------
    n_features : int
        Columns of X, to which the values of all fields are hashed; some collide.
    fields : int
        Values a row. The fields have from 10 to 100,000 different values.
    zipf : float
        The value of rank r is drawn in proportion to r^-zipf.
    density : float
        Share of features whose w is not 0.
    scale : float
        Standard deviation of the sum of a row's w.
    click_rate : float
        Mean of p, about; b is set so.
    dim : int
        Length of the v; 0 for a model without pairs.
    crossed : int
        The pairs are those of the first so many fields.
    seed : int
        Of the model. Rows of one model are drawn with seeds of their own.

    Raises
    ------
    ValueError
        If something is not as said above.

    Attributes
    ----------
    weights : array of floats, shape (n_features,)
        The w.
    factors : array of floats, shape (n_features, dim)
        The v.
    intercept : float
        The b.

    Examples
    --------
    >>> from sparseopt import datasets
    >>> log = datasets.ClickLog(n_features=1000, fields=5)
    >>> for X, y, p in log.rows(20_000, chunk=10_000, seed=1):
    ...     print(X.shape, X.nnz, abs(y.mean() - p.mean()) < 0.02)
    (10000, 1000) 50000 True
    (10000, 1000) 50000 True
    """

    def __init__(self, n_features=2**20, fields=30, zipf=1.5, density=0.2, scale=1.2, click_rate=0.2, dim=0, crossed=6, seed=0):
        integers = {"n_features": (n_features, 1), "fields": (fields, 1), "dim": (dim, 0), "crossed": (crossed, 2)}
        for name, (value, least) in integers.items():
            if not value >= least or value != int(value):
                raise ValueError(f"{name} is {shown(value)}; it must be an integer of at least {least}")
        if not 0 < density <= 1:
            raise ValueError(f"density is {shown(density)}; it must be above 0 and at most 1")
        if not 0 < click_rate < 1:
            raise ValueError(f"click_rate is {shown(click_rate)}; it must be above 0 and below 1")
        for name, value in (("zipf", zipf), ("scale", scale)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {shown(value)}; it must be finite and 0 or more")
        if dim and crossed > fields:
            raise ValueError(f"crossed is {crossed}; there are {fields} fields, so it must be at most that")
        rng = np.random.default_rng(seed)
        self.seed, self.crossed = seed, crossed
        sizes = np.geomspace(10, 100_000, fields).astype(int)
        self._columns = [rng.integers(n_features, size=size, dtype=np.int32) for size in sizes]
        self._values = [embedding.Alias(np.arange(1, size + 1) ** -float(zipf)) for size in sizes]
        self.weights = rng.standard_normal(n_features) * scale / math.sqrt(fields * density)
        self.weights[rng.random(n_features) >= density] = 0
        pairs = crossed * (crossed - 1) / 2         # whose sum has a standard deviation of 1
        self.factors = rng.standard_normal((n_features, dim)) * (pairs * max(dim, 1)) ** -0.25
        self.intercept = 0.0
        scores = self._scores(self._draw(20_000, rng))
        low, high = -50.0, 50.0
        for _ in range(50):
            self.intercept = (low + high) / 2
            too_low = expit(scores + self.intercept).mean() < click_rate
            low, high = (self.intercept, high) if too_low else (low, self.intercept)

    def rows(self, n_rows, chunk=100_000, seed=1):
        """Yield rows of the log, chunk by chunk: (X, y, p).

        Parameters
        ----------
        n_rows : int
        chunk : int
            Rows at a time. Other chunks are other rows.
        seed : int
            The same rows for the same seed; others for another, by the same model.

        Yields
        ------
        X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
            Ones; two values of a row that collide are two entries.
        y : array of int8, shape (chunk,)
            1 for a click, else 0.
        p : array of float64, shape (chunk,)
            The probability with which that was drawn.
        """
        if not 1 <= chunk * len(self._columns) < 2**31:
            raise ValueError(f"chunk is {shown(chunk)}; it must be at least 1, and make fewer than 2**31 values")
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(1, seed)))
        for start in range(0, n_rows, chunk):
            columns = self._draw(min(chunk, n_rows - start), rng)
            p = expit(self._scores(columns) + self.intercept)
            yield self._ones(columns), (rng.random(len(p)) < p).astype(np.int8), p

    def _draw(self, n, rng):
        fields = zip(self._columns, self._values, strict=True)
        return np.column_stack([columns[values.draw(n, rng)] for columns, values in fields])

    def _ones(self, columns):
        n, fields = columns.shape
        bounds = np.arange(0, columns.size + 1, fields, dtype=np.int32)
        return sp.csr_array((np.ones(columns.size, np.float32), columns.ravel(), bounds), shape=(n, len(self.weights)))

    def _scores(self, columns):
        scores = self.weights[columns].sum(axis=1)
        if self.factors.shape[1]:
            vectors = self.factors[columns[:, :self.crossed]]
            scores += ((vectors.sum(axis=1) ** 2).sum(axis=1) - (vectors**2).sum(axis=(1, 2))) / 2
        return scores


def read_clicks(path, format=None, **options):
    """Yield a click log from a file, chunk by chunk, for `partial_fit`: (X, y).

    Parameters
    ----------
    path : str or path
        Unpacked as it is read if it ends in .gz.
    format : None, "libsvm", "csv" or "parquet"
        None: "csv" if the name ends in .csv or .tsv (then .gz or not), "parquet" if it ends so, else "libsvm".
    **options
        Those of `read_libsvm`, `read_csv` or `read_parquet`.

    Yields
    ------
    X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
    y : array of floats, shape (chunk,)

    Raises
    ------
    OSError, TypeError, ValueError
        As `read_libsvm` and `read_csv`.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparseopt import datasets
    >>> from sparseopt.models import LogisticRegression
    >>> model = LogisticRegression()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "clicks.csv")
    ...     with open(path, "w") as file:
    ...         print("click,site,city", "1,a.com,Rome", "0,b.com,Oslo", "0,a.com,", sep="\\n", file=file)
    ...     for X, y in datasets.read_clicks(path, label="click", n_features=2**10):
    ...         model = model.partial_fit(X, y, classes=[0, 1])
    >>> X.shape, X.nnz, y
    ((3, 1024), 5, array([1., 0., 0.]))
    """
    readers = {"libsvm": read_libsvm, "csv": read_csv, "parquet": read_parquet}
    if format is not None and format not in readers:
        raise ValueError(f"format is {shown(format)}; it must be 'libsvm', 'csv', 'parquet' or None")
    if format is None:
        ending = re.search(r"\.([ct]sv|parquet)(\.gz)?$", str(path).lower())
        format = "libsvm" if not ending else "parquet" if ending[1] == "parquet" else "csv"
    return readers[format](path, **options)


_KEPT = 2**20                   # texts whose number or hash is remembered
_LARGEST = float(np.finfo(np.float32).max)
_LIBSVM = re.compile(rb"[^\s:#]+(?:[ \t]+\d+:[^\s:#]+)*")


def read_libsvm(path, n_features=2**20, chunk=100_000, first=1):
    """Yield the rows of a file in libsvm's format, `label column:value column:value ...`, chunk by chunk: (X, y).

    Parameters
    ----------
    path : str or path
        Unpacked as it is read if it ends in .gz. What follows a # is skipped, and so are empty lines.
    n_features : int
        Columns of X.
    chunk : int
        Rows at a time.
    first : 0 or 1
        The number of the first column in the file.

    Yields
    ------
    X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
    y : array of floats, shape (chunk,)

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a parameter is not as said above, or a line is not; it says which line.

    Examples
    --------
    See `read_clicks`.
    """
    _check_reader(n_features, chunk)
    if first not in (0, 1):
        raise ValueError(f"first is {shown(first)}; it must be 0 or 1")
    return _libsvm_chunks(path, n_features, chunk, first)


def _libsvm_chunks(path, n_features, chunk, first):
    with _opened(path, "rb") as file:
        lines = ((number, line.partition(b"#")[0].strip(b"\xef\xbb\xbf \t\r\n")) for number, line in _lines(path, file))
        lines = ((number, line) for number, line in lines if line)
        known = _Numbers()
        while part := list(itertools.islice(lines, chunk)):
            try:
                yield _libsvm_rows([line for _, line in part], n_features, first, known)
            except ValueError:
                for number, line in part:           # which one it was
                    try:
                        _libsvm_rows([line], n_features, first, known)
                    except ValueError as error:
                        raise ValueError(f"{path}, line {number}: {error}") from None
                raise


def _lines(path, file):
    number = 0
    try:
        for number, line in enumerate(file, start=1):
            yield number, line
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path}, line {number + 1}: {error}") from None


class _Numbers(dict):
    """The numbers that texts stand for: those seen before are found sooner than read again, and most will be."""

    def __missing__(self, text):
        number = float(text)
        if len(self) < _KEPT:
            self[text] = number
        return number


def _libsvm_rows(lines, n_features, first, known):
    for line in lines:
        if not _LIBSVM.fullmatch(line):
            raise ValueError(f"{shown(line[:80].decode(errors='replace'))}; it must be a label and column:value pairs")
    texts = b" ".join(lines).replace(b":", b" ").split()
    try:
        numbers = np.fromiter(map(known.__getitem__, texts), np.float64, len(texts))
    except ValueError as error:
        raise ValueError(f"{escaped(str(error), 160)}; labels and values must be numbers") from None
    bounds = np.cumsum([0, *(line.count(b":") for line in lines)])
    labels = 2 * bounds[:-1] + np.arange(len(lines))
    rest = np.delete(numbers, labels)
    columns, values = rest[::2] - first, rest[1::2]
    finite = np.abs(numbers) <= _LARGEST
    if not finite.all():
        raise ValueError(f"it has {numbers[~finite][0]}; labels and values must be finite in float32")
    if len(columns) and not (columns.min() >= 0 and columns.max() < n_features):
        outside = columns[(columns < 0) | (columns >= n_features)][0] + first
        raise ValueError(f"it has column {outside:.0f}; with n_features={n_features} they must be from {first} to "
                         f"{n_features - 1 + first}")
    return _chunk(values, columns, bounds, n_features), numbers[labels]


def read_csv(path, label=0, numbers=(), skip=(), n_features=2**20, chunk=100_000, delimiter=None, header=True):
    """Yield the rows of a table of text, its values hashed to features, chunk by chunk: (X, y).

    A value becomes the feature `crc32("column=value") % n_features`, where the column is its name, or its number in a file
    without names; it is the same in every file, process and version. An empty value is no feature.

    Parameters
    ----------
    path : str or path
        UTF-8 text; unpacked as it is read if it ends in .gz.
    label : str or int
        The column of the y, which must be a number: by name, or by position from 0.
    numbers : sequence of str or int
        Columns that hold numbers: each is one feature, `crc32("column") % n_features`, with the number as its value.
    skip : sequence of str or int
        Columns to leave out, such as the number of the row.
    n_features : int
        Columns of X.
    chunk : int
        Rows at a time.
    delimiter : None or str
        Between values; None is a tabulator if the name has .tsv in it, else a comma.
    header : bool
        Whether the first line has the columns' names.

    Yields
    ------
    X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
        Values that collide in a row are entries of their own.
    y : array of floats, shape (chunk,)

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a parameter is not as said above, or a line is not; it says which line.

    Examples
    --------
    See `read_clicks`.
    """
    if delimiter is None:
        delimiter = "\t" if ".tsv" in Path(path).suffixes else ","
    return _table_chunks(path, _csv_rows(path, delimiter), label, numbers, skip, n_features, chunk, header)


def read_parquet(path, label=0, numbers=(), skip=(), n_features=2**20, chunk=100_000):
    """Yield the rows of a Parquet file, chunk by chunk: (X, y). As `read_csv` of the same table; a null is an empty value.

    Needs the package pyarrow (the extra `parquet`). Parameters, errors: as `read_csv`.
    """
    return _table_chunks(path, _parquet_rows(path), label, numbers, skip, n_features, chunk, True)


def _table_chunks(path, rows, label, numbers, skip, n_features, chunk, header):
    _check_reader(n_features, chunk)
    if isinstance(numbers, str) or isinstance(skip, str):
        raise ValueError("numbers and skip must be lists of columns, not a string")
    return _chunks(path, rows, label, list(numbers), list(skip), n_features, chunk, header)


def _parquet(path):
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise ImportError("Parquet files need the package pyarrow: pip install 'sparseopt[parquet]'") from None
    try:
        return parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file: {escaped(str(error), 160)}") from None


def _parquet_rows(path):
    """The names of the columns, then the rows as texts, each with its place."""
    with _parquet(path) as file:
        yield "its columns", file.schema_arrow.names
        number = 0
        for batch in file.iter_batches():
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield f"row {number}", ["" if value is None else str(value) for value in row]


def _csv_rows(path, delimiter):
    with _opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            for row in reader:
                yield f"line {reader.line_num}", row
        except (ValueError, csv.Error, EOFError, zlib.error) as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _chunks(path, rows, label, numbers, skip, n_features, chunk, header):
    names = None
    indices, values, bounds, labels = [], [], [0], []
    known = {}                                          # hashes of values seen before: most of them will be again
    for place, row in rows:
        try:
            if names is None:
                names = row if header else list(map(str, range(len(row))))
                target, *special = _positions(path, names, header, [label, *numbers, *skip])
                number, left_out = set(special[:len(numbers)]), {target, *special[len(numbers):]}
                used = [(column, name) for column, name in enumerate(names) if column not in left_out]
                if header:
                    continue
            if not row:
                continue
            if len(row) != len(names):
                raise ValueError(f"it has {len(row)} values; the first line has {len(names)}")
            labels.append(_finite(row[target], names[target]))
            for column, name in used:
                value = row[column]
                if not value:
                    continue
                key = name if column in number else f"{name}={value}"
                values.append(_finite(value, name) if column in number else 1.0)
                feature = known.get(key)
                if feature is None:
                    feature = zlib.crc32(key.encode()) % n_features
                    if len(known) < _KEPT:
                        known[key] = feature
                indices.append(feature)
        except ValueError as error:
            raise ValueError(f"{path}, {place}: {error}") from None
        bounds.append(len(indices))
        if len(labels) == chunk:
            yield _chunk(values, indices, bounds, n_features), np.array(labels)
            indices, values, bounds, labels = [], [], [0], []
    if labels:
        yield _chunk(values, indices, bounds, n_features), np.array(labels)


def _positions(path, names, header, columns):
    """Where the columns stand that were given by name or position."""
    found = []
    for column in columns:
        if isinstance(column, str) and header and names.count(column) == 1:
            found.append(names.index(column))
        elif not isinstance(column, str) and 0 <= column < len(names):
            found.append(int(column))
        else:
            raise ValueError(f"there is no one column {shown(column)}; there are {_named(names) if header else len(names)}")
    return found


def _finite(text, name):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) <= _LARGEST:
        raise ValueError(f"column {escaped(name, 80)} has {shown(text)}; it must be a finite number of float32")
    return number


def _check_reader(n_features, chunk):
    if not 1 <= n_features < 2**31:
        raise ValueError(f"n_features is {shown(n_features)}; it must be from 1 to 2**31 - 1")
    if not chunk >= 1:
        raise ValueError(f"chunk is {shown(chunk)}; it must be at least 1")


def _named(columns):
    return listed(columns, show=lambda name: escaped(name, 80))


def _opened(path, *mode, **how):
    return (gzip.open if str(path).endswith(".gz") else open)(path, *mode, **how)


def _chunk(values, columns, bounds, n_features):
    X = np.asarray(values, np.float32), np.asarray(columns, np.int32), np.asarray(bounds, np.int32)
    return sp.csr_array(X, shape=(len(bounds) - 1, n_features))


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

        Of several ratings of an item by a user the last one counts, as in `latest`.
        """
        users, items, values, times = (array[which] for array in (self.users, self.items, self.values, self.times))
        last = _last_of_pairs(users, items, times)
        shape = len(self.user_ids), len(self.item_ids)
        return sp.coo_array((values[last].astype(np.float32), (users[last], items[last])), shape=shape).tocsr()

    def latest(self):
        """Return the ratings without those that a later one of the same user and item replaces.

        Of the same time, the last in order counts.

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
        return replace(self, users=self.users[last], items=self.items[last], values=self.values[last], times=self.times[last])


def _last_of_pairs(users, items, times):
    """The positions, rising, of the last rating of each pair of a user and an item."""
    order = np.lexsort((times, items, users))
    users, items, last = users[order], items[order], np.ones(len(order), bool)
    last[:-1] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    return np.sort(order[last])


_RATINGS_HEAD = "userId,movieId,rating,timestamp"
_RATINGS_CELLS = "which are an integer, an integer, a finite number and an integer"


def read_ratings(path):
    """Return the ratings of a file in the format of MovieLens (grouplens.org): `ratings.csv`.

    Parameters
    ----------
    path : str or path
        A head line `userId,movieId,rating,timestamp`, and lines of an integer, an integer, a number and an integer. Or, with
        a name that ends in .parquet, a Parquet file with these columns among others, which needs the package pyarrow (the
        extra `parquet`).

    Returns
    -------
    Ratings
        In the order of the file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        Naming a line, or a row of a Parquet file, that is not as said above; or if there is no rating.
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
        raise ValueError(f"{path} has no ratings; it must have at least one")
    user_ids, users = _numbered(users)
    item_ids, items = _numbered(items)
    return Ratings(users, items, np.array(values), np.array(times), user_ids, item_ids)


def _csv_ratings(path):
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
                raise ValueError(f"{path}, line {number}: expected {_RATINGS_HEAD}, {_RATINGS_CELLS}; it has "
                                 f"{shown(line.strip())}") from None
    return users, items, values, times


def _parquet_ratings(path):
    names = _RATINGS_HEAD.split(",")
    with _parquet(path) as file:
        if any(file.schema_arrow.names.count(name) != 1 for name in names):
            raise ValueError(f"{path}, its columns: expected {_RATINGS_HEAD}, each once; it has "
                             f"{_named(file.schema_arrow.names)}")
        table = file.read(names)
    columns = [table[name].to_numpy() for name in names]        # floats with NaN where an integer is missing
    for column, name in zip(columns, names, strict=True):
        wrong = np.ones(len(column), bool) if column.dtype.kind not in "iuf" else ~np.isfinite(column)
        if name != "rating" and column.dtype.kind in "uf":
            wrong |= (column != np.trunc(column)) | ~(np.abs(column.astype(np.float64)) < 2.0**63)
        if wrong.any():
            row = wrong.argmax()
            raise ValueError(f"{path}, row {row + 1}: expected {_RATINGS_HEAD}, {_RATINGS_CELLS}; its {name} is "
                             f"{shown(table[name][row].as_py())} ({table.schema.field(name).type})")
    return [column.astype(kind, copy=False) for column, kind in zip(columns, (np.int64, np.int64, np.float64, np.int64),
                                                                    strict=True)]


def _numbered(ids):
    """The different ids, rising, and the number of each id among them."""
    different, numbers = np.unique(np.asarray(ids), return_inverse=True)
    return different, numbers.astype(np.int32)
