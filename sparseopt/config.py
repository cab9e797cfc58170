"""Threads, and what this build is: the settings of the process."""

import operator
import os
import platform
import sys

import numpy as np
import scipy

from . import kernels

_num_threads = kernels.BUILD["threads"]
_forked = False


_MOST_THREADS = 1024        # more, and OpenMP ends the process where the system has not so many


def check_num_threads(name, value):
    """Return `value` as an int from 1 to 1024, or raise."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it must be an integer of at least 1") from None
    if isinstance(value, bool) or not 1 <= number <= _MOST_THREADS:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1 and at most {_MOST_THREADS}")
    return number


def set_num_threads(num_threads):
    """Set the number of threads that a step may use, for all optimizers that do not set their own.

    Results do not depend on it, to the bit. Steps on few rows use one thread whatever is set.

    Parameters
    ----------
    num_threads : int
        From 1 to 1024.

    Raises
    ------
    TypeError, ValueError
        If it is no such integer.

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


def get_num_threads():
    """Return the number of threads that a step may use: at first OMP_NUM_THREADS, or every core this process may use.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.get_num_threads() >= 1
    True
    """
    return _num_threads


def threads_for(num_threads):
    """The threads of an optimizer whose own setting is `num_threads`."""
    if _forked:
        return 1
    return num_threads or _num_threads


def _after_fork():
    # GNU's OpenMP waits for ever in a forked child for threads that only its parent has.
    global _forked
    _forked = kernels.BUILD["openmp"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def show_config():
    """Print the instruction set in use, the threads, how the kernels were built, and the versions.

    A bug report should carry what this prints.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.show_config()  # doctest: +ELLIPSIS
    sparseopt ...
    """
    from . import __version__

    build = kernels.BUILD
    lines = {
        "instruction set": f"{kernels.isa} (of {', '.join(kernels.available)})",
        "threads": f"{threads_for(None)} (OpenMP: {'yes' if build['openmp'] else 'no'})",
        "compiler": build["compiler"] or "unknown",
        "flags": build["flags"],
        "python": f"{platform.python_version()} on {sys.platform} {platform.machine()}",
        "numpy, scipy": f"{np.__version__}, {scipy.__version__}",
    }
    print(f"sparseopt {__version__}")
    for name, value in lines.items():
        print(f"  {name:16s} {value}")
