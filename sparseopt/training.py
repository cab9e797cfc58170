"""Tools for training loops: lower rates on a plateau, early stopping, and gradient accumulation.

Each tool works on an optimizer and knows nothing of models.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from . import _memory
from ._checks import at_least, below_one, not_negative, one_of
from ._kernels.atomic import adopt
from ._text import shown
from .gradients import MatmulGradient, RowGradient, checked
from .optimizers import Gradients, Optimizer, arranged

__all__ = ["Accumulator", "EarlyStopping", "ReduceLROnPlateau"]


class ReduceLROnPlateau:
    r"""Multiplies the learning rates of an optimizer by `factor` when a metric has stopped improving.

    The rates are the same numbers as with torch's class of this name. With mode "min", a metric m is better than the
    best so far, m*, if

    .. math:: m < m^* (1 - \text{threshold}) \;\; \text{("rel")} \qquad
              m < m^* - \text{threshold} \;\; \text{("abs")}

    With mode "max", m is better if :math:`m > m^* (1 + \text{threshold})` or :math:`m > m^* + \text{threshold}`.

    Parameters
    ----------
    opt : Optimizer
        The learning rates must be numbers, not schedules.
    mode : "min" or "max"
        Whether a lower or a higher metric is better.
    factor : float
        The factor of the rates: at least 0, below 1.
    patience : int
        The number of metrics in a row that may be no better, 0 or more. The next such metric lowers the rates. (In
        `EarlyStopping`, the last metric of the patience already stops the training.)
    threshold : float
        How much better than the best a metric must be: finite, 0 or more.
    threshold_mode : "rel" or "abs"
        Whether the threshold is a share of the best metric, or a difference. Choose "abs" for metrics that can be below
        0.
    cooldown : int
        The number of metrics after a reduction that do not count as bad, 0 or more.
    min_lr : float, or list of float with one number per group
        The lower limit of the rates: finite, 0 or more.
    eps : float
        A rate stays as it is if the reduction would be at most eps.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above.

    Attributes
    ----------
    best : float
        The best metric so far. Before the first metric, this is an infinity.
    num_bad_epochs, cooldown_counter, last_epoch : int
        As in torch: metrics in a row that were no better, metrics left of the cooldown, metrics seen.

    Examples
    --------
    >>> import sparseopt as so
    >>> opt = so.SGD(so.zeros((3, 2)), lr=0.1)
    >>> plateau = so.training.ReduceLROnPlateau(opt, factor=0.5, patience=1)
    >>> for loss in (1.0, 0.8, 0.9, 0.85):
    ...     plateau.step(loss)
    >>> opt.param_groups[0]["lr"]
    0.05

    Notes
    -----
    A NaN is never better, as in torch. `opt.metadata["plateau"] = plateau.state_dict()` keeps the state in
    the checkpoint of the optimizer.

    References
    ----------
    torch.optim.lr_scheduler.ReduceLROnPlateau.
    """

    _SETTINGS = "mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps"
    _COUNTS = "num_bad_epochs", "cooldown_counter", "last_epoch"

    def __init__(self, opt: Optimizer, mode: Literal["min", "max"] = "min", factor: float = 0.1, patience: int = 10,
                 threshold: float = 1e-4, threshold_mode: Literal["rel", "abs"] = "rel", cooldown: int = 0,
                 min_lr: float | Sequence[float] = 0.0, eps: float = 1e-8) -> None:
        self.opt: Optimizer = _optimizer(opt)
        self.mode: Literal["min", "max"] = one_of("mode", mode, "min", "max")
        self.factor: float = below_one("factor", factor)
        self.patience: int = at_least("patience", patience, 0)
        self.threshold: float = not_negative("threshold", threshold)
        self.threshold_mode: Literal["rel", "abs"] = one_of("threshold_mode", threshold_mode, "rel", "abs")
        self.cooldown: int = at_least("cooldown", cooldown, 0)
        self.min_lr: float | list[float]
        if isinstance(min_lr, (list, tuple)):
            self.min_lr = [not_negative(f"min_lr[{i}]", rate) for i, rate in enumerate(min_lr)]
        else:
            self.min_lr = not_negative("min_lr", min_lr)
        self._lowest()
        self.eps: float = not_negative("eps", eps)
        self.best: float = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._rates()

    def step(self, metric: float) -> None:
        """Take the metric of an epoch. Lower the rates if more than `patience` metrics in a row were no better.

        An error changes nothing.

        Parameters
        ----------
        metric : float
            NaN and infinities are allowed.

        Raises
        ------
        TypeError
            If metric is not a number, or the rate of a group is a schedule.
        ValueError
            If the rate of a group has become negative or is not finite.
        """
        metric, rates, lowered = _number("metric", metric), self._rates(), []
        best, bad, cooldown = self.best, self.num_bad_epochs, self.cooldown_counter
        if self._better(metric):
            best, bad = metric, 0
        else:
            bad += 1
        if cooldown > 0:
            cooldown, bad = cooldown - 1, 0
        if bad > self.patience:
            for group, rate, least in zip(self.opt.param_groups, rates, self._lowest(), strict=True):
                lower = max(rate * self.factor, least)
                if rate - lower > self.eps:
                    lowered.append((group, {"lr": lower}))
            cooldown, bad = self.cooldown, 0
        adopt([], lowered, [(self, "last_epoch", self.last_epoch + 1), (self, "best", best), (self, "num_bad_epochs",
        bad),
                            (self, "cooldown_counter", cooldown)])

    def state_dict(self) -> dict[str, Any]:
        """Return the settings, the best metric and the counts, as a dict that JSON can hold."""
        return {name: getattr(self, name) for name in (*self._SETTINGS, "best", *self._COUNTS)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set the settings, the best metric and the counts from `state_dict()`.

        The learning rates belong to the state of the optimizer and stay as they are. An error changes nothing.

        Parameters
        ----------
        state_dict : mapping
            The result of `state_dict()`.

        Raises
        ------
        TypeError, ValueError
            If state_dict is not from this class, or does not fit the optimizer.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict is a {type(state_dict).__name__}; it must be a mapping, as state_dict() "
                            "returns")
        if set(state_dict) != set(self.state_dict()):
            raise ValueError(f"state_dict has {sorted(map(str, state_dict))}; it must have {sorted(self.state_dict())}")
        loaded = type(self)(self.opt, **{name: state_dict[name] for name in self._SETTINGS})
        loaded.best = _number("best", state_dict["best"])
        for name in self._COUNTS:
            setattr(loaded, name, at_least(name, state_dict[name], 0))
        vars(self).update(vars(loaded))

    def _rates(self):
        for i, group in enumerate(self.opt.param_groups):
            if callable(group["lr"]):
                raise TypeError(f"lr of group {i} is {shown(group['lr'])}, a schedule; for ReduceLROnPlateau it must "
                                "be a number")
        return [not_negative(f"lr of group {i}", group["lr"]) for i, group in enumerate(self.opt.param_groups)]

    def _lowest(self):
        groups = len(self.opt.param_groups)
        if not isinstance(self.min_lr, list):
            return [self.min_lr] * groups
        if len(self.min_lr) != groups:          # some may have been added
            raise ValueError(f"min_lr has {len(self.min_lr)} rates; the optimizer has {groups} groups")
        return self.min_lr

    def _better(self, metric):
        if self.threshold_mode == "rel":
            bound = self.best * (1 - self.threshold if self.mode == "min" else 1 + self.threshold)
        else:
            bound = self.best - self.threshold if self.mode == "min" else self.best + self.threshold
        return metric < bound if self.mode == "min" else metric > bound


class EarlyStopping:
    """Stops the training when a score has stopped improving, and restores the best tables, state and rates.

    ==========================  =========  ===================================================================
    use                         make with  then
    ==========================  =========  ===================================================================
    in a loop of your own       `opt`      call `step` with the score of every epoch, and `restore` at the end
    as the callback of a model  `score`    pass the object to the model's `fit` or `partial_fit`
    ==========================  =========  ===================================================================

    Parameters
    ----------
    opt : Optimizer
        The optimizer of a loop of your own. A callback uses the optimizer of the model, and starts again with every
        fit. A `partial_fit` of a recommender that adds users or items is not a new fit: the best score and the count go
        on.
    patience : int
        The number of scores in a row that are no better, 1 or more. The last of these scores stops the training, as in
        Keras.
    min_delta : float
        How much better than the best a score must be: finite, 0 or more.
    mode : "min" or "max"
        Whether a lower or a higher score is better.
    score : callable
        Makes a callback, instead of `opt`. Takes the model and returns the score, on data outside the training data.
    every : None or int
        The number of batches between two scores of a callback, 1 or more. None stands for the end of every epoch.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above.

    Attributes
    ----------
    best : None or float
        The best score, or None before the first finite score.
    waited : int
        The number of scores since the best score.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((3, 1))
    >>> opt = so.SGD(table, lr=1.0)
    >>> stopping = so.training.EarlyStopping(opt, patience=2)
    >>> for epoch in range(100):
    ...     opt.step(so.RowGradient([0], [[-1.0]]))
    ...     if stopping.step(score=abs(table[0, 0] - 3)):       # best after the third epoch
    ...         break
    >>> stopping.restore()
    >>> epoch, stopping.best, table[0]
    (4, 0.0, array([3.], dtype=float32))

    As a callback, here with invented scores:

    >>> import scipy.sparse as sp
    >>> from sparseopt.models import GloVe
    >>> scores = iter([3.0, 1.0, 2.0, 2.5])
    >>> model = GloVe(dim=2, epochs=100)
    >>> stopping = so.training.EarlyStopping(patience=2, score=lambda model: next(scores))
    >>> model = model.fit(sp.csr_array(np.ones((3, 3))), callback=stopping)
    >>> len(model.loss_curve_), model.optimizer_.steps      # four epochs were trained; the second model is restored
    (4, 2)

    Notes
    -----
    A score that is NaN or infinite is never better. The object keeps a copy of `opt.state_dict()`, which is
    as large as the tables and their state. A callback that stops the training also restores the best score. If the
    epochs end first, call `restore`.

    References
    ----------
    keras.callbacks.EarlyStopping.
    """

    def __init__(self, opt: Optimizer | None = None, patience: int = 10, min_delta: float = 0.0,
                 mode: Literal["min", "max"] = "min", *, score: Callable[[Any], float] | None = None,
                 every: int | None = None) -> None:
        if (opt is None) == (score is None):
            raise TypeError("EarlyStopping takes an opt (for a loop of your own) or a score (as a callback): one of "
                            "the two" + ("" if opt is None else ", not both"))
        self.opt: Optimizer | None = opt if opt is None else _optimizer(opt)
        if score is not None and not callable(score):
            raise TypeError(f"score is {shown(score)}; it must be a callable from a model to a number")
        if every is not None and score is None:
            raise ValueError(f"every is {shown(every)}; it must be None without a score, because only callbacks use it")
        self.patience: int = at_least("patience", patience, 1)
        self.min_delta: float = not_negative("min_delta", min_delta)
        self.mode: Literal["min", "max"] = one_of("mode", mode, "min", "max")
        self.score = score
        self.every: int | None = every if every is None else at_least("every", every, 1)
        self._begin(self.opt)

    def step(self, score: float) -> bool:
        """Take the score of an epoch, and return whether to stop.

        Parameters
        ----------
        score : float
            NaN and infinities are allowed, and never better.

        Returns
        -------
        bool

        Raises
        ------
        TypeError
            If score is not a number.
        RuntimeError
            If this object is a callback that no model has called yet.
        """
        score = _number("score", score)
        if self.opt is None:
            raise RuntimeError("this EarlyStopping is a callback; pass it to the fit of a model")
        if math.isfinite(score) and (self.best is None or self._gain(score) > self.min_delta):
            # Rates are not copied. Schedules never change, and a user's callable may not be copyable.
            state = self.opt.state_dict()
            rates = {id(hyper["lr"]): hyper["lr"] for hyper in (*state["param_groups"], state["defaults"])}
            kept = copy.deepcopy(state, rates)
            adopt([], [], [(self, "_kept", kept), (self, "best", score), (self, "waited", 0)])
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self) -> None:
        """Restore the tables, state, rates, counts and metadata that the optimizer had at the best score.

        If tables have grown since then, the new rows keep their values and state. Under missed="replay", the steps that
        new rows have missed are applied first. After that, these rows have missed no step before the best score.

        Raises
        ------
        RuntimeError
            If there was no finite score yet.
        """
        if self._kept is None:
            raise RuntimeError("there has been no finite score; there is nothing to restore")
        kept, tables = self._kept["params"], self.opt.params
        grew = kept.keys() == tables.keys() and any(len(table) > len(kept[name]) for name, table in tables.items())
        self.opt.load_state_dict(_with_new_rows(self._kept, self.opt) if grew else self._kept)

    def __call__(self, progress: Any) -> bool:
        """Work as the callback of a model: score the model when a score is due, and return whether to stop.

        Before a stop, the best score is restored.

        Parameters
        ----------
        progress : sparseopt.models.Progress

        Returns
        -------
        bool

        Raises
        ------
        TypeError
            If this object has no `score`, or the score of the model is not a number.
        ValueError
            If `every` is None and the model does not know the length of an epoch. If the model trains in a store.
        """
        if self.score is None:
            raise TypeError("this EarlyStopping has no score, so it cannot be a callback; make it with score= instead "
                            "of opt")
        if progress.total is None and self.every is None:
            raise ValueError("every is None, and the length of an epoch is unknown; every must be the number of "
                             "batches between scores")
        if getattr(progress.model, "store_", None) is not None:
            raise ValueError("the model trains in a store, where EarlyStopping cannot restore the best score; tables "
                             "of the model must be None")
        opt = progress.model.optimizer_
        if opt is not self.opt:
            self._begin(opt)
        self._batches += 1
        if self._batches % self.every if self.every else progress.done != progress.total:
            return False
        stop = self.step(self.score(progress.model))
        if stop and self._kept is not None:
            self.restore()
        return stop

    def _begin(self, opt):
        self.opt, self._kept, self._batches = opt, None, 0
        self.best: float | None = None
        self.waited: int = 0

    def _gain(self, score):
        return self.best - score if self.mode == "min" else score - self.best


def _with_new_rows(kept, opt):
    """Return the state_dict `kept`, extended to the larger tables that `opt` has now. New rows are as they are now."""
    if opt.missed == "replay":
        opt.catch_up()
    params = {name: _over(table, kept["params"][name]) for name, table in opt.params.items()}
    state = {name: {key: _over(array, kept["state"][name][key]) for key, array in arrays.items()}
             for name, arrays in opt.state.items()}
    for name, history in kept.get("history", {}).items():
        # The new rows stand at the last step of the kept run, so they have no missed steps.
        state[name]["step"][len(kept["params"][name]):] = history["counts"][1]
    return {**kept, "params": params, "state": state}


def _over(larger, array):
    """Return a copy of the larger array, with the rows of `array` first. A single number is returned as it is."""
    if not array.ndim:
        return array
    copied = larger.copy()
    copied[:len(array)] = array
    return copied


class Accumulator:
    """Collects the gradients of several micro-batches for one step.

    Except for rounding, the step is the same as a step on one batch of all these samples.

    Parameters
    ----------
    opt : Optimizer
    every : int
        The number of micro-batches for each step, 1 or more.
    reduction : "mean" or "sum"
        How the gradients are combined. Choose "mean" if the loss is a mean over the samples, and "sum" if it is a sum.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above.

    Attributes
    ----------
    pending : int
        The number of micro-batches that wait for a step. A checkpoint does not hold them: call `flush` before `save`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2))
    >>> accumulator = so.training.Accumulator(so.SGD(table, lr=1.0), every=2)
    >>> accumulator.step(so.RowGradient([0, 1], np.ones((2, 2))))
    False
    >>> accumulator.step(so.RowGradient([1, 3], np.ones((2, 2))))
    True
    >>> table[:, 0]
    array([-0.5, -1. ,  0. , -0.5], dtype=float32)

    Notes
    -----
    Gradients are copied in the table's dtype, so a caller may reuse its arrays.

    ======================  ====================================================
    gradients of one table  what is kept and passed to the optimizer
    ======================  ====================================================
    all dense               their sum
    all of one sparse form  one gradient of this form; a product is never formed
    of several forms        the sum, formed for the touched rows or dense
    ======================  ====================================================

    Under missed="replay", call `opt.catch_up(rows)` before you read rows, as without an Accumulator.
    """

    def __init__(self, opt: Optimizer, every: int, reduction: Literal["mean", "sum"] = "mean") -> None:
        self.opt: Optimizer = _optimizer(opt)
        self.every: int = at_least("every", every, 1)
        self.reduction: Literal["mean", "sum"] = one_of("reduction", reduction, "mean", "sum")
        self._begun = None          # `opt.steps` before a step on the waiting micro-batches that may have been taken
        self.clear()

    def step(self, grads: Gradients) -> bool:
        """Take the gradients of a micro-batch, and take a step if this is the last of `every` micro-batches.

        After an error, the tables, the state and the waiting micro-batches are as before.

        Parameters
        ----------
        grads : gradient, mapping or sequence
            As in `Optimizer.step`. A table that is left out has a gradient of 0 in this micro-batch.

        Returns
        -------
        bool
            Whether a step was taken.

        Raises
        ------
        TypeError, ValueError, KeyError, IndexError
            As in `Optimizer.step`.
        """
        self._settle()
        collected, tables = dict(self._collected), self.opt.params
        for name, gradient in self.opt.check(grads).items():
            with _quietly():
                collected[name] = _with(collected.get(name, ()), _copied(gradient, tables[name]))
        pending = self.pending + 1
        if pending < self.every:
            adopt([], [], [(self, "_collected", collected), (self, "_pending", pending)])
            return False
        self._step(collected, pending)
        return True

    def flush(self) -> bool:
        """Take a step on the waiting micro-batches, if there are any. A mean is taken over their number.

        After an error, the tables, the state and the waiting micro-batches are as before.

        Returns
        -------
        bool
            Whether a step was taken.

        Raises
        ------
        TypeError, ValueError
            As in `Optimizer.step`: for instance, if the sum of the gradients overflows and nonfinite is "raise".
        """
        if not self.pending:        # reading `pending` also calls `_settle`
            return False
        self._step(self._collected, self._pending)
        return True

    def clear(self) -> None:
        """Drop the waiting micro-batches."""
        adopt([], [], [(self, "_collected", {}), (self, "_pending", 0), (self, "_begun", None)])

    @property
    def pending(self) -> int:
        self._settle()
        return self._pending

    def _settle(self):
        """Drop the waiting micro-batches if a signal interrupted `_step` after the optimizer's step."""
        if self._begun is not None:
            if self.opt.steps > self._begun:
                self.clear()
            self._begun = None

    def _step(self, collected, n):
        n = n if self.reduction == "mean" else 1
        with _quietly():
            grads = {name: _total(parts, n) for name, parts in collected.items()}
        self._begun = self.opt.steps
        try:
            self.opt.step(arranged(self.opt, grads))
        finally:
            if self.opt.steps == self._begun:
                self._begun = None
        self.clear()


