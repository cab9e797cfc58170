"""The base of all models: scikit-learn's conventions, the choice of an optimizer, and reports to callbacks."""

import contextlib
import functools
import html
import inspect
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import _kernels, checkpoint, schedules
from .._checks import NonfiniteError
from .._config import one_thread
from .._text import listed, shown
from .._typing import FilePath, Self
from .._workspace import Workspace
from ..optimizers import OPTIMIZERS, Optimizer

# Other names for SGD with some of its options.
_MOMENTUM = {"momentum": {"momentum": 0.9}, "nesterov": {"momentum": 0.9, "nesterov": True}}


class Progress(NamedTuple):
    """The argument of a callback after every batch. If the callback returns a true value, the training ends."""

    model: Any
    epoch: int          # from 0
    done: int           # samples of this epoch so far
    total: int | None   # samples of an epoch, or None if the model cannot know
    loss: float         # mean over this epoch so far

    @property
    def epoch_ends(self) -> bool:
        """Whether this batch was the last of its epoch."""
        return self.done == self.total


# Types of the models' arguments.
Callback = Callable[[Progress], Any]
MakeOptimizer = Callable[[dict[str, np.ndarray]], Optimizer]
Schedule = Callable[[int], float]
Seed = int | np.random.Generator | np.random.RandomState


class NotFittedError(ValueError, AttributeError):
    """The call needs a fitted model. If scikit-learn is installed, its class with the same two bases is raised."""


