"""The folder of checkpoints: one folder for each checkpoint, and in it a file for each shard and a manifest.

    000120/shard-0-of-2.safetensors
    000120/shard-1-of-2.safetensors
    000120/manifest.json

The manifest is written last. A folder without one is what a killed process left. Each file is a checkpoint of its own,
as `so.save` writes it. Folders have the number of steps as their names. The manifest numbers checkpoints in the order
in which they were written: after `load`, a newer one may have fewer steps.
"""

import json
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import NamedTuple

from .. import _memory, checkpoint
from .._files import replacing
from .._tensors import parsed
from .._text import shown
from ..optimizers import Part, while_held
from ._pieces import filled, meet

_NAME = re.compile(r"(\d{6,})(?:\.(\d+))?")
_FORMAT = 1


class Saved(NamedTuple):
    """A complete checkpoint."""

    path: Path
    manifest: dict

    @property
    def steps(self):
        return self.manifest["steps"]


def file_name(shard, shards):
    return f"shard-{shard}-of-{shards}.safetensors"


def saved(folder):
    """Return the complete checkpoints of a folder, the oldest first."""
    found = []
    for path in _numbered(folder):
        try:
            text = (path / "manifest.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        found.append(Saved(path, _checked(path, text)))
    return sorted(found, key=lambda one: one.manifest["number"])


def latest(folder):
    """Return the newest complete checkpoint, or raise FileNotFoundError."""
    found = saved(Path(folder))
    if not found:
        raise FileNotFoundError(f"{folder} has no complete checkpoint of sharded tables")
    return found[-1]


def _numbered(folder):
    names = [(int(match[1]), int(match[2] or 0), name) for name in os.listdir(folder)
             if (match := _NAME.fullmatch(name))]
    return [Path(folder) / name for _, _, name in sorted(names)]


def _checked(path, text):
    try:
        manifest = parsed(text)
        if manifest["format"] != _FORMAT:
            raise ValueError(f"it has format {shown(manifest['format'])}; this version of sparseopt reads {_FORMAT}")
        said, is_ = manifest.pop("crc32"), _sum(manifest)
        if said != is_:
            raise ValueError(f"its checksum is {is_}, not {shown(said)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / 'manifest.json'}: no manifest of sharded tables ({error})") from error
    return manifest


def _sum(manifest):
    return f"{zlib.crc32(json.dumps(manifest).encode()):08x}"


def new_folder(folder, steps):
    """Make the folder of a new checkpoint, and return its path."""
    os.makedirs(folder, exist_ok=True)
    for path in _numbered(folder):              # what a killed process left
        if not (path / "manifest.json").exists():
            shutil.rmtree(path)
    names, again = {path.name for path in _numbered(folder)}, 0
    name = f"{steps:06d}"
    while name in names:                        # a checkpoint is never written over
        again += 1
        name = f"{steps:06d}.{again}"
    path = Path(folder) / name
    path.mkdir()
    return path


def finish(path, manifest, keep):
    """Write the manifest, which makes a checkpoint complete, and remove all but the newest `keep`."""
    number = 1 + max((one.manifest["number"] for one in saved(path.parent)), default=0)
    manifest = {"format": _FORMAT, "number": number, **manifest}
    with replacing(path / "manifest.json") as file:
        file.write(json.dumps({**manifest, "crc32": _sum(manifest)}, indent=1).encode())
    for old in saved(path.parent)[:-keep]:
        # Without its manifest, what is left of it counts as nothing, whenever a kill comes.
        os.unlink(old.path / "manifest.json")
        shutil.rmtree(old.path)


def sum_of(path):
    """Return the size of a file and the checksum of its header, which has those of its arrays."""
    with open(path, "rb") as file:
        start = file.read(64)
    return {"name": Path(path).name, "bytes": os.path.getsize(path), "crc32": start[34:42].decode("ascii", "replace")}


def read(path, number, layout):
    """Return an optimizer with the rows of one shard of a layout, from a checkpoint of any number of shards."""
    path = Path(path)
    found = Saved(path, _checked(path, (path / "manifest.json").read_text(encoding="utf-8")))
    every, n = found.manifest["shards"], layout.shards
    parts = {name: Part(number, n, rows.n_rows) for name, rows in layout.rows.items()}
    if every == n:
        return _opened(found, number, layout)
    pieces = (_piece(found, shard, layout) for shard in range(every) if meet(shard, every, number, n))
    into = None if layout.optimizer is None else _empty(layout, number, n)
    return filled(into, parts, pieces)


def own_file(path, number, layout):
    """Return the file of a shard's own rows, or None if the checkpoint has another number of shards."""
    found = Saved(Path(path), _checked(Path(path), (Path(path) / "manifest.json").read_text(encoding="utf-8")))
    return _file(found, number) if found.manifest["shards"] == layout.shards else None


def _piece(found, shard, layout):
    optimizer = _opened(found, shard, layout)
    state, structure = while_held(optimizer, lambda *both: both)
    return shard, found.manifest["shards"], type(optimizer), state, structure


def _opened(found, shard, layout):
    """Return the optimizer of one file. `layout.optimizer` gives what no file holds: a rate that is a callable."""
    into = None if layout.optimizer is None else _empty(layout, shard, found.manifest["shards"])
    return checkpoint.load(_file(found, shard), into)


def _empty(layout, number, shards):
    return layout.optimizer({name: _memory.zeros(rows.shape(len(range(number, rows.n_rows, shards))), rows.dtype)
                             for name, rows in layout.rows.items()})


def _file(found, shard):
    """Return the path of a shard's file, or raise ValueError if it is not the file that the manifest means."""
    path, said = found.path / file_name(shard, found.manifest["shards"]), found.manifest["files"][shard]
    if (is_ := sum_of(path)) != said:
        raise ValueError(f"{path} is not the file of its manifest: it has {is_['bytes']} bytes and the checksum "
                         f"{is_['crc32']}, not {said['bytes']} and {said['crc32']}")
    return path
