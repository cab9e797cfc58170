"""`sparseopt train ratings`, `recommend` and `evaluate ratings`."""

import argparse
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import checkpoint, datasets, evaluation
from .._ratings import known_pairs, renumbered
from ..models import ImplicitFactorization, MatrixFactorization, Model
from ._common import UsageError, add_settings, count, existing_file, flag, given, list_of, share
from ._output import Output, add_format, check_table_path, write_table
from ._places import add_places, closing, place
from ._run import Run, add_run

MODELS: dict[str, type[Any]] = {"implicit": ImplicitFactorization, "explicit": MatrixFactorization}
# Options that say how files are read, with the values that they have if they are not given.
_READING = {"columns": None, "sep": None, "header": None, "encoding": "utf-8", "weights": False, "duplicates": None}
_RMSE = "root mean squared error"
_AT_ONCE = 4096                 # users whose recommendations are computed together.


def add(train_commands: Any, commands: Any, evaluate_commands: Any) -> None:
    ratings = train_commands.add_parser(
        "ratings", help="train a recommender (matrix factorization) on ratings, plays or purchases",
        description="Train a recommender on a file of ratings or counts: a delimited text, JSON lines or Parquet. The "
                    "command says what it takes each column for. The model implicit learns which items a user chooses: "
                    "from ratings of at least --min-rating, or from counts, whose weight is 1 + ln(count). The model "
                    "explicit learns which rating a user gives. The command writes checkpoint.safetensors (for "
                    "--resume and `sparseopt recommend`), run.json (a summary of the run) and loss.png.")
    ratings.set_defaults(run=_train)
    ratings.add_argument("file", type=existing_file, metavar="FILE", help="ratings or counts: text, .jsonl or .parquet")
    ratings.add_argument("--model", choices=MODELS, help="default: implicit; with --resume, that of the checkpoint")
    ratings.add_argument("--held-out", type=share, metavar="SHARE",
                         help="hold out this share of each user's items to evaluate the model: the last ones, or "
                              "without times some at random; a resumed training keeps the share of the checkpoint")
    add_reading(ratings)
    add_min_rating(ratings)
    add_run(ratings, "ratings", "continue from this checkpoint up to --epochs, with its settings; users and items may "
                                "be new")
    add_places(ratings)
    add_format(ratings)
    add_settings(ratings, [ImplicitFactorization(), MatrixFactorization()], loss="softmax, square, bpr or warp",
                 unobserved_weight="weight of every pair, with the loss square",
                 regularization="L2 penalty of the vectors, in the loss of each pair",
                 weight_decay="weight decay of the optimizer")

    recommend = commands.add_parser("recommend", help="recommend items to users")
    recommend.set_defaults(run=_recommend)
    recommend.add_argument("checkpoint", type=existing_file, metavar="CHECKPOINT")
    recommend.add_argument("users", nargs="*", metavar="USER", help="ids of users, as in the ratings")
    recommend.add_argument("--all", action="store_true", help="recommend to all users of the training")
    recommend.add_argument("--items", type=list_of(str.strip), metavar="ITEM,",
                           help="recommend to someone who was not trained on, from these items; for the model explicit "
                                "ITEM=RATING says how the item is rated")
    recommend.add_argument("--like", metavar="ITEM",
                           help="id of an item: print the most similar items, instead of items for users")
    recommend.add_argument("--seen", type=existing_file, metavar="FILE",
                           help="ratings, whatever their value, whose items are not recommended again")
    recommend.add_argument("--titles", type=existing_file, metavar="FILE",
                           help="titles of items: text, .jsonl or .parquet, with ids and titles in columns of "
                                "well-known names, such as movieId and title, or StockCode and Description; else in "
                                "the first two columns")
    recommend.add_argument("-n", type=count, default=10, metavar="N", help="number of items (default: 10)")
    recommend.add_argument("--output", type=Path, metavar="FILE",
                           help="write the table to this file instead: .csv, .tsv, .json, .jsonl or .parquet")
    add_reading(recommend, "The options below are for FILE of --seen (default: as in training)")
    add_format(recommend)

    evaluate = evaluate_commands.add_parser(
        "ratings", help="measure how well a recommender predicts ratings",
        description="Measure how well a recommender predicts ratings. For the model implicit, a hit is a held-out item "
                    "among the K recommended items. precision: hits, divided by the most that are possible (K, or "
                    "fewer where a user has fewer held-out items); recall: the mean share of a user's held-out items "
                    "that are hits; ndcg: hits weighted by their rank, divided by the best possible; map: the sum of "
                    "the precision at the rank of each hit, divided by the most hits that are possible. For the model "
                    "explicit: the root mean squared error of the ratings. The last column has the same measure of "
                    "what is most popular in --seen, or of the mean of the training's ratings alone.")
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("checkpoint", type=existing_file, metavar="CHECKPOINT")
    evaluate.add_argument("file", type=existing_file, metavar="FILE", help="ratings that the model was not trained on")
    evaluate.add_argument("--seen", type=existing_file, metavar="FILE",
                          help="ratings that the model was trained on, whose items are not recommended")
    evaluate.add_argument("-k", type=count, metavar="K", help="number of items to recommend (default: 10)")
    add_reading(evaluate, "The options below are for the files (default: as in training)")
    add_format(evaluate)


