"""Texts to words, and word vectors to nearest words, files and scores."""

import codecs
import contextlib
import difflib
import gzip
import io
import os
import unicodedata
import warnings
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .._checks import at_least
from .._files import replacing
from .._text import listed, shown
from .._tokens import sentences as sentences
from .._tokens import tokenize as tokenize
from .._typing import FilePath, Floats
from ._base import Model
from ._neighbours import nearest as nearest
from ._neighbours import unit
from ._sentences import count_words as count_words

__all__ = [
    "KeyedVectors", "WordVectors", "close_words", "count_words", "nearest", "read_vectors", "sentences", "tokenize",
    "vocabulary", "word_analogies", "word_similarity", "write_vectors",
]

_CLOSE = 20_000             # the most frequent words, among which close words are sought.


def vocabulary(tokens: Iterable[str] | Mapping[str, int], min_count: int = 5) -> tuple[list[str], list[int]]:
    """Return the words that occur at least `min_count` times, and their counts. The most frequent word comes first.

    Parameters
    ----------
    tokens : iterable of str, or Counter
        The words of a text, or the result of `count_words`.
    min_count : int

    Returns
    -------
    words : list of str
        Words with equal counts are in alphabetical order.
    counts : list of int

    Examples
    --------
    >>> from sparseopt.models.words import vocabulary
    >>> vocabulary(["b", "a", "b", "c", "a"], min_count=2)
    (['a', 'b'], [2, 2])
    """
    counts = Counter(tokens)
    words = sorted((word for word, count in counts.items() if count >= min_count),
                   key=lambda word: (-counts[word], word))
    return words, [counts[word] for word in words]


def write_vectors(path: FilePath, words: Sequence[str], vectors: npt.ArrayLike) -> None:
    """Write vectors in word2vec's text format or binary format, which gensim and most programs read.

    `read_vectors` gives back the same bits. A file at `path` is replaced only after the new file is complete.

    Parameters
    ----------
    path : str or path
        A name that ends in ".bin" or ".bin.gz" stands for the binary format. ".gz" stands for packing by gzip.
    words : sequence of str
        White space inside a word is an error: in these formats, a space ends the word.
    vectors : array of float32, shape (len(words), dim)

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If there are more words than vectors, or fewer. If a word is empty or has white space. If a vector has NaN or
        an infinite number.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from sparseopt.models.words import read_vectors, write_vectors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "vectors.txt")
    ...     write_vectors(path, ["rain", "sun"], np.array([[0.5, 1.0], [2.0, -1.0]]))
    ...     read_vectors(path)
    (['rain', 'sun'], array([[ 0.5,  1. ],
           [ 2. , -1. ]], dtype=float32))
    """
    vectors = np.ascontiguousarray(vectors, "<f4")
    if vectors.ndim != 2 or len(vectors) != len(words):
        raise ValueError(f"vectors has shape {vectors.shape} for {len(words)} words; there must be a row for each word")
    for row, word in enumerate(words):
        if word.split() != [word]:
            raise ValueError(f"words has {shown(word)} in row {row}; a word in a file of vectors must not be empty or "
                             "have white space. An underscore is usual in its place")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(f"the vector of {shown(words[int(np.argmin(finite))])} is not finite; it must have no NaN and "
                         "no infinite number")
    name = os.path.basename(os.fsdecode(path))
    with replacing(path) as raw, gzip.GzipFile(name.removesuffix(".gz"), "wb", 6, raw, 0) if name.endswith(".gz") else (
            contextlib.nullcontext(raw)) as file:
        file.write(f"{len(words)} {vectors.shape[1]}\n".encode())
        if name.removesuffix(".gz").endswith(".bin"):
            for word, vector in zip(words, vectors, strict=True):
                file.write(word.encode() + b" " + vector.tobytes() + b"\n")
        else:
            for word, vector in zip(words, vectors, strict=True):
                # The shortest digits that give the same float32 again. Six digits would save a seventh of the file.
                file.write(f"{word} {' '.join(vector.astype('U'))}\n".encode())


