"""The common parts of the commands: options for a model's parameters, the progress bar, pictures of the loss."""

import argparse
import importlib.util
import time

import numpy as np

from .._files import save_picture
from .._text import escaped
from ..optimizers import OPTIMIZERS

# Help for parameters that have the same meaning in all models.
HELP = {
    "optimizer": f"one of {', '.join(OPTIMIZERS)}, momentum, nesterov", "lr": "learning rate",
    "dim": "length of a vector", "epochs": "number of passes over the data in total", "batch_size": "samples per step",
    "missed": "rows without a gradient in a step: skip leaves them, replay treats them as the dense optimizer does",
    "random_state": "random seed",
}


def flag(name):
    return "--" + name.replace("_", "-")


def count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not allowed; the number must be at least 1")
    return value


def list_of(convert):
    def parse(text):
        return [convert(part) for part in text.split(",")]
    parse.__name__ = f"list of {convert.__name__}"
    return parse


def add_settings(parser, models, **more):
    """Add an option for each parameter of these models with help in `more` or HELP; None in `more` means no option."""
    says = HELP | more
    for name in dict.fromkeys(name for model in models for name in model.get_params()):
        having = [model for model in models if name in model.get_params()]
        default = getattr(having[0], name)
        if says.get(name):
            convert = float if default is None else type(default)
            owner, defaults = "", " or ".join(dict.fromkeys(str(getattr(model, name)) for model in having))
            if default is None:
                defaults = "depends on the " + ("optimizer" if name == "lr" else "loss")
            elif len(models) > 1 and len(having) == 1:
                owner = f" of {type(having[0]).__name__}"
            kind = count if name in ("epochs", "min_count") else convert
            parser.add_argument(flag(name), type=kind, metavar={str: "NAME", int: "N", float: "X"}[convert],
                                help=f"{says[name]} (default{owner}: {defaults})")


def given(options, model, models=()):
    """The model's parameters that the options set. A parameter that only another of the models has is an error."""
    for other in models:
        for name in other().get_params():
            if name not in model.get_params() and getattr(options, name, None) is not None:
                raise ValueError(f"{flag(name)} does not go with --model {options.model}")
    return {name: getattr(options, name) for name in model.get_params() if getattr(options, name, None) is not None}


def console():
    try:
        from rich.console import Console
    except ImportError:
        raise ImportError("the command needs the package rich: pip install 'sparseopt[cli]'") from None

    class Escaping(Console):
        """Shows each text literally: brackets and colons are no markup, and control characters are escaped."""

        def render_str(self, text, **how):
            return super().render_str(escaped(text), **how)

    return Escaping(markup=False, emoji=False)


def train(console, model, partial_fit, unit, path, **metadata):
    """Train a model up to its number of epochs, with a progress bar, and save the model to `path` after each epoch.

    `partial_fit` trains one epoch and takes a callback. `unit` is the name of the samples.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("loss {task.fields[loss]:.4f}"),
               TextColumn("{task.fields[speed]:,.0f} " + unit + "/s"), TimeRemainingColumn())
    first = len(getattr(model, "loss_curve_", []))
    begin, done = time.perf_counter(), 0
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=None, loss=float("nan"), speed=0.0)

        def show(report):
            progress.update(bar, total=(report.total or report.done) * model.epochs, loss=report.loss,
                            completed=report.epoch * (report.total or report.done) + report.done,
                            description=f"epoch {report.epoch + 1}/{model.epochs}",
                            speed=(done + report.done) / (time.perf_counter() - begin))
            show.done = report.done

        for _ in range(first, model.epochs):
            show.done = 0
            partial_fit(show)
            done += show.done
            model.save(path, **metadata)
    seconds = time.perf_counter() - begin
    if len(model.loss_curve_) == first:
        model.save(path, **metadata)
        console.print(f"{first} epochs are done already; --epochs is the number of epochs in total", highlight=False)
        return
    console.print(f"{len(model.loss_curve_)} epochs, loss {model.loss_curve_[0]:.4f} → {model.loss_curve_[-1]:.4f}, "
                  f"{seconds:.0f} s, {done / seconds:,.0f} {unit}/s", highlight=False)


def draw_loss(folder, model, ylabel, xlabel="epoch"):
    """Draw the loss over the epochs, if matplotlib is installed, and return the names of the written files."""
    if not importlib.util.find_spec("matplotlib"):
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(np.arange(1, len(model.loss_curve_) + 1), model.loss_curve_, marker=".")
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None),
             title=f"{type(model).__name__}, {type(model.optimizer_).__name__}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    save_picture(figure, folder / "loss.png")
    return ["loss.png"]


def check_picture(path):
    if path.suffix not in (".png", ".svg", ".pdf") or not path.parent.is_dir():
        raise ValueError(f"--picture is {path}; it must be a file name in a folder that exists, and end in .png, .svg "
                         "or .pdf")
    if not importlib.util.find_spec("matplotlib"):
        raise ImportError("pictures need the package matplotlib: pip install 'sparseopt[cli]'")
