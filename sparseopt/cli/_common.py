"""The common parts of the commands: errors of usage, kinds of options, and options for the parameters of a model."""

import argparse
import importlib.util
import math
import os
from pathlib import Path

from ..optimizers import OPTIMIZERS

OPTIMIZER_NAMES = (*OPTIMIZERS, "momentum", "nesterov")

# Help for parameters that have the same meaning in all models.
HELP = {
    "optimizer": f"one of {', '.join(OPTIMIZER_NAMES)}", "lr": "learning rate",
    "dim": "length of a vector", "epochs": "number of passes over the data in total", "batch_size": "samples per step",
    "missed": "rows without a gradient in a step: skip leaves them, replay treats them as the dense optimizer does",
    "random_state": "random seed",
}


class UsageError(ValueError):
    """An option or argument is wrong. The message names the option, and the command ends with status 2."""


# Kinds of options. argparse prints their errors together with the name of the option, and ends with status 2.

def _number(text, convert, holds, allowed):
    try:
        value = convert(text)
    except ValueError:
        value = math.nan
    if not holds(value):
        raise argparse.ArgumentTypeError(f"{text} is not allowed; the value must be {allowed}")
    return value


def count(text):
    return _number(text, int, lambda value: value >= 1, "an integer of at least 1")


def seed(text):
    return _number(text, int, lambda value: value >= 0, "an integer of at least 0")


def not_negative(text):
    return _number(text, float, lambda value: 0 <= value < math.inf, "a finite number of at least 0")


def positive(text):
    return _number(text, float, lambda value: 0 < value < math.inf, "a finite number above 0")


def share(text):
    return _number(text, float, lambda value: 0 < value < 1, "above 0 and below 1")


def optimizer(text):
    if text.lower() not in map(str.lower, OPTIMIZER_NAMES):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; the value must be one of "
                                         f"{', '.join(OPTIMIZER_NAMES)}")
    return text


def existing_file(text):
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: there is no such file")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; it must be a file")
    if not os.access(path, os.R_OK):
        raise argparse.ArgumentTypeError(f"{text}: the file must be readable")
    return path


def list_of(convert):
    def parse(text):
        return [convert(part) for part in text.split(",")]
    parse.__name__ = f"list of {convert.__name__}"
    return parse


def flag(name):
    return "--" + name.replace("_", "-")


# How an option for a parameter of a model is read. Other parameters have the type of their default.
_KINDS = {
    "optimizer": optimizer, "random_state": seed, "x_max": positive, "alpha": positive,
    **dict.fromkeys(["dim", "epochs", "batch_size", "window", "negative", "min_count"], count),
    **dict.fromkeys(["lr", "weight_decay", "regularization", "sample", "l1", "l2", "init_scale", "popularity",
                     "unobserved_weight"],
                    not_negative),
}
_CHOICES = {"missed": ["skip", "replay"], "loss": ["softmax", "square", "bpr", "warp"]}


def add_settings(parser, models, **more):
    """Add an option for each parameter of these models with help in `more` or HELP; None in `more` means no option."""
    says = HELP | more
    for name in dict.fromkeys(name for model in models for name in model.get_params()):
        having = [model for model in models if name in model.get_params()]
        default = getattr(having[0], name)
        if says.get(name):
            kind = _KINDS.get(name, str if default is None else type(default))
            owner, defaults = "", " or ".join(dict.fromkeys(_said(getattr(model, name)) for model in having))
            if default is None:
                defaults = "depends on the " + ("optimizer" if name == "lr" else "loss")
            elif len(models) > 1 and len(having) == 1:
                owner = f" of {type(having[0]).__name__}"
            metavar = "N" if kind in (count, seed) else "NAME" if kind in (optimizer, str) else "X"
            parser.add_argument(flag(name), type=kind, choices=_CHOICES.get(name),
                                metavar=None if name in _CHOICES else metavar,
                                help=f"{says[name]} (default{owner}: {defaults})")


def _said(default):
    return "depends on the data" if default is None else str(default)


def given(options, model, models=()):
    """The model's parameters that the options set. A parameter that only another of the models has is an error."""
    for other in models:
        for name in other().get_params():
            if name not in model.get_params() and getattr(options, name, None) is not None:
                raise UsageError(f"{flag(name)} does not go with --model {options.model}")
    return {name: getattr(options, name) for name in model.get_params() if getattr(options, name, None) is not None}


def check_folder(option, folder):
    """Raise UsageError if a folder that an option names cannot be written to, or cannot be made."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise UsageError(f"{option}: {there} is no folder; files must be written to a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{option}: the folder {there} must be writable")


def check_picture(path):
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--picture is {path}; its name must end in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise UsageError(f"--picture is {path}; its folder must exist")
    check_folder("--picture", path.parent)
    if not importlib.util.find_spec("matplotlib"):
        raise UsageError("--picture: pictures need the package matplotlib: pip install 'sparseopt[cli]'")