def read_vectors(path: FilePath) -> tuple[list[str], np.ndarray]:
    """Return the words and vectors of a file, whose format is found from its content.

    ===========================  ==============================================
    format                       first line
    ===========================  ==============================================
    word2vec's text format       the number of words and the length of a vector
    word2vec's binary format     the same
    GloVe's text format          already a word and its vector
    any of these packed by gzip
    ===========================  ==============================================

    Parameters
    ----------
    path : str or path

    Returns
    -------
    words : list of str
    vectors : array of float32, shape (len(words), dim)

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a line is malformed; the message names the first such line.

    Examples
    --------
    See `write_vectors`. `KeyedVectors(*read_vectors(path))` answers by word.
    """
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with io.BufferedReader(gzip.GzipFile(fileobj=raw) if packed else raw, 1 << 20) as file:
                return _read_vectors(path, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: a damaged gzip file: {error}") from None


def _read_vectors(path, file):
    if file.peek(3).startswith(codecs.BOM_UTF8):
        file.read(3)                # a mark of the byte order is no part of the first word
    head = file.peek(1).partition(b"\n")
    fields = _fields(head[0])
    n = dim = None
    number = 0
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        n, dim = map(int, fields)
        if n < 1 or dim < 1:
            raise ValueError(f"{path}, line 1: the file has {n} words and vectors of length {dim}; both must be at "
                             "least 1")
        file.readline()
        number = 1
        if _is_binary(head[2]):
            return _read_binary(path, file, n, dim)
    words, values = [], array("f")
    for number, line in enumerate(file, number + 1):         # noqa: B020
        fields = _fields(line)
        if not fields and n in (None, len(words)):      # an empty line at the end
            continue
        dim = len(fields) - 1 if dim is None else dim
        try:
            if len(fields) <= dim or dim < 1 or len(words) == n:
                raise ValueError
            if len(fields) > dim + 1 and (n is not None or _is_number(fields[-dim - 1])):
                raise ValueError
            vector = array("f", map(float, fields[-dim:]))
            if not np.isfinite(vector).all():
                raise ValueError
            words.append(b" ".join(fields[:-dim]).decode())     # GloVe's largest file has words with spaces
            values += vector
        except (ValueError, OverflowError):
            what = f"a word and {dim} finite numbers" if dim > 0 else "a word and its vector"
            raise ValueError(f"{path}, line {number}: expected {'' if n is None else f'one of {n} lines with '}{what}; "
                             f"the line is {shown(line.decode(errors='replace').strip())}") from None
    if not words or (n is not None and len(words) != n):
        raise ValueError(f"{path}, line {number + 1}: the file ends after {len(words)} words; it must have "
                         + (f"{n}, as line 1 says" if n else "at least one word and its vector"))
    return words, np.frombuffer(values, np.float32).reshape(len(words), dim)


def _fields(line):
    return [field for field in line.strip(b" \t\r\n").replace(b"\t", b" ").split(b" ") if field]


def _is_number(field):
    try:
        float(field)
    except ValueError:
        return False
    return True


def _is_binary(data):
    """Return whether the bytes after the first line are numbers rather than text."""
    numbers = _fields(data.partition(b"\n")[0])[1:]
    if numbers and all(map(_is_number, numbers)):
        return False
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)         # the last sign may be cut
    except UnicodeDecodeError:
        return True
    return any(sign < " " and sign not in "\t\n\r" for sign in text)


def _read_binary(path, file, n, dim):
    words, values = [], bytearray()
    for row in range(n):
        word = bytearray()
        while (sign := file.read(1)) != b" ":
            if not sign or len(word) > 10_000:
                raise ValueError(f"{path}: the file ends after {row} words; it must have {n}, as line 1 says")
            word += sign
        vector = file.read(4 * dim)
        values += vector
        try:
            words.append(word.lstrip(b"\n").decode())       # some programs end a vector with a line end, some do not
        except UnicodeDecodeError:
            raise ValueError(f"{path}: word {row + 1} is no text in UTF-8: {shown(bytes(word))}") from None
        if len(vector) < 4 * dim or not np.isfinite(np.frombuffer(vector, "<f4")).all():
            raise ValueError(f"{path}: the vector of word {row + 1}, {shown(words[-1])}, is cut or not finite; it must "
                             f"have {dim} numbers of 4 bytes")
    return words, np.frombuffer(values, "<f4").reshape(n, dim)


