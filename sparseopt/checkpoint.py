"""Checkpoints: one safetensors file with tables, state, hyper-parameters and step counts, without pickle.

A checkpoint is written to a temporary file in the same folder, and then moved to its path. So at any time the path
holds the complete old checkpoint or the complete new one. Checksums cover every byte. A resumed run gives the same bits
as a run without a stop.
"""

import contextlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import _memory, _tensors, schedules
from ._checks import NonfiniteError, rate_or_schedule
from ._files import regular
from ._ids import IdMap, dtypes_of_parts, from_parts, to_parts
from ._text import shown
from ._typing import Array, FilePath, Rate
from .optimizers import OPTIMIZERS, STRUCTURES, Optimizer, alike, while_held

__all__ = ["load", "save"]

_KEY = "sparseopt"
_FORMAT = 2
_LONG = 1000            # a longer list in the metadata is stored as an array
_LISTS = {str: "str", int: "int", float: "float"}


def save(path: FilePath, optimizer: Optimizer) -> None:
    """Save an optimizer with its tables.

    At any time, `path` holds the complete old file or the complete new one. After an error the old file is as before.

    Parameters
    ----------
    path : str or path
        The folder must exist. An existing file must be a regular file, or a link to one.
    optimizer : Optimizer
        The arrays are written without a copy of them.

    Raises
    ------
    TypeError
        If `optimizer` is not an Optimizer, or its metadata is neither JSON nor an `IdMap`.
    ValueError
        If the state has a NaN, unless nonfinite is "allow", or if the names and metadata do not fit into the file.
    OSError
        If the file cannot be written.
    RuntimeError
        If a step or another call is at work in the optimizer. A step while the file is written raises RuntimeError too.

    Examples
    --------
    >>> import os, tempfile, numpy as np, sparseopt as so
    >>> opt = so.Adam({"user": so.zeros((3, 2))}, lr=0.1)
    >>> opt.step({"user": so.RowGradient([1], np.ones((1, 2)))})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "checkpoint.safetensors")
    ...     so.save(path, opt)
    ...     again = so.load(path)
    >>> again.params["user"][1], again.state["user"]["step"]
    (array([-0.1, -0.1], dtype=float32), array([0, 1, 0], dtype=int32))
    """
    _check_optimizer(optimizer)
    while_held(optimizer, lambda state, structure: write(path, state, structure))       # no step until all is written


def write(path: FilePath, state: dict[str, Any], structure: str, pieces: Iterable[tuple[str, Array]] = ()) -> None:
    """Write a state_dict. Some of its arrays may be `_tensors.Streamed`; `pieces` yields their content.

    Each piece is a pair: the name of its array in the file, such as "params/item" or "state/item/step", and the array.
    """
    _check_numbers(state)
    allowed = state["options"]["nonfinite"] == "allow"
    arrays = {f"params/{name}": table for name, table in state.pop("params").items()}
    for name, ours in state.pop("state").items():
        arrays |= {f"state/{name}/{key}": array for key, array in ours.items()}
    for name, ours in state.pop("history", {}).items():
        arrays |= {f"history/{name}/{key}": array for key, array in ours.items()}
    for hyper in (*state["param_groups"], state["defaults"]):
        hyper["lr"] = schedules.to_json(hyper["lr"])
    state["metadata"], state["lists"], lists = _packed(state["metadata"])
    header = json.dumps({**state, "format": _FORMAT, "structure": structure})
    _tensors.write(path, arrays | lists, {_KEY: header}, pieces if allowed else _without_nan(pieces))


def _without_nan(pieces):
    for place, array in pieces:
        if place.startswith("state/"):
            check_piece(place, array)
        yield place, array


