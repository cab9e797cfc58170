"""Whole columns of a file, each as its distinct texts and the numbers of these: read by pyarrow, or by plain Python.

pyarrow reads delimited texts many times faster. The plain reader alone says what a file means: a file that pyarrow
refuses is read again by the plain reader, whose result or error counts.
"""

import codecs
from array import array
from typing import NamedTuple

import numpy as np

from .._text import shown
from . import _tables

_BLOCK = 1 << 22                # bytes that pyarrow reads at a time.
_UNIT = "\x1f"                  # a separator of one character in place of a longer one, for pyarrow.
_HEADER = 1 << 17               # the most bytes of a header.
_NAMED = 10_000                 # rows of JSON lines in which names of columns are looked for.


class Column(NamedTuple):
    """The cells of a column: cell i is `texts[codes[i]]`. All texts differ, and are stripped of white space."""

    codes: np.ndarray
    texts: list[str]


def json_names(path, encoding):
    """The names of columns of JSON lines, in the order in which the first rows have these, and the first row."""
    names, first = {}, None
    for (_, row), _ in zip(_tables.json_rows(path, encoding), range(_NAMED), strict=False):
        first = row if first is None else first
        names |= dict.fromkeys(row)
    if first is None:
        raise ValueError(f"{path}: the file is empty; it must have at least one line")
    return list(names), first


def json_columns(path, encoding, names):
    """Columns of JSON lines. A null, a NaN and a missing value are an empty text."""
    def cells():
        for number, row in _tables.json_rows(path, encoding):
            values = [row.get(name) for name in names]
            for name, value in zip(names, values, strict=True):
                if isinstance(value, dict | list):
                    raise ValueError(f"{path}, line {number}: {shown(name)} is {shown(value)}; it must be a text or a "
                                     "number")
            yield ["" if value is None or value != value else value if isinstance(value, str) else
                   str(int(value) if isinstance(value, bool) else value) for value in values]
    return _coded(cells(), len(names))


def parquet_columns(path, names):
    """Columns of a Parquet file. A null is an empty text; numbers and times of columns without nulls are arrays."""
    import pyarrow
    import pyarrow.compute as compute

    with _tables.open_parquet(path) as file:
        table = file.read(names)
    found = []
    for name in names:
        column = _tables.of_parquet(path, table, name)
        kind = column.type
        if pyarrow.types.is_boolean(kind):
            column = column.cast(pyarrow.int8())
        if not pyarrow.types.is_dictionary(kind):
            if pyarrow.types.is_timestamp(kind) and not column.null_count:
                found.append(column.cast(pyarrow.timestamp("us")).cast(pyarrow.int64()).to_numpy() / 1e6)
                continue
            if pyarrow.types.is_integer(kind) and kind != pyarrow.uint64() and not column.null_count:
                found.append(column.to_numpy())
                continue
            column = compute.dictionary_encode(column)
        found.append(_of_arrow(column.unify_dictionaries().combine_chunks()))
    return found


def text_columns(path, layout, encoding, positions, numbers=()):
    """Columns of a delimited text, by their positions. Those in `numbers` are arrays of int64 if nothing is lost."""
    found = _by_pyarrow(path, layout, encoding, positions, numbers)
    return _plain(path, layout, encoding, positions) if found is None else found


def line_of(path, layout, encoding, row):
    """The number of the line of a delimited text that has this row, from 0."""
    for at, (number, _) in enumerate(_tables.rows(path, layout, encoding)):
        if at == row:
            return number
    return None


def _plain(path, layout, encoding, positions):
    return _coded(([cells[at] for at in positions] for _, cells in _tables.rows(path, layout, encoding)),
                  len(positions))


def _coded(rows, n):
    codes, known = [array("i") for _ in range(n)], [{} for _ in range(n)]
    for cells in rows:
        for column, texts, cell in zip(codes, known, cells, strict=True):
            column.append(texts.setdefault(cell, len(texts)))
    return [_stripped(np.array(column, np.int32), list(texts)) for column, texts in zip(codes, known, strict=True)]


def _stripped(codes, texts):
    """A column whose texts have no white space around: `1, "a", 2` and `1,"a",2` are to be the same."""
    bare = list(map(str.strip, texts))
    places = dict.fromkeys(bare)
    if len(places) == len(bare):
        return Column(codes, bare)
    places = {text: number for number, text in enumerate(places)}
    return Column(np.array([places[text] for text in bare], np.int32)[codes], list(places))


