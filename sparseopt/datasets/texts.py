"""Texts to train word vectors on."""

import ast
import codecs
import gzip
import io
import os
import re
import sysconfig
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from .._checks import one_of
from .._files import regular
from .._text import shown
from .._tokens import iterate_sentences, last_end
from .._typing import FilePath

_FRAME = re.compile(r"\*\*\* ?(START|END) OF TH[EI]S? PROJECT GUTENBERG[^\n]*")
_NOT_DOCUMENTATION = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "pydoc_data"}
_BLOCK = 1 << 20                    # characters that are read at a time; no longer text without an end is kept together
_LONGEST_FRAME = 1000
_LOOKED_AT = 100_000
_NO_TEXT = re.compile("[\udc80-\udcff]")           # how "surrogateescape" marks bytes that are no text.


def python_documentation() -> list[str]:
    """Return the documentation that every Python carries: the language reference and the library's docstrings.

    Returns
    -------
    list of str
        One text for each topic of the reference (`pydoc_data.topics`), and one for each module of the standard library.
        The text of a module is all of its docstrings, read from the source without importing the module. A module
        without installed source has no text.

    Examples
    --------
    >>> from sparseopt import datasets
    >>> texts = datasets.python_documentation()
    >>> any("with statement" in text for text in texts)
    True
    """
    from pydoc_data.topics import topics

    texts = [topics[name] for name in sorted(topics)]
    library = Path(sysconfig.get_path("stdlib"))
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sorted(library.rglob("*.py")):
        if _NOT_DOCUMENTATION.intersection(path.relative_to(library).parts[:-1]):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):      # a template, or a file for another version of Python
            continue
        nodes = (node for node in ast.walk(tree) if isinstance(node, documented))
        docstrings = [text for text in map(ast.get_docstring, nodes) if text]
        if docstrings:
            texts.append("\n\n".join(docstrings))
    return texts


def read_texts(paths: FilePath | Iterable[FilePath], encoding: str = "utf-8") -> list[str]:
    """Return the contents of text files, without the licence that Project Gutenberg puts around its books.

    Parameters
    ----------
    paths : str, path, or iterable of these
        Text files, also packed by gzip.
    encoding : str
        A name that Python knows, such as "latin-1". Bytes that are no text in this encoding become U+FFFD. A warning
        says how many bytes.

    Returns
    -------
    list of str

    Raises
    ------
    LookupError
        If Python knows no such encoding.
    OSError
        If a file cannot be read.
    ValueError
        If a file is empty or has a null byte.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparseopt import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "book.txt")
    ...     with open(path, "w") as file:
    ...         _ = file.write("Call me Ishmael.")
    ...     datasets.read_texts([path])
    ['Call me Ishmael.']
    """
    encoding = _known(encoding)
    return ["".join(_parts(path, encoding)) for path in _several(paths)]


class LineSentences:
    """The sentences of text files, read anew from disk in each pass. The files may be larger than memory.

    The models of words read their sentences more than once. A generator is empty after one pass; this class is not.

    Parameters
    ----------
    paths : str, path, or iterable of these
        Regular files, also packed by gzip. A folder stands for its files, in the order of their names, without
        hidden ones. Project Gutenberg's licence is left out, as in `read_texts`.
    tokens : "words" or "whitespace"
        How a text becomes words and sentences.

        ============  ==================================  ==============================
        tokens        words                               a sentence ends
        ============  ==================================  ==============================
        "words"       as in `models.words.tokenize`       as in `models.words.sentences`
        "whitespace"  all that white space separates,     with the line
                      unchanged: numbers, ids, all signs
        ============  ==================================  ==============================

        A million characters without an end are cut at white space.
    encoding : str
        As in `read_texts`. A word with bytes that are no text is left out.

    Raises
    ------
    LookupError
        If Python knows no such encoding.
    OSError
        If a file is missing, or is a pipe: a pipe can be read only once.
    ValueError
        If tokens is not one of the above, or there is no file. In a pass: if a file is empty or has a null byte.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparseopt import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "walks.txt")
    ...     with open(path, "w") as file:
    ...         _ = file.write("item_3 item_17\\nitem_17 item_5\\n")
    ...     sentences = datasets.LineSentences(path, tokens="whitespace")
    ...     list(sentences), list(sentences) == list(sentences)
    ([['item_3', 'item_17'], ['item_17', 'item_5']], True)
    """

    def __init__(self, paths: FilePath | Iterable[FilePath],
                 tokens: Literal["words", "whitespace"] = "words", encoding: str = "utf-8") -> None:
        self.tokens: Literal["words", "whitespace"] = one_of("tokens", tokens, "words", "whitespace")
        self.encoding: str = _known(encoding)
        self.paths: list[Path] = []
        for path in _several(paths):
            inside = [path]
            if path.is_dir():
                inside = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
            self.paths += [regular(file)[0] for file in inside]
        if not self.paths:
            raise ValueError(f"paths is {shown(paths)}, without any file; there must be at least one")

    def __repr__(self) -> str:
        return f"LineSentences({[str(path) for path in self.paths]}, {self.tokens!r}, {self.encoding!r})"

    def __iter__(self) -> Iterator[list[str]]:
        for path in self.paths:
            if self.tokens == "words":
                for i, text in enumerate(_whole(_parts(path, self.encoding), last_end)):
                    if i == 0:
                        _warn_of_ids(path, text)
                    yield from iterate_sentences(text)
            else:
                for text in _whole(_parts(path, self.encoding), lambda text: text.rfind("\n") + 1):
                    lines = filter(None, map(str.split, text.split("\n")))
                    yield from lines if "\ufffd" not in text else _without_lost(lines)


