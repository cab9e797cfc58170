"""Readers of click logs: from the rows of a file to hashed features and clicks."""

import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .. import _checks
from .._text import escaped, listed, shown
from .._typing import FilePath, Self
from . import _tables
from ._click_files import FORMATS, LARGEST, Unfit, found_format, libsvm_blocks, open_table
from ._tables import named, position

_TRUE, _FALSE = ("true", "t", "yes", "y"), ("false", "f", "no", "n")
_MISSING = b"", b"na", b"nan", b"null", b"none", b"\\n"
_MOST_NAMES = 2**20
_LOOKED_AT = 10_000             # rows from which columns of numbers are found.
_DISTINCT = 20                  # `numbers="auto"` takes columns of more different numbers.
_FEW = 100                      # other files are compared in columns of at most so many values.
_IDS = 100                      # from so many rows on, a column whose values are all different is said.


class _Wrong(ValueError):
    """A value of a block is wrong. `args` are the row of the block and the text of the error."""


class ClickReader:
    r"""Reads click logs, chunk by chunk, into hashed features. All files are read as the first file.

    A value becomes the feature `crc32("column=value") % n_features`. Here `column` is the name of the column, or its
    position in a file without names. A value has the same feature in every file, process and version. An empty value
    has no feature.

    A column of `numbers` has no feature in a row whose number is missing: empty, NA, NaN, null, None or \\N. Else the
    column becomes:

    ==================  ============================================================================================
    numbers_as          feature and value
    ==================  ============================================================================================
    "standardize"       the one feature `crc32("column") % n_features`, with the value (x - mean) / deviation
    "log"               `crc32("column=log k") % n_features` for :math:`k = \lfloor (\ln |x|)^2 \rfloor` if
                        :math:`|x| > 2`, with `-log` for negative x; else `crc32("column=k")` for
                        :math:`k = \lfloor x \rfloor`
    ==================  ============================================================================================

    The mean and the deviation are those of all rows read for training so far, up to the end of the chunk. They stand
    still while other files are read.

    Parameters
    ----------
    label : None, str or int
        The column of clicks, by name or by position from 0. None stands for the column of a known name: the first of
        `LABELS` that a column has. If no column has a known name, None stands for the first column. The column has two
        different values. Two numbers are allowed, of which the larger is a click. Allowed as well are true and false,
        t and f, yes and no, y and n, in small or capital letters.
    numbers : sequence of str or int, or "auto"
        Columns of numbers. A text such as "1-13" stands for these positions. "auto" looks at the first 10,000 rows. A
        column is taken if all of its values are numbers, more than 20 of these differ, and one has a fraction. So whole
        numbers are values like all others unless you name their columns: most are the numbers of things.
    numbers_as : "standardize" or "log"
        Says what numbers become, as in the table above. "log" suits counts.
    skip : sequence of str or int
        Columns to leave out, such as the number of the row.
    n_features : int
        Number of columns of X.
    chunk : int
        Number of rows in a chunk.
    file_format : None, "csv", "jsonl", "libsvm" or "parquet"
        "csv" is text with any separator. None goes by the end of the file's name, and else by the first lines. The
        parameters label, numbers, skip, sep, header and names are for tables; `first` is for libsvm.
    sep : None or str
        The separator of the columns. None stands for the separator that divides the first lines best.
    header : None or bool
        Whether the first line has names. None finds out. If no column has a name, columns go by their positions.
    encoding : str
        The encoding of the text.
    first : 0 or 1
        Number of the first column in libsvm's format.
    names : bool
        Whether to keep the names of features that are read for training: see `names_`.

    Attributes
    ----------
    LABELS : tuple of str
        Known names of the column of clicks, in small letters. An earlier name is preferred.
    label_ : None or str
        The column of clicks.
    classes_ : tuple
        The values of the label that stand for no click and for a click.
    columns_ : list of str
        The columns of features.
    numbers_ : list of str
        The columns of numbers.
    statistics_ : dict
        For each column of numbers: how many numbers there were, their mean, and the sum of squared differences from it.
    names_ : dict
        With `names`, from the name of each feature to its number, for the first 2²⁰ names.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparseopt import datasets
    >>> from sparseopt.models import LogisticRegression
    >>> reader = datasets.ClickReader(numbers=["price"], n_features=2**10)
    >>> model = LogisticRegression(shuffle=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "clicks.csv")
    ...     with open(path, "w") as file:
    ...         print("site,click,price", "a.com,1,20", "b.com,0,40", "a.com,0,", sep="\n", file=file)
    ...     for X, y in reader.read(path, training=True):
    ...         model = model.partial_fit(X, y, classes=[False, True])
    >>> X.shape, X.data, y
    ((3, 1024), array([ 1., -1.,  1.,  1.,  1.], dtype=float32), array([ True, False, False]))
    >>> print(reader.description)
    commas, header; label: click (1 is a click, 0 is none); numbers: price (standardized); 1 column of values

    References
    ----------
    Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning". Chan et al. 1979, "Updating Formulae
    and a Pairwise Algorithm for Computing Sample Variances". The logarithm is that of the winners of Criteo's contest.
    """

    LABELS = ("click", "clicked", "is_click", "is_clicked", "clk", "label", "target", "is_target", "y", "converted",
              "conversion", "is_converted", "purchase", "purchased", "installed", "class", "outcome", "response")

    def __init__(self, label: str | int | None = None, numbers: Sequence[str | int] | Literal["auto"] = (),
                 numbers_as: Literal["standardize", "log"] = "standardize", skip: Sequence[str | int] = (),
                 n_features: int = 2**20, chunk: int = 100_000,
                 file_format: Literal["csv", "jsonl", "libsvm", "parquet"] | None = None, sep: str | None = None,
                 header: bool | None = None, encoding: str = "utf-8", first: Literal[0, 1] = 1,
                 names: bool = False) -> None:
        for name, value in (("numbers", numbers), ("skip", skip)):
            if isinstance(value, str) and not (name == "numbers" and value == "auto"):
                raise ValueError(f"{name} is the string {shown(value)}; it must be a list of columns"
                                 + (" or 'auto'" if name == "numbers" else ""))
        if label is not None and (isinstance(label, bool) or not isinstance(label, str | Integral)):
            raise TypeError(f"label is {shown(label)}; it must be a name, a position or None")
        if not 1 <= _checks.at_least("n_features", n_features, 1) < 2**31:
            raise ValueError(f"n_features is {shown(n_features)}; it must be from 1 to 2**31 - 1")
        if file_format is not None:
            _checks.one_of("file_format", file_format, *FORMATS)
        if isinstance(first, bool) or first not in (0, 1):
            raise ValueError(f"first is {shown(first)}; it must be 0 or 1")
        _tables.check(sep, header, encoding)
        self.label: str | int | None = _plain(label)
        self.numbers: list[str | int] | str = numbers if isinstance(numbers, str) else list(map(_plain, numbers))
        self.numbers_as: Literal["standardize", "log"] = _checks.one_of("numbers_as", numbers_as, "standardize", "log")
        self.skip: list[str | int] = list(map(_plain, skip))
        self.n_features: int = int(n_features)
        self.chunk: int = _checks.at_least("chunk", chunk, 1)
        self.file_format = file_format
        self.sep = sep
        self.header = header
        self.encoding = encoding
        self.first: int = int(first)
        self.names: bool = _checks.flag("names", names)
        self._layout = None
        self.classes_: Any = None
        self.statistics_: dict[str, list[float]] = {}
        self.names_: dict[str, int] = {}

    def find(self, *paths: FilePath) -> Self:
        """Find out how the first file is built, and the two values of the label. `read` does this if need be.

        Parameters
        ----------
        *paths : str or path
            Files of one log. Rows are read until the label has had two values, also in the later files.

        Returns
        -------
        self

        Raises
        ------
        OSError
            If a file cannot be read.
        ImportError
            If a Parquet file is read and pyarrow is not installed.
        ValueError
            If a file is not as expected, or the label does not have two values.
        """
        if self._layout is not None:
            return self
        before = dict(self.__dict__)
        try:
            if self._format(paths[0]) == "libsvm":
                self._find_libsvm(paths)
            else:
                self._find_table(paths)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    @overload
    def read(self, path: FilePath, *, labels: Literal[True] = True, training: bool = False,
             start: int = 0) -> Iterator[tuple[sp.csr_array, npt.NDArray[np.bool_]]]: ...

    @overload
    def read(self, path: FilePath, *, labels: bool, training: bool = False,
             start: int = 0) -> Iterator[tuple[sp.csr_array, npt.NDArray[np.bool_] | None]]: ...

    def read(self, path: FilePath, *, labels: bool = True, training: bool = False,
             start: int = 0) -> Iterator[tuple[sp.csr_array, npt.NDArray[np.bool_] | None]]:
        """Yield the rows of a file, chunk by chunk, for `partial_fit`: (X, y).

        Parameters
        ----------
        path : str or path
            Text may be packed by gzip. The first file that is read says how all files are built. A later file has the
            same columns, by name in any order, or by position if there are no names.
        labels : bool
            False for files whose clicks are not known. y is None then. A column of clicks is left out if there is one.
        training : bool
            True brings mean and deviation of `numbers`, and `names_`, up to date with this file.
        start : int
            Number of rows of the file to leave out.

        Yields
        ------
        X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
            Two values of a row that collide are two entries of the same column.
        y : array of bool, shape (chunk,), or None
            True for a click.

        Raises
        ------
        OSError
            If the file cannot be read.
        ImportError
            If a Parquet file is read and pyarrow is not installed.
        ValueError
            If the file is not as expected; the message names the line. After an error, the statistics and names are
            those of the chunks before.
        """
        for name, value in (("labels", labels), ("training", training)):
            _checks.flag(name, value)
        start = _checks.at_least("start", start, 0)
        if self._layout is None and not labels:
            raise ValueError("labels is False, and this reader has read no file; a file with labels must come first")
        if training and not labels:
            raise ValueError("labels is False and training is True; training needs labels")
        return self._read(path, labels, training, start)

    def check(self, path: FilePath, *, labels: bool = True) -> list[str]:
        """Raise an error if a file is not built as the first file. Return what is unlike in the first 10,000 rows.

        A column of few values is unlike if none of its values were in the first file: 3.0 is not 3, for instance.

        Parameters
        ----------
        path, labels
            As in `read`.

        Returns
        -------
        list of str
            A sentence for each column that is unlike.

        Raises
        ------
        OSError, ImportError, ValueError
            As in `read`.
        """
        self._found("label")
        if self._check_format(path) == "libsvm":
            return []
        blocks, to_file = self._open(path, labels)
        head = _first(blocks, _LOOKED_AT)
        unlike = []
        for name, values in self._found("values").items():
            there = _texts(head.columns[to_file[name]][0]) if head and to_file.get(name) in head.columns else []
            if there and not set(there) & set(values):
                unlike.append(f"{path}: none of the values of column {escaped(name, 80)} was in the first rows of the "
                              f"training: {listed(there, most=60)}; there {listed(values, most=60)}")
        return unlike

    @property
    def is_libsvm(self) -> bool:
        """Whether the files have libsvm's format."""
        return self._found("format") == "libsvm"

    @property
    def label_(self) -> str | None:
        return self._found("label")

    @property
    def columns_(self) -> list[str]:
        return self._found("columns")

    @property
    def numbers_(self) -> list[str]:
        return self._found("numbers")

    @property
    def description(self) -> str:
        """How the first file is built, and what each column was taken for, on one line."""
        return self._found("said")

    @property
    def advice(self) -> list[str]:
        """Says which columns look like numbers, or like numbers of the rows, and are read as values."""
        return self._found("advice")

    def feature(self, name: str) -> int:
        """Return the number of the feature of this name: "column=value", or "column" for a standardized number."""
        return zlib.crc32(name.encode(errors="surrogatepass")) % self.n_features

    def state(self) -> dict[str, Any]:
        """Return all that this reader has found out, for `model.save(path, **reader.state())`."""
        self._found("label")
        reading = {name: getattr(self, name) for name in _OPTIONS}
        reading |= {"layout": self._layout, "classes": list(self.classes_), "statistics": self.statistics_}
        return {"reading": reading, "feature_names": list(self.names_)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], **options: Any) -> Self:
        """Return the reader that a checkpoint has: `ClickReader.from_state(model.optimizer_.metadata)`.

        Parameters
        ----------
        state : mapping
            The result of `state`, perhaps among more.
        **options
            The file_format, sep, header, encoding or chunk of the next file, where it differs.

        Raises
        ------
        ValueError
            If the mapping is not the state of a reader.
        """
        allowed = "file_format", "sep", "header", "encoding", "chunk"
        for name in options:
            if name not in allowed:
                raise TypeError(f"{name} is not allowed here; the options are {', '.join(allowed)}")
        try:
            reading = state["reading"]
            # How the next file is packed into lines is found out anew.
            kept = {name: reading[name] for name in _OPTIONS if name not in ("file_format", "sep", "header")}
            reader = cls(**{**kept, **options})
            reader._layout = dict(reading["layout"])
            reader.classes_ = tuple(reading["classes"])
            reader.statistics_ = {name: list(values) for name, values in reading["statistics"].items()}
            reader.names_ = {name: reader.feature(name) for name in state["feature_names"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the state is not that of a ClickReader: {shown(error)}") from error
        return reader

    def _found(self, what):
        if self._layout is None:
            raise AttributeError("this reader has read no file yet; call find or read first")
        return self._layout[what]

    def _find_libsvm(self, paths):
        values = {}
        for path in paths:
            for _, numbers, _ in libsvm_blocks(path, self.n_features, self.chunk, self.first):
                found = map(str, np.unique(numbers).tolist())
                _add_classes(values, [number.removesuffix(".0").encode() for number in found])
                if len(values) > 1:
                    break
            if len(values) > 1:
                break
        self.classes_ = _two_classes(values, f"{listed(paths, show=str)}: the label")
        said = f"libsvm's format; {_said_classes(self.classes_)}"
        self._layout = {"format": "libsvm", "label": None, "columns": [], "numbers": [], "names": [], "header": False,
                        "said": said, "advice": [], "values": {}}

    def _find_table(self, paths):
        path = paths[0]
        table = self._table(path)
        names = table.names
        label, taken = self._find_label(path, table)
        skip = self._columns(path, names, self.skip)
        numbers = [] if self.numbers == "auto" else self._columns(path, names, self.numbers)
        for what, some in (("numbers", numbers), ("skip", skip)):
            if label in some:
                raise ValueError(f"{path}: {what} has {shown(label)}, which is the label")
        if both := set(numbers) & set(skip):
            raise ValueError(f"{path}: numbers and skip both have {listed(sorted(both))}")
        head = _first(lambda *how: table.blocks(lambda name: name not in skip, *how), _LOOKED_AT)
        if head is None:
            raise ValueError(f"{path}: there are no rows; a log must have at least one")
        names += [name for name in head.columns if name not in names]
        columns = [name for name in names if name != label and name not in skip]
        looks = [name for name in columns if name in head.columns and _looks_like_numbers(head.columns[name][0])]
        if self.numbers == "auto":
            numbers = looks
        what = f"{path}: the label, column {escaped(label, 80)}{taken},"
        more = "" if table.header else "; header=True (--header) says that the first line has names"
        self.classes_ = self._find_classes(paths, label, head, what, more)
        if table.header and label.strip().lower() in self.classes_:
            raise ValueError(f"{path}: the first line, {shown(table.first, 160)}, was taken for names, and has a label "
                             "like the lines below; header (--header or --no-header) must say what it is")
        rest = len(columns) - len(numbers)
        as_ = "standardized" if self.numbers_as == "standardize" else "in steps of their logarithm"
        said = [table.said, f"label: {escaped(label, 80)}{taken} ({_said_classes(self.classes_)})",
                *([f"numbers: {named(numbers)} ({as_})"] if numbers else []),
                f"{rest} column{'s' * (rest != 1)} of values", *([f"left out: {named(skip)}"] if skip else [])]
        called = {name: escaped(name, 80) if name.strip() else str(place) for place, name in enumerate(names)}
        advice = [f"column {called[name]} looks like numbers, and is read as texts (--numbers {called[name]} or auto)"
                  for name in looks if name not in numbers]
        values = {name: _texts(head.columns[name][0]) for name in columns if name not in numbers and
                  name in head.columns}
        advice += [f"column {called[name]} has another value in each row, which says nothing about other rows "
                   f"(--skip {called[name]})" for name, texts in values.items() if name not in looks and
                   len(texts) == head.size >= _IDS]
        self._layout = {"format": "table", "label": label, "columns": columns, "numbers": numbers, "skip": skip,
                        "names": names, "header": table.header, "said": "; ".join(said), "advice": advice,
                        "values": {name: texts for name, texts in values.items() if 0 < len(texts) <= _FEW}}

    def _find_label(self, path, table):
        """Return the name of the label, and why this column was taken, as part of a message."""
        if self.label is not None:
            return table.names[position(path, table.names, self.label)], ""
        lower = [name.strip().lower() for name in table.names]
        for name in self.LABELS:
            if name in lower:
                return table.names[lower.index(name)], ""
        why = ", since no column is named click, label or the like" if table.header else ""
        return table.names[0], f", the first column{why}"

    def _table(self, path):
        known = {*self.LABELS, str(self.label), *self.skip, *([] if self.numbers == "auto" else self.numbers)}
        if self._layout is not None and self._layout["header"]:
            known.update(self._layout["names"])
        return open_table(path, self._format(path), self.sep, self.header, self.encoding,
                          lambda name: name in known or name.strip().lower() in self.LABELS)

    def _columns(self, path, names, columns):
        found = []
        for column in columns:
            if isinstance(column, str) and column not in names and (ends := re.fullmatch(r"(\d+)-(\d+)", column)):
                low, high = (position(path, names, end) for end in ends.groups())
                found += names[low:high + 1]
            else:
                found.append(names[position(path, names, column)])
        return list(dict.fromkeys(found))

    def _find_classes(self, paths, label, head, what, more):
        values = {}
        _add_classes(values, head.columns.get(label, ([], None))[0])
        if len(values) > 2 or (head.size < _LOOKED_AT and len(paths) == 1):
            return _two_classes(values, what, more)
        for path in paths:                  # the label of a log sorted by it begins with one value
            if len(values) > 1:
                break
            table = self._table(path)
            for fast in (True, False):
                try:
                    for block in table.blocks(lambda name: name == label, self.chunk, 0, fast):
                        _add_classes(values, block.columns.get(label, ([], None))[0])
                        if len(values) > 1:
                            break
                except Unfit:
                    continue
                break
        return _two_classes(values, what, more)

    def _read(self, path, labels, training, start):
        self.find(path)
        if self._check_format(path) == "libsvm":
            for X, numbers, lines in libsvm_blocks(path, self.n_features, self.chunk, self.first, start):
                yield X, self._clicks_of_libsvm(path, numbers, lines) if labels else None
            return
        blocks, to_file = self._open(path, labels)
        fast = True
        while True:
            try:
                for block in blocks(self.chunk, start, fast):
                    try:
                        X, y, statistics, names = self._features(block, labels, training, to_file)
                    except _Wrong as error:
                        if block.place is None:
                            raise Unfit from None           # the plain reader knows the line
                        row, text = error.args
                        raise ValueError(f"{path}, {block.place(row)}: {text}") from None
                    start += block.size
                    self.statistics_, self.names_ = statistics, names
                    yield X, y
                return
            except Unfit:
                fast = False

    def _check_format(self, path):
        """Return the format of a later file, or raise if the first one was of the other kind."""
        found = self._format(path)
        libsvm = found == "libsvm"
        if libsvm != self.is_libsvm:
            raise ValueError(f"{path}: the file {'has' if libsvm else 'does not have'} libsvm's format, and the first "
                             f"file {'was a table' if libsvm else 'has'}; file_format (--file-format) says what it is")
        return found

    def _format(self, path):
        """Return the format of a file, or raise if options are given that are not for this format."""
        found = self.file_format or found_format(path)
        defaults = {"sep": None, "header": None} if found != "csv" else {}
        if found in ("libsvm", "parquet"):
            defaults["encoding"] = "utf-8"
        if found == "libsvm":
            defaults |= {"label": None, "numbers": [], "skip": [], "names": False}
        else:
            defaults["first"] = 1
        for name, default in defaults.items():
            if getattr(self, name) != default:
                raise ValueError(f"{path}: {name} is {shown(getattr(self, name))}, and is not for files of the format "
                                 f"{found}; file_format (--file-format) says what the file is")
        return found

    def _clicks_of_libsvm(self, path, numbers, lines):
        known = (numbers == self.classes_[0]) | (numbers == self.classes_[1])
        if not known.all():
            row = int(known.argmin())
            raise ValueError(f"{path}, line {lines[row]}: the label is {numbers[row]:g}; it must be "
                             f"{_said(self.classes_[0])} or {_said(self.classes_[1])}")
        return numbers == self.classes_[1]

    def _open(self, path, labels):
        """Open a table that must fit the first one. Return its blocks, and its names of our columns."""
        ours = self._layout
        table = self._table(path)
        by_position = not (ours["header"] and table.header)
        if by_position:
            if table.header and self.header is None:
                raise ValueError(f"{path}: the first line looks like names, and the first file had none: "
                                 f"{shown(table.first, 160)}; header (--header or --no-header) must say what it is")
            if ours["header"] and self.header is None:
                raise ValueError(f"{path}: the first line is {shown(table.first, 160)}; the first file had the columns "
                                 f"{named(ours['names'])}; header=False (--no-header) reads these by position")
            names = ours["names"]
            if not labels and len(table.names) == len(names) - 1:
                names = [name for name in names if name != ours["label"]]
            if len(table.names) != len(names):
                raise ValueError(f"{path}: the file has {len(table.names)} columns, and the first file had "
                                 f"{len(names)}; the first line is {shown(table.first, 160)}")
            to_file = dict(zip(names, table.names, strict=True))
        else:
            to_file = {name: name for name in table.names}
            needed = [*([ours["label"]] if labels else []), *ours["columns"]]
            if self._format(path) == "jsonl":           # an object leaves out what it does not have
                needed = needed[:1] if labels else []
            if missing := [name for name in needed if name not in to_file]:
                raise ValueError(f"{path}: the column {named(missing)} is missing; the file has {named(table.names)}; "
                                 f"the first file had {named(ours['names'])}")
        left_out = {to_file.get(name) for name in ours["skip"]} | (set() if labels else {to_file.get(ours["label"])})
        kept = {to_file[name] for name in (ours["label"], *ours["columns"]) if name in to_file}
        open_ended = self._format(path) == "jsonl"

        def wanted(name):
            return name not in left_out and (open_ended or name in kept)

        return (lambda size, start, fast: table.blocks(wanted, size, start, fast)), to_file

    def _features(self, block, labels, training, to_file):
        """Return X, y, and the statistics and names after this block."""
        ours = self._layout
        y = self._clicks(*block.columns.get(to_file.get(ours["label"]), ([b""], np.zeros(block.size, np.int32)))
                         ) if labels else None
        used = [(name, to_file[name]) for name in ours["columns"] if to_file.get(name) in block.columns]
        known = {place for _, place in used} | {to_file.get(ours["label"])}
        used += [(name, name) for name in block.columns if name not in known]        # of JSON lines
        places = np.empty((block.size, len(used)), np.int32)
        values = np.ones((block.size, len(used)), np.float32)
        statistics, names, seen = self.statistics_, self.names_, {}
        if training:
            statistics = dict(statistics)
        for i, (name, place) in enumerate(used):
            texts, codes = block.columns[place]
            if name in ours["numbers"]:
                numbers = _as_numbers(name, texts, codes)
                if self.numbers_as == "standardize":
                    x = numbers[codes]
                    there = ~np.isnan(x)
                    if training:
                        statistics[name] = _merged(statistics.get(name, [0, 0.0, 0.0]), x[there])
                    n, mean, squares = statistics.get(name, [0, 0.0, 0.0])
                    if not n and there.any():
                        raise ValueError(f"no number of column {escaped(name, 80)} has been read for training; read "
                                         "the training file first, with training=True")
                    x = (x - mean) / _deviation(n, mean, squares) if n else x
                    places[:, i] = np.where(there, self.feature(name), -1)
                    values[:, i] = np.clip(np.where(there, x, 0), -LARGEST, LARGEST)
                    if training and there.any():
                        seen[name] = self.feature(name)
                    continue
                texts = list(map(_bin, numbers.tolist()))
            seed = zlib.crc32(f"{name}=".encode(errors="surrogatepass"))
            features = np.fromiter((zlib.crc32(text, seed) for text in texts), np.int64, len(texts)) % self.n_features
            filled = np.fromiter(map(bool, texts), bool, len(texts))
            places[:, i] = np.where(filled, features, -1)[codes]
            if training and self.names:
                seen.update((f"{name}={text.decode(errors='surrogatepass')}", feature) for text, feature in
                            zip(texts, features.tolist(), strict=True) if text)
        if training and self.names:
            room = _MOST_NAMES - len(names)
            new = [(name, feature) for name, feature in seen.items() if name not in names][:room]
            names = {**names, **dict(new)}
        there = places >= 0
        bounds = np.zeros(block.size + 1, np.int32)
        np.cumsum(there.sum(axis=1), out=bounds[1:])
        X = sp.csr_array((values[there], places[there], bounds), shape=(block.size, self.n_features))
        return X, y, statistics, names

    def _clicks(self, texts, codes):
        found = [_class_of(text) for text in texts]
        for number, one in enumerate(found):
            if one not in self.classes_:
                text = shown(texts[number].decode(errors="replace"))
                raise _Wrong(int((codes == number).argmax()),
                             f"column {escaped(self._layout['label'], 80)} has {text}; it must be "
                             f"{_said(self.classes_[0])} or {_said(self.classes_[1])}, the values before")
        return np.array([one == self.classes_[1] for one in found], bool)[codes]


_OPTIONS = ("label", "numbers", "numbers_as", "skip", "n_features", "chunk", "file_format", "sep", "header", "encoding",
            "first", "names")


def read_clicks(path: FilePath, **options: Any) -> Iterator[tuple[sp.csr_array, npt.NDArray[np.bool_]]]:
    r"""Yield a click log from one file, chunk by chunk, for `partial_fit`: (X, y).

    To read several files alike, a training and a test file for instance, take a `ClickReader`.

    Parameters
    ----------
    path : str or path
        A table as text, JSON lines, a Parquet file, or a file of libsvm's format.
    **options
        The parameters of `ClickReader`.

    Yields
    ------
    X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
    y : array of bool, shape (chunk,)
        True for a click.

    Raises
    ------
    OSError, ImportError, TypeError, ValueError
        As `ClickReader` and its method `read`.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparseopt import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "clicks.svm")
    ...     with open(path, "w") as file:
    ...         _ = file.write("+1 1:0.5 4:2\n-1 2:1\n")
    ...     (X, y), = datasets.read_clicks(path, n_features=4)
    >>> X.toarray(), y
    (array([[0.5, 0. , 0. , 2. ],
           [0. , 1. , 0. , 0. ]], dtype=float32), array([ True, False]))
    """
    return ClickReader(**options).read(path, training=True)


def _plain(column):
    return int(column) if isinstance(column, Integral) else column


def _first(blocks, size):
    """Return the first block of a table, or None."""
    try:
        return next(blocks(size, 0, True), None)
    except Unfit:
        return next(blocks(size, 0, False), None)


def _texts(values):
    """Return the values that are not empty."""
    return [value.decode(errors="surrogatepass") for value in values if value]


def _class_of(text):
    """Return the number or the small letters that a label says."""
    word = text.decode(errors="replace").strip().lower()
    try:
        number = float(word)
    except ValueError:
        return word
    return number if math.isfinite(number) else word


def _add_classes(values, texts):
    for text in texts:
        values.setdefault(_class_of(text), text)


def _two_classes(values, what, more=""):
    """Return the values of no click and of a click, or raise if these are no two."""
    said = listed([text.decode(errors="replace") for text in values.values()])
    allowed = "two numbers, or true and false, or yes and no"
    choose = f"label (--label) must name the column of clicks{more}"
    if len(values) == 1:
        raise ValueError(f"{what} has one value only, {said}; it must have two: {allowed}, since a model "
                         f"of one class learns nothing; {choose}")
    if len(values) != 2:
        raise ValueError(f"{what} has {len(values)} different values: {said}; it must have two: {allowed}; {choose}")
    low, high = values
    if isinstance(low, float) and isinstance(high, float):
        return min(low, high), max(low, high)
    for false, true in zip(_FALSE, _TRUE, strict=True):
        if {low, high} == {false, true}:
            return false, true
    raise ValueError(f"{what} has the values {said}; it must have {allowed}; {choose}")


def _said(one):
    return f"{one:g}" if isinstance(one, float) else escaped(str(one), 40)


def _said_classes(classes):
    return f"{_said(classes[1])} is a click, {_said(classes[0])} is none"


def _floats(texts):
    """Return the numbers that texts say, NaN for a missing one, and the first text that is no number or None."""
    try:
        numbers = np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        numbers = np.array([_float(text) for text in texts])
    for i in np.flatnonzero(~(np.abs(numbers) <= LARGEST)).tolist():
        if texts[i].strip().lower() not in _MISSING:
            return numbers, i
        numbers[i] = math.nan
    underscored = (i for i, text in enumerate(texts) if b"_" in text)       # Python reads 1_000, other programs do not
    return numbers, next(underscored, None)


def _float(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def _as_numbers(name, texts, codes):
    numbers, wrong = _floats(texts)
    if wrong is not None:
        raise _Wrong(int((codes == wrong).argmax()), f"column {escaped(name, 80)} has "
                     f"{shown(texts[wrong].decode(errors='replace'))}; it must be a finite number of float32, with a "
                     "point before decimals")
    return numbers


def _looks_like_numbers(texts):
    if len(texts) <= _DISTINCT:
        return False
    numbers, wrong = _floats(texts)
    there = numbers[~np.isnan(numbers)]
    return wrong is None and len(there) > _DISTINCT and bool((there % 1).any())


def _merged(before, x):
    """Return the number, the mean and the sum of squared differences, with the numbers x added."""
    n, mean, squares = before
    if not len(x):
        return before
    ours = float(x.mean())
    total = n + len(x)
    change = ours - mean
    return [total, mean + change * len(x) / total,
            squares + float(((x - ours) ** 2).sum()) + change * change * n * len(x) / total]


def _deviation(n, mean, squares):
    """Return the standard deviation; 1 if the numbers are all alike, apart from rounding errors of their mean."""
    deviation = math.sqrt(squares / n)
    return deviation if deviation > 1e-12 * abs(mean) else 1.0


def _bin(x):
    if math.isnan(x):
        return b""
    if abs(x) > 2:
        return b"%slog %d" % (b"-" if x < 0 else b"", math.floor(math.log(abs(x)) ** 2))
    return b"%d" % math.floor(x)
