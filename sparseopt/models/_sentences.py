"""Sentences as numbers in a temporary file, so that a text may be larger than memory."""

import itertools
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat

import numpy as np

from .._text import shown

_END = -1                   # stands after each sentence of the file.
_UNKNOWN = -2
_BLOCK = 1 << 20            # numbers that are read or written at a time.
_IN_MEMORY = 1 << 26        # bytes of a text that needs no file on disk.
_MOST_WORDS = 20_000_000    # different words that are counted.
# Scripts written without spaces, each with the mean length from which its words are no words: Chinese and Japanese;
# Thai, Lao, Burmese and Khmer.
_UNSPACED = (("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]", 4),
             ("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]", 12))


def count_words(X: Iterable[Iterable[str]]) -> Counter[str]:
    """Return how often each word occurs in sentences.

    As in word2vec's own program, the rarest words are dropped whenever there are too many different ones: more than
    twenty million. A warning says so. Another warning says if the words seem to be sentences, because the text is in a
    script without spaces.

    Parameters
    ----------
    X : iterable of lists of str
        The sentences. A generator is refused, because models read X again.

    Raises
    ------
    TypeError
        If X is not as described.

    Examples
    --------
    >>> from sparseopt.models.words import count_words, vocabulary
    >>> vocabulary(count_words([["a", "rose"], ["is", "a", "rose"]]), min_count=2)
    (['a', 'rose'], [2, 2])
    """
    if hasattr(X, "__iter__") and iter(X) is X:
        raise TypeError(f"X is a {type(X).__name__}, which can be read only once; a model reads its sentences more "
                        "often. X must be a list, or sparseopt.datasets.LineSentences(path) for files of any size")
    counts, dropped = Counter(), 0
    words = chain.from_iterable(_sentences(X))
    while block := list(islice(words, _BLOCK)):
        counts.update(block)
        while len(counts) > _MOST_WORDS:
            dropped += 1
            counts = Counter({word: count for word, count in counts.items() if count > dropped})
    if dropped:
        warnings.warn(f"X has more than {_MOST_WORDS:,} different words; words seen {dropped} times or fewer were "
                      "dropped on the way, so the counts of rare words are too low", stacklevel=4)
    for word in counts:
        if not isinstance(word, str):
            raise TypeError(f"X has the word {shown(word)}, a {type(word).__name__}; words must be strings")
    _warn_unsegmented(counts)
    return counts


def _sentences(X):
    if isinstance(X, str) or not hasattr(X, "__iter__"):
        raise TypeError(f"X is {shown(X)}; it must be sentences, each a list of words, as models.words.sentences(text) "
                        "returns them")
    for sentence in X:
        if isinstance(sentence, str) or not hasattr(sentence, "__iter__"):
            raise TypeError(f"X has {shown(sentence)} in the place of a sentence; sentences must be lists of words")
        yield sentence


def _warn_unsegmented(counts):
    """Warn if words are rather whole sentences, as in a text of a script without spaces."""
    for script, longest in _UNSPACED:
        long = re.compile(script)
        found = [(word, count) for word, count in counts.items() if not word.isascii() and long.match(word)]
        n_words = sum(count for _, count in found)
        length = sum(len(word) * count for word, count in found) / max(n_words, 1)
        if length > longest and n_words > 0.01 * counts.total():
            word = max((word for word, _ in found), key=len)
            warnings.warn(f"{n_words:,} words such as {shown(word)} have {length:.0f} letters on average. The text "
                          "seems to be written without spaces; a program for this language must put spaces between its "
                          "words first", stacklevel=4)


class Numbers:
    """The numbers of the words of sentences, without unknown words. Memory is bounded: a long text is a file on disk.

    The file has no name where the system allows this, so it is gone after any exception, and at the end of the process.

    Parameters
    ----------
    X : iterable of lists of str
    number : dict from str to int
    """

    def __init__(self, X, number: dict[str, int]) -> None:
        self.n_words = 0
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="sparseopt-")      # noqa: SIM115
        try:
            buffer = []
            for sentence in _sentences(X):
                buffer += map(number.get, sentence, repeat(_UNKNOWN))
                buffer.append(_END)
                if len(buffer) >= _BLOCK:
                    self._write(buffer)
                    buffer = []
            self._write(buffer)
            if not self.n_words:
                raise ValueError("X has none of the words that have a vector; or its sentences are iterators, which "
                                 "can be read only once")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self) -> None:
        self._file.close()

    def _write(self, buffer):
        numbers = np.array(buffer, np.int32)
        numbers = numbers[numbers != _UNKNOWN]
        self.n_words += int((numbers != _END).sum())
        try:
            self._file.write(numbers.tobytes())
        except OSError as error:
            folder = tempfile.gettempdir()
            raise OSError(error.errno, f"{error.strerror}: a text of over {self.n_words:,} words needs 4 bytes for "
                          f"each in {folder}; the environment variable TMPDIR names another folder") from None

    def blocks(self, first: int, end: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the words from `first` to before `end` in blocks: their numbers, and the number of each one's sentence.

        Several of these iterators may read by turns.
        """
        read = ended = 0
        for place in itertools.count(0, _BLOCK):
            numbers = self._numbers(place)
            if not len(numbers) or read >= end:
                break
            word = numbers != _END
            sentence = np.cumsum(~word)
            sentence += ended
            ended = int(sentence[-1])
            words, some = numbers[word], slice(max(0, first - read), end - read)
            read += len(words)
            if read > first:
                yield words[some], sentence[word][some]

    def _numbers(self, place):
        """Return a block of the file from a place on."""
        if isinstance(self._file, np.ndarray):
            return self._file[place:place + _BLOCK]
        self._file.seek(4 * place)
        return np.frombuffer(self._file.read(4 * _BLOCK), np.int32)

    def __getstate__(self):
        """Return what another process needs, which has the text in memory."""
        if isinstance(self._file, np.ndarray):
            return vars(self)
        self._file.seek(0)
        return {**vars(self), "_file": np.frombuffer(self._file.read(), np.int32)}
