"""Word vectors from co-occurrence counts: GloVe."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp

from .. import embedding, init
from .._checks import at_least, flag
from .._rows import Rows
from .._text import shown
from .._typing import Self
from ..gradients import _numbers, checked
from ..losses.squares import _glove_of
from ._base import Callback, MakeOptimizer, Schedule, Seed, repeats, selection, shuffled
from ._places import MakeTables, Placed
from ._sentences import Numbers
from .words import WordVectors, count_words, new_words, numbered, vocabulary

__all__ = ["GloVe", "cooccurrence"]

_COUNTED = 1 << 17          # words whose pairs are counted at a time
# A matrix of counts, or sentences.
Text = sp.sparray | sp.spmatrix | Iterable[Iterable[str]]


def cooccurrence(X: Iterable[Iterable[str]], words: Sequence[str], window: int = 10) -> sp.csr_array:
    """Return how often words occur near each other in sentences. A pair at distance d counts 1/d, in both directions.

    The text is counted in blocks. Memory grows with the number of different pairs, not with the text.

    Parameters
    ----------
    X : iterable of lists of str
        The sentences. Words that are not in `words` are removed before distances are counted.
    words : sequence of str
        The vocabulary, in the order of rows and columns.
    window : int
        The largest distance, 1 or more.

    Returns
    -------
    scipy.sparse.csr_array of float32, shape (len(words), len(words))
        A symmetric matrix.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above, or no word of X is in `words`.

    Examples
    --------
    >>> from sparseopt.models.glove import cooccurrence
    >>> cooccurrence(["a b a c".split(), ["c", "c"]], ["a", "b", "c"], window=2).toarray()
    array([[1. , 2. , 1. ],
           [2. , 0. , 0.5],
           [1. , 0.5, 2. ]], dtype=float32)
    """
    window = at_least("window", window, 1)
    with Numbers(X, numbered(words)) as text:
        counts = _counts(text, len(words), window)
    return (counts + counts.T).tocsr()


def _counts(text, n_words, window):
    """Return the matrix of pairs whose first word comes first in the text."""
    sums = []               # of more and more places; each is much larger than the next
    words, sentence = np.empty(0, np.int32), np.empty(0, np.int64)
    for block, block_sentence in text.blocks(0, text.n_words):
        for start in range(0, len(block), _COUNTED):
            past = len(words)               # these words are the last of the block before
            words = np.append(words, block[start:start + _COUNTED])
            sentence = np.append(sentence, block_sentence[start:start + _COUNTED])
            lefts, rights, weights = [], [], []
            for distance in range(1, window + 1):
                right = np.arange(max(past, distance), len(words))
                right = right[sentence[right] == sentence[right - distance]]
                lefts.append(words[right - distance])
                rights.append(words[right])
                weights.append(np.full(len(right), 1 / distance, np.float32))
            pairs = np.concatenate(lefts), np.concatenate(rights)
            sums.append(sp.coo_array((np.concatenate(weights), pairs), shape=(n_words, n_words)).tocsr())
            while len(sums) > 1 and sums[-2].nnz < 2 * sums[-1].nnz:        # so that each pair is added few times
                sums[-2:] = [sums[-2] + sums[-1]]
            words, sentence = words[-window:], sentence[-window:]
    return sum(sums[:-1][::-1], sums[-1])


class GloVe(WordVectors, Placed):
    r"""Word vectors whose dot products are the logarithms of co-occurrence counts.

    .. math:: \min \sum_{ij} f(X_{ij}) \left[\left(w_i \cdot \tilde w_j + b_i + \tilde b_j - \log X_{ij}\right)^2
                  + \lambda \left(\|w_i\|^2 + \|\tilde w_j\|^2\right)\right], \qquad
              f(x) = \min\left(1, (x / x_\text{max})^\alpha\right)

    The sum runs over the stored entries of X. A step on a batch of entries touches only the vectors of the batch's
    words. `fit` takes X, or the sentences in which `cooccurrence` counts X.

    Parameters
    ----------
    dim : int
        The length of a vector, 1 or more.
    window : int
        The largest distance of a pair in a sentence, 1 or more.
    min_count : int
        Words of sentences that occur fewer times are ignored. 1 or more.
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
    regularization : float
        λ, 0 or more. The paper has none, and learns rare counts by heart: errors of held-out pairs then rise.
    missed : "skip", "replay" or "dense"
        How steps treat words that are not in the batch, with an optimizer given by name. A callable as optimizer does
        not allow "replay".

        ========  ===========================================================================================
        missed    words that are not in the batch
        ========  ===========================================================================================
        "skip"    stay as they are
        "replay"  get the results of the dense optimizer: missed steps are applied before a word is read
        "dense"   take part in every step with a gradient of 0; this is slow, and useful only for comparisons
        ========  ===========================================================================================
    random_state : None, int, numpy.random.Generator or RandomState
        The seed of the first values and of the order of entries.
    tables : None or callable
        Where the tables are: in memory for None. A callable takes a dict of `sparseopt.Rows` and a function that makes
        the optimizer, and returns a store: `functools.partial(so.DiskTables, "folder")` for a disk, or
        `functools.partial(so.sharded.Tables, shards=4, workers=2)` for shards. A store does not grow. With
        missed="dense", tables must be None.

    Attributes
    ----------
    optimizer_ : Optimizer
        Holds the tables: `optimizer_.params` has "words" and "contexts" (n_words, dim), "word_bias" and "context_bias"
        (n_words,).
    store_ : None or Store
        What `tables` returned. The store stays open for more training, until `store_.close()`. `optimizer_`
        is then a copy of all tables in memory, made anew after each step, and changes of the copy are lost.
    vectors_ : array, shape (n_words, dim)
        The sums of the two vectors of each word, as in the paper.
    words_ : list of str
        The words, the most frequent first. Words that `partial_fit` adds come after these. A model of a matrix without
        `words` has no such attribute, and no access by word.
    loss_curve_ : list of float
        The mean weighted squared error of each epoch. The error of an entry is measured before the step on its batch.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if a parameter is not as described above.

    Examples
    --------
    >>> from sparseopt import datasets
    >>> from sparseopt.models import GloVe
    >>> from sparseopt.models.words import sentences
    >>> text = [sentence for page in datasets.python_documentation()[:100] for sentence in sentences(page)]
    >>> model = GloVe(dim=16, epochs=5).fit(text)
    >>> model.loss_curve_[-1] < 0.7 * model.loss_curve_[0]
    True
    >>> "class" in model, model["class"].shape
    (True, (16,))

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

    def __init__(self, dim: int = 100, window: int = 10, min_count: int = 5,
                 optimizer: str | MakeOptimizer = "Adagrad", lr: float | Schedule | None = None, epochs: int = 30,
                 batch_size: int = 4096, x_max: float = 10.0, alpha: float = 0.75,
                 regularization: float = 0.01, missed: Literal["skip", "replay", "dense"] = "skip",
                 random_state: Seed | None = 0, tables: MakeTables | None = None) -> None:
        self.dim = dim
        self.window = window
        self.min_count = min_count
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.x_max = x_max
        self.alpha = alpha
        self.regularization = regularization
        self.missed = missed
        self.random_state = random_state
        self.tables = tables

    def fit(self, X: Text, callback: Callback | None = None, words: Sequence[str] | None = None) -> Self:
        """Train new vectors for the words of sentences, or of a co-occurrence matrix.

        Parameters
        ----------
        X : iterable of lists of str, or scipy sparse array of shape (n_words, n_words)
            Sentences, which are read twice: a list, or `sparseopt.datasets.LineSentences` for text files. Or counts,
            finite and 0 or more. Entries of 0 are ignored. Several entries of one pair add up.
        callback : None or callable
            Called after every batch with a `sparseopt.models.Progress`. A true result ends the training.
        words : None or sequence of str
            The words of the rows of a matrix, each once.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            If a parameter, or one of the model, is not as described. A generator is refused: it can be read only once.
        """
        self._check_settings()
        self._check_callback(callback)
        X = self._start(X, words)
        for _ in range(self.epochs):
            if self._train(X, callback):
                break
        return self

    def partial_fit(self, X: Text, callback: Callback | None = None, words: Sequence[str] | None = None,
                    grow: bool = False) -> Self:
        """Train the present vectors for one more epoch on sentences, or on a matrix.

        The pairs of sentences are counted in each call. For several epochs, count once with `cooccurrence`.

        Parameters
        ----------
        X, callback
            As in `fit`.
        words : None or sequence of str
            The words of the rows of a matrix. If the model has words, these must be the same.
        grow : bool
            Whether words that have no vector, and that sentences have `min_count` times or more, get new vectors.
            Otherwise these words are ignored, and a warning says how many.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, IndexError
            As in `fit`, and if X does not fit the words of the model.
        """
        self._check_settings()
        self._check_callback(callback)
        flag("grow", grow)
        X = self._continue(X, words, grow) if self._is_fitted else self._start(X, words)
        self._train(X, callback)
        return self

    def _check_settings(self):
        self._check_integers(dim=1, window=1, min_count=1, epochs=0, batch_size=1)
        self._check_numbers("x_max", "alpha")
        self._check_numbers("regularization", zero=True)
        self._check_tables_parameter()
        if self.missed == "dense" and self.tables is not None:
            raise ValueError(f"tables is {shown(self.tables)} and missed is 'dense', which takes steps on whole "
                             "tables; tables must be None")
        self._rng(0)                                    # raises if random_state is no seed

    def _start(self, X, words):
        """Begin a new model, and return the matrix. An error leaves the old model as it is."""
        if _is_matrix(X):
            X = _checked(X)
            known = {} if words is None else _named(words, X.shape[0])
        else:
            _check_no_words(words)
            words, _ = vocabulary(count_words(X), self.min_count)
            if len(words) < 2:
                raise ValueError(f"X has {len(words)} different words that occur {self.min_count} times or more "
                                 "(min_count); there must be at least 2")
            known = _named(words, len(words))
            X = _checked(cooccurrence(X, words, self.window))
        new = self._new(self._rows_of(X.shape[0], self.dim), self._make_optimizer())
        for name in ("words_", "_number"):
            vars(self).pop(name, None)
        self._set({**known, **new, "loss_curve_": []})
        return X

    def _continue(self, X, words, grow):
        """Return the matrix of a text. With `grow`, add its new words first. An error leaves the model as it was."""
        if _is_matrix(X):
            if grow:
                raise ValueError("grow is True and X is a matrix; new words need sentences")
            X = self._fitting(X)
            if words is not None:
                known = _named(words, X.shape[0])
                if getattr(self, "words_", known["words_"]) != known["words_"]:
                    raise ValueError("words has other words than the model, or another order; words must be words_")
                vars(self).update(known)
            return X
        _check_no_words(words)
        number = self._numbers_of_words()
        new = new_words(count_words(X), number, self.min_count, grow)
        if not grow or not new:
            return self._fitting(cooccurrence(X, self.words_, self.window))
        known = _named(self.words_ + new, len(number) + len(new))
        X = _checked(cooccurrence(X, known["words_"], self.window))
        self._grow(self._rows_of(X.shape[0], self._dim("words")), known)
        return X

    def _fitting(self, X):
        """Return a checked matrix for the words of the model."""
        X = _checked(X)
        n_words = self._n_rows("words")
        if X.shape[0] != n_words:
            raise ValueError(f"X has shape {X.shape}; the model has vectors of {n_words} words, so X must have shape "
                             f"{(n_words, n_words)}")
        return X

    def _rows_of(self, n_words, dim):
        """Return the rows of the tables. A row starts with the same values however many rows there are."""
        half, seed = 0.5 / dim, self._seed()
        return {"words": Rows(n_words, dim, init=init.Uniform(-half, half, seed=[seed, 0])),
                "contexts": Rows(n_words, dim, init=init.Uniform(-half, half, seed=[seed, 1])),
                "word_bias": Rows(n_words, None), "context_bias": Rows(n_words, None)}

    def _epoch(self, X, callback):
        task = _Entries(X, self.batch_size, float(self.x_max), float(self.alpha), float(self.regularization),
                        self.missed == "dense")
        return self._take_steps(task, X.nnz, callback)

    def score(self, X: Text) -> float:
        """Return minus the mean weighted squared error over the entries of X. Higher is better, and 0 is the best.

        Parameters
        ----------
        X : iterable of lists of str, or scipy sparse array of shape (n_words, n_words)
            Sentences or counts, for instance of another text.

        Raises
        ------
        TypeError, ValueError, IndexError
            If the model is not fitted, X is not as in `fit`, or X has another number of words than the model.
        """
        self._check_fitted()
        if not _is_matrix(X):
            self._numbers_of_words()
            X = cooccurrence(X, self.words_, self.window)
        X = self._fitting(X)
        self._catch_up()
        tables, total = self.optimizer_.params, 0.0
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

    def _rows(self, rows):
        rows = np.array(rows, np.int64)
        self._catch_up({"words": rows, "contexts": rows})
        tables = self.optimizer_.params
        return embedding.gather(tables["words"], rows) + embedding.gather(tables["contexts"], rows)

    def _fitted(self):
        return {**super()._fitted(), **({"words": self.words_} if hasattr(self, "words_") else {})}

    def _restore(self, metadata):
        super()._restore(metadata)
        if "words" in metadata:
            vars(self).update(_named(list(metadata["words"]), len(self.optimizer_.params["words"])))


