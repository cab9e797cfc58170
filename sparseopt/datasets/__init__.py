"""Data sets to try things on, and readers of the files that users have."""

from .clicks import ClickReader, read_clicks
from .frames import interactions
from .generated import ClickLog
from .ratings import Ratings, read_ratings
from .texts import LineSentences, python_documentation, read_texts

__all__ = [
    "ClickLog", "ClickReader", "LineSentences", "Ratings", "interactions", "python_documentation", "read_clicks",
    "read_ratings", "read_texts",
]
