"""Hash the bits of all that optimizers write. Two commits that print the same lines take the same steps, to the bit.

    python tests/bits.py [--cases] [--isa] [--processors]

This prints a line for each group of cases, and one for all groups. It uses the public API alone (only --processors
reaches into the kernels), so that the same file runs on installed packages of several commits; PYTHONPATH says which.
Compare runs on one machine with one version of NumPy: the powers of step counts are NumPy's. The sign of a NaN is not
hashed: it depends on the order of operands, which is the compiler's choice.

--cases prints a line for each case, too. --isa runs all instruction sets of this build. --processors runs the prefetch
distances of all processors, some of which have long rows taken in parts. Each runs in a process of its own, and the
command fails unless all hashes are the same.
"""

import argparse
import contextlib
import copy
import functools
import hashlib
import importlib.machinery
import importlib.util
import io
import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp

PROCESSORS = "Zen 3", "Zen 4", "Zen 5"
DTYPES = np.float32, np.float64
DIMS = None, 1, 3, 17, 64, 385                                  # None: a table of one dimension
# Rows by dim: shorter and longer than a cache line and than a block, and enough for two threads.
LARGE = {1: 8000, 3: 8000, 8: 6000, 16: 6000, 17: 6000, 32: 4000, 64: 3000, 385: 700, 1200: 300}

# Optimizers by name, each with what its rule depends on.
VARIANTS = [
    ("SGD", {}),
    ("SGD", dict(weight_decay=0.1)),
    ("SGD", dict(momentum=0.9)),
    ("SGD", dict(momentum=0.9, dampening=0.3)),
    ("SGD", dict(momentum=0.9, nesterov=True)),
    ("SGD", dict(momentum=0.8, nesterov=True, weight_decay=0.1)),
    ("Adagrad", {}),
    ("Adagrad", dict(lr_decay=0.2, initial_accumulator_value=0.5, eps=1e-3)),
    ("RowwiseAdagrad", {}),
    ("RowwiseAdagrad", dict(lr_decay=0.1, initial_accumulator_value=0.1)),
    ("Adadelta", {}),
    ("Adadelta", dict(rho=0.8, eps=1e-5)),
    ("RMSprop", {}),
    ("RMSprop", dict(momentum=0.8, alpha=0.9)),
    ("RMSprop", dict(centered=True, alpha=0.9, eps=1e-3)),
    ("RMSprop", dict(centered=True, momentum=0.5, alpha=0.9)),
    ("Adam", {}),
    ("Adam", dict(betas=(0.5, 0.9), eps=1e-3)),
    ("Adam", dict(betas=(0.0, 0.0), eps=0.0)),
    ("Adam", dict(amsgrad=True, betas=(0.9, 0.95))),
    ("AdamW", {}),
    ("AdamW", dict(amsgrad=True, weight_decay=0.2)),
    ("RowwiseAdam", {}),
    ("RowwiseAdam", dict(betas=(0.5, 0.9), eps=1e-3)),
    ("Adamax", {}),
    ("Adamax", dict(betas=(0.5, 0.9), eps=1e-3)),
    ("NAdam", {}),
    ("NAdam", dict(momentum_decay=0.1, weight_decay=0.1, decoupled_weight_decay=True)),
    ("Ftrl", {}),
    ("Ftrl", dict(beta=0.5, l1=0.2, l2=0.1)),
    ("Lion", {}),
    ("Lion", dict(betas=(0.5, 0.9), weight_decay=0.1)),
]
LIMITED = dict(maximize=True, weight_decay=0.1, clip_value=0.5, max_row_norm=0.8, max_norm=1.0, max_grad_norm=3.0)
OPTIONS = [
    dict(maximize=True),
    dict(clip_value=0.3),
    dict(max_row_norm=0.5),
    dict(max_norm=1.0),
    dict(max_grad_norm=0.7),
    dict(weight_decay=0.1),
    dict(step_count="global"),
    LIMITED,
]


