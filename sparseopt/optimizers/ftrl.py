"""FTRL-Proximal."""

from ._base import Optimizer
from ._options import Options, Params, Rate, Unpack
from ._rule import Missed, Rule


class Ftrl(Optimizer):
    r"""FTRL-Proximal: online learning with L1 that yields weights of exactly 0; the rule of click models.

    .. math:: \sigma = \frac{\sqrt{n + g^2} - \sqrt n}{\alpha}, \quad z \leftarrow z + g - \sigma w, \quad
              n \leftarrow n + g^2, \quad
              w = \begin{cases} 0 & |z| \le \lambda_1 \\
              -\frac{z - \operatorname{sign}(z)\lambda_1}{(\beta + \sqrt n)/\alpha + \lambda_2} & \text{else}
              \end{cases}

    For a weight that is not 0, z is computed from the weight at each step. So weights that are written by hand, reset
    or scaled by max_norm stay what they are. z is used as stored only where the weight is 0.

    State: `z`, `n`.

    Parameters
    ----------
    params
        The tables; see `Optimizer`, as for the keywords that all optimizers take.
    lr : float or callable
        The paper's α, 0 or more. A rate of 0 moves no weight, and a new rate moves none by itself.
    beta : float
        The paper's β, 0 or more.
    l1, l2 : float
        λ1 and λ2, 0 or more.
    weight_decay : float
        λ, added to the gradient as λ w, but not to the sum of squares n. λ is twice TensorFlow's
        l2_shrinkage_regularization_strength. (l2 is the proximal penalty.)

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`. Also ValueError for a weight_decay above 0 with beta = l2 = 0.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> w = so.zeros(4)
    >>> so.Ftrl(w, lr=0.5, l1=1.0).step(so.RowGradient([1, 2], np.array([0.9, 3.0])))
    >>> w                                           # row 1 stays 0; row 2: -(3 - 1) / ((1 + 3) / 0.5)
    array([ 0.  ,  0.  , -0.25,  0.  ], dtype=float32)

    References
    ----------
    McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches", Algorithm 1.
    """

    _floored = ("beta",)
    _adds_decay = True                          # since the sum of squares is without the decay

    def __init__(self, params: Params, lr: Rate = 0.1, beta: float = 1.0, l1: float = 0.0, l2: float = 0.0,
                 weight_decay: float = 0.0, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, beta=beta, l1=l1, l2=l2, weight_decay=weight_decay), **options)

    def _check_more(self, group, lr):
        if group["weight_decay"] and group["beta"] == 0 and group["l2"] == 0:
            raise ValueError(f"weight_decay is {group['weight_decay']} where beta and l2 are 0; one of these must be "
                             "above 0")

    def _rule(self, group):
        return Rule("ftrl", ("z", "n"))

    def _hyper(self, group, lr):
        return lr, group["beta"], group["l1"], group["l2"], group["weight_decay"]

    def _missed_steps(self, group):
        return Missed()                         # without a gradient, nothing moves