def _warn_of_ids(path, text):
    parts = text[:_LOOKED_AT].split()
    ids = [part for part in parts if any(map(str.isdigit, part))]
    if 2 * len(ids) > len(parts):
        warnings.warn(f"{path}: {len(ids):,} of the first {len(parts):,} parts between white space have digits, such "
                      f"as {shown(ids[0])}. Numbers are no words, and end a word; tokens='whitespace' (--tokens "
                      "whitespace) takes these parts as words", stacklevel=3)


def _without_lost(lines):
    for words in lines:
        if words := [word for word in words if "\ufffd" not in word]:
            yield words


def _several(paths):
    return map(Path, map(os.fsdecode, [paths] if isinstance(paths, str | bytes | os.PathLike) else paths))


def _known(encoding):
    name = codecs.lookup(encoding).name
    return "utf-8-sig" if name == "utf-8" else name         # a mark of the byte order is no part of the text


def _whole(parts, end):
    """Join the parts of a text and cut the text anew, at ends of sentences. `end` returns the place of the last one."""
    kept = ""
    for part in parts:
        kept += part
        stop = end(kept)
        if not stop and len(kept) >= _BLOCK:
            stop = max(kept.rfind(sign) for sign in " \n\t") + 1 or len(kept)
        if stop:
            yield kept[:stop]
            kept = kept[stop:]
    if kept:
        yield kept


def _parts(path, encoding):
    """Yield the text of a file in parts, without Gutenberg's licence. Raise ValueError if there is no text."""
    lost, line, empty, first, outside, kept = 0, 1, True, True, False, ""
    for more in _read(path, encoding):
        part = kept + more
        rest = part[part.rfind("\n") + 1:] if more else ""
        kept = rest if len(rest) < _LONGEST_FRAME else ""           # a frame must not be cut
        part = part[:len(part) - len(kept)]
        if "\0" in part:
            line += part.count("\n", 0, part.index("\0"))
            raise ValueError(f"{path}, line {line}: it has a null byte; a text file has none, except in an encoding "
                             "such as utf-16 (encoding, --encoding)")
        line += part.count("\n")
        if not part.isascii():
            part, found = _NO_TEXT.subn("\ufffd", part)
            lost += found
        texts, position = [], 0
        for frame in _FRAME.finditer(part):
            if not outside and (frame[1] == "END" or not first):    # before the first start, there is the licence
                texts.append(part[position:frame.start()])
            outside, position = frame[1] == "END", frame.end()
        if not outside:
            texts.append(part[position:])
        first = False
        for text in texts:
            empty = empty and not text.strip()
            yield text
    if empty:
        raise ValueError(f"{path}: the file has no text; it must have at least one word")
    if lost:
        warnings.warn(f"{path}: {lost:,} bytes are no text in {encoding.removesuffix('-sig')}; words with such bytes "
                      "are left out. encoding (--encoding) names another encoding, such as latin-1", stacklevel=2)


def _read(path, encoding):
    """Yield the decoded file in blocks, the last of which is empty. Bytes that are no text are lone surrogates."""
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with io.TextIOWrapper(gzip.open(raw) if packed else raw, encoding, "surrogateescape") as file:
            block = " "
            while block:
                try:
                    block = file.read(_BLOCK)
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    raise ValueError(f"{path}: a damaged gzip file: {error}") from None
                except UnicodeError as error:
                    raise ValueError(f"{path}: no text in {encoding} ({error}); encoding (--encoding) names "
                                     "another encoding") from None
                yield block
