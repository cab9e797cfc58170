"""From a text to words, and from word vectors to neighbours, files and scores: what all models of words share."""

import re
from collections import Counter

import numpy as np

from .._files import replacing
from ._base import Model
from ._neighbours import nearest as nearest
from ._neighbours import unit

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SENTENCE_END = re.compile(r"[.!?]+|\n\s*\n")


def tokenize(text):
    """Return the words of a text, in lower case: runs of letters, with an apostrophe inside allowed.

    Examples
    --------
    >>> from sparseopt.models.words import tokenize
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


def sentences(text):
    """Return the sentences of a text as lists of words: a sentence ends at . ! ? or an empty line.

    Examples
    --------
    >>> from sparseopt.models.words import sentences
    >>> sentences("It rains. It pours!")
    [['it', 'rains'], ['it', 'pours']]
    """
    parts = (tokenize(part) for part in _SENTENCE_END.split(text))
    return [words for words in parts if words]


def write_vectors(path, words, vectors):
    """Write vectors in word2vec's text format, which gensim's KeyedVectors.load_word2vec_format reads.

    The file at `path` is at all times the old one or the new one.

    Parameters
    ----------
    path : str or path
    words : list of str
    vectors : array, shape (len(words), dim)
    """
    with replacing(path) as file:
        file.write(f"{len(words)} {vectors.shape[1]}\n".encode())
        for word, vector in zip(words, vectors, strict=True):
            file.write(f"{word} {' '.join(f'{x:.6g}' for x in vector)}\n".encode())


def read_vectors(path):
    """Return the words and vectors of a file in word2vec's text format.

    Returns
    -------
    words : list of str
    vectors : array of float32, shape (len(words), dim)

    Raises
    ------
    ValueError
        Naming the first line that is not as the format has it.
    """
    words = []
    with open(path, encoding="utf-8") as file:
        head = file.readline().split()
        if len(head) != 2 or not all(part.isdigit() for part in head):
            raise ValueError(f"{path}, line 1: expected the number of words and of dimensions: word2vec's text format")
        n, dim = map(int, head)
        vectors = np.empty((n, dim), np.float32)
        for number, line in enumerate(file, 2):
            parts = line.rstrip().rsplit(" ", dim)            # word2vec's own program ends lines with a space
            try:
                if len(parts) != dim + 1 or len(words) == n:
                    raise ValueError
                vectors[len(words)] = [float(part) for part in parts[1:]]
            except ValueError:
                raise ValueError(f"{path}, line {number}: expected one of {n} lines with a word and {dim} numbers") from None
            words.append(parts[0])
    if len(words) != n:
        raise ValueError(f"{path}, line {len(words) + 2}: ends after {len(words)} of {n} words")
    return words, vectors


def word_similarity(words, vectors, path):
    """Compare cosines with what people say of pairs of words: Spearman's rank correlation.

    Parameters
    ----------
    words : list of str
        The most frequent first: of words that differ only in case the first counts.
    vectors : array, shape (len(words), dim)
    path : str or path
        Lines of two words and a number between tabs; # begins a comment. gensim ships two:
        `gensim.test.utils.datapath("wordsim353.tsv")` and "simlex999.txt".

    Returns
    -------
    correlation : float
        NaN where fewer than two pairs are known.
    known, pairs : int
        Pairs of which both words have a vector, and all.

    Raises
    ------
    ValueError
        Naming the first line that is not as said above.
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
                if total == 0 and len(parts) >= 3:          # a head line
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


def word_analogies(words, vectors, path):
    """Count the analogies a : b = c : ? whose fourth word is the nearest to b - a + c, those three left out.

    Parameters
    ----------
    words, vectors
        As in `word_similarity`.
    path : str or path
        Lines of four words; `: name` begins a section. gensim ships one: `gensim.test.utils.datapath("questions-words.txt")`.

    Returns
    -------
    correct, known, questions : int
        Answered rightly; of which all four words have a vector; all.

    Raises
    ------
    ValueError
        Naming the first line that is not as said above.

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
    """What models of words have in common: `vectors_`, one row a word."""

    def nearest(self, row, n=10):
        """Return the words nearest to that of a row, by cosine: (rows, cosines), the nearest first.

        Parameters
        ----------
        row : int
        n : int
        """
        vectors = self.vectors_
        rows, cosines = nearest(vectors, vectors[[row]], min(n, len(vectors) - 1), [[row]])
        return rows[0], cosines[0]
