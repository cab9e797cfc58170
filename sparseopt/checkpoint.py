"""Checkpoints: one safetensors file with parameters, state, hyper-parameters and counts; no pickle.

A file is written beside its final place and moved there whole, so whatever happens, the path holds the old checkpoint or the
new one. A resumed run gives the same bits as one that never stopped.
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path

from . import memory, schedules

_KEY = "sparseopt"
_FORMAT = 1


def _safetensors():
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError("checkpoints need the package safetensors: pip install 'sparseopt[checkpoint]'") from None
    return safetensors


def save(path, optimizer):
    """Save an optimizer with its tables, atomically: the file at `path` is at all times the old one or the new one.

    Parameters
    ----------
    path : str or path
        Its folder must exist.
    optimizer : Optimizer
        Needs memory for a copy of its arrays while it is written.

    Raises
    ------
    ImportError
        If safetensors is missing (the extra `checkpoint`).
    TypeError, OSError
        If `optimizer` is none, its metadata no JSON, or the file cannot be written; the old file is as before.

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
    from .optimizers import Optimizer

    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; it must be an Optimizer")
    safetensors = _safetensors()
    state = optimizer.state_dict()
    tensors = {f"params/{name}": table for name, table in state.pop("params").items()}
    for name, arrays in state.pop("state").items():
        tensors |= {f"state/{name}/{key}": array for key, array in arrays.items()}
    for group in state["param_groups"]:
        group["lr"] = schedules.to_json(group["lr"])
    header = {**state, "format": _FORMAT, "structure": optimizer._structure}
    path = Path(path)
    data = safetensors.numpy.save(tensors, metadata={_KEY: json.dumps(header)})
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def load(path, optimizer=None, *, lr=None):
    """Load a checkpoint: into an optimizer of the same kind, or as a new one with tables of its own.

    Parameters
    ----------
    path : str or path
        What `save` wrote.
    optimizer : None or Optimizer
        Its tables, state and hyper-parameters are overwritten in place.
    lr : None, float or callable
        Takes the place of the stored rate; needed where that was a callable not of `sparseopt.schedules`, which no file
        holds (an `optimizer` keeps its own).

    Returns
    -------
    Optimizer

    Raises
    ------
    ImportError
        If safetensors is missing (the extra `checkpoint`).
    OSError, ValueError, TypeError
        If the file cannot be read, is cut short, no checkpoint of ours, or of another optimizer or other shapes. The
        optimizer is then as before.

    Examples
    --------
    See `save`.
    """
    state = _read(Path(path))
    structure, groups = state.pop("structure"), state["param_groups"]
    if optimizer is not None:
        for group, ours in zip(groups, optimizer.param_groups, strict=False):
            group["lr"] = ours["lr"] if group["lr"] is None else group["lr"]
    for group in groups:
        group["lr"] = group["lr"] if lr is None else lr
        if group["lr"] is None:
            raise ValueError(f"{path}: its lr was a callable, which no file holds; hand one in as lr=")
    if optimizer is None:
        optimizer = _rebuilt(state, structure, path)
    try:
        optimizer.load_state_dict(state)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error.args[0]}") from error
    return optimizer


def _read(path):
    """The state_dict in a file, plus "structure"."""
    safetensors = _safetensors()
    with open(path, "rb"):                  # an OSError that names the path, where there is no such file
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: no complete safetensors file ({error})") from error
    if header is None:
        raise ValueError(f"{path}: a safetensors file, but no checkpoint of sparseopt")
    state = json.loads(header)
    if state.pop("format") != _FORMAT:
        raise ValueError(f"{path}: written by a later version of sparseopt")
    state["params"], state["state"] = {}, {}
    for group in state["param_groups"]:
        group["lr"] = schedules.from_json(group["lr"])
        for name in group["params"]:
            state["params"][name] = tensors.pop(f"params/{name}")
            start = f"state/{name}/"
            inside = [key for key in tensors if key.startswith(start) and "/" not in key[len(start):]]
            state["state"][name] = {key[len(start):]: tensors.pop(key) for key in inside}
    return state


def _rebuilt(state, structure, path):
    """A new optimizer of the kind, shapes and settings of a state_dict; its numbers are still to be loaded."""
    from .optimizers import OPTIMIZERS

    if state["optimizer"] not in OPTIMIZERS:
        raise ValueError(f"{path}: of the optimizer {state['optimizer']}, which is none of this version's")
    groups = []
    for group in state["param_groups"]:
        tables = {name: memory.zeros(state["params"][name].shape, state["params"][name].dtype) for name in group["params"]}
        groups.append({**group, "params": tables if structure == "mapping" else list(tables.values())})
    cls, options = OPTIMIZERS[state["optimizer"]], state["options"]
    if structure == "single":
        hyper = groups[0]
        return cls(hyper.pop("params")[0], **hyper, **options)
    return cls(groups, **options)


def _mode(path):
    """The permissions of the file that is replaced, or of a new one."""
    if path.exists():
        return path.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder):
    if hasattr(os, "O_DIRECTORY"):          # so that the move itself survives a power cut
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