# The gradients of one table are a tuple of RowGradient, MatmulGradient, scipy COO and at most one NumPy array.

def _quietly():
    return np.errstate(over="ignore", invalid="ignore")     # `nonfinite` decides about a total that is not finite


def _copied(gradient, table):
    dtype, dim = table.dtype, table.shape[1] if table.ndim == 2 else 1
    if isinstance(gradient, RowGradient):
        return RowGradient(gradient.rows.copy(), np.array(gradient.values, dtype).reshape(len(gradient.rows), dim))
    if isinstance(gradient, MatmulGradient):
        X = checked(gradient.X, "gradient").astype(dtype)
        return MatmulGradient(X, np.array(gradient.dY, dtype).reshape(len(gradient.dY), dim))
    if not sp.issparse(gradient):
        return np.array(gradient, dtype)
    gradient = checked(gradient, "gradient").tocoo()
    rows, columns = (*gradient.coords, np.zeros(gradient.nnz, np.int32))[:2]
    return sp.coo_array((np.array(gradient.data, dtype), (rows.copy(), columns.copy())), shape=(len(table), dim))


def _with(parts, gradient):
    """Return the parts with one more gradient. No part is written to, so a refused step changes nothing."""
    if isinstance(gradient, np.ndarray):
        for i, part in enumerate(parts):
            if isinstance(part, np.ndarray):
                return (*parts[:i], part + gradient, *parts[i + 1:])
    return (*parts, gradient)


