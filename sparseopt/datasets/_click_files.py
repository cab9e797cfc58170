"""Files of click logs, read in blocks of rows: delimited text, JSON lines, Parquet, libsvm.

1. `open_table` finds out how a table is built, and returns a `Table`.
2. `Table.blocks` yields blocks of a fixed number of rows. A column of a block is a list of its different values, and
   the number of each row's value. So what follows is computed once per different value.
3. There are two readers of delimited text. The plain reader defines what a file says. The reader of pyarrow is several
   times as fast, but knows no quotes and no numbers of lines. It raises `Unfit` where the plain reader must take over.
"""

import functools
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .._text import escaped, shown
from . import _tables
from ._tables import ending

FORMATS = "csv", "jsonl", "libsvm", "parquet"
_ENDINGS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
            ".libsvm": "libsvm", ".svm": "libsvm", ".svmlight": "libsvm"}
_LIBSVM = re.compile(rb"[^\s:#]+(?:[ \t]+\d+:[^\s:#]+)*")
_LOOKED_AT = 1 << 16            # bytes from which the format is found.
_TOGETHER = 128                 # rows that the plain reader holds as texts; more do not fit into the processor's cache.
_KEPT = 2**20                   # at most so many texts are kept with their number.
LARGEST = float(np.finfo(np.float32).max)


class Unfit(Exception):
    """The fast reader cannot tell what the plain reader would say of this file."""


class Block(NamedTuple):
    """Rows of a table, column by column."""

    size: int                                               # number of rows
    columns: dict[str, tuple[list[bytes], np.ndarray]]      # different values, and the number of each row's value
    place: Callable[[int], str] | None                      # where a row stands in the file; None: not known


class Table(NamedTuple):
    """A table in a file."""

    names: list[str]            # of the columns; without a header, positions from 0
    header: bool                # True if the file has names
    said: str                   # how the file is built
    first: str                  # the first line, or the names
    blocks: Callable[..., Iterator[Block]]      # (wanted, size, start, fast); `wanted` is true of columns to read


def found_format(path):
    """Return the format that the end of the file's name says, else the format of the first lines."""
    if (named := _ENDINGS.get(ending(path))) is not None:
        return named
    with _binary(path) as file:
        start = file.read(_LOOKED_AT)
    if start.startswith(b"PAR1"):
        return "parquet"
    lines = [line.partition(b"#")[0].strip(b"\xef\xbb\xbf \t\r\n") for line in start.split(b"\n")]
    lines = [line for line in lines if line]
    if len(start) == _LOOKED_AT:
        lines = lines[:-1] or lines             # the last line may be cut
    if lines and lines[0].startswith(b"{"):
        return "jsonl"
    libsvm = any(b":" in line for line in lines) and all(map(_LIBSVM.fullmatch, lines))
    return "libsvm" if libsvm else "csv"


def open_table(path, file_format, sep, header, encoding, known):
    """Return the Table in a file that is not of libsvm's format. `known` is true of names of the label."""
    if file_format == "parquet":
        with _tables.open_parquet(path) as file:
            names = file.schema_arrow.names
        return Table(names, True, "Parquet", ", ".join(names), functools.partial(_parquet_blocks, path))
    if file_format == "jsonl":
        rows = [row for _, row in itertools.islice(_tables.json_rows(path, encoding), 1000)]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return Table(names, True, "JSON lines", ", ".join(names), functools.partial(_json_blocks, path, encoding))
    layout = _tables.layout(path, sep, header, encoding, known)
    if header is None and not layout.header and _numbers_columns(layout):
        layout = layout._replace(header=True)
    return Table(unique(layout.names), layout.header, str(layout), layout.first,
                 functools.partial(_text_blocks, path, layout, encoding))


def _numbers_columns(layout):
    """Whether the first line numbers the columns from 0, as pandas names columns that have no names."""
    cells = [cell.strip(' "') for cell in layout.first.split(layout.separator)]
    return len(cells) > 2 and tuple(cells) == layout.names


