"""Readers of click logs: files of libsvm's format, tables of text, Parquet files."""

import csv
import gzip
import itertools
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from .._text import escaped, shown
from ._tables import named, open_parquet


def read_clicks(path: str | os.PathLike, format: Literal["libsvm", "csv", "parquet"] | None = None,
                **options: Any) -> Iterator[tuple[sp.csr_array, np.ndarray]]:
    """Yield a click log from a file, chunk by chunk, for `partial_fit`: (X, y).

    Parameters
    ----------
    path : str or path
        A file whose name ends in .gz is decompressed while reading (libsvm and csv).
    format : None, "libsvm", "csv" or "parquet"
        None takes the format from the end of the name, as the table shows.

        ==================================  =========
        end of the name                     format
        ==================================  =========
        .csv, .csv.gz, .tsv, .tsv.gz        "csv"
        .parquet, .parquet.gz               "parquet"
        any other                           "libsvm"
        ==================================  =========
    **options
        The options of `read_libsvm`, `read_csv` or `read_parquet`.

    Yields
    ------
    X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
    y : array of floats, shape (chunk,)

    Raises
    ------
    OSError
        If the file cannot be read.
    TypeError
        If an option is not one of the format's reader.
    ValueError
        If the format or an option is not allowed, or a line is malformed; the message names the line.

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


_KEPT = 2**20                   # at most so many texts are kept with their number or hash
_LARGEST = float(np.finfo(np.float32).max)
_LIBSVM = re.compile(rb"[^\s:#]+(?:[ \t]+\d+:[^\s:#]+)*")


def read_libsvm(path: str | os.PathLike, n_features: int = 2**20, chunk: int = 100_000,
                first: Literal[0, 1] = 1) -> Iterator[tuple[sp.csr_array, np.ndarray]]:
    """Yield the rows of a file in libsvm's format, `label column:value column:value ...`, chunk by chunk: (X, y).

    Parameters
    ----------
    path : str or path
        A file whose name ends in .gz is decompressed while reading. Comments after a # and empty lines are skipped.
    n_features : int
        Number of columns of X.
    chunk : int
        Number of rows in a chunk.
    first : 0 or 1
        Number of the first column in the file.

    Yields
    ------
    X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
    y : array of floats, shape (chunk,)

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a parameter is not allowed, or a line is malformed; the message names the line.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparseopt import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "clicks.svm")
    ...     with open(path, "w") as file:
    ...         _ = file.write("1 1:0.5 4:2\\n0 2:1\\n")
    ...     (X, y), = datasets.read_libsvm(path, n_features=4)
    >>> X.toarray(), y
    (array([[0.5, 0. , 0. , 2. ],
           [0. , 1. , 0. , 0. ]], dtype=float32), array([1., 0.]))
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
                for number, line in part:           # finds the line, for the message
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
    """From texts to numbers. A look-up is faster than a conversion, and most texts of a file come again."""

    def __missing__(self, text):
        number = float(text)
        if len(self) < _KEPT:
            self[text] = number
        return number


def _libsvm_rows(lines, n_features, first, known):
    for line in lines:
        if not _LIBSVM.fullmatch(line):
            text = shown(line[:80].decode(errors="replace"))
            raise ValueError(f"the line is {text}; it must be a label and column:value pairs")
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
        raise ValueError(f"the line has {numbers[~finite][0]}; labels and values must be finite in float32")
    if len(columns) and not (columns.min() >= 0 and columns.max() < n_features):
        outside = columns[(columns < 0) | (columns >= n_features)][0] + first
        raise ValueError(f"the line has column {outside:.0f}; with n_features={n_features} columns must be from "
                         f"{first} to {n_features - 1 + first}")
    return _chunk(values, columns, bounds, n_features), numbers[labels]


