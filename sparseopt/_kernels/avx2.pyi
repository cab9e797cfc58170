from .baseline import BUILD as BUILD
from .baseline import RULES as RULES
from .baseline import Scratch as Scratch
from .baseline import Sweep as Sweep
from .baseline import reference_loop as reference_loop
