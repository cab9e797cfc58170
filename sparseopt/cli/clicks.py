"""`sparseopt train clicks`, `evaluate clicks`, `predict clicks` and `weights`."""

import argparse
import signal
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .. import checkpoint, evaluation
from .._text import escaped, listed
from ..datasets import ClickReader
from ..models import FactorizationMachineClassifier, LogisticRegression
from ._common import UsageError, add_settings, count, existing_file, flag, given, list_of
from ._output import Output, add_format, check_table_path, write_table
from ._run import CHECKPOINT, Run, Watch, add_run, naming_the_rate

_MODELS = {"linear": LogisticRegression, "fm": FactorizationMachineClassifier}
_FILE = "file_format", "sep", "header", "encoding"                      # how a file is packed into lines.
_READING = *_FILE, "label", "numbers", "numbers_as", "skip", "n_features", "first", "chunk"
_SAVED = 60             # seconds between checkpoints.
_SMALL = 64 << 20       # bytes of a log of which one pass at 1,024 samples a step would be too few steps.
_SORTED = 0.1           # a log whose label changes by less than this share of what chance gives is sorted by the label.


def add(train_commands: Any, commands: Any, evaluate_commands: Any) -> None:
    clicks = train_commands.add_parser(
        "clicks", help="train a click model (logistic regression or a factorization machine) on a click log",
        description="Train a click model on a log. The log is read chunk by chunk, in the order of its rows. A log is "
                    "a table (text with any separator, JSON lines, Parquet) whose values are hashed, or has libsvm's "
                    "format. Text may be packed by gzip. The command says what it takes each column for. The "
                    "progressive loss is the loss of each row before the model trains on the row. The command writes "
                    "checkpoint.safetensors (for --resume, evaluate, predict and weights), run.json (a summary of the "
                    "run) and loss.png.")
    clicks.set_defaults(run=_train)
    clicks.add_argument("files", nargs="+", type=existing_file, metavar="FILE",
                        help="click logs, read one after the other")
    clicks.add_argument("--model", choices=_MODELS, help="default: linear; with --resume, that of the checkpoint")
    add_run(clicks, "clicks", "continue from this checkpoint, with its settings. With the same files, an interrupted "
                              "training goes on behind its last row; with other files, from their first row")
    add_format(clicks)
    clicks.add_argument("--test", type=existing_file, metavar="FILE", help="a log to evaluate the trained model on")
    clicks.add_argument("--epochs", type=count, metavar="N",
                        help="passes over the files (default: 1; for an interrupted training, as before)")
    add_reading(clicks)
    clicks.add_argument("--names", action="store_true", default=None,
                        help="keep the names of features in the checkpoint, for `sparseopt weights`")
    models = [LogisticRegression(), FactorizationMachineClassifier()]
    add_settings(clicks, models, epochs=None, n_features=None,
                 batch_size="samples per step; not given, it is 128 for files of less than 64 MiB together",
                 l1="L1 penalty, for Ftrl: small weights become exactly 0", l2="weight decay",
                 init_scale="standard deviation of the initial vectors")

    evaluate = evaluate_commands.add_parser(
        "clicks", help="measure log-loss, AUC and calibration of a click model",
        description="Measure a click model on logs, read as in the training. Calibration is the mean prediction "
                    "divided by the share of clicks: 1 is right.")
    evaluate.set_defaults(run=_evaluate)
    _add_model_and_files(evaluate)
    add_format(evaluate)

    predict = commands.add_parser("predict", help="write the predictions of a model for each row")
    predict = predict.add_subparsers(required=True, metavar="MODEL").add_parser(
        "clicks", help="write the probability of a click for each row of a log",
        description="Write the probability of a click for each row of a log, read as in the training. The files need "
                    "no labels.")
    predict.set_defaults(run=_predict)
    _add_model_and_files(predict)
    _add_output(predict)

    weights = commands.add_parser(
        "weights", help="print the weights of a click model",
        description="Print the weights of a click model: the intercept, then the weights from the furthest from 0 to "
                    "the nearest. Names of features need a training with --names; a FEATURE needs no such training.")
    weights.set_defaults(run=_weights)
    weights.add_argument("checkpoint", type=existing_file, metavar="CHECKPOINT")
    weights.add_argument("features", nargs="*", metavar="FEATURE",
                         help="features to print, such as site=a.com, or price for a standardized number")
    weights.add_argument("-n", type=count, metavar="N",
                         help="number of features to print (default: 20; with --output all)")
    _add_output(weights)


