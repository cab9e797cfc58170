"""Word vectors that predict the words around them: skip-gram with negative sampling."""

import math
import warnings
from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp

from .. import _memory, embedding, schedules
from .._checks import flag
from .._typing import Self
from ..gradients import MatmulGradient, RowGradient
from ._base import Callback, MakeOptimizer, Model, Progress, Schedule, Seed
from ._growing import grown
from ._sentences import Numbers
from .words import WordVectors, count_words, new_words, numbered, vocabulary

_TOGETHER = 8192            # the least number of words whose pairs are formed and shuffled together


class SkipGram(WordVectors, Model):
    r"""Word vectors w from skip-gram with negative sampling.

    The dot products of w are large with the context vectors c of nearby words, and small with the vectors c of random
    words.

    .. math:: \min -\sum_{t, s} \Bigl[\log \sigma(w_s \cdot c_t) + \sum_{n \sim P} \log \sigma(-w_s \cdot c_n)\Bigr],
              \qquad P(n) \propto \text{count}(n)^{3/4}

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
        The words, the most frequent first. Words that `partial_fit` adds come after these.
    counts_ : array of int, shape (n_words,)
        How often each word occurs in the text of `fit`. `partial_fit` with grow=True adds the counts of its text.
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
    >>> "class" in model, model["class"].shape
    (True, (16,))

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

    def fit(self, X: Iterable[Iterable[str]], callback: Callback | None = None) -> Self:
        """Train new vectors for the words of a text.

        The numbers of the words go to a temporary file, 4 bytes for each word. Memory does not grow with the text.

        Parameters
        ----------
        X : iterable of lists of str
            The sentences, which are read twice: a list, or `sparseopt.datasets.LineSentences` for text files.
        callback : None or callable
            Called after every batch with a `sparseopt.models.Progress`. A true result ends the training.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If X or a parameter of the model is not as described. A generator is refused: it can be read only once.
        """
        self._check_settings()
        self._check_callback(callback)
        with self._start(X) as text:
            for _ in range(self.epochs):
                if self._train(text, callback):
                    break
        return self

    def partial_fit(self, X: Iterable[Iterable[str]], callback: Callback | None = None, grow: bool = False) -> Self:
        """Train the present vectors for one more epoch, on the same text or on another.

        Parameters
        ----------
        X, callback
            As in `fit`.
        grow : bool
            Whether words that have no vector, and that X has `min_count` times or more, get new vectors. Otherwise
            these words are ignored, and a warning says how many. If the rate has reached its end before, the epoch of
            new words has a fall of its own: from the first rate to a thousandth.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As in `fit`, and if no word of X has a vector.
        """
        self._check_settings()
        self._check_callback(callback)
        flag("grow", grow)
        with self._continue(X, grow) if hasattr(self, "optimizer_") else self._start(X) as text:
            self._train(text, callback)
        return self

    def _check_settings(self):
        self._check_integers(dim=1, window=1, negative=1, min_count=1, epochs=0, batch_size=1)
        self._check_numbers("sample", zero=True)
        self._rng(0)                                    # raises if random_state is no seed

    def _start(self, X, found=None):
        """Begin a new model for the words of a text, and return the text as numbers.

        `found` has the counts of the words, if these are known. An error leaves the old model as it is.
        """
        words, counts = vocabulary(count_words(X) if found is None else found, self.min_count)
        if len(words) < 2:
            raise ValueError(f"X has {len(words)} different words that occur {self.min_count} times or more "
                             "(min_count); there must be at least 2")
        known = self._known(words, np.array(counts))
        self._planned = self.epochs * self._steps(known["counts_"], known["_kept"])
        optimizer = self._make_optimizer(self._new_tables(len(words), self.dim, self._rng()))
        text = Numbers(X, known["_number"])
        vars(self).update(known, optimizer_=optimizer, loss_curve_=[])
        return text

    def _continue(self, X, grow):
        """Return a text as numbers. With `grow`, add its new words first. An error leaves the model as it was."""
        found = count_words(X)
        new = new_words(found, self._number, self.min_count, grow)
        if not grow:
            return self._read(X)
        seen = np.array([found[word] for word in self.words_ + new])
        counts = seen.copy()
        counts[:len(self.counts_)] += self.counts_
        known = self._known(self.words_ + new, counts)
        optimizer = self.optimizer_
        if new:
            dim = optimizer.params["words"].shape[1]
            tables = self._new_tables(len(counts), dim, self._rng(len(self.words_), len(new)))
            optimizer = grown(optimizer, tables)
            self._fall_again(optimizer, self._steps(seen, known["_kept"]))
        text = Numbers(X, known["_number"])
        vars(self).update(known, optimizer_=optimizer)
        return text

    def _read(self, X):
        """Return a text as numbers."""
        return Numbers(X, self._number)

    def _fall_again(self, optimizer, steps):
        """If a rate is near the end of its fall, give it another fall over so many steps."""
        if callable(self.optimizer) or callable(self.lr):
            return
        for group in optimizer.param_groups:
            rate = group["lr"]
            fall = rate.parts[-1] if isinstance(rate, schedules.Chain) else rate
            if isinstance(fall, schedules.Linear) and rate(optimizer.steps) < 0.05 * fall.lr:
                before = schedules.Constant(fall.end), optimizer.steps
                group["lr"] = schedules.Chain([before, schedules.Linear(fall.lr, fall.end, steps)])

    def _new_tables(self, n_words, dim, rng):
        half = 0.5 / dim
        return {"words": _memory.uniform((n_words, dim), low=-half, high=half, seed=rng),
                "contexts": _memory.zeros((n_words, dim))}

    def _steps(self, counts, kept):
        """Return about how many steps an epoch has."""
        return max(1, math.ceil(float(counts @ kept) / self.batch_size))

    def _schedule(self, lr):
        return lr if callable(lr) else schedules.Linear(lr, end=lr / 1000, steps=max(1, self._planned))

    def _known(self, words, counts):
        """Return the attributes of the model that follow from the words and their counts."""
        share = counts / counts.sum()
        kept = np.minimum(1, np.sqrt(self.sample / share) + self.sample / share) if self.sample else np.ones(len(share))
        return {"words_": words, "counts_": counts, "_number": numbered(words),
                "_negatives": embedding.Alias(counts**0.75), "_kept": kept}

    def _epoch(self, text, callback):
        epoch, total, pairs, read, first = len(self.loss_curve_), 0.0, 0, 0, 0
        rng = self._rng(epoch)
        together = self.batch_size * -(-_TOGETHER // self.batch_size)
        # Words that are not removed, from `window` places before the first that has had no step yet. `place` counts the
        # words of the whole text.
        words, sentence, reach, place = (np.empty(0, kind) for kind in (np.int32, np.int64, np.int32, np.int64))
        for block, block_sentence in text.blocks():
            kept = np.flatnonzero(rng.random(len(block), np.float32) < self._kept[block])
            words, sentence = np.append(words, block[kept]), np.append(sentence, block_sentence[kept])
            reach = np.append(reach, rng.integers(1, self.window + 1, len(kept), dtype=np.int32))
            place = np.append(place, read + kept + 1)
            read += len(block)
            ends = read == text.n_words
            if ends and len(place):
                place[-1] = read                        # words after this one are removed
            while first < len(words) if ends else first + together + self.window <= len(words):
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
                    lo, hi = (len(near) * (each - first) // (last - first) for each in (start, done))
                    total += self._step(inputs[lo:hi], outputs[lo:hi])
                    pairs += hi - lo
                    if callback and callback(Progress(self, epoch, int(place[done - 1]), text.n_words,
                                                      total / max(pairs, 1))):
                        self.loss_curve_.append(total / max(pairs, 1))
                        return True
                first = last
            past = max(0, first - self.window)
            words, sentence, reach, place = (array[past:] for array in (words, sentence, reach, place))
            first -= past
        if not pairs:
            warnings.warn(f"no pair of words was left to train on: sentences are too short, or sample={self.sample} "
                          "removed most words of a small text; sample=0 removes none", stacklevel=3)
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
        self._take_step({"words": RowGradient(inputs, embedding.matmul(pairs, tables["contexts"])),
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

    def _rows(self, rows):
        rows = np.array(rows, np.int64)
        self._catch_up({"words": rows})
        return embedding.gather(self.optimizer_.params["words"], rows)


def _neighbours(sentence, reach, start, stop, window):
    """Return pairs (place of a nearby word, number of the word from `start` on), in the order of the words."""
    at = np.arange(start, stop, dtype=np.int32)
    far = np.concatenate([np.arange(-window, 0), np.arange(1, window + 1)]).astype(np.int32)
    near = at[:, None] + far
    there = (np.abs(far) <= reach[start:stop, None]) & (near >= 0) & (near < len(sentence))
    there &= sentence[np.clip(near, 0, len(sentence) - 1)] == sentence[start:stop, None]
    return near[there], np.repeat(np.arange(stop - start, dtype=np.int32), there.sum(axis=1))
