"""NAdam."""

import numpy as np

from .._typing import Array
from ._base import Optimizer
from ._options import Options, Params, Rate, Unpack
from ._rule import Column, Rule
from .adam import Adam, root_corrected


def momentum(k: Array, b1: float, decay: float) -> Array:
    return b1 * (1 - 0.5 * 0.96 ** (k * decay))


def following(k: Array, b1: float, decay: float) -> Array:
    return momentum(k + 1, b1, decay)


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov's look ahead, under a momentum that warms up.

    .. math:: \mu_k = \beta_1 (1 - \tfrac12\, 0.96^{k\psi}), \quad m, v \text{ as Adam}, \quad
              \hat m = \frac{\mu_{k+1}\, m}{1 - \prod_{i \le k+1} \mu_i}
                     + \frac{(1-\mu_k)\, g}{1 - \prod_{i \le k} \mu_i}, \quad
              w \leftarrow w - \eta \frac{\hat m}{\sqrt{v / (1-\beta_2^k)} + \epsilon}

    If betas or momentum_decay change on the way, earlier steps keep their old μ in the products.

    State: `step`, `exp_avg` (m), `exp_avg_sq` (v), `mu_product` (the product of the μ so far: one number a row, or one
    for the table under step_count="global" and missed="replay").

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
        λ, added to the gradient as λ w, or with decoupled_weight_decay taken off the weight as in `AdamW`.
    momentum_decay : float
        ψ, 0 or more.
    decoupled_weight_decay : bool
        Multiply the weight by 1 - η λ instead of adding λ w to the gradient.

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2))
    >>> so.NAdam(table, lr=0.1).step(so.RowGradient([2], [[3.0, -0.01]]))
    >>> table[2].round(4)
    array([-0.1056,  0.1056], dtype=float32)

    References
    ----------
    Dozat 2016, "Incorporating Nesterov Momentum into Adam", Algorithm 8; as torch.optim.NAdam.
    """

    def __init__(self, params: Params, lr: Rate = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False,
                 **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay),
                         **options)

    def _rule(self, group):
        if self._missed == "skip" and self._step_count == "row":
            return Rule("nadam_by_row", ("exp_avg", "exp_avg_sq"), ("mu_product",), counted=True, by_elements=False)
        return Rule("nadam", ("exp_avg", "exp_avg_sq"), table_state=("mu_product",), counted=True)

    def _init_state(self, group, table, state):
        state["mu_product"][...] = 1

    def _hyper(self, group, lr):
        b1, b2 = group["betas"]
        decay = group["weight_decay"] if group["decoupled_weight_decay"] else 0.0
        return lr, b1, 1 - b1, b2, 1 - b2, group["eps"], 1 - lr * decay

    def _by_count(self, group):
        (b1, b2), decay = group["betas"], group["momentum_decay"]
        return Column(momentum, (b1, decay)), Column(following, (b1, decay)), Column(root_corrected, (b2,))

    def _with_table_state(self, at, state):
        mu, next_mu, scale = at
        product = float(state["mu_product"]) * mu
        numbers = (1 - mu) / (1 - product), next_mu / (1 - product * next_mu), scale
        return numbers, {"mu_product": product}

    def _state_after(self, group, k):
        most = min(int(np.max(k, initial=0)), 1 << 20)          # by then the product has long become 0, or never will
        mu = momentum(np.arange(1.0, most + 1), group["betas"][0], group["momentum_decay"])
        products = np.cumprod(np.append(1.0, mu))
        return {"mu_product": products[np.minimum(k, most)]}

    def _coupled_decay(self, group):
        return 0.0 if group["decoupled_weight_decay"] else group["weight_decay"]

    def _missed_steps(self, group):
        return Adam._missed_steps(self, group)._replace(rule="adam_missed", fixed=(group["momentum_decay"],))

    def _missed_step(self, group, lr, k, at):
        decay = group["weight_decay"] - self._coupled_decay(group)
        return {"matrix": (1 - lr * decay,), "factor": at[1], "fresh": at[2] ** -2}
