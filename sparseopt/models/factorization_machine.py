"""Factorization machines of order 2: a weight for each feature, and for each pair of features the product of two vectors."""

from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from .. import _memory
from ..gradients import RowGradient
from ._supervised import BinaryClassifier, Regressor, Supervised


class _FactorizationMachine(Supervised):
    LEARNING_RATES = {  # noqa: RUF012
        "SGD": 0.003, "Adagrad": 0.02, "RowwiseAdagrad": 0.02, "Adadelta": 0.5, "RMSprop": 0.001, "Adam": 0.0015,
        "AdamW": 0.0015, "RowwiseAdam": 0.0015, "Adamax": 0.004, "NAdam": 0.0015, "Ftrl": 0.05, "Lion": 0.0003,
    }
    _canonical = True           # in x², repeats are to be squared after they are summed
    _axes: ClassVar = {**Supervised._axes, "factors": ("feature", "dim")}
    _by_feature = ("weights", "factors")

    def __init__(self, dim=8, optimizer="Ftrl", lr=None, l1=0.0, l2=0.0, init_scale=0.01, epochs=5, batch_size=256,
                 shuffle=True, fit_intercept=True, n_features=None, missed="skip", random_state=0):
        self.dim = dim
        self.optimizer = optimizer
        self.lr = lr
        self.l1 = l1
        self.l2 = l2
        self.init_scale = init_scale
        self.epochs = epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.fit_intercept = fit_intercept
        self.n_features = n_features
        self.missed = missed
        self.random_state = random_state

    @property
    def coef_(self):
        return self._table("weights")

    @property
    def factors_(self):
        return self._table("factors")

    @property
    def intercept_(self):
        self._check_fitted()
        return self._add_intercept(_memory.zeros(1))

    def _check_settings(self):
        super()._check_settings()
        self._check_integers(dim=1)
        self._check_numbers("init_scale")

    def _tables(self, n_features):
        return {"weights": _memory.zeros(n_features),
                "factors": _memory.normal((n_features, self.dim), scale=self.init_scale, seed=self._rng())}

    def _step(self, X, features, y, weight):
        score, factors, sums, squares = self._forward(X, features)
        loss, slope = self._loss(score, y, weight)
        # of ½ (Σ x v)² - ½ Σ (x v)², summed over the batch: Xᵀ(slope · Xv) - v · (X∘X)ᵀ slope
        gradient = X.T @ (slope[:, None] * np.column_stack([sums, np.ones(len(y))]))
        by_factor = gradient[:, :-1] - factors * (squares.T @ slope)[:, None]
        self.optimizer_.step({"weights": RowGradient(features, gradient[:, -1]), "factors": RowGradient(features, by_factor),
                              **self._intercept_gradient(slope)})
        return loss

    def _scores(self, X, features):
        return self._forward(X, features)[0]

    def _forward(self, X, features):
        """Scores, by Rendle's linear-time form, and what their gradient needs again."""
        tables = self.optimizer_.params
        factors = tables["factors"][features]
        product = X @ np.column_stack([factors, tables["weights"][features]])
        sums, linear = product[:, :-1], product[:, -1]
        squares = sp.csr_array((X.data * X.data, X.indices, X.indptr), shape=X.shape)
        pairs = np.einsum("bd,bd->b", sums, sums) - squares @ np.einsum("fd,fd->f", factors, factors)
        return self._add_intercept(linear + pairs / 2), factors, sums, squares


class FactorizationMachineClassifier(BinaryClassifier, _FactorizationMachine):
    r"""Factorization machine of order 2 for two classes: logistic regression that knows pairs of features.

    .. math:: P(y_i = 1) = \frac{1}{1 + e^{-z_i}}, \quad
              z_i = b + \sum_j x_{ij} w_j + \sum_{j < k} x_{ij} x_{ik} \langle v_j, v_k \rangle, \qquad
              \min_{w, b, v} \; -\sum_i s_i \log P(y_i)

    The pairs cost as much as the features, as their sum is
    :math:`\frac12 \sum_f \big((\sum_j x_{ij} v_{jf})^2 - \sum_j x_{ij}^2 v_{jf}^2\big)`; and a batch touches the rows of its
    features alone, a gradient the size of the table is never formed. Gradients are sums over a batch, as in
    `LogisticRegression`.

    Parameters
    ----------
    dim : int
        Length of the vectors v.
    optimizer : str or callable
        The name of an optimizer of this library, which then takes its steps on one thread, or a callable from a dict of tables
        to one: `lambda tables: so.Adam(tables, lr=0.01, betas=(0.9, 0.99))`.
    lr : None, float or callable
        The learning rate, with an optimizer given by name; None is that of `LEARNING_RATES`, chosen for this model, else the
        optimizer's default.
    l1 : float
        With Ftrl, λ1 of the weights w; the vectors are spared.
    l2 : float
        With Ftrl λ2 of weights and vectors, with others their weight decay (decoupled where they have it so), on touched rows
        under missed="skip" and on all under "replay". The intercept is spared.
    init_scale : float
        Standard deviation of the normal distribution that the vectors start from.
    epochs : int
        Passes over the samples that `fit` makes.
    batch_size : int
        Samples a step.
    shuffle : bool
        Whether the samples of an epoch are taken in random order. Without, batches are read where they lie, which is faster.
    fit_intercept : bool
        Whether there is a b.
    n_features : None or int
        Rows of the tables; X may then have fewer columns. None: as the first X.
    missed : "skip" or "replay"
        What happens to rows in the steps of batches without their features, with an optimizer given by name: nothing; or what
        the dense optimizer does, caught up when a batch or a reader needs them.
    random_state : int, None, numpy.random.Generator or RandomState
        Seed of the vectors' start and of the order of samples.

    Attributes
    ----------
    optimizer_ : Optimizer
        With the tables: `optimizer_.params` has "weights" (n_features,), "factors" (n_features, dim) and "intercept" (1,), of
        float32.
    coef_ : array, shape (n_features,)
        The weights w; read only.
    factors_ : array, shape (n_features, dim)
        The vectors v; read only.
    intercept_ : array, shape (1,)
    classes_ : array, shape (2,)
        The labels, in their order; the second one is the 1 of the formula.
    n_features_in_ : int
    loss_curve_ : list of float
        Mean log-loss over each epoch, measured as it went on.

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


class FactorizationMachineRegressor(Regressor, _FactorizationMachine):
    r"""Factorization machine of order 2 for numbers: linear regression that knows pairs of features.

    .. math:: \hat y_i = b + \sum_j x_{ij} w_j + \sum_{j < k} x_{ij} x_{ik} \langle v_j, v_k \rangle, \qquad
              \min_{w, b, v} \; \tfrac12 \sum_i s_i (\hat y_i - y_i)^2

    b starts at the mean of the first y. Scale y if its standard deviation is far from 1: the rates are made for that.

    Parameters
    ----------
    dim, optimizer, lr, l1, l2, init_scale, epochs, batch_size, shuffle, fit_intercept, n_features, missed, random_state
        As `FactorizationMachineClassifier`.

    Attributes
    ----------
    optimizer_, coef_, factors_, intercept_, n_features_in_
        As `FactorizationMachineClassifier`.
    loss_curve_ : list of float
        Mean of half the squared errors over each epoch, measured as it went on.

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
