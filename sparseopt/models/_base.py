"""What the models share: scikit-learn's conventions, the choice of an optimizer, and the report to callbacks."""

import inspect
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import checkpoint, schedules
from .._text import listed, shown
from ..optimizers import OPTIMIZERS

# SGD under the names of what it does besides.
_MOMENTUM = {"momentum": {"momentum": 0.9}, "nesterov": {"momentum": 0.9, "nesterov": True}}


class Progress(NamedTuple):
    """What a callback is told after every batch. What it returns ends the training if it is true."""

    model: Any
    epoch: int          # from 0
    done: int           # samples of this epoch so far
    total: int          # samples of an epoch; None where nobody knows
    loss: float         # mean over this epoch so far

    @property
    def epoch_ends(self):
        return self.done == self.total


class NotFittedError(ValueError, AttributeError):
    """A model is asked for what only a fitted one has. scikit-learn's, where it is installed, is the same two exceptions."""


class Model:
    """An estimator in scikit-learn's sense, without scikit-learn: parameters are the constructor's, stored as they came."""

    # Rates at which each optimizer trains the model well; for those not in it, the optimizer's own default.
    LEARNING_RATES: ClassVar = {}
    # From the names of the tables to their axes: axes of one name are of one length.
    _axes: ClassVar = {}
    # Threads that an optimizer given by name steps on; None: `so.get_num_threads()`.
    _threads = None

    @classmethod
    def _names(cls):
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep=True):
        """Return the constructor's parameters as a dict. `deep` is scikit-learn's, and means nothing here."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params):
        """Set parameters of the constructor; returns the model. Raises ValueError for a name it has not."""
        names = self._names()
        for name in params:
            if name not in names:
                raise ValueError(f"{shown(name)} is no parameter of {type(self).__name__}; they are {', '.join(names)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self):
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [f"{name}={value!r}" for name, value in self.get_params().items() if value is not defaults[name].default]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self):
        """What scikit-learn asks of an estimator; nobody else calls it."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags(sparse=True))

    def __sklearn_is_fitted__(self):
        return hasattr(self, "optimizer_")

    def _check_fitted(self):
        if not hasattr(self, "optimizer_"):
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
            if not isinstance(value, Real) or isinstance(value, bool) or not (0 < value < np.inf or (zero and value == 0)):
                raise ValueError(f"{name} is {shown(value)}; it must be finite and {'0 or more' if zero else 'above 0'}")

    def _check_one_of(self, name, *allowed):
        if getattr(self, name) not in allowed:
            raise ValueError(f"{name} is {shown(getattr(self, name))}; it must be one of {listed(allowed)}")

    def _rng(self, *more):
        """Random numbers of this model; with more integers, another stream for each."""
        seed = self.random_state
        if isinstance(seed, np.random.RandomState):
            seed = seed.randint(2**31)
        if isinstance(seed, np.random.Generator):
            return seed
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=more))

    def _make_optimizer(self, tables, hyper=None, **settings):
        """The optimizer that the parameters `optimizer`, `lr` and `missed` ask for, with these tables.

        With an optimizer given by name, `hyper` maps a table's name to hyper-parameters of its own, and `settings` are of all.
        """
        self._check_one_of("missed", "skip", "replay", *(["dense"] if hasattr(self, "_dense") else []))
        if callable(self.optimizer):
            if self.missed == "replay":
                raise ValueError("missed is 'replay' and optimizer a callable, which says that itself; leave missed at 'skip'")
            if self.lr is not None:
                raise ValueError(f"lr is {shown(self.lr)} and optimizer a callable, which says the rate itself; leave lr "
                                 "at None")
            return self.optimizer(tables)
        name, momentum = self._check_optimizer()
        lr = self._default_rate(name) if self.lr is None else self.lr
        if lr is not None and self.lr is None and momentum:
            lr *= 1 - momentum["momentum"]              # which adds up 1 / (1 - momentum) gradients
        missed = "replay" if self.missed == "replay" else "skip"
        if hyper is not None:
            tables = [{"params": {key: table}, **hyper.get(key, {})} for key, table in tables.items()]
        rate = {} if lr is None else {"lr": self._schedule(lr)}
        return OPTIMIZERS[name](tables, missed=missed, num_threads=self._threads, **momentum, **settings, **rate)

    def _check_optimizer(self):
        """The class that the parameter `optimizer` names, and what it says besides; or raise."""
        names = {name.lower(): name for name in (*OPTIMIZERS, *_MOMENTUM)}
        if str(self.optimizer).lower() not in names:
            raise ValueError(f"optimizer is {shown(self.optimizer)}; it must be one of {', '.join(names.values())}, or a "
                             "callable")
        name = names[self.optimizer.lower()]
        return ("SGD", _MOMENTUM[name]) if name in _MOMENTUM else (name, {})

    def _schedule(self, lr):
        """The rate, or what the model makes of it where it is a number."""
        return lr

    def _default_rate(self, name):
        return self.LEARNING_RATES.get(name)

    def _catch_up(self, rows=None):
        """Under replay, before rows are read: a mapping from tables to row numbers, or all."""
        if self.optimizer_.missed == "replay":
            self.optimizer_.catch_up(rows)

    def save(self, path, **metadata):
        """Save a checkpoint from which `load` resumes: the optimizer's, with this model's settings in its metadata.

        No file holds a callable that is none of `sparseopt.schedules`. So in place of an `optimizer` that is a callable,
        `load` gives the name of the class of `optimizer_`, with its rate as `lr`. What else the callable says is lost to a
        later `fit`, and only to that: `optimizer_` itself is stored whole. A generator as `random_state` becomes None.

        Parameters
        ----------
        path : str or path
        **metadata
            What else to keep in `optimizer_.metadata`, the vocabulary for instance.
        """
        self._check_fitted()
        before = dict(self.optimizer_.metadata)
        self.optimizer_.metadata |= {"model": self._settings(), "model_type": type(self).__name__, **self._fitted(), **metadata}
        try:
            checkpoint.save(path, self.optimizer_)
        except BaseException:
            self.optimizer_.metadata = before
            raise

    @classmethod
    def load(cls, path, lr=None):
        """Return the model that `save` saved; `partial_fit` goes on as if it had never stopped, to the bit.

        Its parameters are those of the model that was saved, but for what no file holds: see `save`. `lr` takes the place
        of the stored rate, as in `sparseopt.load`.
        """
        optimizer = checkpoint.load(path, lr=lr)
        with checkpoint.refusing(path):
            if optimizer.metadata.get("model_type") != cls.__name__:
                raise ValueError(f"a checkpoint of an optimizer, but not of a {cls.__name__} model")
            settings = {"optimizer": type(optimizer).__name__, **optimizer.metadata["model"]}
            if lr is None:
                lr = schedules.from_json(settings["lr"]) if "lr" in settings else optimizer.param_groups[0]["lr"]
            model = cls(**{**settings, "lr": lr})
            model.optimizer_ = optimizer
            optimizer.num_threads = model._threads
            model._check_tables()
            model._restore(optimizer.metadata)
        return model

    def _settings(self):
        """The constructor's parameters as JSON can hold them, less an optimizer and a rate that it cannot."""
        settings = {name: _stored(value) for name, value in self.get_params().items()}
        settings["lr"] = schedules.to_json(settings["lr"])
        if not isinstance(self.optimizer, str):
            del settings["optimizer"], settings["lr"]
        elif self.lr is not None and not isinstance(settings["lr"], Real | dict):
            del settings["lr"]
        return settings

    def _check_tables(self):
        """Raise if the tables of a file are none of such a model."""
        lengths = {"one": 1}
        for name, axes in self._axes.items():
            table = self.optimizer_.params.get(name)
            if table is None and name == "intercept":
                continue
            if table is None or table.dtype != np.float32 or len(axes) != table.ndim or any(
                    lengths.setdefault(axis, n) != n for axis, n in zip(axes, table.shape, strict=True)):
                raise ValueError(f"its table {name!r} is missing, or is no {type(self).__name__}'s")

    def _fitted(self):
        """What belongs to a fitted model beside its tables, as JSON can hold it."""
        return {"losses": self.loss_curve_}

    def _restore(self, metadata):
        """Set the fitted attributes from what `_fitted` returned."""
        self.loss_curve_ = list(metadata["losses"])


def _stored(value):
    """A parameter as JSON can hold it; of generators of random numbers nothing, since they are where they are."""
    if isinstance(value, np.random.Generator | np.random.RandomState):
        return None
    return value.item() if isinstance(value, np.generic) else value


def repeats(X):
    """How many entries of a COO array have the place of another one."""
    return X.nnz - X.tocsr().nnz        # in which they are added up


def selection(values, columns, n_columns):
    """A CSR array with one value a row: the selection of rows of a table, weighted."""
    from scipy.sparse import csr_array

    return csr_array((values, columns, np.arange(len(values) + 1)), shape=(len(values), n_columns))
