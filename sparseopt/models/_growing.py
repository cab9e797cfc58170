"""Tables that grow while their optimizer goes on."""

from ..optimizers import continue_run


def grown(optimizer, tables):
    """Return an optimizer with larger tables. Their first rows and the state of these are those of the old optimizer.

    The later rows keep the values that `tables` has, and get the state of untouched rows. Under missed="replay", the
    steps that old rows have missed are applied first.

    Parameters
    ----------
    optimizer : Optimizer
    tables : mapping from names to arrays
        Arrays with the names, dims and dtypes of the optimizer's tables, and at least as many rows. The first rows are
        overwritten.

    Returns
    -------
    Optimizer
        A new optimizer of the same class and settings.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> from sparseopt.models._growing import grown
    >>> opt = so.Adam({"items": so.zeros((2, 1))}, lr=0.1)
    >>> opt.step({"items": so.RowGradient([1], [[1.0]])})
    >>> larger = grown(opt, {"items": so.zeros((3, 1))})
    >>> larger.params["items"].T, larger.state["items"]["step"]
    (array([[ 0. , -0.1,  0. ]], dtype=float32), array([0, 1, 0], dtype=int32))
    """
    replays = optimizer.missed == "replay"
    if replays:
        optimizer.catch_up()
    old = optimizer.state_dict()
    for name, table in old["params"].items():       # before the constructor: Ftrl's first state depends on the tables
        tables[name][:len(table)] = table
    groups = [{**group, "params": {name: tables[name] for name in group["params"]}} for group in old["param_groups"]]
    new = type(optimizer)(groups, num_threads=optimizer.num_threads, **old["options"])
    for name, arrays in old["state"].items():
        for key, array in arrays.items():
            target = new.state[name][key]
            if replays and key == "step":           # untouched rows stand at the last step, as all rows do now
                target[...] = array.max(initial=0)
            target[slice(len(array)) if array.ndim else ...] = array
    new.load_state_dict({**old, "params": dict(new.params), "state": dict(new.state)})
    continue_run(new, optimizer)            # see EarlyStopping
    return new
