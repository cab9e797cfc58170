"""Work that several threads share, at least once in every loop that they do: what `sanitize.py --threads` looks at.

    python tests/threaded.py [race]

With `race`, a product is written into the table whose rows another thread still reads: a sanitizer that says nothing
then is one that does not look.
"""

import sys
import warnings

import numpy as np
import scipy.sparse as sp

import sparseopt as so
from sparseopt import _kernels

N_ROWS, DIM = 40_000, 16
RULES = [
    (so.SGD, dict(lr=0.1)),
    (so.SGD, dict(lr=0.1, momentum=0.9)),
    (so.Adagrad, dict(lr=0.1)),
    (so.RowwiseAdagrad, dict(lr=0.1)),
    (so.RMSprop, dict(lr=0.01, centered=True, momentum=0.5)),
    (so.Adam, dict(lr=0.01)),
    (so.AdamW, dict(lr=0.01, amsgrad=True)),
    (so.RowwiseAdam, dict(lr=0.01)),
    (so.Adamax, dict(lr=0.01)),
    (so.Ftrl, dict(lr=0.1, l1=0.01)),
    (so.Lion, dict(lr=0.01)),
]


def gradients(rng, shape, dtype):
    """One in each form, of rows that repeat, that do not, and that rise; enough of them for several threads to sort."""
    n_rows, dim = shape
    n = min(12_000, n_rows)
    for rows in (rng.integers(0, n_rows, n), rng.zipf(1.3, n) % n_rows, rng.permutation(n_rows)[:n],
                 np.sort(rng.permutation(n_rows)[:n])):
        yield so.RowGradient(rows, rng.standard_normal((n, dim)).astype(dtype))
    n = 300_000
    coo = sp.coo_array((rng.standard_normal(n).astype(dtype), (rng.integers(0, n_rows, n), rng.integers(0, dim, n))),
                       shape=shape)
    yield from (coo, coo.tocsr(), coo.tocsc())
    X = sp.coo_array((rng.standard_normal(n).astype(dtype), (rng.integers(0, 1000, n), rng.integers(0, n_rows, n))),
                     shape=(1000, n_rows))
    for factor in (X, X.tocsr(), X.tocsc()):
        yield so.MatmulGradient(factor, rng.standard_normal((1000, dim)).astype(dtype))
    yield rng.standard_normal(shape).astype(dtype)


def steps(cls, hyper, missed, threads, dtype, shape, rng):
    """Steps in every form; under "replay" gaps of rows that repeat and of rows that do not, and a catch-up of rows."""
    table = so.normal(shape, dtype, seed=0)
    opt = cls(table, **hyper, missed=missed, num_threads=threads, max_grad_norm=100.0, nonfinite="skip")
    for k, gradient in enumerate(gradients(rng, shape, dtype)):
        if missed == "replay" and k % 3 == 0:
            opt.catch_up(rng.integers(0, shape[0], shape[0] // 2))
        opt.step(gradient)
    values = np.ones((6000, shape[1]), dtype)
    values[::1000, 0] = np.nan
    opt.step(so.RowGradient(rng.integers(0, shape[0], len(values)), values))
    opt.max_grad_norm = None
    if missed == "replay":
        opt.param_groups[0]["lr"] *= 0.5
        opt.catch_up()
    state = opt.state_dict()
    opt.load_state_dict(state)


def lookups(threads, dtype, rng):
    so.set_num_threads(threads)
    A, B = so.normal((N_ROWS, DIM), dtype, seed=1), so.normal((N_ROWS, DIM), dtype, seed=2)
    opt = so.Adam([A, B], missed="replay")
    for _ in range(2):
        i, j = rng.integers(0, N_ROWS, 20_000), rng.integers(0, N_ROWS, (20_000, 3))
        taken, products = so.embedding.gather(A, i, opt=opt), so.embedding.dots(A, i, B, j, opt=opt)
        opt.step([so.RowGradient(i, taken * products.sum(axis=1)[:, None]),
                  so.MatmulGradient(so.embedding.bags(j.ravel(), np.arange(0, j.size, 3), n_rows=N_ROWS), taken)])
    X = so.embedding.bags(rng.integers(0, N_ROWS, 50_000), np.arange(0, 50_000, 5), n_rows=N_ROWS)
    so.embedding.matmul(X, A)
    so.embedding.gather(A[:, 0].copy(), i)


def work():
    for number, (cls, hyper) in enumerate(RULES):
        for missed in ("skip", "replay"):
            rng = np.random.default_rng(number)
            threads, dtype = 2 + number % 3, (np.float32, np.float64)[number % 2]
            steps(cls, hyper, missed, threads, dtype, (N_ROWS, DIM), rng)
            print(cls.__name__, hyper, missed, threads, "threads", flush=True)
    for cls, missed in ((so.Adam, "skip"), (so.Adam, "replay"), (so.SGD, "skip")):
        for shape in ((300_000, 1), (3000, 1024)):      # short rows, and those taken in parts
            steps(cls, dict(lr=0.01), missed, 4, np.float32, shape, np.random.default_rng(0))
            print(cls.__name__, shape, missed, 4, "threads", flush=True)
    for dtype in (np.float32, np.float64):
        lookups(3, dtype, np.random.default_rng(0))
    print("lookups", flush=True)


def race():
    table, rows = so.zeros((N_ROWS, DIM)), np.arange(N_ROWS)[::-1].copy()
    _kernels.matmul(np.ones(N_ROWS, np.float32), rows, np.arange(N_ROWS + 1), table, table, 2)


if __name__ == "__main__":
    warnings.simplefilter("ignore", RuntimeWarning)         # of the rows with a NaN
    race() if sys.argv[1:] == ["race"] else work()
