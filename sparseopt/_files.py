"""Files that are replaced whole: whatever happens, a path holds the old file or the new one."""

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

try:
    import fcntl
except ImportError:             # not on Windows
    fcntl = None

_KINDS = {stat.S_IFDIR: "folder", stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFIFO: "pipe",
          stat.S_IFSOCK: "socket"}


def regular(path):
    """A `Path`, and what `os.stat` says of the file there, links followed; raise OSError if it is no regular file."""
    path = Path(os.fsdecode(path))
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "special file")
        raise OSError(f"{path} is a {kind}; it must be a regular file")
    return path, found


@contextlib.contextmanager
def replacing(path):
    """Open a new binary file, which takes the place of the one at `path` if the block ends without an exception.

    It is written beside the old file and moved over it. An exception leaves the old file and nothing else. A kill
    leaves the old file and a temporary, which the next call for the same path removes.

    Parameters
    ----------
    path : str or path
        Its folder must exist. A link stays, and the file that it leads to is replaced. The new file has the
        permissions of the old one.

    Raises
    ------
    OSError
        If the path leads to a device, a pipe, a folder or a socket, or the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> from sparseopt._files import replacing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(os.path.join(folder, "notes.txt")) as file:
    ...         _ = file.write(b"whole")
    ...     os.listdir(folder)
    ['notes.txt']
    """
    mode = None
    try:
        path, old = regular(path)
        mode = stat.S_IMODE(old.st_mode)
    except FileNotFoundError:
        os.stat(Path(os.path.realpath(os.fsdecode(path))).parent)       # or raise with the folder's name
    path = Path(os.path.realpath(os.fsdecode(path)))
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with _locked(temporary, 0o666 if mode is None else mode) as file:
            if mode is not None:                    # the umask took some of it
                os.chmod(temporary, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:                       # Windows moves no open file; elsewhere, closing ends the lock
                file.close()
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def save_picture(figure, path, dpi=120):
    """Write a figure of matplotlib, in the format that the ending of the path says, as `replacing` does."""
    with replacing(path) as file:
        figure.savefig(file, dpi=dpi, format=Path(path).suffix[1:] or "png")


def _locked(path, mode):
    """A new file, locked until it is closed or the process ends. So a leftover is what nobody has locked."""
    while True:
        file = open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode & 0o777))  # noqa: SIM115
        if fcntl is None:
            return file
        with contextlib.suppress(OSError):          # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.exists(path):
            return file
        file.close()                                # another save took it for a leftover before it was locked


def _remove_leftovers(path):
    """Remove the temporaries of killed processes. On a file system without locks they stay."""
    if fcntl is None:
        return
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    leftovers = []
    with contextlib.suppress(OSError):              # a folder that cannot be listed
        leftovers = [path.with_name(entry) for entry in os.listdir(path.parent) if name.fullmatch(entry)]
    for leftover in leftovers:
        with contextlib.suppress(OSError):
            descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.lstat(leftover)):      # not one made since under that name
                    os.unlink(leftover)
            finally:
                os.close(descriptor)


def _sync_folder(folder):
    # So that the move itself survives a power cut; where a folder cannot be synced, the file is in place all the same.
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
