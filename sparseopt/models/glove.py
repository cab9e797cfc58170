"""Word vectors from co-occurrence counts: GloVe."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import scipy.sparse as sp

from .. import _memory, embedding
from ..gradients import MatmulGradient, RowGradient, _numbers, checked
from ._base import Callback, MakeOptimizer, Progress, Schedule, Seed, repeats, selection
from .words import WordVectors

if TYPE_CHECKING:
    from typing import Self  # Python 3.11


def cooccurrence(tokens: Iterable[str], words: Sequence[str], window: int = 10) -> sp.csr_array:
    """Return how often words occur near each other. A pair at distance d counts 1/d, in both directions.

    Parameters
    ----------
    tokens : iterable of str
        The text. Tokens that are not in `words` are removed before distances are counted.
    words : sequence of str
        The vocabulary, in the order of rows and columns.
    window : int
        The largest distance.

    Returns
    -------
    scipy.sparse.csr_array of float32, shape (len(words), len(words))
        A symmetric matrix.

    Examples
    --------
    >>> from sparseopt.models.glove import cooccurrence
    >>> cooccurrence("a b a c".split(), ["a", "b", "c"], window=2).toarray()
    array([[1. , 2. , 1. ],
           [2. , 0. , 0.5],
           [1. , 0.5, 0. ]], dtype=float32)
    """
    number = {word: i for i, word in enumerate(words)}
    numbers = np.array([number[token] for token in tokens if token in number], dtype=np.int32)
    shape = len(words), len(words)
    counts = sp.csr_array(shape, dtype=np.float32)
    for distance in range(1, min(window, len(numbers) - 1) + 1):
        left, right = numbers[:-distance], numbers[distance:]
        each = np.full(len(left), 1 / distance, np.float32)
        counts = counts + sp.coo_array((each, (left, right)), shape=shape).tocsr()
    return (counts + counts.T).tocsr()


class GloVe(WordVectors):
    r"""Word vectors whose dot products are the logarithms of co-occurrence counts.

    .. math:: \min \sum_{ij} f(X_{ij}) \left(w_i \cdot \tilde w_j + b_i + \tilde b_j - \log X_{ij}\right)^2, \qquad
              f(x) = \min\left(1, (x / x_\text{max})^\alpha\right)

    The sum runs over the stored entries of X. A step on a batch of entries touches only the vectors of the batch's
    words.

    Parameters
    ----------
    dim : int
        The length of a vector, 1 or more.
    optimizer : str or callable
        The name of an optimizer of this library. Or a callable that takes a dict of tables and returns an optimizer:
        `lambda tables: so.Adam(tables, lr=0.01, betas=(0.9, 0.99))`.
    lr : None, float or callable
        The learning rate of an optimizer given by name. None stands for the rate in `LEARNING_RATES`, chosen for this
        model. If that table has no rate, None stands for the optimizer's default.
    epochs : int
        Passes over the entries in `fit`, 0 or more.
    batch_size : int
        Entries per step, 1 or more.
    x_max, alpha : float
        The parameters of the weight f, above 0. The paper's x_max is 100, for texts of billions of words.
    missed : "skip", "replay" or "dense"
        How steps treat words that are not in the batch, with an optimizer given by name. A callable as optimizer does
        not allow "replay".

        | missed   | words that are not in the batch                                                             |
        |----------|---------------------------------------------------------------------------------------------|
        | "skip"   | stay as they are                                                                            |
        | "replay" | get the results of the dense optimizer: missed steps are applied before a word is read      |
        | "dense"  | take part in every step with a gradient of 0; this is slow, and useful only for comparisons |
    random_state : None, int, numpy.random.Generator or RandomState
        The seed of the first values and of the order of entries.

    Attributes
    ----------
    optimizer_ : Optimizer
        Holds the tables: `optimizer_.params` has "words" and "contexts" (n_words, dim), "word_bias" and "context_bias"
        (n_words,).
    vectors_ : array, shape (n_words, dim)
        The sums of the two vectors of each word, as in the paper.
    loss_curve_ : list of float
        The mean weighted squared error of each epoch. The error of an entry is measured before the step on its batch.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if a parameter is not as described above.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt import datasets
    >>> from sparseopt.models import GloVe
    >>> from sparseopt.models.glove import cooccurrence
    >>> from sparseopt.models.words import tokenize, vocabulary
    >>> tokens = tokenize(" ".join(datasets.python_documentation()[:100]))
    >>> words, _ = vocabulary(tokens)
    >>> model = GloVe(dim=16, epochs=5).fit(cooccurrence(tokens, words))
    >>> model.loss_curve_[-1] < 0.7 * model.loss_curve_[0]
    True

    References
    ----------
    Pennington, Socher and Manning 2014, "GloVe: Global Vectors for Word Representation", eq. 8 and 9.
    """

    LEARNING_RATES: ClassVar = {
        "SGD": 0.002, "Adagrad": 0.1, "RowwiseAdagrad": 0.1, "Adadelta": 3.0, "RMSprop": 0.003, "Adam": 0.01,
        "AdamW": 0.01, "RowwiseAdam": 0.01, "Adamax": 0.02, "NAdam": 0.01, "Ftrl": 0.2, "Lion": 0.001,
    }
    _axes: ClassVar = {"words": ("word", "dim"), "contexts": ("word", "dim"),
                       "word_bias": ("word",), "context_bias": ("word",)}
    _dense = True               # this model allows missed="dense"

    def __init__(self, dim: int = 100, optimizer: str | MakeOptimizer = "Adagrad", lr: float | Schedule | None = None,
                 epochs: int = 30, batch_size: int = 4096, x_max: float = 10.0, alpha: float = 0.75,
                 missed: Literal["skip", "replay", "dense"] = "skip", random_state: Seed | None = 0) -> None:
        self.dim = dim
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.x_max = x_max
        self.alpha = alpha
        self.missed = missed
        self.random_state = random_state

    def fit(self, X: sp.sparray | sp.spmatrix, callback: Callback | None = None) -> "Self":
        """Train new vectors for the words of a co-occurrence matrix.

        Parameters
        ----------
        X : scipy sparse array, shape (n_words, n_words)
            Counts, finite and 0 or more. Entries of 0 are ignored. Several entries of one pair add up.
        callback : None or callable
            Called after every batch with a `sparseopt.models.Progress`. A true result ends the training.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            If X or a parameter of the model is not as described.
        """
        X = _checked(X)
        self._check_settings()
        self._start(X.shape[0])
        for _ in range(self.epochs):
            if self._epoch(X, callback):
                break
        return self

    def partial_fit(self, X: sp.sparray | sp.spmatrix, callback: Callback | None = None) -> "Self":
        """Train the present vectors for one more epoch on a matrix.

        Parameters
        ----------
        X, callback
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `fit`, and if X has another number of words than the model.
        """
        X = _checked(X)
        self._check_settings()
        if not hasattr(self, "optimizer_"):
            self._start(X.shape[0])
        n_words = len(self.optimizer_.params["words"])
        if X.shape[0] != n_words:
            raise ValueError(f"X has shape {X.shape}; the model has vectors of {n_words} words, so X must have shape "
                             f"{(n_words, n_words)}")
        self._epoch(X, callback)
        return self

    def _check_settings(self):
        self._check_integers(dim=1, epochs=0, batch_size=1)
        self._check_numbers("x_max", "alpha")
        self._rng(0)                                    # raises if random_state is no seed

    def _start(self, n_words):
        rng = self._rng()
        half = 0.5 / self.dim
        tables = {
            "words": _memory.uniform((n_words, self.dim), low=-half, high=half, seed=rng),
            "contexts": _memory.uniform((n_words, self.dim), low=-half, high=half, seed=rng),
            "word_bias": _memory.zeros(n_words),
            "context_bias": _memory.zeros(n_words),
        }
        self.optimizer_ = self._make_optimizer(tables)
        self.loss_curve_ = []

    def _epoch(self, X, callback):
        epoch, done, total = len(self.loss_curve_), 0, 0.0
        order = self._rng(epoch).permutation(X.nnz)
        rows, columns = X.coords
        targets, weights = np.log(X.data), np.minimum(1, (X.data / np.float32(self.x_max)) ** np.float32(self.alpha))
        for start in range(0, X.nnz, self.batch_size):
            batch = order[start:start + self.batch_size]
            total += self._step(rows[batch], columns[batch], targets[batch], weights[batch])
            done += len(batch)
            if callback and callback(Progress(self, epoch, done, X.nnz, total / done)):
                self.loss_curve_.append(total / done)
                return True
        self.loss_curve_.append(total / max(done, 1))
        return False

    def _step(self, i, j, target, weight):
        """Take a step on the entries (i, j). Return the sum of their losses."""
        tables = self.optimizer_.params
        n_words = len(tables["words"])
        self._catch_up({"words": i, "contexts": j, "word_bias": i, "context_bias": j})
        word, context = embedding.gather(tables["words"], i), embedding.gather(tables["contexts"], j)
        error = np.einsum("bd,bd->b", word, context) + tables["word_bias"][i] + tables["context_bias"][j] - target
        slope = weight * error                  # the derivative of half the loss, as in the paper's code
        gradients = {
            "words": MatmulGradient(selection(slope, i, n_words), context),
            "contexts": MatmulGradient(selection(slope, j, n_words), word),
            "word_bias": RowGradient(i, slope),
            "context_bias": RowGradient(j, slope),
        }
        if self.missed == "dense":
            gradients = {"words": gradients["words"].X.T @ context, "contexts": gradients["contexts"].X.T @ word,
                         "word_bias": np.bincount(i, slope, n_words).astype(slope.dtype),
                         "context_bias": np.bincount(j, slope, n_words).astype(slope.dtype)}
        self.optimizer_.step(gradients)
        return float(slope @ error)

    def score(self, X: sp.sparray | sp.spmatrix) -> float:
        """Return minus the mean weighted squared error over the entries of X. Higher is better, and 0 is the best.

        Parameters
        ----------
        X : scipy sparse array, shape (n_words, n_words)
            Counts, for instance from another text.

        Raises
        ------
        TypeError, ValueError, IndexError
            If the model is not fitted, X is not as in `fit`, or X has another number of words than the model.
        """
        self._check_fitted()
        X = _checked(X)
        self._catch_up()
        tables, total = self.optimizer_.params, 0.0
        if X.shape[0] != len(tables["words"]):
            n_words = len(tables["words"])
            raise ValueError(f"X has shape {X.shape}; the model has vectors of {n_words} words, so X must have shape "
                             f"{(n_words, n_words)}")
        rows, columns = X.coords
        for start in range(0, X.nnz, 65536):
            i, j, x = (array[start:start + 65536] for array in (rows, columns, X.data))
            error = embedding.dots(tables["words"], i, tables["contexts"], j)
            error += tables["word_bias"][i] + tables["context_bias"][j] - np.log(x)
            total += float(np.minimum(1, (x / np.float32(self.x_max)) ** np.float32(self.alpha)) @ error**2)
        return -total / X.nnz

    @property
    def vectors_(self) -> np.ndarray:
        self._check_fitted()
        self._catch_up()
        return self.optimizer_.params["words"] + self.optimizer_.params["contexts"]


def _checked(X):
    if not sp.issparse(X) or X.ndim != 2 or X.shape[0] != X.shape[1]:
        raise TypeError(f"X is a {type(X).__name__} of shape {getattr(X, 'shape', None)}; it must be a square scipy "
                        "sparse array")
    X = checked(X, "X").tocoo()
    with np.errstate(over="ignore"):
        X = sp.coo_array((_numbers(X.data, "X").astype(np.float32), X.coords), shape=X.shape)
    if X.nnz and not (np.isfinite(X.data).all() and X.data.min() >= 0):
        raise ValueError(f"X has entries from {X.data.min()} to {X.data.max()}; counts must be finite and 0 or more")
    if repeats(X):
        X.sum_duplicates()
    stored = X.data > 0
    if not stored.any():
        raise ValueError("X has no positive entries; there is nothing to train on")
    rows, columns = X.coords
    return X if stored.all() else sp.coo_array((X.data[stored], (rows[stored], columns[stored])), shape=X.shape)
