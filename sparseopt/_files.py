"""Files are replaced as a whole: at any time, a path holds the complete old file or the complete new one."""

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

try:
    import fcntl
except ImportError:             # Windows has no fcntl
    fcntl = None

_KINDS = {stat.S_IFDIR: "folder", stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFIFO: "pipe",
          stat.S_IFSOCK: "socket"}


def regular(path):
    """Return a `Path` and its `os.stat`, with links followed. Raise OSError if there is no regular file."""
    path = Path(os.fsdecode(path))
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "special file")
        raise OSError(f"{path} is a {kind}; it must be a regular file")
    return path, found


@contextlib.contextmanager
def replacing(path):
    """Open a new binary file, which replaces the file at `path` if the block ends without an exception.

    The new file is written in the same folder, and then moved over the old file.

    | what happens          | what the folder holds then                                                        |
    |-----------------------|-----------------------------------------------------------------------------------|
    | the block ends        | the new file                                                                      |
    | the block raises      | the old file                                                                      |
    | the process is killed | the old file, and a temporary file, which the next call for the same path removes |

    Parameters
    ----------
    path : str or path
        The folder must exist. If the path is a link, the link stays and its target is replaced. The new file gets
        the permissions of the old one.

    Raises
    ------
    OSError
        If the path leads to a device, a pipe, a folder or a socket, or if the file cannot be written.

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
        os.stat(Path(os.path.realpath(os.fsdecode(path))).parent)       # raises an error that names a missing folder
    path = Path(os.path.realpath(os.fsdecode(path)))
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with _locked(temporary, 0o666 if mode is None else mode) as file:
            if mode is not None:                    # the umask may have removed permissions
                os.chmod(temporary, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:                       # Windows cannot move an open file; elsewhere, closing ends the lock
                file.close()
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def save_picture(figure, path, dpi=120):
    """Write a figure of matplotlib through `replacing`, in the format that the suffix of the path names."""
    with replacing(path) as file:
        figure.savefig(file, dpi=dpi, format=Path(path).suffix[1:] or "png")


def _locked(path, mode):
    """Return a new file, locked until it is closed or the process ends. A file without a lock is a leftover."""
    if fcntl is None:           # no variable holds the file, so an interrupt closes it: Windows removes no open file
        return open(path, "xb")
    while True:
        file = open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode & 0o777))  # noqa: SIM115
        with contextlib.suppress(OSError):          # the file system may have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.exists(path):
            return file
        file.close()                                # before the lock, another save removed the file as a leftover


def _remove_leftovers(path):
    """Remove the temporary files of killed processes. On a file system without locks these files stay."""
    if fcntl is None:
        return
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    leftovers = []
    with contextlib.suppress(OSError):              # the folder may not be readable
        leftovers = [path.with_name(entry) for entry in os.listdir(path.parent) if name.fullmatch(entry)]
    for leftover in leftovers:
        with contextlib.suppress(OSError):
            descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another process may have created a new file of this name since.
                if os.path.samestat(os.fstat(descriptor), os.lstat(leftover)):
                    os.unlink(leftover)
            finally:
                os.close(descriptor)


def _sync_folder(folder):
    # Without this, a power cut could undo the move. A folder that cannot be synced is no error: the file is in place.
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
