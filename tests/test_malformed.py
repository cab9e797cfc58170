"""scipy arrays whose parts were broken behind its checks: each is refused with an error, at every entry point.

In scipy's loops such parts end the process. So every format has a process of its own, whose program is this file.
"""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal

import sparseopt as so
from sparseopt.embedding import matmul
from sparseopt.evaluation import evaluate, ranking_metrics
from sparseopt.models import (
    FactorizationMachineClassifier,
    FactorizationMachineRegressor,
    GloVe,
    ImplicitFactorization,
    LogisticRegression,
    MatrixFactorization,
)

N = 12
STORED = np.add.outer(np.arange(N), 5 * np.arange(N)) % 3 == 0
GOOD = sp.csr_array(np.where(STORED, 1 + np.arange(N), 0).astype(np.float32))
Y = np.arange(N) % 2


def ways(kind):
    """From a name to a function that breaks an array of this format."""
    def part(name, change):
        return lambda X: setattr(X, name, change(getattr(X, name)))

    def at(name, place, value):
        def change(X):
            getattr(X, name)[place] = value
        return change

    def coords(change):
        return lambda X: setattr(X, "coords", change(X.coords))

    values = {
        "data short": part("data", lambda a: a[:-1]), "data long": part("data", lambda a: np.concatenate([a, a])),
        "data flat": part("data", lambda a: a.reshape(1, 1, 1, -1)), "data a list": part("data", np.ndarray.tolist),
        "data masked": part("data", np.ma.masked_array), "data None": part("data", lambda a: None),
    }
    compressed = {
        "indptr large": at("indptr", 4, 10**6), "indptr largest": at("indptr", 4, 2**31 - 1),
        "indptr falls": at("indptr", 4, 0),
        "indptr negative": at("indptr", 4, -(2**31)), "indptr from 1": at("indptr", 0, 1),
        "indptr end": at("indptr", -1, 10**6),
        "indptr short": part("indptr", lambda a: a[:-1]), "indptr long": part("indptr", lambda a: np.append(a, a[-1])),
        "indptr empty": part("indptr", lambda a: a[:0]), "indptr of floats": part("indptr", lambda a: a + 0.5),
        "indptr 2-D": part("indptr", lambda a: a[None]), "indptr a list": part("indptr", np.ndarray.tolist),
        "indices large": at("indices", 3, N), "indices largest": at("indices", 3, 2**31 - 1),
        "indices negative": at("indices", 3, -1), "indices least": at("indices", 3, -(2**31)),
        "indices short": part("indices", lambda a: a[:-1]), "indices long": part("indices", lambda a: np.append(a, a)),
        "indices of floats": part("indices", lambda a: a.astype(np.float64)),
        "indices None": part("indices", lambda a: None), "indices 2-D": part("indices", lambda a: a[:, None]),
        "indices wide": part("indices", lambda a: a.astype(np.int64) + 2**40),
        "indices unsigned": part("indices", lambda a: np.full(len(a), 2**64 - 1, np.uint64)), **values,
    }
    return {
        "csr": compressed, "csc": compressed,
        "bsr": {**compressed, "blocks too wide": part("data", lambda a: a.reshape(len(a), 1, -1).repeat(5, axis=2)),
                "blocks too high": part("data", lambda a: a.repeat(4, axis=1)),
                "blocks empty": part("data", lambda a: a[:, :0])},
        "coo": {
            "row large": coords(lambda c: (c[0] + N, c[1])),
            "column large": coords(lambda c: (c[0], c[1].astype(np.int64) + 2**31)),
            "row negative": coords(lambda c: (c[0] - 1, c[1])),
            "column least": coords(lambda c: (c[0], c[1].astype(np.int64) - 2**31)),
            "rows short": coords(lambda c: (c[0][:-1], c[1])),
            "columns long": coords(lambda c: (c[0], np.append(c[1], 0))),
            "rows of floats": coords(lambda c: (c[0] + 0.5, c[1])), "rows alone": coords(lambda c: c[:1]),
            "columns of texts": coords(lambda c: (c[0], c[1].astype(str))), "none": coords(lambda c: None),
            "three of them": coords(lambda c: (*c, c[0])),
            "lists": coords(lambda c: (c[0].tolist(), c[1].tolist())), **values,
        },
        "dia": {
            "offset large": at("offsets", 0, N), "offset largest": at("offsets", 0, 2**31 - 1),
            "offset least": at("offsets", 0, -(2**31)), "offset twice": lambda X: X.offsets.put(0, X.offsets[1]),
            "offsets short": part("offsets", lambda a: a[:-1]), "offsets of floats": part("offsets", lambda a: a + 0.5),
            "offsets None": part("offsets", lambda a: None), **values,
        },
        "lil": {
            "column large": lambda X: X.rows[0].__setitem__(-1, N),
            "column negative": lambda X: X.rows[0].__setitem__(0, -1),
            "column huge": lambda X: X.rows[0].__setitem__(0, 2**70),
            "column a float": lambda X: X.rows[0].__setitem__(0, 0.5),
            "column None": lambda X: X.rows[0].__setitem__(0, None), "row long": lambda X: X.rows[0].append(1),
            "values long": lambda X: X.data[0].append(1.0), "a value a text": lambda X: X.data[0].__setitem__(0, "x"),
            "a value a list": lambda X: X.data[0].__setitem__(0, [1.0]), "row None": at("rows", 2, None),
            "row a text": at("rows", 2, "abc"), "rows short": part("rows", lambda a: a[:-1]),
            "rows None": part("rows", lambda a: None), **values,
        },
        "dok": {
            name: lambda X, key=key, value=value: X._dict.__setitem__(key, value) for name, key, value in [
                ("row large", (N, 0), 1.0), ("column large", (0, 2**40), 1.0), ("row negative", (-1, 0), 1.0),
                ("column huge", (0, 2**70), 1.0), ("three numbers", (0, 1, 2), 1.0), ("one number", (0,), 1.0),
                ("no tuple", 3, 1.0), ("a float", (0.5, 1), 1.0), ("a text", ("0", "1"), 1.0),
                ("a value a text", (0, 1), "x"), ("a value a list", (0, 1), [1.0])]
        },
    }[kind]


