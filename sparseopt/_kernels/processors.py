"""How far ahead of its use a row is prefetched: a line for each processor that was measured.

None of these numbers changes a bit of any result.
"""

from typing import NamedTuple

from . import cpu


class Processor(NamedTuple):
    far: int                # cache lines of an array between prefetch and use,
    least: int              # but at least so many rows
    values: int             # and of the gradient; 0: left to its own prefetcher
    close: int              # lines of rows and their gradients that are prefetched once more, close to their use; or 0: then
    near: int               # first lines are, on that part of the way, and its own prefetcher fetches what follows them,
    streams: int            # of so many rows of all arrays together at a time
    kept: int               # bytes of table and states beyond which it does not keep the addresses of most pages
    together: int           # rows whose pages are looked up at the same time then,
    shortest: int           # if of so many lines, two or more
    longest: int            # and at most so many;
    of_a_line: int          # of one line, always,
    shorter: int            # and of less: powers of two, all three
    lines_of_states: bool   # whether that suits rows of a line or less that have long states, too
    whole: int              # cache lines that a row may have which is not taken in parts,
    misses: int             # and those of all arrays together
    part: int               # bytes of such a part, whole lines; 0: no row is
    reach: int              # bytes of table and states beyond which rows in random order are better sorted


PROCESSORS = {
    "Zen 5": Processor(far=120, least=4, values=64, close=75, near=0, streams=0, kept=0, together=4, shortest=3, longest=5,
                       of_a_line=4, shorter=4, lines_of_states=True, whole=16, misses=34, part=640, reach=2 << 30),
    "Zen 4": Processor(far=64, least=8, values=0, close=0, near=2, streams=12, kept=3 << 27, together=8, shortest=2,
                       longest=1 << 30, of_a_line=8, shorter=8, lines_of_states=False, whole=0, misses=0, part=0,
                       reach=1 << 30),
    "Zen 3": Processor(far=32, least=8, values=0, close=0, near=2, streams=12, kept=3 << 27, together=2, shortest=2,
                       longest=1 << 30, of_a_line=2, shorter=8, lines_of_states=False, whole=0, misses=22, part=128,
                       reach=1 << 30),
}


def own() -> Processor:
    """The numbers of this processor."""
    return PROCESSORS[cpu.nearest()]
