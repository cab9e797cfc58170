"""The common part of skip-gram and CBOW: passes over a text, windows of words and random negatives."""

import math
import warnings
from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np

from .. import _kernels, embedding, init, schedules
from .._checks import flag
from .._rows import Rows
from .._typing import Self
from ..losses.words import negative_sampling
from ._base import Callback, MakeOptimizer, Schedule, Seed
from ._places import MakeTables, Placed
from ._sentences import Numbers
from .words import WordVectors, count_words, new_words, numbered, vocabulary

_TOGETHER = 8192            # the least number of words that are mixed together
_MOST = 256                 # words of a step
_WIDEST = 2**31 - 2         # window; no text has so long a sentence
_GRADIENTS = 90             # of the most frequent word in a step; more of them add up too far


class NegativeSampling(WordVectors, Placed):
    """Word vectors that tell the words around a word from random words."""

    _mean: ClassVar[bool]           # whether the mean of a window predicts, or each word of the window
    _axes: ClassVar = {"words": ("word", "dim"), "contexts": ("word", "dim")}

    words_: list[str]
    counts_: np.ndarray

    def __init__(self, dim: int = 100, window: int = 5, negative: int = 5, min_count: int = 5, sample: float = 1e-3,
                 optimizer: str | MakeOptimizer = "SGD", lr: float | Schedule | None = None, epochs: int = 5,
                 batch_size: int | None = None, missed: Literal["skip", "replay"] = "skip",
                 random_state: Seed | None = 0, tables: MakeTables | None = None) -> None:
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
        self.tables = tables

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
        with self._continue(X, grow) if self._is_fitted else self._start(X) as text:
            self._train(text, callback)
        return self

    def _check_settings(self):
        self._check_integers(dim=1, window=1, negative=1, min_count=1, epochs=0)
        if self.batch_size is not None:
            self._check_integers(batch_size=1)
        self._check_numbers("sample", zero=True)
        self._check_tables_parameter()
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
        self._planned = self.epochs * self._steps(known["counts_"] * known["_kept"])
        text = Numbers(X, known["_number"])
        try:
            new = self._new(self._rows_of(len(words), self.dim), self._make_optimizer())
        except BaseException:
            text.close()
            raise
        self._set({**known, **new, "loss_curve_": []})
        return text

    def _continue(self, X, grow):
        """Return a text as numbers. With `grow`, add its new words first. An error leaves the model as it was."""
        found = count_words(X)
        new = new_words(found, self._number, self.min_count, grow)
        if not grow:
            return self._read(X)
        if new:
            self._check_may_grow()
        seen = np.array([found[word] for word in self.words_ + new])
        counts = seen.copy()
        counts[:len(self.counts_)] += self.counts_
        known = self._known(self.words_ + new, counts)
        rows = self._rows_of(len(counts), self._dim("words"))
        rates = self._falls_again(self._steps(seen * known["_kept"])) if new else []
        text = Numbers(X, known["_number"])
        try:
            self._grow(rows, known, rates)
        except BaseException:
            text.close()
            raise
        return text

    def _read(self, X):
        """Return a text as numbers."""
        return Numbers(X, self._number)

    def _falls_again(self, steps):
        """Return pairs (group, its new rate): rates near the end of their fall get another one, of so many steps."""
        if callable(self.optimizer) or callable(self.lr):
            return []
        opt, rates = self.optimizer_, []
        for group in opt.param_groups:
            rate = group["lr"]
            fall = rate.parts[-1] if isinstance(rate, schedules.Chain) else rate
            if isinstance(fall, schedules.Linear) and rate(opt.steps) < 0.05 * fall.lr:
                before = schedules.Constant(fall.end), opt.steps
                rates.append((group, {"lr": schedules.Chain([before, schedules.Linear(fall.lr, fall.end, steps)])}))
        return rates

    def _rows_of(self, n_words, dim):
        """Return the rows of the tables. A row starts with the same values however many rows there are."""
        half = 0.5 / dim
        return {"words": Rows(n_words, dim, init=init.Uniform(-half, half, seed=[self._seed(), 0])),
                "contexts": Rows(n_words, dim)}

    def _steps(self, counts):
        """Return about how many steps an epoch has, if so many of each word remain."""
        return max(1, math.ceil(float(counts.sum()) / self._batch(counts)))

    def _batch(self, counts):
        """Return the number of words t of a step."""
        if self.batch_size is not None:
            return self.batch_size
        # CBOW takes larger rates, so one gradient of the mean counts as those of five pairs.
        gradients = (1 + self.negative) * (5 if self._mean else self.window) * counts.max() / counts.sum()
        return max(1, min(_MOST, int(_GRADIENTS / gradients)))

    def _schedule(self, lr):
        return lr if callable(lr) else schedules.Linear(lr, end=lr / 1000, steps=max(1, self._planned))

    def _known(self, words, counts):
        """Return the attributes of the model that follow from the words and their counts."""
        share = counts / counts.sum()
        kept = np.minimum(1, np.sqrt(self.sample / share) + self.sample / share) if self.sample else np.ones(len(share))
        return {"words_": words, "counts_": counts, "_number": numbered(words),
                "_negatives": embedding.Alias(counts**0.75), "_kept": kept}

    def _epoch(self, text, callback):
        task = Windows(text, self._kept, self._negatives, self._batch(self.counts_ * self._kept), self.window,
                       self.negative, self._mean)
        ended = self._take_steps(task, text.n_words, callback)
        if not ended and not self.loss_curve_[-1]:
            warnings.warn(f"no pair of words was left to train on: sentences are too short, or sample={self.sample} "
                          "removed most words of a small text; sample=0 removes none", stacklevel=3)
        return ended

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


