"""The registry of optimizers: a new one is its file beside this one, its import and its name in `__all__`.

`CHECKS`, `Gradients`, `OPTIMIZERS`, `STRUCTURES`, `Part`, `Staged`, `alike`, `arranged`, `load_with`, `number_rows`,
`reset_with`, `resize_with`, `set_parts`, `while_held` and some names of `_options` are for the rest of the package,
which touches no private attribute of an optimizer.
"""

from ._base import Optimizer
from ._hyper import CHECKS as CHECKS
from ._options import BY_GROUP as BY_GROUP
from ._options import DEFAULTS as DEFAULTS
from ._options import Options as Options
from ._options import Unpack as Unpack
from ._options import spell_out as spell_out
from ._parameter import Part as Part
from ._resizing import reset_with as reset_with
from ._resizing import resize_with as resize_with
from ._resuming import alike as alike
from ._resuming import load_with as load_with
from ._resuming import number_rows as number_rows
from ._resuming import while_held as while_held
from ._staged import Staged as Staged
from ._staged import set_parts as set_parts
from ._structure import STRUCTURES as STRUCTURES
from ._structure import Gradients as Gradients
from ._structure import arranged as arranged
from .adadelta import Adadelta
from .adagrad import Adagrad, RowwiseAdagrad
from .adam import Adam, AdamW, RowwiseAdam
from .adamax import Adamax
from .ftrl import Ftrl
from .lion import Lion
from .nadam import NAdam
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = [  # noqa: RUF022 (the order of `OPTIMIZERS`, of growing complexity)
    "SGD", "Adagrad", "RowwiseAdagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "RowwiseAdam", "Adamax", "NAdam",
    "Ftrl", "Lion", "Optimizer",
]

OPTIMIZERS = {name: globals()[name] for name in __all__ if name != "Optimizer"}
