"""The command `sparseopt`."""

import argparse
import importlib.util
import itertools
import os
import sys
import time
from pathlib import Path

import numpy as np

from . import __version__, benchmark, config, datasets, kernels, peers
from .models import GloVe, glove
from .models.words import tokenize, vocabulary, write_vectors
from .optimizers import OPTIMIZERS

# What a resumed model already has: name -> type, default, help.
_MODEL = GloVe()
_SETTINGS = {
    "optimizer": (str, _MODEL.optimizer, f"one of {', '.join(OPTIMIZERS)}"),
    "lr": (float, "the model's for the optimizer", "learning rate"),
    "dim": (int, _MODEL.dim, "length of a vector"),
    "window": (int, 10, "largest distance of a pair"),
    "batch_size": (int, _MODEL.batch_size, "pairs a step"),
    "x_max": (float, _MODEL.x_max, "count from which on pairs weigh fully"),
    "missed": (str, _MODEL.missed, "what steps without a word do to it: skip, replay or dense"),
    "random_state": (int, _MODEL.random_state, "seed of starting values and order"),
}


def _flag(name):
    return "--" + name.replace("_", "-")


def main(arguments=None):
    """Run the command with these arguments (default: those of the process); returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        print(f"sparseopt: {error}", file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser(prog="sparseopt", description="Train embeddings with sparse optimizers.")
    parser.add_argument("--version", action="version", version=f"sparseopt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config_command = commands.add_parser("config", help="show the instruction set, threads, build flags and versions")
    config_command.set_defaults(run=lambda options: config.show_config())

    train = commands.add_parser("train", help="train a model").add_subparsers(required=True, metavar="MODEL")
    words = train.add_parser(
        "words", help="word vectors (GloVe) from plain text",
        description="Train word vectors on the co-occurrences of words in text files, or, without a file, in the documentation "
                    "that every Python carries. Writes vectors.txt (word2vec's text format), checkpoint.safetensors (for "
                    "--resume) and loss.png into the output folder.")
    words.set_defaults(run=_train_words)
    words.add_argument("files", nargs="*", metavar="FILE", help="plain text, UTF-8 (default: Python's documentation)")
    words.add_argument("--output", type=Path, default=Path("words"), metavar="DIR", help="folder to write to (default: words)")
    words.add_argument("--epochs", type=_count, default=_MODEL.epochs, metavar="N",
                       help=f"passes over all pairs, in all (default: {_MODEL.epochs})")
    words.add_argument("--min-count", type=_count, default=5, metavar="N", help="leave out words seen less often (default: 5)")
    words.add_argument("--threads", type=_count, metavar="N", help="threads of a step (default: all cores)")
    words.add_argument("--neighbours", metavar="WORD,WORD", help="whose neighbours to print (default: some frequent words)")
    words.add_argument("--resume", type=Path, metavar="CHECKPOINT",
                       help="go on from here, on the same text, up to --epochs; the settings below are the checkpoint's")
    for name, (convert, default, text) in _SETTINGS.items():
        words.add_argument(_flag(name), type=convert, metavar={str: "NAME", int: "N", float: "X"}[convert],
                           help=f"{text} (default: {default})")
    _add_bench(commands)
    return parser


def _add_bench(commands):
    bench = commands.add_parser(
        "bench", help="how fast a step is: beside the touch limit and beside other libraries",
        description="Measure steps on random gradients, a line for every combination of the values given (lists: 1,2). A line "
                    "has the time, GB/s, the share of the touch limit (a compiled loop that only adds the gradient to the "
                    "arrays which the rule writes), what the check for NaN adds, the memory that a step takes, and how many "
                    "times as long others take for the same. All take turns on the same batches, of which there are enough "
                    "that no cache holds them (at most 4,096). The time is without the check, which is on by default; forms of "
                    "cells and products have no limit, and no peers but our own step on the same gradient as rows, or as the "
                    "product.")
    bench.set_defaults(run=_bench)
    default = benchmark.Case()
    axes = {
        "rule": (str, "rules: the optimizers' names, or all"), "dim": (int, "lengths of a row"),
        "table": (int, "rows of the table"),
        "rows": (int, "rows drawn a step; matmul: samples of 100 rows; dense: the rows that are not zero"),
        "zipf": (float, "exponent of Zipf's law for the draws; 0: every row once"), "order": (str, "rising or random"),
        "form": (str, f"of the gradient: {', '.join(benchmark.FORMS)}"), "dtype": (str, "float32 or float64"),
        "threads": (int, "threads of a step"), "isa": (str, f"instruction sets: {', '.join(kernels.available)}"),
        "missed": (str, "skip, or replay: after 3,000 steps; then also the same step under skip, and catch_up() of all rows"),
    }
    for name, (convert, text) in axes.items():
        bench.add_argument(_flag(name), type=_list_of(convert), default=[getattr(default, name)],
                           metavar={str: "NAME,", int: "N,", float: "X,"}[convert],
                           help=f"{text} (default: {getattr(default, name)})")
    bench.add_argument("--peers", type=_list_of(str), default=[*peers.PEERS],
                       metavar="NAME,", help=f"who else runs, if installed: {', '.join(peers.PEERS)}; or none (default: all)")
    bench.add_argument("--repeats", type=_count, default=5, metavar="N", help="turns of everybody (default: 5)")
    bench.add_argument("--picture", type=Path, metavar="FILE", help="draw it, with matplotlib")


def _list_of(convert):
    def parse(text):
        return [convert(part) for part in text.split(",")]
    parse.__name__ = f"list of {convert.__name__}"
    return parse


def _bench(options):
    if options.rule == ["all"]:
        options.rule = list(OPTIMIZERS)
    wanted = [] if options.peers == ["none"] else options.peers
    unknown = [name for name in wanted if name not in peers.PEERS]
    if unknown:
        raise ValueError(f"--peers names {unknown[0]!r}; there are {', '.join(peers.PEERS)}, and none")
    if options.picture:
        _check_picture(options.picture)
    cases = [benchmark.Case(**dict(zip(benchmark.AXES, values, strict=True)))
             for values in itertools.product(*(getattr(options, axis) for axis in benchmark.AXES))]
    absent = [name for name in wanted if name not in peers.installed()]
    varying = [axis for axis in benchmark.AXES if len(getattr(options, axis)) > 1]
    fixed = ", ".join(f"{axis} {getattr(cases[0], axis)}" for axis in benchmark.AXES
                      if axis not in (*varying, "rule") and (axis, getattr(cases[0], axis)) != ("missed", "skip"))
    print(f"{fixed}; {os.cpu_count()} cores" + (f"; not installed: {', '.join(absent)}" if absent else ""))
    results = benchmark.report((benchmark.measure(case, wanted, options.repeats) for case in cases), varying)
    if options.picture:
        benchmark.draw(results, options.picture)
        print(f"drawn: {options.picture}")
    return 0


def _check_picture(path):
    if path.suffix not in (".png", ".svg", ".pdf") or not path.parent.is_dir():
        raise ValueError(f"--picture is {path}; it must be a file name in a folder that exists, ending in .png, .svg or .pdf")
    if not importlib.util.find_spec("matplotlib"):
        raise ImportError("pictures need the package matplotlib: pip install 'sparseopt[cli]'")


def _count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: must be at least 1")
    return value


def _train_words(options):
    console = _console()
    model, window = _model(options)
    if options.threads:
        config.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)

    with console.status("reading"):
        texts = datasets.read_texts(options.files) if options.files else datasets.python_documentation()
        tokens = [token for text in texts for token in tokenize(text)]
        words, _ = vocabulary(tokens, options.min_count)
    source = ", ".join(Path(name).name for name in options.files) if options.files else "Python's documentation"
    console.print(f"{source}: {len(tokens):,} words, {len(words):,} different ones seen {options.min_count} times or more",
                  highlight=False)
    if len(words) < 2:
        raise ValueError(f"{source}: only {len(words)} words are seen {options.min_count} times or more; --min-count sets that")
    with console.status("counting pairs"):
        X = glove.cooccurrence(tokens, words, window)
    console.print(f"{X.nnz:,} pairs within {window} words of each other", highlight=False)
    if options.resume and model.optimizer_.metadata["words"] != words:
        raise ValueError(f"{options.resume}: trained on other words than this text has; resume on the same text, "
                         "--min-count included")
    _fit(console, model, X, options.output / "checkpoint.safetensors", words=words, window=window)
    write_vectors(options.output / "vectors.txt", words, model.vectors_)
    written = ["vectors.txt", "checkpoint.safetensors"]
    if importlib.util.find_spec("matplotlib"):
        _draw_loss(options.output / "loss.png", model)
        written.append("loss.png")
    _print_neighbours(console, model, words, options.neighbours)
    console.print(f"written to {options.output}: {', '.join(written)}", highlight=False)
    return 0


def _console():
    try:
        from rich.console import Console
    except ImportError:
        raise ImportError("the command needs the package rich: pip install 'sparseopt[cli]'") from None
    return Console()


def _model(options):
    """The model to train and the window to count pairs in: as the options say, or as the checkpoint to resume from does."""
    given = {name: getattr(options, name) for name in _SETTINGS if getattr(options, name) is not None}
    if not options.resume:
        window = given.pop("window", _SETTINGS["window"][1])
        if window < 1:
            raise ValueError(f"--window is {window}; it must be at least 1")
        return GloVe(epochs=options.epochs, **given), window
    if given:
        raise ValueError(f"{_flag(next(iter(given)))} does not go with --resume: the checkpoint says it")
    model = GloVe.load(options.resume)
    if not {"words", "window"} <= set(model.optimizer_.metadata):
        raise ValueError(f"{options.resume}: a checkpoint of GloVe, but not of this command")
    model.epochs = options.epochs
    return model, model.optimizer_.metadata["window"]


def _fit(console, model, X, path, **metadata):
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("loss {task.fields[loss]:.4f}"),
               TextColumn("{task.fields[speed]:,.0f} pairs/s"), TimeRemainingColumn())
    first = len(getattr(model, "loss_curve_", []))
    begin = time.perf_counter()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=X.nnz * model.epochs, loss=float("nan"), speed=0.0)

        def show(report):
            seconds = time.perf_counter() - begin
            progress.update(bar, completed=report.epoch * X.nnz + report.done, loss=report.loss,
                            description=f"epoch {report.epoch + 1}/{model.epochs}",
                            speed=((report.epoch - first) * X.nnz + report.done) / seconds)

        for _ in range(first, model.epochs):
            model.partial_fit(X, show)
            model.save(path, **metadata)
    seconds = time.perf_counter() - begin
    pairs = (len(model.loss_curve_) - first) * X.nnz
    if not pairs:
        model.save(path, **metadata)
        console.print(f"{first} epochs are done already; --epochs says how many in all", highlight=False)
        return
    console.print(f"{len(model.loss_curve_)} epochs, loss {model.loss_curve_[0]:.4f} → {model.loss_curve_[-1]:.4f}, "
                  f"{seconds:.0f} s, {pairs / seconds:,.0f} pairs/s", highlight=False)


def _draw_loss(path, model):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(np.arange(1, len(model.loss_curve_) + 1), model.loss_curve_, marker=".")
    axes.set(xlabel="epoch", ylabel="mean weighted squared error", ylim=(0, None),
             title=f"GloVe, {type(model.optimizer_).__name__}, {model.vectors_.shape[1]} dimensions")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _print_neighbours(console, model, words, wanted):
    from rich.table import Table

    if wanted is None:
        queries = [word for word in words[200:] if len(word) >= 5][:8] or words[:8]
    else:
        queries = [word.strip().lower() for word in wanted.split(",") if word.strip()]
    table = Table("word", "nearest")
    for word in queries:
        if word in words:
            rows, cosines = model.nearest(words.index(word), 6)
            table.add_row(word, ", ".join(f"{words[row]} {cosine:.2f}" for row, cosine in zip(rows, cosines, strict=True)))
        else:
            table.add_row(word, "(not among the words)")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
