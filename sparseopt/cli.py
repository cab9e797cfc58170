"""The command `sparseopt`."""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np

from . import __version__, config, datasets
from .models import GloVe, glove
from .optimizers import OPTIMIZERS


def main(arguments=None):
    """Run the command with these arguments (default: those of the process); returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (OSError, ValueError, TypeError, ImportError) as error:
        print(f"sparseopt: {error}", file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser(prog="sparseopt", description="Train embeddings with sparse optimizers.")
    parser.add_argument("--version", action="version", version=f"sparseopt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config_command = commands.add_parser("config", help="show the instruction set, threads, build flags and versions")
    config_command.set_defaults(run=lambda options: config.show_config())

    train = commands.add_parser("train", help="train a model").add_subparsers(required=True, metavar="MODEL")
    defaults = GloVe()
    words = train.add_parser(
        "words", help="word vectors (GloVe) from plain text", formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description="Train word vectors on the co-occurrences of words in text files, or, without a file, in the documentation "
                    "that every Python carries. Writes vectors.txt (word2vec's text format), checkpoint.safetensors (for "
                    "--resume) and loss.png into the output folder.")
    words.set_defaults(run=_train_words)
    words.add_argument("files", nargs="*", metavar="FILE", help="plain text, UTF-8 (default: Python's documentation)")
    words.add_argument("--output", type=Path, default=Path("words"), metavar="DIR", help="folder for what is written")
    words.add_argument("--optimizer", default=defaults.optimizer, metavar="NAME", help=f"one of {', '.join(OPTIMIZERS)}")
    words.add_argument("--lr", type=float, metavar="RATE", help="learning rate (default: the model's for the optimizer)")
    words.add_argument("--dim", type=_count, default=defaults.dim, metavar="N", help="length of a vector")
    words.add_argument("--epochs", type=_count, default=defaults.epochs, metavar="N", help="passes over all pairs, in all")
    words.add_argument("--window", type=_count, default=10, metavar="N", help="largest distance of a pair")
    words.add_argument("--min-count", type=_count, default=5, metavar="N", help="leave out words seen less often")
    words.add_argument("--batch-size", type=_count, default=defaults.batch_size, metavar="N", help="pairs a step")
    words.add_argument("--x-max", type=float, default=defaults.x_max, metavar="X", help="count from which pairs weigh fully")
    words.add_argument("--seed", type=int, default=defaults.random_state, metavar="N", help="of starting values and order")
    words.add_argument("--threads", type=_count, metavar="N", help="threads of a step (default: all cores)")
    words.add_argument("--neighbours", metavar="WORD,WORD", help="whose neighbours to print (default: frequent long words)")
    words.add_argument("--resume", type=Path, metavar="CHECKPOINT",
                       help="go on from here, on the same text, up to --epochs; the settings of the model are the checkpoint's")
    return parser


def _count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: must be at least 1")
    return value


def _train_words(options):
    console = _console()
    if options.threads:
        config.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)

    with console.status("reading"):
        texts = datasets.read_texts(options.files) if options.files else datasets.python_documentation()
        tokens = [token for text in texts for token in glove.tokenize(text)]
        words, _ = glove.vocabulary(tokens, options.min_count)
    source = ", ".join(Path(name).name for name in options.files) if options.files else "Python's documentation"
    console.print(f"{source}: {len(tokens):,} words, {len(words):,} different ones seen {options.min_count} times or more",
                  highlight=False)
    if len(words) < 2:
        raise ValueError(f"{source}: only {len(words)} words are seen {options.min_count} times or more; --min-count sets that")
    with console.status("counting pairs"):
        X = glove.cooccurrence(tokens, words, options.window)
    console.print(f"{X.nnz:,} pairs within {options.window} words of each other", highlight=False)

    model = _model(options, words)
    _fit(console, model, X, words, options)
    _write_vectors(options.output / "vectors.txt", words, model.vectors_)
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


def _model(options, words):
    if not options.resume:
        return GloVe(dim=options.dim, optimizer=options.optimizer, lr=options.lr, epochs=options.epochs,
                     batch_size=options.batch_size, x_max=options.x_max, random_state=options.seed)
    model = GloVe.load(options.resume)
    if model.optimizer_.metadata.get("words") != words:
        raise ValueError(f"{options.resume}: trained on other words than this text has; resume on the same text, "
                         "--min-count included")
    model.epochs = options.epochs
    return model


def _fit(console, model, X, words, options):
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("loss {task.fields[loss]:.4f}"),
               TextColumn("{task.fields[speed]:,.0f} pairs/s"), TimeRemainingColumn())
    first = len(getattr(model, "loss_curve_", []))
    begin = time.perf_counter()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=X.nnz * model.epochs, loss=float("nan"), speed=0.0)

        def show(epoch, done, loss):
            seconds = time.perf_counter() - begin
            progress.update(bar, completed=epoch * X.nnz + done, loss=loss, description=f"epoch {epoch + 1}/{model.epochs}",
                            speed=((epoch - first) * X.nnz + done) / seconds)

        for _ in range(first, model.epochs):
            model.partial_fit(X, show)
            model.save(options.output / "checkpoint.safetensors", words)
    seconds = time.perf_counter() - begin
    pairs = (len(model.loss_curve_) - first) * X.nnz
    if not pairs:
        model.save(options.output / "checkpoint.safetensors", words)
        console.print(f"{first} epochs are done already; --epochs says how many in all", highlight=False)
        return
    console.print(f"{len(model.loss_curve_)} epochs, loss {model.loss_curve_[0]:.4f} → {model.loss_curve_[-1]:.4f}, "
                  f"{seconds:.0f} s, {pairs / seconds:,.0f} pairs/s", highlight=False)


def _write_vectors(path, words, vectors):
    """word2vec's text format: a line with the two sizes, then a line a word."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{len(words)} {vectors.shape[1]}\n")
        for word, vector in zip(words, vectors, strict=True):
            file.write(f"{word} {' '.join(f'{x:.6g}' for x in vector)}\n")


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
