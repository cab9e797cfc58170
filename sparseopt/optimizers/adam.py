"""Adam, AdamW, and Adam with one second moment a row."""

import numpy as np

from .._typing import Array
from ._base import Optimizer
from ._options import Options, Params, Rate, Unpack
from ._rule import Column, Missed, Rule


def corrected(k: Array, b1: float) -> Array:
    return 1 - b1**k


def root_corrected(k: Array, b2: float) -> Array:
    return 1 / np.sqrt(1 - b2**k)


class Adam(Optimizer):
    r"""Adam: a running mean of the gradient over a running root mean square of it, each corrected for its start from 0.

    .. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
              w \leftarrow w - \frac{\eta}{1-\beta_1^k} \cdot \frac{m}{\sqrt{v / (1-\beta_2^k)} + \epsilon}

    k is the number of steps that this row has taken, or with step_count="global" its table: see `Optimizer`.

    State: `step`, `exp_avg` (m), `exp_avg_sq` (v), with amsgrad `max_exp_avg_sq`.

    Parameters
    ----------
    params
        The tables; see `Optimizer`, as for the keywords that all optimizers take.
    lr : float or callable
        η, 0 or more.
    betas : pair of float
        β1 and β2, in [0, 1).
    eps : float
        ε, 0 or more, where torch's dense Adam has it (torch.optim.SparseAdam adds it before the bias correction of v).
    weight_decay : float
        λ, added to the gradient as λ w; for the decoupled kind see `AdamW`.
    amsgrad : bool
        Divide by the largest v so far: :math:`\hat v \leftarrow \max(\hat v, v)`.

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2))
    >>> opt = so.Adam(table, lr=0.1)
    >>> opt.step(so.RowGradient([2], [[3.0, -0.01]]))
    >>> table[2].round(4)                           # the first step of a row is lr, whatever the gradient's size
    array([-0.1,  0.1], dtype=float32)
    >>> opt.state[0]["step"]
    array([0, 0, 1, 0], dtype=int32)

    References
    ----------
    Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", Algorithm 1; amsgrad: Reddi et al. 2018, "On the
    Convergence of Adam and Beyond", Algorithm 2; as torch.optim.Adam.
    """

    def __init__(self, params: Params, lr: Rate = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, amsgrad: bool = False, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad),
                         **options)

    def _rule(self, group):
        if group["amsgrad"]:
            return Rule("amsgrad", ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), counted=True)
        return Rule("adam", ("exp_avg", "exp_avg_sq"), counted=True)

    def _hyper(self, group, lr):
        b1, b2 = group["betas"]
        return lr, b1, 1 - b1, b2, 1 - b2, group["eps"], 1.0

    def _by_count(self, group):
        b1, b2 = group["betas"]
        return Column(corrected, (b1,)), Column(root_corrected, (b2,))

    def _missed_steps(self, group):
        b1, b2 = group["betas"]
        coupled = self._coupled_decay(group) == group["weight_decay"]
        return Missed(f"{self._rule(group).name}_missed", size=0 if coupled else 1, powers=(b1, b2),
                      betas=(b1, b2, group.get("amsgrad", False)), eps=group["eps"])

    def _missed_step(self, group, lr, k, at):
        decay = group["weight_decay"] - self._coupled_decay(group)
        return {"matrix": (1 - lr * decay,), "factor": 1 / at[0], "fresh": at[1] ** -2}


class AdamW(Adam):
    r"""Adam with decoupled weight decay: :math:`w \leftarrow (1 - \eta\lambda) w` before Adam's update.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad
        As `Adam`.
    weight_decay : float
        λ, 0 or more. It acts on touched rows only, with missed="replay" on all.

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2)) + np.float32(1)
    >>> so.AdamW(table, lr=0.1, weight_decay=0.5).step(so.RowGradient([2], np.ones((1, 2))))
    >>> table[2].round(4)                                    # 1 - 0.1 * 0.5, less a first step of 0.1
    array([0.85, 0.85], dtype=float32)

    References
    ----------
    Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", Algorithm 2; as torch.optim.AdamW.
    """

    def __init__(self, params: Params, lr: Rate = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, **options: Unpack[Options]) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)

    def _hyper(self, group, lr):
        return *super()._hyper(group, lr)[:-1], 1 - lr * group["weight_decay"]

    def _coupled_decay(self, group):
        return 0.0


class RowwiseAdam(Optimizer):
    r"""Adam with one second moment a row: half of Adam's state.

    .. math:: v \leftarrow \beta_2 v + (1-\beta_2)\, \tfrac{1}{d} {\textstyle\sum_j g_j^2}, \qquad \text{else as Adam}

    Parameters
    ----------
    params, lr, betas, eps, weight_decay
        As `Adam`. The state `exp_avg_sq` has one number a row.

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2))
    >>> opt = so.RowwiseAdam(table, lr=0.1)
    >>> opt.step(so.RowGradient([2], [[7.0, 1.0]]))
    >>> table[2].round(4)                                    # the row's step has the gradient's direction: -0.1 * g / 5
    array([-0.14, -0.02], dtype=float32)

    References
    ----------
    Kingma and Ba 2015, Algorithm 1, with the second moment of FBGEMM's PARTIAL_ROWWISE_ADAM.
    """

    def __init__(self, params: Params, lr: Rate = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay), **options)

    def _rule(self, group):
        return Rule("rowwise_adam", ("exp_avg",), ("exp_avg_sq",), counted=True, by_elements=False)

    _hyper = Adam._hyper
    _by_count = Adam._by_count
    _missed_steps = Adam._missed_steps
    _missed_step = Adam._missed_step
