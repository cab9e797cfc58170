"""The optimizers for torch: `sparseopt`'s twelve under the same names, and torch.optim.SparseAdam."""

import math
from typing import Literal

from torch import Tensor
from torch.optim.optimizer import ParamsT

from .. import optimizers
from ..optimizers import CHECKS, Options, Unpack
from ._base import Optimizer

Betas = tuple[float | Tensor, float | Tensor]


class SGD(Optimizer):
    """`sparseopt.SGD` for torch: gradient descent, optionally with momentum, as torch.optim.SGD.

    Parameters
    ----------
    params, lr, and options after nesterov
        As `sparseopt.torch.Optimizer`.
    momentum, dampening, weight_decay, nesterov
        As `sparseopt.SGD`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer` and `sparseopt.SGD`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> words = torch.nn.Embedding(4, 2, sparse=True)
    >>> opt = sparseopt.torch.SGD(words.parameters(), lr=0.5, momentum=0.9)
    >>> before = words.weight.detach().clone()
    >>> words(torch.tensor([2, 2])).sum().backward()
    >>> opt.step()
    >>> (words.weight.detach() - before)[:, 0].round(decimals=4)
    tensor([ 0.,  0., -1.,  0.])

    References
    ----------
    As `sparseopt.SGD`.
    """

    _numpy = optimizers.SGD

    def __init__(self, params: ParamsT, lr: float | Tensor = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
                 weight_decay: float = 0.0, nesterov: bool = False, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
                                      nesterov=nesterov), **options)


class Adagrad(Optimizer):
    """`sparseopt.Adagrad` for torch: divides by the root of the sum of all squared gradients, as torch.optim.Adagrad.

    Parameters
    ----------
    params, lr, and options after eps
        As `sparseopt.torch.Optimizer`.
    lr_decay, weight_decay, initial_accumulator_value, eps
        As `sparseopt.Adagrad`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer` and `sparseopt.Adagrad`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> words = torch.nn.Embedding(4, 2, sparse=True)
    >>> opt = sparseopt.torch.Adagrad(words.parameters(), lr=0.5)
    >>> words(torch.tensor([2])).sum().backward()
    >>> opt.step()
    >>> opt.state[words.weight]["sum"][:, 0]
    tensor([0., 0., 1., 0.])

    References
    ----------
    As `sparseopt.Adagrad`.
    """

    _numpy = optimizers.Adagrad

    def __init__(self, params: ParamsT, lr: float | Tensor = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
                 initial_accumulator_value: float = 0.0, eps: float = 1e-10, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
                                      initial_accumulator_value=initial_accumulator_value, eps=eps), **options)


class RowwiseAdagrad(Adagrad):
    """`sparseopt.RowwiseAdagrad` for torch: Adagrad with one sum a row.

    Parameters
    ----------
    params, lr, lr_decay, weight_decay, initial_accumulator_value, eps, and options after them
        As `sparseopt.torch.Adagrad`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Adagrad`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> words = torch.nn.Embedding(4, 2, sparse=True)
    >>> opt = sparseopt.torch.RowwiseAdagrad(words.parameters(), lr=0.5)
    >>> opt.state[words.weight]["sum"]
    tensor([0., 0., 0., 0.])

    References
    ----------
    As `sparseopt.RowwiseAdagrad`.
    """

    _numpy = optimizers.RowwiseAdagrad


class Adadelta(Optimizer):
    """`sparseopt.Adadelta` for torch: steps in the units of earlier steps, as torch.optim.Adadelta.

    Parameters
    ----------
    params, lr, and options after weight_decay
        As `sparseopt.torch.Optimizer`.
    rho, eps, weight_decay
        As `sparseopt.Adadelta`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer` and `sparseopt.Adadelta`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> words = torch.nn.Embedding(4, 2, sparse=True)
    >>> opt = sparseopt.torch.Adadelta(words.parameters())
    >>> sorted(opt.state[words.weight])
    ['acc_delta', 'square_avg']

    References
    ----------
    As `sparseopt.Adadelta`.
    """

    _numpy = optimizers.Adadelta

    def __init__(self, params: ParamsT, lr: float | Tensor = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0.0, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay), **options)


class RMSprop(Optimizer):
    """`sparseopt.RMSprop` for torch: divides by a running root mean square, as torch.optim.RMSprop.

    Parameters
    ----------
    params, lr, and options after centered
        As `sparseopt.torch.Optimizer`.
    alpha, eps, weight_decay, momentum, centered
        As `sparseopt.RMSprop`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer` and `sparseopt.RMSprop`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> words = torch.nn.Embedding(4, 2, sparse=True)
    >>> opt = sparseopt.torch.RMSprop(words.parameters(), momentum=0.9)
    >>> sorted(opt.state[words.weight])
    ['momentum_buffer', 'square_avg']

    References
    ----------
    As `sparseopt.RMSprop`.
    """

    _numpy = optimizers.RMSprop

    def __init__(self, params: ParamsT, lr: float | Tensor = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
                 **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum,
                                      centered=centered), **options)


