"""Arrays in one file: the format of safetensors, with a checksum for each array and one for the header.

| bytes      | content                                                                             |
|------------|-------------------------------------------------------------------------------------|
| 8          | the length of the header, little-endian                                             |
| the header | JSON, padded with spaces: metadata, and the dtype, shape and place of each array    |
| the rest   | the arrays, without gaps                                                            |

The checksums are part of the metadata, which other readers of the format skip. "checksums" has one for each array.
"crc32" covers all bytes before the arrays. Its own eight digits count as zeros.
"""

import json
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ._files import replacing
from ._text import shown

_DTYPES = {"F64": "<f8", "I64": "<i8", "F32": "<f4", "I32": "<i4", "U8": "|u1"}
_LETTERS = {np.dtype(dtype): letters for letters, dtype in _DTYPES.items()}
_MOST_HEADER = 100_000_000      # bytes, as in the package safetensors
_START = b'{"__metadata__":{"crc32":"'
_SUM = slice(8 + len(_START), 8 + len(_START) + 8)      # the bytes of a file that hold the header's checksum
_CHUNK = 1 << 18                # bytes read or written at a time: they stay in the L2 cache


class Stored(NamedTuple):
    """An array in a file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int                  # bytes from the start of the file
    checksum: str


class Streamed(NamedTuple):
    """An array that `write` gets in pieces, since nobody has it whole."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def itemsize(self):
        return self.dtype.itemsize

    @property
    def nbytes(self):
        return math.prod(self.shape) * self.dtype.itemsize


def write(path, arrays, metadata, pieces=()):
    """Write arrays through `_files.replacing`, without a copy of a whole array.

    Parameters
    ----------
    path : str or path
    arrays : mapping from str to contiguous arrays or Streamed
    metadata : dict of str to str
    pieces : iterable of pairs (name, array)
        The content of the arrays that are Streamed. The pieces of one array come in order.

    Raises
    ------
    ValueError
        If a name cannot be encoded as UTF-8, or the header is too long.
    """
    # Wide elements come first, so that each array is aligned in the file.
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    sums = dict.fromkeys(arrays, "0" * 8)
    header = _header(arrays, metadata, sums)
    with replacing(path) as file:
        file.write(header)
        start, places, totals = len(header), {}, {}
        for name, array in arrays.items():
            if isinstance(array, Streamed):
                places[name], totals[name] = start, 0
            else:
                file.seek(start)
                totals[name] = _write(file, array)
            start += array.nbytes
        file.truncate(start)
        for name, piece in pieces:
            file.seek(places[name])
            totals[name] = _write(file, piece, totals[name])
            places[name] += piece.nbytes
        sums = {name: f"{total:08x}" for name, total in totals.items()}
        file.seek(0)
        file.write(_header(arrays, metadata, sums))


def _header(arrays, metadata, sums):
    """Return the bytes before the arrays. Their number does not depend on the checksums."""
    header, stop = {"__metadata__": {"crc32": "0" * 8, "checksums": json.dumps(sums), **metadata}}, 0
    for name, array in arrays.items():
        start, stop = stop, stop + array.nbytes
        header[name] = {"dtype": _LETTERS[array.dtype], "shape": list(array.shape), "data_offsets": [start, stop]}
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 20):error.start + 20]
        raise ValueError(f"a name has {shown(around)}; names must be text that UTF-8 can hold, without "
                         "surrogates") from None
    text += b" " * (-len(text) % 8)
    if len(text) > _MOST_HEADER:
        raise ValueError(f"names and metadata take {len(text):,} bytes; at most {_MOST_HEADER:,} go into a file")
    whole = bytearray(len(text).to_bytes(8, "little") + text)
    whole[_SUM] = b"%08x" % zlib.crc32(whole)
    return whole


def _write(file, array, total=0):
    """Write an array, and return the checksum of what had the checksum `total` before and now goes on."""
    raw = array.reshape(-1).view(np.uint8)
    chunk = np.empty(min(_CHUNK, len(raw)), np.uint8)
    for start in range(0, len(raw), _CHUNK):
        # The copy makes the checksum that of the written bytes, even if another process changes the array meanwhile.
        part = chunk[:min(_CHUNK, len(raw) - start)]
        np.copyto(part, raw[start:start + len(part)])
        total = zlib.crc32(part, total)
        file.write(part)
    return total


