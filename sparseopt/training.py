"""What stands around a training loop: rates that fall when a score stalls, a stop when it does, gradients of several batches.

None of these knows a model; all of them work on an optimizer.
"""

import copy
import math
from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from . import _config, _memory
from ._kernels.atomic import adopt
from ._text import shown
from .gradients import MatmulGradient, RowGradient, checked
from .optimizers import Optimizer
from .optimizers._hyper import at_least, below_one, not_negative


class ReduceLROnPlateau:
    """Lowers the learning rates of an optimizer where a metric has not improved for a while: torch's, number for number.

    Parameters
    ----------
    opt : Optimizer
        Its rates must be numbers, not schedules.
    mode : "min" or "max"
        What better is.
    factor : float
        What a rate is multiplied by: at least 0, below 1.
    patience : int
        How many metrics in a row may be no better; one more lowers the rates. (In `EarlyStopping` the last of them stops.)
    threshold : float
        How much better than the best so far a metric must be to count as better.
    threshold_mode : "rel" or "abs"
        Whether the threshold is a share of the best or a difference to it. For metrics that may be below 0, "abs".
    cooldown : int
        How many metrics after a fall do not count as bad.
    min_lr : float, or list of float, one a group
        No rate falls below it.
    eps : float
        A rate that would fall by no more than this stays.

    Raises
    ------
    TypeError, ValueError
        If something is not as said above.

    Attributes
    ----------
    best : float
        The best metric so far; before the first an infinity.
    num_bad_epochs, cooldown_counter, last_epoch : int
        torch's: metrics in a row that were no better, metrics of the cooldown to come, metrics seen.

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
    A metric of NaN is no better than any, as in torch. `opt.metadata["plateau"] = plateau.state_dict()` keeps the state in
    the checkpoint of the optimizer.
    """

    _SETTINGS = "mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps"
    _COUNTS = "num_bad_epochs", "cooldown_counter", "last_epoch"

    def __init__(self, opt, mode="min", factor=0.1, patience=10, threshold=1e-4, threshold_mode="rel", cooldown=0, min_lr=0.0,
                 eps=1e-8):
        self.opt = _optimizer(opt)
        self.mode = _one_of("mode", mode, "min", "max")
        self.factor = below_one("factor", factor)
        self.patience = at_least("patience", patience, 0)
        self.threshold = not_negative("threshold", threshold)
        self.threshold_mode = _one_of("threshold_mode", threshold_mode, "rel", "abs")
        self.cooldown = at_least("cooldown", cooldown, 0)
        if isinstance(min_lr, (list, tuple)):
            if len(min_lr) != len(opt.param_groups):
                raise ValueError(f"min_lr has {len(min_lr)} rates; the optimizer has {len(opt.param_groups)} groups")
            self.min_lr = [not_negative(f"min_lr[{i}]", rate) for i, rate in enumerate(min_lr)]
        else:
            self.min_lr = not_negative("min_lr", min_lr)
        self.eps = not_negative("eps", eps)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._rates()

    def step(self, metric):
        """Take the metric of another epoch, and lower the rates if it is the one too many without improvement.

        Raises
        ------
        TypeError
            If the metric is no number, or a group's rate is a schedule. Nothing has changed then.
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
            lowest = self.min_lr if isinstance(self.min_lr, list) else [self.min_lr] * len(rates)
            for group, rate, least in zip(self.opt.param_groups, rates, lowest, strict=True):
                lower = max(rate * self.factor, least)
                if rate - lower > self.eps:
                    lowered.append((group, {"lr": lower}))
            cooldown, bad = self.cooldown, 0
        adopt([], lowered, [(self, "last_epoch", self.last_epoch + 1), (self, "best", best), (self, "num_bad_epochs", bad),
                            (self, "cooldown_counter", cooldown)])

    def state_dict(self):
        """Return the settings and what has been seen so far, as JSON can hold it."""
        return {name: getattr(self, name) for name in (*self._SETTINGS, "best", *self._COUNTS)}

    def load_state_dict(self, state_dict):
        """Take over what `state_dict` returned; the rates are the optimizer's, and come with its own state.

        Raises
        ------
        TypeError, ValueError
            If it is none of this class, or does not fit the optimizer. Nothing has changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict is a {type(state_dict).__name__}; it must be a mapping, as state_dict() returns")
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
                raise TypeError(f"lr of group {i} is {shown(group['lr'])}, a schedule; ReduceLROnPlateau lowers rates that are "
                                "numbers")
        return [not_negative(f"lr of group {i}", group["lr"]) for i, group in enumerate(self.opt.param_groups)]

    def _better(self, metric):
        if self.threshold_mode == "rel":
            bound = self.best * (1 - self.threshold if self.mode == "min" else 1 + self.threshold)
        else:
            bound = self.best - self.threshold if self.mode == "min" else self.best + self.threshold
        return metric < bound if self.mode == "min" else metric > bound