def add_reading(parser: argparse.ArgumentParser, about: str | None = None) -> None:
    """Add the options that say how files of ratings are read."""
    group = parser.add_argument_group("how files are read", about)
    group.add_argument("--columns", type=_columns, metavar="ROLE=COLUMN,",
                       help="which column is which, by name or by position from 0: user=who,item=2,rating=stars; the "
                            "roles are user, item, rating or weight (a count), and time; `time=` says that there is "
                            "none (default: by well-known names; without names user,item,rating,time)")
    group.add_argument("--sep", metavar="TEXT", help="separator of the columns (default: found out)")
    group.add_argument("--no-header", dest="header", action="store_const", const=False,
                       help="the first line has no names (default: found out)")
    group.add_argument("--encoding", metavar="NAME", help="encoding of the text (default: utf-8)")
    group.add_argument("--weights", action="store_const", const=True,
                       help="the values are counts, such as plays, whatever the name of their column")
    group.add_argument("--duplicates", choices=["last", "first", "mean", "sum", "max"],
                       help="which rating counts if a user has rated an item more than once (default: last; sum for "
                            "counts)")


def add_min_rating(parser: argparse.ArgumentParser) -> None:
    """Add the option --min-rating, which goes with the model implicit."""
    parser.add_argument("--min-rating", type=float, metavar="X",
                        help="for implicit: the least rating of an item that counts as chosen (default: four fifths of "
                             "the highest rating, which is 4 of 5)")


def _columns(text):
    columns = {}
    for part in text.split(","):
        role, equals, column = part.partition("=")
        if not equals or role in columns:
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it must be user=COLUMN,item=COLUMN,...")
        columns[role] = column or None
    return columns