def _by_pyarrow(path, layout, encoding, positions, numbers):
    """The columns as pyarrow reads these, or None if pyarrow is missing or refuses the file."""
    try:
        import pyarrow
        from pyarrow import compute, csv
    except ImportError:
        return None
    types = {str(at): pyarrow.string() for at in positions}         # in dictionaries at once, it would take longer
    single = len(layout.separator) == 1
    try:
        with _tables.opened(path, encoding) as text:
            raw = single and text.encoding == "utf-8-sig"
            if layout.header and not _skipped(text.buffer if raw else text, layout):
                return None
            more = text.buffer.read if raw else lambda n: _encoded(text, n, layout.separator)
            table = csv.read_csv(
                pyarrow.PythonFile(_Checked(more, layout, raw and not layout.header), "r"),
                csv.ReadOptions(column_names=[str(at) for at in range(len(layout.names))], block_size=_BLOCK),
                csv.ParseOptions(delimiter=layout.separator if single else _UNIT,
                                 quote_char='"' if layout.quotes else False, newlines_in_values=layout.quotes),
                csv.ConvertOptions(column_types=types, include_columns=list(types), null_values=[],
                                   strings_can_be_null=False))
    except (pyarrow.ArrowException, ValueError, OSError):
        return None
    found = []
    for at in positions:
        column = table[str(at)]
        if at in numbers and _plain_integers(column, compute):
            try:
                found.append(column.cast(pyarrow.int64()).to_numpy())
                continue
            except pyarrow.ArrowInvalid:            # more digits than an int64 has
                pass
        found.append(_of_arrow(column.dictionary_encode().unify_dictionaries().combine_chunks()))
    return found


def _plain_integers(column, compute):
    """Whether all cells are digits alone, so that no text is lost: 07 is another id than 7."""
    zero = compute.and_(compute.starts_with(column, "0"), compute.greater(compute.binary_length(column), 1))
    return len(column) and compute.all(compute.ascii_is_decimal(column)).as_py() and not compute.any(zero).as_py()


def _skipped(file, layout):
    """Read past the header, and return whether it is one whole line that is well formed."""
    text = "\n"
    while text and not text.strip(" \r\n"):
        line = file.readline(_HEADER)
        text = line.decode("utf-8-sig") if isinstance(line, bytes) else line
    try:
        _Checked(None, layout, True)._check(text.encode())
    except ValueError:
        return False
    whole = text.endswith(("\r", "\n")) and text.count('"') % 2 == 0
    return whole and _tables.names_of([text], layout.separator, layout.quotes) == layout.names


def _of_arrow(column):
    """A column of pyarrow's dictionary type. A null and a NaN are empty texts."""
    values, codes = column.dictionary.to_pylist(), column.indices
    texts = ["" if value is None or value != value else str(value) for value in values]
    if codes.null_count:
        codes = codes.fill_null(len(texts))
        texts.append("")
    return _stripped(codes.to_numpy(zero_copy_only=False), texts)


class _Checked:
    """A file of the UTF-8 bytes of a text. ValueError is raised where pyarrow would not read what csv reads.

    pyarrow leaves out a mark at the start of what it gets, and takes quotes for text that stand at a wrong place. A
    quote begins a cell or ends one. Each quote opens or closes, in turn; a doubled quote in a cell closes and opens.
    """

    closed = False

    def __init__(self, more, layout, marked):
        self.more, self.rest, self.marked = more, b"", marked
        self.quotes, self.edges = layout.quotes, np.frombuffer(b'"\r\n' + layout.separator[:1].encode(), np.uint8)
        self.before, self.inside = b"\n", False

    def read(self, n):
        if not self.rest:
            self.rest = self.more(n)
            if self.rest.startswith(codecs.BOM_UTF8) and not self.marked:
                raise ValueError("a mark stands where none is expected")
            self.marked = True
            if self.quotes:
                self._check(self.rest)
        part, self.rest = self.rest[:n], self.rest[n:]
        return part

    def _check(self, part):
        before, self.before = self.before, part[-1:]
        if not part and self.inside:
            raise ValueError("a quote is not closed")
        if b'"' in part or before == b'"':
            letters = np.frombuffer(before + part, np.uint8)
            at = np.flatnonzero(letters == ord('"'))
            if before == b'"':          # its own turn was in the part before
                self.inside = not self.inside
            opening = np.arange(len(at)) % 2 == int(self.inside)
            self.inside ^= len(at) % 2 == 1
            closing = at[~opening]
            if not (np.isin(letters[at[opening & (at > 0)] - 1], self.edges).all()
                    and np.isin(letters[closing[closing < len(letters) - 1] + 1], self.edges).all()):
                raise ValueError("a quote stands within a cell")


def _encoded(text, n, separator):
    """The UTF-8 bytes of the next n characters, with `_UNIT` in place of a separator of several characters."""
    part = text.read(n)
    if len(separator) > 1:
        if _UNIT in part:
            raise ValueError("the text has the character that stands for the separator")
        while part.endswith(tuple(separator[:n] for n in range(1, len(separator)))) and (letter := text.read(1)):
            part += letter
        part = part.replace(separator, _UNIT)
    return part.encode()
