"""Tables whose rows are spread over shards, in one process or on the machines of a Ray cluster."""

from .._rows import Rows
from ._client import Client
from ._tables import Tables, load

__all__ = ["Client", "Rows", "Tables", "load"]
