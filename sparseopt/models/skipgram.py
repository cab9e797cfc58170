"""Word vectors that predict the words around them: skip-gram with negative sampling."""

import math
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from .. import _memory, embedding, schedules
from .._text import shown
from ..gradients import MatmulGradient, RowGradient
from ._base import Progress
from .words import WordVectors, vocabulary

_TOGETHER = 8192            # words, at least, whose pairs are made, and mixed, at the same time


class SkipGram(WordVectors):
    r"""Word vectors w whose dot products with the vectors c of words nearby are large, and with those of random words small.

    .. math:: \min -\sum_{t, s} \Big[\log \sigma(w_s \cdot c_t) + \sum_{n \sim P} \log \sigma(-w_s \cdot c_n)\Big], \qquad
              P(n) \propto \text{count}(n)^{3/4}

    over the words t of the text and the words s within b places of t in its sentence, with b drawn from 1 to `window` for
    each t, and over `negative` words n drawn for each pair. Before that, a word of frequency f is left out with probability
    1 - min(1, √(sample/f) + sample/f).

    Parameters
    ----------
    dim : int
        Length of a vector.
    window : int
        The largest distance of a pair.
    negative : int
        Words drawn at random for each pair.
    min_count : int
        Words seen less often are left out.
    sample : float
        Of the text, the share above which a word counts as frequent; 0 leaves none out.
    optimizer : str or callable
        The name of an optimizer of this library, or a callable from a dict of tables to one.
    lr : None, float or callable
        The learning rate, with an optimizer given by name; None is that of `LEARNING_RATES`, chosen for this model, else the
        optimizer's default. A number is where it begins: from there it falls in a straight line, to nearly 0 at the end of
        `epochs`.
    epochs : int
        Passes over the text that `fit` makes.
    batch_size : int
        Words t a step: their share of the pairs of 8,192 words t (or as many as are left of the text), drawn at random. A
        step adds up what its pairs ask for, and those of one word, or of words nearby, ask for much the same: with few
        words, or without `sample`, large steps go too far.
    missed : "skip" or "replay"
        What happens to words in the steps of batches without them, with an optimizer given by name.
    random_state : int
        Seed of the starting values, and of all that is drawn.

    Attributes
    ----------
    optimizer_ : Optimizer
        With the tables: `optimizer_.params` has "words" and "contexts" (n_words, dim).
    vectors_ : array, shape (n_words, dim)
        The vectors w.
    words_ : list of str
        The words, the most frequent first.
    counts_ : array of int
        How often each was seen in the text that `fit` got.
    loss_curve_ : list of float
        Mean loss of a pair over each epoch, measured as it went on.

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

    def __init__(self, dim=100, window=5, negative=5, min_count=5, sample=1e-3, optimizer="SGD", lr=None, epochs=5,
                 batch_size=256, missed="skip", random_state=0):
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

    def fit(self, X, callback=None):
        """Train new vectors for the words of a text.

        Parameters
        ----------
        X : iterable of lists of str
            Sentences; read twice, so no generator.
        callback : None or callable
            Called after every batch with a `sparseopt.models.Progress`; training ends where it returns True.

        Returns
        -------
        SkipGram
            Itself.
        """
        self._check_settings()
        text = self._start(X)
        for _ in range(self.epochs):
            if self._epoch(text, callback):
                break
        return self

    def partial_fit(self, X, callback=None):
        """Train one more epoch, on this text or another, from where the vectors are; words without one are left out.

        Parameters as `fit`.
        """
        self._check_settings()
        text = _encoded(X, self._number) if hasattr(self, "optimizer_") else self._start(X)
        self._epoch(text, callback)
        return self

    def _check_settings(self):
        self._check_integers(dim=1, window=1, negative=1, min_count=1, epochs=0, batch_size=1)
        self._check_numbers("sample", zero=True)
        self._rng(0)                                    # or raise

    def _start(self, X):
        """Begin a new model for the words of a text, or leave the old one as it is and raise; returns the text by number."""
        words, counts = vocabulary(_words(X), self.min_count)
        if len(words) < 2:
            raise ValueError(f"X has {len(words)} different words that are seen {self.min_count} times or more (min_count); "
                             "it must have at least 2")
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
        """What the counts say, as the attributes that it becomes."""
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
        """One step on pairs: the word inputs[p] predicts outputs[p, 0] and none of the rest of outputs[p]. Returns the loss."""
        n, each = outputs.shape
        self._catch_up({"words": inputs, "contexts": outputs})
        tables = self.optimizer_.params
        x = embedding.dots(tables["words"], inputs, tables["contexts"], outputs)
        x[:, 0] *= -1                                   # how far each pair is from what it should be
        slope = np.exp(np.clip(x, -30, 30, out=x), out=x)
        more = slope + 1
        slope /= more                                   # σ(x), the derivative of
        loss = float(np.log(more, out=more).sum())      # -log σ(-x)
        slope[:, 0] *= -1
        slope[:, 1:] *= outputs[:, 1:] != outputs[:, :1]            # a word is no negative of itself
        pairs = sp.csr_array((n, len(tables["contexts"])), dtype=slope.dtype)       # given its parts, it would copy them
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
            raise ValueError(f"it has {len(words)} words and {len(counts)} counts for {len(self.optimizer_.params['words'])} "
                             "vectors; there must be as many, and each counted")
        vars(self).update(self._known(words, counts))

    @property
    def vectors_(self):
        self._check_fitted()
        self._catch_up()
        return self.optimizer_.params["words"]


def _encoded(X, number):
    """The words of a text by number, those without a vector left out, and the sentence of each."""
    numbers, lengths = [], []
    for sentence in X:
        known = [number[word] for word in sentence if word in number]
        numbers.extend(known)
        lengths.append(len(known))
    if not numbers:
        raise ValueError("X has none of the words that have a vector (an iterator is empty after the first reading)")
    return np.array(numbers, np.int32), np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)


def _words(X):
    if isinstance(X, str):
        raise TypeError("X is a string; it must be sentences, each a list of words")
    for sentence in X:
        if isinstance(sentence, str):
            raise TypeError(f"X has the string {shown(sentence)}; sentences must be lists of words")
        yield from sentence


def _neighbours(sentence, reach, start, stop, window):
    """Pairs (place of a word nearby, which of the words from start to stop it is near), word by word."""
    at = np.arange(start, stop, dtype=np.int32)
    far = np.concatenate([np.arange(-window, 0), np.arange(1, window + 1)]).astype(np.int32)
    near = at[:, None] + far
    there = (np.abs(far) <= reach[start:stop, None]) & (near >= 0) & (near < len(sentence))
    there &= sentence[np.clip(near, 0, len(sentence) - 1)] == sentence[start:stop, None]
    return near[there], np.repeat(np.arange(stop - start, dtype=np.int32), there.sum(axis=1))
