"""Adagrad, with one accumulator an element or one a row."""

from ._base import Optimizer
from ._options import Options, Params, Rate, Unpack
from ._rule import Missed, Rule


class Adagrad(Optimizer):
    r"""Adagrad: every element divides its gradient by the root of the sum of its squares.

    .. math:: s \leftarrow s + g^2, \qquad
              w \leftarrow w - \frac{\eta}{1 + (k-1)\,\text{lr\_decay}} \cdot \frac{g}{\sqrt{s} + \epsilon}

    Parameters
    ----------
    params
        The tables; see `Optimizer`, as for the keywords that all optimizers take.
    lr : float or callable
        η, 0 or more.
    lr_decay : float
        0 or more. With 0 no step counts are kept.
    weight_decay : float
        λ, added to the gradient as λ w.
    initial_accumulator_value : float
        The value with which the state `sum` starts, 0 or more.
    eps : float
        ε, 0 or more.

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2))
    >>> so.Adagrad(table, lr=0.1).step(so.RowGradient([2], [[3.0, -0.01]]))
    >>> table[2].round(4)                                    # the first step is lr, whatever the gradient's size
    array([-0.1,  0.1], dtype=float32)

    References
    ----------
    Duchi, Hazan and Singer 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
    Figure 1; as torch.optim.Adagrad.
    """

    _starting = ("initial_accumulator_value",)

    def __init__(self, params: Params, lr: Rate = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
                 initial_accumulator_value: float = 0.0, eps: float = 1e-10, **options: Unpack[Options]) -> None:
        super().__init__(params, dict(lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
                                      initial_accumulator_value=initial_accumulator_value, eps=eps), **options)

    def _rule(self, group):
        return Rule("adagrad", ("sum",), counted=group["lr_decay"] > 0)

    def _init_state(self, group, table, state):
        if group["initial_accumulator_value"]:
            state["sum"].fill(group["initial_accumulator_value"])

    def _hyper(self, group, lr):
        return lr, group["eps"], group["lr_decay"]      # the last one only to be checked against the table's dtype

    def _count_slope(self, group):
        return group["lr_decay"]

    def _missed_steps(self, group):
        return Missed()                 # without a gradient, nothing moves


class RowwiseAdagrad(Adagrad):
    r"""Adagrad with one accumulator a row: three fifths of Adagrad's memory traffic, and hardly any state.

    .. math:: s \leftarrow s + \tfrac{1}{d} {\textstyle\sum_j g_j^2}, \qquad
              w \leftarrow w - \frac{\eta}{1 + (k-1)\,\text{lr\_decay}} \cdot \frac{g}{\sqrt{s} + \epsilon}

    Parameters
    ----------
    params, lr, lr_decay, weight_decay, initial_accumulator_value, eps
        As `Adagrad`. The state `sum` has one number a row.

    Raises
    ------
    TypeError, ValueError
        As `Optimizer`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((4, 2))
    >>> opt = so.RowwiseAdagrad(table, lr=0.1)
    >>> opt.step(so.RowGradient([2], [[3.0, 1.0]]))
    >>> opt.state[0]["sum"]                         # (9 + 1) / 2 in row 2
    array([0., 0., 5., 0.], dtype=float32)

    References
    ----------
    Gupta, Bengio and Weston 2014, "Training Highly Multiclass Classifiers", section 3.1.3; as FBGEMM's
    EXACT_ROWWISE_ADAGRAD.
    """

    def _rule(self, group):
        return Rule("rowwise_adagrad", row_state=("sum",), counted=group["lr_decay"] > 0, by_elements=False)
