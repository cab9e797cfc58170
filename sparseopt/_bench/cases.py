"""A case of the benchmark has one value on each axis; a batch is one gradient of a case."""

import math
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from .. import _config, _kernels
from ..gradients import MatmulGradient, RowGradient
from ..optimizers import OPTIMIZERS

FORMS = "rows", "csr", "csc", "coo", "dense", "matmul"
PER_SAMPLE = 100            # entries of each sample of the form "matmul"


@dataclass(frozen=True)
class Case:
    """One value on each axis of the benchmark.

    `rows` is the number of rows drawn from the table. With ``zipf=0`` the rows are unique. Else the rows have a Zipf
    distribution with the exponent `zipf`, and the rank is the row number. In the form "matmul", `rows` is the number
    of samples, each with 100 drawn rows.
    """

    rule: str = "Adam"
    dim: int = 64
    table: int = 1_000_000
    rows: int = 100_000
    zipf: float = 0.0
    order: str = "rising"           # or "random"
    form: str = "rows"
    dtype: str = "float32"
    threads: int = 1
    isa: str = _kernels.isa
    missed: str = "skip"            # or "replay"

    def __post_init__(self):
        allowed = {"rule": tuple(OPTIMIZERS), "order": ("rising", "random"), "form": FORMS,
                   "dtype": ("float32", "float64"), "isa": tuple(_kernels.available), "missed": ("skip", "replay")}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(values)}")
        for name in ("dim", "table", "rows", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        _config.check_num_threads("threads", self.threads)
        if not 0 <= self.zipf < math.inf:
            raise ValueError(f"zipf is {self.zipf}; it must be finite and at least 0; 0 draws unique rows")
        if not self.zipf and self.rows > self.table and self.form != "matmul":
            raise ValueError(f"rows is {self.rows}; with zipf=0 it must be at most {self.table}, the rows of the table")


AXES = [field.name for field in fields(Case)]



class Batch:
    """One gradient, in each form that a contestant takes."""

    def __init__(self, case, rng, values):
        self.case = case
        n = case.rows * PER_SAMPLE if case.form == "matmul" else case.rows
        if case.zipf:
            self.drawn = _zipf(case.table, case.zipf, n, rng)
        elif case.form == "matmul":
            self.drawn = rng.integers(case.table, size=n)
        else:
            self.drawn = rng.choice(case.table, n, replace=False)
        if case.order == "rising" and case.form != "matmul":
            self.drawn.sort()
        self.values = values

    @cached_property
    def gradient(self):
        """The gradient in the form of the case."""
        case, shape = self.case, (self.case.table, self.case.dim)
        if case.form == "rows":
            return RowGradient(self.drawn, self.values)
        if case.form == "matmul":
            indptr = np.arange(0, len(self.drawn) + 1, PER_SAMPLE)
            ones = np.ones(len(self.drawn), dtype=self.values.dtype)
            return MatmulGradient(sp.csr_array((ones, self.drawn, indptr), shape=(case.rows, case.table)), self.values)
        if case.form == "dense":
            dense = np.zeros(shape, dtype=self.values.dtype)
            np.add.at(dense, self.drawn, self.values)
            return dense
        columns = np.tile(np.arange(case.dim), len(self.drawn))
        cells = sp.coo_array((self.values.reshape(-1), (np.repeat(self.drawn, case.dim), columns)), shape=shape)
        return cells.asformat(case.form)

    @cached_property
    def unique(self):
        """The touched rows, sorted."""
        return np.unique(self.drawn)

    @cached_property
    def grouped(self):
        """The arguments of the reference loop: touched rows, values grouped by row, and the start of each row's values.

        Unique rows keep their order.
        """
        if self.case.form == "dense":
            return None, self.gradient, None
        if not self.case.zipf:
            return self.drawn, self.values, None
        rows, starts, order = self.segments
        return rows, self.values[order], starts

    @cached_property
    def segments(self):
        """The touched rows, sorted; the start of each row's entries; and the order that groups entries by row."""
        order = np.argsort(self.drawn, kind="stable")
        rows, starts = np.unique(self.drawn[order], return_index=True)
        return rows, np.append(starts, len(order)), order


def _zipf(n_rows, exponent, size, rng):
    weight = np.cumsum(np.arange(1, n_rows + 1, dtype=np.float64) ** -exponent)
    return np.searchsorted(weight, rng.random(size) * weight[-1])
