"""Word vectors from co-occurrence counts: GloVe."""

import inspect
import re
from collections import Counter
from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp

from .. import checkpoint, memory
from ..gradients import MatmulGradient, RowGradient
from ..optimizers import OPTIMIZERS

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


# Rates at which each optimizer trains this model well.
LEARNING_RATES = {
    "SGD": 0.002, "Adagrad": 0.1, "RowwiseAdagrad": 0.1, "Adadelta": 3.0, "RMSprop": 0.003, "Adam": 0.01, "AdamW": 0.01,
    "RowwiseAdam": 0.01, "Adamax": 0.02, "NAdam": 0.01, "Ftrl": 0.2, "Lion": 0.001,
}


def tokenize(text):
    """Return the words of a text, in lower case: runs of letters, with an apostrophe inside allowed.

    Examples
    --------
    >>> from sparseopt.models.glove import tokenize
    >>> tokenize("Don't read PEP 8 twice.")
    ["don't", 'read', 'pep', 'twice']
    """
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def vocabulary(tokens, min_count=5):
    """Return the words seen at least `min_count` times, the most frequent first, and how often each was seen.

    Parameters
    ----------
    tokens : iterable of str
    min_count : int

    Returns
    -------
    words : list of str
    counts : list of int
    """
    counts = Counter(tokens)
    words = sorted((word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word))
    return words, [counts[word] for word in words]


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


