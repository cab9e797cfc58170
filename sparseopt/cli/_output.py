"""What the commands print: tables on stdout, messages for people on stderr, and tables as files."""

import argparse
import csv
import io
import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .._files import replacing
from .._text import escaped
from .._typing import Self
from ._common import UsageError, check_folder

FORMATS = "table", "plain", "json"
TABLE_FILES = ".csv", ".tsv", ".json", ".jsonl", ".parquet"
_ROWS = 65536           # rows of a Parquet file that are written together.

# A column is a name, or a name and the format of its numbers.
Column = str | tuple[str, str]


def add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS,
                        help="table: for people; plain: lines with tabs; json: one array with an object for each row "
                             "(default: table on a terminal, else plain)")


class Output:
    """Where a command prints to. Without rich, tables are plain lines.

    | format | `table`                                              | numbers                         |
    |--------|------------------------------------------------------|---------------------------------|
    | table  | a table with lines around                            | in the format of their column   |
    | plain  | a line for each row, values with tabs between        | the same, without separators of |
    |        |                                                      | thousands                       |
    | json   | an array with an object for each row                 | all digits; NaN is null         |
    """

    def __init__(self, options: argparse.Namespace) -> None:
        for stream in sys.stdout, sys.stderr:
            if hasattr(stream, "reconfigure"):          # a letter that the console cannot show becomes an escape
                stream.reconfigure(errors="backslashreplace")
        wanted = getattr(options, "format", None) or ("table" if sys.stdout.isatty() else "plain")
        self.format = "plain" if wanted == "table" and _console(sys.stdout) is None else wanted
        self._printed = False

    def say(self, text: str) -> None:
        """Print a message for people on stderr. Programs that read stdout do not see the message."""
        print(escaped(text), file=sys.stderr, flush=True)

    def status(self, text: str) -> "Status":
        """Return a context manager that shows what the command does at the moment, on a terminal with rich."""
        return Status(text)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Any]], grouped: bool = False) -> None:
        """Print a table. `grouped` says that rows with the same first value stand together."""
        self._printed = True
        if self.format == "json":
            json.dump([_object(columns, row) for row in rows], sys.stdout, indent=1,
                      ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf"))
            print()
        elif self.format == "plain":
            print("\t".join(map(escaped, _names(columns))))
            for row in rows:
                print("\t".join(escaped(cell) for cell in _cells(columns, row, thousands=False)))
        else:
            self._draw(columns, rows, grouped)

    def end(self) -> None:
        """Print an empty array if there was no table and programs expect JSON."""
        if self.format == "json" and not self._printed:
            self.table([], [])

    def _draw(self, columns, rows, grouped):
        from rich.table import Table

        rows = [_cells(columns, row) for row in rows]
        numbers = [not isinstance(column, str) for column in columns]
        table = Table()
        for name, number in zip(_names(columns), numbers, strict=True):
            table.add_column(name, overflow="fold", justify="right" if number else "left")
        before = None
        for row in rows:
            if grouped and row[0] == before:
                row = ["", *row[1:]]
            elif grouped and before is not None:
                table.add_section()
            before = row[0] or before
            table.add_row(*row)
        _console(sys.stdout).print(table)


class Status:
    """A line on a terminal that is replaced by the next one, and removed at the end. Elsewhere nothing is shown."""

    def __init__(self, text: str) -> None:
        console = terminal(sys.stderr)
        self._shown = console.status(text) if console else None

    def update(self, text: str) -> None:
        if self._shown:
            self._shown.update(text)

    def __enter__(self) -> Self:
        if self._shown:
            self._shown.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            self._shown.__exit__(*error)


def _console(stream):
    """A console of rich that shows each text literally, or None without rich."""
    try:
        from rich.console import Console
    except ImportError:
        return None

    class Escaping(Console):
        """Brackets and colons are no markup, and control characters are escaped."""

        def render_str(self, text, **how):
            return super().render_str(escaped(text), **how)

    return Escaping(file=stream, markup=False, emoji=False, highlight=False)


def terminal(stream):
    """A console of rich on a stream that is a terminal; else None."""
    console = _console(stream)
    return console if console is not None and console.is_terminal else None


def _names(columns):
    return [column if isinstance(column, str) else column[0] for column in columns]


def _cells(columns, row, thousands=True):
    """The values of a row as texts."""
    cells = []
    for column, value in zip(columns, row, strict=True):
        form = "" if isinstance(column, str) else column[1]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            cells.append("-")
        elif isinstance(value, str):
            cells.append(value)
        else:
            cells.append(format(value, form if thousands else form.replace(",", "")))
    return cells


def _object(columns, row):
    return {name: _plain(value) for name, value in zip(_names(columns), row, strict=True)}


def _plain(value):
    """A value as JSON can hold it."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_table_path(option: str, path: Path) -> None:
    """Raise UsageError if no table can be written to a path that an option names."""
    if path.suffix not in TABLE_FILES:
        raise UsageError(f"{option} is {path}; its name must end in one of {', '.join(TABLE_FILES)}")
    if path.is_dir():
        raise UsageError(f"{option} is {path}, which is a folder; it must be the name of a file")
    check_folder(option, path.parent)
    if path.suffix == ".parquet":
        _pyarrow(option)


def write_table(path: Path, columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table to a file, in the format that the end of its name says. The file is replaced as a whole."""
    names = _names(columns)
    rows = ([_plain(value) for value in row] for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        if path.suffix == ".parquet":
            _write_parquet(file, names, rows)
            return
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        if path.suffix in (".csv", ".tsv"):
            writer = csv.writer(text, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
            writer.writerow(names)
            writer.writerows(rows)
        else:
            whole = path.suffix == ".json"
            text.write("[\n" if whole else "")
            for i, row in enumerate(rows):
                text.write(",\n" if whole and i else "")
                text.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False))
                text.write("" if whole else "\n")
            text.write("\n]\n" if whole else "")
        text.detach()                       # flushes, and leaves the file open for `replacing`


def _write_parquet(file, names, rows: Iterator):
    pyarrow = _pyarrow("--output")
    from pyarrow import parquet

    writer = None
    while part := list(itertools.islice(rows, _ROWS)):
        table = pyarrow.table(dict(zip(names, zip(*part, strict=True), strict=True)),
                              schema=writer.schema if writer else None)
        writer = writer or parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
    writer = writer or parquet.ParquetWriter(file, pyarrow.schema([(name, pyarrow.string()) for name in names]))
    writer.close()


def _pyarrow(option):
    try:
        import pyarrow
    except ImportError:
        raise UsageError(f"{option}: Parquet files need the package pyarrow: pip install 'sparseopt[parquet]'"
                         ) from None
    return pyarrow
