"""`sparseopt train ratings`, `recommend` and `evaluate ratings`."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from .. import _config, checkpoint, datasets, evaluation
from ..models import ImplicitFactorization, MatrixFactorization
from ._common import UsageError, add_settings, count, existing_file, flag, given, share
from ._output import Output, add_format, check_table_path, write_table
from ._run import Run, add_run

_MODELS = {"implicit": ImplicitFactorization, "explicit": MatrixFactorization}
LEAST = 4.0                    # least rating of an item that counts as chosen


def add(train_commands, commands, evaluate_commands):
    ratings = train_commands.add_parser(
        "ratings", help="train a recommender (matrix factorization) on ratings",
        description="Train a recommender on ratings in MovieLens' format (userId,movieId,rating,timestamp). The model "
                    "implicit learns which items a user chooses, from the ratings of at least --least. The model "
                    "explicit learns which rating a user gives. The command writes checkpoint.safetensors (for "
                    "--resume and `sparseopt recommend`), run.json (a summary of the run) and loss.png.")
    ratings.set_defaults(run=_train)
    ratings.add_argument("file", type=existing_file, metavar="FILE",
                         help="ratings.csv, or .parquet with the same columns")
    ratings.add_argument("--model", choices=_MODELS, default="implicit", help="default: implicit")
    ratings.add_argument("--least", type=float, metavar="X",
                         help=f"for implicit: least rating of an item that counts as chosen (default: {LEAST:g})")
    ratings.add_argument("--held-out", type=share, metavar="SHARE",
                         help="hold out this share of each user's ratings, the last ones, to evaluate the model")
    add_run(ratings, "ratings", "continue from this checkpoint up to --epochs, with its settings; users and items may "
                                "be new")
    add_format(ratings)
    ratings.add_argument("--threads", type=count, metavar="N",
                         help="number of threads (default: all cores); softmax uses the threads of BLAS instead")
    add_settings(ratings, [ImplicitFactorization(), MatrixFactorization()], loss="softmax, bpr or warp",
                 regularization="L2 penalty of the vectors, in the loss of each pair",
                 weight_decay="weight decay of the optimizer")

    recommend = commands.add_parser("recommend", help="recommend items to users")
    recommend.set_defaults(run=_recommend)
    recommend.add_argument("checkpoint", type=existing_file, metavar="CHECKPOINT")
    recommend.add_argument("users", nargs="*", type=int, metavar="USER", help="ids of users, as in the ratings")
    recommend.add_argument("--seen", type=existing_file, metavar="FILE",
                           help="ratings whose items are not recommended again")
    recommend.add_argument("--like", type=int, metavar="ITEM",
                           help="id of an item: print the most similar items, instead of items for users")
    recommend.add_argument("--titles", type=existing_file, metavar="FILE",
                           help="a table whose first two columns are ids of items and titles")
    recommend.add_argument("-n", type=count, default=10, metavar="N", help="number of items (default: 10)")
    recommend.add_argument("--output", type=Path, metavar="FILE",
                           help="write the table to this file: .csv, .tsv, .json, .jsonl or .parquet")
    add_format(recommend)

    evaluate = evaluate_commands.add_parser("ratings", help="measure how well a recommender predicts ratings")
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("checkpoint", type=existing_file, metavar="CHECKPOINT")
    evaluate.add_argument("file", type=existing_file, metavar="FILE", help="ratings that the model was not trained on")
    evaluate.add_argument("--seen", type=existing_file, metavar="FILE",
                          help="ratings that the model was trained on, whose items are not recommended")
    evaluate.add_argument("-k", type=count, default=10, metavar="K", help="number of items to recommend (default: 10)")
    add_format(evaluate)


def read(out, path):
    """Read the last rating of each pair of a user and an item, and print the number of ratings left out."""
    ratings = datasets.read_ratings(path)
    latest = ratings.latest()
    if len(latest) < len(ratings):
        out.say(f"{path.name}: {len(ratings) - len(latest):,} ratings are left out: the same user has rated the same "
                  "item again later")
    return latest


def chosen(ratings, kind, least):
    """The ratings that a model of this kind is trained on."""
    if kind is MatrixFactorization:
        return ratings
    ratings = ratings.where(ratings.values >= least)
    if not len(ratings):
        raise ValueError(f"there is no rating of at least {least:g}; there must be one, or --least must be lower")
    return replace(ratings, values=np.ones(len(ratings)))


def _train(options):
    out, run = Output(options), Run(options, "ratings")
    kind = _MODELS[options.model]
    if options.threads:
        _config.set_num_threads(options.threads)
    if options.least is not None and kind is MatrixFactorization:
        raise UsageError("--least does not go with --model explicit")
    if options.resume:
        model, stored = _loaded(options.resume, kind)
        settings = {name: value for name, value in given(options, model, _MODELS.values()).items() if name != "epochs"}
        if settings or options.least is not None:
            raise UsageError(f"{flag(next(iter(settings), 'least'))} does not go with --resume: the checkpoint has "
                             "this setting")
        model.epochs = options.epochs or model.epochs
        least = stored["least"]
    else:
        model, stored = kind(**given(options, kind(), _MODELS.values())), None
        least = LEAST if options.least is None else options.least
    with out.status("reading"):
        ratings = chosen(read(out, options.file), kind, least)
    X, test, ids = matrices(ratings, options.held_out, stored)
    out.say(f"{options.file.name}: {X.nnz:,} ratings of {X.shape[1]:,} items by {X.shape[0]:,} users"
              + (f", {test.nnz:,} others held out" if test is not None else ""))
    run.train(out, model, lambda show: model.partial_fit(X, show), "ratings",
              (lambda: measures(model, X, test, 10)) if test is not None else None, least=least, **ids)
    quality = {} if test is None else measures(model, X, test, 10)
    if quality:
        _print_measures(out, test, quality)
    run.finish(out, model, "mean loss of a rating", quality=quality,
               data={"file": str(options.file), "ratings": X.nnz, "users": X.shape[0], "items": X.shape[1]})
    return 0


def matrices(ratings, held_out, stored):
    """The training set, the test set or None, and the ids of the rows and columns. Stored ids come first."""
    users, user_ids = _renumbered(ratings.users, ratings.user_ids, stored and stored["user_ids"])
    items, item_ids = _renumbered(ratings.items, ratings.item_ids, stored and stored["item_ids"])
    shape = len(user_ids), len(item_ids)
    parts = [np.arange(len(ratings))]
    if held_out:
        parts = evaluation.train_test_split_by_time(users, ratings.times, held_out)
    X, *test = (sp.coo_array((ratings.values[part].astype(np.float32), (users[part], items[part])), shape=shape).tocsr()
                for part in parts)
    return X, test[0] if test else None, {"user_ids": user_ids.tolist(), "item_ids": item_ids.tolist()}


def _renumbered(numbers, ids, known):
    if known is None:
        return numbers, ids
    place = {one: number for number, one in enumerate(known)}
    for one in ids.tolist():
        place.setdefault(one, len(place))
    return np.array([place[one] for one in ids.tolist()], np.int64)[numbers], np.array(list(place))


def _loaded(path, *kinds):
    """A model and the metadata of its checkpoint."""
    stored = checkpoint.load(path).metadata
    by_name = {kind.__name__: kind for kind in _MODELS.values()}
    kind = by_name.get(stored.get("model_type"))
    if kind is None or not {"user_ids", "item_ids", "least"} <= set(stored):
        raise ValueError(f"{path}: not a checkpoint of `sparseopt train ratings`")
    if kinds and kind not in kinds:
        other = next(name for name, one in _MODELS.items() if one is kind)
        raise ValueError(f"{path}: a checkpoint of {kind.__name__}; add --model {other}")
    return kind.load(path), stored


def _known(out, path, model, stored):
    """The ratings of users and items that the model knows, as a matrix, and the number of all other ratings."""
    ratings = chosen(read(out, path), type(model), stored["least"])
    rows, columns = ({one: number for number, one in enumerate(stored[name])} for name in ("user_ids", "item_ids"))
    users = np.array([rows.get(one, -1) for one in ratings.user_ids.tolist()])[ratings.users]
    items = np.array([columns.get(one, -1) for one in ratings.item_ids.tolist()])[ratings.items]
    known = (users >= 0) & (items >= 0)
    values = ratings.values[known].astype(np.float32)
    X = sp.coo_array((values, (users[known], items[known])), shape=(len(rows), len(columns)))
    return X.tocsr(), int((~known).sum())


def _evaluate(options):
    out = Output(options)
    model, stored = _loaded(options.checkpoint)
    test, unknown = _known(out, options.file, model, stored)
    if not test.nnz:
        raise ValueError(f"{options.file}: there is no rating of a user and an item that the model knows; there must "
                         "be at least one")
    if unknown:
        out.say(f"{unknown:,} ratings of users or items that the model does not know are left out")
    seen = _known(out, options.seen, model, stored)[0] if options.seen else sp.csr_array(test.shape, dtype=np.float32)
    _print_measures(out, test, measures(model, seen, test, options.k))
    return 0


def measures(model, X, test, k):
    """The quality of a model on held-out ratings, as a dict. X has the ratings that it was trained on."""
    if isinstance(model, MatrixFactorization):
        return {"root mean squared error": -model.score(test)}
    found = evaluation.evaluate(model, X, test, min(k, test.shape[1]))
    return {f"{name} at {k}": float(value) for name, value in found.items()}


def _print_measures(out, test, found):
    out.table([("ratings held out", ",d"), "measure", ("value", ".4f")],
              [(test.nnz, name, value) for name, value in found.items()])


def _recommend(options):
    out = Output(options)
    if bool(options.users) == (options.like is not None):
        raise UsageError("USER and --like are both given, or both missing; give ids of users, or one item by --like")
    if options.output:
        check_table_path("--output", options.output)
    model, stored = _loaded(options.checkpoint)
    titles = _titles(options.titles) if options.titles else {}
    item_ids = stored["item_ids"]
    seen = _known(out, options.seen, model, stored)[0] if options.seen else None
    columns = ["user" if options.users else "like", "item", *(["title"] if titles else []), ("score", ".3f")]
    rows = []
    wanted, ids, what = [options.like], item_ids, "item"
    if options.users:
        wanted, ids, what = options.users, stored["user_ids"], "user"
    number = {one: i for i, one in enumerate(ids)}
    unknown = [one for one in wanted if one not in number]
    if unknown:
        raise ValueError(f"{options.checkpoint}: the model does not know {what} {unknown[0]}; it must be an id of the "
                         "ratings that the model was trained on")
    for one in wanted:
        if options.users:
            items, scores = model.recommend(number[one], min(options.n, len(item_ids)), seen)
        else:
            items, scores = model.similar_items(number[one], min(options.n, len(item_ids) - 1))
        for item, score in zip(items, scores, strict=True):
            if item >= 0:
                title = [titles.get(str(item_ids[item]), "")] if titles else []
                rows.append((one, item_ids[item], *title, float(score)))
    out.table(columns, rows, grouped=True)
    if options.output:
        write_table(options.output, columns, rows)
    return 0


def _titles(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return {row[0]: row[1] for row in csv.reader(file) if len(row) > 1}
