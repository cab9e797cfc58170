"""The form in which tables were given: one array, a mapping from names, or a sequence.

Gradients, row numbers and answers about rows come in that form, too. Everything inside goes by names: strings of a
mapping, positions in a sequence, 0 of a single array. Each form is a class here, and no other file asks which one it
is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._text import escaped, listed, shown
from .._typing import Array, Floats
from ..gradients import Gradient

# With one type of sequence, type checkers know what a list of different groups is meant to be.
Params = Floats | Mapping[str, Floats] | Sequence[Floats | Mapping[str, Any]]
Gradients = Gradient | Mapping[str, Gradient | None] | Sequence[Gradient | None]
Rows = Array | Sequence[Any] | Mapping[str, Any]          # row numbers


class Single:
    """One array."""

    kind = "single"                     # as checkpoints call the form

    def title(self, name):
        """Return what errors call a table."""
        return ""

    def pairs(self, given, parameters, what, kind):
        """Return pairs (parameter, what is given for it). `parameters` go by name; `what` and `kind` are for errors."""
        if given is None:
            raise TypeError(f"{what} is None; there is one table, so it must be a gradient")
        return [(parameters[0], given)]

    def formed(self, by_name, names):
        """Return what is known by name, in the form of the tables; a sequence has None for a name without."""
        return by_name[0]

    def added(self, params, names):
        """Return new tables by name, for a group that comes to tables of the given names."""
        raise ValueError("params was one array at construction, so gradients come as one, and no group can be added. "
                         "Make the optimizer with a mapping or a list of arrays to add groups to it")

    def params_of(self, groups):
        """Return params of which `structure_of` makes these groups."""
        ((tables, _),) = groups
        (table,) = tables.values()
        return table


class Named:
    """A mapping from names to arrays, or groups of such mappings."""

    kind = "mapping"

    def title(self, name):
        return f'"{escaped(name, 80)}"'

    def pairs(self, given, parameters, what, kind):
        if not isinstance(given, Mapping):
            raise TypeError(f"{what} is a {type(given).__name__}; the parameters are a mapping, so it must be one, "
                            f"with names among {listed(parameters)}")
        pairs, left = [], dict(parameters)
        for name, one in given.items():
            parameter = left.pop(name, None)
            if parameter is None:
                if name in parameters:
                    raise ValueError(f"{what} names {shown(name)} twice; a mapping gives each name once")
                raise KeyError(f"{what} names {shown(name)}; the parameters are {listed(parameters)}")
            pairs.append((parameter, one))
        return pairs

    def formed(self, by_name, names):
        return by_name

    def added(self, params, names):
        if not isinstance(params, Mapping):
            raise TypeError(f"params is a {type(params).__name__}; the parameters have names, so it must be a mapping")
        tables = _mapped(params)
        repeated = [name for name in tables if name in names]
        if repeated:
            raise ValueError(f"params names {shown(repeated[0])}, as another group does; each table needs its own "
                             "name")
        return tables

    def params_of(self, groups):
        return [{**given, "params": tables} for tables, given in groups]


class Positional:
    """A sequence of arrays, or groups of arrays without names: a table's name is its position among all."""

    kind = "sequence"

    def title(self, name):
        return f"parameter {name}"

    def pairs(self, given, parameters, what, kind):
        if not isinstance(given, (list, tuple)):
            raise TypeError(f"{what} is a {type(given).__name__}; the parameters are a sequence, so it must be a list "
                            f"or tuple of {len(parameters)} {kind}")
        if len(given) != len(parameters):
            raise ValueError(f"{what} has {len(given)} {kind}; there are {len(parameters)} parameters"
                             + (" (None skips one)" if kind == "gradients" else ""))
        return list(zip(parameters.values(), given, strict=True))

    def formed(self, by_name, names):
        return [by_name.get(name) for name in names]

    def added(self, params, names):
        if isinstance(params, Mapping):
            raise TypeError("params is a mapping; the other parameters have no names, so it must be an array or a "
                            "sequence of arrays")
        _, [(tables, _)] = structure_of(params)
        return {len(names) + position: table for position, table in tables.items()}

    def params_of(self, groups):
        return [{**given, "params": list(tables.values())} for tables, given in groups]


STRUCTURES = {structure.kind: structure for structure in (Single(), Named(), Positional())}


def structure_of(params):
    """Return the structure of params, and its groups as pairs (tables by name, hyper-parameters that the group has)."""
    if isinstance(params, Mapping):
        return STRUCTURES["mapping"], [(_mapped(params), {})]
    if isinstance(params, np.ndarray):
        return STRUCTURES["single"], [({0: params}, {})]
    if not isinstance(params, (list, tuple)):
        raise TypeError(f"params is a {type(params).__name__}; it must be an array, a mapping, a sequence of arrays or "
                        "a list of groups")
    if not params:
        raise ValueError("params is empty; there must be at least one table")
    if not any(isinstance(item, Mapping) for item in params):
        return STRUCTURES["sequence"], [(dict(enumerate(params)), {})]
    groups, names = [], {}
    for position, item in enumerate(params):
        inner, given = group_parts(f"params[{position}]", item)
        structure, [(tables, _)] = structure_of(inner)
        if structure.kind != "mapping":
            tables = {len(names) + i: table for i, table in tables.items()}
        repeated = [name for name in tables if name in names]
        if repeated:
            raise ValueError(f"params names {shown(repeated[0])} in two groups; each table needs a name of its own")
        names |= dict.fromkeys(tables)
        groups.append((tables, given))
    kinds = {isinstance(name, str) for name in names}
    if len(kinds) != 1:
        raise TypeError("params has groups with names and groups without; name all or none")
    return STRUCTURES["mapping" if kinds == {True} else "sequence"], groups


def group_parts(what, group):
    """Return the params of a group and its hyper-parameters; `what` is for errors."""
    if not isinstance(group, Mapping) or "params" not in group:
        raise TypeError(f"{what} is no group; a group is a dict with the key 'params'")
    params = group["params"]
    if isinstance(params, (list, tuple)) and any(isinstance(table, Mapping) for table in params):
        raise TypeError(f"{what} has groups in its params; they must be tables")
    return params, {key: value for key, value in group.items() if key != "params"}


def _mapped(params):
    if not params:
        raise ValueError("params is empty; there must be at least one table")
    for name in params:
        if not isinstance(name, str):
            raise TypeError(f"params has the name {shown(name)}; names must be strings")
    return dict(params)


def arranged(optimizer: Any, by_name: Mapping[str | int, Any]) -> Any:
    """Return what is known by the names of tables, in the form in which the optimizer takes it; see `Single.formed`."""
    return optimizer._structure.formed(by_name, optimizer.params)
