"""The registry of optimizers: a new one is its file beside this one, and its name below."""

from ._base import Optimizer
from .adadelta import Adadelta
from .adagrad import Adagrad, RowwiseAdagrad
from .adam import Adam, AdamW, RowwiseAdam
from .adamax import Adamax
from .ftrl import Ftrl
from .lion import Lion
from .nadam import NAdam
from .rmsprop import RMSprop
from .sgd import SGD

OPTIMIZERS = {cls.__name__: cls for cls in (
    SGD, Adagrad, RowwiseAdagrad, Adadelta, RMSprop, Adam, AdamW, RowwiseAdam, Adamax, NAdam, Ftrl, Lion)}

__all__ = ["OPTIMIZERS", "Optimizer", *OPTIMIZERS]