def reading(options: argparse.Namespace, stored: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the arguments of `read_ratings` that the options of `add_reading` give; others are as stored."""
    found = {name: getattr(options, name) for name in _READING if getattr(options, name) is not None}
    if stored and found.get("columns"):             # positions of the file of the training mean nothing in another one
        stored = {**stored, "columns": None}
    how = {**_READING, **(stored or {}), **found}
    try:
        datasets.ratings.check_reading(**how)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    return how


def as_arguments(options: argparse.Namespace) -> list[str]:
    """Return the options of `add_reading` and `add_min_rating` as they stand on a command line."""
    words = []
    for name in ("sep", "encoding", "duplicates", "min_rating"):
        value = getattr(options, name)
        words += [] if value is None else [flag(name), str(value)]
    if options.columns:
        given = (f"{role}={'' if column is None else column}" for role, column in options.columns.items())
        words += ["--columns", ",".join(given)]
    return words + ["--no-header"] * (options.header is False) + ["--weights"] * bool(options.weights)


def read(out: Output, path: Path, how: dict[str, Any], kind: type,
         chosen: dict[str, Any]) -> tuple[datasets.Ratings, dict[str, Any]]:
    """Read the ratings that a model of this kind learns, and say how they were read and what was left out.

    `chosen` has the arguments of `Ratings.chosen`. It is returned with the values that were used.
    """
    ratings = _read(out, path, how)
    chosen = dict(chosen)
    if kind is MatrixFactorization:
        if ratings.counts:
            raise ValueError(f"{path}: there are no ratings, but counts ({ratings.columns}); the model explicit "
                             "learns ratings. Leave --model out, or name their column by --columns rating=...")
        if "unrated" not in chosen:
            chosen["unrated"] = ratings.unrated()
        if chosen["unrated"] is not None:
            rated = ratings.where(ratings.values != chosen["unrated"])
            out.say(f"{path.name}: {len(ratings) - len(rated):,} ratings are {chosen['unrated']:g}, which is no rating "
                    "here; they are left out")
            ratings = rated
        return ratings, chosen
    if ratings.counts:
        found = ratings.chosen(chosen.get("min_rating"))
        gone = len(ratings) - len(found)
        ones = (ratings.values == 1).all()
        out.say(f"{path.name}: "
                + ("each pair has the weight 1" if ones else "counts; the weight of a pair is 1 + ln(count)")
                + (f"; {gone:,} pairs whose count is not above 0 are left out" if gone else ""))
        return found, chosen
    default = chosen.get("min_rating") is None
    if default:
        chosen = {"min_rating": ratings.default_min_rating(), "unrated": ratings.unrated()}
    found = ratings.chosen(**chosen)
    out.say(f"{path.name}: ratings of at least {chosen['min_rating']:g} count as chosen"
            + (f" (four fifths of the highest, {ratings.values.max():g})" if default else "")
            + (f", and {chosen['unrated']:g}, which is no rating here" if chosen.get("unrated") is not None else "")
            + f"; {len(ratings) - len(found):,} other ratings are left out (--min-rating)")
    return found, chosen


def _read(out, path, how):
    """Read ratings, each pair once, and say how they were read."""
    with out.status(f"reading {path.name}"):
        ratings = datasets.read_ratings(path, **how)
    out.say(f"{path.name}: {ratings.columns}")
    if ratings.left_out:
        out.say(f"{path.name}: rows with an empty cell (or NA, NaN, null), which are left out: {ratings.left_out:,}")
    if ratings.merged:
        rule = how["duplicates"] or ("sum" if ratings.counts else "last")
        out.say(f"{path.name}: rows that repeat a pair of a user and an item: {ratings.merged:,}; of each pair, the "
                f"{rule} {'of its counts' if ratings.counts else 'rating'} is kept (--duplicates)")
    return ratings


def _train(options):
    out, run = Output(options), Run(options, "ratings")
    if options.min_rating is not None and options.model == "explicit":
        raise UsageError("--min-rating does not go with --model explicit")
    if options.resume:
        model, stored = _loaded(options.resume)
        trained = next(name for name, kind in MODELS.items() if kind is type(model))
        if options.model not in (None, trained):
            raise UsageError(f"--model is {options.model}, and {options.resume} is a checkpoint of the model "
                             f"{trained}; leave --model out")
        options.model = trained
        settings = {name: value for name, value in given(options, model, MODELS.values()).items() if name != "epochs"}
        if settings or options.min_rating is not None:
            raise UsageError(f"{flag(next(iter(settings), 'min_rating'))} does not go with --resume: the checkpoint "
                             "has this setting")
        model.epochs = options.epochs or model.epochs
        how, chosen, held_out = reading(options, stored["reading"]), stored["chosen"], stored["held_out"]
        if options.held_out not in (None, held_out):
            raise UsageError(f"--held-out is {options.held_out:g}, and the checkpoint was trained with "
                             f"{f'{held_out:g}' if held_out else 'nothing'} held out; ratings that a model was trained "
                             "on cannot be held out later")
    else:
        options.model = options.model or "implicit"
        kind = MODELS[options.model]
        model, stored = kind(**given(options, kind(), MODELS.values())), None
        how, chosen, held_out = reading(options), {"min_rating": options.min_rating}, options.held_out
    run.tables = place(options, model)
    ratings, chosen = read(out, options.file, how, type(model), chosen)
    train, test = parts(out, ratings, held_out, model)
    X, test = train.matrix(), None if test is None else test.matrix()
    at_random = _checksum(test) if held_out and ratings.times is None else None
    if stored and at_random != stored["at_random"]:
        raise ValueError(f"{options.file}: what was held out at random is known only for the ratings of the training, "
                         "in the same order and with times only if these had times; train a new model")
    out.say(f"{options.file.name}: {X.nnz:,} ratings of {X.shape[1]:,} items by {X.shape[0]:,} users"
            + (f", {test.nnz:,} others held out" if test is not None else ""))
    with closing(model):
        run.train(out, model, lambda show: model.partial_fit(train, show), "ratings",
                  (lambda: measures(model, X, test, 10)) if test is not None else None, reading=how, chosen=chosen,
                  held_out=held_out, at_random=at_random)
        quality, beside = ({}, {}) if test is None else (measures(model, X, test, 10), _baseline(model, X, test, 10))
        if quality:
            _print_measures(out, model, test, quality, beside)
        run.finish(out, model, "mean loss of a rating",
                   quality=quality | {f"{name}, {_baseline_name(model)}": value for name, value in beside.items()},
                   data={"file": str(options.file), "columns": ratings.columns, "ratings": X.nnz, "users": X.shape[0],
                         "items": X.shape[1]})
    return 0


def parts(out: Output, ratings: datasets.Ratings, held_out: float | None, model: Model | None = None,
          seed: int = 0) -> tuple[datasets.Ratings, datasets.Ratings | None]:
    """Return the training set, and the test set or None. The ids that a model knows come first."""
    if hasattr(model, "user_ids_"):
        ratings = renumbered(ratings, model.user_ids_, model.item_ids_)
    if not held_out:
        return ratings, None
    if ratings.times is None:
        out.say("there are no times; what is held out is drawn at random")
        train, test = evaluation.train_test_split_at_random(ratings.users, held_out, ratings.items, seed)
    else:
        train, test = evaluation.train_test_split_by_time(ratings.users, ratings.times, held_out, ratings.items)
    if not len(test):
        raise ValueError(f"no user has enough items to hold out {held_out:g} of these; the share must be larger, "
                         "or left out")
    return ratings[train], ratings[test]


def _checksum(test):
    """A number that tells the pairs of a matrix from other pairs."""
    test.sort_indices()
    return zlib.crc32(test.indices.astype("<i8").tobytes(), zlib.crc32(test.indptr.astype("<i8").tobytes()))


def _loaded(path):
    """A model and the metadata of its checkpoint."""
    stored = checkpoint.load(path).metadata
    by_name = {kind.__name__: kind for kind in MODELS.values()}
    kind = by_name.get(stored.get("model_type"))
    if kind is None or not {"user_ids", "item_ids", "reading", "chosen", "held_out"} <= set(stored):
        raise ValueError(f"{path}: not a checkpoint of `sparseopt train ratings`")
    return kind.load(path), stored


def _known(ratings, model):
    """The ratings of users and items that the model knows, as a matrix, and the number of all other ratings."""
    X, known = known_pairs(ratings, model.user_ids_, model.item_ids_)
    return X, int((~known).sum())


def _seen(out, path, how, model):
    """What users have rated, whatever the rating."""
    seen, _ = _known(_read(out, path, how), model)
    if not seen.nnz:
        raise ValueError(f"{path}: there is no rating of a user and an item that the model knows; there must be at "
                         "least one")
    return seen


def _evaluate(options):
    out = Output(options)
    reading(options)
    model, stored = _loaded(options.checkpoint)
    for option, value in (("--seen", options.seen), ("-k", options.k)):
        if value and isinstance(model, MatrixFactorization):
            raise UsageError(f"{option} does not go with a model explicit, which is measured by its ratings alone")
    how = reading(options, stored["reading"])
    if not options.seen and not isinstance(model, MatrixFactorization):
        out.say("without --seen, items of the training take places among the recommended ones; --seen FILE leaves "
                "out the items that users have in FILE")
    ratings, _ = read(out, options.file, how, type(model), stored["chosen"])
    test, unknown = _known(ratings, model)
    if not test.nnz:
        raise ValueError(f"{options.file}: there is no rating of a user and an item that the model knows; there must "
                         "be at least one")
    if unknown:
        out.say(f"{options.file.name}: {unknown:,} ratings of users or items that the model does not know are left out")
    seen = _seen(out, options.seen, how, model) if options.seen else sp.csr_array(test.shape, dtype=np.float32)
    pattern = sp.csr_array((np.ones(seen.nnz, np.float32), seen.indices, seen.indptr), shape=seen.shape)
    again = test.multiply(pattern).tocsr()
    if again.nnz == test.nnz:
        raise ValueError(f"{options.file}: all pairs of users and items are in {options.seen} (--seen), too, so none "
                         "is recommended; at least one must be new")
    if again.nnz:
        test = (test - again).tocsr()
        test.eliminate_zeros()
        out.say(f"{options.file.name}: {again.nnz:,} ratings whose user and item are in {options.seen.name}, too, are "
                "left out: such items are not recommended")
    k = options.k or 10
    _print_measures(out, model, test, measures(model, seen, test, k),
                    _baseline(model, seen if options.seen else None, test, k))
    return 0


def measures(model: ImplicitFactorization | MatrixFactorization, X: sp.csr_array, test: sp.csr_array,
             k: int) -> dict[str, float]:
    """The quality of a model on held-out ratings, as a dict. X has the ratings that it was trained on."""
    if isinstance(model, MatrixFactorization):
        return {_RMSE: -model.score(test)}
    return _at(k, evaluation.evaluate(model, X, test, min(k, test.shape[1])))


def _at(k, found):
    """Measures as the command names them. AUC at k takes most pairs as ordered at random, so it says little."""
    return {f"{name} at {k}": float(value) for name, value in found.items() if name != "auc"}


def _baseline(model, X, test, k):
    """The measures of a prediction that knows nothing of a user. Without X nobody knows what is popular."""
    if isinstance(model, MatrixFactorization):
        return {_RMSE: float(np.sqrt(np.mean((test.data - model.mean_) ** 2)))}
    return {} if X is None else _at(k, evaluation.evaluate(_Popular(X), X, test, min(k, test.shape[1])))


def _baseline_name(model):
    return "of the mean alone" if isinstance(model, MatrixFactorization) else "by popularity"


class _Popular:
    """Recommends to everybody the items that most users of the training have."""

    def __init__(self, X):
        self._order = np.argsort(-np.bincount(X.indices, minlength=X.shape[1]), kind="stable")

    def recommend(self, users, n, seen):
        items = np.full((len(users), n), -1)
        for row, user in enumerate(users.tolist()):
            own = seen.indices[seen.indptr[user]:seen.indptr[user + 1]]
            best = self._order[:n + len(own)]
            best = best[~np.isin(best, own)][:n]
            items[row, :len(best)] = best
        return items, None


def _print_measures(out, model, test, found, beside):
    out.table([("ratings held out", ",d"), "measure", ("value", ".4f"), (_baseline_name(model), ".4f")],
              [(test.nnz, name, value, beside.get(name)) for name, value in found.items()])
    name, less = (_RMSE, 1) if isinstance(model, MatrixFactorization) else (next(n for n in found if "ndcg" in n), -1)
    if name in beside and less * (found[name] - beside[name]) > 0:
        what = ("the mean of all ratings predicts" if less > 0 else "what is popular would suit these users")
        out.say(f"warning: {what} better than this model ({name}: {beside[name]:.4f} against {found[name]:.4f}); more "
                "--epochs, another --regularization or another --lr may help")


def _recommend(options):
    out = Output(options)
    ways = {"USER": options.users, "--all": options.all, "--items": options.items, "--like": options.like}
    asked = [way for way, value in ways.items() if value]
    if len(asked) != 1:
        raise UsageError(f"{' and '.join(asked) or 'nothing'} is given; exactly one of USER, --all, --items and --like "
                         "must be")
    if options.seen and asked[0] in ("--items", "--like"):
        raise UsageError(f"--seen does not go with {asked[0]}, which takes no user of the file")
    if options.output:
        check_table_path("--output", options.output)
    reading(options)
    model, stored = _loaded(options.checkpoint)
    ids = model.item_ids_
    titles = _titles(out, options, model, stored) if options.titles else None
    seen = _seen(out, options.seen, reading(options, stored["reading"]), model) if options.seen else None
    if seen is None and asked[0] in ("USER", "--all"):
        out.say("items that a user had in the training may come again; --seen FILE leaves out the items that users "
                "have in FILE")
    if options.like:
        found = [(options.like, *model.similar_items(_known_ids(options, [options.like], ids, "item")[0],
                                                     min(options.n, len(ids) - 1)))]
    elif options.items:
        found = [(None, *_for_items(options, model))]
    else:
        users = model.user_ids_.tolist()
        if not options.all:
            users = _known_ids(options, options.users, model.user_ids_, "user")
        found = _for_users(model, users, min(options.n, len(ids)), seen)

    def rows():
        for one, items, scores in found:
            for item, score in zip(items.tolist(), scores.tolist(), strict=True):
                if score > -np.inf:             # else fewer items than asked for are left
                    title = [] if titles is None else [titles.get(str(item), "")]
                    yield (*([] if one is None else [one]), item, *title, score)

    columns = [*{"--like": ["like"], "--items": []}.get(asked[0], ["user"]), "item",
               *([] if titles is None else ["title"]), ("score", ".3f")]
    if options.output:
        write_table(options.output, columns, rows())
        out.say(f"written: {options.output}")
    else:
        out.table(columns, rows(), grouped=not options.items)
    return 0


def _for_users(model, users, n, seen):
    """Yield the id of each user, with items and scores."""
    for start in range(0, len(users), _AT_ONCE):
        some = users[start:start + _AT_ONCE]
        yield from zip(some, *model.recommend(some, n, seen), strict=True)


def _for_items(options, model):
    """Items and scores for someone who was not trained on."""
    items, ratings, ids = options.items, None, model.item_ids_
    rated = [item for item in items if "=" in item and item not in ids]
    if rated and not isinstance(model, MatrixFactorization):
        raise UsageError(f"--items has {rated[0]}; ratings go with the model explicit only, and this is a checkpoint "
                         "of the model implicit. Give the ids of the items alone")
    if rated:
        try:
            items, ratings = zip(*((item, float(rating)) for item, rating in (one.rsplit("=", 1) for one in items)),
                                 strict=True)
        except ValueError:
            raise UsageError(f"--items is {','.join(options.items)}; either all items must have a rating, as in "
                             "ITEM=RATING, or none") from None
    known = _known_ids(options, items, ids, "item")
    again = [item for place, item in enumerate(items) if known[place] in known[:place]]
    if again:
        raise UsageError(f"--items has {again[0]} twice; each item must be there once")
    n = min(options.n, len(ids))
    return model.recommend_for(known, n) if ratings is None else model.recommend_for(known, n, ratings)


def _known_ids(options, wanted, ids, what):
    """The ids of the model that stand on the command line, as texts."""
    found = [datasets.ratings.as_integer(one) for one in wanted] if ids.dtype.kind == "i" else list(wanted)
    known = set(ids.tolist())
    unknown = [text for text, one in zip(wanted, found, strict=True) if one not in known]
    if unknown:
        spaces = "; spaces, not commas, stand between users" if what == "user" and "," in unknown[0] else ""
        raise ValueError(f"{options.checkpoint}: the model does not know {what} {unknown[0]}; it must be an id of the "
                         f"ratings that the model was trained on, such as {ids[0]}{spaces}")
    return found


def _titles(out, options, model, stored):
    """From ids of items, as texts, to titles."""
    path, ids, how = options.titles, model.item_ids_.tolist(), options.encoding or "utf-8"
    try:
        titles = datasets.ratings.read_titles(path, how)
    except ValueError:
        if options.encoding:
            raise
        how = "latin-1" if stored["reading"]["encoding"] == "utf-8" else stored["reading"]["encoding"]
        titles = datasets.ratings.read_titles(path, how)
        out.say(f"{path.name}: its bytes are no UTF-8; read as {how} (--encoding)")
    known = set(map(str, ids))
    if known.isdisjoint(titles):                # the column by name can have numbers of another catalogue
        titles = datasets.ratings.read_titles(path, how, by_name=False)
    if known.isdisjoint(titles):
        raise ValueError(f"--titles: {path} has no id of an item that the model knows; a column with a well-known name "
                         f"of items, or the first column, must have such ids as {ids[0]}")
    return titles