def pretend(processor):
    """Have the kernels take the distances of this processor. Returns a list, of a name each time that they ask for one.

    They ask when sparseopt is imported, which must not have happened yet.
    """
    package = Path(importlib.util.find_spec("sparseopt").origin).parent
    endings = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    path, = (path for path in package.glob("*kernels/cpu.*") if path.name.endswith(endings))
    name = f"sparseopt.{path.parent.name}.cpu"
    spec = importlib.util.spec_from_file_location(name, path)
    cpu = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cpu)
    asked = []
    cpu.nearest = lambda: asked.append(processor) or processor
    return asked


# Inputs. Everything is made of `Generator.random` and `integers`, which are exact on every machine.

def numbers(rng, shape, dtype):
    """Numbers of all signs and some sizes, a few of them 0."""
    return ((2 * rng.random(shape) - 1) * rng.choice([0, 1, 1, 1, 0.125, 2], shape)).astype(dtype)


def extremes(rng, shape, dtype):
    """Zeros of both signs, subnormal numbers, and numbers whose squares underflow or overflow."""
    info = np.finfo(dtype)
    few = [0.0, -0.0, info.smallest_subnormal, -info.tiny / 4, info.tiny, 1e-20, -1e30, info.max / 1024, 1.0, -0.5]
    return rng.choice(np.array(few, dtype), shape)


def with_nans(rng, shape, dtype):
    """A few of them NaN or infinite."""
    values = numbers(rng, shape, dtype)
    values[rng.random(shape) < 0.01] = np.nan
    values[rng.random(shape) < 0.01] = np.inf
    return values


def shaped(n, dim):
    return (n,) if dim is None else (n, dim)


@functools.cache
def table_of(n, dim, dtype):
    return numbers(np.random.default_rng([n, dim or 0]), shaped(n, dim), dtype)


def gradient_of_rows(rng, rows, dim, dtype, make=numbers):
    rows = np.asarray(rows)
    return so.RowGradient(rows, make(rng, shaped(len(rows), dim), dtype))