def unique(names):
    """Give each repeated name a number, as pandas does: a, a.1, a.2."""
    found = dict.fromkeys([])
    for name in names:
        number, one = 0, name
        while one in found:
            number += 1
            one = f"{name}.{number}"
        found[one] = None
    return list(found)


class _Numbered(dict):
    """From different values to their numbers from 0."""

    def __missing__(self, value):
        self[value] = number = len(self)
        return number


def _columns(numbered, codes):
    return {name: ([value.encode(errors="surrogatepass") for value in values], np.concatenate(codes[name]))
            for name, values in numbered.items()}


def _text_blocks(path, layout, encoding, wanted, size, start=0, fast=True):
    if fast and (arrow := _arrow(path, layout, encoding)):
        return _arrow_blocks(path, layout, wanted, size, start, *arrow)
    return _plain_blocks(path, layout, encoding, wanted, size, start)


def _plain_blocks(path, layout, encoding, wanted, size, start):
    names = unique(layout.names)
    used = [(position, name) for position, name in enumerate(names) if wanted(name)]
    rows = itertools.islice(_tables.rows(path, layout, encoding), start, None)
    while True:
        numbered, codes, lines = {name: _Numbered() for _, name in used}, {name: [] for _, name in used}, []
        for first in range(0, size, _TOGETHER):
            part = list(itertools.islice(rows, min(_TOGETHER, size - first)))
            if not part:
                break
            numbers, cells = zip(*part, strict=True)
            lines += numbers
            columns = list(zip(*cells, strict=True))
            for position, name in used:
                get = numbered[name].__getitem__
                codes[name].append(np.fromiter(map(get, columns[position]), np.int32, len(part)))
        if not lines:
            return
        yield Block(len(lines), _columns(numbered, codes), lambda row, lines=lines: f"line {lines[row]}")


def _json_blocks(path, encoding, wanted, size, start=0, fast=True):
    rows = itertools.islice(_tables.json_rows(path, encoding), start, None)
    while part := list(itertools.islice(rows, size)):
        lines, objects = zip(*part, strict=True)
        columns = {}
        for name in dict.fromkeys(name for row in objects for name in row if wanted(name)):
            values = _Numbered()
            codes = [values[_json_text(path, line, name, row.get(name))] for line, row in part]
            columns[name] = [value.encode(errors="surrogatepass") for value in values], np.array(codes, np.int32)
        yield Block(len(part), columns, lambda row, lines=lines: f"line {lines[row]}")


def _json_text(path, line, name, value):
    if isinstance(value, list | dict):
        raise ValueError(f"{path}, line {line}: {escaped(name, 80)} is {shown(value)}; it must be a text, a number, "
                         "true, false or null")
    return "" if value is None or value != value else str(value)


def _binary(path):
    """Open a file, decompressed if it is packed by gzip."""
    _tables.regular(path)
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return (gzip.open if packed else open)(path, "rb")


def _arrow(path, layout, encoding):
    """Return the modules of pyarrow if it is installed and can read such a file."""
    if len(layout.separator) != 1 or encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        return None
    if layout.quotes and '"' in layout.first:
        return None
    try:
        import pyarrow
        import pyarrow.csv
    except ImportError:
        return None
    return pyarrow, pyarrow.csv


class _Unquoted(io.RawIOBase):
    """A file whose bytes have no quotes: in a quoted cell, separators and ends of lines are text."""

    def __init__(self, file):
        self._file = file

    def readable(self):
        return True

    def read(self, size=-1):
        data = self._file.read(size)
        if b'"' in data:
            raise Unfit
        return data