def word_similarity(words: Sequence[str], vectors: np.ndarray, path: FilePath) -> tuple[float, int, int]:
    """Return Spearman's rank correlation between cosines of word vectors and people's judgement of the same word pairs.

    Parameters
    ----------
    words : list of str
        The most frequent word first. If words differ only in case, the first of these words counts.
    vectors : array of floats, shape (len(words), dim)
    path : str or path
        A file with lines of two words and a number, separated by tabs. A # begins a comment. gensim has two such files:
        `gensim.test.utils.datapath("wordsim353.tsv")` and "simlex999.txt".

    Returns
    -------
    correlation : float
        NaN if fewer than two pairs are known.
    known : int
        Number of pairs whose words both have a vector.
    pairs : int
        Number of all pairs.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a line is malformed; the message names the first such line.
    """
    from scipy.stats import spearmanr

    number = {}
    for i, word in enumerate(words):
        number.setdefault(word.lower(), i)
    said, pairs, total = [], [], 0
    with open(path, encoding="utf-8") as file:
        for line_number, line in enumerate(file, 1):
            if line.startswith("#") or not line.strip():
                continue
            parts = line.split("\t")
            try:
                first, second, score = parts[0], parts[1], float(parts[2])
            except (IndexError, ValueError):
                if total == 0 and len(parts) >= 3:          # a header
                    continue
                raise ValueError(f"{path}, line {line_number}: expected two words and a number between tabs") from None
            total += 1
            if first.lower() in number and second.lower() in number:
                said.append(score)
                pairs.append((number[first.lower()], number[second.lower()]))
    if len(pairs) < 2:
        return float("nan"), len(pairs), total
    first, second = np.array(pairs).T
    cosines = np.einsum("pd,pd->p", unit(vectors[first]), unit(vectors[second]))
    return float(spearmanr(said, cosines).statistic), len(pairs), total


def word_analogies(words: Sequence[str], vectors: np.ndarray, path: FilePath) -> tuple[int, int, int]:
    """Count the analogies a : b = c : d for which the word nearest to b - a + c is d. The words a, b, c are left out.

    Parameters
    ----------
    words, vectors
        As in `word_similarity`.
    path : str or path
        A file with lines of four words. A line `: name` begins a section. gensim has such a file:
        `gensim.test.utils.datapath("questions-words.txt")`.

    Returns
    -------
    correct : int
        Number of analogies with the right answer.
    known : int
        Number of analogies whose four words all have a vector.
    questions : int
        Number of all analogies.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a line is malformed; the message names the first such line.

    References
    ----------
    Mikolov et al. 2013, "Efficient Estimation of Word Representations in Vector Space".
    """
    number = {}
    for i, word in enumerate(words):
        number.setdefault(word.lower(), i)
    asked, total = [], 0
    with open(path, encoding="utf-8") as file:
        for line_number, line in enumerate(file, 1):
            if line.startswith(":") or not line.strip():
                continue
            parts = line.lower().split()
            if len(parts) != 4:
                raise ValueError(f"{path}, line {line_number}: expected four words, or a section's name after a colon")
            total += 1
            if all(word in number for word in parts):
                asked.append([number[word] for word in parts])
    correct, directions = 0, unit(vectors)
    for start in range(0, len(asked), 512):
        a, b, c, answer = np.array(asked[start:start + 512]).T
        given = np.stack([a, b, c], axis=1)
        rows, _ = nearest(directions, directions[b] - directions[a] + directions[c], 1, given)
        correct += int((rows[:, 0] == answer).sum())
    return correct, len(asked), total


