"""Options of where the tables of a training are: in memory, on a disk, or on shards."""

import argparse
import contextlib
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..models import Model
from ._common import UsageError, check_folder, count, flag

_OF_SHARDS, _OF_DISK = ("shards", "workers", "engine"), ("disk", "cache_rows")


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add the options of where the tables are."""
    group = parser.add_argument_group(
        "where the tables are",
        "Without these options, in memory. The checkpoint is the same everywhere, so a training "
        "can be resumed elsewhere. To write one takes the memory of all tables and their state.")
    group.add_argument("--shards", type=count, metavar="N", help="spread the rows over this many shards (default: 1)")
    group.add_argument("--workers", type=count, metavar="N",
                       help="train on shards with this many workers, which share the data of an epoch and the batch of "
                            "a step (default: 1)")
    group.add_argument("--engine", choices=["local", "ray"],
                       help="local: shards and workers are parts of this process; ray: they are processes of Ray, on "
                            "the machines of the environment variable RAY_ADDRESS or on this machine (default: local)")
    group.add_argument("--disk", type=Path, metavar="FOLDER",
                       help="keep the rows in a file in this folder; with shards, in a file for each shard; the files "
                            "vanish at the end of the training")
    group.add_argument("--cache-rows", type=count, metavar="N",
                       help="with --disk: how many rows of each table are in memory, on each shard; at least all "
                            "different rows of a step (default: 1,000,000)")


def place(options: argparse.Namespace, model: Model) -> dict[str, Any] | None:
    """Set where the tables of a model will be. Return the options that say so, or None for memory.

    Raises
    ------
    UsageError
        If the options do not go together, or not with the settings of the model.
    """
    found = {name: getattr(options, name) for name in (*_OF_SHARDS, *_OF_DISK) if getattr(options, name) is not None}
    if not found:
        return None
    first = flag(next(iter(found)))
    if options.cache_rows and not options.disk:
        raise UsageError("--cache-rows says how many rows of a table on disk are in memory; it needs --disk")
    if getattr(model, "loss", None) == "square":
        raise UsageError(f"{first} does not go with --loss square, whose steps need whole tables")
    if options.disk:
        if model.missed == "replay":
            raise UsageError("--disk does not go with --missed replay")
        if not options.disk.is_dir():
            raise UsageError(f"--disk: {options.disk} is no folder; it must be an existing folder")
        check_folder("--disk", options.disk)
        found["disk"] = str(options.disk)
    if found.keys() & set(_OF_SHARDS):
        found = {"shards": 1, "workers": 1, "engine": "local", **found}
        if found["engine"] == "ray" and not importlib.util.find_spec("ray"):
            raise UsageError("--engine ray needs the package ray: pip install 'sparseopt[sharded]'")
        from .. import sharded

        model.tables = functools.partial(sharded.Tables, **found)
    else:
        from .. import disk

        model.tables = functools.partial(disk.DiskTables, options.disk,
                                         **{name: found[name] for name in found if name != "disk"})
    return found


def as_arguments(options: argparse.Namespace) -> list[str]:
    """Return the options of `add_places` that are given, as they stand on a command line."""
    given = [(flag(name), getattr(options, name)) for name in (*_OF_SHARDS, *_OF_DISK)]
    return [word for name, value in given if value is not None for word in (name, str(value))]


@contextlib.contextmanager
def closing(model: Model) -> Iterator[None]:
    """Close the store of a model at the end of the block, so that no process of it is left."""
    try:
        yield
    finally:
        store = getattr(model, "store_", None)
        if store is not None:
            store.close()