class EarlyStopping:
    """Says when a score has stopped to improve, and brings back the tables, state and rates of the best one.

    In a loop of your own, call `step` with the score of every epoch, and `restore` at the end. As the callback of a model, it
    is made with a function that scores the model.

    Parameters
    ----------
    opt : Optimizer
        For a loop. A callback takes that of the model, anew for every fit. A recommender's `partial_fit` that adds users or
        items is no new fit: the best and the count go on.
    patience : int
        So many scores in a row that are no better than the best stop the training: 1 or more, Keras's meaning.
    min_delta : float
        How much better than the best a score must be to count as better.
    mode : "min" or "max"
        What better is.
    score : callable
        For a callback, in place of `opt`: from the model to the score, on data that it is not trained on.
    every : None or int
        For a callback, how often to score: at the end of every epoch, or every so many batches.

    Raises
    ------
    TypeError, ValueError
        If something is not as said above.

    Attributes
    ----------
    best : None or float
        The best score; None before there is one.
    waited : int
        How many scores have come since.

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

    As a callback, here with scores made up:

    >>> import scipy.sparse as sp
    >>> from sparseopt.models import GloVe
    >>> scores = iter([3.0, 1.0, 2.0, 2.5])
    >>> model = GloVe(dim=2, epochs=100)
    >>> stopping = so.training.EarlyStopping(patience=2, score=lambda model: next(scores))
    >>> model = model.fit(sp.csr_array(np.ones((3, 3))), callback=stopping)
    >>> len(model.loss_curve_), model.optimizer_.steps          # four epochs were trained; the model is that of the second
    (4, 2)

    Notes
    -----
    A score that is NaN or infinite is never better. A copy of `opt.state_dict()` is kept, as large as the tables with their
    state. As a callback it brings the best back when it stops the training; where the epochs run out first, call `restore`.
    """

    def __init__(self, opt=None, patience=10, min_delta=0.0, mode="min", *, score=None, every=None):
        if (opt is None) == (score is None):
            raise TypeError("EarlyStopping takes an opt (for a loop of your own) or a score (as a callback): one of the two"
                            + ("" if opt is None else ", not both"))
        self.opt = opt if opt is None else _optimizer(opt)
        if score is not None and not callable(score):
            raise TypeError(f"score is {shown(score)}; it must be a callable from a model to a number")
        if every is not None and score is None:
            raise ValueError(f"every is {shown(every)}; it is for callbacks, which have a score")
        self.patience = at_least("patience", patience, 1)
        self.min_delta = not_negative("min_delta", min_delta)
        self.mode = _one_of("mode", mode, "min", "max")
        self.score = score
        self.every = every if every is None else at_least("every", every, 1)
        self._begin(self.opt)

    def step(self, score):
        """Take another score; return whether to stop.

        Raises
        ------
        TypeError
            If the score is no number.
        """
        score = _number("score", score)
        if self.opt is None:
            raise RuntimeError("this EarlyStopping is a callback; hand it to a model's fit")
        if math.isfinite(score) and (self.best is None or self._gain(score) > self.min_delta):
            # Rates are kept as they are: schedules are values, and a foreign one may be more than can be copied.
            rates = {id(group["lr"]): group["lr"] for group in self.opt.param_groups}
            kept = copy.deepcopy(self.opt.state_dict(), rates)
            adopt([], [], [(self, "_kept", kept), (self, "best", score), (self, "waited", 0)])
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self):
        """Bring the optimizer back to where it was at the best score: tables, state, rates, counts and metadata.

        Rows that tables have grown by since then keep their values and state. Under missed="replay" they are caught up
        first, and have missed none of the steps before the best score.

        Raises
        ------
        RuntimeError
            If there was no score yet, or none that is finite.
        """
        if self._kept is None:
            raise RuntimeError("there has been no finite score; there is nothing to restore")
        grew = any(len(table) > len(self._kept["params"][name]) for name, table in self.opt.params.items())
        self.opt.load_state_dict(_with_new_rows(self._kept, self.opt) if grew else self._kept)

    def __call__(self, progress):
        """As a callback of a model: score it where that is due; return whether to stop, the best one restored."""
        if self.score is None:
            raise TypeError("this EarlyStopping has no score, so it cannot be a callback; make it with score= in place of opt")
        if progress.total is None and self.every is None:
            raise ValueError("every is None, and nobody knows how long an epoch is; give the number of batches between scores")
        opt = progress.model.optimizer_
        if opt is not self.opt:
            if getattr(opt, "_run", None) is getattr(self.opt, "_run", self):       # grown from it
                self.opt = opt
            else:
                self._begin(opt)
        self._batches += 1
        if self._batches % self.every if self.every else progress.done != progress.total:
            return False
        stop = self.step(self.score(progress.model))
        if stop and self._kept is not None:
            self.restore()
        return stop

    def _begin(self, opt):
        self.opt, self.best, self.waited, self._kept, self._batches = opt, None, 0, None, 0

    def _gain(self, score):
        return self.best - score if self.mode == "min" else score - self.best