def _total(parts, n):
    """Return the sum of the parts, divided by n, as a gradient."""
    kinds = {type(part) for part in parts}
    if kinds == {RowGradient}:
        return RowGradient(np.concatenate([part.rows for part in parts]), _joined([part.values for part in parts], n))
    if kinds == {MatmulGradient}:
        X = sp.vstack([part.X for part in parts], format="csr")
        return MatmulGradient(X, _joined([part.dY for part in parts], n))
    if kinds == {sp.coo_array}:
        rows, columns = (np.concatenate(coords) for coords in zip(*(part.coords for part in parts), strict=True))
        return sp.coo_array((_joined([part.data for part in parts], n), (rows, columns)), shape=parts[0].shape)
    by_rows = [_by_rows(part) for part in parts if not isinstance(part, np.ndarray)]
    if np.ndarray not in kinds:
        return _total(by_rows, n)
    total = next(part for part in parts if isinstance(part, np.ndarray)) / n
    for part in by_rows:
        np.add.at(total.reshape(len(total), part.values.shape[1]), part.rows, part.values / n)
    return total


def _joined(arrays, n):
    """Return the arrays, one after the other, divided by n, in one pass."""
    joined = _memory.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
    start = 0
    for array in arrays:
        np.divide(array, n, out=joined[start:start + len(array)])
        start += len(array)
    return joined


def _by_rows(gradient):
    """Return the same gradient as a RowGradient. Rows are distinct, unless `gradient` is a RowGradient already."""
    if isinstance(gradient, RowGradient):
        return gradient
    if isinstance(gradient, MatmulGradient):
        X = gradient.X.tocoo()
        rows, position = np.unique(X.coords[1], return_inverse=True)
        by_row = sp.csr_array((X.data, (position, X.coords[0])), shape=(len(rows), X.shape[0]))
        return RowGradient(rows, by_row @ gradient.dY)
    rows, position = np.unique(gradient.coords[0], return_inverse=True)
    values = np.zeros((len(rows), gradient.shape[1]), gradient.dtype)
    np.add.at(values, (position, gradient.coords[1]), gradient.data)
    return RowGradient(rows, values)


def _optimizer(opt):
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt is a {type(opt).__name__}; it must be an Optimizer")
    return opt


def _number(name, value):
    """Return a float, which may be NaN or infinite. Tensors of torch with one number are allowed."""
    try:
        if isinstance(value, (str, bytes)) or np.ndim(value):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {shown(value)}; it must be a number") from None
