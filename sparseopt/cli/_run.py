"""A training by a command: the folder that it writes to, its progress, its checkpoints, and the summary of the run."""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from .._checks import NonfiniteError
from .._files import replacing, save_picture
from .._text import escaped
from .._version import __version__
from ..models import Model, Progress
from ._common import UsageError, check_folder, existing_file
from ._output import Output, terminal
from ._places import as_arguments

CHECKPOINT, SUMMARY, PICTURE = "checkpoint.safetensors", "run.json", "loss.png"
_DIVERGED = 1000        # a loss so many times the first one, and above this number, is a diverged training.
_LINES = 30             # seconds between lines of progress where there is no terminal.


def add_run(parser: argparse.ArgumentParser, default: str, resume: str) -> None:
    """Add the options of the output folder; `resume` is the help of --resume."""
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help=f"folder to write to (default: {default}; with --resume, the folder of the checkpoint)")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of another run in the folder")
    parser.add_argument("--resume", type=existing_file, metavar="CHECKPOINT", help=resume)


class Run:
    """The output folder of a training, and what happened in the training.

    Parameters
    ----------
    options : Namespace
        With the options of `add_run`.
    default : str
        The name of the model in the command, and of the folder if no option names one.

    Raises
    ------
    UsageError
        If the folder cannot be written to, or has the files of another run.
    """

    def __init__(self, options: argparse.Namespace, default: str) -> None:
        resume = options.resume
        self.folder = options.output or (resume.parent if resume else Path(default))
        self._command = options.command
        files = options.files if "files" in options else [options.file]
        self._resume = ["sparseopt", "train", default, *map(str, files), "--resume", str(self.folder / CHECKPOINT),
                        *(as_arguments(options) if "shards" in options else [])]
        self._ended = "running"
        self._begun = time.perf_counter()
        self.epochs: list[dict] = []
        self.written: list[str] = []
        self.tables: dict[str, Any] | None = None       # where the tables are; None for memory
        check_folder("--output", self.folder)
        own = resume and self.folder.resolve() == resume.parent.resolve() and (
            resume.resolve() == (self.folder / CHECKPOINT).resolve() or not (self.folder / CHECKPOINT).exists())
        there = [name for name in (CHECKPOINT, SUMMARY) if (self.folder / name).exists()]
        if there and not own and not options.overwrite:
            raise UsageError(f"--output: {self.folder} has the files of another run ({', '.join(there)}); choose "
                             "another folder, or replace the files with --overwrite")
        self._foreign = [] if own else [*there, PICTURE]
        self.earlier = _epochs_of(resume.parent / SUMMARY) if resume else []

    def path(self, name: str) -> Path:
        """Make the folder, and return the path of a file in the folder. The summary at the end names the file.

        The first call removes the files of another run, so that they are not taken for files of this one.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        while self._foreign:
            (self.folder / self._foreign.pop()).unlink(missing_ok=True)
        if name not in self.written:
            self.written.append(name)
        return self.folder / name

    def train(self, out: Output, model: Model, partial_fit: Callable[..., Any], unit: str,
              measure: Callable[[], dict[str, float]] | None = None, **metadata) -> None:
        """Train a model up to its number of epochs, and save the model after each epoch.

        Parameters
        ----------
        out : Output
        model : Model
        partial_fit : callable
            Trains one epoch with the callback that it gets.
        unit : str
            The name of the samples.
        measure : None or callable
            Returns measures on held-out data; called after each epoch.
        **metadata
            As in `Model.save`.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C. The model is saved as it is then.
        ValueError
            If the training diverges. The checkpoint of the last complete epoch stays.
        """
        first = len(getattr(model, "loss_curve_", []))
        path = self.path(CHECKPOINT)
        self.epochs = (self.earlier[:first] if len(self.earlier) >= first else
                       [{"epoch": i + 1, "loss": loss} for i, loss in enumerate(getattr(model, "loss_curve_", []))])
        if first >= model._n_epochs:
            model.save(path, **metadata)
            out.say(f"{first} epochs are done already; --epochs is the number of epochs in total")
            return
        begin, done = time.perf_counter(), 0
        try:
            with Bar(unit, model._n_epochs) as bar:
                watch = Watch(bar, model)
                for epoch in range(first, model._n_epochs):
                    started = time.perf_counter()
                    with naming_the_rate(model, epoch):
                        partial_fit(watch)
                        watch.check(model.loss_curve_[-1], epoch)
                    done += watch.done
                    self.epochs.append({"epoch": epoch + 1, "loss": model.loss_curve_[-1],
                                        "seconds": time.perf_counter() - started, **(measure() if measure else {})})
                    model.save(path, **metadata)
                    self.write(model)
        except KeyboardInterrupt:
            epoch = len(getattr(model, "loss_curve_", [])) + 1
            self.keep(out, model, f"epoch {epoch} begins anew", **metadata)
            raise
        except ValueError:
            self.fail(model)
            raise
        seconds = time.perf_counter() - begin
        epochs = len(model.loss_curve_)
        out.say(f"{epochs} epoch{'s' if epochs > 1 else ''}, loss {model.loss_curve_[0]:.4f} → "
                f"{model.loss_curve_[-1]:.4f}, {seconds:.0f} s, {done / seconds:,.0f} {unit}/s")

    def keep(self, out: Output, model: Model, resumed: str, **metadata) -> None:
        """Save an interrupted training, and say how to go on. `resumed` says how a resumed run begins."""
        self._ended = "interrupted"
        try:
            model.save(self.path(CHECKPOINT), **metadata)
        except (ValueError, AttributeError):            # no step was taken yet
            out.say("interrupted before the first step; nothing is saved")
            return
        self.write(model)
        out.say(f"interrupted; the work so far is saved, and {resumed} with: {shlex.join(self._resume)}")

    def fail(self, model: Model) -> None:
        """Write into the summary that the training failed."""
        self._ended = "failed"
        self.write(model)

    def write(self, model: Model, **more) -> None:
        """Write the summary of the run so far."""
        settings = model._settings()
        if "tables" in settings:
            settings["tables"] = self.tables
        summary = {
            "command": self._command, "ended": self._ended, "model": type(model).__name__,
            "settings": settings, **more, "epochs": self.epochs,
            "seconds": time.perf_counter() - self._begun,
            "versions": {"sparseopt": __version__, "python": platform.python_version(), "numpy": np.__version__,
                         "scipy": scipy.__version__},
        }
        with replacing(self.path(SUMMARY)) as file:
            # The name of a file may have bytes that are no UTF-8; JSON has escapes for these.
            file.write(json.dumps(_finite(summary), indent=1, ensure_ascii=False).encode(errors="backslashreplace"))

    def finish(self, out: Output, model: Model, ylabel: str, xlabel: str = "epoch", data: dict | None = None,
               quality: dict | None = None) -> None:
        """Write the last summary and a picture of the loss, and say what was written.

        `data` describes the data, and `quality` has the measures of the trained model.
        """
        self._ended = "finished"
        self.write(model, data=data or {}, quality=quality or {})
        if importlib.util.find_spec("matplotlib"):
            _draw_loss(self.path(PICTURE), model, xlabel, ylabel)
        out.end()
        out.say(f"written to {self.folder}: {', '.join(self.written)}")


class Watch:
    """A callback of a model that shows how far training is, and raises ValueError if the loss diverges."""

    def __init__(self, bar, model):
        self._bar, self._model = bar, model
        self._most = None
        self.done = 0

    def __call__(self, report: Progress) -> None:
        self.check(report.loss, report.epoch)
        self.done = report.done
        self._bar.show(report.epoch, report.done, report.total, report.loss)

    def check(self, loss: float, epoch: int) -> None:
        if self._most is None and math.isfinite(loss):
            self._most = _DIVERGED * max(loss, 1.0)
        if self._most is None or not loss <= self._most:
            raise ValueError(_diverged(self._model, epoch, f"the loss is {loss:.4g}"))


@contextlib.contextmanager
def naming_the_rate(model: Model, epoch: int) -> Iterator[None]:
    """Turn the error that a gradient is not finite into one that says that the training diverged."""
    try:
        with np.errstate(all="ignore"):         # NumPy's warnings come before the error that says more
            yield
    except NonfiniteError as error:
        why = str(error.__cause__ or error).partition("; it must be")[0]        # what follows is advice for programs
        raise ValueError(_diverged(model, epoch, why)) from error


def _diverged(model, epoch, why):
    """The message about a training that diverged."""
    optimizer = getattr(model, "optimizer_", None)
    rate = f"{optimizer.current_lr():.3g}" if optimizer is not None else str(model.lr)
    return (f"the training diverged in epoch {epoch + 1}: {why}. The learning rate is {rate}; give a lower one by "
            "--lr. The checkpoint of the last complete epoch, if there is one, stays")


class Bar:
    """The progress of a training, on stderr: a bar on a terminal with rich, else a line now and then."""

    def __init__(self, unit, epochs):
        self._unit, self._epochs = unit, epochs
        self._begin = self._said = time.perf_counter()
        self._before = self._epoch = self._last = 0
        self._progress = _progress(unit)

    def __enter__(self):
        if self._progress:
            self._progress.__enter__()
            self._task = self._progress.add_task("", total=None, loss=math.nan, speed=0.0)
        return self

    def __exit__(self, *error):
        if self._progress:
            self._progress.__exit__(*error)

    def show(self, epoch: int, done: int, total: int | None, loss: float) -> None:
        if epoch != self._epoch:
            self._before, self._epoch = self._before + self._last, epoch
        self._last = done
        now = time.perf_counter()
        speed = (self._before + done) / (now - self._begin)
        if self._progress:
            whole = (total or done) * self._epochs
            self._progress.update(self._task, total=whole, completed=epoch * (total or done) + done, loss=loss,
                                  speed=speed, description=f"epoch {epoch + 1}/{self._epochs}")
        elif now - self._said >= _LINES:
            self._said = now
            share = f", {done / total:.0%}" if total else ""
            print(f"epoch {epoch + 1}/{self._epochs}{share}: loss {loss:.4f}, {speed:,.0f} {self._unit}/s",
                  file=sys.stderr, flush=True)


def _progress(unit):
    console = terminal(sys.stderr)
    if console is None:
        return None
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("loss {task.fields[loss]:.4f}"),
                    TextColumn("{task.fields[speed]:,.0f} " + escaped(unit) + "/s"), TimeRemainingColumn(),
                    console=console, transient=True)


def _draw_loss(path, model, xlabel, ylabel):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(np.arange(1, len(model.loss_curve_) + 1), model.loss_curve_, marker=".")
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None),
             title=f"{type(model).__name__}, {type(model.optimizer_).__name__}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    save_picture(figure, path)


def _epochs_of(path):
    """The epochs in the summary of an earlier run; none if there is no such file."""
    try:
        epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return epochs if isinstance(epochs, list) else []


def _finite(value):
    """A JSON value in which numbers that are not finite are texts."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
