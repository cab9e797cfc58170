"""Data sets to try things on, and readers of the files that users have."""

from .clicks import read_clicks, read_csv, read_libsvm, read_parquet
from .generated import ClickLog
from .ratings import Ratings, read_ratings
from .texts import python_documentation, read_texts

__all__ = [
    "ClickLog", "Ratings", "python_documentation", "read_clicks", "read_csv", "read_libsvm", "read_parquet",
    "read_ratings", "read_texts",
]