class Reader:
    """Reads the header of a file and its arrays. `check` and `read` raise ValueError if the file is damaged.

    Parameters
    ----------
    file : binary file
        Open, at its start.

    Raises
    ------
    ValueError
        If the file has no complete header of the format.

    Attributes
    ----------
    metadata : dict of str to str
    arrays : dict of str to Stored
        Exists after `check`.
    """

    metadata: dict[str, str]
    arrays: dict[str, Stored]

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(self._size - 8, _MOST_HEADER):
            raise ValueError(f"no complete safetensors file (it has {self._size:,} bytes, with a header of {length:,})")
        self._raw = file.read(length)
        try:
            self._header = parsed(str(self._raw, "utf-8"))
            self.metadata = self._header.pop("__metadata__", {})
            texts = [*self.metadata.keys(), *self.metadata.values()]
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"no complete safetensors file ({error})") from error
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("no complete safetensors file (its metadata are not texts)")

    def check(self) -> None:
        """Compare the header with its checksum and with the size of the file."""
        whole = bytearray(len(self._raw).to_bytes(8, "little") + self._raw)
        said, whole[_SUM] = bytes(whole[_SUM]), b"0" * 8
        if not self._raw.startswith(_START) or said != b"%08x" % zlib.crc32(whole):
            raise ValueError("damaged: its header does not match its checksum")
        sums, stop, self.arrays = parsed(self.metadata["checksums"]), 0, {}
        for name, entry in sorted(self._header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape, (start, end) = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
            if len(shape) > 2 or not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
                raise ValueError(f"damaged: {shown(name)} has the shape {str(shape)[:80]}")
            # An array of shape (n, 0) has no bytes, but its n rows need memory elsewhere. No rows need no memory.
            if shape[:1] != [0] and math.prod(filter(None, shape)) * dtype.itemsize > self._size:
                raise ValueError(f"damaged: {shown(name)} has the shape {str(shape)[:80]}, larger than the file")
            if start != stop or end - start != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"damaged: {shown(name)} has bytes from {start} to {end}; they must begin at {stop} "
                                 f"and be those of shape {shape}")
            self.arrays[name] = Stored(dtype, tuple(shape), len(whole) + start, sums.pop(name))
            stop = end
        if sums:
            raise ValueError(f"damaged: it has checksums without an array: {', '.join(sums)}")
        if (whole_size := len(whole) + stop) != self._size:
            raise ValueError(f"no complete safetensors file (it has {self._size:,} bytes, not {whole_size:,})")

    def read(self, name: str, array: Any) -> Any:
        """Read a stored array into `array`, which must have its shape and dtype."""
        stored, total = self.arrays[name], 0
        if array.shape != stored.shape or array.dtype != stored.dtype:
            raise ValueError(f"it has {shown(name)} of shape {stored.shape} and dtype {stored.dtype}; the optimizer's "
                             f"has shape {array.shape} and dtype {array.dtype}")
        raw = array.reshape(-1).view(np.uint8)
        self._file.seek(stored.start)
        for start in range(0, len(raw), _CHUNK):
            part = raw[start:start + _CHUNK]
            if self._file.readinto(part) != len(part):
                raise ValueError("no complete safetensors file (it became shorter)")
            total = zlib.crc32(part, total)
        if f"{total:08x}" != stored.checksum:
            raise ValueError(f"damaged: {shown(name)} does not match its checksum")
        return array

    def pieces(self, names: Sequence[str], n: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield pieces of n rows of several arrays together: the first row and a dict of arrays by name.

        The checksums are known to be right when the last piece has been taken.
        """
        arrays = {name: self.arrays[name] for name in names}
        totals, n_rows = dict.fromkeys(names, 0), max(stored.shape[0] for stored in arrays.values())
        for first in range(0, n_rows, n):
            some = {}
            for name, stored in arrays.items():
                piece = np.empty((min(n, n_rows - first), *stored.shape[1:]), stored.dtype)
                raw = piece.reshape(-1).view(np.uint8)
                self._file.seek(stored.start + first * (piece.nbytes // len(piece)))
                if self._file.readinto(raw) != len(raw):
                    raise ValueError("no complete safetensors file (it became shorter)")
                totals[name] = zlib.crc32(raw, totals[name])
                some[name] = piece
            yield first, some
        for name, stored in arrays.items():
            if f"{totals[name]:08x}" != stored.checksum:
                raise ValueError(f"damaged: {shown(name)} does not match its checksum")


def parsed(text):
    """Return the object in a text of JSON. Raise ValueError for a key twice, NaN, or a number that is too large."""
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_float=_number, parse_constant=_constant)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"its JSON is a {type(found).__name__}; it must be an object")
    return found


def _once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its JSON has a key twice")
    return found


def _number(digits):
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"its JSON has the number {digits[:20]}, which is too large")
    return number


def _constant(name):
    if name == "NaN":
        raise ValueError("its JSON has a NaN")
    return float(name)          # metadata may hold infinities
