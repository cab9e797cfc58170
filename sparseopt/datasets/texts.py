"""Texts to train word vectors on."""

import ast
import re
import sysconfig
from pathlib import Path

_FRAME = re.compile(r"\*\*\* ?(START|END) OF TH[EI]S? PROJECT GUTENBERG[^\n]*")


def python_documentation():
    """Return the documentation that every Python carries: the language reference and the docstrings of its library.

    Returns
    -------
    list of str
        One text a topic of the reference (`pydoc_data.topics`), and one a module of the standard library: all docstrings of
        it, read from the source without importing it. Modules whose source is not installed are left out.

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
    for path in sorted(library.rglob("*.py")):
        folders = path.relative_to(library).parts[:-1]
        if {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "pydoc_data"}.intersection(folders):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):      # a template, or a file for another version
            continue
        nodes = (n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef))
        docstrings = [text for text in map(ast.get_docstring, nodes) if text]
        if docstrings:
            texts.append("\n\n".join(docstrings))
    return texts


def read_texts(paths):
    """Return the contents of text files, without the frame that Project Gutenberg puts around its books.

    Parameters
    ----------
    paths : sequence of str or path
        UTF-8 text; bytes that are none become U+FFFD.

    Returns
    -------
    list of str

    Raises
    ------
    OSError
        If a file cannot be read.
    ValueError
        If a file is empty, or holds a byte of 0, as text never does.
    """
    texts = []
    for path in paths:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise ValueError(f"{path}, line {line}: a byte of 0; it must be plain text")
        marks = {match[1]: match for match in _FRAME.finditer(text)}
        start = marks["START"].end() if "START" in marks else 0
        text = text[start:marks["END"].start() if "END" in marks else None]
        if not text.strip():
            raise ValueError(f"{path} is empty; it must hold text")
        texts.append(text)
    return texts
