"""FTRL-Proximal."""

import numpy as np

from ._base import Missed, Optimizer, Rule
from ._hyper import positive


class Ftrl(Optimizer):
    r"""FTRL-Proximal: online learning with L1 that yields weights of exactly 0; the rule of click models.

    .. math:: \sigma = \frac{\sqrt{n + g^2} - \sqrt n}{\alpha}, \quad z \leftarrow z + g - \sigma w, \quad
              n \leftarrow n + g^2, \quad
              w = \begin{cases} 0 & |z| \le \lambda_1 \\
              -\frac{z - \operatorname{sign}(z)\lambda_1}{(\beta + \sqrt n)/\alpha + \lambda_2} & \text{else} \end{cases}

    w is a function of z and n alone. The paper starts from w = 0; here z starts where w has the value that the table has at
    construction, so that embeddings may start from random numbers.

    Parameters
    ----------
    params
        The tables; see `Optimizer`, as for the keywords that all optimizers take.
    lr : float or callable
        The paper's α, above 0. As w is a function of α, a new rate scales the weights of rows touched after it.
    beta : float
        The paper's β, 0 or more.
    l1, l2 : float
        λ1 and λ2, 0 or more.
    weight_decay : float
        λ, added to the gradient as λ w (TensorFlow's l2_shrinkage; l2 is the proximal penalty).

    State: `z`, `n`.

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`; for an lr of 0; and for a table that is not 0 where beta and l2 are, as no z gives its values then.

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

    def __init__(self, params, lr=0.1, beta=1.0, l1=0.0, l2=0.0, weight_decay=0.0, **options):
        super().__init__(params, dict(lr=lr, beta=beta, l1=l1, l2=l2, weight_decay=weight_decay), **options)

    def _check_more(self, group, lr):
        if lr == 0:
            raise ValueError("lr is 0; Ftrl divides by it, so it must be above 0")

    def _rule(self, group):
        return Rule("ftrl", ("z", "n"))

    def _init_state(self, group, table, state):
        if table.any():
            if group["beta"] == 0 and group["l2"] == 0:
                raise ValueError("beta and l2 are 0 and the table is not: no z gives its values; start from zeros, or from a "
                                 "beta above 0")
            alpha = positive("lr", group["lr"](0) if callable(group["lr"]) else group["lr"])
            state["z"][...] = -table * (group["beta"] / alpha + group["l2"]) - np.sign(table) * group["l1"]

    def _hyper(self, group, lr):
        return 1 / lr, group["beta"], group["l1"], group["l2"]

    def _missed_steps(self, group):
        return Missed("ftrl_missed", rated=True, fixed=(group["beta"], group["l1"], group["l2"]))
