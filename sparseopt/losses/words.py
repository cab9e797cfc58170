"""Skip-gram and CBOW: words that predict each other, among random words."""

import numpy as np
import numpy.typing as npt

from .. import _config, _kernels
from .._typing import Floats, Integers
from ..embedding import bag_bounds
from ..gradients import RowGradient, trusted
from ._checks import rows, table


def skip_gram(words: Floats, contexts: Floats, inputs: npt.ArrayLike, outputs: npt.ArrayLike,
              offsets: npt.ArrayLike | None = None) -> tuple[float, tuple[RowGradient, RowGradient]]:
    r"""Skip-gram with negative sampling: each word s of a bag predicts the bag's word t, and no negative n.

    .. math:: \sum_\text{bags} \sum_s \Bigl[-\log \sigma(w_s \cdot c_t) - \sum_{n \ne t} \log \sigma(-w_s \cdot c_n)
              \Bigr]

    All words of a bag share the bag's negatives. Without `offsets` each input is a bag of its own. Then each pair of
    words has negatives of its own, as in the paper. A negative that is t itself does not count.

    Parameters
    ----------
    words, contexts : arrays of float32 or float64, shapes (n_words, dim) and (n_contexts, dim)
        The vectors w and c. Both have the same dtype.
    inputs : array of integers, shape (k,)
        Rows of `words`: the words s of all bags, one bag after the other.
    outputs : array of integers, shape (n_bags, 1 + negatives)
        Rows of `contexts`: the word t of each bag, then the bag's negatives n.
    offsets : None or array of integers, shape (n_bags,)
        The position in `inputs` at which each bag begins, from 0.

    Returns
    -------
    loss : float
        The sum of the losses of all bags.
    gradients : tuple of two RowGradient
        Those of words and contexts. There is a row for each of the inputs, and for each of the outputs.

    Raises
    ------
    TypeError, ValueError, IndexError
        If a parameter is not as described above, or a row is out of range.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> tables = {"words": so.uniform((9, 4), seed=0), "contexts": so.zeros((9, 4))}
    >>> opt = so.SGD(tables, lr=1.0)
    >>> bags = [3, 5, 4], [[4, 0, 8], [5, 1, 7]], [0, 2]         # 3 and 5 around 4; 4 beside 5
    >>> for step in range(3):
    ...     loss, gradients = so.losses.skip_gram(*tables.values(), *bags)
    ...     opt.step(dict(zip(tables, gradients)))
    ...     print(f"{loss:.2f}")
    6.24
    3.92
    1.34

    References
    ----------
    Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality", eq. 4.
    """
    return _checked(False, words, contexts, inputs, outputs, offsets)


def cbow(words: Floats, contexts: Floats, inputs: npt.ArrayLike, outputs: npt.ArrayLike,
         offsets: npt.ArrayLike | None = None) -> tuple[float, tuple[RowGradient, RowGradient]]:
    r"""CBOW with negative sampling: the mean h of the vectors of a bag predicts the bag's word t, and no negative n.

    .. math:: \sum_\text{bags} \Bigl[-\log \sigma(h \cdot c_t) - \sum_{n \ne t} \log \sigma(-h \cdot c_n)\Bigr]

    Parameters
    ----------
    words, contexts, inputs, outputs, offsets
        As in `skip_gram`. The mean of a bag without inputs is 0.

    Returns
    -------
    loss : float
    gradients : tuple of two RowGradient
        As in `skip_gram`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As in `skip_gram`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> words, contexts = np.eye(3), np.eye(3)
    >>> loss, (of_words, _) = so.losses.cbow(words, contexts, [0, 1], [[2]], [0])
    >>> round(loss, 3), of_words.rows, of_words.values
    (0.693, array([0, 1]), array([[ 0.  ,  0.  , -0.25],
           [ 0.  ,  0.  , -0.25]]))

    References
    ----------
    Mikolov et al. 2013, "Efficient Estimation of Word Representations in Vector Space". İrsoy, Benton and Stratos 2021,
    "Corrected CBOW Performs as well as Skip-gram": each word of a bag has its share of the gradient of the mean.
    """
    return _checked(True, words, contexts, inputs, outputs, offsets)


def _checked(mean, words, contexts, inputs, outputs, offsets):
    words = table("words", words)
    contexts = table("contexts", contexts, like=words)
    inputs = rows("inputs", inputs, len(words))
    bounds = bag_bounds(offsets, len(inputs))
    shape = np.shape(outputs)
    if len(shape) != 2 or shape[0] != len(bounds) - 1 or shape[1] < 1:
        raise ValueError(f"outputs has shape {shape}; with {len(bounds) - 1} bags it must have shape "
                         f"({len(bounds) - 1}, 1 + negatives)")
    outputs = rows("outputs", outputs, len(contexts), shape).reshape(shape)
    longest = int(np.diff(bounds).max(initial=0))
    return negative_sampling(mean, words, contexts, inputs, outputs, bounds, longest)


def negative_sampling(mean: bool, words: Floats, contexts: Floats, inputs: Integers, outputs: Integers,
                      bounds: Integers, longest: int) -> tuple[float, tuple[RowGradient, RowGradient]]:
    """Return loss and gradients of `cbow`, if `mean`, or of `skip_gram`. Nothing is checked.

    Bag b has the inputs from bounds[b] - bounds[0] to before bounds[b + 1] - bounds[0], at most `longest`.
    """
    n, each = outputs.shape
    threads, kernels = _config.threads_for(), _kernels.losses
    of_words = np.empty((len(inputs), words.shape[1]), words.dtype)
    of_contexts = np.empty((n * each, words.shape[1]), words.dtype)
    room = np.empty((threads, kernels.room_for_bags(longest, each, words.shape[1])), words.dtype)
    parts = np.empty(kernels.blocks_of_bags(n))
    kernels.negative_sampling(mean, words, contexts, inputs, bounds, outputs, room, of_words, of_contexts, parts,
                              threads)
    return float(parts.sum()), (trusted(inputs, of_words), trusted(outputs.reshape(-1), of_contexts))
