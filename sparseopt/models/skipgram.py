"""Word vectors that predict the words around them: skip-gram with negative sampling."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import scipy.sparse as sp

from .. import _memory, embedding, schedules
from .._text import shown
from ..gradients import MatmulGradient, RowGradient
from ._base import Callback, MakeOptimizer, Progress, Schedule, Seed
from .words import WordVectors, vocabulary

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

_TOGETHER = 8192            # the least number of words whose pairs are formed and shuffled together


class SkipGram(WordVectors):
    r"""Word vectors w from skip-gram with negative sampling.

    The dot products of w are large with the context vectors c of nearby words, and small with the vectors c of random
    words.

    .. math:: \min -\sum_{t, s} \Big[\log \sigma(w_s \cdot c_t) + \sum_{n \sim P} \log \sigma(-w_s \cdot c_n)\Big],
    \qquad
              P(n) \propto \text{count}(n)^{3/4}

    The first sum runs over the pairs (t, s). The word t is any word of the text. The word s is in the same sentence, at
    most b places from t. For each t, b is drawn from 1 to `window`. The second sum runs over `negative` random words n
    for each pair. Before all this, a word of frequency f is removed from the text with probability 1 - min(1,
    √(sample/f) + sample/f).

    Parameters
    ----------
    dim : int
        The length of a vector, 1 or more.
    window : int
        The largest distance of a pair, 1 or more.
    negative : int
        The number of random words for each pair, 1 or more.
    min_count : int
        Words that occur fewer times are ignored. 1 or more.
    sample : float
        The frequency above which words are removed at random, 0 or more. 0 removes no words.
    optimizer : str or callable
        The name of an optimizer of this library, or a callable that takes a dict of tables and returns an optimizer.
    lr : None, float or callable
        The learning rate of an optimizer given by name. A number is the first rate: the rate falls in a straight line
        to a thousandth of this number at the end of `epochs`. None stands for the rate in `LEARNING_RATES`, chosen for
        this model. If that table has no rate, None stands for the optimizer's default.
    epochs : int
        Passes over the text in `fit`, 0 or more.
    batch_size : int
        Words t per step, 1 or more. The pairs of at least 8,192 words t are shuffled together. A step takes a share of
        these pairs, in proportion to batch_size. The gradients of a step add up, and pairs of the same or of nearby
        words have similar gradients. So large batches make too large steps if the text has few words, or if sample is
        0.
    missed : "skip" or "replay"
        How steps treat words that are not in the batch. "skip" leaves them as they are. "replay" gives the results of
        the dense optimizer: missed steps are applied before a word is read. A callable as optimizer needs "skip".
    random_state : None, int, numpy.random.Generator or RandomState
        The seed of the first values and of all draws.

    Attributes
    ----------
    optimizer_ : Optimizer
        Holds the tables: `optimizer_.params` has "words" and "contexts" (n_words, dim).
    vectors_ : array, shape (n_words, dim)
        The vectors w.
    words_ : list of str
        The words, the most frequent first.
    counts_ : array of int, shape (n_words,)
        How often each word occurs in the text that `fit` got.
    loss_curve_ : list of float
        The mean loss of a pair in each epoch. The loss is measured before the step on its batch.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if X or a parameter is not as described above.

    Examples
    --------
    >>> from sparseopt import datasets
    >>> from sparseopt.models import SkipGram
    >>> from sparseopt.models.words import sentences
    >>> text = [sentence for page in datasets.python_documentation()[:100] for sentence in sentences(page)]
    >>> model = SkipGram(dim=16, epochs=3).fit(text)
    >>> model.loss_curve_[-1] < model.loss_curve_[0]
    True

    References
    ----------
    Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality", eq. 4.
    """

    _axes: ClassVar = {"words": ("word", "dim"), "contexts": ("word", "dim")}
    LEARNING_RATES: ClassVar = {"SGD": 0.025, "Adagrad": 0.1, "RowwiseAdagrad": 0.05}

    words_: list[str]
    counts_: np.ndarray

    def __init__(self, dim: int = 100, window: int = 5, negative: int = 5, min_count: int = 5, sample: float = 1e-3,
                 optimizer: str | MakeOptimizer = "SGD", lr: float | Schedule | None = None, epochs: int = 5,
                 batch_size: int = 256, missed: Literal["skip", "replay"] = "skip",
                 random_state: Seed | None = 0) -> None:
        self.dim = dim
        self.window = window
        self.negative = negative
        self.min_count = min_count
        self.sample = sample
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.missed = missed
        self.random_state = random_state

    def fit(self, X: Iterable[Iterable[str]], callback: Callback | None = None) -> "Self":
        """Train new vectors for the words of a text.

        Parameters
        ----------
        X : iterable of lists of str
            The sentences. X is read twice, so a generator is not possible.
        callback : None or callable
            Called after every batch with a `sparseopt.models.Progress`. A true result ends the training.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If X or a parameter of the model is not as described.
        """
        self._check_settings()
        text = self._start(X)
        for _ in range(self.epochs):
            if self._epoch(text, callback):
                break
        return self

    def partial_fit(self, X: Iterable[Iterable[str]], callback: Callback | None = None) -> "Self":
        """Train the present vectors for one more epoch, on the same text or on another. Unknown words are ignored.

        Parameters
        ----------
        X, callback
            As in `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As in `fit`, and if no word of X has a vector.
        """
        self._check_settings()
        text = _encoded(X, self._number) if hasattr(self, "optimizer_") else self._start(X)
        self._epoch(text, callback)
        return self

    def _check_settings(self):
        self._check_integers(dim=1, window=1, negative=1, min_count=1, epochs=0, batch_size=1)
        self._check_numbers("sample", zero=True)
        self._rng(0)                                    # raises if random_state is no seed

    def _start(self, X):
        """Begin a new model for the words of a text, and return the text as numbers.

        An error leaves the old model as it is.
        """
        words, counts = vocabulary(_words(X), self.min_count)
        if len(words) < 2:
            raise ValueError(f"X has {len(words)} different words that occur {self.min_count} times or more "
                             "(min_count); there must be at least 2")
        known = self._known(words, np.array(counts))
        text = _encoded(X, known["_number"])
        self._planned = self.epochs * math.ceil(float(known["counts_"] @ known["_kept"]) / self.batch_size)
        rng = self._rng()
        half = 0.5 / self.dim
        tables = {"words": _memory.uniform((len(words), self.dim), low=-half, high=half, seed=rng),
                  "contexts": _memory.zeros((len(words), self.dim))}
        optimizer = self._make_optimizer(tables)
        vars(self).update(known, optimizer_=optimizer, loss_curve_=[])
        return text

    def _schedule(self, lr):
        return lr if callable(lr) else schedules.Linear(lr, end=lr / 1000, steps=max(1, self._planned))

    def _known(self, words, counts):
        """Return the attributes of the model that follow from the words and their counts."""
        share = counts / counts.sum()
        kept = np.minimum(1, np.sqrt(self.sample / share) + self.sample / share) if self.sample else np.ones(len(share))
        return {"words_": words, "counts_": counts, "_number": {word: i for i, word in enumerate(words)},
                "_negatives": embedding.Alias(counts**0.75), "_kept": kept}

    def _epoch(self, text, callback):
        epoch, total, pairs = len(self.loss_curve_), 0.0, 0
        rng = self._rng(epoch)
        kept = np.flatnonzero(rng.random(len(text[0]), np.float32) < self._kept[text[0]])
        words, sentence = text[0][kept], text[1][kept]
        reach = rng.integers(1, self.window + 1, len(words), dtype=np.int32)
        together = self.batch_size * -(-_TOGETHER // self.batch_size)
        for first in range(0, len(words), together):
            last = min(first + together, len(words))
            near, of = _neighbours(sentence, reach, first, last, self.window)
            mixed = rng.permutation(len(near))
            near, of = near[mixed], of[mixed]
            outputs = np.empty((len(near), 1 + self.negative), np.int32)
            outputs[:, 0] = words[first + of]
            outputs[:, 1:] = self._negatives.draw((len(near), self.negative), rng)
            inputs = words[near]
            for start in range(first, last, self.batch_size):
                done = min(start + self.batch_size, last)
                lo, hi = (len(near) * (place - first) // (last - first) for place in (start, done))
                total += self._step(inputs[lo:hi], outputs[lo:hi])
                pairs += hi - lo
                if callback and callback(Progress(self, epoch, done, len(words), total / max(pairs, 1))):
                    self.loss_curve_.append(total / max(pairs, 1))
                    return True
        self.loss_curve_.append(total / max(pairs, 1))
        return False

    def _step(self, inputs, outputs):
        """Take a step on pairs, and return the loss.

        The word inputs[p] predicts outputs[p, 0]. The rest of outputs[p] are its negatives.
        """
        n, each = outputs.shape
        self._catch_up({"words": inputs, "contexts": outputs})
        tables = self.optimizer_.params
        x = embedding.dots(tables["words"], inputs, tables["contexts"], outputs)
        x[:, 0] *= -1                                   # the loss of each pair is -log σ(-x), with derivative σ(x)
        slope = np.exp(np.clip(x, -30, 30, out=x), out=x)
        more = slope + 1
        slope /= more
        loss = float(np.log(more, out=more).sum())
        slope[:, 0] *= -1
        slope[:, 1:] *= outputs[:, 1:] != outputs[:, :1]            # a word is not a negative of itself
        pairs = sp.csr_array((n, len(tables["contexts"])), dtype=slope.dtype)       # the constructor would copy parts
        pairs.data, pairs.indices = slope.reshape(-1), outputs.reshape(-1)
        pairs.indptr = np.arange(0, slope.size + 1, each, dtype=np.int32)
        before = embedding.gather(tables["words"], inputs)
        self.optimizer_.step({"words": RowGradient(inputs, embedding.matmul(pairs, tables["contexts"])),
                              "contexts": MatmulGradient(pairs, before)})
        return loss

    def _fitted(self):
        return {**super()._fitted(), "words": self.words_, "counts": self.counts_.tolist()}

    def _restore(self, metadata):
        super()._restore(metadata)
        words, counts = list(metadata["words"]), np.array(metadata["counts"])
        if not len(words) == len(counts) == len(self.optimizer_.params["words"]) or counts.min() < 1:
            raise ValueError(f"it has {len(words)} words and {len(counts)} counts for "
                             f"{len(self.optimizer_.params['words'])} vectors; the numbers must be equal, and each "
                             "count at least 1")
        vars(self).update(self._known(words, counts))

    @property
    def vectors_(self) -> np.ndarray:
        self._check_fitted()
        self._catch_up()
        return self.optimizer_.params["words"]


def _encoded(X, number):
    """Return the numbers of the words of a text, without unknown words, and the number of each word's sentence."""
    numbers, lengths = [], []
    for sentence in X:
        known = [number[word] for word in sentence if word in number]
        numbers.extend(known)
        lengths.append(len(known))
    if not numbers:
        raise ValueError("X has none of the words that have a vector (an iterator is empty after it is read once)")
    return np.array(numbers, np.int32), np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)


def _words(X):
    if isinstance(X, str):
        raise TypeError("X is a string; it must be sentences, each a list of words")
    for sentence in X:
        if isinstance(sentence, str):
            raise TypeError(f"X has the string {shown(sentence)}; sentences must be lists of words")
        yield from sentence


def _neighbours(sentence, reach, start, stop, window):
    """Return pairs (place of a nearby word, number of the word from `start` on), in the order of the words."""
    at = np.arange(start, stop, dtype=np.int32)
    far = np.concatenate([np.arange(-window, 0), np.arange(1, window + 1)]).astype(np.int32)
    near = at[:, None] + far
    there = (np.abs(far) <= reach[start:stop, None]) & (near >= 0) & (near < len(sentence))
    there &= sentence[np.clip(near, 0, len(sentence) - 1)] == sentence[start:stop, None]
    return near[there], np.repeat(np.arange(stop - start, dtype=np.int32), there.sum(axis=1))