class Adam(Optimizer):
    """`sparseopt.Adam` for torch: torch.optim.Adam's update, in the rows that a gradient touches.

    With missed="replay" the result is torch.optim.Adam's, in all rows.

    Parameters
    ----------
    params, lr, and options after amsgrad
        As `sparseopt.torch.Optimizer`.
    betas, eps, weight_decay, amsgrad
        As `sparseopt.Adam`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer` and `sparseopt.Adam`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> model = torch.nn.Sequential(torch.nn.Embedding(4, 2, sparse=True), torch.nn.Linear(2, 1))
    >>> opt = sparseopt.torch.Adam(model.parameters(), lr=0.1, missed="replay")
    >>> opt.attach(model)
    >>> for word in 1, 1, 2:
    ...     opt.zero_grad()
    ...     model(torch.tensor([word])).sum().backward()
    ...     opt.step()
    >>> opt.catch_up()                                  # before the weights are read without their module
    >>> opt.state[model[0].weight]["step"]
    tensor([3, 3, 3, 3], dtype=torch.int32)

    References
    ----------
    As `sparseopt.Adam`.
    """

    _numpy: type[optimizers.Optimizer] = optimizers.Adam

    def __init__(self, params: ParamsT, lr: float | Tensor = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, amsgrad: bool = False, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad),
                         **options)


class AdamW(Adam):
    """`sparseopt.AdamW` for torch: Adam with decoupled weight decay, as torch.optim.AdamW.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, and options after amsgrad
        As `sparseopt.torch.Adam`.
    weight_decay : float
        λ, 0 or more. It acts on touched rows only, with missed="replay" on all.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Adam`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> weight = torch.nn.Parameter(torch.ones(3, 1))
    >>> opt = sparseopt.torch.AdamW([weight], lr=0.1, weight_decay=0.5)
    >>> weight.grad = torch.sparse_coo_tensor([[1]], [[1.0]], (3, 1), check_invariants=True)
    >>> opt.step()
    >>> weight.detach().T
    tensor([[1.0000, 0.8500, 1.0000]])

    References
    ----------
    As `sparseopt.AdamW`.
    """

    _numpy = optimizers.AdamW

    def __init__(self, params: ParamsT, lr: float | Tensor = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, **options: Unpack[Options]) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)


class RowwiseAdam(Optimizer):
    """`sparseopt.RowwiseAdam` for torch: Adam with one second moment a row.

    Parameters
    ----------
    params, lr, and options after weight_decay
        As `sparseopt.torch.Optimizer`.
    betas, eps, weight_decay
        As `sparseopt.RowwiseAdam`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer` and `sparseopt.RowwiseAdam`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> words = torch.nn.Embedding(4, 2, sparse=True)
    >>> opt = sparseopt.torch.RowwiseAdam(words.parameters())
    >>> opt.state[words.weight]["exp_avg_sq"]
    tensor([0., 0., 0., 0.])

    References
    ----------
    As `sparseopt.RowwiseAdam`.
    """

    _numpy = optimizers.RowwiseAdam

    def __init__(self, params: ParamsT, lr: float | Tensor = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay), **options)


class Adamax(Optimizer):
    """`sparseopt.Adamax` for torch: Adam with the largest recent gradient as divisor, as torch.optim.Adamax.

    Parameters
    ----------
    params, lr, and options after weight_decay
        As `sparseopt.torch.Optimizer`.
    betas, eps, weight_decay
        As `sparseopt.Adamax`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer` and `sparseopt.Adamax`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> words = torch.nn.Embedding(4, 2, sparse=True)
    >>> opt = sparseopt.torch.Adamax(words.parameters())
    >>> sorted(opt.state[words.weight])
    ['exp_avg', 'exp_inf', 'step']

    References
    ----------
    As `sparseopt.Adamax`.
    """

    _numpy = optimizers.Adamax

    def __init__(self, params: ParamsT, lr: float | Tensor = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay), **options)


class NAdam(Optimizer):
    """`sparseopt.NAdam` for torch: Adam with Nesterov's momentum, as torch.optim.NAdam.

    Parameters
    ----------
    params, lr, and options after decoupled_weight_decay
        As `sparseopt.torch.Optimizer`.
    betas, eps, weight_decay, momentum_decay, decoupled_weight_decay
        As `sparseopt.NAdam`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer` and `sparseopt.NAdam`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> words = torch.nn.Embedding(4, 2, sparse=True)
    >>> opt = sparseopt.torch.NAdam(words.parameters(), step_count="global")
    >>> opt.state[words.weight]["mu_product"]
    tensor(1., dtype=torch.float64)

    References
    ----------
    As `sparseopt.NAdam`.
    """

    _numpy = optimizers.NAdam

    def __init__(self, params: ParamsT, lr: float | Tensor = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False,
                 **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay),
                         **options)


