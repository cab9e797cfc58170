# Contents of the kernels that are compiled once for each instruction set. A file uses only files above it, but
# sweep.pxi and update.pxi use each other.
#
# 1. A rule (rules/*.pxi) is the maths of one row: weights, gradient, states, numbers that depend on the step count.
# 2. A RowPlan (rowplan.pyx) says which rows a gradient touches, and which of its entries belong to each row.
# 3. The driver (driver.pxi) visits the touched rows: it gathers the row's gradient, counts the step and calls the rule.
# 4. A Sweep (sweep.pxi) binds a table to its rule. Sweep.prepare does all that may fail; Sweep.apply only writes.
# 5. One thread updates a row, and sums have a fixed order. So threads and instruction sets change no bit.

cimport numpy as cnp
from cython.parallel cimport prange, threadid
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.math cimport isfinite
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.string cimport memcpy

from sparseopt._kernels.atomic cimport Counts
from sparseopt._kernels.replay cimport (MOST_NUMBERS, Gap, History, Past, Term, append_step, make_ready, numbers_of,
                                        place_of, power, product_of, term_of)
from sparseopt._kernels.rowplan cimport RowPlan, Source, number

import numpy as np
from sparseopt import _memory
from sparseopt._kernels import processors

cnp.import_array()

include "shims.pxi"
include "rules/arithmetic.pxi"
include "machine.pxi"
include "vectors.pxi"
include "target.pxi"
include "distances.pxi"
include "prefetch.pxi"
include "norms.pxi"
include "gather.pxi"
include "rules/call.pxi"
include "rules/registry.pxi"
include "check.pxi"
include "runs.pxi"
include "driver.pxi"
include "scratch.pxi"
include "held.pxi"
include "sweep.pxi"
include "update.pxi"
include "reference.pxi"

BUILD = {"flags": FLAGS.decode(), "compiler": COMPILER.decode(), "openmp": bool(OPENMP)}