class WordVectors:
    """The common part of all word vectors: access by word. `vectors_` has one row for each word of `words_`."""

    words_: list[str]
    _number: dict[str, int]         # from a word to its row

    if TYPE_CHECKING:
        @property
        def vectors_(self) -> Floats: ...

    def _rows(self, rows):
        """Return the vectors of some rows, as a new array."""
        return self.vectors_[rows]

    def _row(self, word):
        if not isinstance(word, str):
            raise TypeError(f"the word is {shown(word)}; it must be a string")
        number = self._numbers_of_words()
        if word not in number:
            close = close_words(word, self.words_)
            raise KeyError(f"{shown(word)} has no vector" + (f"; close words are {listed(close)}" if close else ""))
        return number[word]

    def _numbers_of_words(self):
        if isinstance(self, Model):
            self._check_fitted()
        if not hasattr(self, "_number"):
            raise ValueError("the model has no words, only the numbers of rows; fit(X, words=...) gives the words")
        return self._number

    def __contains__(self, word: str) -> bool:
        return isinstance(word, str) and word in self._numbers_of_words()

    def __getitem__(self, word: str | Sequence[str]) -> np.ndarray:
        """Return the vector of a word, shape (dim,), or the vectors of several words, shape (k, dim).

        Raises
        ------
        KeyError
            If a word has no vector. The message has close words.
        """
        if isinstance(word, str):
            return self._rows([self._row(word)])[0]
        if not isinstance(word, list | tuple | np.ndarray):
            raise TypeError(f"the word is {shown(word)}; it must be a string, or a list of strings")
        return self._rows([self._row(each) for each in word])

    __iter__ = None                 # without this, Python would ask for the words 0, 1, 2, ...

    def most_similar(self, positive: str | Sequence[str] = (), negative: str | Sequence[str] = (),
                     n: int = 10) -> list[tuple[str, float]]:
        """Return the n words whose vectors have the highest cosine with a sum of directions. The nearest comes first.

        The sum has the directions of the positive words, and minus the directions of the negative words. These words
        are left out.

        Parameters
        ----------
        positive, negative : str or list of str
        n : int
            Number of words to return, 1 or more.

        Returns
        -------
        list of pairs (word, cosine)

        Raises
        ------
        KeyError
            If a word has no vector.
        TypeError, ValueError
            If there is no word, or if a parameter is not as described above.

        References
        ----------
        gensim.models.KeyedVectors.most_similar
        """
        positive, negative = ([words] if isinstance(words, str) else list(words) for words in (positive, negative))
        rows = [self._row(word) for word in positive + negative]
        n = at_least("n", n, 1)
        if not rows:
            raise ValueError("positive and negative have no words; there must be at least one")
        vectors, given = self.vectors_, list(set(rows))
        query = np.array([1] * len(positive) + [-1] * len(negative)) @ unit(vectors[rows])
        found, cosines = nearest(vectors, query[None], min(n, len(vectors) - len(given)), [given])
        return [(self.words_[row], float(cosine)) for row, cosine in zip(found[0], cosines[0], strict=True)]

    def similarity(self, a: str, b: str) -> float:
        """Return the cosine of the vectors of two words.

        Raises
        ------
        KeyError
            If a word has no vector.
        """
        first, second = unit(self._rows([self._row(a), self._row(b)]))
        return float(first @ second)


class KeyedVectors(WordVectors):
    """Words and their vectors, such as those of a file.

    Parameters
    ----------
    words : sequence of str
        If a word stands here twice, the first of its vectors counts.
    vectors : array of floats, shape (len(words), dim)

    Attributes
    ----------
    words_ : list of str
    vectors_ : array of floats, shape (len(words), dim)

    Raises
    ------
    TypeError, ValueError
        If there are more words than vectors, or fewer, or if a word is no string.

    Examples
    --------
    >>> import numpy as np
    >>> from sparseopt.models.words import KeyedVectors
    >>> vectors = KeyedVectors(["rain", "snow", "sun"], np.array([[1.0, 0.1], [1.0, 0.2], [-1.0, 1.0]]))
    >>> "rain" in vectors, vectors["rain"]
    (True, array([1. , 0.1]))
    >>> [word for word, cosine in vectors.most_similar("rain", n=2)]
    ['snow', 'sun']

    The vectors of a file: `KeyedVectors(*read_vectors(path))`.
    """

    def __init__(self, words: Sequence[str], vectors: npt.ArrayLike) -> None:
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or len(vectors) != len(words):
            raise ValueError(f"vectors has shape {vectors.shape} for {len(words)} words; there must be a row for each "
                             "word")
        self.words_: list[str] = list(words)
        self.vectors_: Floats = vectors
        self._number = numbered(self.words_)

    def __repr__(self) -> str:
        return f"<KeyedVectors of {len(self.words_):,} words, {self.vectors_.shape[1]} dimensions>"


def numbered(words: Sequence[str]) -> dict[str, int]:
    """Return the row of each word; of the first, if a word stands twice."""
    number = {}
    for row, word in enumerate(words):
        if not isinstance(word, str):
            raise TypeError(f"words has {shown(word)} in row {row}; words must be strings")
        number.setdefault(word, row)
    return number


def new_words(counts: Counter[str], number: Mapping[str, int], min_count: int, grow: bool) -> list[str]:
    """Return the words that occur `min_count` times or more and have no number. Warn about these unless they join."""
    words, found = vocabulary({word: count for word, count in counts.items() if word not in number}, min_count)
    if words and not grow:
        warnings.warn(f"{len(words):,} words of X are left out ({sum(found):,} of all {counts.total():,} places): they "
                      f"occur {min_count} times or more and have no vector, such as {shown(words[0])}; grow=True gives "
                      "them vectors", stacklevel=4)
    return words


def close_words(word: str, words: Sequence[str], n: int = 3) -> list[str]:
    """Return words spelt like a word: in lower case, in form NFC, or with letters exchanged."""
    plain = unicodedata.normalize("NFC", word).lower()
    some = words[:_CLOSE]
    exact = [plain] if plain in some else []
    return list(dict.fromkeys(exact + difflib.get_close_matches(plain, some, n)))[:n]
