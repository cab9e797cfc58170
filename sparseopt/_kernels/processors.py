"""How far ahead of its use a row is prefetched: a line for each processor that was measured.

These numbers change the time of a step, never a bit of a result. `bench/tricks.py` measures what each is worth.
"""

from typing import NamedTuple

from . import cpu


class Processor(NamedTuple):
    """Distances in cache lines of 64 bytes, in rows, or in bytes, as the names say."""

    l2_lines: int = 64          # lines of each array between the prefetch into the L2 cache and the use
    l2_rows: int = 8            # at least so many rows
    l1_lines: int = 12          # lines prefetched into the L1 cache that are not used yet; 0: none
    l1_whole_rows: bool = False     # whether whole rows are prefetched into the L1 cache, or only their first lines
    gradient_lines: int = 0     # lines of a gradient between prefetch and use; 0: the processor predicts them
    burst_lines: int = 32       # lines prefetched at once, so that pages of several rows are looked up together
    sort_bytes: int = 1 << 30   # size of table and state from which unsorted rows are better sorted


PROCESSORS = {
    "Zen 5": Processor(l2_lines=120, l2_rows=4, l1_lines=75, l1_whole_rows=True, gradient_lines=64, sort_bytes=2 << 30),
    "Zen 4": Processor(),
    "Zen 3": Processor(l2_lines=32, burst_lines=16),
    "other": Processor(),
}


def own() -> Processor:
    """The numbers of this processor."""
    return PROCESSORS[cpu.nearest()]
