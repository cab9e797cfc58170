"""Checkpoints: one safetensors file with parameters, state, hyper-parameters and counts; no pickle.

A file is written beside its final place and moved there whole, so whatever happens, the path holds the old checkpoint or the
new one. A resumed run gives the same bits as one that never stopped.
"""

import contextlib
import json
import os
import secrets
from pathlib import Path

from . import memory, schedules
from .optimizers._hyper import rate_or_schedule

_KEY = "sparseopt"
_FORMAT = 1
# What a file that was changed by hand or by a bad disk can make the parsing of it raise.
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError)


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
    _check_optimizer(optimizer)
    safetensors = _safetensors()
    state = optimizer.state_dict()
    tensors = {f"params/{name}": table for name, table in state.pop("params").items()}
    for name, arrays in state.pop("state").items():
        tensors |= {f"state/{name}/{key}": array for key, array in arrays.items()}
    for name, arrays in state.pop("history", {}).items():
        tensors |= {f"history/{name}/{key}": array for key, array in arrays.items()}
    for group in state["param_groups"]:
        group["lr"] = schedules.to_json(group["lr"])
    try:
        kept = json.loads(json.dumps(state["metadata"]))
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata of the optimizer is no JSON: {error}") from error
    if not isinstance(kept, dict) or kept != state["metadata"]:
        raise TypeError(f"metadata of the optimizer is {state['metadata']!r}; it must be a dict that JSON gives back as it is")
    header = json.dumps({**state, "format": _FORMAT, "structure": optimizer._structure})
    data = safetensors.numpy.save(tensors, metadata={_KEY: header})
    path = Path(os.path.realpath(path))     # of a link, what it leads to is replaced
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o7777)
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
    if optimizer is not None:
        _check_optimizer(optimizer)
    state = _read(Path(path))
    structure, groups = state.pop("structure"), state["param_groups"]
    if optimizer is not None:
        for group, ours in zip(groups, optimizer.param_groups, strict=False):
            group["lr"] = ours["lr"] if group["lr"] is None else group["lr"]
    for group in groups:
        group["lr"] = group["lr"] if lr is None else lr
        if group["lr"] is None:
            raise ValueError(f"{path}: its lr was a callable, which no file holds; hand one in as lr=")
    if lr is not None:
        rate_or_schedule("lr", lr)
    try:
        if optimizer is None:
            optimizer = _rebuilt(state, structure)
        optimizer.load_state_dict(state)
    except _DAMAGE as error:
        raise ValueError(f"{path}: {error.args[0] if error.args else error!r}") from error
    return optimizer


def _check_optimizer(optimizer):
    from .optimizers import Optimizer

    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; it must be an Optimizer")


def _read(path):
    """The state_dict in a file, plus "structure"."""
    safetensors = _safetensors()
    with open(path, "rb"):                  # an OSError that names the path, where there is no such file
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, *_DAMAGE) as error:
        raise ValueError(f"{path}: no complete safetensors file ({error})") from error
    if _KEY not in header:
        raise ValueError(f"{path}: a safetensors file, but no checkpoint of sparseopt")
    try:
        return _state_dict(header, tensors)
    except _DAMAGE as error:
        raise ValueError(f"{path}: a damaged checkpoint ({error!r})") from error


def _state_dict(header, tensors):
    state = json.loads(header[_KEY])
    if state.pop("format") != _FORMAT:
        raise ValueError("written by another version of sparseopt")
    if state["structure"] not in ("single", "mapping", "sequence"):
        raise ValueError(f"its structure is {state['structure']!r}")
    state["params"], state["state"] = {}, {}
    for group in state["param_groups"]:
        group["lr"] = schedules.from_json(group["lr"])
        for name in group["params"]:
            state["params"][name] = tensors.pop(f"params/{name}")
            state["state"][name] = _below(f"state/{name}/", tensors)
            if state["options"]["missed"] == "replay":
                state.setdefault("history", {})[name] = _below(f"history/{name}/", tensors)
    if tensors:
        raise ValueError(f"it has tensors of no parameter: {', '.join(sorted(tensors))}")
    return state


def _below(start, tensors):
    inside = [key for key in tensors if key.startswith(start) and "/" not in key[len(start):]]
    return {key[len(start):]: tensors.pop(key) for key in inside}


def restored(state_dict, structure):
    """A new optimizer, with tables of its own, from what another's `state_dict` and `_structure` said."""
    optimizer = _rebuilt(state_dict, structure)
    optimizer.load_state_dict(state_dict)
    return optimizer


def _rebuilt(state, structure):
    """A new optimizer of the kind, shapes and settings of a state_dict; its numbers are still to be loaded."""
    from .optimizers import OPTIMIZERS

    if state["optimizer"] not in OPTIMIZERS:
        raise ValueError(f"of the optimizer {state['optimizer']}, which is none of this version's")
    groups = []
    for group in state["param_groups"]:
        tables = {name: memory.zeros(state["params"][name].shape, state["params"][name].dtype) for name in group["params"]}
        groups.append({**group, "params": tables if structure == "mapping" else list(tables.values())})
    cls, options = OPTIMIZERS[state["optimizer"]], state["options"]
    if structure == "single":
        hyper = groups[0]
        return cls(hyper.pop("params")[0], **hyper, **options)
    return cls(groups, **options)


def _sync_folder(folder):
    # So that the move itself survives a power cut; where a folder cannot be synced, the file is in place all the same.
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


