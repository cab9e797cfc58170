"""Rows for keys: which row of a table belongs to which user, item or word."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import _checks
from ._kernels import ids
from ._kernels.atomic import adopt
from ._reserve import Init
from ._text import shown
from ._typing import Array
from .gradients import _unmasked, row_numbers
from .optimizers import Optimizer, reset_with


class IdMap:
    """A map from keys to rows of tables: keys get the rows 1, 2, 3, ... in the order in which they first come.

    Row 0 is for unknown keys. A call happens whole or not at all, an interrupted one included. Several threads may call
    at once; then each call waits for the one before.

    Parameters
    ----------
    kind : "int64" or "str"
        What the keys are.
    admit : int
        A key gets a row when it comes for this time, from that occurrence on. Before, its row is 0. Keys without a row
        are remembered with their counts.

    Raises
    ------
    TypeError, ValueError
        If kind or admit is not as described above.

    Notes
    -----
    In the `metadata` of an optimizer, a map is part of its checkpoint: `opt.metadata["items"] = ids`. `load_state_dict`
    and ``so.load(path, opt)`` then fill the map that is there.

    Examples
    --------
    >>> import sparseopt as so
    >>> ids = so.IdMap("str")
    >>> ids.rows(["tea", "jam", "tea"])
    array([1, 2, 1])
    >>> ids.rows(["jam", "ham"], add=False)
    array([2, 0])
    >>> ids.keys([2, 1]), "tea" in ids, len(ids)
    (array(['jam', 'tea'], dtype=object), True, 2)
    """

    __slots__ = ("_map",)

    def __init__(self, kind: Literal["int64", "str"] = "int64", admit: int = 1) -> None:
        text = _checks.one_of("kind", kind, "int64", "str") == "str"
        if _checks.at_least("admit", admit, 1) > np.iinfo(np.int64).max:
            raise ValueError(f"admit is {shown(admit)}; it must be at most 2**63 - 1")
        self._map = ids.Ids(text, admit)

    @property
    def kind(self) -> str:
        """What the keys are: "int64" or "str"."""
        return "str" if self._map.text else "int64"

    @property
    def admit(self) -> int:
        """How many times a key must come before it gets a row."""
        return self._map.admit

    @property
    def n_rows(self) -> int:
        """The number of rows that a table needs: 1 more than the last row that ever had a key."""
        return self._map.n_rows

    def __len__(self) -> int:
        """Return the number of keys that have a row."""
        return self._map.n_keys

    def __contains__(self, key: object) -> bool:
        return bool(self.rows([key], add=False)[0])

    def __iter__(self) -> Iterator[int | str]:
        """Iterate over the keys that have a row, in the order of the rows."""
        return iter(self.keys(np.flatnonzero(self._map.uses()[1]) + 1).tolist())

    def __repr__(self) -> str:
        return f"IdMap({self.kind!r}, admit={self.admit}: {len(self)} keys)"

    def rows(self, keys: npt.ArrayLike | Sequence[int] | Sequence[str], add: bool = True) -> npt.NDArray[np.int64]:
        """Return the row of each key.

        Parameters
        ----------
        keys : array of any shape, or list
            Integers, or texts: a list of str, a NumPy array of str, of strings or of objects, or a pyarrow array of
            strings. The fastest forms are int64, pyarrow's and NumPy's arrays of str.
        add : bool
            Give rows to new keys, and count all keys. If False, nothing changes, and an unknown key has row 0.

        Returns
        -------
        array of int64, of the shape of keys

        Raises
        ------
        TypeError, ValueError
            If a key is not of the map's kind, is missing, does not fit into int64, or has a surrogate.
        """
        form, arguments, shape, at = (_texts if self._map.text else _integers)(keys)
        rows = np.empty(shape, np.int64)
        wrong = getattr(self._map, f"rows_of_{form}")(*arguments, _checks.flag("add", add), rows)
        if wrong >= 0:
            raise _refused(at(wrong), wrong, "a str")
        return rows

    def keys(self, rows: npt.ArrayLike) -> npt.NDArray[np.int64] | npt.NDArray[np.object_]:
        """Return the key of each row.

        Parameters
        ----------
        rows : array of integers, any shape

        Returns
        -------
        array of int64 or of str (dtype object), of the shape of rows

        Raises
        ------
        TypeError
            If rows are not integers.
        IndexError
            If a row has no key: row 0, a row that was freed, or a row that no key ever had.
        """
        numbers = row_numbers(rows, "rows").astype(np.int64, copy=False)
        if self._map.text:
            keys = [None] * len(numbers)
            wrong = self._map.keys_of(numbers, keys)
            out = np.empty(len(numbers), object)
            out[:] = keys
        else:
            out = np.empty(len(numbers), np.int64)
            wrong = self._map.integers_of(numbers, out)
        if wrong >= 0:
            raise IndexError(f"rows has {numbers[wrong]} at position {wrong}, which is the row of no key")
        return out.reshape(np.shape(rows))

    def evict(self, n: int, opt: Optimizer | None = None, tables: Sequence[str | int] | None = None,
              init: Init | None = None, *, by: Literal["last", "count"] = "last",
              keep: npt.ArrayLike = ()) -> npt.NDArray[np.int64]:
        """Take the rows of n keys away, and make these rows new in the tables of an optimizer.

        A later new key gets a freed row before it gets a new one. It gets the rows of the latest call first, in the
        order of the result.

        Parameters
        ----------
        n : int
            The number of keys, 0 or more.
        opt : None or Optimizer
            The rows are made new by `opt.reset`, in the same moment in which the keys lose them.
        tables : None or sequence of str or int
            The tables of opt that have these rows: keys in `opt.params`. None stands for all tables, which must then
            have the same number of rows.
        init : None or callable
            The values of the rows that are made new, as in `opt.reset`.
        by : "last" or "count"
            The keys to evict: those whose last use is longest ago, or those that came the fewest times. A use is a call
            of `rows` with add=True. Of equal keys, the one with the lower row goes first.
        keep : array of integers
            Rows that stay, such as those of the batch at hand. Row 0 may be among them.

        Returns
        -------
        array of int64, shape (n,)
            The freed rows.

        Raises
        ------
        TypeError, ValueError, IndexError, KeyError
            If a parameter is not as described above, or fewer than n rows may be freed.
        RuntimeError
            If another thread has changed the map at the same time.

        Examples
        --------
        >>> import numpy as np, sparseopt as so
        >>> ids = so.IdMap("int64")
        >>> for batch in ([70, 80], [80, 90]):
        ...     rows = ids.rows(batch)
        >>> table = so.zeros((ids.n_rows, 1))
        >>> opt = so.SGD(table, lr=1.0)
        >>> opt.step(np.ones((4, 1)))
        >>> ids.evict(1, opt, keep=rows)
        array([1])
        >>> table[:, 0], 70 in ids, ids.rows([60])
        (array([-1.,  0., -1., -1.], dtype=float32), False, array([1]))
        """
        n = _checks.at_least("n", n, 0)
        by = _checks.one_of("by", by, "last", "count")
        names = _table_names(opt, tables, init)
        version, counts, last = self._map.uses()
        kept = row_numbers(keep, "keep")
        if kept.size and not 0 <= kept.min() <= kept.max() <= len(counts):
            wrong = kept.min() if kept.min() < 0 else kept.max()
            raise IndexError(f"keep has {wrong}; this map has rows from 0 to {len(counts)}")
        may = np.append(False, counts > 0)
        may[kept] = False
        rows = np.flatnonzero(may)
        if n > len(rows):
            raise ValueError(f"n is {n}; only {len(rows)} rows have a key and are not kept")
        rows = rows[_smallest(n, (last if by == "last" else counts)[rows - 1])].astype(np.int64)
        freed = [(self._map, "freed", (rows, version))]
        if opt is None:
            adopt([], [], freed)
        else:
            reset_with(opt, dict.fromkeys(names, rows), init, freed)
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        return from_parts, to_parts(self)


def to_parts(map_: IdMap) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the settings of a map, which JSON can hold, and copies of its arrays: what `from_parts` takes."""
    clock, free_row, rows, candidates = map_._map.parts()
    arrays = {f"rows.{name}": array for name, array in rows.items()}
    arrays |= {f"candidates.{name}": array for name, array in candidates.items()}
    return {"kind": map_.kind, "admit": map_.admit, "clock": clock, "free_row": free_row}, arrays