class Windows:
    """The task of an epoch: the words of a text and the windows around these. Each worker takes a part of the text."""

    def __init__(self, text, kept, negatives, size, window, negative, mean):
        self._text, self._kept, self._negatives, self._size = text, kept, negatives, size
        self._window, self._negative, self._mean = window, negative, mean

    def batches(self, rng, worker, workers):
        read, n_words = (self._text.n_words * part // workers for part in (worker, worker + 1))
        taken, first, size = read, 0, -(-self._size // workers)
        together = size * -(-_TOGETHER // size)
        # Words that are not removed, from `window` places before the first that has had no step yet. `place` counts the
        # words of the whole text.
        words, sentence, reach, place = (np.empty(0, kind) for kind in (np.int32, np.int64, np.int32, np.int64))
        for block, block_sentence in self._text.blocks(read, n_words):
            kept = np.flatnonzero(rng.random(len(block), np.float32) < self._kept[block])
            words, sentence = np.append(words, block[kept]), np.append(sentence, block_sentence[kept])
            reach = np.append(reach, rng.integers(1, min(self._window, _WIDEST) + 1, len(kept), dtype=np.int32))
            place = np.append(place, read + kept + 1)
            read += len(block)
            ends = read == n_words
            if ends and len(place):
                place[-1] = read                        # words after this one are removed
            widest = min(self._window, _longest(sentence))      # a window may be much wider than any sentence
            while first < len(words) if ends else first + together + self._window <= len(words):
                last = min(first + together, len(words))
                order = first + rng.permutation(last - first)
                inputs, bounds, outputs = self._bags(words, sentence, reach, order, widest, rng)
                for start in range(first, last, size):
                    done = min(start + size, last)
                    lo, hi = (len(outputs) * (each - first) // (last - first) for each in (start, done))
                    yield (inputs[bounds[lo]:bounds[hi]], outputs[lo:hi], bounds[lo:hi + 1],
                           int(place[done - 1]) - taken)
                    taken = int(place[done - 1])
                first = last
            past = max(0, first - self._window)
            words, sentence, reach, place = (array[past:] for array in (words, sentence, reach, place))
            first -= past

    def _bags(self, words, sentence, reach, order, widest, rng):
        """Return the words around some places in this order, the bounds of these bags, and words with negatives."""
        inputs = np.empty(2 * widest * len(order), np.int32)
        bounds, middle = np.empty(len(order) + 1, np.int64), np.empty(len(order), np.int32)
        n = _kernels.losses.windows(words, sentence, reach, order, inputs, bounds, middle)
        outputs = np.empty((n, 1 + self._negative), np.int32)
        outputs[:, 0] = middle[:n]
        outputs[:, 1:] = self._negatives.draw((n, self._negative), rng)
        return inputs[:bounds[n]], bounds[:n + 1], outputs

    def gradients(self, reader, batch):
        """Return the gradients of a step on bags of words. See `losses.skip_gram`."""
        inputs, outputs, bounds, done = batch
        tables, (inputs, outputs) = reader.read((["words"], inputs), (["contexts"], outputs))
        loss, (words, contexts) = negative_sampling(self._mean, tables["words"], tables["contexts"], inputs, outputs,
                                                    bounds, min(2 * self._window, len(inputs)))
        terms = len(outputs) if self._mean else len(inputs)
        return {"words": words, "contexts": contexts}, (done, terms, loss)


def _longest(sentence):
    """Return the length of the longest run of equal numbers, or 0."""
    ends = np.flatnonzero(np.diff(sentence, append=-1))
    return int(np.diff(ends, prepend=-1).max(initial=0))
