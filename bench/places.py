"""Models trained in memory, on a disk, on shards of this process and on Ray: quality, time, and whether bits are equal.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python bench/places.py [--ratings FILE] [--texts FILE...] [--pairs FILE]
        [--share N] [--epochs N] [--places "memory;disk;..."]

FILE of --ratings is ratings.csv of ml-latest-small (grouplens.org/datasets/movielens). A user likes a film from a
rating of 4 on. The last fifth of the films that each user likes is held out. `--share 3` takes every third thousand of
sentences of the texts. FILE of --pairs has pairs of words with people's judgement; without it, gensim's wordsim353.tsv
is taken if gensim is installed. The disk has a cache of half the rows. "start" has the seconds until the first step is
over, and "seconds" those of all other steps. Ray takes part where it is installed: pip install 'sparseopt[sharded]'.
"""

import argparse
import functools
import importlib.util
import tempfile
import time

import numpy as np

import sparseopt as so
from sparseopt import datasets, evaluation
from sparseopt.models import ImplicitFactorization, SkipGram
from sparseopt.models.words import sentences, word_similarity


def sharded(engine, shards, workers):
    return functools.partial(so.sharded.Tables, engine=engine, shards=shards, workers=workers)


def on_disk(folder, rows, optimizer):
    cache = {name: max(each.n_rows // 2, min(each.n_rows, 8192)) for name, each in rows.items()}
    return so.DiskTables(folder, rows, optimizer, cache_rows=cache)


PLACES = {
    "memory": None, "disk": on_disk, "local, 1 shard": sharded("local", 1, 1),
    "local, 4 shards": sharded("local", 4, 1), "local, 4 shards, 2 workers": sharded("local", 4, 2),
    "ray, 2 shards": sharded("ray", 2, 1), "ray, 2 shards, 2 workers": sharded("ray", 2, 2),
}


def films(path):
    """Return what trains a recommender, and what measures it."""
    ratings = datasets.read_ratings(path)
    liked = ratings.where(ratings.values >= 4)
    fit, held_out = evaluation.train_test_split_by_time(liked.users, liked.times)
    train, test = liked.matrix(fit), liked.matrix(held_out)
    train.data[:] = 1
    print(f"\nImplicitFactorization: {train.nnz:,} pairs of {train.shape[0]:,} users and {train.shape[1]:,} items")
    return (lambda tables, show: ImplicitFactorization(tables=tables).fit(train, show),
            lambda model: evaluation.evaluate(model, train, test, 10)["ndcg"], "NDCG@10")


def novels(paths, share, epochs, pairs):
    """Return what trains word vectors, and what measures these."""
    text = [sentence for page in datasets.read_texts(paths) for sentence in sentences(page)]
    text = [sentence for start in range(0, len(text), 1000 * share) for sentence in text[start:start + 1000]]
    print(f"\nSkipGram: {sum(map(len, text)):,} words, {epochs} epochs")
    return (lambda tables, show: SkipGram(tables=tables, epochs=epochs).fit(text, show),
            lambda model: word_similarity(model.words_, model.vectors_, pairs)[0] if pairs else np.nan, "similarity")


class Clock:
    """A callback that notes when the first step was over."""

    def __init__(self):
        self.begin, self.first, self.steps = time.perf_counter(), None, 0

    def __call__(self, progress):
        self.steps += 1
        if self.first is None:
            self.first = time.perf_counter()


def compare(train, measure, unit, places):
    print(f"{'':28}{unit:>12}{'start':>8}{'seconds':>9}{'steps/s':>9}   bits of memory")
    memory = None
    with tempfile.TemporaryDirectory() as folder:
        for name in places:
            tables, clock = PLACES[name], Clock()
            model = train(functools.partial(on_disk, folder) if tables is on_disk else tables, clock)
            end = time.perf_counter()
            arrays = {table: array.tobytes() for table, array in model.optimizer_.params.items()}
            memory = memory or (arrays, model.loss_curve_)
            same = "yes" if memory == (arrays, model.loss_curve_) else "no"
            print(f"{name:28}{measure(model):12.4f}{clock.first - clock.begin:8.1f}{end - clock.first:9.1f}"
                  f"{clock.steps / (end - clock.first):9,.0f}   {same}", flush=True)
            if model.store_ is not None:
                model.store_.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ratings", metavar="FILE")
    parser.add_argument("--texts", metavar="FILE", nargs="+")
    parser.add_argument("--pairs", metavar="FILE")
    parser.add_argument("--share", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--places", metavar="NAME;...", type=lambda text: text.split(";"), default=list(PLACES))
    options = parser.parse_args()
    if options.pairs is None and importlib.util.find_spec("gensim"):
        from gensim.test.utils import datapath

        options.pairs = datapath("wordsim353.tsv")
    places = [name for name in options.places if not name.startswith("ray") or importlib.util.find_spec("ray")]
    if options.ratings:
        compare(*films(options.ratings), places)
    if options.texts:
        compare(*novels(options.texts, options.share, options.epochs, options.pairs), places)


if __name__ == "__main__":
    main()