def dtypes_of_parts(kind: str) -> dict[str, type]:
    """Return the names and dtypes of the arrays of a map."""
    keys = {"str": {"ends": np.int64, "texts": np.uint8}, "int64": {"keys": np.int64}}[kind]
    return {f"{of}.{name}": dtype for of in ("rows", "candidates")
            for name, dtype in {"counts": np.int64, "last": np.int64, **keys}.items()
            if (of, name) != ("candidates", "last")}


def from_parts(settings: dict[str, Any], arrays: dict[str, Array]) -> IdMap:
    """Return the map that has these parts. Raise ValueError if no map has them."""
    kind, admit, clock, free_row = (settings[name] for name in ("kind", "admit", "clock", "free_row"))
    new = IdMap(kind, admit)
    parts: dict[str, dict[str, Array]] = {"rows": {}, "candidates": {}}
    for name, dtype in dtypes_of_parts(kind).items():
        of, part = name.split(".")
        array = np.ascontiguousarray(arrays[name], dtype)
        if array.ndim != 1 or (part not in ("counts", "texts") and len(array) != len(parts[of]["counts"])):
            raise ValueError(f"{name} has shape {array.shape}; it does not fit the counts")
        parts[of][part] = array
    new._map = ids.restored(kind == "str", new.admit, _checks.at_least("clock", clock, 0),
                            _checks.at_least("free_row", free_row, 0), **parts)
    return new


