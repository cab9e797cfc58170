"""Logistic regression on sparse features: the click model that everything else is compared with."""

from .. import _memory
from ..gradients import RowGradient
from ._supervised import BinaryClassifier, Supervised


class LogisticRegression(BinaryClassifier, Supervised):
    r"""Logistic regression for two classes, trained in batches that touch the weights of their features alone.

    .. math:: P(y_i = 1) = \frac{1}{1 + e^{-z_i}}, \quad z_i = b + \sum_j x_{ij} w_j, \qquad
              \min_{w, b} \; -\sum_i s_i \log P(y_i)

    The gradient of a batch is a sum over its samples, not a mean: a rare feature moves by the same steps whatever the size of
    the batch around it. So the batch counts for the rate of optimizers that do not divide by the size of their gradients:
    that of SGD in `LEARNING_RATES` is for batches of about 1,000.

    Parameters
    ----------
    optimizer : str or callable
        The name of an optimizer of this library, which then takes its steps on one thread, or a callable from a dict of tables
        to one: `lambda tables: so.Adam(tables, lr=0.01, betas=(0.9, 0.99))`.
    lr : None, float or callable
        The learning rate, with an optimizer given by name; None is that of `LEARNING_RATES`, chosen for this model, else the
        optimizer's default.
    l1 : float
        With Ftrl, its λ1: weights that are not worth it are exactly 0.
    l2 : float
        With Ftrl its λ2, with others their weight decay (decoupled where they have it so), on touched weights under
        missed="skip" and on all under "replay". The intercept is spared.
    epochs : int
        Passes over the samples that `fit` makes.
    batch_size : int
        Samples a step.
    shuffle : bool
        Whether the samples of an epoch are taken in random order. Without, batches are read where they lie, which is faster:
        for streams, and data that has no order.
    fit_intercept : bool
        Whether there is a b.
    n_features : None or int
        Rows of the table of weights; X may then have fewer columns. None: as the first X.
    missed : "skip" or "replay"
        What happens to weights in the steps of batches without their features, with an optimizer given by name: nothing; or
        what the dense optimizer does, caught up when a batch or a reader needs them.
    random_state : int, None, numpy.random.Generator or RandomState
        Seed of the order of samples.

    Attributes
    ----------
    optimizer_ : Optimizer
        With the tables: `optimizer_.params` has "weights" (n_features,) and "intercept" (1,), of float32.
    coef_ : array, shape (1, n_features)
        The weights, as scikit-learn has them; read only.
    intercept_ : array, shape (1,)
    classes_ : array, shape (2,)
        The labels, in their order; the second one is the 1 of the formula.
    n_features_in_ : int
    loss_curve_ : list of float
        Mean log-loss over each epoch, measured as it went on: each sample before the step that it belongs to.

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
        "SGD": 0.001, "Adagrad": 0.07, "RowwiseAdagrad": 0.07, "Adadelta": 3.0, "RMSprop": 0.005, "Adam": 0.007, "AdamW": 0.007,
        "RowwiseAdam": 0.007, "Adamax": 0.02, "NAdam": 0.007, "Ftrl": 0.1, "Lion": 0.003,
    }

    def __init__(self, optimizer="Ftrl", lr=None, l1=0.0, l2=0.0, epochs=5, batch_size=1024, shuffle=True, fit_intercept=True,
                 n_features=None, missed="skip", random_state=0):
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
    def coef_(self):
        return self._table("weights")[None]

    @property
    def intercept_(self):
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
