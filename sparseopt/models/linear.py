"""Logistic regression on sparse features: the baseline for click models."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from .. import _memory, _samples
from ._base import MakeOptimizer, Schedule, Seed
from ._supervised import Classifier, Supervised


class LogisticRegression(Classifier, Supervised):
    r"""Logistic regression. A step on a batch touches only the weights of the batch's features.

    .. math:: P(y_i = 1) = \frac{1}{1 + e^{-z_i}}, \quad z_i = b + \sum_j x_{ij} w_j, \qquad
              \min_{w, b} \; -\sum_i s_i \log P(y_i)

    With more than two classes, each class k has its own weights, and a softmax makes probabilities of the scores:

    .. math:: P(y_i = k) = \frac{e^{z_{ik}}}{\sum_l e^{z_{il}}}, \quad z_{ik} = b_k + \sum_j x_{ij} w_{jk}

    The gradient of a batch is a sum over its samples, not a mean. So the steps of a rare feature do not depend on the
    batch size. SGD and other optimizers that do not divide by the size of gradients need a rate for the batch size. The
    rate of SGD in `LEARNING_RATES` is for batches of some hundreds.

    Parameters
    ----------
    optimizer : str or callable
        The name of an optimizer of this library. Or a callable that takes a dict of tables
        and returns an optimizer: `lambda tables: so.Adam(tables, lr=0.01, betas=(0.9, 0.99))`.
    lr : None, float or callable
        The learning rate of an optimizer given by name. None stands for the rate in `LEARNING_RATES`, chosen for rows
        of length 1. That rate is divided by the root mean square of the lengths of the first X's rows; for SGD, by its
        square. The rate of the intercept is larger by the root mean square of the entries. If the table has no rate,
        None stands for the optimizer's default.
    l1 : float
        λ1 of Ftrl, 0 or more: weights of features with little effect become exactly 0. Other optimizers need 0.
    l2 : float
        λ2 of Ftrl, 0 or more. For other optimizers by name, their weight decay, which some of these decouple from the
        gradient. A step decays touched weights under missed="skip", and all weights under "replay". The intercept has
        no penalty.
    epochs : int
        Passes over the samples in `fit`, 0 or more.
    batch_size : None or int
        Samples per step, 1 or more. None stands for 1,024 in `partial_fit`. In `fit`, None stands for a hundredth of
        the samples, from 32 to 4,096.
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
        The seed of the order of samples, and of the samples that are held out.
    class_weight : None, "balanced" or dict
        A factor for the weight of each sample, by class. A class that a dict does not have counts 1. "balanced" gives
        all classes the same sum: n_samples / (n_classes · number of samples of the class).
    early_stopping : bool or "auto"
        Whether `fit` holds out samples, and ends when their loss no longer falls. The tables then get their values
        after the best epoch. At last, `fit` trains once on the samples that were held out. "auto" stands for True from
        1,000 samples on, and for False below, or if all samples of a side have the weight 0. `partial_fit` holds out
        none: "auto" stands for False there, and True is an error.
    validation_fraction : float
        The share of samples of each class that is held out, above 0 and below 1.
    n_iter_no_change : int
        `fit` ends after so many epochs in a row, 1 or more, in which the loss did not fall by tol.
    tol : float
        The least fall of the mean loss of the held-out samples below the best one that counts, 0 or more.

    Attributes
    ----------
    optimizer_ : Optimizer
        Holds the tables: `optimizer_.params` has "weights" (n_features,) and "intercept" (1,), both float32. With k
        classes, k > 2, their shapes are (n_features, k) and (k,).
    coef_ : array, shape (1, n_features) or (k, n_features)
        The weights, in scikit-learn's shape. Read-only.
    intercept_ : array, shape (1,) or (k,)
    classes_ : array, shape (k,)
        The sorted labels. Of two labels, the second is the 1 of the formula.
    n_features_in_ : int
    feature_names_in_ : array of str, shape ``(n_features_in_,)``
        The names of the columns, if the X of the training was a data frame. Another X must have the same names in the
        same order.
    n_iter_ : int
        The number of epochs so far. The pass over the samples that were held out counts as one.
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

    LEARNING_RATES = {  # noqa: RUF012      # for rows of length 1
        "SGD": 0.02, "Adagrad": 0.35, "RowwiseAdagrad": 0.35, "Adadelta": 15.0, "RMSprop": 0.025, "Adam": 0.035,
        "AdamW": 0.035, "RowwiseAdam": 0.035, "Adamax": 0.1, "NAdam": 0.035, "Ftrl": 0.5, "Lion": 0.015,
    }

    def __init__(self, optimizer: str | MakeOptimizer = "Ftrl", lr: float | Schedule | None = None, l1: float = 0.0,
                 l2: float = 0.0, epochs: int = 5, batch_size: int | None = None, shuffle: bool = True,
                 fit_intercept: bool = True, n_features: int | None = None,
                 missed: Literal["skip", "replay"] = "skip", random_state: Seed | None = 0,
                 class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
                 early_stopping: bool | Literal["auto"] = "auto", validation_fraction: float = 0.1,
                 n_iter_no_change: int = 2, tol: float = 1e-4) -> None:
        self.optimizer = optimizer
        self.lr = lr
        self.l1 = l1
        self.l2 = l2
        self.epochs = epochs
        self.batch_size: int | None = batch_size
        self.shuffle = shuffle
        self.fit_intercept = fit_intercept
        self.n_features = n_features
        self.missed = missed
        self.random_state = random_state
        self.class_weight: Mapping[Any, float] | Literal["balanced"] | None = class_weight
        self.early_stopping: bool | Literal["auto"] = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol

    @property
    def coef_(self) -> np.ndarray:
        weights = self._table("weights")
        return weights.T if weights.ndim == 2 else weights[None]

    @property
    def intercept_(self) -> np.ndarray:
        self._check_fitted()
        return self._intercepts()

    def _tables(self, n_features, columns):
        return {"weights": _memory.zeros((n_features, *columns))}

    def _forward(self, batch, *targets):
        return _samples.linear(batch, self.optimizer_.params["weights"], self._intercept, *targets)
