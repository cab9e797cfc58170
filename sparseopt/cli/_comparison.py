"""Compare optimizers and learning rates: train a model with each setting, and measure its quality on held-out data."""

import itertools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .._checks import NonfiniteError
from .._files import save_picture


class Task(NamedTuple):
    """A model, its data and its measure of quality."""

    title: str
    quality: str            # name of the measure
    higher: bool            # True if a higher quality is better
    make: Callable          # (optimizer, lr) -> a model
    train: Callable         # (model) -> None: trains one more epoch
    measure: Callable       # (model) -> the quality on held-out data
    epochs: int


class Trial(NamedTuple):
    """One training. After each epoch the lists get the number of steps so far, the seconds so far, and the quality."""

    optimizer: str
    lr: float
    steps: list
    seconds: list
    quality: list
    failed: str             # why the training ended early, or an empty text

    def best(self, task):
        """The best (quality, epoch); (NaN, 0) if the quality was never finite."""
        sign = -1 if task.higher else 1
        finite = [(sign * q, epoch) for epoch, q in enumerate(self.quality, 1) if math.isfinite(q)]
        quality, epoch = min(finite, default=(math.nan, 0))
        return sign * quality, epoch


def grid(optimizers, rates):
    """Each optimizer with each learning rate."""
    return list(itertools.product(optimizers, rates))


def draws(optimizers, rates, trials, seed=0):
    """Optimizers in turn, with random learning rates between the least and the largest given rate.

    The logarithms of the rates have a uniform distribution.
    """
    rng = np.random.default_rng(seed)
    ends = math.log(min(rates)), math.log(max(rates))
    return [(optimizers[i % len(optimizers)], float(f"{math.exp(rng.uniform(*ends)):.3g}")) for i in range(trials)]


def with_default(task, settings):
    """These settings after the default setting of the model, which stands there once."""
    model = type(task.make("SGD", None))()
    default = model.optimizer.lower(), model._default_rate(model.optimizer)
    return [default, *((optimizer, lr) for optimizer, lr in settings if (optimizer.lower(), lr) != default)]


def run(task, settings):
    """Train with each setting (optimizer, lr), and yield a Trial for each."""
    for optimizer, lr in settings:
        trial = Trial(optimizer, lr, [], [], [], "")
        model, seconds = task.make(optimizer, lr), 0.0
        for _ in range(task.epochs):
            begin = time.perf_counter()
            try:
                with np.errstate(all="ignore"):
                    task.train(model)
                    seconds += time.perf_counter() - begin
                    quality = float(task.measure(model))
            except NonfiniteError:
                trial = trial._replace(failed="diverged")
                break
            trial.steps.append(model.optimizer_.steps)
            trial.seconds.append(seconds)
            trial.quality.append(quality)
            if not math.isfinite(quality):
                trial = trial._replace(failed="diverged")
                break
        yield trial


def ranked(task, trials):
    """The trials from best to worst; trials whose quality was never finite come last."""
    sign = -1 if task.higher else 1
    return sorted(trials, key=lambda trial: (math.isnan(trial.best(task)[0]), sign * trial.best(task)[0]))


def draw(task, trials, path):
    """Draw the quality over steps and over seconds. The best rate of each optimizer has a strong line."""
    from matplotlib.figure import Figure

    trials = [trial for trial in ranked(task, trials) if any(map(math.isfinite, trial.quality))]
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colors = {}
    for trial in trials:
        first = trial.optimizer not in colors
        color = colors.setdefault(trial.optimizer, f"C{len(colors)}")
        style = {"marker": "o", "markersize": 4, "zorder": 3} if first else {"alpha": 0.3, "linewidth": 1}
        for axes, x in zip(panels, (trial.steps, trial.seconds), strict=True):
            axes.plot(x, trial.quality, color=color,
                      label=f"{trial.optimizer} {trial.lr:g}" if first else None, **style)
    best = [quality for trial in trials for quality in trial.quality if math.isfinite(quality)]
    if best:                    # limits, since one trial that diverges would hide all trials that converge
        low, high = np.percentile(best, (10, 100) if task.higher else (0, 90))
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
        panels[0].set_ylim(low - margin, high + margin)
    panels[0].set(xlabel="steps", ylabel=task.quality)
    panels[1].set(xlabel="seconds")
    panels[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    for axes in panels:
        axes.grid(alpha=0.3)
    figure.suptitle(task.title, fontsize=10)
    save_picture(figure, path)
