"""`sparseopt compare`."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import evaluation
from ..models import GloVe, ImplicitFactorization, LogisticRegression, MatrixFactorization, glove
from ..models.words import count_words, vocabulary
from . import _comparison, clicks, ratings, words
from ._common import HELP, UsageError, check_picture, count, existing_file, list_of, optimizer, positive, seed
from ._comparison import Task
from ._output import Output, add_format

_HELD_OUT = 0.05            # share of the pairs
_OPTIMIZERS = "sgd,momentum,nesterov,adagrad,adadelta,rmsprop,adam,adamax,ftrl"


def add(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="compare optimizers and learning rates on your data",
        description="Train a model with several optimizers and learning rates, each from the same start, and evaluate "
                    "each on held-out data. The command prints a line after each trial, then a table with the best "
                    "setting first, and the command that trains with the best setting. The model's default setting is "
                    "among the trials.")
    kinds = compare.add_subparsers(required=True, metavar="MODEL")
    for name, task, text in _TASKS:
        parser = kinds.add_parser(name, help=text, description=f"Compare optimizers for {text}.")
        parser.set_defaults(run=lambda options, name=name, task=task: _compare(options, name, task))
        if name == "words":
            words.add_reading(parser)
        else:
            parser.add_argument("files", nargs=1 if name == "ratings" else "+", type=existing_file, metavar="FILE",
                                help="files of `sparseopt train`")
        parser.add_argument("--optimizers", type=list_of(optimizer), default=_OPTIMIZERS.split(","), metavar="NAME,",
                            help=f"{HELP['optimizer']} (default: {_OPTIMIZERS})")
        parser.add_argument("--lr", type=list_of(positive), default=[0.001, 0.01, 0.1], metavar="X,",
                            help="learning rates (default: 0.001,0.01,0.1)")
        parser.add_argument("--search", choices=["grid", "random"], default="grid",
                            help="grid: each optimizer at each rate; random: random rates between the least and the "
                                 "largest (default: grid)")
        parser.add_argument("--trials", type=count, metavar="N", help="trials of a random search (default: 30)")
        epochs = ImplicitFactorization()._n_epochs if name == "ratings" else 5
        parser.add_argument("--epochs", type=count, default=epochs, metavar="N",
                            help=f"epochs of each trial (default: {epochs})")
        if name == "ratings":
            parser.add_argument("--model", choices=["implicit", "explicit"], default="implicit",
                                help="as in `sparseopt train ratings` (default: implicit)")
            ratings.add_min_rating(parser)
            ratings.add_reading(parser)
        if name == "clicks":
            clicks.add_reading(parser)
        else:
            dim = ImplicitFactorization().dim if name == "ratings" else 32
            parser.add_argument("--dim", type=count, default=dim, metavar="N",
                                help=f"length of a vector (default: {dim})")
        random = "random seed of a random search" if name == "clicks" else "random seed"
        parser.add_argument("--seed", type=seed, metavar="N", help=f"{random} (default: 0)")
        parser.add_argument("--picture", type=Path, metavar="FILE",
                            help="draw the trials to this file, with matplotlib")
        add_format(parser)


def _words(options, out):
    with words.saying_warnings(out):
        text = words.read(options)
        known, _ = vocabulary(count_words(text))
        X = sp.triu(glove.cooccurrence(text, known)).tocoo()
    rows, columns = X.coords
    held_out = np.random.default_rng(options.seed).random(X.nnz) < _HELD_OUT        # of a pair, both orders or none

    def part(which):
        half = sp.coo_array((X.data[which], (rows[which], columns[which])), shape=X.shape)
        return half + half.T - sp.diags_array(half.diagonal(), shape=X.shape, format="coo")

    train, test = part(~held_out), part(held_out)

    def make(optimizer, lr):
        return GloVe(dim=options.dim, optimizer=optimizer, lr=lr, epochs=options.epochs, random_state=options.seed)

    return Task(f"GloVe, {options.dim} dimensions, {len(known):,} words, {train.nnz:,} pairs; "
                f"judged on {test.nnz:,} held-out pairs",
                "weighted squared error", False, make, lambda model: model.partial_fit(train),
                lambda model: -model.score(test), options.epochs)


def _clicks(options, out):
    X, y = clicks.read_all(options, out)
    train = int(len(y) * (1 - _HELD_OUT))           # the last rows are held out, as a model in use predicts later rows
    names = ", ".join(map(str, options.files))
    if train == len(y):
        raise ValueError(f"{names}: there are {len(y)} rows; {_HELD_OUT:.0%} of the rows are held out, at least one")
    if len(np.unique(y[train:])) < 2 or len(np.unique(y[:train])) < 2:
        part, which = ("last", y[train:]) if len(np.unique(y[train:])) < 2 else ("first", y[:train])
        raise ValueError(f"{names}: the {part} {len(which):,} of {len(y):,} rows all have the label "
                         f"{'of a click' if which[0] else 'of no click'}. The last {_HELD_OUT:.0%} are held out. If "
                         "the rows are sorted by the label, shuffle the file")

    def make(optimizer, lr):
        # as `sparseopt train clicks` does
        return LogisticRegression(optimizer=optimizer, lr=lr, epochs=options.epochs, shuffle=False,
                                  batch_size=clicks.default_batch_size(options.files))

    return Task(f"LogisticRegression, {train:,} rows; judged on the {len(y) - train:,} rows after these",
                "log-loss", False, make, lambda model: model.partial_fit(X[:train], y[:train]),
                lambda model: evaluation.log_loss(y[train:], model.predict_proba(X[train:])[:, 1]), options.epochs)


def _ratings(options, out):
    kind = ratings.MODELS[options.model]
    read, _ = ratings.read(out, options.files[0], ratings.reading(options), kind, {"min_rating": options.min_rating})
    X, test = (part.matrix() for part in ratings.parts(out, read, 0.2, seed=options.seed))
    k = min(10, X.shape[1])

    def make(optimizer, lr):
        return kind(dim=options.dim, optimizer=optimizer, lr=lr, epochs=options.epochs, random_state=options.seed)

    explicit = kind is MatrixFactorization
    return Task(f"{kind.__name__}, {options.dim} dimensions, {_described(X, test, read.times is not None)}",
                "root mean squared error" if explicit else f"NDCG at {k}", not explicit, make,
                lambda model: model.partial_fit(X),
                lambda model: -model.score(test) if explicit else evaluation.evaluate(model, X, test, k)["ndcg"],
                options.epochs)


def _described(X, test, by_time):
    fifth = "the last fifth" if by_time else "a fifth, drawn at random,"
    return (f"{X.nnz:,} ratings of {X.shape[1]:,} items by {X.shape[0]:,} users; judged on {fifth} of each user's "
            f"ratings, {test.nnz:,} in all")


_TASKS = [("ratings", _ratings, "recommenders (matrix factorization): NDCG on each user's last ratings"),
          ("clicks", _clicks, "click models (logistic regression): log-loss of the last rows"),
          ("words", _words, "word vectors (GloVe): error of held-out pairs")]


def _compare(options, name, task):
    if options.picture:
        check_picture(options.picture)
    if options.trials and options.search == "grid":
        raise UsageError(f"--trials is {options.trials}; it is allowed with --search random only")
    if options.search == "random" and len(set(options.lr)) < 2:
        raise UsageError(f"--lr is {options.lr[0]:g}; --search random draws rates between two that are given")
    if options.seed is not None and options.search == "grid" and name == "clicks":
        raise UsageError(f"--seed is {options.seed}; for click models it is allowed with --search random only")
    if getattr(options, "min_rating", None) is not None and options.model == "explicit":
        raise UsageError("--min-rating does not go with --model explicit")
    if name == "ratings":
        ratings.reading(options)                # an option that is not allowed is told before a file is read
    options.seed = options.seed or 0
    out = Output(options)
    with out.status("reading"):
        task = task(options, out)
    settings = (_comparison.grid(options.optimizers, options.lr) if options.search == "grid" else
                _comparison.draws(options.optimizers, options.lr, options.trials or 30, options.seed))
    settings = _comparison.with_default(task, settings)
    out.say(task.title)
    trials = []
    with out.status("") as status:
        for i, (rule, lr) in enumerate(settings, 1):
            status.update(f"{i} of {len(settings)}: {rule} {lr:g}")
            trials += _comparison.run(task, [(rule, lr)])
            best, epoch = trials[-1].best(task)
            ended = f"{task.quality} {best:.4f} after epoch {epoch}" if epoch else trials[-1].failed
            out.say(f"{i} of {len(settings)}: {rule} {lr:g}: {ended}")
    ranked = _comparison.ranked(task, trials)
    columns = ["optimizer", ("lr", "g"), (task.quality, ".4f"), ("epoch", "d"), ("at the end", ".4f"), ("steps", ",d"),
               ("seconds", ".1f"), "note"]
    rows = []
    for trial in ranked:
        best, epoch = trial.best(task)
        last = [values[-1] if values else None for values in (trial.quality, trial.steps, trial.seconds)]
        note = trial.failed or ("default" if (trial.optimizer, trial.lr) == settings[0] else "")
        rows.append((trial.optimizer, trial.lr, best, epoch or None, *last, note))
    out.table(columns, rows)
    if options.picture:
        _comparison.draw(task, trials, options.picture)
        out.say(f"drawn: {options.picture}")
    best, epoch = ranked[0].best(task)
    if epoch:
        command = ["sparseopt", "train", name, *map(str, options.files),
                   "--optimizer", ranked[0].optimizer, "--lr", f"{ranked[0].lr:g}",
                   "--epochs", str(epoch), *(["--dim", str(options.dim)] if "dim" in options else [])]
        command += {"words": words, "ratings": ratings, "clicks": clicks}[name].as_arguments(options)
        if getattr(options, "model", None) is not None:
            command += ["--model", options.model]
        out.say(f"to train with the best setting on all of the data: {shlex.join(command)}")
    return 0