class Ftrl(Optimizer):
    """`sparseopt.Ftrl` for torch: FTRL-Proximal, whose L1 yields weights of exactly 0.

    Parameters
    ----------
    params, lr, and options after weight_decay
        As `sparseopt.torch.Optimizer`.
    beta, l1, l2, weight_decay
        As `sparseopt.Ftrl`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer` and `sparseopt.Ftrl`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> weight = torch.nn.Parameter(torch.zeros(3))
    >>> opt = sparseopt.torch.Ftrl([weight], lr=0.5, l1=1.0)
    >>> weight.grad = torch.tensor([0.0, 0.9, 3.0])
    >>> opt.step()
    >>> weight.detach()
    tensor([ 0.0000,  0.0000, -0.2500])

    References
    ----------
    As `sparseopt.Ftrl`.
    """

    _numpy = optimizers.Ftrl

    def __init__(self, params: ParamsT, lr: float | Tensor = 0.1, beta: float = 1.0, l1: float = 0.0, l2: float = 0.0,
                 weight_decay: float = 0.0, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, beta=beta, l1=l1, l2=l2, weight_decay=weight_decay), **options)


class Lion(Optimizer):
    """`sparseopt.Lion` for torch: steps of one size, in the sign of the momentum.

    Parameters
    ----------
    params, lr, and options after weight_decay
        As `sparseopt.torch.Optimizer`.
    betas, weight_decay
        As `sparseopt.Lion`.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer` and `sparseopt.Lion`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> weight = torch.nn.Parameter(torch.zeros(3))
    >>> opt = sparseopt.torch.Lion([weight], lr=0.5)
    >>> weight.grad = torch.tensor([0.0, -0.9, 3.0])
    >>> opt.step()
    >>> weight.detach()
    tensor([ 0.0000,  0.5000, -0.5000])

    References
    ----------
    As `sparseopt.Lion`.
    """

    _numpy = optimizers.Lion

    def __init__(self, params: ParamsT, lr: float | Tensor = 1e-4, betas: Betas = (0.9, 0.99),
                 weight_decay: float = 0.0, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay), **options)


class SparseAdam(Optimizer):
    r"""torch.optim.SparseAdam's numbers, with sparse and dense gradients in one optimizer.

    .. math:: w \leftarrow w - \eta\, \frac{\sqrt{1-\beta_2^t}}{1-\beta_1^t} \cdot \frac{m}{\sqrt v + \epsilon}

    t is the number of steps of the parameter, and ε is added before the bias correction of v. In both it differs from
    `sparseopt.torch.Adam`, whose rows count their own steps.

    Parameters
    ----------
    params : iterable of tensors, of pairs (name, tensor), or of dicts
        As `sparseopt.torch.Optimizer`.
    lr : float or tensor of one number
        η, 0 or more.
    betas : pair of float
        β1 and β2, in [0, 1).
    eps : float
        ε, 0 or more.
    maximize : bool
        Ascend instead of descend.
    max_grad_norm, num_threads
        As `sparseopt.torch.Optimizer`.
    nonfinite : "raise", "skip" or "allow"
        As `sparseopt.torch.Optimizer`; torch.optim.SparseAdam allows a NaN.

    Raises
    ------
    TypeError, ValueError
        As `sparseopt.torch.Optimizer`.

    Examples
    --------
    >>> import torch, sparseopt.torch
    >>> words = torch.nn.Embedding(4, 2, sparse=True)
    >>> opt = sparseopt.torch.SparseAdam(words.parameters(), lr=0.1)
    >>> before = words.weight.detach().clone()
    >>> words(torch.tensor([2])).sum().backward()
    >>> opt.step()
    >>> (words.weight.detach() - before)[:, 0].round(decimals=4)
    tensor([ 0.0000,  0.0000, -0.1000,  0.0000])

    References
    ----------
    Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", section 2, the order of computation at its end; as
    torch.optim.SparseAdam.
    """

    _numpy = optimizers.Adam

    def __init__(self, params: ParamsT, lr: float | Tensor = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8,
                 maximize: bool = False, *, max_grad_norm: float | None = None,
                 nonfinite: Literal["raise", "skip", "allow"] = "allow", num_threads: int | None = None) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps), maximize=maximize, step_count="global",
                         max_grad_norm=max_grad_norm, nonfinite=nonfinite, num_threads=num_threads)

    def _settings(self, values, state):
        # The NumPy Adam adds its ε after the bias correction of v.
        (_, second), eps = (CHECKS[name](name, values[name]) for name in ("betas", "eps"))
        return {**values, "eps": eps / math.sqrt(1 - second ** (int(state["step"]) + 1))}