class _Entries:
    """The task of an epoch: batches of entries of X in random order. Each worker takes the entries of some rows."""

    def __init__(self, X, size, x_max, alpha, decay, dense):
        self._entries, self._size, self._dense = (*X.coords, X.data), size, dense
        self._settings = x_max, alpha, decay

    def batches(self, rng, worker, workers):
        return shuffled(rng, self._entries, self._size, worker, workers)

    def gradients(self, reader, batch):
        i, j, counts = batch
        tables, (i, j) = reader.read((["words", "word_bias"], i), (["contexts", "context_bias"], j))
        tables = {name: tables[name] for name in GloVe._axes}
        squares, _, gradients = _glove_of(*tables.values(), i, j, counts, *self._settings)
        if self._dense:
            gradients = [selection(np.ones_like(counts), gradient.rows, len(table)).T @ gradient.values
                         for table, gradient in zip(tables.values(), gradients, strict=True)]
        return dict(zip(tables, gradients, strict=True)), (len(i), len(i), squares)


def _is_matrix(X):
    return sp.issparse(X) or (isinstance(X, np.ndarray) and X.dtype.kind not in "OUS")


def _named(words, n_words):
    """Return the attributes of a model whose rows have these words."""
    if isinstance(words, str) or len(words) != n_words:
        raise ValueError(f"words is {shown(words)}, {len(words)} in all, for {n_words} rows; there must be a word for "
                         "each row")
    number = numbered(words)
    if len(number) != n_words:
        raise ValueError(f"words has {len(number)} different words for {n_words} rows; each word must be there once")
    return {"words_": list(words), "_number": number}


def _check_no_words(words):
    if words is not None:
        raise ValueError(f"words is {shown(words)} and X has sentences, whose words are counted; words must be None")


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
        raise ValueError("X has no positive entries, or no sentence with two known words; there is nothing to train on")
    rows, columns = X.coords
    return X if stored.all() else sp.coo_array((X.data[stored], (rows[stored], columns[stored])), shape=X.shape)
