"""Gradients of torch as gradients of sparseopt, without a copy where their memory can be read as it is.

Repeated indices stay as they are: the kernels sum them, which costs less than `coalesce`.
"""

import math

import numpy as np
import scipy.sparse as sp
import torch

from ..gradients import Gradient, RowGradient


def as_table(tensor):
    """Return the memory of a contiguous tensor as a table: (n_rows, dim), or (n,) if it has one dimension or none."""
    array = tensor.detach().numpy()
    if array.ndim < 2:
        return array.reshape(-1)
    return array.reshape(len(array), math.prod(array.shape[1:]))


def gradient_of(grad: torch.Tensor, name: str) -> Gradient:
    """Return a gradient that `sparseopt.Optimizer.step` takes; `name` is its parameter's, for errors.

    torch gives a dense parameter gradients of two layouts: strided and COO.
    """
    if grad.device.type != "cpu":
        raise ValueError(f'gradient of "{name}" is on the device {grad.device}; it must be on the CPU')
    grad = grad.detach()
    if grad.dtype in (torch.bfloat16, torch.float16):       # NumPy has no bfloat16
        grad = grad.float()
    if grad.layout == torch.strided:
        return as_table(grad.contiguous())
    indices, values = grad._indices().numpy(), grad._values()
    if len(indices) == 1:
        return RowGradient(indices[0], as_table(values.contiguous()))
    return _of_elements(name, indices, values.contiguous().numpy(), grad.shape)


def _of_elements(name, indices, values, shape):
    """Return the gradient whose entries have an index for each of several dimensions, as scipy's COO array."""
    block = math.prod(shape[len(indices):])
    columns = np.zeros(indices.shape[1], np.int64)
    for index, length in zip(indices[1:], shape[1:], strict=False):
        wrong = index[(index < 0) | (index >= length)]
        if wrong.size:
            raise IndexError(f'gradient of "{name}" has the index {wrong[0]} in a dimension of length {length}')
        columns = columns * length + index
    columns = (columns[:, None] * block + np.arange(block)).reshape(-1)
    rows = np.repeat(indices[0], block)
    return sp.coo_array((values.reshape(-1), (rows, columns)), shape=(shape[0], math.prod(shape[1:])))
