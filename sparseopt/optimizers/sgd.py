"""Stochastic gradient descent, with momentum."""

import numpy as np

from .._typing import Array
from ._base import Optimizer
from ._options import Options, Params, Rate, Unpack
from ._rule import Column, Missed, Rule


def after_first(k: Array, first: float, later: float) -> Array:
    return np.where(k == 1, first, later)


class SGD(Optimizer):
    r"""Stochastic gradient descent, optionally with (Nesterov) momentum.

    .. math:: b \leftarrow \mu b + (1-\tau) g \quad (b \leftarrow g \text{ on the first touch}), \qquad
              w \leftarrow w - \eta\, b

    without momentum :math:`w \leftarrow w - \eta g`, with Nesterov's :math:`w \leftarrow w - \eta (g + \mu b)`.

    Parameters
    ----------
    params
        The tables; see `Optimizer`, as for the keywords that all optimizers take.
    lr : float or callable
        η, 0 or more.
    momentum : float
        μ, 0 or more. State: `momentum_buffer`.
    dampening : float
        τ.
    weight_decay : float
        λ, added to the gradient as λ w.
    nesterov : bool
        Needs a momentum above 0 and no dampening.

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`; and for nesterov without momentum or with dampening, or dampening without momentum.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2))
    >>> opt = so.SGD(table, lr=0.5, momentum=0.9)
    >>> for _ in range(2):
    ...     opt.step(so.RowGradient([2], np.ones((1, 2))))
    >>> table[2].round(4)                                    # -0.5 * 1 - 0.5 * 1.9
    array([-1.45, -1.45], dtype=float32)

    References
    ----------
    Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning"; as torch.optim.SGD.
    """

    _linear = True

    def __init__(self, params: Params, lr: Rate = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
                 weight_decay: float = 0.0, nesterov: bool = False, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
                                      nesterov=nesterov), **options)

    def _check_more(self, group, lr):
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(f"nesterov is True with momentum {group['momentum']} and dampening {group['dampening']}; "
                             "it needs a momentum above 0 and a dampening of 0")
        if group["dampening"] != 0 and group["momentum"] == 0:
            raise ValueError(f"dampening is {group['dampening']} with momentum 0; dampening needs a momentum above 0")

    def _rule(self, group):
        if group["momentum"] == 0:
            return Rule("sgd")
        return Rule("nesterov" if group["nesterov"] else "momentum", ("momentum_buffer",), counted=True)

    def _hyper(self, group, lr):
        return lr, group["momentum"]

    def _by_count(self, group):
        if group["momentum"] == 0:
            return ()
        return Column(after_first, (0.0, group["momentum"])), Column(after_first, (1.0, 1 - group["dampening"]))

    def _missed_steps(self, group):
        if group["momentum"]:
            return Missed("momentum_missed", size=2)
        return Missed("sgd_missed", size=1 if group["weight_decay"] else 0)

    def _missed_step(self, group, lr, k, at):
        decay, mu = group["weight_decay"], group["momentum"]
        if mu == 0:
            return {"matrix": (1 - lr * decay,)}
        kept, gain = at
        # buf' = gain λ w + kept buf, and w' = w - of_buf buf', Nesterov's w' = w - of_w w - of_buf buf'
        of_w, of_buf = (lr * decay, lr * mu) if group["nesterov"] else (0.0, lr)
        return {"matrix": (1 - of_w - of_buf * gain * decay, -of_buf * kept, gain * decay, kept)}
