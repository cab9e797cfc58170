"""Texts to train word vectors on."""

import ast
import os
import re
import sysconfig
from collections.abc import Iterable
from pathlib import Path

_FRAME = re.compile(r"\*\*\* ?(START|END) OF TH[EI]S? PROJECT GUTENBERG[^\n]*")
_NOT_DOCUMENTATION = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "pydoc_data"}


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


def read_texts(paths: Iterable[str | os.PathLike]) -> list[str]:
    """Return the contents of text files, without the licence that Project Gutenberg puts around its books.

    Parameters
    ----------
    paths : iterable of str or path
        Files of UTF-8 text. Bytes that are not UTF-8 become U+FFFD.

    Returns
    -------
    list of str

    Raises
    ------
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
    texts = []
    for path in paths:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise ValueError(f"{path}, line {line}: it has a null byte; a text file has none")
        marks = {match[1]: match for match in _FRAME.finditer(text)}
        start = marks["START"].end() if "START" in marks else 0
        text = text[start:marks["END"].start() if "END" in marks else None]
        if not text.strip():
            raise ValueError(f"{path}: the file has no text; it must have at least one word")
        texts.append(text)
    return texts
