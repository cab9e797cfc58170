"""Adamax."""

import math

from ._base import Optimizer
from ._options import Options, Params, Rate, Unpack
from ._rule import Column, Missed, Rule
from .adam import corrected


class Adamax(Optimizer):
    r"""Adamax: Adam with the infinity norm, a decaying maximum, in place of the second moment.

    .. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \quad u \leftarrow \max(\beta_2 u, |g| + \epsilon), \quad
              w \leftarrow w - \frac{\eta}{1-\beta_1^k} \cdot \frac{m}{u}

    State: `step`, `exp_avg` (m), `exp_inf` (u).

    Parameters
    ----------
    params
        The tables; see `Optimizer`, as for the keywords that all optimizers take.
    lr : float or callable
        η, 0 or more.
    betas : pair of float
        β1 and β2, in [0, 1).
    eps : float
        ε, 0 or more.
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
    >>> so.Adamax(table, lr=0.1).step(so.RowGradient([2], [[3.0, -0.01]]))
    >>> table[2].round(4)                                    # the first step of a row is lr
    array([-0.1,  0.1], dtype=float32)

    References
    ----------
    Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", Algorithm 2; as torch.optim.Adamax.
    """

    def __init__(self, params: Params, lr: Rate = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay), **options)

    def _rule(self, group):
        return Rule("adamax", ("exp_avg", "exp_inf"), counted=True)

    def _hyper(self, group, lr):
        b1, b2 = group["betas"]
        return lr, b1, 1 - b1, b2, group["eps"], b2 ** self._window(group)

    def _by_count(self, group):
        return (Column(corrected, group["betas"][:1]),)

    @staticmethod
    def _window(group):
        """The number of missed steps after which m / u is nothing beside what it was."""
        b1, b2 = group["betas"]
        return math.log(1e-17) / math.log(b1 / b2) if 0 < b1 < b2 else 0

    def _missed_steps(self, group):
        b1, b2 = group["betas"]
        if b1 >= b2 > 0 or b1 > b2:
            raise ValueError(f'betas are {b1} and {b2} with missed="replay"; β1 must be below β2. Else u falls faster '
                             'than m, and steps without gradient grow. missed="skip" takes any betas')
        return Missed("adamax_missed", size=3, powers=(b1, b2), fixed=(group["eps"],))

    def _missed_step(self, group, lr, k, at):
        b1, b2 = group["betas"]
        rate, ratio = lr / at[0], b1 / b2 if b1 else 0.0
        return {"matrix": (1.0, -rate * ratio, -rate * b1, 0.0, ratio, 0.0, 0.0, 0.0, b1)}
