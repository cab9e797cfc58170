"""The base of models of sparse features: checks of X and y, the training loop, classification and regression."""

import math
import warnings
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.special import expit, log_expit, log_softmax, softmax

from .. import _memory, _samples
from .._text import escaped, listed, shown
from .._typing import Self
from ..gradients import checked
from ..optimizers import Optimizer
from ._base import Callback, Model, Progress
from ._scikit import Routed, check_feature_names, feature_names

_WIDEST_CLASS = 1 << 20         # bytes of a class in a file
_SCORED = 4096                  # rows that are scored at a time, which bounds the memory
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 4096      # bounds of the default batch size of `fit`
_BATCH_OF_A_STREAM = 1024       # the default batch size of `partial_fit`
_ENOUGH_TO_HOLD_OUT = 1000      # samples from which early stopping by default holds out a share
_HELD_OUT = (1, 0)              # the stream of random numbers that draws what is held out; an epoch's has one number
_ENCODERS = ("Such values become numbers by scikit-learn's OneHotEncoder, or by its FeatureHasher if there are many "
             "different values")


class Supervised(Routed, Model):
    """Trains on batches of rows of X and their targets. A subclass defines the tables and the step on a batch."""

    _axes: ClassVar = {"weights": ("feature",), "intercept": ("one",)}
    # The tables with one row per feature. l2 acts on all of these tables, and l1 on the first.
    _by_feature: tuple[str, ...] = ("weights",)
    _beta: float | None = None      # β of Ftrl, for rows of length 1; None: Ftrl's default

    n_features_in_: int
    feature_names_in_: np.ndarray

    @property
    def n_iter_(self) -> int:
        self._check_fitted()
        return len(self.loss_curve_)

    def fit(self, X: sp.sparray | sp.spmatrix | npt.ArrayLike, y: npt.ArrayLike,
            sample_weight: npt.ArrayLike | None = None, callback: Callback | None = None) -> Self:
        """Train a new model.

        After an error the model is as before.

        Parameters
        ----------
        X : scipy sparse array or array, shape (n_samples, n_features)
            Repeated columns of a row add up. CSR of float32 is used without a copy. All else is converted once.
        y : array, shape (n_samples,)
            The targets.
        sample_weight : None or array of floats, shape (n_samples,)
            The factor of each sample in the loss: finite, 0 or more, and not all 0. None stands for 1.
        callback : None or callable
            Called after every batch with a `sparseopt.models.Progress`. A true result ends the training.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            If an argument or a parameter of the model is not as described.
        """
        self._check_settings()
        names, X = feature_names(X), self._checked_X(X, self.n_features)
        y, found = self._checked_y(y, X.shape[0])
        weight = self._by_class(_checked_weight(sample_weight, X.shape[0]), y, found)
        train, held_out = self._split(y, weight)
        self._start(X, y, weight, found, train)
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        batch_size = self.batch_size
        if batch_size is None:
            batch_size = min(max(X.shape[0] // 100, _SMALLEST_BATCH), _LARGEST_BATCH)
        best = Best(self, X) if held_out is not None else None
        for _ in range(self.epochs):
            if self._train(X, y, weight, callback, batch_size, train):
                return self
            if best is not None and best.ends(self._mean_loss(X, y, weight, held_out)):
                break
        if best is not None and self.epochs:
            best.restore()
            self._train(X, y, weight, callback, batch_size, held_out)       # they can teach, too
        return self

    def _split(self, y, weight):
        """Return the samples to train on, and those that early stopping holds out; None for all, and for none."""
        few = len(y) < _ENOUGH_TO_HOLD_OUT
        by_default = isinstance(self.early_stopping, str)
        if not self.early_stopping or (by_default and few):
            return None, None
        held_out = self._held_out(y, self._rng(*_HELD_OUT))
        train = np.setdiff1d(np.arange(len(y)), held_out)
        if not len(held_out) or not len(train):
            if by_default:
                return None, None
            raise ValueError(f"validation_fraction is {self.validation_fraction!r}, which holds out {len(held_out)} of "
                             f"{len(y)} samples; it must leave samples on both sides, or early_stopping must be False")
        if weight is not None and not all(weight[part].any() for part in (train, held_out)):
            if by_default:
                return None, None
            raise ValueError("sample_weight is zero for all samples that are held out, or for all others; more samples "
                             "must have a weight, or early_stopping must be False")
        return train, held_out

    def _held_out(self, y, rng):
        """Return the positions of the samples that are held out."""
        return np.sort(rng.permutation(len(y))[:round(len(y) * self.validation_fraction)])

    def _mean_loss(self, X, y, weight, samples):
        loss = 0.0
        for start, batch in self._parts(X, samples):
            some = samples[start:start + _SCORED]
            loss += self._forward(batch, self._kind(), y[some], None if weight is None else weight[some], False)[0]
        return loss / (len(samples) if weight is None else float(weight[samples].sum()))

    def _by_class(self, weight, y, found):
        """Return the weights of the samples, with the weights of their classes."""
        return weight

    def _go_on(self, X, y, sample_weight, callback, **known):
        """Train one more epoch on these samples. The first call begins a new model."""
        self._check_settings()
        if self.early_stopping and not isinstance(self.early_stopping, str):
            raise ValueError("early_stopping is True; partial_fit trains one epoch on all samples that it gets, so "
                             "early_stopping must be False")
        begun = hasattr(self, "optimizer_")
        names = feature_names(X)
        if begun:
            check_feature_names(self, names)
        X = self._checked_X(X, self.n_features_in_ if begun else self.n_features)
        y, found = self._checked_y(y, X.shape[0], begun, **known)
        weight = self._by_class(_checked_weight(sample_weight, X.shape[0]), y, found)
        if not begun:
            self._start(X, y, weight, found)
            if names is not None:
                self.feature_names_in_ = names
        self._train(X, y, weight, callback, self.batch_size or _BATCH_OF_A_STREAM)
        return self

    def _start(self, X, y, weight, found, train=None):
        columns = self._columns(found)
        self._length, self._size = _sizes(X, weight)
        tables = self._tables(X.shape[1], columns)
        if self.fit_intercept:
            some = slice(None) if train is None else train
            tables["intercept"] = _memory.zeros(columns or 1)
            tables["intercept"][:] = self._first_intercept(y[some], None if weight is None else weight[some])
        self.optimizer_: Optimizer = self._make_optimizer(self._penalties(tables))(tables)
        if self.fit_intercept and self.lr is None and not callable(self.optimizer):
            # The intercept is the weight of a feature that is 1, however large the others are.
            self.optimizer_.param_groups[-1]["lr"] *= self._size ** _power(self._check_optimizer()[0])
        self.n_features_in_ = X.shape[1]
        self.loss_curve_: list[float] = []
        for name, value in found.items():
            setattr(self, name, value)

    def _default_rate(self, name):
        """Return a rate for rows of this length."""
        rate, length = self.LEARNING_RATES.get(name), getattr(self, "_length", 1.0)
        return None if rate is None else rate / length ** _power(name)

    def _epoch(self, X, y, weight, callback, batch_size, samples=None):
        n, epoch, kind = X.shape[0] if samples is None else len(samples), len(self.loss_curve_), self._kind()
        loss = counted = mean = 0.0
        order = samples
        if self.shuffle:
            order = self._rng(epoch).permutation(n if samples is None else samples)
        tables = [*self._by_feature, *(["intercept"] if self._intercept is not None else [])]
        batches = self._batches(X)
        for start in range(0, n, batch_size):
            stop = min(n, start + batch_size)
            some = slice(start, stop) if order is None else order[start:stop]
            weights = None if weight is None else weight[some]
            batch = batches(start, stop, order)
            self._bring_up(batch.features)
            of_batch, gradients = self._forward(batch, kind, y[some], weights)
            self._take_step(dict(zip(tables, gradients, strict=False)))
            loss += of_batch
            counted += stop - start if weights is None else float(weights.sum())
            mean = loss / counted if counted else 0.0
            ended = bool(callback and callback(Progress(self, epoch, stop, n, mean)))
            if ended:
                break
        self.loss_curve_.append(mean)
        return ended

    def _columns(self, found):
        """Return the shape of the scores of a sample: () for one score."""
        return ()

    def _tables(self, n_features, columns):
        """Return the tables of a new model, without the intercept."""
        raise NotImplementedError

    def _batches(self, X):
        return _samples.Batches(X)

    def _forward(self, batch, *targets):
        """Return the scores of a batch. With targets, return the sum of its losses, and the gradients of the tables."""
        raise NotImplementedError

    def _score_all(self, X):
        self._check_fitted()
        check_feature_names(self, feature_names(X))
        X = self._checked_X(X, self.n_features_in_)
        return np.concatenate([self._forward(batch) for _, batch in self._parts(X)])

    def _parts(self, X, rows=None):
        """Yield batches of all rows of X or of some, and the position of each batch."""
        batches, n = self._batches(X), X.shape[0] if rows is None else len(rows)
        for start in range(0, n, _SCORED):
            batch = batches(start, min(start + _SCORED, n), rows)
            self._bring_up(batch.features)
            yield start, batch

    def _bring_up(self, features):
        self._catch_up(dict.fromkeys(self._by_feature, features))

    def _intercepts(self):
        """Return the intercept of each score: zeros for a model without."""
        self._check_fitted()
        zeros = _memory.zeros(self.optimizer_.params["weights"].shape[1:] or 1)
        return zeros if self._intercept is None else zeros + self._intercept

    def _tables_now(self):
        self._catch_up()
        return self.optimizer_.params.items()

    @property
    def _intercept(self):
        return self.optimizer_.params.get("intercept")

    def _table(self, name):
        """Return a read-only view of a table, after all missed steps are applied."""
        self._check_fitted()
        self._catch_up()
        table = self.optimizer_.params[name].view()
        table.flags.writeable = False           # users who want to write must use optimizer_.params
        return table

    def _check_settings(self):
        self._check_integers(epochs=0, **({} if self.batch_size is None else {"batch_size": 1}))
        self._check_numbers("l1", "l2", zero=True)
        self._check_integers(n_iter_no_change=1)
        self._check_numbers("tol", zero=True)
        share = self.validation_fraction
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 < share < 1:
            raise ValueError(f"validation_fraction is {shown(share)}; it must be above 0 and below 1")
        for name, also in (("shuffle", ()), ("fit_intercept", ()), ("early_stopping", ("auto",))):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_) and not (isinstance(value, str) and value in also):
                raise ValueError(f"{name} is {shown(value)}; it must be True{', False or ' if also else ' or False'}"
                                 f"{listed(also)}")
        if self.n_features is not None:
            self._check_integers(n_features=1)
        try:
            self._rng(0)
        except (TypeError, ValueError) as error:
            raise ValueError(f"random_state is {shown(self.random_state)}; it must be a seed of "
                             f"numpy.random.default_rng: {escaped(str(error), 160)}") from error
        for name in ("l1", "l2"):
            if getattr(self, name) and callable(self.optimizer):
                raise ValueError(f"{name} is {shown(getattr(self, name))} and optimizer is a callable, which sets "
                                 f"penalties itself; {name} must be 0")
        if self.l1 and str(self.optimizer).lower() != "ftrl":
            raise ValueError(f"l1 is {self.l1!r} and optimizer is {shown(self.optimizer)}; only Ftrl has an l1 "
                             "penalty, so l1 must be 0")

    def _penalties(self, tables):
        """Return the hyper-parameters of each table that follow from l1 and l2."""
        l2 = {name: self.l2 if name in self._by_feature else 0.0 for name in tables}
        if str(self.optimizer).lower() == "ftrl":
            groups = {name: {"l1": self.l1 if name == self._by_feature[0] else 0.0, "l2": l2[name]} for name in tables}
            if self._beta is not None:
                for name, group in groups.items():
                    group["beta"] = self._beta * self._length / (self._size if name == "intercept" else 1)
            return groups
        return {name: {"weight_decay": l2[name]} for name in tables}

    def _checked_X(self, X, n_features):
        """Return X as CSR of float32 with all features. The check covers all of X, so no later batch can fail."""
        if not sp.issparse(X):
            X = _numbers(X)
        elif X.ndim == 2:
            X = checked(X, "X").tocsr()
        if X.ndim != 2:
            raise ValueError(f"X has shape {X.shape}; it must be (n_samples, n_features). Reshape your data: "
                             "X.reshape(1, -1) if it is one sample, X.reshape(-1, 1) if one feature")
        if X.dtype.kind == "c":
            raise ValueError(f"X has dtype {X.dtype}; it must be of real numbers. Complex data not supported")
        if X.dtype.kind not in "fiub":
            raise TypeError(f"X has dtype {X.dtype}; it must be of numbers")
        for axis, what in enumerate(("sample", "feature")):
            if not X.shape[axis]:
                raise ValueError(f"X has 0 {what}(s) (shape={X.shape}) while a minimum of 1 is required.")
        narrower = X.shape[1] < (n_features or 0) and self.n_features is None
        if n_features is not None and (X.shape[1] > n_features or narrower):
            name = type(self).__name__
            raise ValueError(f"X has {X.shape[1]} features, but {name} is expecting {n_features} features as input")
        if not sp.issparse(X):
            X = sp.csr_array(X)
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(X.data, dtype=np.float32)
        X = sp.csr_array((data, X.indices, X.indptr), shape=(X.shape[0], n_features or X.shape[1]))
        finite = np.isfinite(X.data)
        if not finite.all():
            first = int(finite.argmin())
            row = int(np.searchsorted(X.indptr, first, side="right")) - 1
            raise ValueError(f"X has {X.data[first]} at row {row}, column {X.indices[first]}; it must be finite in "
                             "float32, without NaN and infinity")
        return X

    def _fitted(self):
        names = {"feature_names_in": self.feature_names_in_.tolist()} if hasattr(self, "feature_names_in_") else {}
        return {**super()._fitted(), "n_features_in": int(self.n_features_in_), **names}

    def _restore(self, metadata):
        super()._restore(metadata)
        self.n_features_in_ = len(self.optimizer_.params[self._by_feature[0]])
        if "feature_names_in" in metadata:
            self.feature_names_in_ = np.array(metadata["feature_names_in"], dtype=object)


class Classifier:
    """A model for classes, whose loss is the log-loss.

    =======  ============================  =========================
    classes  scores of a sample            probabilities
    =======  ============================  =========================
    2        log-odds of the second class  logistic function
    more     one for each class            softmax of all its scores
    =======  ============================  =========================
    """

    classes_: np.ndarray

    def partial_fit(self, X: sp.sparray | sp.spmatrix | npt.ArrayLike, y: npt.ArrayLike,
                    classes: npt.ArrayLike | None = None, sample_weight: npt.ArrayLike | None = None,
                    callback: Callback | None = None) -> Self:
        """Train the present model for one more epoch: on the next part of a stream, or on the same data again.

        After an error the model is as before.

        Parameters
        ----------
        X, y, sample_weight, callback
            As in `fit`.
        classes : None or array, shape (n_classes,)
            All classes. The first call needs these if its y does not have all classes.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `fit`, and if X has other features or y has other classes than the model. If early_stopping is True
            or class_weight is "balanced", which needs all samples.
        """
        if isinstance(self.class_weight, str):
            raise ValueError(f"class_weight is {shown(self.class_weight)}, which partial_fit does not support: it "
                             "needs the samples of all calls. class_weight must be a dict or None")
        return self._go_on(X, y, sample_weight, callback, classes=classes)

    def decision_function(self, X: sp.sparray | sp.spmatrix | npt.ArrayLike) -> np.ndarray:
        """Return the scores: with two classes the log-odds of the second class, shape (n_samples,).

        With more classes, each class has a score: shape (n_samples, n_classes).

        Raises
        ------
        TypeError, ValueError, IndexError
            If the model is not fitted, or X is not as in `fit`, or has other features than the model.
        """
        return self._score_all(X)

    def predict_proba(self, X: sp.sparray | sp.spmatrix | npt.ArrayLike) -> np.ndarray:
        """Return the probabilities of all classes, shape (n_samples, n_classes), in the order of `classes_`.

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `decision_function`.
        """
        scores = self._score_all(X).astype(np.float64)
        return softmax(scores, axis=1) if scores.ndim == 2 else np.column_stack([expit(-scores), expit(scores)])

    def predict_log_proba(self, X: sp.sparray | sp.spmatrix | npt.ArrayLike) -> np.ndarray:
        """Return the logarithms of `predict_proba`, shape (n_samples, n_classes), also where a probability rounds to 0.

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `decision_function`.
        """
        scores = self._score_all(X).astype(np.float64)
        return (log_softmax(scores, axis=1) if scores.ndim == 2 else
                np.column_stack([log_expit(-scores), log_expit(scores)]))

    def predict(self, X: sp.sparray | sp.spmatrix | npt.ArrayLike) -> np.ndarray:
        """Return the more probable class of each row, shape (n_samples,).

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `decision_function`.
        """
        scores = self._score_all(X)
        return self.classes_[scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(np.intp)]

    def score(self, X: sp.sparray | sp.spmatrix | npt.ArrayLike, y: npt.ArrayLike,
              sample_weight: npt.ArrayLike | None = None) -> float:
        """Return the share of rows whose class is predicted correctly.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `decision_function`, and if y or sample_weight is not as in `fit`.
        """
        predicted = self.predict(X)
        weight = _checked_weight(sample_weight, len(predicted))
        return float(np.average(predicted == _checked_target(self, y, len(predicted)), weights=weight))

    def _kind(self):
        return _samples.SOFTMAX if len(self.classes_) > 2 else _samples.LOG_LOSS

    def _first_intercept(self, y, weight):
        return 0.0

    def _columns(self, found):
        k = len(found["classes_"])
        return (k,) if k > 2 else ()

    def _checked_y(self, y, n, begun=False, classes=None):
        """Return y as numbers of classes, and the classes if the model did not know these before."""
        y = _checked_target(self, y, n)
        if y.dtype.kind in "fc" and not np.isfinite(y).all():
            raise ValueError("y has a NaN or an infinity; each sample must have a class. Input y contains NaN or "
                             "infinity")
        if classes is not None:
            classes = _different("classes", np.asarray(classes))
            if len(classes) < 2:
                raise ValueError(f"classes has {len(classes)} different classes; there must be at least 2")
            if begun and not np.array_equal(classes, self.classes_):
                raise ValueError(f"classes is {listed(classes.tolist())}; the model has "
                                 f"{listed(self.classes_.tolist())}")
        elif begun:
            classes = self.classes_
        else:
            classes = _different("y", y)
            if y.dtype.kind == "f" and len(classes) > 2 and (classes % 1).any():
                raise ValueError(f"y has {len(classes)} different numbers. Unknown label type: continuous; there must "
                                 "be classes")
            if len(classes) == 1:
                raise ValueError(f"y has only one class, {shown(classes.tolist()[0])}; there must be at least 2 "
                                 "(partial_fit takes all as classes=)")
        numbers = np.full(len(y), -1)
        for number, label in enumerate(classes):
            numbers[y == label] = number
        if (numbers < 0).any():
            raise ValueError(f"y has {shown(y[numbers < 0].tolist()[0])}; the classes are {listed(classes.tolist())}")
        return numbers if len(classes) > 2 else numbers.astype(np.float32), {} if begun else {"classes_": classes}

    def _by_class(self, weight, y, found):
        classes = found["classes_"] if found else self.classes_
        if self.class_weight is None:
            return weight
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            counts = np.bincount(y.astype(np.intp), minlength=len(classes))
            of_class = len(y) / (len(classes) * np.maximum(counts, 1))
        elif isinstance(self.class_weight, Mapping):
            of_class = np.ones(len(classes))
            for label, value in self.class_weight.items():
                at = [number for number, one in enumerate(classes.tolist()) if one == label]
                if not at:
                    raise ValueError(f"class_weight has {shown(label)}; the classes are {listed(classes.tolist())}")
                if not isinstance(value, Real) or not 0 <= value < np.inf:
                    raise ValueError(f"class_weight has {shown(value)} for {shown(label)}; it must be a finite number, "
                                     "0 or more")
                of_class[at] = value
        else:
            raise ValueError(f"class_weight is {shown(self.class_weight)}; it must be None, 'balanced', or a dict from "
                             "classes to numbers")
        of_class = of_class[y.astype(np.intp)]
        weight = of_class if weight is None else weight * of_class
        if not weight.any():
            raise ValueError("class_weight and sample_weight make all weights zero; at least one sample must count")
        return weight

    def _held_out(self, y, rng):
        """Return the positions of the samples that are held out: the same share of each class."""
        parts = []
        for number in np.unique(y):
            of_class = rng.permutation(np.flatnonzero(y == number))
            parts.append(of_class[:min(round(len(of_class) * self.validation_fraction), len(of_class) - 1)])
        return np.sort(np.concatenate(parts))

    def _axes_of(self, metadata):
        if len(metadata["classes"]) == 2:
            return self._axes
        return {name: ("class",) if name == "intercept" else (axes[0], "class" if len(axes) == 1 else "class and dim")
                for name, axes in self._axes.items()}

    def _fitted(self):
        return {**super()._fitted(), "classes": self.classes_.tolist(), "classes_dtype": self.classes_.dtype.str}

    def _restore(self, metadata):
        super()._restore(metadata)
        dtype, k = np.dtype(metadata["classes_dtype"]), len(metadata["classes"])
        columns = self.optimizer_.params["weights"].shape[1:]
        if k < 2 or columns != ((k,) if k > 2 else ()) or dtype.itemsize > _WIDEST_CLASS:
            raise ValueError(f"its classes are {listed(metadata['classes'])} of dtype {dtype}; these do not fit the "
                             "tables")
        self.classes_ = np.array(metadata["classes"], dtype=dtype)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier"
        tags.classifier_tags = ClassifierTags(multi_class=True)
        tags.target_tags.required = True
        return tags


class Regressor:
    """A model for numbers. The score is the prediction, and the loss is half the squared error."""

    def partial_fit(self, X: sp.sparray | sp.spmatrix | npt.ArrayLike, y: npt.ArrayLike,
                    sample_weight: npt.ArrayLike | None = None, callback: Callback | None = None) -> Self:
        """Train the present model for one more epoch: on the next part of a stream, or on the same data again.

        After an error the model is as before.

        Parameters
        ----------
        X, y, sample_weight, callback
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `fit`, and if X has other features than the model.
        """
        return self._go_on(X, y, sample_weight, callback)

    def predict(self, X: sp.sparray | sp.spmatrix | npt.ArrayLike) -> np.ndarray:
        """Return the prediction for each row, shape (n_samples,).

        Raises
        ------
        TypeError, ValueError, IndexError
            If the model is not fitted, or X is not as in `fit`, or has other features than the model.
        """
        return self._score_all(X)

    def score(self, X: sp.sparray | sp.spmatrix | npt.ArrayLike, y: npt.ArrayLike,
              sample_weight: npt.ArrayLike | None = None) -> float:
        r"""Return R², the share of the variance of y that the predictions explain.

        .. math:: R^2 = 1 - \frac{\sum_i s_i (y_i - \hat y_i)^2}{\sum_i s_i (y_i - \bar y)^2}

        If all y are equal, the result is 1 if each prediction equals y to the bit, and 0 otherwise.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `predict`, and if y or sample_weight is not as in `fit`.
        """
        predicted = self.predict(X)
        y = _checked_target(self, y, len(predicted)).astype(np.float64)
        weight = _checked_weight(sample_weight, len(predicted))
        counted = slice(None) if weight is None else weight > 0
        if y[counted].min() == y[counted].max():            # the variance would be only rounding errors
            return float(np.array_equal(predicted[counted], y[counted]))
        mean = np.average(y, weights=weight)
        error, variance = (np.average((y - of) ** 2, weights=weight) for of in (predicted, mean))
        return float(1 - error / variance)

    def _kind(self):
        return _samples.SQUARED_ERROR

    def _first_intercept(self, y, weight):
        return np.average(y.astype(np.float64), weights=weight)

    def _checked_y(self, y, n, begun=False):
        y = _checked_target(self, y, n)
        if y.dtype.kind not in "fiubO":
            raise ValueError(f"y has dtype {y.dtype}; it must be of numbers")
        with np.errstate(over="ignore"):
            y = y.astype(np.float32)
        if not np.isfinite(y).all():
            raise ValueError(f"y has {y[~np.isfinite(y)][0]}; it must be finite in float32. Input y contains NaN or "
                             "infinity")
        return y, {}

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type = "regressor"
        tags.regressor_tags = RegressorTags()
        tags.target_tags.required = True
        return tags


class Best:
    """The tables after the best epoch so far, by the loss of the samples that are held out."""

    def __init__(self, model, X):
        self.model, self.loss, self.without_gain = model, np.inf, 0
        # Under missed="skip", only the rows of features that occur are moved.
        self.rows = slice(None) if model.missed == "replay" else _occurring(X)
        self.kept = {}

    def ends(self, loss):
        """Take the loss after an epoch into account, and return whether the training ends."""
        gain = loss <= self.loss - self.model.tol
        if not loss >= self.loss:
            self.loss = loss
            self.kept = {name: table[self._rows_of(name)].copy() for name, table in self.model._tables_now()}
        self.without_gain = 0 if gain else self.without_gain + 1
        return self.without_gain >= self.model.n_iter_no_change

    def restore(self):
        for name, table in self.model._tables_now():
            table[self._rows_of(name)] = self.kept[name]

    def _rows_of(self, name):
        return slice(None) if name == "intercept" else self.rows


def _power(name):
    """Return the power of x by which a step of an optimizer moves a score."""
    return 2 if name == "SGD" else 1


def _occurring(X):
    """Return the numbers of the columns that have an entry."""
    occurs = np.zeros(X.shape[1], np.bool_)
    for start in range(0, len(X.indices), _SCORED):
        occurs[X.indices[start:start + _SCORED]] = True
    return np.flatnonzero(occurs)


def _sizes(X, weight):
    """Return the root mean squares of the lengths of the rows of X, and of its entries; 1 if all entries are 0."""
    squares = entries = 0.0
    batches = _samples.Batches(X, merged=True)          # repeated entries of a row are one number
    for start in range(0, X.shape[0], _SCORED):
        batch = batches(start, min(start + _SCORED, X.shape[0]))
        x = batch.values[:batch.bounds[-1]]
        w = 1.0 if weight is None else np.repeat(weight[start:start + _SCORED], np.diff(batch.bounds))
        squares += (np.square(x, dtype=np.float64) * w).sum()
        entries += ((x != 0) * w).sum()
    if not squares > 0:
        return 1.0, 1.0
    samples = X.shape[0] if weight is None else weight.sum()
    return tuple(float(f"{math.sqrt(squares / n):.3g}") for n in (samples, entries))    # whatever the order of the sums


def _numbers(X):
    """Return an array or a data frame as an array. An error names the first value that is no number, and its column."""
    names = getattr(X, "columns", None)
    X = np.asarray(X)
    if X.dtype.kind == "O":
        try:
            return X.astype(np.float64)
        except (TypeError, ValueError) as error:
            place, value = _first_without_number(X, names)
            raise type(error)(f"X has {shown(value)}{place}; it must be of numbers. {_ENCODERS} "
                              f"({escaped(str(error), 160)})") from None
    if X.dtype.kind in "US":
        place, value = _first_without_number(X, names)
        raise TypeError(f"X has dtype {X.dtype}, with {shown(value)}{place}; it must be of numbers. {_ENCODERS}")
    return X


def _first_without_number(X, names):
    """Return the place of the first value that is no number, as part of a message, and the value."""
    place, value = (0,) * X.ndim, None
    for place in np.ndindex(X.shape):
        value = X[place]
        try:
            float(value)
        except (TypeError, ValueError):
            break
    if X.ndim != 2:
        return "", value
    row, column = place
    return f" at row {row}, column {column if names is None else shown(names[column])}", value


def _checked_weight(weight, n):
    if weight is None:
        return None
    weight = np.asarray(weight)
    if weight.shape != (n,):
        raise ValueError(f"sample_weight has shape {weight.shape}; with {n} samples it must be ({n},)")
    if weight.dtype.kind not in "biufO":
        raise TypeError(f"sample_weight has dtype {weight.dtype}; it must be of numbers")
    weight = weight.astype(np.float64)
    if not (np.isfinite(weight).all() and weight.min() >= 0):
        raise ValueError(f"sample_weight is from {weight.min()} to {weight.max()}; it must be finite and 0 or more")
    if not weight.any():
        raise ValueError("sample_weight is zero for all samples; at least one must count")
    return weight


def _checked_target(model, y, n):
    if y is None:
        raise ValueError(f"{type(model).__name__} requires y to be passed, but the target y is None")
    if sp.issparse(y):
        raise TypeError("y is a sparse array; it must be an array, (n_samples,)")
    y = np.asarray(y)
    if y.shape == (n, 1):
        warnings.warn("A column-vector y was passed when a 1d array was expected. It is read as y.ravel()",
                      _conversion_warning(), stacklevel=4)
        y = y.ravel()
    if y.ndim != 1:
        raise ValueError(f"y has shape {y.shape}; y should be a 1d array, ({n},)")
    if len(y) != n:
        raise ValueError(f"X has {n} samples and y has {len(y)}; the numbers must be equal")
    return y


def _different(name, labels):
    """Return the different labels, sorted."""
    if labels.dtype.kind == "T":                # a file holds texts of other dtypes
        labels = labels.astype(object)
    if labels.dtype.kind == "O":
        labels = np.array([one.item() if isinstance(one, np.generic) else one for one in labels.ravel()], object)
        missing = [one for one in labels if one is None or (isinstance(one, float) and one != one)]
        if missing:
            raise ValueError(f"{name} has {shown(missing[0])}; each label must be a class. Input {name} contains NaN")
    try:
        return np.unique(labels)
    except TypeError as error:
        kinds = sorted({type(one).__name__ for one in labels.ravel().tolist()})
        raise TypeError(f"{name} has labels of the types {listed(kinds)}, which have no order; all must be texts, or "
                        f"all numbers ({escaped(str(error), 160)})") from error


def _conversion_warning():
    """Return scikit-learn's category if scikit-learn is installed."""
    try:
        from sklearn.exceptions import DataConversionWarning
    except ImportError:
        return UserWarning
    return DataConversionWarning