def _with_new_rows(kept, opt):
    """What a state_dict of smaller tables says, as one of the tables that they have grown to; the rest is as it is now."""
    if opt.missed == "replay":
        opt.catch_up()
    params = {name: _over(table, kept["params"][name]) for name, table in opt.params.items()}
    state = {name: {key: _over(array, kept["state"][name][key]) for key, array in arrays.items()}
             for name, arrays in opt.state.items()}
    for name, history in kept.get("history", {}).items():
        state[name]["step"][len(kept["params"][name]):] = history["counts"][1]      # the last step: nothing to catch up
    return {**kept, "params": params, "state": state}


def _over(larger, array):
    """A copy of the larger array whose first rows are those of the other; of single numbers, the other."""
    if not array.ndim:
        return array
    copied = larger.copy()
    copied[:len(array)] = array
    return copied


class Accumulator:
    """Collects the gradients of several micro-batches into one step: the step on all of them as one batch, to rounding.

    Parameters
    ----------
    opt : Optimizer
    every : int
        How many micro-batches make a step.
    reduction : "mean" or "sum"
        Of their gradients, as of the loss: "mean" where each is that of a mean over its samples, "sum" where of a sum.

    Raises
    ------
    TypeError, ValueError
        If something is not as said above.

    Attributes
    ----------
    pending : int
        How many micro-batches wait for a step. They are in no checkpoint: `flush` before one.

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
    Gradients are copied, in the table's dtype: a caller may reuse its arrays. Those of one form stay in it, a `MatmulGradient`
    unformed; dense ones are added up; of different forms, the touched rows are formed. Under missed="replay" rows are read up
    to date as ever, after `opt.catch_up(rows)`.
    """

    def __init__(self, opt, every, reduction="mean"):
        self.opt = _optimizer(opt)
        self.every = at_least("every", every, 1)
        self.reduction = _one_of("reduction", reduction, "mean", "sum")
        self._begun = None          # `opt.steps` before the step on what waits, if that step may have been taken
        self.clear()

    def step(self, grads):
        """Take the gradients of a micro-batch; with the last of `every` ones, step. Return whether it did.

        Parameters
        ----------
        grads : gradient, mapping or sequence
            As `Optimizer.step`. A table left out has a gradient of 0 in this micro-batch.

        Raises
        ------
        TypeError, ValueError, KeyError, IndexError
            As `Optimizer.step`, for what is wrong with this micro-batch. Tables, state and what waits are then as before.
        """
        self._settle()
        threads = _config.threads_for(self.opt.num_threads)
        collected = dict(self._collected)
        for parameter, gradient in self.opt._pairs(grads):
            if gradient is None:
                continue
            plan = self.opt._plan(parameter, gradient, threads)     # checks it
            if self.opt.nonfinite == "raise":
                self.opt._finite(parameter, plan, threads)
            with _quietly():
                collected[parameter.name] = _with(collected.get(parameter.name, ()), _copied(gradient, parameter))
        pending = self.pending + 1
        if pending < self.every:
            adopt([], [], [(self, "_collected", collected), (self, "_pending", pending)])
            return False
        self._step(collected, pending)
        return True

    def flush(self):
        """Step on the micro-batches that wait, if there are any: on the mean of those. Return whether it did.

        Raises
        ------
        ValueError
            If their sum overflows, or hyper-parameters have become wrong. Tables, state and what waits are then as before.
        """
        if not self.pending:        # which has settled
            return False
        self._step(self._collected, self._pending)
        return True

    def clear(self):
        """Forget the micro-batches that wait."""
        adopt([], [], [(self, "_collected", {}), (self, "_pending", 0), (self, "_begun", None)])

    @property
    def pending(self):
        self._settle()
        return self._pending

    def _settle(self):
        """Forget what waited, where a signal came after the step on it and before that was known."""
        if self._begun is not None:
            if self.opt.steps > self._begun:
                self.clear()
            self._begun = None

    def _step(self, collected, n):
        n = n if self.reduction == "mean" else 1
        with _quietly():
            grads = {name: _total(parts, n) for name, parts in collected.items()}
        if self.opt._structure == "single":
            grads = grads[0]
        elif self.opt._structure == "sequence":
            grads = [grads.get(name) for name in self.opt.params]
        self._begun = self.opt.steps
        try:
            self.opt.step(grads)
        finally:
            if self.opt.steps == self._begun:
                self._begun = None
        self.clear()