def load(path: FilePath, optimizer: Optimizer | None = None, *,
         lr: Rate | None = None) -> Optimizer:
    """Load a checkpoint into an optimizer of the same class, or as a new optimizer with new tables.

    After an error the optimizer is as before.

    Parameters
    ----------
    path : str or path
        A file that `save` wrote.
    optimizer : None or Optimizer
        With an optimizer, the whole file is read and checked first. Then the optimizer's tables, state and
        hyper-parameters are overwritten. With None, a new optimizer is made. Its `params` are new tables: the tables of
        an earlier optimizer stay as they are.
    lr : None, float or callable
        Replaces the stored learning rate. A file cannot hold a callable from outside `sparseopt.schedules`. The
        checkpoint of such a run needs `lr`, or an `optimizer`, which then keeps its own rate.

    Returns
    -------
    Optimizer

    Raises
    ------
    OSError
        If the path leads to no regular file, or the file cannot be read.
    ValueError
        If the file is incomplete, damaged even by one bit, or not a checkpoint of sparseopt. Also if the file is of
        another class of optimizer, or of tables with other shapes.
    TypeError, ValueError
        If optimizer or lr is not as described above.

    Examples
    --------
    >>> import os, tempfile, sparseopt as so
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "checkpoint.safetensors")
    ...     so.save(path, so.Adagrad(so.zeros((3, 2)), lr=0.1))
    ...     opt = so.load(path, lr=0.05)
    >>> opt.params[0].shape, opt.param_groups[0]["lr"]
    ((3, 2), 0.05)
    """
    if optimizer is not None:
        _check_optimizer(optimizer)
    if lr is not None:
        lr = rate_or_schedule("lr", lr)
    with reading(path, [] if optimizer is None else optimizer.param_groups, lr) as (reader, state):
        structure = state.pop("structure")
        into = None
        if optimizer is None:
            optimizer = into = _rebuilt(state, structure)
        _read(reader, state, into)
        _check_numbers(state)
        optimizer.load_state_dict(state)
    return optimizer


@contextlib.contextmanager
def reading(path: FilePath, param_groups: Sequence[Mapping[str, Any]],
            lr: Rate | None = None) -> Iterator[tuple[_tensors.Reader, dict[str, Any]]]:
    """Open a checkpoint. Gives a reader of its arrays, and its state_dict, with "structure" and "lists" besides.

    The arrays in the state_dict are still `_tensors.Stored`. `param_groups` has the rates of groups whose own rate is
    in no file. Errors of the block are as in `refusing`.
    """
    path, _ = regular(path)
    with open(path, "rb") as file, refusing(path):
        reader, state = _opened(file)
        groups = state["param_groups"]
        for group, ours in zip(groups, param_groups, strict=False):
            group["lr"] = ours["lr"] if group["lr"] is None else group["lr"]
        for group in groups:
            group["lr"] = group["lr"] if lr is None else lr
            if group["lr"] is None:
                raise ValueError("its lr was a callable, which no file holds; hand one in as lr=")
        defaults = state.get("defaults", {})            # of groups to come
        if lr is not None or defaults.get("lr") is None:
            defaults["lr"] = groups[0]["lr"]
        yield reader, state