@functools.cache
def row_gradients(n, dim, dtype, make=numbers):
    """RowGradients in every order of rows, for a table of n rows: pairs (name, gradient)."""
    rng = np.random.default_rng([n, dim or 0, 1])
    some = np.sort(rng.permutation(n)[:9 * n // 10])
    many = rng.integers(0, n, 2 * n)
    gradients = {
        "neighbours": np.arange(n // 8, n // 8 + n // 2),
        "runs": np.flatnonzero(np.arange(n) % 37 > 2).astype(np.int32),
        "sorted": some,
        "unsorted": rng.permutation(some).astype(np.int32),
        "repeated": many,
        "repeated sorted": np.sort(many).astype(np.int32),
        "few repeated": many[:40].astype(np.int32),
        "few unsorted": rng.permutation(n)[:max(1, n // 40)],
        "one row": [n - 1],
        "none": np.array([], np.int64),
        "all rows": np.arange(n),
    }
    return [(name, gradient_of_rows(rng, rows, dim, dtype, make)) for name, rows in gradients.items()]


@functools.cache
def other_gradients(n, dim, dtype, make=numbers):
    """All other forms: dense, sparse of every format, products, and values of other types or strides."""
    rng = np.random.default_rng([n, dim or 0, 2])
    width = dim or 1
    nnz = 2 * n
    rows, columns = rng.integers(0, n, nnz), rng.integers(0, width, nnz)
    rows[:8], columns[:8] = rows[0], columns[0]                     # one cell, many times
    values = make(rng, nnz, dtype)
    coo = sp.coo_array((values, (rows, columns)), shape=(n, width))
    narrow = sp.coo_array((values, (rows.astype(np.int32), columns.astype(np.int32))), shape=(n, width))
    by_rows = np.argsort(rows, kind="stable")
    of_rows = sp.csr_array((n, width), dtype=dtype)                 # with repeats, which scipy would add up
    of_rows.data, of_rows.indices = values[by_rows], columns[by_rows]
    of_rows.indptr = np.searchsorted(rows[by_rows], np.arange(n + 1))
    small = coo.tocsr()[:, :width].copy()
    small.data[np.arange(small.nnz) % 5 > 0] = 0
    small.eliminate_zeros()
    diagonals = sp.dia_array((make(rng, (2, width), dtype), [0, -5]), shape=(n, width))
    X = sp.coo_array((make(rng, nnz, dtype), (rng.integers(0, 20, nnz), rows)), shape=(20, n))
    dY = make(rng, shaped(20, dim), dtype)
    some = rng.permutation(n)[:n // 2]
    wide = make(rng, (len(some), width + 3), dtype)
    values = wide[:, :dim] if dim else wide[:, 0]
    gradients = {
        "dense": make(rng, shaped(n, dim), dtype),
        "coo": coo,
        "coo int32": narrow,
        "coo sorted": of_rows.tocoo(),
        "csr": of_rows,
        "csr matrix": sp.csr_matrix(small),
        "csc": small.tocsc(),
        "bsr": small.tobsr((1, width)),
        "lil": small.tolil(),
        "dok": small.todok(),
        "dia": diagonals,
        "empty csr": sp.csr_array((n, width), dtype=dtype),
        "product of csr": so.MatmulGradient(X.tocsr(), dY),
        "product of csc": so.MatmulGradient(X.tocsc(), dY),
        "product of coo": so.MatmulGradient(X, dY),
        "strided": so.RowGradient(some, values),
        "strided sorted": so.RowGradient(np.sort(some), values),
        "other dtype": so.RowGradient(some, values.astype(np.float64 if dtype == np.float32 else np.float32)),
        "half": so.RowGradient(some, np.clip(values, -100, 100).astype(np.float16)),
        "integers": so.RowGradient(some, np.arange(values.size).reshape(values.shape) % 5 - 2),
    }
    if dim is None:
        gradients["1-D coo"] = sp.coo_array((coo.data, (rows,)), shape=(n,))
    return list(gradients.items())


def some_gradients(n, dim, dtype, make=numbers):
    """One gradient for each way in which kernels gather: in place, by order, by starts, by columns, by sources."""
    wanted = ("neighbours", "unsorted", "repeated", "repeated sorted", "dense", "coo", "csr", "product of csr",
              "product of coo")
    forms = row_gradients(n, dim, dtype, make) + other_gradients(n, dim, dtype, make)
    return [(name, gradient) for name, gradient in forms if name in wanted]


# Cases: generators of pairs (name, arrays by name).

def arrays_of(opt, rows=None):
    """All that steps write: the tables and their state, whole or in some rows."""
    arrays = {"steps": np.array([opt.steps, opt.nonfinite_rows])}
    for name, table in opt.params.items():
        for key, array in {"table": table, **opt.state[name]}.items():
            arrays[f"{name} {key}"] = array if rows is None or array.ndim == 0 else array[rows]
    return arrays


def made(variant, table, **options):
    """A new optimizer on a copy of a table, or None where it refuses these options together."""
    name, hyper = variant
    try:
        return getattr(so, name)(table.copy(), **{"lr": 0.05, **hyper, **options})
    except ValueError:
        return None


def stepped(case, opt, gradients):
    """Step on each gradient in turn. A case after each step, for later steps may round a small difference away."""
    for form, gradient in gradients:
        opt.step(gradient)
        yield f"{case}: {form}", arrays_of(opt)


def small_cases(variant, dtype):
    for dim in DIMS:
        n = 60 if dim == 385 else 200
        opt = made(variant, table_of(n, dim, dtype))
        own = so.RowGradient(np.arange(20), opt.params[0][5:25])            # values that the step writes to
        forms = [*row_gradients(n, dim, dtype), *other_gradients(n, dim, dtype), ("the table's own values", own)]
        yield from stepped(f"dim {dim}", opt, forms)


def option_cases(variant, dtype):
    for dim in (None, 17):
        for options in OPTIONS:
            opt = made(variant, table_of(150, dim, dtype), **options)
            if opt is not None:
                yield from stepped(f"dim {dim}, {options}", opt, some_gradients(150, dim, dtype))
        # A global norm would overflow on the extremes, which is an error.
        norms, all_but_global = dict(max_row_norm=0.8, max_norm=1.0), {**LIMITED, "max_grad_norm": None}
        for make, options in ((extremes, {}), (extremes, norms), (extremes, all_but_global), (with_nans, {}),
                              (with_nans, LIMITED)):
            for nonfinite in ("skip", "allow"):
                opt = made(variant, table_of(150, dim, dtype), nonfinite=nonfinite, **options)
                case = f"dim {dim}, {make.__name__}, {nonfinite}, {options}"
                yield from stepped(case, opt, some_gradients(150, dim, dtype, make))
        for options in ({}, norms):
            opt = made(variant, extremes(np.random.default_rng(9), shaped(150, dim), dtype), **options)
            yield from stepped(f"dim {dim}, extreme weights, {options}", opt, some_gradients(150, dim, dtype))


def group_cases(variant, dtype):
    """Several tables, groups, rates that change, counts that are set."""
    name, hyper = variant
    tables = {"a": table_of(150, 17, dtype).copy(), "b": table_of(150, None, np.float64).copy(),
              "c": table_of(150, 3, np.float32).copy()}
    params = [{"params": {"a": tables["a"], "b": tables["b"]}}, {"params": {"c": tables["c"]}, "lr": 0.01}]
    schedule = so.schedules.Cosine(0.1, steps=60, warmup=7)
    opt = getattr(so, name)(params, lr=schedule, max_grad_norm=2.0, **hyper)
    for k in range(70):
        of_a, of_b, of_c = (some_gradients(150, table.shape[1] if table.ndim == 2 else None, table.dtype.type)
                            for table in tables.values())
        grads = {"a": of_a[k % len(of_a)][1], "b": of_b[k % 5][1], "c": of_c[k % 7][1]}
        opt.step({key: grads[key] for key in list(grads)[k % 3:]})
        opt.param_groups[1]["lr"] *= 0.97
        yield f"three tables: step {k}", arrays_of(opt)
    for step in (1000, 2**31 - 3):
        opt = made(variant, table_of(150, 17, dtype))
        if "step" in opt.state[0]:
            opt.take_over(0, step=step)
            yield from stepped(f"after {step} steps", opt, some_gradients(150, 17, dtype))
            opt.state[0]["step"][:50] = 0
            yield from stepped(f"after {step} steps, rows reset", opt, some_gradients(150, 17, dtype))


def large_cases(variant, dtype):
    """Tables of many blocks, by one thread and by two."""
    for dim, n in LARGE.items():
        for threads in (1, 2):
            opt = made(variant, table_of(n, dim, dtype), num_threads=threads)
            yield from stepped(f"dim {dim}, {threads} threads", opt, some_gradients(n, dim, dtype))
    n, dim = LARGE[17], 17
    for options in (dict(step_count="global"), LIMITED, dict(missed="replay")):
        for threads in (1, 2):
            opt = made(variant, table_of(n, dim, dtype), num_threads=threads, **options)
            if opt is not None:
                case = f"dim {dim}, {threads} threads, {options}"
                yield from stepped(case, opt, some_gradients(n, dim, dtype))
                if opt.missed == "replay":
                    opt.catch_up()
                    yield f"{case}, caught up", arrays_of(opt)


@functools.cache
def replayed_gradients(n, dim, dtype):
    rng = np.random.default_rng([n, dim or 0, 3])
    many = [gradient for name, gradient in some_gradients(n, dim, dtype) if name != "dense"]
    return [many[k // 40 % len(many)] if k % 40 == 39 else gradient_of_rows(rng, rng.integers(0, n // 2, 4), dim, dtype)
            for k in range(120)]


def replay_cases(variant, dtype):
    """Rows that miss one step to hundreds, under rates and hyper-parameters that change."""
    for dim, steps in ((None, 330), (3, 1300), (70, 330), (385, 120)):
        n = 200
        gradients = replayed_gradients(n, dim, dtype)
        warmup, after = so.schedules.Linear(0.0, 0.05, steps=20), so.schedules.InverseTime(0.05, decay=0.01)
        schedule = so.schedules.Chain([(warmup, 20), after])
        table = table_of(n, dim, dtype)
        opt = made(variant, table, missed="replay", lr=schedule)
        if opt is None:
            continue
        for k in range(steps):
            opt.step(gradients[k % len(gradients) if k < 500 else k % 30])      # later on, most rows miss hundreds
            if k % 11 == 0:
                opt.catch_up(np.arange(n // 2, n // 2 + k % 90))
            if k % 55 == 0:
                yield f"dim {dim}: step {k}", arrays_of(opt)
            if k == 200:
                opt.param_groups[0]["lr"] = 0.02
            if k == 250:
                change(opt.param_groups[0])
            if k == 300:
                opt.param_groups[0]["lr"] = schedule
        yield f"dim {dim}: before all are caught up", arrays_of(opt)
        other = made(variant, table, missed="replay", lr=schedule)
        other.load_state_dict(copy.deepcopy(opt.state_dict()))
        for one, name in ((opt, "caught up"), (other, "loaded, caught up")):
            one.catch_up()
            one.step(gradients[79])
            one.catch_up()
            yield f"dim {dim}: {name}", arrays_of(one)


def change(group):
    """Other hyper-parameters, where there are any that missed steps depend on."""
    if "betas" in group:
        b1, b2 = group["betas"]
        group["betas"] = b1 / 2, b2
    for name in ("momentum", "rho", "alpha"):
        if name in group:
            group[name] /= 2


def huge_cases(dtype):
    """Tables so large that pages are looked up together, or rows are sorted first. Steps touch few of their pages."""
    rng = np.random.default_rng(4)
    for n_bytes in (500 << 20, 1200 << 20, 2400 << 20):
        for name, hyper, arrays in (("SGD", {}, 1), ("Adam", {}, 3), ("Adam", dict(missed="replay"), 3),
                                    ("RowwiseAdam", {}, 2), ("RMSprop", dict(centered=True, momentum=0.5), 4)):
            for dim in (16, 17, 64, 512):
                n = n_bytes // (arrays * dim * np.dtype(dtype).itemsize) + 1
                touched = np.r_[:1000, n - 1000:n]
                opt = getattr(so, name)(so.zeros((n, dim), dtype), lr=0.1, **hyper)
                some = rng.permutation(touched)[:1500]
                falling = touched[::-1].astype(np.int32)
                for rows in (some, np.sort(some), rng.choice(touched, 700), np.arange(n - 200, n), falling):
                    opt.step(gradient_of_rows(rng, rows, dim, dtype))
                yield f"{n_bytes >> 20} MB, dim {dim}, {name} {hyper}", arrays_of(opt, touched)


def long_cases(dtype):
    """Gradients of so many entries that two threads check and sort them."""
    rng = np.random.default_rng(5)
    n, dim, k = 50_000, 3, 150_000
    rows, values = rng.integers(0, n, k), numbers(rng, (k, dim), dtype)
    rows[:k // 10] = n // 2             # in sorted order in the middle, where the parts of two threads meet
    columns = rng.integers(0, dim, k)
    X = sp.coo_array((values[:, 1], (rng.integers(0, 1000, k), rows)), shape=(1000, n))
    gradients = {
        "rows": so.RowGradient(rows, values),
        "sorted rows": so.RowGradient(np.sort(rows), values),
        "int32": so.RowGradient(rows.astype(np.int32), values),
        "unsorted": so.RowGradient(rng.permutation(n), values[:n]),
        "cells": sp.coo_array((values[:, 0], (rows, columns)), shape=(n, dim)),
        "product": so.MatmulGradient(X, values[:1000]),
        "dense": values[:n],
    }
    for threads in (1, 2):
        for name, hyper in (("SGD", {}), ("Adam", {}), ("RowwiseAdagrad", {}), ("Adam", dict(missed="replay"))):
            opt = getattr(so, name)(so.zeros((n, dim), dtype), lr=0.1, num_threads=threads, **hyper)
            for form, gradient in gradients.items():
                opt.step(gradient)
                yield f"{name} {hyper}, {form}, {threads} threads", arrays_of(opt)


def embedding_cases(dtype):
    rng = np.random.default_rng(6)
    for threads in (1, 2):
        so.set_num_threads(threads)
        for dim in DIMS:
            n = 3000
            table = table_of(n, dim, dtype)
            rows = rng.integers(0, n, (n, 2))
            offsets = np.sort(rng.integers(0, rows.size, 500))
            offsets[0] = 0
            weights = 0.5 + rng.random(rows.size)
            case = f"dim {dim}, {threads} threads: "
            yield case + "gather", {"rows": so.embedding.gather(table, rows), "few": so.embedding.gather(table, [3, 1])}
            for mode in ("sum", "mean"):
                for given in (None, weights, weights.astype(np.float32)):
                    X = so.embedding.bags(rows.reshape(-1), offsets, n_rows=n, weights=given, mode=mode)
                    yield case + f"bags, {mode}", {"X": X.data, "sums": so.embedding.matmul(X, table)}
            if dim is not None:
                other = table_of(n // 2, dim, dtype)
                pairs = {"pairs": (rows[:, 0], rows[:, 1] // 2), "each": (rows[:, 0], rows // 2),
                         "all": (None, rows // 2), "in turn": (np.arange(300), None),
                         "every": (np.arange(n // 2), None)}
                yield case + "dots", {name: so.embedding.dots(table, i, other, j) for name, (i, j) in pairs.items()}
    for n in (1, 2, 1000):
        weights = rng.random(n) ** 4 * (rng.random(n) > 0.2)
        weights[0] = 1
        drawn = so.embedding.Alias(weights).draw((50, 100), seed=n)
        yield f"draws from {n}", {"drawn": drawn}
    yield "filled tables", {"normal": so.normal((100, 7), dtype, scale=0.3, seed=1), "zeros": so.zeros((3, 2), dtype),
                            "uniform": so.uniform((100, 7), dtype, low=-2, high=1, seed=1)}


def schedule_cases():
    s = so.schedules
    made = [s.Constant(0.1), s.Step(0.1, gamma=0.3, every=7), s.Step(0.1, milestones=[3, 20, 9]),
            s.Exponential(0.1, gamma=0.93), s.InverseTime(0.1, decay=0.3), s.Linear(0.1, 0.01, steps=30),
            s.Cosine(0.1, steps=40, end=0.01, warmup=5), s.CosineRestarts(0.1, steps=9, growth=2, end=0.001),
            s.Chain([(s.Linear(0.0, 0.1, steps=5), 5), (s.Constant(0.1), 9), s.Exponential(0.1, gamma=0.9)])]
    for schedule in made:
        yield repr(schedule), {"rates": np.array([float(schedule(step)) for step in [*range(120), 10_000, 10**6]])}


def training_cases(dtype):
    for dim in (None, 17):
        forms = some_gradients(150, dim, dtype) + other_gradients(150, dim, dtype)
        for reduction in ("mean", "sum"):
            opt = made(("Adam", {}), table_of(150, dim, dtype))
            accumulator = so.training.Accumulator(opt, every=3, reduction=reduction)
            for k in range(3 * len(forms) + 1):
                accumulator.step(forms[(k // 3 + k % 3 * (k % 2)) % len(forms)][1])
            accumulator.flush()
            yield f"dim {dim}: Accumulator, {reduction}", arrays_of(opt)
        opt = made(("Adam", {}), table_of(150, dim, dtype), missed="replay")
        stopping = so.training.EarlyStopping(opt, patience=3)
        lower = so.training.ReduceLROnPlateau(opt, patience=1)
        for score, (_, gradient) in zip([5.0, 4.0, 3.0, 3.5, 3.2], forms, strict=False):
            opt.step(gradient)
            stopping.step(score)
            lower.step(score)
        yield f"dim {dim}: at a lower rate", arrays_of(opt)
        stopping.restore()
        opt.step(forms[0][1])
        yield f"dim {dim}: restored", arrays_of(opt)


def groups():
    """Triples (name, cases): all that is hashed."""
    of_variants = small_cases, option_cases, group_cases, large_cases, replay_cases
    for name, hyper in VARIANTS:
        title = " ".join([name, *(key if value is True else f"{key}={value}" for key, value in hyper.items())])
        for dtype in DTYPES:
            cases = itertools.chain.from_iterable(find((name, hyper), dtype) for find in of_variants)
            yield f"{title} {dtype.__name__}", cases
    for dtype in DTYPES:
        for find in (huge_cases, long_cases, embedding_cases, training_cases):
            yield f"{find.__name__.removesuffix('_cases')} {dtype.__name__}", find(dtype)
    yield "schedules", schedule_cases()


# Hashes.

def hash_of(arrays):
    """Of arrays by name, their dtypes and shapes: the same for the same bits, but for the sign of a NaN."""
    sums = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        if array.dtype.kind == "f" and np.isnan(array).any():
            array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
        sums.update(f"{name} {array.dtype} {array.shape}".encode())
        sums.update(array.data)
    return sums.digest()


def short(sums):
    return sums.hexdigest()[:16]


def print_hashes(each_case):
    total, n_groups, n_cases = hashlib.sha256(), 0, 0
    for group, cases in groups():
        sums = hashlib.sha256()
        for case, arrays in cases:
            digest = hash_of(arrays)
            sums.update(case.encode() + digest)
            n_cases += 1
            if each_case:
                print(f"{group}: {case}  {digest.hex()[:16]}")
        total.update(group.encode() + sums.digest())
        n_groups += 1
        print(f"{group}  {short(sums)}", flush=True)
    print(f"all {n_groups} groups of {n_cases} cases  {short(total)}")


def compare(isas, processors):
    """Run every instruction set and processor in a process of its own; return whether all come to the same hash."""
    runs = [(isa, [], {"SPARSEOPT_ISA": isa}) for isa in isas]
    runs += [(name, ["--processor", name], {}) for name in processors]
    lines = {}
    for name, arguments, environment in runs:
        done = subprocess.run([sys.executable, __file__, *arguments], env={**os.environ, **environment},
                              stdout=subprocess.PIPE, text=True, check=True)
        lines[name] = done.stdout.splitlines()
        print(f"{name}: {lines[name][-1]}", flush=True)
    first, *others = lines
    for other in others:
        for one, two in zip(lines[first], lines[other], strict=True):
            if one != two:
                print(f"{first} has {one}; {other} has {two}")
    return len({found[-1] for found in lines.values()}) == 1


def instruction_sets():
    """The names in the line of show_config: "instruction set: avx512 (of avx512, avx2, baseline)"."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        so.show_config()
    line, = (line for line in out.getvalue().splitlines() if "instruction set" in line)
    return line.split("(of ")[1].rstrip(")").split(", ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", action="store_true", help="print a line for each case, too")
    parser.add_argument("--isa", action="store_true", help="compare all instruction sets of this build")
    parser.add_argument("--processors", action="store_true", help="compare the distances of all processors")
    parser.add_argument("--processor", choices=PROCESSORS, help="take the distances of this one")
    given = parser.parse_args()
    asked = pretend(given.processor) if given.processor else None
    import sparseopt as so

    if asked == []:
        sys.exit("the kernels no longer ask cpu.nearest() for the processor: --processor has no effect")
    classes = {name: value for name, value in vars(so).items() if isinstance(value, type) and value is not so.Optimizer}
    known = {name for name, value in classes.items() if issubclass(value, so.Optimizer)}
    if known != {name for name, _ in VARIANTS}:
        sys.exit(f"VARIANTS names {sorted({name for name, _ in VARIANTS})}; sparseopt has {sorted(known)}")
    warnings.simplefilter("ignore")             # of rows with a NaN, and of numbers that overflow in another dtype
    if given.isa or given.processors:
        sys.exit(not compare(instruction_sets() if given.isa else [], PROCESSORS if given.processors else []))
    print_hashes(given.cases)