# The gradients of one table: a tuple of RowGradient, MatmulGradient, scipy COO and NumPy arrays, of the latter one at most.

def _quietly():
    return np.errstate(over="ignore", invalid="ignore")     # what is not finite in the end, `nonfinite` deals with


def _copied(gradient, parameter):
    dtype, dim = parameter.table.dtype, parameter.dim
    if isinstance(gradient, RowGradient):
        return RowGradient(gradient.rows.copy(), np.array(gradient.values, dtype).reshape(len(gradient.rows), dim))
    if isinstance(gradient, MatmulGradient):
        X = checked(gradient.X, parameter.what).astype(dtype)
        return MatmulGradient(X, np.array(gradient.dY, dtype).reshape(len(gradient.dY), dim))
    if not sp.issparse(gradient):
        return np.array(gradient, dtype)
    gradient = checked(gradient, parameter.what).tocoo()
    rows, columns = (*gradient.coords, np.zeros(gradient.nnz, np.int32))[:2]
    return sp.coo_array((np.array(gradient.data, dtype), (rows.copy(), columns.copy())), shape=(parameter.shape[0], dim))


def _with(parts, gradient):
    """The parts and one more; none of them is written to, so that a step that is refused changes nothing."""
    if isinstance(gradient, np.ndarray):
        for i, part in enumerate(parts):
            if isinstance(part, np.ndarray):
                return (*parts[:i], part + gradient, *parts[i + 1:])
    return (*parts, gradient)


def _total(parts, n):
    """The sum of the parts over n, in a form that an optimizer takes."""
    kinds = {type(part) for part in parts}
    if kinds == {RowGradient}:
        return RowGradient(np.concatenate([part.rows for part in parts]), _joined([part.values for part in parts], n))
    if kinds == {MatmulGradient}:
        return MatmulGradient(sp.vstack([part.X for part in parts], format="csr"), _joined([part.dY for part in parts], n))
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
    """One after the other, over n, in one pass."""
    joined = _memory.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
    start = 0
    for array in arrays:
        np.divide(array, n, out=joined[start:start + len(array)])
        start += len(array)
    return joined


def _by_rows(gradient):
    """A RowGradient of the same numbers: no row twice, unless it is one already."""
    if isinstance(gradient, RowGradient):
        return gradient
    if isinstance(gradient, MatmulGradient):
        X = gradient.X.tocoo()
        rows, position = np.unique(X.coords[1], return_inverse=True)
        return RowGradient(rows, sp.csr_array((X.data, (position, X.coords[0])), shape=(len(rows), X.shape[0])) @ gradient.dY)
    rows, position = np.unique(gradient.coords[0], return_inverse=True)
    values = np.zeros((len(rows), gradient.shape[1]), gradient.dtype)
    np.add.at(values, (position, gradient.coords[1]), gradient.data)
    return RowGradient(rows, values)


def _optimizer(opt):
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt is a {type(opt).__name__}; it must be an Optimizer")
    return opt


def _one_of(name, value, *allowed):
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {shown(value)}; it must be {' or '.join(map(repr, allowed))}")
    return value


def _number(name, value):
    """A float, NaN and infinities included; of torch's scalars too."""
    try:
        if isinstance(value, (str, bytes)) or np.ndim(value):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {shown(value)}; it must be a number") from None