@contextlib.contextmanager
def refusing(path: FilePath) -> Iterator[None]:
    """Turn every error that the content of a file causes into a ValueError that names the file."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        said = str(error) if isinstance(error, ValueError) else f"damaged ({shown(error)})"
        raise ValueError(f"{path}: {said}") from error


def _check_numbers(state):
    """Raise ValueError if the state has a NaN. Every further step with such a state would spoil the table."""
    if state["options"]["nonfinite"] == "allow":
        return
    for part in ("state", *(["history"] if "history" in state else [])):
        for name, arrays in state[part].items():
            for key, array in arrays.items():
                if isinstance(array, np.ndarray):
                    _check_no_nan(part, name, key, array)


def check_piece(place: str, array: Array) -> None:
    """Raise what `load` would raise for a NaN in a piece of an array of state, such as "state/item/exp_avg"."""
    part, _, rest = place.partition("/")
    name, _, key = rest.rpartition("/")
    _check_no_nan(part, name, key, array)


def _check_no_nan(part, name, key, array):
    if array.dtype.kind == "f" and np.isnan(array.max(initial=0.0)):
        raise NonfiniteError(f"the {part} of {shown(name)} has a NaN in {shown(key)}: the run has diverged, and its "
                             'checkpoint is neither written nor read, unless nonfinite is "allow"')


def _packed(metadata):
    """Return the metadata without long lists and maps of ids, the kinds of these, and the arrays that hold them."""
    plain, kinds, arrays = metadata, {}, {}
    if isinstance(metadata, dict):
        plain = dict(metadata)
        for key, value in metadata.items():
            settings = None
            if isinstance(value, IdMap):
                settings, parts = to_parts(value)
                kind, packed = f"IdMap {value.kind}", {f"{part}/{key}": array for part, array in parts.items()}
            else:
                kind, packed = _packed_list(key, value)
            if kind is not None:
                plain[key], kinds[key] = settings, kind
                arrays |= packed
    try:
        kept = json.loads(json.dumps(plain))
        same = isinstance(kept, dict) and kept == plain
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata of the optimizer is not JSON: {error}") from error
    if not same:
        raise TypeError(f"metadata of the optimizer is {shown(plain)}; it must be a dict that JSON gives back as it is")
    return plain, kinds, arrays


def _packed_list(key, values):
    """Return the kind of a list and the arrays that hold it; or None and {} for a list that JSON can hold itself.

    A list becomes arrays if all its values have one type of `_LISTS`, and it is long or has a NaN.
    """
    if type(values) is not list or not isinstance(key, str) or len(types := set(map(type, values))) != 1:
        return None, {}
    kind = _LISTS.get(types.pop())
    if kind is None or (len(values) <= _LONG and not (kind == "float" and any(map(math.isnan, values)))):
        return None, {}
    if kind == "str":
        arrays = _joined(key, values)
    else:
        try:
            arrays = [np.array(values, kind + "64")]
        except OverflowError:               # JSON holds integers of any size
            return None, {}
    return kind, dict(zip(_places(key, kind), arrays, strict=True))


def _places(key, kind):
    """Return the names of the arrays that hold a list or a map, with their dtypes."""
    if kind.startswith("IdMap "):
        return {f"{part}/{key}": dtype for part, dtype in dtypes_of_parts(kind.removeprefix("IdMap ")).items()}
    if kind == "str":
        return {f"metadata/{key}": np.uint8, f"ends/{key}": np.int64}
    return {f"metadata/{key}": {"int": np.int64, "float": np.float64}[kind]}


def _joined(key, texts):
    """Return the bytes of all texts, one after the other, and the end of each text."""
    whole = "".join(texts)
    try:
        raw = np.frombuffer(whole.encode(), np.uint8)
    except UnicodeEncodeError:
        wrong = next(i for i, text in enumerate(texts) if any("\ud800" <= letter <= "\udfff" for letter in text))
        raise TypeError(f"metadata[{shown(key)}][{wrong}] is {shown(texts[wrong])}; a long list must consist of texts "
                        "that UTF-8 can hold, without surrogates") from None
    lengths = map(len, texts) if whole.isascii() else (len(text.encode()) for text in texts)
    ends = np.fromiter(lengths, np.int64, len(texts))
    return raw, np.cumsum(ends, out=ends)


def _unpacked_list(key, values, ends=None):
    if ends is None:
        return values.tolist()
    if not len(ends) or ends[0] < 0 or (ends[1:] < ends[:-1]).any() or ends[-1] != len(values):
        raise ValueError(f"its list {shown(key)} has ends that do not fit its texts")
    raw, texts, begin = memoryview(values), [], 0
    for first in range(0, len(ends), 1 << 16):          # a list of all ends would take more memory than the texts
        some = [begin, *ends[first:first + (1 << 16)].tolist()]
        texts += [str(raw[start:stop], "utf-8") for start, stop in itertools.pairwise(some)]
        begin = some[-1]
    return texts


def _unpacked_map(key, kind, settings, parts):
    try:
        if f"IdMap {settings['kind']}" != kind:
            raise ValueError(f"it is an {kind} with keys of {settings['kind']}")
        return from_parts(settings, parts)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its map {shown(key)} is damaged: {error}") from error


def _check_optimizer(optimizer):
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; it must be an Optimizer")


def _opened(file):
    """Return a reader of the file and its state_dict, plus "structure". Arrays are still `_tensors.Stored`."""
    reader = _tensors.Reader(file)
    if _KEY not in reader.metadata:
        raise ValueError("a safetensors file, but not a checkpoint of sparseopt")
    state = _tensors.parsed(reader.metadata[_KEY])
    if (form := state.pop("format")) != _FORMAT:
        raise ValueError(f"a checkpoint of format {shown(form)}; this version of sparseopt reads only format {_FORMAT}")
    reader.check()
    if state["structure"] not in STRUCTURES:
        raise ValueError(f"its structure is {shown(state['structure'])}")
    parts = {}
    for place, stored in reader.arrays.items():
        start, key = place.rsplit("/", 1) if place.startswith(("state/", "history/")) else (place, None)
        if key is None:
            parts[start] = stored
        else:
            parts.setdefault(start, {})[key] = stored
    state["params"], state["state"] = {}, {}
    if "defaults" in state:
        state["defaults"]["lr"] = schedules.from_json(state["defaults"]["lr"])
    for group in state["param_groups"]:
        group["lr"] = schedules.from_json(group["lr"])
        for name in group["params"]:
            state["params"][name] = parts.pop(f"params/{name}")
            state["state"][name] = parts.pop(f"state/{name}", {})
            if state["options"]["missed"] == "replay":
                state.setdefault("history", {})[name] = parts.pop(f"history/{name}", {})
    for key, kind in state["lists"].items():
        if (state["metadata"][key] is not None) != kind.startswith("IdMap "):
            raise ValueError(f"its metadata has {shown(key)} twice")
        for place, dtype in _places(key, kind).items():
            stored = parts.pop(place)
            if stored.dtype != dtype or len(stored.shape) != 1:
                raise ValueError(f"its list {shown(key)} has dtype {stored.dtype} and shape {stored.shape}")
    if parts:
        raise ValueError(f"it has arrays that belong to no parameter: {', '.join(sorted(parts))}")
    return reader, state


def _read(reader, state, optimizer):
    """Read every array of the state: into the arrays of an optimizer, or into new ones if `optimizer` is None."""

    def read(place, mine=None):
        return read_new(reader, place) if mine is None else reader.read(place, mine)

    # `params` and `state` build new mappings at each access, so each is read once.
    tables, states = ({}, {}) if optimizer is None else (optimizer.params, optimizer.state)
    for name in state["params"]:
        state["params"][name] = read(f"params/{name}", tables.get(name))
        ours = states.get(name, {})
        state["state"][name] = {key: read(f"state/{name}/{key}", ours.get(key)) for key in state["state"][name]}
    for name, arrays in state.get("history", {}).items():
        state["history"][name] = {key: read(f"history/{name}/{key}") for key in arrays}
    read_lists(reader, state)


def read_new(reader: _tensors.Reader, place: str) -> Array:
    """Return an array of a file, read into new memory."""
    stored = reader.arrays[place]
    return reader.read(place, _memory.aligned(stored.shape, stored.dtype, np.empty))


def read_lists(reader: _tensors.Reader, state: dict[str, Any]) -> None:
    """Read the long lists of the metadata."""
    for key, kind in state.pop("lists").items():
        arrays = {place: read_new(reader, place) for place in _places(key, kind)}
        if kind.startswith("IdMap "):
            parts = {place.split("/")[0]: array for place, array in arrays.items()}
            state["metadata"][key] = _unpacked_map(key, kind, state["metadata"][key], parts)
        else:
            state["metadata"][key] = _unpacked_list(key, *arrays.values())


def _rebuilt(state, structure):
    """A new optimizer of the kind, shapes and settings of a state_dict; its numbers are still to be loaded."""
    if state["optimizer"] not in OPTIMIZERS:
        raise ValueError(f"of the optimizer {shown(state['optimizer'])}, which is none of this version's")
    return alike(OPTIMIZERS[state["optimizer"]], state, structure)
