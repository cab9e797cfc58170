"""Lion."""

from ._base import Optimizer
from ._options import Options, Params, Rate, Unpack
from ._rule import Missed, Rule


class Lion(Optimizer):
    r"""Lion: every element moves by lr, in the direction of the sign of an interpolated momentum.

    .. math:: w \leftarrow (1 - \eta\lambda) w - \eta \operatorname{sign}(\beta_1 m + (1-\beta_1) g), \qquad
              m \leftarrow \beta_2 m + (1-\beta_2) g

    Missing columns of a touched row are zeros, and a zero with momentum moves its element by a whole lr.

    State: `exp_avg` (m).

    Parameters
    ----------
    params
        The tables; see `Optimizer`, as for the keywords that all optimizers take.
    lr : float or callable
        η, 0 or more; the paper advises a third to a tenth of Adam's.
    betas : pair of float
        β1 and β2, in [0, 1).
    weight_decay : float
        λ, decoupled, on touched rows only; with missed="replay" on all.

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2))
    >>> so.Lion(table, lr=0.1).step(so.RowGradient([2], [[3.0, -0.01]]))
    >>> table[2].round(4)
    array([-0.1,  0.1], dtype=float32)

    References
    ----------
    Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", Algorithm 2.
    """

    def __init__(self, params: Params, lr: Rate = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
                 weight_decay: float = 0.0, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay), **options)

    def _rule(self, group):
        return Rule("lion", ("exp_avg",))

    def _hyper(self, group, lr):
        b1, b2 = group["betas"]
        return lr, b1, 1 - b1, b2, 1 - b2, 1 - lr * group["weight_decay"]

    def _coupled_decay(self, group):
        return 0.0

    def _missed_steps(self, group):
        return Missed("lion_missed", size=2, powers=group["betas"][1:])

    def _missed_step(self, group, lr, k, at):
        b1, b2 = group["betas"]
        # For (w, sign of m). With β1 = 0 the sign is not read, with β2 = 0 the sign lasts for one step.
        return {"matrix": (1 - lr * group["weight_decay"], lr if b1 else 0.0, 0.0, 1.0 if b2 else 0.0)}
