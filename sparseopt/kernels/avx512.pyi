from .baseline import BUILD as BUILD
from .baseline import RULES as RULES
from .baseline import Sweep as Sweep
