"""The keywords that all optimizers take, beside the hyper-parameters of their rule.

a) `Options` has each keyword's type, `DEFAULTS` its default. A constructor takes `**options: Unpack[Options]`, so type
   checkers and editors see every keyword.
b) `spell_out` gives such a constructor a signature with all keywords, for `help` and `inspect.signature`.
c) A misspelled keyword ends up in `options`, so the error can list the names that exist.
"""

import inspect
import operator
from collections.abc import Callable
from typing import Any, Literal, TypedDict, get_type_hints

from .. import _config
from .._checks import one_of, positive
from .._text import shown
from .._typing import Rate as Rate
from .._typing import Unpack as Unpack
from ._hyper import or_none
from ._structure import Params as Params


class Options(TypedDict, total=False):
    """Keywords of every optimizer; `Optimizer` explains them."""

    maximize: bool
    clip_value: float | None
    max_row_norm: float | None
    max_norm: float | None
    step_count: Literal["row", "global"]
    missed: Literal["skip", "replay"]
    max_grad_norm: float | None
    nonfinite: Literal["raise", "skip", "allow"]
    num_threads: int | None


DEFAULTS: Options = {
    "maximize": False, "clip_value": None, "max_row_norm": None, "max_norm": None, "step_count": "row",
    "missed": "skip", "max_grad_norm": None, "nonfinite": "raise", "num_threads": None,
}
BY_GROUP = "maximize", "clip_value", "max_row_norm", "max_norm"         # hyper-parameters: each group may have its own
CHECKS = {                                                              # of options that hold for the whole optimizer
    "step_count": lambda name, value: one_of(name, value, "row", "global"),
    "missed": lambda name, value: one_of(name, value, "skip", "replay"),
    "nonfinite": lambda name, value: one_of(name, value, "raise", "skip", "allow"),
    "max_grad_norm": or_none(positive),
    "num_threads": or_none(_config.check_num_threads),
}


def option(name: str, fixed: bool = False) -> Any:
    """Return a property for an option of the whole optimizer. If fixed, only the constructor sets it."""
    hidden = f"_{name}"

    def set_(self, value):
        if fixed and hasattr(self, hidden):
            raise AttributeError(f"{name} cannot change after construction; it is {shown(getattr(self, hidden))}")
        setattr(self, hidden, CHECKS[name](name, value))

    return property(operator.attrgetter(hidden), set_)


def spell_out(init: Callable[..., Any]) -> None:
    """Give a constructor with `**options` a signature in which every option stands by itself."""
    signature = inspect.signature(init)
    parameters = list(signature.parameters.values())
    if parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        own = {parameter.name for parameter in parameters}
        spelled = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS[name], annotation=type_)
                   for name, type_ in get_type_hints(Options).items() if name not in own]
        init.__signature__ = signature.replace(parameters=[*parameters[:-1], *spelled])


class TakesOptions:
    """The part of an optimizer that checks its options, and has those of the whole optimizer as attributes."""

    step_count: Literal["row", "global"] = option("step_count", fixed=True)
    missed: Literal["skip", "replay"] = option("missed", fixed=True)
    nonfinite: Literal["raise", "skip", "allow"] = option("nonfinite")
    max_grad_norm: float | None = option("max_grad_norm")
    num_threads: int | None = option("num_threads")

    _step_count: str
    _missed: str
    _nonfinite: str
    _max_grad_norm: float | None
    _num_threads: int | None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            spell_out(cls.__init__)

    def _take_options(self, given):
        """Set the options of the whole optimizer, and return the others, which are hyper-parameters of groups."""
        for name in given:
            if name not in DEFAULTS:
                names = [one for one, each in inspect.signature(type(self)).parameters.items()
                         if one != "params" and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
                raise TypeError(f"{type(self).__name__} takes no keyword {shown(name)}; its keywords are "
                                f"{', '.join(names)}")
        options = {**DEFAULTS, **given}
        for name in CHECKS:
            setattr(self, name, options[name])
        return {name: options[name] for name in BY_GROUP}
