"""The settings of the process: the number of threads, and how the kernels were built."""

import contextlib
import contextvars
import functools
import math
import operator
import os
import platform
import re
import sys
import threading
from pathlib import Path

import numpy as np
import scipy

from . import _kernels
from ._text import shown
from ._version import __version__

_MOST_THREADS = 1024        # OpenMP ends the process if the system cannot start as many threads as it is asked for


def granted(root=Path("/")):
    """Return the smallest CPU quota, in cores, of this process's control groups and their parents, or infinity."""
    cores = [math.inf]
    try:
        groups = (root / "proc/self/cgroup").read_text(errors="surrogateescape")
    except OSError:             # not Linux
        groups = ""
    for number, controllers, path in re.findall(r"^(\d+):([^:\n]*):/(.*)$", groups, re.MULTILINE):
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        # In a container the path may be the host's. The container's own quota then stands at the root.
        group = Path(path)
        for mount in ("", "unified") if number == "0" else ("cpu", controllers):
            for folder in (root / "sys/fs/cgroup" / mount / above for above in (group, *group.parents)):
                for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
                    try:
                        quota, period = " ".join((folder / name).read_text() for name in files).split()
                        cores.append(int(quota) / int(period) if int(quota) > 0 else math.inf)
                    except (OSError, ValueError):       # there is no such file, or the quota is "max"
                        pass
    return min(cores)


def default_threads(environment=os.environ, root=Path("/")):
    """Return the first number in OMP_NUM_THREADS, or else the number of cores that this process may use."""
    if re.fullmatch(r"\s*\+?0*[1-9]\d*\s*(,\s*\+?0*[1-9]\d*\s*)*", said := environment.get("OMP_NUM_THREADS", "")):
        return min(int(said.split(",")[0]), _MOST_THREADS)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _MOST_THREADS, math.ceil(min(granted(root), cores))))


_num_threads = default_threads() if _kernels.BUILD["openmp"] else 1
_forked = False
_alone = contextvars.ContextVar("alone", default=False)         # whether `one_thread` is at work


def check_num_threads(name, value):
    """Return `value` as an int from 1 to 1024, or raise."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {shown(value)}; it must be an integer of at least 1") from None
    if isinstance(value, bool) or not 1 <= number <= _MOST_THREADS:
        raise ValueError(f"{name} is {shown(value)}; it must be an integer of at least 1 and at most {_MOST_THREADS}")
    return number


def set_num_threads(num_threads: int) -> None:
    """Set the number of threads for all optimizers that have no `num_threads` of their own.

    Results are the same to the bit for any number of threads. A step on few rows uses one thread in any case.

    Parameters
    ----------
    num_threads : int
        From 1 to 1024.

    Raises
    ------
    TypeError
        If num_threads is not an integer.
    ValueError
        If num_threads is a bool, or out of range.

    Examples
    --------
    >>> import sparseopt as so
    >>> before = so.get_num_threads()
    >>> so.set_num_threads(1)
    >>> so.get_num_threads()
    1
    >>> so.set_num_threads(before)
    """
    global _num_threads
    _num_threads = check_num_threads("num_threads", num_threads)


def get_num_threads() -> int:
    """Return the number of threads that a step may use.

    The default is the first number in the environment variable OMP_NUM_THREADS. If the variable has no such number, the
    default is the number of cores that this process may use. In a forked child the number is 1, whatever has been set.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.get_num_threads() >= 1
    True
    """
    return threads_for()


def threads_for(num_threads=None):
    """Return `num_threads`, or the setting of the process if None. Every call of a kernel asks here."""
    if _forked:
        return 1
    return num_threads or (1 if _alone.get() else _num_threads)


@contextlib.contextmanager
def one_thread():
    """Within the block, kernels use one thread, and so does BLAS if threadpoolctl is installed.

    The limit of BLAS holds for the whole process.
    """
    before = _alone.set(True)
    try:
        with _blas_alone:
            yield
    finally:
        _alone.reset(before)


class _BlasAlone:
    """Limits BLAS to one thread, from the first block that begins to the last that ends, in any thread."""

    def __init__(self):
        self.lock, self.blocks, self.limit = threading.Lock(), 0, None

    def __enter__(self):
        with self.lock:
            if self.blocks == 0 and (pools := _thread_pools()) is not None:
                self.limit = pools.limit(limits=1, user_api="blas")
            self.blocks += 1

    def __exit__(self, *error):
        with self.lock:
            self.blocks -= 1
            if self.blocks == 0 and self.limit is not None:
                self.limit, limit = None, self.limit
                limit.restore_original_limits()


_blas_alone = _BlasAlone()


@functools.cache
def _thread_pools():
    """Return threadpoolctl's list of the libraries with threads, or None if threadpoolctl is not installed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


def _after_fork():
    # In a forked child, GNU's OpenMP would wait forever for threads that only the parent has.
    global _forked
    _forked = _kernels.BUILD["openmp"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def show_config() -> None:
    """Print the instruction set in use, the number of threads, how the kernels were built, and the versions.

    Please include the output in a bug report.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.show_config()  # doctest: +ELLIPSIS
    sparseopt ...
    """
    build = _kernels.BUILD
    lines = {
        "instruction set": f"{_kernels.isa} (of {', '.join(_kernels.available)})",
        "threads": f"{threads_for()} (OpenMP: {'yes' if build['openmp'] else 'no'})",
        "compiler": build["compiler"] or "unknown",
        "flags": build["flags"],
        "python": f"{platform.python_version()} on {sys.platform} {platform.machine()}",
        "numpy, scipy": f"{np.__version__}, {scipy.__version__}",
    }
    print(f"sparseopt {__version__}")
    for name, value in lines.items():
        print(f"  {name:16s} {value}")
