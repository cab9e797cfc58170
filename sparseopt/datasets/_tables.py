"""Parquet files and names of columns: the readers of clicks and of ratings use both."""

from .._text import escaped, listed


def open_parquet(path):
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise ImportError("Parquet files need the package pyarrow: pip install 'sparseopt[parquet]'") from None
    try:
        return parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file: {escaped(str(error), 160)}") from None


def named(columns):
    """The names of columns, as an error shows them."""
    return listed(columns, show=lambda name: escaped(name, 80))
