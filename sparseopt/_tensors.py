"""Arrays in one file: the format of safetensors, and a checksum for each array and for the header.

Eight bytes say how long the header is (little-endian). The header is JSON, padded with spaces. It says of each array
what it is and where. The arrays follow without gaps. The checksums stand among the metadata, so any reader of the format
skips them. "checksums" has one for each array. "crc32" covers all bytes before the arrays, its own eight digits as zeros.
"""

import json
import math
import os
import zlib
from typing import NamedTuple

import numpy as np

from ._files import replacing
from ._text import shown

_DTYPES = {"F64": "<f8", "I64": "<i8", "F32": "<f4", "I32": "<i4", "U8": "|u1"}
_LETTERS = {np.dtype(dtype): letters for letters, dtype in _DTYPES.items()}
_MOST_HEADER = 100_000_000      # bytes, as in the package safetensors
_START = b'{"__metadata__":{"crc32":"'
_SUM = slice(8 + len(_START), 8 + len(_START) + 8)      # where a file has the digits of the header's checksum
_CHUNK = 1 << 18                # bytes that are read or written at a time: they stay in a cache


class Stored(NamedTuple):
    """An array in a file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int                  # in the file
    checksum: str


def write(path, arrays, metadata):
    """Write arrays, as `files.replacing` does, without a copy of them.

    Parameters
    ----------
    path : str or path
    arrays : mapping from str to contiguous arrays
    metadata : dict of str to str

    Raises
    ------
    ValueError
        If a name is no UTF-8, or the header too long.
    """
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))       # so that each starts aligned
    sums = dict.fromkeys(arrays, "0" * 8)
    header = _header(arrays, metadata, sums)
    with replacing(path) as file:
        file.write(header)
        for name, array in arrays.items():
            sums[name] = _write(file, array)
        file.seek(0)
        file.write(_header(arrays, metadata, sums))


def _header(arrays, metadata, sums):
    """The bytes before the arrays; as many, whatever the checksums are."""
    header, stop = {"__metadata__": {"crc32": "0" * 8, "checksums": json.dumps(sums), **metadata}}, 0
    for name, array in arrays.items():
        start, stop = stop, stop + array.nbytes
        header[name] = {"dtype": _LETTERS[array.dtype], "shape": list(array.shape), "data_offsets": [start, stop]}
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 20):error.start + 20]
        raise ValueError(f"a name has {shown(around)}; names must be text that UTF-8 can hold, without surrogates") from None
    text += b" " * (-len(text) % 8)
    if len(text) > _MOST_HEADER:
        raise ValueError(f"names and metadata take {len(text):,} bytes; at most {_MOST_HEADER:,} go into a file")
    whole = bytearray(len(text).to_bytes(8, "little") + text)
    whole[_SUM] = b"%08x" % zlib.crc32(whole)
    return whole


def _write(file, array):
    """Write an array; returns its checksum."""
    raw, total = array.reshape(-1).view(np.uint8), 0
    chunk = np.empty(min(_CHUNK, len(raw)), np.uint8)
    for start in range(0, len(raw), _CHUNK):
        # What is summed up is what is written, even where another process trains on the array meanwhile.
        part = chunk[:min(_CHUNK, len(raw) - start)]
        np.copyto(part, raw[start:start + len(part)])
        total = zlib.crc32(part, total)
        file.write(part)
    return f"{total:08x}"


class Reader:
    """The header of a file of the format; `check` and `read` raise ValueError for what is damaged.

    Parameters
    ----------
    file : binary file
        From its start.

    Raises
    ------
    ValueError
        If it has no such header.

    Attributes
    ----------
    metadata : dict of str to str
    arrays : dict of str to Stored
        Once `check` has run.
    """

    def __init__(self, file):
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
            raise ValueError("no complete safetensors file (its metadata are no texts)")

    def check(self):
        """Check the header against its checksum and the size of the file."""
        whole = bytearray(len(self._raw).to_bytes(8, "little") + self._raw)
        said, whole[_SUM] = bytes(whole[_SUM]), b"0" * 8
        if not self._raw.startswith(_START) or said != b"%08x" % zlib.crc32(whole):
            raise ValueError("damaged: its header does not match its checksum")
        sums, stop, self.arrays = parsed(self.metadata["checksums"]), 0, {}
        for name, entry in sorted(self._header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape, (start, end) = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
            if len(shape) > 2 or not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
                raise ValueError(f"damaged: {shown(name)} has the shape {str(shape)[:80]}")
            # Zeros aside: what has no bytes may still have rows, each with a count.
            if math.prod(filter(None, shape)) * dtype.itemsize > self._size:
                raise ValueError(f"damaged: {shown(name)} has the shape {str(shape)[:80]}, larger than the file")
            if start != stop or end - start != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"damaged: {shown(name)} has bytes from {start} to {end}; they must begin at {stop} and be "
                                 f"those of shape {shape}")
            self.arrays[name] = Stored(dtype, tuple(shape), len(whole) + start, sums.pop(name))
            stop = end
        if sums:
            raise ValueError(f"damaged: it has checksums of no array: {', '.join(sums)}")
        if (whole_size := len(whole) + stop) != self._size:
            raise ValueError(f"no complete safetensors file (it has {self._size:,} bytes, not {whole_size:,})")

    def read(self, name, array):
        """Read an array into one of its shape and dtype, or raise."""
        stored, total = self.arrays[name], 0
        if array.shape != stored.shape or array.dtype != stored.dtype:
            raise ValueError(f"it has {shown(name)} of shape {stored.shape} and dtype {stored.dtype}; the optimizer's is of "
                             f"{array.shape} and {array.dtype}")
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


def parsed(text):
    """The object in a text of JSON; raise ValueError for a key twice, NaN, or a number that is too large."""
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_float=_number, parse_constant=_constant)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"its JSON is a {type(found).__name__}, no object")
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
    return float(name)          # infinities, which metadata may hold
