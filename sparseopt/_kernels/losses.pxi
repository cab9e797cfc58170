# Between a table and a gradient: look-ups, draws and losses, compiled once for each instruction set. The modules are
# not those of the optimizers' step. A file uses only files above it.
#
# 1. A loss (losses/*.pxi) is the maths of one sample: its score, its loss, and the derivative of the loss.
# 2. Its kernel runs over the samples of a batch, and writes the rows of the gradients.
# 3. Kernels take checked arrays, and allocate nothing.
# 4. A part of a sum belongs to a fixed block of samples, never to a thread. So threads and instruction sets change no
#    bit. exponential and logarithm are our own for the same reason.

cimport numpy as cnp
from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from sparseopt._kernels.rowplan cimport number

import numpy as np

cnp.import_array()

include "shims.pxi"
include "rules/arithmetic.pxi"
include "machine.pxi"
include "vectors.pxi"
include "embedding.pxi"
include "alias.pxi"
include "losses/functions.pxi"
include "random.pxi"
include "losses/pairwise.pxi"
include "losses/words.pxi"
include "losses/squares.pxi"
include "losses/compact.pxi"
include "losses/linear.pxi"
include "losses/factorization.pxi"
include "losses/softmax.pxi"
include "losses/square.pxi"
