"""Groups of tables: what each may contain, how it is made, and which changes the state of its tables allows."""

from types import MappingProxyType

from .._text import shown
from ._hyper import CHECKS
from ._parameter import Parameter, check_apart
from ._rule import missed_of


def checked_defaults(defaults):
    """Return the hyper-parameters of a constructor in plain Python, each checked alone: a group may replace some."""
    return {name: CHECKS[name](name, value) for name, value in defaults.items()}


def check_group(optimizer, group):
    """Check a group and bring its values into plain Python, in place; or raise."""
    defaults, name = optimizer._defaults, type(optimizer).__name__
    missing = [key for key in defaults if key not in group]
    if missing:
        raise KeyError(f"a group has no {shown(missing[0])}; a group has params, {', '.join(defaults)}")
    for key, value in group.items():
        if key == "params":
            continue
        if key not in defaults:
            raise TypeError(f"{name} has no hyper-parameter {shown(key)}; a group has params, {', '.join(defaults)}")
        group[key] = CHECKS[key](key, value)
    if not callable(group["lr"]):
        optimizer._check_more(group, group["lr"])


def check_state_fits(optimizer, group, made_for):
    """Raise ValueError if a changed hyper-parameter would need other state, or state that starts in another way."""
    for name, value in group.items():
        before = made_for[name]
        changed = value is not before if name == "params" else name in optimizer._starting and value != before
        if changed or optimizer._rule({**made_for, name: value}) != optimizer._rule(made_for):
            raise ValueError(f"{name} has changed from {shown(before)} to {shown(value)}; it cannot change after "
                             "construction, because the state depends on it")


def extended(optimizer, added):
    """Return the changes, for `adopt`, by which an optimizer gets more groups; `added` is as from `structure_of`."""
    groups, parameters = list(optimizer.param_groups), {}
    for tables, hyper in added:
        group = {"params": MappingProxyType(tables), **optimizer._defaults, **hyper}
        check_group(optimizer, group)
        for name, table in tables.items():
            parameters[name] = Parameter(name, optimizer._structure.title(name), table, len(groups))
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
        "_written": tuple(array for one in everything.values() for array in (one.table, *one.state.values())),
    }
    return [(optimizer, name, value) for name, value in changes.items()]
