"""`sparseopt train clicks` and `evaluate clicks`."""

import time

import numpy as np

from .. import checkpoint, datasets, evaluation
from ..models import FactorizationMachineClassifier, LogisticRegression
from ._common import UsageError, add_settings, count, existing_file, flag, given, list_of
from ._output import Output, add_format
from ._run import Run, add_run

_MODELS = {"linear": LogisticRegression, "fm": FactorizationMachineClassifier}
_STREAM = "file_format", "label", "numbers", "skip", "n_features"      # the options that say how a file is read


def add(train_commands, evaluate_commands):
    clicks = train_commands.add_parser(
        "clicks", help="train a click model (logistic regression or a factorization machine) on a click log",
        description="Train a click model on a log. The log is read chunk by chunk, in the order of its rows. A log "
                    "has libsvm's format, or is a table (.csv, .tsv, .parquet) whose values are hashed; .gz is "
                    "decompressed. A label above 0 is a click. The command prints the progressive loss: the loss of "
                    "each row before the model trains on the row. The command writes checkpoint.safetensors (for "
                    "--resume), run.json (a summary of the run) and loss.png.")
    clicks.set_defaults(run=_train)
    clicks.add_argument("files", nargs="+", type=existing_file, metavar="FILE",
                        help="click logs, read one after the other")
    clicks.add_argument("--model", choices=_MODELS, default="linear", help="default: linear")
    add_run(clicks, "clicks", "continue from this checkpoint with these files, with the settings of the checkpoint")
    add_format(clicks)
    clicks.add_argument("--test", type=existing_file, metavar="FILE", help="a log to evaluate the trained model on")
    clicks.add_argument("--epochs", type=count, default=1, metavar="N", help="passes over the files (default: 1)")
    add_reading(clicks)
    models = [LogisticRegression(), FactorizationMachineClassifier()]
    add_settings(clicks, models, epochs=None, n_features=None,
                 l1="L1 penalty, for Ftrl: small weights become exactly 0", l2="weight decay",
                 init_scale="standard deviation of the initial vectors")

    evaluate = evaluate_commands.add_parser("clicks", help="measure log-loss and AUC of a click model")
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("checkpoint", type=existing_file, metavar="CHECKPOINT")
    evaluate.add_argument("files", nargs="+", type=existing_file, metavar="FILE")
    add_reading(evaluate)
    add_format(evaluate)


def add_reading(parser):
    parser.add_argument("--file-format", choices=["libsvm", "csv", "parquet"],
                        help="format of the files (default: by their names)")
    parser.add_argument("--label", metavar="COLUMN", help="column of the clicks in a table (default: the first)")
    parser.add_argument("--numbers", type=list_of(str), metavar="COLUMN,", help="columns of numbers in a table")
    parser.add_argument("--skip", type=list_of(str), metavar="COLUMN,", help="columns of a table to leave out")
    parser.add_argument("--n-features", type=count, metavar="N",
                        help="number of columns for hashed features (default: 1048576)")


def reading(options, stored=None):
    """The arguments of `read_clicks`: the options that are given, else the stored arguments."""
    how = dict(stored or {}) | {name: getattr(options, name) for name in _STREAM if getattr(options, name) is not None}
    return {"n_features": 2**20, **how}


def _reader_options(how):
    return {"format" if name == "file_format" else name: value for name, value in how.items()}


def stream(files, how):
    for path in files:
        yield from datasets.read_clicks(path, **_reader_options(how))


def _train(options):
    out, run = Output(options), Run(options, "clicks")
    kind = _MODELS[options.model]
    if options.resume:
        settings = given(options, kind(), _MODELS.values())
        settings.pop("epochs", None)
        if settings:
            raise UsageError(f"{flag(next(iter(settings)))} does not go with --resume: the checkpoint has this setting")
        model = kind.load(options.resume)
        how = reading(options, model.optimizer_.metadata.get("reading"))
    else:
        how = reading(options)
        settings = given(options, kind(), _MODELS.values())
        settings |= {"epochs": options.epochs, "n_features": how["n_features"]}
        model = kind(**settings, shuffle=False)
    begin, rows, total = time.perf_counter(), 0, 0.0
    with out.status("") as status:
        for epoch in range(options.epochs):
            for X, y in stream(options.files, how):
                model.partial_fit(X, y > 0, classes=[False, True])
                rows += X.shape[0]
                total += model.loss_curve_[-1] * X.shape[0]
                status.update(f"epoch {epoch + 1}/{options.epochs}, {rows:,} rows, loss {model.loss_curve_[-1]:.4f}")
    if not rows:
        raise ValueError(f"{', '.join(map(str, options.files))}: there are no rows; a log must have at least one")
    seconds = time.perf_counter() - begin
    model.save(run.path("checkpoint.safetensors"), reading=how)
    out.say(f"{rows:,} rows, progressive loss {total / rows:.4f}, of the last chunk {model.loss_curve_[-1]:.4f}; "
              f"{seconds:.1f} s, {rows / seconds:,.0f} rows/s with reading")
    quality = _report(out, model, [options.test], how) if options.test else {}
    run.finish(out, model, "log-loss of a chunk", "chunk", quality=quality,
               data={"files": list(map(str, options.files)), "rows": rows, "reading": how})
    return 0


def _evaluate(options):
    stored = checkpoint.load(options.checkpoint).metadata
    kinds = {kind.__name__: kind for kind in _MODELS.values()}
    if stored.get("model_type") not in kinds:
        raise ValueError(f"{options.checkpoint}: not a checkpoint of a click model")
    model = kinds[stored["model_type"]].load(options.checkpoint)
    _report(Output(options), model, options.files, reading(options, stored.get("reading")))
    return 0


def _report(out, model, files, how):
    """Print the quality on files, and return the quality as a dict."""
    clicks, said = [], []
    for X, y in stream(files, how):
        clicks.append(y > 0)
        said.append(model.predict_proba(X)[:, 1])
    if not clicks:
        raise ValueError(f"{', '.join(map(str, files))}: there are no rows; a log must have at least one")
    y, p = np.concatenate(clicks), np.concatenate(said)
    columns = [("rows", ",d"), ("clicks", ".2%"), ("log-loss", ".5f"), ("of the mean alone", ".5f"), ("AUC", ".4f")]
    row = (len(y), float(y.mean()), evaluation.log_loss(y, p), evaluation.log_loss(y, np.full(len(y), y.mean())),
           evaluation.auc(y, p) if 0 < y.mean() < 1 else None)
    out.table(columns, [row])
    return dict(zip(["rows", "clicks", "log_loss", "log_loss_of_the_mean", "auc"], row, strict=True))