def _table_names(opt, tables, init):
    """Return the names of the tables in which evicted rows are made new."""
    if opt is None:
        for name, value in (("tables", tables), ("init", init)):
            if value is not None:
                raise ValueError(f"{name} is {shown(value)} and opt is None; {name} is for the tables of an opt")
        return []
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt is a {type(opt).__name__}; it must be None or an Optimizer")
    if isinstance(tables, str | int):
        raise TypeError(f"tables is {shown(tables)}; it must be None or a sequence of names, such as [{shown(tables)}]")
    if tables is not None:
        return list(tables)
    lengths = {name: len(table) for name, table in opt.params.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"tables is None, and the tables of opt have different numbers of rows ({lengths}); tables "
                         "must say which of these have the rows of this map")
    return list(lengths)


def _smallest(n, values):
    """Return the positions of the n smallest values, in their order. Of equal values, the first goes first."""
    if n < len(values):
        bound = np.partition(values, n)[n]
        chosen = values < bound
        chosen[np.flatnonzero(values == bound)[:n - chosen.sum()]] = True
        places = np.flatnonzero(chosen)
    else:
        places = np.arange(n)
    return places[np.argsort(values[places], kind="stable")]


# Keys in all forms that users pass. Each function returns the name of a form, what the compiled code takes of it, the
# shape of the result, and a function from a position to the key there.


def _integers(keys):
    if isinstance(keys, (list, tuple)):
        return _listed_integers(keys, (len(keys),))
    array = _array(keys)
    if array.dtype.kind == "O":
        return _listed_integers(array.reshape(-1).tolist(), array.shape)
    if array.dtype.kind not in "iu":
        raise TypeError(f"keys have dtype {array.dtype}; this map has keys of int64")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        wrong = int((array.reshape(-1) > np.iinfo(np.int64).max).argmax())
        raise _refused(array.reshape(-1)[wrong], wrong, "an integer that fits into int64")
    return "integers", (np.require(array, np.int64, "CA"),), array.shape, None


def _listed_integers(keys, shape):
    numbers = np.empty(len(keys), np.int64)
    wrong = ids.read_list(tuple(keys), numbers)
    if wrong >= 0:
        raise _refused(keys[wrong], wrong, "an integer that fits into int64")
    return "integers", (numbers,), shape, None


def _texts(keys):
    if isinstance(keys, (list, tuple)):
        return "objects", (tuple(keys),), (len(keys),), keys.__getitem__
    if hasattr(keys, "null_count") and hasattr(keys, "type"):           # without an import of pyarrow
        return _arrow(keys)
    array = _array(keys)
    if array.dtype.kind not in "UOT":
        raise TypeError(f"keys have dtype {array.dtype}; this map has keys of str")
    if array.dtype.kind == "U":
        length = max(1, array.dtype.itemsize // 4)
        flat = np.ascontiguousarray(array.reshape(-1), f"=U{length}")
        return "letters", (flat.view(np.uint32).reshape(len(flat), length),), array.shape, flat.__getitem__
    flat = tuple(array.reshape(-1).tolist())
    return "objects", (flat,), array.shape, flat.__getitem__


def _arrow(keys):
    if str(keys.type) not in ("string", "large_string"):
        raise TypeError(f"keys have the pyarrow type {shown(str(keys.type))}; this map has keys of str, as string or "
                        "large_string")
    if keys.null_count:
        raise _refused(None, keys.is_null().index(True).as_py(), "a str")
    if hasattr(keys, "combine_chunks"):
        keys = keys.chunk(0) if keys.num_chunks == 1 else keys.cast("large_string").combine_chunks()
    wide = str(keys.type) == "large_string"
    _, offsets, data = keys.buffers()
    bounds = np.zeros(1, np.int64) if offsets is None else np.frombuffer(offsets, np.int64 if wide else np.int32)
    data = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    bounds = bounds[keys.offset:][:len(keys) + 1]

    def key_at(i):
        return str(data[bounds[i]:bounds[i + 1]], "utf-8", "backslashreplace")

    return "bytes", (bounds, data), (len(keys),), key_at


def _array(keys):
    array = _unmasked(keys, "keys")
    if array.ndim == 0:
        raise TypeError(f"keys is {shown(keys)}; it must be a list or an array")
    return array


def _refused(key, position, allowed):
    if isinstance(key, str) and allowed == "a str":
        return ValueError(f"keys has {shown(key)} at position {position}; a key must be text that UTF-8 can hold, "
                          "without surrogates")
    return TypeError(f"keys has {shown(key)} at position {position}; a key of this map must be {allowed}")