def entry_points():
    """From a name to a function of X; in every one of them, the error has to name what the user calls X."""
    opt = so.SGD(so.zeros((N, N)), lr=1.0)
    several = so.SGD({"a": so.zeros((N, N))}, lr=1.0)
    waiting = so.training.Accumulator(so.SGD(so.zeros((N, N)), lr=1.0), every=2)
    dY = np.ones((N, N), np.float32)
    how = {"epochs": 1, "random_state": 0}
    linear, machine = LogisticRegression(**how).fit(GOOD, Y), FactorizationMachineClassifier(**how).fit(GOOD, Y)
    regressor = FactorizationMachineRegressor(**how).fit(GOOD, Y)
    ratings, choices = MatrixFactorization(dim=2, **how).fit(GOOD), ImplicitFactorization(dim=2, **how).fit(GOOD)
    words = GloVe(dim=2, **how).fit(GOOD)
    best = np.zeros((N, 1), int)
    return {
        "step": (opt, lambda X: opt.step(X), "gradient"),
        "step of several tables": (several, lambda X: several.step({"a": X}), 'gradient of "a"'),
        "step of a product": (opt, lambda X: opt.step(so.MatmulGradient(X, dY)), "X|gradient"),
        "Accumulator": (opt, lambda X: waiting.step(X), "gradient"),
        "Accumulator of a product": (opt, lambda X: waiting.step(so.MatmulGradient(X, dY)), "X|gradient"),
        "matmul": (opt, lambda X: matmul(X, dY), "X"),
        "matmul of a vector": (opt, lambda X: matmul(X, dY[0]), "X"),
        **{f"{type(model).__name__}.{name}": (model.optimizer_, call, "X") for model in (linear, machine, regressor)
           for name, call in {
               "fit": lambda X, model=model: type(model)(**how).fit(X, Y),
               "partial_fit": lambda X, model=model: model.partial_fit(X, Y), "predict": model.predict,
               "score": lambda X, model=model: model.score(X, Y)}.items()},
        "predict_proba": (linear.optimizer_, linear.predict_proba, "X"),
        "decision_function": (linear.optimizer_, linear.decision_function, "X"),
        **{f"{type(model).__name__}.{name}": (model.optimizer_, call, said) for model in (ratings, choices)
           for name, call, said in [
               ("fit", lambda X, model=model: type(model)(dim=2, **how).fit(X), "X"),
               ("partial_fit", model.partial_fit, "X"),
               ("recommend", lambda X, model=model: model.recommend([0, 1], 2, seen=X), "seen")]},
        "MatrixFactorization.score": (ratings.optimizer_, ratings.score, "X"),
        "GloVe.fit": (words.optimizer_, lambda X: GloVe(dim=2, **how).fit(X), "X"),
        "GloVe.partial_fit": (words.optimizer_, words.partial_fit, "X"),
        "GloVe.score": (words.optimizer_, words.score, "X"),
        "ranking_metrics": (choices.optimizer_, lambda X: ranking_metrics(best, X), "test"),
        "evaluate, test": (choices.optimizer_, lambda X: evaluate(choices, GOOD, X, k=1), "test"),
        "evaluate, train": (choices.optimizer_, lambda X: evaluate(choices, X, GOOD, k=1), "train"),
    }


