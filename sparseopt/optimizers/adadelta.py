"""Adadelta."""

from ._base import Optimizer
from ._options import Options, Params, Rate, Unpack
from ._rule import Missed, Rule


class Adadelta(Optimizer):
    r"""Adadelta: a ratio of two running root mean squares, of updates and of gradients, sets the step.

    .. math:: v \leftarrow \rho v + (1-\rho) g^2, \quad
              \Delta = \frac{\sqrt{d + \epsilon}}{\sqrt{v + \epsilon}}\, g, \quad
              d \leftarrow \rho d + (1-\rho) \Delta^2, \quad w \leftarrow w - \eta \Delta

    State: `square_avg` (v) and `acc_delta` (d).

    Parameters
    ----------
    params
        The tables; see `Optimizer`, as for the keywords that all optimizers take.
    lr : float or callable
        η, 0 or more.
    rho : float
        ρ, in [0, 1).
    eps : float
        ε, 0 or more; it sets the size of the first steps.
    weight_decay : float
        λ, added to the gradient as λ w.

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2))
    >>> so.Adadelta(table).step(so.RowGradient([2], np.ones((1, 2))))
    >>> table[2].round(4)                                    # about -sqrt(1e-6 / 0.1)
    array([-0.0032, -0.0032], dtype=float32)

    References
    ----------
    Zeiler 2012, "ADADELTA: An Adaptive Learning Rate Method", Algorithm 1; as torch.optim.Adadelta.
    """

    def __init__(self, params: Params, lr: Rate = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0,
                 **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay), **options)

    def _rule(self, group):
        return Rule("adadelta", ("square_avg", "acc_delta"))

    def _hyper(self, group, lr):
        return lr, group["rho"], 1 - group["rho"], group["eps"]

    def _missed_steps(self, group):
        return Missed("adadelta_missed", powers=(group["rho"],))
