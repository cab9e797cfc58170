"""Checks of state that comes from outside: a state_dict, or arrays of another run.

All of these compare plain data with plain data. None of them writes: what they return is what `adopt` then writes at
once.
"""

from collections.abc import Mapping
from numbers import Integral

import numpy as np

from .._text import listed, shown
from ._parameter import LARGEST_COUNT

# State that is 0 or more in every run.
_NOT_NEGATIVE = {"exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "acc_delta", "sum", "n"}


def check_form(state_dict, ours):
    """Raise if a state_dict has not the entries of ours, or is of another class or other fixed options."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict is a {type(state_dict).__name__}; it must be a mapping, as state_dict() returns")
    for key in ours:
        if key not in state_dict and key != "defaults":             # older files have none
            raise KeyError(f"state_dict has no {shown(key)}")
    if state_dict["optimizer"] != ours["optimizer"]:
        raise ValueError(f"state_dict is of {state_dict['optimizer']}; this optimizer is {ours['optimizer']}")
    same_names("options", state_dict["options"], ours["options"])
    for name in ("step_count", "missed"):
        if state_dict["options"][name] != ours["options"][name]:
            raise ValueError(f"state_dict has {name}={shown(state_dict['options'][name])}; this optimizer has "
                             f"{shown(ours['options'][name])}")
    if ours["options"]["missed"] == "replay" and "history" not in state_dict:
        raise KeyError("state_dict has no 'history'")
    if not isinstance(state_dict["metadata"], Mapping):
        raise TypeError(f"metadata is {shown(state_dict['metadata'])}; it must be a mapping")


def matched_arrays(state_dict, ours):
    """Return pairs (our array, its array) of all tables and their state; or raise."""
    pairs = _matched("params", state_dict["params"], ours["params"])
    same_names("state", state_dict["state"], ours["state"])
    for name, state in ours["state"].items():
        pairs += _matched(f"state of {shown(name)}", state_dict["state"][name], state)
        for key in state:
            _check_state(f"state_dict has, as state of {shown(name)},", key, np.asarray(state_dict["state"][name][key]))
    return pairs


def matched_groups(theirs, ours):
    """Return groups with the values of a state_dict, still to be checked, and our params; or raise."""
    if len(theirs) != len(ours):
        raise ValueError(f"state_dict has {len(theirs)} param_groups; this optimizer has {len(ours)}")
    for our, their in zip(ours, theirs, strict=True):
        if list(their["params"]) != list(our["params"]):
            raise ValueError(f"state_dict has a group of params {list(their['params'])}; this optimizer has "
                             f"{list(our['params'])}")
    return [{**our, **their, "params": our["params"]} for our, their in zip(ours, theirs, strict=True)]


def restored_history(history, state_dict, name):
    """Fill a new history with that of a table in a state_dict, and return it; or raise."""
    try:
        history.restore(state_dict["history"][name])
    except (KeyError, ValueError) as error:
        raise ValueError(f"state_dict has a history of {shown(name)} that does not fit these hyper-parameters: "
                         f"{error}") from error
    steps = np.asarray(state_dict["state"][name]["step"])
    if steps.max(initial=0) > history.now:
        raise ValueError(f"state_dict has steps of {shown(name)} up to {steps.max()}; its history ends at "
                         f"{history.now}")
    return history


def count(name, value):
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is {shown(value)}; it must be an integer of at least 0")
    return int(value)


def taken(key, value, ours):
    """Return state of another run in the shape and dtype of ours; or raise."""
    array = np.asarray(value)
    if key == "step":
        array = _taken_steps(array, ours)
    elif array.dtype.kind not in "fiu":
        raise TypeError(f"{key} has dtype {array.dtype}; it must be numbers")
    if np.shape(array) != ours.shape:
        raise ValueError(f"{key} has shape {np.shape(array)}; the state has shape {ours.shape}")
    with np.errstate(over="ignore"):
        array = np.array(array, dtype=ours.dtype, order="C")
    if not np.isfinite(array).all():
        raise ValueError(f"{key} has a NaN or an infinity in {ours.dtype}; it must be finite")
    _check_state("state has", key, array)
    return array


def _taken_steps(array, ours):
    if array.dtype.kind == "f" and (array == np.floor(array)).all() and np.abs(array).max(initial=0) < 2**53:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"step has dtype {array.dtype}; it must be integers")
    if array.min(initial=0) < 0 or array.max(initial=0) > LARGEST_COUNT:
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"step has {wrong}; it must be from 0 to {LARGEST_COUNT}")
    if ours.ndim == 0 and array.ndim:
        if array.size == 0 or (array != array.flat[0]).any():
            raise ValueError("step has more than one number; with step_count=\"global\" it must be one")
        return array.flat[0]
    return np.broadcast_to(array, ours.shape) if array.ndim == 0 else array


def _check_state(what, key, array):
    """Raise ValueError if a state has numbers that no run leaves."""
    if key == "step" and array.min(initial=0) < 0:
        raise ValueError(f"{what} {shown(key)} with {array.min()}; step counts must be 0 or more")
    if key == "mu_product" and not (array.min(initial=0) >= 0 and array.max(initial=0) <= 1):
        raise ValueError(f"{what} 'mu_product' from {array.min():g} to {array.max():g}; it must be from 0 to 1")
    if key in _NOT_NEGATIVE and array.min(initial=0) < 0:
        raise ValueError(f"{what} {shown(key)} with {array.min():g}; it must be 0 or more")


def same_names(what, theirs, ours):
    if set(theirs) != set(ours):
        raise ValueError(f"state_dict has {what} named {listed(sorted(map(str, theirs)))}; this optimizer has "
                         f"{listed(sorted(map(str, ours)))}")


def _matched(what, theirs, ours):
    """Return pairs (our array, their array) of the same name, shape and dtype; or raise."""
    same_names(what, theirs, ours)
    for name, array in ours.items():
        other = np.asarray(theirs[name])
        if other.shape != array.shape or other.dtype != array.dtype:
            raise ValueError(f"state_dict has {what}, {shown(name)}, of shape {other.shape} and dtype {other.dtype}; "
                             f"this optimizer has {array.shape} and {array.dtype}")
    return [(array, np.asarray(theirs[name])) for name, array in ours.items()]
