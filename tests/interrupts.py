"""Interrupts at every point of a call at which Python could run the handler of a signal."""

import dis
import os
import sys

import sparseopt as so

# After these instructions, and at no other, the interpreter runs the handlers of signals.
HANDLES = ("CALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE", "SEND", "GEN_START")
PACKAGE = os.path.dirname(so.__file__)


class Interrupt(BaseException):
    pass


def interrupted(call, at, within=PACKAGE):
    """Raise at the at-th point of the call at which a signal handler could run; return the number of such points.

    Points count in code of the folder `within`.
    """
    seen, last = 0, {}

    def trace(frame, event, _):
        nonlocal seen
        if not frame.f_code.co_filename.startswith(within):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            before = last.get(frame, "RESUME")
            last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            # A SWAP after a call leaves a with block, within which the handler would have run.
            if before.startswith(HANDLES) and last[frame] != "SWAP":
                seen += 1
                if seen == at:
                    sys.settrace(None)
                    raise Interrupt
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        pass
    finally:
        sys.settrace(outer)
    return seen
