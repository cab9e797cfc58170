"""What models of sparse features and targets share: checks of X and y, the training loop, two classes or numbers as targets."""

import warnings
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from scipy.special import expit

from .. import _memory
from .._text import escaped, listed, shown
from ..gradients import checked
from ._base import Model, Progress

_WIDEST_CLASS = 1 << 20         # bytes, in a file
_SCORED = 4096                  # rows that are scored at a time: a bound on the memory that it takes


class Supervised(Model):
    """Trains on batches of rows of X with their targets; a subclass says what a batch does to which tables."""

    _axes: ClassVar = {"weights": ("feature",), "intercept": ("one",)}
    _by_feature = ("weights",)  # the tables with a row for each feature, that l2 acts on; l1 acts on the first
    # More would save a tenth; and where cores are busy, wait for each other ten times as long as so small a step takes.
    _threads = 1
    _canonical = False          # whether repeated columns of a row have to be summed before training

    def fit(self, X, y, sample_weight=None, callback=None):
        """Train a new model.

        Parameters
        ----------
        X : scipy sparse array or array, shape (n_samples, n_features)
            CSR of float32 is read as it stands, anything else is converted once. Repeated columns of a row add up.
        y : array, shape (n_samples,)
        sample_weight : None or array of floats, shape (n_samples,)
            What each sample counts, 0 or more; None is 1.
        callback : None or callable
            Called after every batch with a `sparseopt.models.Progress`; training ends where it returns True.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            If something is not as said above, or a parameter of the model is wrong. The model is then as before.
        """
        self._check_settings()
        X = self._checked_X(X, self.n_features)
        y, found = self._checked_y(y, X.shape[0])
        weight = _checked_weight(sample_weight, X.shape[0])
        self._start(X.shape[1], y, weight, found)
        for _ in range(self.epochs):
            if self._epoch(X, y, weight, callback):
                break
        return self

    def _go_on(self, X, y, sample_weight, callback, **known):
        """One more epoch, on these samples; the first begins a new model."""
        self._check_settings()
        begun = hasattr(self, "optimizer_")
        X = self._checked_X(X, self.n_features_in_ if begun else self.n_features)
        y, found = self._checked_y(y, X.shape[0], begun, **known)
        weight = _checked_weight(sample_weight, X.shape[0])
        if not begun:
            self._start(X.shape[1], y, weight, found)
        self._epoch(X, y, weight, callback)
        return self

    def _start(self, n_features, y, weight, found):
        tables = self._tables(n_features)
        if self.fit_intercept:
            tables["intercept"] = _memory.zeros(1)
            tables["intercept"][0] = self._first_intercept(y, weight)
        self.optimizer_ = self._make_optimizer(tables, self._penalties(tables))
        self.n_features_in_ = n_features
        self.loss_curve_ = []
        for name, value in found.items():
            setattr(self, name, value)

    def _epoch(self, X, y, weight, callback):
        n, epoch = X.shape[0], len(self.loss_curve_)
        loss = counted = mean = 0.0
        order = self._rng(epoch).permutation(n) if self.shuffle else None
        compact = Compactor(X.shape[1])
        for start in range(0, n, self.batch_size):
            stop = min(n, start + self.batch_size)
            rows = slice(start, stop) if order is None else order[start:stop]
            batch, features = compact(X, start, stop) if order is None else compact(X[rows], 0, stop - start)
            self._bring_up(features)
            weights = None if weight is None else weight[rows]
            loss += self._step(batch, features, y[rows], weights)
            counted += stop - start if weights is None else float(weights.sum())
            mean = loss / counted if counted else 0.0
            ended = bool(callback and callback(Progress(self, epoch, stop, n, mean)))
            if ended:
                break
        self.loss_curve_.append(mean)
        return ended

    def _tables(self, n_features):
        """The tables of a new model, less the intercept."""
        raise NotImplementedError

    def _step(self, X, features, y, weight):
        """One step on a batch, whose columns are these features; returns the sum of its losses."""
        raise NotImplementedError

    def _scores(self, X, features):
        """What the model says of the rows of X, before the loss makes anything of it."""
        raise NotImplementedError

    def _score_all(self, X):
        self._check_fitted()
        X = self._checked_X(X, self.n_features_in_)
        compact = Compactor(X.shape[1])
        parts = []
        for start in range(0, X.shape[0], _SCORED):
            batch, features = compact(X, start, min(start + _SCORED, X.shape[0]))
            self._bring_up(features)
            parts.append(self._scores(batch, features))
        return np.concatenate(parts)

    def _bring_up(self, features):
        self._catch_up(dict.fromkeys(self._by_feature, features))

    def _add_intercept(self, scores):
        """Add it in place."""
        if "intercept" in self.optimizer_.params:
            scores += self.optimizer_.params["intercept"][0]
        return scores

    def _intercept_gradient(self, slope):
        return {"intercept": slope.sum(keepdims=True)} if "intercept" in self.optimizer_.params else {}

    def _table(self, name):
        """A table to be looked at."""
        self._check_fitted()
        self._catch_up()
        table = self.optimizer_.params[name].view()
        table.flags.writeable = False           # for reading; weights are written into optimizer_.params
        return table

    def _check_settings(self):
        self._check_integers(epochs=0, batch_size=1)
        self._check_numbers("l1", "l2", zero=True)
        for name in ("shuffle", "fit_intercept"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ValueError(f"{name} is {shown(getattr(self, name))}; it must be True or False")
        if self.n_features is not None:
            self._check_integers(n_features=1)
        try:
            self._rng(0)
        except (TypeError, ValueError) as error:
            raise ValueError(f"random_state is {shown(self.random_state)}; no seed of numpy.random.default_rng: "
                             f"{escaped(str(error), 160)}") from error
        for name in ("l1", "l2"):
            if getattr(self, name) and callable(self.optimizer):
                raise ValueError(f"{name} is {shown(getattr(self, name))} and optimizer a callable, which says that itself; "
                                 "leave it at 0")
        if self.l1 and str(self.optimizer).lower() != "ftrl":
            raise ValueError(f"l1 is {self.l1!r} and optimizer is {shown(self.optimizer)}; only Ftrl makes weights exactly 0 "
                             "by it; leave l1 at 0")

    def _penalties(self, tables):
        """The hyper-parameters of each table that l1 and l2 come to."""
        l2 = {name: self.l2 if name in self._by_feature else 0.0 for name in tables}
        if str(self.optimizer).lower() == "ftrl":
            return {name: {"l1": self.l1 if name == self._by_feature[0] else 0.0, "l2": l2[name]} for name in tables}
        return {name: {"weight_decay": l2[name]} for name in tables}

    def _checked_X(self, X, n_features):
        """X as CSR of float32 with all the features, checked whole: a batch in the midst of training does not fail any more."""
        if sp.issparse(X):
            X = checked(X, "X").tocsr() if X.ndim == 2 else X
        else:
            X = np.asarray(X)
            if X.dtype.kind == "O":
                X = X.astype(np.float64)
        if X.ndim != 2:
            raise ValueError(f"X has shape {X.shape}; it must be (n_samples, n_features). Reshape your data: X.reshape(1, -1) "
                             "if it is one sample, X.reshape(-1, 1) if one feature")
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
        if self._canonical and not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
        finite = np.isfinite(X.data)
        if not finite.all():
            first = int(finite.argmin())
            row = int(np.searchsorted(X.indptr, first, side="right")) - 1
            raise ValueError(f"X has {X.data[first]} at row {row}, column {X.indices[first]}; it must be finite in float32, "
                             "without NaN and infinity")
        return X

    def _fitted(self):
        return {**super()._fitted(), "n_features_in": int(self.n_features_in_)}

    def _restore(self, metadata):
        super()._restore(metadata)
        self.n_features_in_ = len(self.optimizer_.params[self._by_feature[0]])


class BinaryClassifier:
    """Two classes: the score is the log-odds of the second, the loss the log-loss."""

    def partial_fit(self, X, y, classes=None, sample_weight=None, callback=None):
        """Train one more epoch from where the model is: on the next part of a stream, or the same data again.

        Parameters
        ----------
        X, y, sample_weight, callback
            As `fit`.
        classes : None or array, shape (2,)
            Both classes; needed where the y of the first call has only one of them.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            As `fit`; and if X has other features, or y other classes, than the model. The model is then as before.
        """
        return self._go_on(X, y, sample_weight, callback, classes=classes)

    def decision_function(self, X):
        """Return the log-odds of the second class, shape (n_samples,)."""
        return self._score_all(X)

    def predict_proba(self, X):
        """Return the probabilities of both classes, shape (n_samples, 2), in the order of `classes_`."""
        scores = self._score_all(X).astype(np.float64)
        return np.column_stack([expit(-scores), expit(scores)])

    def predict(self, X):
        """Return the more probable class of each row, shape (n_samples,)."""
        second = self._score_all(X) > 0
        return self.classes_[second.astype(np.intp)]

    def score(self, X, y, sample_weight=None):
        """Return the share of rows whose class is predicted right."""
        predicted = self.predict(X)
        weight = _checked_weight(sample_weight, len(predicted))
        return float(np.average(predicted == _checked_target(self, y, len(predicted)), weights=weight))

    def _loss(self, score, y, weight):
        """The sum of the losses, and the derivative by each score."""
        score = score.astype(np.float64)
        small = np.exp(-np.abs(score))
        p = np.where(score >= 0, 1, small) / (1 + small)
        return _weighted(np.log1p(small) + np.maximum(np.where(y > 0, -score, score), 0), p - y, weight)

    def _first_intercept(self, y, weight):
        return 0.0

    def _checked_y(self, y, n, begun=False, classes=None):
        """y as 0 and 1, and the classes, where they were not known before."""
        y = _checked_target(self, y, n)
        if y.dtype.kind in "fc" and not np.isfinite(y).all():
            raise ValueError("y has a NaN or an infinity; each sample must have one of two classes. Input y contains NaN or "
                             "infinity")
        if classes is not None:
            classes = np.unique(classes)
            if len(classes) != 2:
                raise ValueError(f"classes has {len(classes)} different ones; they must be 2")
            if begun and not np.array_equal(classes, self.classes_):
                raise ValueError(f"classes is {listed(classes)}; the model has {listed(self.classes_)}")
        elif begun:
            classes = self.classes_
        else:
            classes = np.unique(y)
            if y.dtype.kind == "f" and len(classes) > 2 and (classes % 1).any():
                raise ValueError(f"y has {len(classes)} different numbers. Unknown label type: continuous; there must be 2 "
                                 "classes")
            if len(classes) == 1:
                raise ValueError(f"y has only one class, {shown(classes[0])}; there must be 2 (partial_fit can be told both)")
            if len(classes) > 2:
                raise ValueError(f"y has {len(classes)} classes, {', '.join(map(shown, classes[:3]))}...; there must be 2. "
                                 "Only binary classification is supported. The type of the target is multiclass.")
        second = y == classes[1]
        if not (second | (y == classes[0])).all():
            other = y[~(second | (y == classes[0]))][0]
            raise ValueError(f"y has {shown(other)}; the classes are {shown(classes[0])} and {shown(classes[1])}")
        return second.astype(np.float32), {} if begun else {"classes_": classes}

    def _fitted(self):
        return {**super()._fitted(), "classes": self.classes_.tolist(), "classes_dtype": self.classes_.dtype.str}

    def _restore(self, metadata):
        super()._restore(metadata)
        dtype = np.dtype(metadata["classes_dtype"])
        if len(metadata["classes"]) != 2 or dtype.itemsize > _WIDEST_CLASS:
            raise ValueError(f"its classes are {metadata['classes']!r} of dtype {dtype}; they must be 2")
        self.classes_ = np.array(metadata["classes"], dtype=dtype)

    def __sklearn_tags__(self):
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier"
        tags.classifier_tags = ClassifierTags(multi_class=False)
        tags.target_tags.required = True
        return tags


class Regressor:
    """Numbers: the score is the prediction, the loss half the squared error."""

    def partial_fit(self, X, y, sample_weight=None, callback=None):
        """Train one more epoch from where the model is: on the next part of a stream, or the same data again.

        Parameters
        ----------
        X, y, sample_weight, callback
            As `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            As `fit`; and if X has other features than the model. The model is then as before.
        """
        return self._go_on(X, y, sample_weight, callback)

    def predict(self, X):
        """Return the prediction for each row, shape (n_samples,)."""
        return self._score_all(X)

    def score(self, X, y, sample_weight=None):
        """Return R²: 1 less the squared error over that of the mean; where y are all alike 0, or 1 if predicted to the bit."""
        predicted = self.predict(X)
        y = _checked_target(self, y, len(predicted)).astype(np.float64)
        weight = _checked_weight(sample_weight, len(predicted))
        counted = slice(None) if weight is None else weight > 0
        if y[counted].min() == y[counted].max():            # where a variance would be that of rounding
            return float(np.array_equal(predicted[counted], y[counted]))
        mean = np.average(y, weights=weight)
        error, variance = (np.average((y - of) ** 2, weights=weight) for of in (predicted, mean))
        return float(1 - error / variance)

    def _loss(self, score, y, weight):
        error = score.astype(np.float64) - y
        return _weighted(error * error / 2, error, weight)

    def _first_intercept(self, y, weight):
        return np.average(y.astype(np.float64), weights=weight)

    def _checked_y(self, y, n, begun=False):
        y = _checked_target(self, y, n)
        if y.dtype.kind not in "fiubO":
            raise ValueError(f"y has dtype {y.dtype}; it must be of numbers")
        with np.errstate(over="ignore"):
            y = y.astype(np.float32)
        if not np.isfinite(y).all():
            raise ValueError(f"y has {y[~np.isfinite(y)][0]}; it must be finite in float32. Input y contains NaN or infinity")
        return y, {}

    def __sklearn_tags__(self):
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type = "regressor"
        tags.regressor_tags = RegressorTags()
        tags.target_tags.required = True
        return tags


class Compactor:
    """Takes rows of X to the columns that occur in them: what is computed with them then fits into the processor's cache.

    Sorting would take several times as long. One number a feature is set aside, but only those of the rows are touched.
    """

    def __init__(self, n_features):
        self.place = np.empty(n_features, np.int32)
        self.numbers = np.empty(0, np.int32)            # 0, 1, 2, ...

    def __call__(self, X, start, stop):
        """The rows from start to stop, with as many columns as occur in them, and which features these are."""
        first, last = X.indptr[start], X.indptr[stop]
        if last - first > len(self.numbers):
            self.numbers = np.arange(last - first, dtype=np.int32)
        place, indices, position = self.place, X.indices[first:last].astype(np.intp), self.numbers[:last - first]
        place[indices] = position
        features = indices.compress(place.take(indices, mode="clip") == position)      # the last that named each of them
        place[features] = self.numbers[:len(features)]
        places = place.take(indices, mode="clip")
        bounds = (X.indptr[start:stop + 1] - first).astype(np.int32, copy=False)
        return sp.csr_array((X.data[first:last], places, bounds), shape=(stop - start, len(features))), features


def _weighted(losses, slopes, weight):
    if weight is not None:
        losses, slopes = losses * weight, slopes * weight
    return float(losses.sum()), slopes


def _checked_weight(weight, n):
    if weight is None:
        return None
    weight = np.asarray(weight)
    if weight.shape != (n,):
        raise ValueError(f"sample_weight has shape {weight.shape}; with {n} samples it must be ({n},)")
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
        raise ValueError(f"X has {n} samples and y {len(y)}; they must be as many")
    return y


def _conversion_warning():
    """scikit-learn's category, where it is installed."""
    try:
        from sklearn.exceptions import DataConversionWarning
    except ImportError:
        return UserWarning
    return DataConversionWarning
