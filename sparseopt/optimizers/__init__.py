"""The registry of optimizers: a new one is its file beside this one, and its name below.

`STRUCTURES`, `alike`, `arranged`, `continue_run`, `same_run` and `while_held` are for the rest of the package, which
touches no private attribute of an optimizer.
"""

from ._base import Optimizer
from ._resuming import alike, continue_run, same_run, while_held
from ._structure import STRUCTURES, arranged
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

__all__ = ["OPTIMIZERS", "STRUCTURES", "Optimizer", "alike", "arranged", "continue_run", "same_run", "while_held",
           *OPTIMIZERS]