class Model:
    """An estimator with scikit-learn's conventions, which does not need scikit-learn.

    The parameters of the constructor become attributes and are not changed. `fit` checks them.
    """

    # Rates at which each optimizer trains the model well. An optimizer without an entry uses its own default.
    LEARNING_RATES: ClassVar[dict[str, Any]] = {}
    # Names of the tables and of their axes. Axes of the same name must have the same length.
    _axes: ClassVar[dict[str, tuple[str, ...]]] = {}

    optimizer_: Optimizer
    loss_curve_: list[float]

    @classmethod
    def _names(cls):
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of the constructor as a dict.

        Parameters
        ----------
        deep : bool
            Part of scikit-learn's convention. There are no nested estimators, so both values do the same.
        """
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the constructor, and return the model.

        Raises
        ------
        ValueError
            If the constructor has no parameter of such a name. No parameter is changed then.
        """
        names = self._names()
        for name in params:
            if name not in names:
                raise ValueError(f"{shown(name)} is not a parameter of {type(self).__name__}; they are "
                                 f"{', '.join(names)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [f"{name}={value!r}" for name, value in self.get_params().items()
                   if value is not defaults[name].default]
        return f"{type(self).__name__}({', '.join(changed)})"

    def _repr_html_(self) -> str:
        """Return the model for a notebook, as scikit-learn draws it if that is installed."""
        try:
            from sklearn.utils import estimator_html_repr
        except ImportError:
            return f"<pre>{html.escape(repr(self))}</pre>"
        return estimator_html_repr(self)

    def __sklearn_tags__(self) -> Any:
        """Return the tags of the estimator. Only scikit-learn calls this method."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags(sparse=True))

    def __sklearn_is_fitted__(self) -> bool:
        return self._is_fitted

    @property
    def _n_epochs(self):
        """The number of epochs of `fit`, where None stands for one too."""
        return self.epochs

    def _train(self, *arguments):
        """Train for an epoch, on one thread. Arrays of a batch leave their memory to the next batch.

        A batch is too little work for two threads. They gain at most a fifth on a quiet machine, and can take several
        times as long as one where cores are busy (bench/busy.py).
        """
        with one_thread(), Workspace():
            return self._epoch(*arguments)

    def _take_step(self, gradients):
        """Take a step of the optimizer."""
        with self._diverging():
            self.optimizer_.step(gradients)

    @contextlib.contextmanager
    def _diverging(self):
        """Turn the error that a gradient is not finite into one that says that the training diverged."""
        try:
            yield
        except NonfiniteError as error:
            what = str(error).partition("; it must be")[0]      # the rest is advice for callers of an optimizer
            raise NonfiniteError(f"the training has diverged: {what}. {self._said_rate()} a lower lr or a smaller "
                                 "batch_size") from error

    def _said_rate(self):
        return f"The learning rate is {self.optimizer_.current_lr():.3g}; set"

    @property
    def _is_fitted(self):
        return "optimizer_" in vars(self)

    def _check_fitted(self):
        if not self._is_fitted:
            try:
                from sklearn.exceptions import NotFittedError as error
            except ImportError:
                error = NotFittedError
            raise error(f"this {type(self).__name__} is not fitted yet; call fit or partial_fit first")

    def _check_integers(self, **lowest):
        for name, least in lowest.items():
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is {shown(value)}; it must be an integer of at least {least}")

    def _check_numbers(self, *names, zero=False):
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or not (
                    0 < value < np.inf or (zero and value == 0)):
                raise ValueError(f"{name} is {shown(value)}; it must be finite and "
                                 f"{'0 or more' if zero else 'above 0'}")

    def _check_one_of(self, name, *allowed):
        if getattr(self, name) not in allowed:
            raise ValueError(f"{name} is {shown(getattr(self, name))}; it must be one of {listed(allowed)}")

    def _check_callback(self, callback):
        if callback is not None and not callable(callback):
            raise TypeError(f"callback is {shown(callback)}; it must be None or a callable. A {type(self).__name__} is "
                            "fitted to X alone, without y")

    def _rng(self, *more):
        """Return a random generator. Different integers in `more` give independent streams."""
        return np.random.default_rng(np.random.SeedSequence(self._seed(), spawn_key=more))

    def _seed(self):
        """Return the seed `random_state`; from a generator, an integer that it draws; for None, any integer."""
        seed = self.random_state
        if isinstance(seed, np.random.RandomState):
            return int(seed.randint(2**31))
        if isinstance(seed, np.random.Generator):
            return int(seed.integers(2**63))
        return np.random.SeedSequence(seed).entropy

    def _make_optimizer(self, hyper=None, **settings):
        """Return a function from tables by name to the optimizer that `optimizer`, `lr` and `missed` describe.

        For an optimizer given by name, `hyper` maps the name of a table to its own hyper-parameters. `settings` hold
        for all tables. The function is small and picklable, unless the parameters are not.
        """
        self._check_one_of("missed", "skip", "replay", *(["dense"] if hasattr(self, "_dense") else []))
        if callable(self.optimizer):
            if self.missed == "replay":
                raise ValueError("missed is 'replay' and optimizer is a callable, which sets missed itself; missed "
                                 "must be 'skip'")
            if self.lr is not None:
                raise ValueError(f"lr is {shown(self.lr)} and optimizer is a callable, which sets the rate itself; lr "
                                 "must be None")
            return self.optimizer
        name, momentum = self._check_optimizer()
        lr = self._default_rate(name) if self.lr is None else self.lr
        if lr is not None and self.lr is None and momentum:
            lr *= 1 - momentum["momentum"]              # momentum adds up 1 / (1 - momentum) gradients
        missed = "replay" if self.missed == "replay" else "skip"
        rate = {} if lr is None else {"lr": self._schedule(lr)}
        return functools.partial(_optimizer, name, hyper, missed=missed, num_threads=1, **momentum, **settings, **rate)

    def _check_optimizer(self):
        """Return the class name and the options that the parameter `optimizer` stands for, or raise."""
        names = {name.lower(): name for name in (*OPTIMIZERS, *_MOMENTUM)}
        if str(self.optimizer).lower() not in names:
            raise ValueError(f"optimizer is {shown(self.optimizer)}; it must be one of {', '.join(names.values())}, or "
                             "a callable")
        name = names[self.optimizer.lower()]
        return ("SGD", _MOMENTUM[name]) if name in _MOMENTUM else (name, {})

    def _schedule(self, lr):
        """Return the rate. A model can replace a number by a schedule."""
        return lr

    def _default_rate(self, name):
        return self.LEARNING_RATES.get(name)

    def _catch_up(self, rows=None):
        """Under missed="replay", apply the missed steps of rows before they are read.

        `rows` maps the names of tables to row numbers. None stands for all rows.
        """
        if self.optimizer_.missed == "replay":
            self.optimizer_.catch_up(rows)

    def save(self, path: FilePath, **metadata: Any) -> None:
        """Save a checkpoint of the optimizer, with the settings of this model in its metadata. `load` reads the model.

        `optimizer_` is stored completely, so `partial_fit` goes on as before. A later `fit` uses the parameters, and a
        file cannot hold some of these:

        =====================================================  ===========================================
        parameter                                              value after `load`
        =====================================================  ===========================================
        `optimizer` is a callable                              the class name and the rate of `optimizer_`
        `lr` is a callable from outside `sparseopt.schedules`  the `lr` that is passed to `load`
        `random_state` is a generator                          None
        `tables` is a callable                                 None
        =====================================================  ===========================================

        Parameters
        ----------
        path : str or path
            As in `sparseopt.save`.
        **metadata
            More entries for `optimizer_.metadata`: for instance, the vocabulary.

        Raises
        ------
        ValueError, TypeError, OSError, RuntimeError
            If the model is not fitted, and as in `sparseopt.save`.
        """
        self._check_fitted()
        before = dict(self.optimizer_.metadata)
        self.optimizer_.metadata |= {"model": self._settings(), "model_type": type(self).__name__, **self._fitted(),
                                     **metadata}
        try:
            checkpoint.save(path, self.optimizer_)
        except BaseException:
            self.optimizer_.metadata = before
            raise

    @classmethod
    def load(cls, path: FilePath, lr: float | Schedule | None = None) -> Self:
        """Return the model that `save` saved. `partial_fit` gives the same bits as if the run had not stopped.

        Parameters
        ----------
        path : str or path
            A file that `save` wrote. `save` says which parameters a file cannot hold.
        lr : None, float or callable
            Replaces the stored learning rate, as in `sparseopt.load`.

        Returns
        -------
        Model
            An instance of this class.

        Raises
        ------
        OSError, ValueError, TypeError
            As in `sparseopt.load`, and if the file holds no model of this class.
        """
        optimizer = checkpoint.load(path, lr=lr)
        with checkpoint.refusing(path):
            if optimizer.metadata.get("model_type") != cls.__name__:
                raise ValueError(f"a checkpoint of an optimizer, but not of a {cls.__name__} model")
            settings = {"optimizer": type(optimizer).__name__, **{
                name: dict(value) if isinstance(value, list) else value
                for name, value in optimizer.metadata["model"].items()}}
            if lr is None:
                lr = schedules.from_json(settings["lr"]) if "lr" in settings else optimizer.param_groups[0]["lr"]
            model = cls(**{**settings, "lr": lr})
            model.optimizer_ = optimizer
            optimizer.num_threads = 1
            model._check_tables()
            model._restore(optimizer.metadata)
        return model

    def _settings(self):
        """Return the parameters of the constructor as JSON can hold them, without callables that JSON cannot hold."""
        settings = {name: _stored(value) for name, value in self.get_params().items()}
        settings["lr"] = schedules.to_json(settings["lr"])
        if not isinstance(self.optimizer, str):
            del settings["optimizer"], settings["lr"]
        elif self.lr is not None and not isinstance(settings["lr"], Real | dict):
            del settings["lr"]
        return settings

    def _axes_of(self, metadata):
        """Return the axes of the tables of a file with these metadata."""
        return self._axes

    def _check_tables(self):
        """Raise ValueError if the tables of a file do not fit this class."""
        lengths = {"one": 1}
        for name, axes in self._axes_of(self.optimizer_.metadata).items():
            table = self.optimizer_.params.get(name)
            if table is None and name == "intercept":
                continue
            if table is None or table.dtype != np.float32 or len(axes) != table.ndim or any(
                    lengths.setdefault(axis, n) != n for axis, n in zip(axes, table.shape, strict=True)):
                raise ValueError(f"its table {name!r} is missing, or does not fit a {type(self).__name__}")

    def _fitted(self):
        """Return the fitted attributes, except for the tables, as JSON can hold them."""
        return {"losses": self.loss_curve_}

    def _restore(self, metadata):
        """Set the fitted attributes from the result of `_fitted`."""
        self.loss_curve_ = list(metadata["losses"])


def _optimizer(name, hyper, tables, **settings):
    if hyper is not None:
        tables = [{"params": {key: table}, **hyper.get(key, {})} for key, table in tables.items()]
    return OPTIMIZERS[name](tables, **settings)


def _stored(value):
    """Return a parameter as JSON can hold it, and None for a random generator, whose state is not stored.

    A dict becomes a list of pairs, because the keys of JSON are texts.
    """
    if isinstance(value, Mapping):
        return [[_stored(key), _stored(one)] for key, one in value.items()]
    if isinstance(value, np.random.Generator | np.random.RandomState):
        return None
    return value.item() if isinstance(value, np.generic) else value


def shuffled(rng, columns, batch_size, worker=0, workers=1):
    """Yield batches of columns of one length, in a random order that is the same for all columns.

    Of several workers, each takes the places whose number in the first column leaves the worker's number as remainder.
    The batches of all workers have batch_size places together.
    """
    if workers > 1:
        own = np.flatnonzero(columns[0] % workers == worker)
        columns, batch_size = [column[own] for column in columns], -(-batch_size // workers)
    n = len(columns[0])
    order = np.arange(n, dtype=np.int32 if n < 2**31 else np.int64)     # shuffles faster than int64, and alike
    rng.shuffle(order)
    table = np.empty(n, [(f"{number}", column.dtype) for number, column in enumerate(columns)])
    for name, column in zip(table.dtype.names, columns, strict=True):
        table[name] = column
    for start in range(0, n, batch_size):
        chosen = order[start:start + batch_size]
        batch = np.empty(len(chosen), table.dtype)
        _kernels.take(table, chosen, batch, 1)          # a random place for each row, not for each number
        yield [np.ascontiguousarray(batch[name]) for name in table.dtype.names]


def repeats(X):
    """Return how many entries of a COO array repeat the row and column of another entry."""
    return X.nnz - X.tocsr().nnz        # `tocsr` adds up repeated entries


def selection(values, columns, n_columns):
    """Return a CSR array with one value per row. Its product with a table selects rows, each times its value."""
    from scipy.sparse import csr_array

    return csr_array((values, columns, np.arange(len(values) + 1)), shape=(len(values), n_columns))
