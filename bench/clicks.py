"""Train click models on a generated click log, whose true model is known, beside scikit-learn and Vowpal Wabbit.

    python bench/clicks.py [--rows N] [--zipf S] [--dim D] [--threads T]

The log is drawn chunk by chunk, and every model trains on a chunk before the next chunk is drawn: one pass, in the
order of the rows. Times are those of training alone, without drawing the log and without writing Vowpal Wabbit's file.
Vowpal Wabbit reads a file of its own binary format (--cache_file). The file is written before the time is taken; the
time includes reading it. With --dim, the log has pairs of features that interact, and a factorization machine is
trained too.

scikit-learn and Vowpal Wabbit take part where they are installed: pip install scikit-learn vowpalwabbit.
"""

import argparse
import os
import tempfile
import time

import numpy as np

import sparseopt as so
from sparseopt import datasets, evaluation
from sparseopt.models import FactorizationMachineClassifier, LogisticRegression


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--zipf", type=float, default=1.4)
    parser.add_argument("--dim", type=int, default=0, help="length of the true model's vectors; 0: no pairs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=100_000)
    options = parser.parse_args()
    so.set_num_threads(options.threads)
    log = datasets.ClickLog(zipf=options.zipf, dim=options.dim)
    test = next(log.rows(200_000, chunk=200_000, seed=2))
    models = candidates(options)
    seconds = dict.fromkeys(models, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        wabbit = Wabbit(folder)
        seen = set()
        for X, y, _ in log.rows(options.rows, chunk=options.chunk, seed=1):
            for name, model in models.items():
                begin = time.perf_counter()
                model.partial_fit(X, y, classes=[0, 1])
                seconds[name] += time.perf_counter() - begin
            seen.update(np.unique(X.indices).tolist())
            wabbit.write(X, y)
        report(options, log, test, len(seen))
        for name, model in models.items():
            line(name, model.predict_proba(test[0])[:, 1], test, seconds[name] / options.rows)
        for name, arguments in wabbit.candidates().items():
            p, taken = wabbit.train(arguments, test)
            line(name, p, test, taken / options.rows)


def candidates(options):
    models = {
        "LogisticRegression, Ftrl, l1=1": LogisticRegression(l1=1.0, shuffle=False),
        "LogisticRegression, Ftrl, l1=1, batches of 4096": LogisticRegression(l1=1.0, shuffle=False, batch_size=4096),
        "LogisticRegression, Adagrad": LogisticRegression(optimizer="Adagrad", shuffle=False),
        "LogisticRegression, Adam": LogisticRegression(optimizer="Adam", shuffle=False),
    }
    if options.dim:
        models["FactorizationMachineClassifier, Ftrl"] = FactorizationMachineClassifier(dim=options.dim, shuffle=False)
    try:
        from sklearn.linear_model import SGDClassifier
    except ImportError:
        return models
    # The best of twenty settings tried on this log. With its default settings, the excess over the true loss doubles.
    best = dict(loss="log_loss", alpha=1e-7, learning_rate="constant", shuffle=False)
    return models | {"SGDClassifier, eta0=0.02, average": SGDClassifier(eta0=0.02, average=True, **best),
                     "SGDClassifier, eta0=0.003": SGDClassifier(eta0=0.003, **best)}


class Wabbit:
    """Vowpal Wabbit: the log is written as text, Vowpal Wabbit makes its cache of the text, and trains on the cache."""

    def __init__(self, folder):
        try:
            import vowpalwabbit
        except ImportError:
            self.module = None
            return
        self.module = vowpalwabbit
        self.path = os.path.join(folder, "train")

    def write(self, X, y):
        if self.module is None:
            return
        with open(self.path, "a") as file:
            for start, stop, click in zip(X.indptr[:-1].tolist(), X.indptr[1:].tolist(), y.tolist(), strict=True):
                file.write(f"{1 if click else -1} | {' '.join(map(str, X.indices[start:stop].tolist()))}\n")

    def candidates(self):
        if self.module is None:
            return {}
        common = "--loss_function logistic -b 20 --no_stdin --quiet"
        more = {"Vowpal Wabbit": "", "Vowpal Wabbit, -l 0.1": "-l 0.1",
                "Vowpal Wabbit, --ftrl": "--ftrl --ftrl_alpha 0.1 --ftrl_beta 1 --l1 1"}
        return {name: f"{common} {argument}" for name, argument in more.items()}

    def train(self, arguments, test):
        """Probabilities of the test rows, and the seconds that training took on the cache."""
        cache = self.path + ".cache"
        if not os.path.exists(cache):
            self.module.Workspace(f"--data {self.path} --cache_file {cache} {arguments}").finish()      # writes it
        begin = time.perf_counter()
        model = self.module.Workspace(f"--data {self.path} --cache_file {cache} {arguments}")      # reads the cache
        taken = time.perf_counter() - begin
        X = test[0]
        scores = [model.predict(f"| {' '.join(map(str, X.indices[start:stop].tolist()))}")
                  for start, stop in zip(X.indptr[:-1].tolist(), X.indptr[1:].tolist(), strict=True)]
        model.finish()
        return 1 / (1 + np.exp(-np.array(scores))), taken


def report(options, log, test, seen):
    X, y, p = test
    print(f"{options.rows:,} rows of {X.nnz // len(y)} values, {seen:,} of {len(log.weights):,} features seen, "
          f"{y.mean():.1%} clicks, {options.threads} thread{'s' if options.threads > 1 else ''}; "
          f"{len(y):,} rows held out")
    print(f"{'':50s} {'log-loss':>9s} {'over true':>10s} {'AUC':>7s} {'s/M rows':>9s}")
    print(f"{'the true model':50s} {evaluation.log_loss(y, p):9.5f} {'':>10s} {evaluation.auc(y, p):7.4f}")


def line(name, predicted, test, seconds):
    _, y, p = test
    loss = evaluation.log_loss(y, predicted)
    print(f"{name:50s} {loss:9.5f} {loss / evaluation.log_loss(y, p) - 1:+10.2%} {evaluation.auc(y, predicted):7.4f} "
          f"{1e6 * seconds:9.2f}", flush=True)


if __name__ == "__main__":
    main()