def read_csv(path: str | os.PathLike, label: str | int = 0, numbers: Sequence[str | int] = (),
             skip: Sequence[str | int] = (), n_features: int = 2**20, chunk: int = 100_000,
             delimiter: str | None = None, header: bool = True) -> Iterator[tuple[sp.csr_array, np.ndarray]]:
    """Yield the rows of a table of text, with values hashed to features, chunk by chunk: (X, y).

    A value becomes the feature `crc32("column=value") % n_features`. Here `column` is the name of the column, or its
    position in a file without names. A value has the same feature in every file, process and version. An empty value
    has no feature.

    Parameters
    ----------
    path : str or path
        A file of UTF-8 text. A file whose name ends in .gz is decompressed while reading.
    label : str or int
        The column of y, by name or by position from 0. All of its values must be numbers.
    numbers : sequence of str or int
        Columns of numbers. Such a column is one feature, `crc32("column") % n_features`, whose value is the number.
    skip : sequence of str or int
        Columns to leave out, such as the row number.
    n_features : int
        Number of columns of X.
    chunk : int
        Number of rows in a chunk.
    delimiter : None or str
        The character between values. None is a tab if the name contains .tsv, else a comma.
    header : bool
        True if the first line has the names of the columns.

    Yields
    ------
    X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
        Two values of a row that collide are two entries of the same column.
    y : array of floats, shape (chunk,)

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a parameter is not allowed, or a line is malformed; the message names the line.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparseopt import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "clicks.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("click,site,price\\n1,a.com,2.5\\n0,b.com,1\\n")
    ...     (X, y), = datasets.read_csv(path, label="click", numbers=["price"], n_features=16)
    >>> X.data, y
    (array([1. , 2.5, 1. , 1. ], dtype=float32), array([1., 0.]))
    """
    if delimiter is None:
        delimiter = "\t" if ".tsv" in Path(path).suffixes else ","
    return _table_chunks(path, _csv_rows(path, delimiter), label, numbers, skip, n_features, chunk, header)


def read_parquet(path: str | os.PathLike, label: str | int = 0, numbers: Sequence[str | int] = (),
                 skip: Sequence[str | int] = (), n_features: int = 2**20,
                 chunk: int = 100_000) -> Iterator[tuple[sp.csr_array, np.ndarray]]:
    """Yield the rows of a Parquet file, chunk by chunk: (X, y).

    The result is that of `read_csv` on the same table as text, where a null is an empty value. The reader needs the
    package pyarrow (the extra `parquet`).

    Parameters
    ----------
    path : str or path
    label, numbers, skip, n_features, chunk
        As in `read_csv`.

    Yields
    ------
    X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
    y : array of floats, shape (chunk,)

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a parameter is not allowed, the file is not a Parquet file, or a row is malformed; the message names the row.
    ImportError
        If pyarrow is not installed.
    """
    return _table_chunks(path, _parquet_rows(path), label, numbers, skip, n_features, chunk, True)


def _table_chunks(path, rows, label, numbers, skip, n_features, chunk, header):
    _check_reader(n_features, chunk)
    if isinstance(numbers, str) or isinstance(skip, str):
        name, value = ("numbers", numbers) if isinstance(numbers, str) else ("skip", skip)
        raise ValueError(f"{name} is the string {shown(value)}; it must be a list of columns")
    return _chunks(path, rows, label, list(numbers), list(skip), n_features, chunk, header)


def _parquet_rows(path):
    """Yield the names of the columns and then each row as texts, together with its place in the file."""
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
    known = {}                                          # hashes of texts: most texts of a file come again
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
                raise ValueError(f"it has {len(row)} values; it must have {len(names)}, as many as the first line")
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
    """The positions of columns that a user has given by name or position."""
    found = []
    for column in columns:
        if isinstance(column, str) and header and names.count(column) == 1:
            found.append(names.index(column))
        elif not isinstance(column, str) and 0 <= column < len(names):
            found.append(int(column))
        else:
            by_name = f", or one of these names, if it is there once: {named(names)}" if header else ""
            raise ValueError(f"{shown(column)} names no column, or several; a column must be a position from 0 to "
                             f"{len(names) - 1}{by_name}")
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