def _arrow_blocks(path, layout, wanted, size, start, pa, csv):
    names = unique(layout.names)
    used = [name for name in names if wanted(name)]
    try:
        with _binary(path) as file:
            if file.read(1024).lstrip(b"\xef\xbb\xbf \t")[:1] in b"\r\n":
                raise Unfit                         # the header comes after an empty line
            file.seek(0)
            reader = csv.open_csv(
                _Unquoted(file) if layout.quotes else file,
                csv.ReadOptions(column_names=names, skip_rows=int(layout.header), block_size=1 << 23),
                csv.ParseOptions(delimiter=layout.separator, quote_char=False, double_quote=False),
                csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=used,
                                   strings_can_be_null=False))
            for table in _sliced(pa, reader, size, start):
                columns = {}
                for name in used:
                    column = table.column(name).combine_chunks().dictionary_encode()
                    columns[name] = column.dictionary.cast(pa.binary()).to_pylist(), column.indices.to_numpy()
                yield Block(table.num_rows, columns, None)
    except (pa.ArrowException, EOFError, zlib.error, gzip.BadGzipFile):
        raise Unfit from None


def _sliced(pa, batches, size, start):
    """Yield tables of `size` rows from batches of any size, without the first `start` rows."""
    held, rows = [], 0
    for batch in batches:
        begin = min(start, batch.num_rows)
        start -= begin
        held.append(batch.slice(begin))
        rows += batch.num_rows - begin
        if rows >= size:
            table = pa.Table.from_batches(held)
            while rows >= size:
                yield table.slice(0, size)
                table, rows = table.slice(size), rows - size
            held = table.to_batches()
    if rows:
        yield pa.Table.from_batches(held)


def _parquet_blocks(path, wanted, size, start=0, fast=True):
    with _tables.open_parquet(path) as file:
        import pyarrow as pa

        used = [name for name in file.schema_arrow.names if wanted(name)]
        for table in _sliced(pa, file.iter_batches(columns=used), size, start):
            columns = {}
            for name in used:
                column = _tables.of_parquet(path, table, name)
                if pa.types.is_dictionary(column.type):
                    column = column.cast(column.type.value_type)
                column = column.combine_chunks().dictionary_encode(null_encoding="encode")
                values = ["" if value is None or value != value else str(value)
                          for value in column.dictionary.to_pylist()]
                columns[name] = [value.encode() for value in values], column.indices.to_numpy()
            yield Block(table.num_rows, columns, lambda row, first=start + 1: f"row {first + row}")
            start += table.num_rows


def libsvm_blocks(path, n_features, size, first, start=0):
    """Yield (X, labels as numbers, lines) of a file in libsvm's format."""
    with _binary(path) as file:
        lines = ((number, line.partition(b"#")[0].strip(b"\xef\xbb\xbf \t\r\n")) for number, line in _lines(path, file))
        lines = itertools.islice(((number, line) for number, line in lines if line), start, None)
        known = _Numbers()
        while part := list(itertools.islice(lines, size)):
            try:
                X, labels = _libsvm_rows([line for _, line in part], n_features, first, known)
            except ValueError:
                for number, line in part:           # finds the line, for the message
                    try:
                        _libsvm_rows([line], n_features, first, known)
                    except ValueError as error:
                        raise ValueError(f"{path}, line {number}: {error}") from None
                raise
            yield X, labels, [number for number, _ in part]


def _lines(path, file):
    number = 0
    try:
        for number, line in enumerate(file, start=1):
            yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
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
    finite = np.abs(numbers) <= LARGEST
    if not finite.all():
        raise ValueError(f"the line has {numbers[~finite][0]}; labels and values must be finite in float32")
    if len(columns) and not (columns.min() >= 0 and columns.max() < n_features):
        outside = columns[(columns < 0) | (columns >= n_features)][0] + first
        more = "; first=0 (--first 0) says that columns are numbered from 0" if outside == 0 else ""
        raise ValueError(f"the line has column {outside:.0f}; with n_features={n_features} columns must be from "
                         f"{first} to {n_features - 1 + first}{more}")
    X = np.asarray(values, np.float32), np.asarray(columns, np.int32), np.asarray(bounds, np.int32)
    return sp.csr_array(X, shape=(len(lines), n_features)), numbers[labels]
