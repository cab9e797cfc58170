"""Word vectors from co-occurrence counts: GloVe."""

from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from .. import _memory, embedding
from ..gradients import MatmulGradient, RowGradient, _numbers, checked
from ._base import Progress, repeats, selection
from .words import WordVectors


def cooccurrence(tokens, words, window=10):
    """Return how often words stand near each other: a pair at distance d counts 1/d, in both directions.

    Parameters
    ----------
    tokens : sequence of str
        Words that are not among `words` are skipped, as if they were not in the text.
    words : sequence of str
        The vocabulary; its order is the order of rows and columns.
    window : int
        The largest distance.

    Returns
    -------
    scipy.sparse.csr_array of float32, shape (len(words), len(words)), symmetric

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
        counts = counts + sp.coo_array((np.full(len(left), 1 / distance, np.float32), (left, right)), shape=shape).tocsr()
    return (counts + counts.T).tocsr()


class GloVe(WordVectors):
    r"""Word vectors whose dot products are the logarithms of co-occurrence counts.

    .. math:: \min \sum_{ij} f(X_{ij}) \left(w_i \cdot \tilde w_j + b_i + \tilde b_j - \log X_{ij}\right)^2, \qquad
              f(x) = \min\left(1, (x / x_\text{max})^\alpha\right)

    over the stored entries of X, in batches; a batch touches the vectors of its words alone.

    Parameters
    ----------
    dim : int
        Length of a vector.
    optimizer : str or callable
        The name of an optimizer of this library, or a callable from a dict of tables to one:
        `lambda tables: so.Adam(tables, lr=0.01, betas=(0.9, 0.99))`.
    lr : None, float or callable
        The learning rate, with an optimizer given by name; None is that of `LEARNING_RATES`, chosen for this
        model, else the optimizer's default.
    epochs : int
        Passes over the entries that `fit` makes.
    batch_size : int
        Entries a step.
    x_max, alpha : float
        Of the weight f; x_max of the paper is 100, for texts of billions of words.
    missed : "skip", "replay" or "dense"
        What happens to words in the steps of batches without them, with an optimizer given by name: nothing; what the dense
        optimizer does, caught up when a batch or a reader needs them; or that very thing, by gradients of all rows, which
        is slow and there to compare with.
    random_state : int
        Seed of the starting values and of the order of entries.

    Attributes
    ----------
    optimizer_ : Optimizer
        With the tables: `optimizer_.params` has "words" and "contexts" (n_words, dim), "word_bias" and "context_bias".
    vectors_ : array, shape (n_words, dim)
        The sum of a word's two vectors, as the paper has it.
    loss_curve_ : list of float
        Mean of the weighted squared errors over each epoch, measured as it went on.

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
        "SGD": 0.002, "Adagrad": 0.1, "RowwiseAdagrad": 0.1, "Adadelta": 3.0, "RMSprop": 0.003, "Adam": 0.01, "AdamW": 0.01,
        "RowwiseAdam": 0.01, "Adamax": 0.02, "NAdam": 0.01, "Ftrl": 0.2, "Lion": 0.001,
    }
    _axes: ClassVar = {"words": ("word", "dim"), "contexts": ("word", "dim"),
                       "word_bias": ("word",), "context_bias": ("word",)}
    _dense = True               # has missed="dense"

    def __init__(self, dim=100, optimizer="Adagrad", lr=None, epochs=30, batch_size=4096, x_max=10.0, alpha=0.75,
                 missed="skip", random_state=0):
        self.dim = dim
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.x_max = x_max
        self.alpha = alpha
        self.missed = missed
        self.random_state = random_state

    def fit(self, X, callback=None):
        """Train new vectors for the words of a co-occurrence matrix.

        Parameters
        ----------
        X : scipy sparse array, shape (n_words, n_words)
            Positive counts; entries of 0 are left out. Several entries of one pair add up.
        callback : None or callable
            Called after every batch with a `sparseopt.models.Progress`; training ends where it returns True.

        Returns
        -------
        GloVe
            Itself.
        """
        X = _checked(X)
        self._check_settings()
        self._start(X.shape[0])
        for _ in range(self.epochs):
            if self._epoch(X, callback):
                break
        return self

    def partial_fit(self, X, callback=None):
        """Train one more epoch on the matrix, from where the vectors are. Parameters as `fit`."""
        X = _checked(X)
        self._check_settings()
        if not hasattr(self, "optimizer_"):
            self._start(X.shape[0])
        n_words = len(self.optimizer_.params["words"])
        if X.shape[0] != n_words:
            raise ValueError(f"X has shape {X.shape}; the vectors are of {n_words} words")
        self._epoch(X, callback)
        return self

    def _check_settings(self):
        self._check_integers(dim=1, epochs=0, batch_size=1)
        self._check_numbers("x_max", "alpha")
        self._rng(0)                                    # or raise

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
        """One step on the entries (i, j); returns the sum of their losses."""
        tables = self.optimizer_.params
        n_words = len(tables["words"])
        self._catch_up({"words": i, "contexts": j, "word_bias": i, "context_bias": j})
        word, context = embedding.gather(tables["words"], i), embedding.gather(tables["contexts"], j)
        error = np.einsum("bd,bd->b", word, context) + tables["word_bias"][i] + tables["context_bias"][j] - target
        slope = weight * error                  # of half the loss, as in the paper's code
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

    def score(self, X):
        """Return how well the vectors fit counts: minus the mean weighted squared error over the entries of X.

        Parameters
        ----------
        X : scipy sparse array, shape (n_words, n_words)
            Of counts that were not trained on, for instance.
        """
        self._check_fitted()
        X = _checked(X)
        self._catch_up()
        tables, total = self.optimizer_.params, 0.0
        if X.shape[0] != len(tables["words"]):
            raise ValueError(f"X has shape {X.shape}; the vectors are of {len(tables['words'])} words")
        rows, columns = X.coords
        for start in range(0, X.nnz, 65536):
            i, j, x = (array[start:start + 65536] for array in (rows, columns, X.data))
            error = embedding.dots(tables["words"], i, tables["contexts"], j)
            error += tables["word_bias"][i] + tables["context_bias"][j] - np.log(x)
            total += float(np.minimum(1, (x / np.float32(self.x_max)) ** np.float32(self.alpha)) @ error**2)
        return -total / X.nnz

    @property
    def vectors_(self):
        self._check_fitted()
        self._catch_up()
        return self.optimizer_.params["words"] + self.optimizer_.params["contexts"]


def _checked(X):
    if not sp.issparse(X) or X.ndim != 2 or X.shape[0] != X.shape[1]:
        raise TypeError(f"X is a {type(X).__name__} of shape {getattr(X, 'shape', None)}; it must be a square scipy sparse "
                        "array")
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