class GloVe:
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
    >>> from sparseopt.models.glove import cooccurrence, tokenize, vocabulary
    >>> tokens = tokenize(" ".join(datasets.python_documentation()[:100]))
    >>> words, _ = vocabulary(tokens)
    >>> model = GloVe(dim=16, epochs=5).fit(cooccurrence(tokens, words))
    >>> model.loss_curve_[-1] < 0.7 * model.loss_curve_[0]
    True

    References
    ----------
    Pennington, Socher and Manning 2014, "GloVe: Global Vectors for Word Representation", eq. 8 and 9.
    """

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
            Positive counts; entries of 0 are left out.
        callback : None or callable
            Called after every batch with (epoch, entries done in this epoch, mean loss of the epoch so far).

        Returns
        -------
        GloVe
            Itself.
        """
        X = _checked(X)
        self._check_settings()
        self._start(X.shape[0])
        for _ in range(self.epochs):
            self._epoch(X, callback)
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
        for name, lowest in (("dim", 1), ("epochs", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < lowest:
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least {lowest}")
        for name in ("x_max", "alpha"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or not 0 < value < np.inf:
                raise ValueError(f"{name} is {value!r}; it must be finite and above 0")
        if self.missed not in ("skip", "replay", "dense"):
            raise ValueError(f"missed is {self.missed!r}; it must be 'skip', 'replay' or 'dense'")
        if callable(self.optimizer) and self.missed == "replay":
            raise ValueError("missed is 'replay' and optimizer a callable, which says that itself; leave missed at 'skip'")
        if callable(self.optimizer) and self.lr is not None:
            raise ValueError(f"lr is {self.lr!r} and optimizer a callable, which says the rate itself; leave lr at None")

    def _start(self, n_words):
        rng = np.random.default_rng(self.random_state)
        half = 0.5 / self.dim
        tables = {
            "words": memory.uniform((n_words, self.dim), low=-half, high=half, seed=rng),
            "contexts": memory.uniform((n_words, self.dim), low=-half, high=half, seed=rng),
            "word_bias": memory.zeros(n_words),
            "context_bias": memory.zeros(n_words),
        }
        self.optimizer_ = self._make_optimizer(tables)
        self.loss_curve_ = []

    def _make_optimizer(self, tables):
        if callable(self.optimizer):
            return self.optimizer(tables)
        names = {name.lower(): name for name in OPTIMIZERS}
        if str(self.optimizer).lower() not in names:
            raise ValueError(f"optimizer is {self.optimizer!r}; it must be one of {', '.join(OPTIMIZERS)}, or a callable")
        name = names[self.optimizer.lower()]
        lr = LEARNING_RATES.get(name) if self.lr is None else self.lr
        missed = "replay" if self.missed == "replay" else "skip"
        return OPTIMIZERS[name](tables, missed=missed, **({} if lr is None else {"lr": lr}))

    def _epoch(self, X, callback):
        epoch, done, total = len(self.loss_curve_), 0, 0.0
        order = np.random.default_rng([self.random_state, epoch]).permutation(X.nnz)
        rows, columns = X.coords
        targets, weights = np.log(X.data), np.minimum(1, (X.data / np.float32(self.x_max)) ** np.float32(self.alpha))
        for start in range(0, X.nnz, self.batch_size):
            batch = order[start:start + self.batch_size]
            total += self._step(rows[batch], columns[batch], targets[batch], weights[batch])
            done += len(batch)
            if callback:
                callback(epoch, done, total / done)
        self.loss_curve_.append(total / max(done, 1))

    def _step(self, i, j, target, weight):
        """One step on the entries (i, j); returns the sum of their losses."""
        tables = self.optimizer_.params
        n_words = len(tables["words"])
        if self.optimizer_.missed == "replay":          # before rows are read
            self.optimizer_.catch_up({"words": i, "contexts": j, "word_bias": i, "context_bias": j})
        word, context = tables["words"][i], tables["contexts"][j]
        error = np.einsum("bd,bd->b", word, context) + tables["word_bias"][i] + tables["context_bias"][j] - target
        slope = weight * error                  # of half the loss, as in the paper's code
        gradients = {
            "words": MatmulGradient(_one_a_row(slope, i, n_words), context),
            "contexts": MatmulGradient(_one_a_row(slope, j, n_words), word),
            "word_bias": RowGradient(i, slope),
            "context_bias": RowGradient(j, slope),
        }
        if self.missed == "dense":
            gradients = {"words": gradients["words"].X.T @ context, "contexts": gradients["contexts"].X.T @ word,
                         "word_bias": np.bincount(i, slope, n_words).astype(slope.dtype),
                         "context_bias": np.bincount(j, slope, n_words).astype(slope.dtype)}
        self.optimizer_.step(gradients)
        return float(slope @ error)

    @property
    def vectors_(self):
        if self.optimizer_.missed == "replay":
            self.optimizer_.catch_up()
        return self.optimizer_.params["words"] + self.optimizer_.params["contexts"]

    def nearest(self, row, n=10):
        """Return the words nearest to that of a row, by cosine: (rows, cosines), the nearest first.

        Parameters
        ----------
        row : int
        n : int
        """
        vectors = self.vectors_
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        cosines = vectors @ vectors[row]
        cosines[row] = -np.inf
        nearest = np.argsort(-cosines, kind="stable")[:min(n, len(cosines) - 1)]
        return nearest, cosines[nearest]

    def save(self, path, **metadata):
        """Save a checkpoint from which `load` resumes: the optimizer's, with this model's settings in its metadata.

        Parameters
        ----------
        path : str or path
        **metadata
            What else to keep in `optimizer_.metadata`, the vocabulary for instance.
        """
        names = [name for name in inspect.signature(type(self)).parameters if name not in ("optimizer", "lr")]
        self.optimizer_.metadata |= {"model": {name: getattr(self, name) for name in names}, "losses": self.loss_curve_,
                                     **metadata}
        checkpoint.save(path, self.optimizer_)

    @classmethod
    def load(cls, path, lr=None):
        """Return the model that `save` saved; `partial_fit` goes on as if it had never stopped, to the bit.

        `lr` takes the place of the stored rate, as in `sparseopt.load`.
        """
        optimizer = checkpoint.load(path, lr=lr)
        if "model" not in optimizer.metadata:
            raise ValueError(f"{path}: a checkpoint of an optimizer, but not of a GloVe model")
        model = cls(**optimizer.metadata["model"], optimizer=type(optimizer).__name__, lr=optimizer.param_groups[0]["lr"])
        model.optimizer_, model.loss_curve_ = optimizer, list(optimizer.metadata["losses"])
        return model


def _checked(X):
    if not sp.issparse(X) or X.ndim != 2 or X.shape[0] != X.shape[1]:
        raise TypeError(f"X is a {type(X).__name__} of shape {getattr(X, 'shape', None)}; it must be a square scipy sparse "
                        "array")
    X = X.tocoo().astype(np.float32)
    if X.nnz and not (np.isfinite(X.data).all() and X.data.min() >= 0):
        raise ValueError(f"X has entries from {X.data.min()} to {X.data.max()}; counts must be finite and 0 or more")
    stored = X.data > 0
    if not stored.any():
        raise ValueError("X has no positive entries; there is nothing to train on")
    rows, columns = X.coords
    return X if stored.all() else sp.coo_array((X.data[stored], (rows[stored], columns[stored])), shape=X.shape)


def _one_a_row(values, columns, n_columns):
    """A CSR array with one value a row."""
    return sp.csr_array((values, columns, np.arange(len(values) + 1)), shape=(len(values), n_columns))
