"""The same step in other libraries. A peer takes part if it is installed and has the rule of the case.

A peer is a function of the case, the table and the batches. The function returns contestants by name. A peer copies the
table, and converts gradients to its own form before anything is timed.
"""

import importlib.util
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

PEERS = "forms", "torch", "fbgemm", "numpy"         # forms: sparseopt's step on the same gradient in another form
_PACKAGES = {"torch": "torch", "fbgemm": "fbgemm_gpu"}


class Contestant(NamedTuple):
    """One implementation of the step: `step(batch)` is timed; `prepare(batch)` runs before and is not timed."""

    step: Callable
    prepare: Callable | None = None


def installed():
    return [name for name in PEERS if name not in _PACKAGES or importlib.util.find_spec(_PACKAGES[name])]


def contestants(case, table, batches, wanted):
    """The contestants of all wanted peers that are installed, by name."""
    found = {}
    if case.form in ("rows", "dense"):
        for name, peer in {"torch": _torch, "fbgemm": _fbgemm, "numpy": _numpy}.items():
            if name in wanted and name in installed():
                found |= peer(case, table, batches)
    return found


def set_threads(number):
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)


def _torch(case, table, batches):
    import torch

    found = {}
    sparse = {"Adam": ("SparseAdam", {}), "Adagrad": ("Adagrad", {}), "SGD": ("SGD", {"lr": 1e-3})}
    fused = {"Adam": "Adam", "AdamW": "AdamW", "Adagrad": "Adagrad", "SGD": "SGD"}
    if case.rule in sparse and case.form == "rows":
        name, keywords = sparse[case.rule]
        parameter = torch.nn.Parameter(torch.from_numpy(table.copy()))
        opt = getattr(torch.optim, name)([parameter], **keywords)
        grads = {id(batch): _torch_gradient(batch, table.shape) for batch in batches}

        def step(batch):
            parameter.grad = grads[id(batch)]
            opt.step()

        found[f"torch {name}" + (" sparse" if name != "SparseAdam" else "")] = Contestant(step)
    if case.rule in fused:
        dense = torch.nn.Parameter(torch.from_numpy(table.copy()))
        dense_opt = getattr(torch.optim, fused[case.rule])([dense], lr=1e-3, fused=True)
        dense.grad = torch.ones_like(dense)
        found[f"torch dense {fused[case.rule]}"] = Contestant(lambda batch: dense_opt.step())
    return found


def _torch_gradient(batch, shape):
    """Sorted unique rows are declared coalesced, which spares torch the search for repeats."""
    import torch

    rising = batch.case.order == "rising" and not batch.case.zipf
    return torch.sparse_coo_tensor(torch.from_numpy(batch.drawn[None]), torch.from_numpy(batch.values), shape,
                                   is_coalesced=rising, check_invariants=True)


def _fbgemm(case, table, batches):
    if case.form != "rows" or case.dtype != "float32" or case.zipf:
        return {}
    from fbgemm_gpu import split_table_batched_embeddings_ops_training as training
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation

    rules = {"SGD": EmbOptimType.EXACT_SGD, "Adagrad": EmbOptimType.EXACT_ADAGRAD,
             "RowwiseAdagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD}
    if case.rule not in rules or case.dim % 4:
        return {}
    import torch

    module = training.SplitTableBatchedEmbeddingBagsCodegen(
        [(*table.shape, EmbeddingLocation.HOST, training.ComputeDevice.CPU)],
        optimizer=rules[case.rule], learning_rate=1e-3, eps=1e-10)
    offsets = torch.arange(case.rows + 1)
    output = {}

    def prepare(batch):
        output["of"] = module(torch.from_numpy(batch.drawn), offsets)

    return {"fbgemm": Contestant(lambda batch: output["of"].backward(torch.from_numpy(batch.values)), prepare)}


def _numpy(case, table, batches):
    """A step in plain NumPy: sum repeated rows by a product, then read, update and write the rows."""
    if case.form != "rows" or case.rule not in ("SGD", "Adagrad", "Adam"):
        return {}
    w = table.copy()
    state = [np.zeros_like(w) for _ in range({"SGD": 0, "Adagrad": 1, "Adam": 2}[case.rule])]
    steps = np.zeros(len(w), dtype=np.int64)

    def step(batch):
        rows, inverse = np.unique(batch.drawn, return_inverse=True)
        places = np.arange(len(inverse))
        if len(rows) == len(inverse):
            rows, g = batch.drawn, batch.values
        else:
            g = sp.csr_array((np.ones(len(inverse), w.dtype), (inverse, places))) @ batch.values
        if case.rule == "SGD":
            w[rows] -= 1e-3 * g
        elif case.rule == "Adagrad":
            state[0][rows] += g * g
            w[rows] -= 0.01 * g / (np.sqrt(state[0][rows]) + 1e-10)
        else:
            steps[rows] += 1
            k = steps[rows, None]
            m = state[0][rows] = 0.9 * state[0][rows] + 0.1 * g
            v = state[1][rows] = 0.999 * state[1][rows] + 0.001 * g * g
            rate = (1e-3 / (1 - 0.9 ** k)).astype(w.dtype)
            scale = (1 / np.sqrt(1 - 0.999 ** k)).astype(w.dtype)
            w[rows] -= rate * m / (np.sqrt(v) * scale + 1e-8)

    return {"NumPy": Contestant(step)}
