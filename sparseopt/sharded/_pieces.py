"""Rows of tables that are cut into parts in one way, copied into parts cut in another way.

A state_dict is of a part if its tables hold the rows `first`, `first` + `every`, ... of larger tables.
"""

import math

from .. import _memory
from ..optimizers import Part, alike


def filled(optimizer, part_of, pieces):
    """Fill an optimizer of parts with rows of other parts, and return it.

    Parameters
    ----------
    optimizer : None or Optimizer
        None stands for a new one like that of the pieces.
    part_of : dict from name to Part
        The rows that the optimizer holds.
    pieces : iterable of (first, every, class, state_dict, structure)
        Together they have all these rows. Their counts and hyper-parameters are the same. The metadata are those of the
        first. Each count of rows that were left out goes to one part alone.
    """
    metadata, left_out, (to_first, to_every, _) = None, 0, next(iter(part_of.values()))
    for first, every, kind, state, structure in pieces:
        if optimizer is None:
            tables = {name: _memory.zeros((length(part_of[name]), *table.shape[1:]), table.dtype)
                      for name, table in state["params"].items()}
            optimizer = alike(kind, {**state, "params": tables}, structure, tables=tables)
        metadata = state["metadata"] if metadata is None else metadata
        left_out += state["nonfinite_rows"] if first % to_every == to_first else 0
        params, ours = optimizer.params, optimizer.state
        for name, part in part_of.items():
            to, source = overlap(part, first, every)
            params[name][to] = state["params"][name][source]
            for key, array in ours[name].items():
                if array.ndim:
                    array[to] = state["state"][name][key][source]
                else:
                    array[...] = state["state"][name][key]
    state = {**state, "params": dict(params), "state": {name: dict(one) for name, one in ours.items()},
             "metadata": metadata, "nonfinite_rows": left_out}
    optimizer.load_state_dict(state)
    return optimizer


def cut(state, part_of):
    """Return the state_dict of parts of the tables that a state_dict has whole."""
    def taken(name, array):
        return array[part_of[name].first::part_of[name].every].copy() if array.ndim else array

    first = next(iter(part_of.values())).first
    return {**state, "metadata": {}, "nonfinite_rows": 0 if first else state["nonfinite_rows"],
            "params": {name: taken(name, table) for name, table in state["params"].items()},
            "state": {name: {key: taken(name, array) for key, array in ours.items()}
                      for name, ours in state["state"].items()}}


def length(part):
    """Return how many rows a part has."""
    return len(range(part.first, part.n_rows, part.every))


def overlap(part, first, every):
    """Return the places of the rows that two parts share: a slice of the one, and a slice of the other."""
    step = math.lcm(part.every, every)
    shared = next((row for row in range(part.first, part.first + step, part.every) if row % every == first), None)
    if shared is None or shared >= part.n_rows:
        return slice(0, 0), slice(0, 0)
    n = len(range(shared, part.n_rows, step))
    return tuple(slice(start, start + (n - 1) * by + 1, by)
                 for start, by in (((shared - part.first) // part.every, step // part.every),
                                   ((shared - first) // every, step // every)))


def meet(first, every, other_first, other_every):
    """Return whether two parts can share rows."""
    return (first - other_first) % math.gcd(every, other_every) == 0


__all__ = ["Part", "cut", "filled", "length", "meet"]
