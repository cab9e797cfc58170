"""Groups of tables: what each may contain, how it is made, and which changes the state of its tables allows."""

from types import MappingProxyType

from .._text import listed, shown
from ._hyper import CHECKS
from ._parameter import Parameter, check_apart
from ._rule import missed_of


def checked_defaults(defaults):
    """Return the hyper-parameters of a constructor in plain Python, each checked alone: a group may replace some."""
    return {name: CHECKS[name](name, value) for name, value in defaults.items()}


def check_group(optimizer, group, seen=None):
    """Check a group and bring its values into plain Python, in place; or raise. Return the names of what was checked.

    Values that are equal in `seen`, a group checked before, are not checked again.
    """
    defaults, name = optimizer._defaults, type(optimizer).__name__
    if seen is None or group.keys() != seen.keys():
        missing = [key for key in defaults if key not in group]
        if missing:
            raise KeyError(f"a group has no {shown(missing[0])}; a group has params, {', '.join(defaults)}")
        names = list(group)
    else:
        names = _different(group, seen)
    for key in names:
        if key == "params":
            continue
        if key not in defaults:
            raise TypeError(f"{name} has no hyper-parameter {shown(key)}; a group has params, {', '.join(defaults)}")
        group[key] = CHECKS[key](key, group[key])
    if not callable(group["lr"]):
        optimizer._check_more(group, group["lr"])
    return names


def _different(group, seen):
    try:
        return [name for name, value in group.items()
                if value is not seen[name] and (name == "params" or value != seen[name])]
    except ValueError:          # an array among the values: its check says what is wrong with it
        return list(group)


def check_state_fits(optimizer, group, parameter, names):
    """Raise ValueError if a hyper-parameter of these names needs other state, or state that starts in another way."""
    made_for = parameter.made_for
    fits = optimizer._rule(group) == parameter.rule
    for name in names:
        value, before = group[name], made_for[name]
        changed = value is not before if name == "params" else name in optimizer._starting and value != before
        if changed or not (fits or optimizer._rule({**made_for, name: value}) == parameter.rule):
            raise ValueError(f"{name} has changed from {shown(before)} to {shown(value)}; it cannot change after "
                             "construction, because the state depends on it")
    if not fits:
        names = _different(group, made_for)
        raise ValueError(f"{listed(names)} have changed; they cannot change together after construction, because the "
                         "state depends on them")


def extended(optimizer, added):
    """Return the changes, for `adopt`, by which an optimizer gets more groups; `added` is as from `structure_of`."""
    groups, parameters = list(optimizer.param_groups), {}
    for tables, hyper in added:
        group = {"params": MappingProxyType(tables), **optimizer._defaults, **hyper}
        check_group(optimizer, group)
        for name, table in tables.items():
            parameters[name] = Parameter(name, optimizer._structure.title(name), table, len(groups), tables)
        groups.append(group)
    everything = {**optimizer._parameters, **parameters}
    check_apart(everything.values())
    for parameter in parameters.values():
        group = groups[parameter.group_index]
        missed = missed_of(optimizer, group) if optimizer._missed == "replay" else None
        parameter.bind(optimizer._kernels.Sweep, optimizer._rule(group), group, optimizer._step_count, missed)
        optimizer._init_state(group, parameter.table, parameter.state)
    changes = {
        "param_groups": groups,
        "_group_params": [id(group["params"]) for group in groups],
        "_parameters": everything,
        "_written": tuple(array for one in everything.values() for array in one.arrays()),
    }
    return [(optimizer, name, value) for name, value in changes.items()]
