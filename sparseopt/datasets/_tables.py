"""Tables in files: delimited text, JSON lines, Parquet. The readers of clicks and of ratings use this module.

1. `opened` opens a text, packed or not. Bytes that the encoding does not have are an error that names the line.
2. `layout` finds out from the first lines how a delimited file is built; what the caller knows comes first.
3. `rows` and `json_rows` yield the rows; `position` finds a column that a caller has given by name or by position.
"""

import codecs
import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from numbers import Integral
from typing import NamedTuple

from .._files import regular
from .._text import escaped, listed, shown

SEPARATORS = ("\t", "::", ",", ";", "|")
_LOOKED_AT = 1 << 17            # characters from which the layout is found.
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")
_SAYS = {"\t": "tabs", "::": "::", ",": "commas", ";": "semicolons", "|": "|", " ": "spaces"}


class Layout(NamedTuple):
    """How a delimited text is built."""

    separator: str
    quotes: bool                # True if " begins a cell in which separators and ends of lines are text
    header: bool                # True if the first line has the names of the columns
    names: tuple[str, ...]      # of the columns; positions from 0 as texts if there is no header
    first: str                  # the first line as it stands in the file

    def __str__(self):
        return f"{_SAYS.get(self.separator, shown(self.separator))}, {'' if self.header else 'no '}header"


def ending(path):
    """Return the end of a file's name in small letters, without .gz: ".csv" of "ratings.CSV.gz"."""
    found = re.search(r"(\.[^./\\]+)$", re.sub(r"\.gz$", "", str(path).lower()))
    return found[1] if found else ""


@contextlib.contextmanager
def opened(path, encoding="utf-8"):
    """Open a text, decompressed if it is packed by gzip. Errors of its bytes are ValueErrors that name the path."""
    check(encoding=encoding)
    regular(path)               # a pipe could not be read twice, once for the layout
    with open(path, "rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        raw = gzip.GzipFile(fileobj=file) if packed else file
        # utf-8-sig leaves out the mark that some programs write at the start of a file.
        known = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        try:
            with io.TextIOWrapper(raw, encoding=known, newline="") as text:
                yield text
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}{_undecodable(path, packed, known)}: its bytes are no {encoding} "
                             f"({escaped(error.reason, 80)}); encoding (--encoding) must be the encoding of the "
                             "file, such as latin-1 or cp1252") from None
        except UnicodeError as error:           # of UTF-16, for instance, that has no mark of the byte order
            raise ValueError(f"{path}: its bytes are no {encoding} ({escaped(str(error), 80)}); encoding (--encoding) "
                             "must be the encoding of the file") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: a damaged gzip file: {escaped(str(error), 160)}") from None


def _undecodable(path, packed, encoding):
    """The number of the first line whose bytes the encoding does not have, as part of a message."""
    with (gzip.open if packed else open)(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                return f", line {number}"
    return ""                   # of UTF-16, lines of bytes are no lines of text


def check(sep=None, header=None, encoding="utf-8"):
    """Raise ValueError if a separator, a header or an encoding is not allowed. No file is read."""
    if sep is not None and (not isinstance(sep, str) or not sep or set(sep) & set('"\r\n')):
        raise ValueError(f"sep (--sep) is {shown(sep)}; it must be a text without quotes and ends of lines, such as "
                         "',' or '::'")
    if header is not None and header is not True and header is not False:
        raise ValueError(f"header is {shown(header)}; it must be True, False or None")
    try:
        "".encode(encoding)
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"encoding (--encoding) is {shown(encoding)}; it must be the name of an encoding, such as "
                         "utf-8, latin-1 or cp1252") from None


def layout(path, sep=None, header=None, encoding="utf-8", known=lambda name: False):
    """Find out how a delimited text is built.

    Parameters
    ----------
    path : str or path
    sep : None or str
        The separator of the columns. None stands for the one of `SEPARATORS` that divides most of the first lines into
        the same number of cells as the first line; of several the one with the most cells, then the first.
    header : None or bool
        True if the first line has names. With None, the first line has names if no cell of it is a number or a date,
        and one of these holds: `known` is true of a cell; or all cells below another are numbers or dates. The first
        line has names as well if these are the numbers of four columns or more, from 0, or of those after an empty one.
    encoding : str
    known : callable
        From a text to a bool: True if the text is a well-known name of a column.

    Returns
    -------
    Layout

    Raises
    ------
    ValueError
        If the file is empty, or no separator divides its first line.
    """
    check(sep, header, encoding)
    with opened(path, encoding) as file:
        text = file.read(_LOOKED_AT)
        if file.read(1) and (whole := re.search(r"[\r\n](?!.*[\r\n])", text, re.DOTALL)):
            text = text[:whole.end()]           # without the last line, of which a part is missing
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip(" ")]
    if not lines:
        raise ValueError(f"{path}: the file is empty; it must have at least one line")
    seps = SEPARATORS if sep is None else (sep.replace("\\t", "\t"),)
    try:
        _, separator, quotes = max((_divided(lines, one) for one in seps), key=lambda found: found[0])
        table = [cells for _, cells in _split(io.StringIO(text, newline=""), separator, quotes, strict=False)]
    except csv.Error as error:
        raise ValueError(f"{path}: no delimited text: {error}; the first line is {shown(lines[0], 160)}") from None
    if not table or len(table[0]) < 2:
        one_of = " ".join(map(repr, seps)) if sep is None else shown(separator)
        raise ValueError(f"{path}: expected columns separated by {one_of}; the first line is {shown(lines[0], 160)}; "
                         "sep (--sep) must be the separator of the file")
    first = table[0]
    if header is None:
        columns = zip(*(cells for cells in table[1:] if len(cells) == len(first)), strict=True)
        header = _numbers_columns(first) or (
            not any(map(_is_number, first)) and (any(map(known, first)) or any(map(_of_numbers, columns))))
    names = tuple(cell.strip() for cell in first) if header else tuple(map(str, range(len(first))))
    return Layout(separator, quotes, header, names, lines[0])


