"""RMSprop."""

from ._base import Optimizer
from ._options import Options, Params, Rate, Unpack
from ._rule import Missed, Rule


class RMSprop(Optimizer):
    r"""RMSprop: every element divides its gradient by a running root mean square of it.

    .. math:: v \leftarrow \alpha v + (1-\alpha) g^2, \qquad w \leftarrow w - \eta \frac{g}{\sqrt{v} + \epsilon}

    Centered, :math:`\sqrt{v - \bar g^2}` with :math:`\bar g \leftarrow \alpha \bar g + (1-\alpha) g` takes the place of
    :math:`\sqrt v`. With momentum, :math:`b \leftarrow \mu b + g / (\sqrt v + \epsilon)` and
    :math:`w \leftarrow w - \eta b`.

    State: `square_avg`, centered also `grad_avg`, with momentum also `momentum_buffer`.

    Parameters
    ----------
    params
        The tables; see `Optimizer`, as for the keywords that all optimizers take.
    lr : float or callable
        η, 0 or more.
    alpha : float
        α, in [0, 1).
    eps : float
        ε, 0 or more.
    weight_decay : float
        λ, added to the gradient as λ w.
    momentum : float
        μ, 0 or more.
    centered : bool
        A variance that rounding takes below 0 counts as 0 (torch returns NaN there).

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2))
    >>> so.RMSprop(table, lr=0.01).step(so.RowGradient([2], np.ones((1, 2))))
    >>> table[2].round(4)                                    # -0.01 / sqrt(0.01)
    array([-0.1, -0.1], dtype=float32)

    References
    ----------
    Tieleman and Hinton 2012, "Lecture 6.5: rmsprop"; Graves 2013, "Generating Sequences With Recurrent Neural
    Networks", eq. 38 to 45; as torch.optim.RMSprop.
    """

    def __init__(self, params: Params, lr: Rate = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
                 **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum,
                                      centered=centered), **options)

    def _rule(self, group):
        name, state = "rmsprop", ("square_avg",)
        if group["centered"]:
            name, state = name + "_centered", (*state, "grad_avg")
        if group["momentum"] > 0:
            name, state = name + "_momentum", (*state, "momentum_buffer")
        return Rule(name, state)

    def _hyper(self, group, lr):
        return lr, group["alpha"], 1 - group["alpha"], group["eps"], group["momentum"]

    def _missed_steps(self, group):
        return Missed(f"{self._rule(group).name}_missed", size=2 if group["momentum"] else 0, powers=(group["alpha"],))

    def _missed_step(self, group, lr, k, at):
        mu = group["momentum"]
        return {"matrix": (1.0, -lr * mu, 0.0, mu)}