def good(kind, array=True):
    made = {"bsr": sp.bsr_array, "dia": sp.dia_array, "lil": sp.lil_array, "dok": sp.dok_array, "coo": sp.coo_array,
            "csr": sp.csr_array, "csc": sp.csc_array}[kind]
    if not array:
        made = {"bsr": sp.bsr_matrix, "dia": sp.dia_matrix, "lil": sp.lil_matrix, "dok": sp.dok_matrix,
                "coo": sp.coo_matrix, "csr": sp.csr_matrix, "csc": sp.csc_matrix}[kind]
    return made(GOOD.toarray(), **({"blocksize": (3, 4)} if kind == "bsr" else {}))


def refused(kind):
    """Try all ways at all entry points. Each is printed before its trial: the last line says what ended the process."""
    wrong = []
    for entry, (opt, call, said) in entry_points().items():
        before = [table.copy() for table in opt.params.values()]
        for way, change in ways(kind).items():
            print(f"{entry}, {way}", flush=True)
            X = good(kind)
            change(X)
            try:
                call(X)
            except (ValueError, IndexError) as error:
                if not str(error).startswith(tuple(said.split("|"))) or len(str(error)) > 400:
                    wrong.append(f"{entry}, {way}: {type(error).__name__}: {error}")
            except Exception as error:
                wrong.append(f"{entry}, {way}: {type(error).__name__}: {error}")
            else:
                wrong.append(f"{entry}, {way}: accepted")
            if any((one != other).any() for one, other in zip(before, opt.params.values(), strict=True)):
                wrong.append(f"{entry}, {way}: a table was written to")
    return wrong


KINDS = "csr", "csc", "bsr", "coo", "dia", "lil", "dok"


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_broken_behind_scipys_checks_is_refused_at_every_entry_point(kind):
    run = subprocess.run([sys.executable, __file__, kind], capture_output=True, text=True)
    tried = run.stdout.splitlines()
    assert run.returncode == 0, f"exit {run.returncode} at {tried[-1:]}\n{run.stderr[-3000:]}"
    assert len(tried) == len(entry_points()) * len(ways(kind))


@pytest.mark.parametrize("array", [True, False], ids=["array", "matrix"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_taken_at_every_entry_point(kind, array):
    for _, call, _ in entry_points().values():
        call(good(kind, array))
    table = so.zeros((N, N))
    so.SGD(table, lr=1.0).step(good(kind, array))
    assert_array_equal(-table, GOOD.toarray())


@pytest.mark.parametrize("kind", ["csr", "csc", "bsr", "coo"])
def test_flags_that_lie_change_nothing(kind):
    """has_canonical_format and has_sorted_indices are promises that nobody holds anybody to."""
    honest = sp.coo_array((np.array([1, 2, 4, 8], np.float32), ([5, 0, 5, 5], [3, 7, 3, 1])), shape=(N, N))
    X = honest.asformat("csr" if kind == "bsr" else kind)
    if kind in ("csr", "csc"):
        X = {"csr": sp.csr_array, "csc": sp.csc_array}[kind]((N, N), dtype=np.float32)
        X.indptr = np.array([0] + [1] * 5 + [4] * 7 if kind == "csr" else
                            [0] + [0] + [1] * 2 + [3] * 4 + [4] * 5, np.int32)
        X.indices = np.array([7, 3, 1, 3] if kind == "csr" else [5, 5, 5, 0], np.int32)
        X.data = np.array([2, 1, 8, 4] if kind == "csr" else [8, 1, 4, 2], np.float32)
    if kind == "bsr":
        X = X.tobsr((1, 1))
    X.has_canonical_format = X.has_sorted_indices = True
    dense = honest.toarray()
    assert_array_equal(matmul(X, np.eye(N, dtype=np.float32)), dense)
    table = so.zeros((N, N))
    so.SGD(table, lr=1.0).step(X)
    assert_array_equal(-table, dense)
    assert ranking_metrics(np.full((N, 1), 3), X) == ranking_metrics(np.full((N, 1), 3), sp.csr_array(dense))
    model = FactorizationMachineClassifier(epochs=2, random_state=0).fit(X, Y)
    again = FactorizationMachineClassifier(epochs=2, random_state=0).fit(sp.csr_array(dense), Y)
    assert_array_equal(model.factors_, again.factors_)
    items = [ImplicitFactorization(dim=2, epochs=2).fit(one).optimizer_.params["items"]
             for one in (X, sp.csr_array(dense))]
    assert_array_equal(*items)


if __name__ == "__main__":
    found = refused(sys.argv[1])
    sys.exit("\n".join(found) or 0)
