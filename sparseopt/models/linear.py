"""Logistic regression on sparse features: the baseline for click models."""

from typing import Literal

import numpy as np

from .. import _memory
from ..gradients import RowGradient
from ._base import MakeOptimizer, Schedule, Seed
from ._supervised import BinaryClassifier, Supervised


class LogisticRegression(BinaryClassifier, Supervised):
    r"""Logistic regression for two classes. A step on a batch touches only the weights of the batch's features.

    .. math:: P(y_i = 1) = \frac{1}{1 + e^{-z_i}}, \quad z_i = b + \sum_j x_{ij} w_j, \qquad
              \min_{w, b} \; -\sum_i s_i \log P(y_i)

    The gradient of a batch is a sum over its samples, not a mean. So the steps of a rare feature do not depend on the
    batch size. SGD and other optimizers that do not divide by the size of gradients need a rate for the batch size. The
    rate of SGD in `LEARNING_RATES` is for batches of about 1,000.

    Parameters
    ----------
    optimizer : str or callable
        The name of an optimizer of this library, which then uses one thread. Or a callable that takes a dict of tables
        and returns an optimizer: `lambda tables: so.Adam(tables, lr=0.01, betas=(0.9, 0.99))`.
    lr : None, float or callable
        The learning rate of an optimizer given by name. None stands for the rate in `LEARNING_RATES`, chosen for this
        model. If that table has no rate, None stands for the optimizer's default.
    l1 : float
        λ1 of Ftrl, 0 or more: weights of features with little effect become exactly 0. Other optimizers need 0.
    l2 : float
        λ2 of Ftrl, 0 or more. For other optimizers by name, their weight decay, which some of these decouple from the
        gradient. A step decays touched weights under missed="skip", and all weights under "replay". The intercept has
        no penalty.
    epochs : int
        Passes over the samples in `fit`, 0 or more.
    batch_size : int
        Samples per step, 1 or more.
    shuffle : bool
        Whether an epoch takes the samples in random order. False is faster, because batches are read in place. Choose
        False for streams, and for samples whose order means nothing.
    fit_intercept : bool
        Whether the model has the intercept b.
    n_features : None or int
        The number of weights. X may then have fewer columns. None stands for the number of columns of the first X.
    missed : "skip" or "replay"
        How steps treat weights whose features are not in the batch. "skip" leaves them as they are. "replay" gives the
        results of the dense optimizer: missed steps are applied before a weight is read. A callable as optimizer needs
        "skip".
    random_state : int, None, numpy.random.Generator or RandomState
        The seed of the order of samples.

    Attributes
    ----------
    optimizer_ : Optimizer
        Holds the tables: `optimizer_.params` has "weights" (n_features,) and "intercept" (1,), both float32.
    coef_ : array, shape (1, n_features)
        The weights, in scikit-learn's shape. Read-only.
    intercept_ : array, shape (1,)
    classes_ : array, shape (2,)
        The sorted labels. The second label is the 1 of the formula.
    n_features_in_ : int
    loss_curve_ : list of float
        The mean log-loss of each epoch. The loss of a sample is measured before the step on its batch.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if a parameter is not as described above.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sparseopt.models import LogisticRegression
    >>> X = sp.random_array((5000, 200), density=0.05, rng=np.random.default_rng(0), dtype=np.float32, format="csr")
    >>> y = np.where(X @ np.linspace(-3, 3, 200) > 0, "click", "none")
    >>> model = LogisticRegression(epochs=10).fit(X, y)
    >>> model.score(X, y) > 0.95, model.classes_
    (True, array(['click', 'none'], dtype='<U5'))

    References
    ----------
    McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches".
    """

    LEARNING_RATES = {  # noqa: RUF012
        "SGD": 0.001, "Adagrad": 0.07, "RowwiseAdagrad": 0.07, "Adadelta": 3.0, "RMSprop": 0.005, "Adam": 0.007,
        "AdamW": 0.007, "RowwiseAdam": 0.007, "Adamax": 0.02, "NAdam": 0.007, "Ftrl": 0.1, "Lion": 0.003,
    }

    def __init__(self, optimizer: str | MakeOptimizer = "Ftrl", lr: float | Schedule | None = None, l1: float = 0.0,
                 l2: float = 0.0, epochs: int = 5, batch_size: int = 1024, shuffle: bool = True,
                 fit_intercept: bool = True, n_features: int | None = None,
                 missed: Literal["skip", "replay"] = "skip", random_state: Seed | None = 0) -> None:
        self.optimizer = optimizer
        self.lr = lr
        self.l1 = l1
        self.l2 = l2
        self.epochs = epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.fit_intercept = fit_intercept
        self.n_features = n_features
        self.missed = missed
        self.random_state = random_state

    @property
    def coef_(self) -> np.ndarray:
        return self._table("weights")[None]

    @property
    def intercept_(self) -> np.ndarray:
        self._check_fitted()
        return self._add_intercept(_memory.zeros(1))

    def _tables(self, n_features):
        return {"weights": _memory.zeros(n_features)}

    def _step(self, X, features, y, weight):
        loss, slope = self._loss(self._scores(X, features), y, weight)
        self.optimizer_.step({"weights": RowGradient(features, X.T @ slope), **self._intercept_gradient(slope)})
        return loss

    def _scores(self, X, features):
        return self._add_intercept(X @ self.optimizer_.params["weights"][features])
