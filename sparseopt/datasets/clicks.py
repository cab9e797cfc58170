"""Readers of click logs: libsvm, tables of text, Parquet."""

import csv
import gzip
import itertools
import math
import re
import zlib
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from .._text import escaped, shown
from ._tables import named, open_parquet


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


def _parquet_rows(path):
    """The names of the columns, then the rows as texts, each with its place."""
    with open_parquet(path) as file:
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
            raise ValueError(f"there is no one column {shown(column)}; there are {named(names) if header else len(names)}")
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


def _opened(path, *mode, **how):
    return (gzip.open if str(path).endswith(".gz") else open)(path, *mode, **how)


def _chunk(values, columns, bounds, n_features):
    X = np.asarray(values, np.float32), np.asarray(columns, np.int32), np.asarray(bounds, np.int32)
    return sp.csr_array(X, shape=(len(bounds) - 1, n_features))