def names_of(lines, separator, quotes):
    """The names of columns in the first line that is not empty; none if there is no such line."""
    try:
        return tuple(cell.strip() for cell in next(_split(lines, separator, quotes, strict=False), (0, ()))[1])
    except csv.Error:
        return ()


def _divided(lines, separator):
    """How well a separator divides lines, the separator, and whether quotes quote."""
    quotes = len(separator) == 1
    if separator not in (",", ";") and quotes:          # the title "Heroes" Live is no quoted cell
        cell = rf'(^|(?<={re.escape(separator)}))"[^"]*"(?={re.escape(separator)}|$)'
        with_quotes = [line for line in lines if '"' in line]
        quotes = bool(with_quotes) and not any('"' in re.sub(cell, "", line) for line in with_quotes)
    lengths = [len(cells) for _, cells in _split(lines, separator, quotes, strict=False)]
    most = lengths[0] if lengths else 0
    rank = SEPARATORS.index(separator) if separator in SEPARATORS else 0
    return (most > 1, lengths.count(most) / max(len(lengths), 1), most, -rank), separator, quotes


def _split(lines, separator, quotes, strict=True):
    """Yield the number of the last line of each row that is not empty, and its cells."""
    if len(separator) > 1:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, line.rstrip("\r\n").split(separator)
        return
    reader = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
                        strict=strict)
    for cells in reader:
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield reader.line_num, cells


def _numbers_columns(first):
    """Whether the first line numbers the columns, as pandas does; its index of the rows has an empty name."""
    cells = [cell.strip() for cell in first]
    numbers = cells[1:] if not cells[0] else cells
    return (not cells[0] or len(cells) > 3) and numbers == list(map(str, range(len(numbers))))


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return bool(_DATE.fullmatch(text.strip()))
    return True


def _of_numbers(cells):
    kinds = Counter(_is_number(cell) for cell in cells if cell.strip())
    return kinds[True] > 0 and kinds[False] == 0


def rows(path, layout, encoding="utf-8", strict=True):
    """Yield (number of the line, cells) of a delimited text, without its header and without empty lines.

    If `strict` is True, a row with another number of cells than the first line raises ValueError, which names the line.
    """
    number = 0
    with opened(path, encoding) as file:
        found = _split(file, layout.separator, layout.quotes, strict)
        try:
            if layout.header:
                number, _ = next(found)
            for number, cells in found:
                if strict and len(cells) != len(layout.names):
                    raise ValueError(f"the line has {len(cells)} cells, and the first line {len(layout.names)} "
                                     f"({layout}): {shown(layout.separator.join(cells), 160)}; the first line is "
                                     f"{shown(layout.first, 160)}; sep (--sep) can name another separator")
                yield number, cells
        except UnicodeError:
            raise
        except csv.Error as error:
            hint = "" if "limit" in str(error) else "; a cell that begins with a quote must end with one"
            raise ValueError(f"{path}, line {number + 1}: {error}{hint} ({layout})") from None
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None


def json_rows(path, encoding="utf-8"):
    """Yield (number of the line, dict) of a file that has a JSON object on each line."""
    with opened(path, encoding) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if not isinstance(row, dict):
                    raise ValueError(f"{path}, line {number}: expected a JSON object, all of it on one line; the line "
                                     f"is {shown(line.strip(), 160)}")
                yield number, row


def position(path, names, column):
    """Return the position of a column, given by one of these names, or by its position from 0 (also as a text)."""
    if isinstance(column, str):
        if names.count(column) == 1:
            return names.index(column)
        if column.isdecimal() and column not in names:
            column = int(column)
    if isinstance(column, Integral) and not isinstance(column, bool) and 0 <= column < len(names):
        return int(column)
    raise ValueError(f"{path}: {shown(column)} names no column, or several; a column must be a position from 0 to "
                     f"{len(names) - 1}, or one of these names, if it is there once: {named(names)}")


def open_parquet(path):
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise ImportError("Parquet files need the package pyarrow: pip install 'sparseopt[parquet]'") from None
    try:
        return parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file: {escaped(str(error), 160)}") from None


def of_parquet(path, table, name):
    """A column of a table of pyarrow: of numbers, texts, dates, booleans, or times in microseconds at the finest."""
    import pyarrow
    from pyarrow import types

    if table.schema.names.count(name) > 1:
        raise ValueError(f"{path}: several columns are named {escaped(name, 80)}; each name must be there once")
    column = table.column(name)
    kind = column.type
    try:
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_null(kind):
            return column.cast(pyarrow.string())
        if types.is_timestamp(kind) and kind.unit == "ns":      # datetime has no nanoseconds
            return column.cast(pyarrow.timestamp("us", kind.tz), safe=False)
    except pyarrow.ArrowInvalid:
        kind = f"{kind}, with bytes that are no UTF-8"
    else:
        if not (types.is_nested(kind) or types.is_fixed_size_binary(kind)):
            return column
    raise ValueError(f"{path}: the column {escaped(name, 80)} is of {kind}; it must be of texts, numbers, times or "
                     "booleans")


def named(columns):
    """The names of columns, as an error shows them."""
    return listed(columns, show=lambda name: escaped(name, 80))