def _add_model_and_files(parser):
    parser.add_argument("checkpoint", type=existing_file, metavar="CHECKPOINT")
    parser.add_argument("files", nargs="+", type=existing_file, metavar="FILE")
    _add_file(parser, "Columns, labels and numbers are those of the training")


def _add_output(parser):
    parser.add_argument("--output", type=Path, metavar="FILE",
                        help="write to this file (.csv, .tsv, .json, .jsonl, .parquet) instead of stdout")
    add_format(parser)


def _add_file(parser, about=None):
    group = parser.add_argument_group("how files are read", about)
    group.add_argument("--file-format", choices=["csv", "jsonl", "libsvm", "parquet"],
                       help="format of the files; csv has any separator (default: by the name, else by the content)")
    group.add_argument("--sep", metavar="TEXT", help="separator of the columns of a text (default: found out)")
    group.add_argument("--header", action=argparse.BooleanOptionalAction,
                       help="whether the first line has the names of the columns (default: found out)")
    group.add_argument("--encoding", metavar="NAME",
                       help="encoding of a text (default: utf-8, or that of the training)")
    return group


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a log is read."""
    group = _add_file(parser)
    group.add_argument("--label", metavar="COLUMN",
                       help="column of the clicks in a table, by name or position from 0 (default: the column called "
                             "click, label, target or the like; else the first)")
    group.add_argument("--numbers", type=list_of(str), metavar="COLUMN,",
                       help="columns of numbers in a table, by names, positions from 0 or ranges such as 1-13; auto: "
                             "columns of more than 20 different numbers, some with a fraction (default: none)")
    group.add_argument("--numbers-as", choices=["standardize", "log"],
                       help="what numbers become: standardize: their distance from the mean in standard deviations; "
                             "log: one feature for each step of their logarithm (default: standardize)")
    group.add_argument("--skip", type=list_of(str), metavar="COLUMN,", help="columns of a table to leave out")
    group.add_argument("--n-features", type=count, metavar="N",
                       help="number of columns for hashed features (default: 1048576)")
    group.add_argument("--chunk", type=count, metavar="N",
                       help="number of rows that are read at a time (default: 100000)")
    group.add_argument("--first", type=int, choices=[0, 1],
                       help="number of the first column in libsvm's format (default: 1)")


def as_arguments(options: argparse.Namespace) -> list[str]:
    """The options of `add_reading` that are given, as arguments of a command."""
    arguments = []
    for name in _READING:
        value = getattr(options, name)
        if isinstance(value, bool):
            arguments.append("--header" if value else "--no-header")
        elif value is not None:
            arguments += [flag(name), ",".join(value) if isinstance(value, list) else str(value)]
    return arguments


def new_reader(options: argparse.Namespace) -> ClickReader:
    """A ClickReader as the options of `add_reading` say."""
    how = {name: getattr(options, name) for name in (*_READING, "names") if getattr(options, name, None) is not None}
    if how.get("numbers") == ["auto"]:
        how["numbers"] = "auto"
    try:
        return ClickReader(**how)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def read_all(options: argparse.Namespace, out: Output) -> tuple[sp.csr_array, npt.NDArray[np.bool_]]:
    """Return all rows of the files as one X, and y, which is True for a click. Say how the files are read."""
    reader = new_reader(options)
    _find(reader, options.files, out)
    chunks = [chunk for path in options.files for chunk in reader.read(path, training=True)]
    return sp.vstack([X for X, _ in chunks], format="csr"), np.concatenate([y for _, y in chunks])


def _find(reader, files, out, judged=False, labels=True):
    """Find out how the files are read if the reader does not know, and say so. Check the heads of all files.

    If `judged` is True, the command also says where files to judge or predict are unlike those of the training.
    """
    if reader.classes_ is None:
        reader.find(*files)
        for one in (reader.description, *reader.advice):
            out.say(one)
    else:                                       # the files may have another separator than the first file
        out.say(f"as in the training: {reader.description.partition('; ')[2]}")
    for path in files:
        unlike = reader.check(path, labels=labels)
        for one in unlike if judged else []:
            out.say(f"warning: {one}")


def _train(options):
    out, run = Output(options), Run(options, "clicks")
    if options.resume:
        model, reader = _resumed(options)
        stream = _Stream.of(model.optimizer_.metadata, options, out)
    else:
        options.model = options.model or "linear"
        reader = new_reader(options)
        model = _new_model(options, reader)
        stream = _Stream(options.files, options.epochs or 1)
    ended = len(stream.ended)
    run.epochs = run.earlier[:ended] if len(run.earlier) >= ended else list(stream.ended)
    _find(reader, options.files, out)
    if options.test:
        for one in reader.check(options.test):
            out.say(f"warning: {one}")
    begin = time.perf_counter()
    stream.train(run, out, model, reader, options.test)
    seconds = time.perf_counter() - begin
    first, last = stream.ended[ended], stream.ended[-1]
    of_last = f", of epoch {last['epoch']} {last['loss']:.4f}" if last is not first else ""
    out.say(f"{stream.trained:,} rows, progressive loss {first['loss']:.4f} (of the mean alone "
            f"{first['loss_of_the_mean']:.4f}){of_last}, of the last chunk {model.loss_curve_[-1]:.4f}; "
            f"{seconds:.1f} s, {stream.trained / seconds:,.0f} rows/s with reading")
    quality = stream.quality
    if options.test:
        _print_quality(out, model, quality)
    run.finish(out, model, "log-loss of a chunk", "chunk", quality=quality,
               data={"files": list(map(str, options.files)), "rows": stream.trained, "reading": reader.description})
    return 0


def _new_model(options, reader):
    kind = _MODELS[options.model]
    settings = given(options, kind(), _MODELS.values())
    settings |= {"epochs": options.epochs or 1, "n_features": reader.n_features}
    settings.setdefault("batch_size", default_batch_size(options.files))
    model = kind(**settings, shuffle=False)
    try:
        model._check_settings()
    except ValueError as error:
        raise UsageError(str(error)) from error
    return model


def default_batch_size(files: Sequence[Path]) -> int:
    """The number of samples per step: a small log needs more steps, and a large log is trained faster in large ones."""
    return 128 if sum(path.stat().st_size for path in files) < _SMALL else 1024


def _resumed(options):
    settings = dict.fromkeys(name for kind in _MODELS.values() for name in kind().get_params())
    for name in (*settings, *(name for name in (*_READING, "names") if name not in _FILE)):
        if name != "epochs" and getattr(options, name, None) is not None:
            raise UsageError(f"{flag(name)} does not go with --resume: the checkpoint has this setting")
    model, reader = _loaded(options)
    if options.model and not isinstance(model, _MODELS[options.model]):
        raise UsageError(f"--model is {options.model}, and {options.resume} is a checkpoint of {type(model).__name__}; "
                         "without --model, the model is that of the checkpoint")
    return model, reader


def _loaded(options):
    """The model and the reader of a checkpoint."""
    path = options.resume if "resume" in options else options.checkpoint
    kinds = {kind.__name__: kind for kind in _MODELS.values()}
    stored = checkpoint.load(path).metadata
    if stored.get("model_type") not in kinds:
        raise ValueError(f"{path}: not a checkpoint of a click model")
    model = kinds[stored["model_type"]].load(path)
    how = {name: getattr(options, name) for name in _FILE if getattr(options, name, None) is not None}
    try:
        return model, ClickReader.from_state(stored, **how)
    except ValueError as error:
        raise ValueError(f"{path}: it does not say how the log was read: {error}") from error


class _Stream:
    """How far training on some files is. The checkpoint keeps this, so that a resumed training goes on behind it.

    Parameters
    ----------
    files : list of path
    epochs : int
    epoch, file, row : int
        The place of the next row: a number from 0 of an epoch, of a file, and of a row of that file.
    rows, clicks, loss : int, int, float
        Rows, clicks, and the sum of the losses in this epoch so far.
    ended : list of dict
        The results of the epochs before.
    """

    def __init__(self, files, epochs, epoch=0, file=0, row=0, rows=0, clicks=0, loss=0.0, ended=()):
        self.files, self.epochs = files, epochs
        self.epoch, self.file, self.row = epoch, file, row
        self.rows, self.clicks, self.loss = rows, clicks, loss
        self.ended = list(ended)
        self.trained = 0
        self.quality = {}
        self._changes, self._compared, self._last = 0, 0, None

    @classmethod
    def of(cls, metadata, options, out):
        """The stream that a checkpoint has, if it was interrupted in the same files; else a new one."""
        stored = dict(metadata.get("stream", {}))
        files, heads = stored.pop("files", None), stored.pop("heads", None)
        if files is None or stored["epoch"] >= stored["epochs"]:
            return cls(options.files, options.epochs or 1, ended=stored.get("ended", ()))
        if files != _resolved(options.files) or heads != _heads(options.files):
            same = files == _resolved(options.files)
            other = "the first lines of these files have changed" if same else "other files are given now"
            out.say(f"the checkpoint stopped in {listed(files, show=escaped)}, file {stored['file'] + 1}, behind row "
                    f"{stored['row']:,}; {other}, and all rows are trained")
            return cls(options.files, options.epochs or 1, ended=stored["ended"])
        if options.epochs is not None and options.epochs <= stored["epoch"]:
            raise UsageError(f"--epochs is {options.epochs}; the checkpoint is in epoch {stored['epoch'] + 1} already")
        stored["epochs"] = options.epochs or stored["epochs"]
        stream = cls(options.files, **stored)
        if stream.row or stream.file:
            out.say(f"training goes on {stream.place}, in epoch {stream.epoch + 1} of {stream.epochs}")
        return stream

    @property
    def place(self):
        """The place of the next row, in words."""
        if self.file == len(self.files):
            return f"behind the last row of {self.files[-1]}"
        return f"behind row {self.row:,} of {self.files[self.file]}"

    def state(self):
        names = "epochs", "epoch", "file", "row", "rows", "clicks", "loss", "ended"
        return {"files": _resolved(self.files), "heads": _heads(self.files),
                **{name: getattr(self, name) for name in names}}

    def train(self, run, out, model, reader, test):
        """Train to the end. The model is saved from time to time, and after an interrupt or an error of a file."""
        with out.status("") as status, _Interrupts() as interrupts:
            watch, saved = Watch(None, model), time.perf_counter()
            self.begun = time.perf_counter()
            while self.epoch < self.epochs:
                self._stop_if(interrupts, run, out, model, reader)
                if self.file == len(self.files):
                    self._end_epoch(run, out, model, reader, test)
                    self._save(run, model, reader)
                    continue
                path = self.files[self.file]
                chunks = reader.read(path, training=True, start=self.row)
                while (chunk := self._next(chunks, run, out, model, reader)) is not None:
                    X, y = chunk
                    try:
                        with naming_the_rate(model, self.epoch):
                            model.partial_fit(X, y, classes=[False, True],
                                              callback=lambda report: watch.check(report.loss, self.epoch))
                    except ValueError:
                        run.fail(model)
                        raise
                    self._add(y, model.loss_curve_[-1])
                    status.update(f"epoch {self.epoch + 1}/{self.epochs}, {self.rows:,} rows, loss "
                                  f"{model.loss_curve_[-1]:.4f}")
                    self._stop_if(interrupts, run, out, model, reader)
                    if time.perf_counter() - saved > _SAVED:
                        self._save(run, model, reader)
                        saved = time.perf_counter()
                self.file, self.row = self.file + 1, 0
                if self.rows:
                    self._save(run, model, reader)

    def _stop_if(self, interrupts, run, out, model, reader):
        if interrupts.came:
            run.keep(out, model, f"training goes on {self.place}", stream=self.state(), **reader.state())
            raise KeyboardInterrupt

    def _next(self, chunks, run, out, model, reader):
        try:
            return next(chunks, None)
        except (OSError, ValueError):
            if self.rows or self.epoch:
                self._save(run, model, reader)
                run.fail(model)
                out.say(f"the rows before are trained and saved; --resume {run.path(CHECKPOINT)} with the same files "
                        f"goes on {self.place}")
            raise

    def _save(self, run, model, reader):
        model.save(run.path(CHECKPOINT), stream=self.state(), **reader.state())
        run.write(model)

    def _add(self, y, loss):
        self.row += len(y)
        self.rows += len(y)
        self.trained += len(y)
        self.clicks += int(y.sum())
        self.loss += loss * len(y)
        self._changes += int((y[1:] != y[:-1]).sum()) + (self._last is not None and bool(self._last != y[0]))
        self._compared += len(y) - (self._last is None)
        self._last = y[-1]

    def _end_epoch(self, run, out, model, reader, test):
        if not self.rows:
            raise ValueError(f"{listed(self.files, show=str)}: there are no rows; a log must have at least one")
        mean = self.clicks / self.rows
        if said := order_warning(self._compared, mean, self._changes):
            out.say(said)
        if test:
            self.quality = _quality(model, reader, [test])
        self.ended.append({"epoch": len(self.ended) + 1, "rows": self.rows, "loss": self.loss / self.rows,
                           "loss_of_the_mean": _entropy(mean), **self.quality})
        # no seconds in the checkpoint: a resumed run writes the bytes of one that never stopped
        run.epochs.append({**self.ended[-1], "seconds": time.perf_counter() - self.begun})
        self.epoch, self.file, self.rows, self.clicks, self.loss = self.epoch + 1, 0, 0, 0, 0.0
        self._changes, self._compared, self._last = 0, 0, None
        self.begun = time.perf_counter()


class _Interrupts:
    """Holds Ctrl-C back until the present chunk is trained. A second Ctrl-C takes effect at once."""

    def __enter__(self):
        self.came = False
        try:
            self._before = signal.signal(signal.SIGINT, self._note)
        except ValueError:              # another thread than the main one gets no signals
            self._before = None
        return self

    def _note(self, number, frame):
        if self.came:
            raise KeyboardInterrupt
        self.came = True

    def __exit__(self, *error):
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def _resolved(files):
    return [str(path.resolve()) for path in files]


def _heads(files):
    """Checksums of the first bytes. A file of the same name may be the log of another day."""
    heads = []
    for path in files:
        with open(path, "rb") as file:
            heads.append(zlib.crc32(file.read(1024)))
    return heads


def order_warning(compared: int, mean: float, changes: int) -> str | None:
    """Return a warning if the rows are sorted by the label, else None.

    The label changes `changes` times over `compared` pairs of neighbouring rows; `mean` is the share of clicks.
    """
    expected = 2 * mean * (1 - mean) * compared
    if expected < 20 or changes > _SORTED * expected:
        return None
    return (f"warning: the order of the rows tells the label. The label of {changes:,} of {compared:,} rows differs "
            f"from that of the row before; in random order it would be about {expected:,.0f}. The model learns the "
            "last rows best: shuffle the rows")


def _entropy(mean):
    """The log-loss of a model that predicts the share of clicks for each row."""
    return float(-(mean * np.log(mean) + (1 - mean) * np.log1p(-mean))) if 0 < mean < 1 else 0.0


def _evaluate(options):
    model, reader = _loaded(options)
    out = Output(options)
    _find(reader, options.files, out, judged=True)
    _print_quality(out, model, _quality(model, reader, options.files))
    return 0


def _quality(model, reader, files):
    clicks, said = [], []
    for path in files:
        for X, y in reader.read(path):
            clicks.append(y)
            said.append(model.predict_proba(X)[:, 1])
    if not clicks:
        raise ValueError(f"{', '.join(map(str, files))}: there are no rows; a log must have at least one")
    y, p = np.concatenate(clicks), np.concatenate(said)
    return {"test_rows": len(y), "test_clicks": float(y.mean()), "log_loss": evaluation.log_loss(y, p),
            "log_loss_of_the_mean": _entropy(y.mean()), "auc": evaluation.auc(y, p) if 0 < y.mean() < 1 else None,
            "calibration": float(p.mean() / y.mean()) if y.any() else None}


def _print_quality(out, model, quality):
    out.table([("rows", ",d"), ("clicks", ".2%"), ("log-loss", ".5f"), ("of the mean alone", ".5f"), ("AUC", ".4f"),
               ("calibration", ".3f")], [list(quality.values())])
    if quality["log_loss"] > quality["log_loss_of_the_mean"]:
        out.say("warning: the model is worse than the mean of these rows alone: its log-loss is higher than that of a "
                f"model that gives each row the share of clicks. It has taken {model.optimizer_.steps:,} steps. A "
                "small log needs more steps: more --epochs, or a smaller --batch-size")


def _predict(options):
    if options.output:
        check_table_path("--output", options.output)
    model, reader = _loaded(options)
    out = Output(options)
    _find(reader, options.files, out, judged=True, labels=False)
    several = len(options.files) > 1
    columns = [*(["file"] if several else []), ("row", "d"), ("probability", ".6f")]

    def rows():
        for path in options.files:
            row = 0
            for X, _ in reader.read(path, labels=False):
                for p in model.predict_proba(X)[:, 1].tolist():
                    row += 1
                    yield (*([str(path)] if several else []), row, p)
    _write(options, out, columns, rows())
    return 0


def _write(options, out, columns, rows):
    if options.output:
        write_table(options.output, columns, rows)
        out.say(f"written to {options.output}")
    else:
        out.table(columns, rows)


def _weights(options):
    if options.output:
        check_table_path("--output", options.output)
    if options.features and options.n:
        raise UsageError("-n does not go with FEATURE: all features that are given are printed")
    model, reader = _loaded(options)
    out = Output(options)
    weights = np.ravel(model.coef_)
    sharing = {}
    for name, feature in reader.names_.items():
        sharing.setdefault(feature, []).append(name)
    most = options.n or (len(weights) if options.output else 20)
    if options.features:
        found = [(name, reader.feature(name)) for name in options.features]
        for name, feature in found:
            if reader.names_ and name not in reader.names_:
                out.say(f"{name} is not among the names of the training; the weight is that of feature {feature}")
    elif reader.names_:
        names, features = list(reader.names_), np.fromiter(reader.names_.values(), np.int64, len(reader.names_))
        order = np.argsort(-np.abs(weights[features]), kind="stable")[:most]
        found = [(names[i], int(features[i])) for i in order.tolist()]
    else:
        if not reader.is_libsvm:
            out.say("the checkpoint has no names of features; train with --names, or give a FEATURE")
        order = np.argsort(-np.abs(weights), kind="stable")[:most]
        found = [(str(feature + reader.first) if reader.is_libsvm else None, feature)
                 for feature in order[weights[order] != 0].tolist()]
    rows = [(name, feature, float(weights[feature]),
             listed([other for other in sharing.get(feature, []) if other != name], show=str) or None)
            for name, feature in found]
    if not options.features:
        rows.insert(0, ("(intercept)", None, float(np.ravel(model.intercept_)[0]), None))
    _write(options, out, ["feature", ("number", "d"), ("weight", ".5f"), "shares its weight with"], rows)
    return 0
