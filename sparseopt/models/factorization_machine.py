"""Factorization machines of order 2: a weight for each feature, and a product of vectors for each pair of features."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from .. import _memory, _samples
from ._base import MakeOptimizer, Schedule, Seed
from ._supervised import Classifier, Regressor, Supervised

_INIT_SCALE = 0.05      # of the first vectors, for rows of length 1


class _FactorizationMachine(Supervised):
    LEARNING_RATES = {  # noqa: RUF012      # for rows of length 1
        "SGD": 0.03, "Adagrad": 0.1, "RowwiseAdagrad": 0.1, "Adadelta": 2.5, "RMSprop": 0.005, "Adam": 0.008,
        "AdamW": 0.008, "RowwiseAdam": 0.008, "Adamax": 0.02, "NAdam": 0.008, "Ftrl": 0.5, "Lion": 0.003,
    }
    _beta = 3.0                 # smaller first steps: the vectors of rare features would fit noise
    _axes: ClassVar = {**Supervised._axes, "factors": ("feature", "dim")}
    _by_feature = ("weights", "factors")

    def __init__(self, dim: int = 8, optimizer: str | MakeOptimizer = "Ftrl", lr: float | Schedule | None = None,
                 l1: float = 0.0, l2: float = 0.0, init_scale: float | None = None, epochs: int = 5,
                 batch_size: int | None = None, shuffle: bool = True, fit_intercept: bool = True,
                 n_features: int | None = None,
                 missed: Literal["skip", "replay"] = "skip", random_state: Seed | None = 0,
                 early_stopping: bool | Literal["auto"] = "auto", validation_fraction: float = 0.1,
                 n_iter_no_change: int = 2, tol: float = 1e-4) -> None:
        self.dim = dim
        self.optimizer = optimizer
        self.lr = lr
        self.l1 = l1
        self.l2 = l2
        self.init_scale: float | None = init_scale
        self.epochs = epochs
        self.batch_size: int | None = batch_size
        self.shuffle = shuffle
        self.fit_intercept = fit_intercept
        self.n_features = n_features
        self.missed = missed
        self.random_state = random_state
        self.early_stopping: bool | Literal["auto"] = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol

    @property
    def coef_(self) -> np.ndarray:
        return self._table("weights").T

    @property
    def factors_(self) -> np.ndarray:
        factors = self._table("factors")
        columns = self.optimizer_.params["weights"].shape[1:]
        return factors.reshape(len(factors), *columns, -1).swapaxes(0, 1) if columns else factors

    @property
    def intercept_(self) -> np.ndarray:
        self._check_fitted()
        return self._intercepts()

    def _check_settings(self):
        super()._check_settings()
        self._check_integers(dim=1)
        if self.init_scale is not None:
            self._check_numbers("init_scale")

    def _tables(self, n_features, columns):
        width = self.dim * math.prod(columns)
        scale = _INIT_SCALE / self._length if self.init_scale is None else self.init_scale
        return {"weights": _memory.zeros((n_features, *columns)),
                "factors": _memory.normal((n_features, width), scale=scale, seed=self._rng())}

    # With several classes, the columns of "factors" are the vectors of the first class, those of the second, and so on.

    def _batches(self, X):
        return _samples.Batches(X, merged=True)     # x² is the square of a sum of repeated entries

    def _forward(self, batch, *targets):
        tables = self.optimizer_.params
        return _samples.factorization_machine(batch, tables["weights"], tables["factors"], self._intercept, *targets)


class FactorizationMachineClassifier(Classifier, _FactorizationMachine):
    r"""Factorization machine of order 2 for classes: logistic regression with interactions of pairs of features.

    .. math:: P(y_i = 1) = \frac{1}{1 + e^{-z_i}}, \quad
              z_i = b + \sum_j x_{ij} w_j + \sum_{j < k} x_{ij} x_{ik} \langle v_j, v_k \rangle, \qquad
              \min_{w, b, v} \; -\sum_i s_i \log P(y_i)

    The sum over all pairs costs no more than the sum over the features, because it equals
    :math:`\frac12 \sum_f \bigl((\sum_j x_{ij} v_{jf})^2 - \sum_j x_{ij}^2 v_{jf}^2\bigr)`. A step on a batch touches
    only the rows of the batch's features, so no gradient has the size of a table. Gradients are sums over a batch, as
    in `LogisticRegression`.

    With more than two classes, each class has its own b, w and v. A softmax makes probabilities of the scores z.

    Parameters
    ----------
    dim : int
        The length of the vectors v, 1 or more.
    optimizer : str or callable
        The name of an optimizer of this library. Or a callable that takes a dict of tables
        and returns an optimizer: `lambda tables: so.Adam(tables, lr=0.01, betas=(0.9, 0.99))`.
    lr : None, float or callable
        The learning rate of an optimizer given by name. None stands for the rate in `LEARNING_RATES`, chosen for rows
        of length 1. That rate is divided by the root mean square of the lengths of the first X's rows; for SGD, by its
        square. The rate of the intercept is larger by the root mean square of the entries. If the table has no rate,
        None stands for the optimizer's default. β of Ftrl is 3 times this length.
    l1 : float
        λ1 of Ftrl for the weights w, 0 or more. The vectors have no such penalty. Other optimizers need 0.
    l2 : float
        λ2 of Ftrl for weights and vectors, 0 or more. For other optimizers by name, their weight decay, which some of
        these decouple from the gradient. A step decays touched rows under missed="skip", and all rows under "replay".
        The intercept has no penalty.
    init_scale : None or float
        The vectors start with draws from a normal distribution. This is its standard deviation, above 0. None stands
        for 0.05, divided by the root mean square of the lengths of the first X's rows.
    epochs : int
        Passes over the samples in `fit`, 0 or more.
    batch_size : None or int
        As in `LogisticRegression`.
    shuffle : bool
        Whether an epoch takes the samples in random order. False is faster, because batches are read in place.
    fit_intercept : bool
        Whether the model has the intercept b.
    n_features : None or int
        The number of rows of the tables. X may then have fewer columns. None stands for the number of columns of the
        first X.
    missed : "skip" or "replay"
        How steps treat rows whose features are not in the batch. "skip" leaves them as they are. "replay" gives the
        results of the dense optimizer: missed steps are applied before a row is read. A callable as optimizer needs
        "skip".
    random_state : int, None, numpy.random.Generator or RandomState
        The seed of the first vectors, of the order of samples, and of the samples that are held out.
    class_weight, early_stopping, validation_fraction, n_iter_no_change, tol
        As in `LogisticRegression`.

    Attributes
    ----------
    optimizer_ : Optimizer
        Holds the tables, all float32: `optimizer_.params` has "weights" (n_features,), "factors" (n_features, dim) and
        "intercept" (1,). With k classes, k > 2, their shapes are (n_features, k), (n_features, k · dim) and (k,).
    coef_ : array, shape (n_features,) or (k, n_features)
        The weights w. Read-only.
    factors_ : array, shape (n_features, dim) or (k, n_features, dim)
        The vectors v. Read-only.
    intercept_ : array, shape (1,) or (k,)
    classes_ : array, shape (k,)
        The sorted labels. Of two labels, the second is the 1 of the formula.
    n_features_in_, feature_names_in_, n_iter_
        As in `LogisticRegression`.
    loss_curve_ : list of float
        The mean log-loss of each epoch. The loss of a sample is measured before the step on its batch.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if a parameter is not as described above.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sparseopt.models import FactorizationMachineClassifier
    >>> rng = np.random.default_rng(0)
    >>> user, item = rng.integers(40, size=(2, 8000))           # a click where both are odd, or both even
    >>> X = sp.csr_array((np.ones(16000), np.column_stack([user, 40 + item]).ravel(), np.arange(0, 16001, 2)))
    >>> y = (user + item) % 2 == 0
    >>> model = FactorizationMachineClassifier(dim=2, epochs=20).fit(X, y)
    >>> model.score(X, y) > 0.95
    True

    References
    ----------
    Rendle 2010, "Factorization Machines", eq. 1 and lemma 3.1.
    """

    def __init__(self, dim: int = 8, optimizer: str | MakeOptimizer = "Ftrl", lr: float | Schedule | None = None,
                 l1: float = 0.0, l2: float = 0.0, init_scale: float | None = None, epochs: int = 5,
                 batch_size: int | None = None, shuffle: bool = True, fit_intercept: bool = True,
                 n_features: int | None = None,
                 missed: Literal["skip", "replay"] = "skip", random_state: Seed | None = 0,
                 class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
                 early_stopping: bool | Literal["auto"] = "auto", validation_fraction: float = 0.1,
                 n_iter_no_change: int = 2, tol: float = 1e-4) -> None:
        super().__init__(dim, optimizer, lr, l1, l2, init_scale, epochs, batch_size, shuffle, fit_intercept, n_features,
                         missed, random_state, early_stopping, validation_fraction, n_iter_no_change, tol)
        self.class_weight: Mapping[Any, float] | Literal["balanced"] | None = class_weight


class FactorizationMachineRegressor(Regressor, _FactorizationMachine):
    r"""Factorization machine of order 2 for numbers: linear regression with interactions of pairs of features.

    .. math:: \hat y_i = b + \sum_j x_{ij} w_j + \sum_{j < k} x_{ij} x_{ik} \langle v_j, v_k \rangle, \qquad
              \min_{w, b, v} \; \tfrac12 \sum_i s_i (\hat y_i - y_i)^2

    The intercept b starts at the mean of the first y. The rates in `LEARNING_RATES` are for a y with a standard
    deviation of about 1. Scale y if its deviation is far from 1.

    Parameters
    ----------
    dim, optimizer, lr, l1, l2, init_scale, epochs, batch_size, shuffle, fit_intercept, n_features, missed, random_state
        As in `FactorizationMachineClassifier`.
    early_stopping, validation_fraction, n_iter_no_change, tol
        As in `LogisticRegression`. The loss is half the squared error, and samples are held out at random.

    Attributes
    ----------
    optimizer_, coef_, factors_, intercept_, n_features_in_, feature_names_in_, n_iter_
        As in `FactorizationMachineClassifier`.
    loss_curve_ : list of float
        The mean of half the squared errors of each epoch. The error of a sample is measured before the step on its
        batch.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if a parameter is not as described above.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sparseopt.models import FactorizationMachineRegressor
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.standard_normal((2, 200, 3)) / 2
    >>> user, item = rng.integers(200, size=(2, 20000))
    >>> X = sp.csr_array((np.ones(40000), np.column_stack([user, 200 + item]).ravel(), np.arange(0, 40001, 2)))
    >>> y = (a[user] * b[item]).sum(axis=1)
    >>> model = FactorizationMachineRegressor(dim=3, epochs=20).fit(X, y)
    >>> model.score(X, y) > 0.9
    True

    References
    ----------
    Rendle 2010, "Factorization Machines", eq. 1 and lemma 3.1.
    """
