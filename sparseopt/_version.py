"""The version, in a room of its own: the package and its settings both read it."""

__version__ = "0.2.0"
