"""Text for error messages and the command line: any value on one line, without control characters, and short."""

import re


def escaped(text, most=None):
    r"""Return a text that is safe for a terminal: at most `most` characters, with unprintable ones as Python's escapes.

    Examples
    --------
    >>> from sparseopt._text import escaped
    >>> print(escaped("Amélie\x1b[2J\n"))
    Amélie\x1b[2J\n
    """
    if most is not None:
        text = text[:most + 1]
    if not text.isprintable():
        text = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    return text if most is None or len(text) <= most else text[:most - 3] + "..."


def shown(value, most=80):
    r"""Return the repr of a value for an error message: on one line, escaped, and at most `most` characters long.

    Examples
    --------
    >>> from sparseopt._text import shown
    >>> print(shown("\x1b[2J"), shown([1, 2]), shown("a" * 1_000_000, most=12))
    '\x1b[2J' [1, 2] 'aaaaaaaa...
    """
    if isinstance(value, str | bytes):
        value = value[:most]    # the quotes make a cut value longer than `most`, so `escaped` marks the cut
    try:
        text = repr(value)
    except Exception:           # Python refuses to print very long integers, and a class may have a broken __repr__
        text = f"<a {type(value).__name__} without a repr>"
    return escaped(re.sub(r"\s*\n\s*", " ", text), most)


def listed(values, most=200, show=shown):
    """Return `show(value)` of each value, joined by commas. A text longer than `most` is cut, and the number follows.

    Examples
    --------
    >>> from sparseopt._text import listed
    >>> listed(["user", "item"]), listed(range(1000), most=12)
    ("'user', 'item'", '0, 1, 2, 3, ... (1000 in all)')
    """
    said, length = [], 0
    for value in values:
        said.append(show(value))
        length += len(said[-1]) + 2
        if length > most + 2 and len(said) > 1:
            return f"{', '.join(said[:-1])}, ... ({len(values)} in all)"
    return ", ".join(said)
