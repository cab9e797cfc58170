"""Texts to words, and word vectors to nearest words, files and scores."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from .._files import replacing
from ._base import Model
from ._neighbours import nearest as nearest
from ._neighbours import unit

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SENTENCE_END = re.compile(r"[.!?]+|\n\s*\n")


def tokenize(text: str) -> list[str]:
    """Return the words of a text in lower case. A word is a run of letters, and may have one apostrophe inside.

    Examples
    --------
    >>> from sparseopt.models.words import tokenize
    >>> tokenize("Don't read PEP 8 twice.")
    ["don't", 'read', 'pep', 'twice']
    """
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def vocabulary(tokens: Iterable[str], min_count: int = 5) -> tuple[list[str], list[int]]:
    """Return the words that occur at least `min_count` times, and their counts. The most frequent word comes first.

    Parameters
    ----------
    tokens : iterable of str
        The words of a text.
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


def sentences(text: str) -> list[list[str]]:
    """Return the sentences of a text as lists of words. A sentence ends at one of . ! ? or at an empty line.

    Examples
    --------
    >>> from sparseopt.models.words import sentences
    >>> sentences("It rains. It pours!")
    [['it', 'rains'], ['it', 'pours']]
    """
    parts = (tokenize(part) for part in _SENTENCE_END.split(text))
    return [words for words in parts if words]


def write_vectors(path: str | os.PathLike, words: Sequence[str], vectors: np.ndarray) -> None:
    """Write vectors in word2vec's text format, which gensim's KeyedVectors.load_word2vec_format reads.

    A file at `path` is replaced only after the new file is complete.

    Parameters
    ----------
    path : str or path
    words : sequence of str
    vectors : array of floats, shape (len(words), dim)

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If there are more words than vectors, or fewer.

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
    with replacing(path) as file:
        file.write(f"{len(words)} {vectors.shape[1]}\n".encode())
        for word, vector in zip(words, vectors, strict=True):
            file.write(f"{word} {' '.join(f'{x:.6g}' for x in vector)}\n".encode())


def read_vectors(path: str | os.PathLike) -> tuple[list[str], np.ndarray]:
    """Return the words and vectors of a file in word2vec's text format.

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
    See `write_vectors`.
    """
    words = []
    with open(path, encoding="utf-8") as file:
        head = file.readline().split()
        if len(head) != 2 or not all(part.isdigit() for part in head):
            raise ValueError(f"{path}, line 1: expected the number of words and the length of a vector, as "
                             "word2vec's text format has")
        n, dim = map(int, head)
        vectors = np.empty((n, dim), np.float32)
        for number, line in enumerate(file, 2):
            parts = line.rstrip().rsplit(" ", dim)            # word2vec's own program ends lines with a space
            try:
                if len(parts) != dim + 1 or len(words) == n:
                    raise ValueError
                vectors[len(words)] = [float(part) for part in parts[1:]]
            except ValueError:
                raise ValueError(f"{path}, line {number}: expected one of {n} lines with a word and {dim} "
                                 "numbers") from None
            words.append(parts[0])
    if len(words) != n:
        raise ValueError(f"{path}, line {len(words) + 2}: the file ends after {len(words)} words; it must have "
                         f"{n}, as line 1 says")
    return words, vectors


def word_similarity(words: Sequence[str], vectors: np.ndarray, path: str | os.PathLike) -> tuple[float, int, int]:
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


def word_analogies(words: Sequence[str], vectors: np.ndarray, path: str | os.PathLike) -> tuple[int, int, int]:
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


class WordVectors(Model):
    """The common part of models of words: `vectors_` has one row for each word."""

    def nearest(self, row: int, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Return the words nearest to the word of a row, by cosine. The nearest word comes first.

        Parameters
        ----------
        row : int
            The row of the word in `vectors_`.
        n : int
            Number of words to return; at most the number of all other words.

        Returns
        -------
        rows : array of integers, shape (n,)
        cosines : array of floats, shape (n,)
        """
        vectors = self.vectors_
        rows, cosines = nearest(vectors, vectors[[row]], min(n, len(vectors) - 1), [[row]])
        return rows[0], cosines[0]
