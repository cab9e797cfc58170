"""Types that the signatures of several modules share."""

import os
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

if TYPE_CHECKING:           # type checkers know typing_extensions without the package
    from typing_extensions import Self as Self
    from typing_extensions import Unpack as Unpack
else:                       # Python 3.10 has neither
    Self, Unpack = getattr(typing, "Self", Any), getattr(typing, "Unpack", dict)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32 | np.float64]
Integers = npt.NDArray[np.int32 | np.int64]
Sparse = sp.sparray | sp.spmatrix
Rate = float | Callable[[int], float]             # a schedule takes the number of steps taken before
FilePath = str | os.PathLike[str]
Seed = int | np.random.SeedSequence | np.random.Generator | None
