"""Text to words and sentences, in any script.

Python's `re` knows neither marks nor the ends of sentences. The package `regex` knows both. The tokenizer does without
this package: `unicodedata` knows the marks, and the ends are the table `_ENDS`.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator

# Unicode's property Sentence_Terminal, version 14. For lack of this property in Python, the table is written out.
_ENDS = (
    "!.?\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u104a\u104b\u1362\u1367\u1368"
    "\u166e\u1735\u1736\u1803\u1809\u1944\u1945\u1aa8-\u1aab\u1b5a\u1b5b\u1b5e\u1b5f\u1b7d\u1b7e\u1c3b\u1c3c\u1c7e"
    "\u1c7f\u203c\u203d\u2047-\u2049\u2e2e\u2e3c\u2e53\u2e54\u3002\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce"
    "\ua8cf\ua92f\ua9c8\ua9c9\uaa5d-\uaa5f\uaaf0\uaaf1\uabeb\ufe52\ufe56\ufe57\uff01\uff0e\uff1f\uff61")
_ENDS_BEYOND = (
    "\U00010a56\U00010a57\U00010f55-\U00010f59\U00010f86-\U00010f89\U00011047\U00011048\U000110be-\U000110c1"
    "\U00011141-\U00011143\U000111c5\U000111c6\U000111cd\U000111de\U000111df\U00011238\U00011239\U0001123b\U0001123c"
    "\U000112a9\U0001144b\U0001144c\U000115c2\U000115c3\U000115c9-\U000115d7\U00011641\U00011642\U0001173c-\U0001173e"
    "\U00011944\U00011946\U00011a42\U00011a43\U00011a9b\U00011a9c\U00011c41\U00011c42\U00011ef7\U00011ef8\U00016a6e"
    "\U00016a6f\U00016af5\U00016b37\U00016b38\U00016b44\U00016e98\U0001bc9f\U0001da88")
# A class with many signs beyond U+FFFF is several times as slow, so only texts with such signs pay for them.
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
_LETTERS = r"[^\W\d_]+"
# Signs inside a word, as in Unicode's annex 29: apostrophe, Catalan's and Hebrew's points, zero-width non-joiner.
_INSIDE = "['·׳״\u200c]"
_REPLACED = "\ufffd"            # stands for bytes that are no text
# The soft hyphen is no part of a word. Lower case of İ would be an i with a second dot.
_PLAIN = (("\xad", ""), ("İ", "i"), ("’", "'"))


@functools.cache
def _end(beyond):
    return re.compile(rf"[{_ENDS}{_ENDS_BEYOND if beyond else ''}]+|\n\s*\n|\u2029")


@functools.cache
def _patterns():
    """Return patterns of a sign that needs the slow pattern of words, of words with marks, and of words without."""
    marks = "".join(chr(code) for code in (*range(0x20000), *range(0xe0100, 0xe01f0))
                    if unicodedata.category(chr(code)).startswith("M"))
    marks += f"\u200d{_REPLACED}"                               # \u200d, the zero-width joiner, shapes its letter
    low = "".join(mark for mark in marks if mark < "\U00010000")
    letters = f"(?:{_LETTERS}(?:(?![\0-\u02ff])[{marks}]+)?)+"     # looking ahead saves most of the time in the class
    return (re.compile(f"[{low}\U00010000-\U0010ffff]"),
            re.compile(f"{_REPLACED}*{letters}(?:{_INSIDE}{letters})*"),
            re.compile(f"{_LETTERS}(?:{_INSIDE}{_LETTERS})*"))


def tokenize(text: str) -> list[str]:
    """Return the words of a text in lower case. A word is a run of letters with their marks.

    The text is brought into Unicode's form NFC first. Letters of a word may have an apostrophe between them, or a
    zero-width non-joiner. Numbers are no words. A word with U+FFFD is left out: this sign stands for bytes that were no
    text. Lower case keeps the letters of the language, ß and ς among them, where `str.casefold` would replace these.
    Turkish İ becomes i.

    Examples
    --------
    >>> from sparseopt.models.words import tokenize
    >>> tokenize("Don't read PEP 8 twice. माता जी")
    ["don't", 'read', 'pep', 'twice', 'माता', 'जी']
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        for old, new in _PLAIN:
            text = text.replace(old, new)
    text = text.lower()
    special, marked, plain = _patterns()
    if text.isascii() or not special.search(text):
        return plain.findall(text)
    words = marked.findall(text)
    return [word for word in words if _REPLACED not in word] if _REPLACED in text else words


def sentences(text: str) -> list[list[str]]:
    """Return the sentences of a text as lists of words. A sentence ends at one of . ! ? 。 ؟ । or at an empty line.

    All signs with Unicode's property Sentence_Terminal are ends.

    Examples
    --------
    >>> from sparseopt.models.words import sentences
    >>> sentences("It rains. It pours!")
    [['it', 'rains'], ['it', 'pours']]
    """
    return list(iterate_sentences(text))


def iterate_sentences(text: str) -> Iterator[list[str]]:
    """Yield the sentences that `sentences` returns."""
    for part in _end(bool(_BEYOND.search(text))).split(text):
        words = tokenize(part)
        if words:
            yield words


def last_end(text: str) -> int:
    """Return the place after the last end of a sentence, or 0."""
    stop = 0
    for match in _end(bool(_BEYOND.search(text))).finditer(text):
        stop = match.end()
    return stop
