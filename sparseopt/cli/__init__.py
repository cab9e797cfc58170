"""The command `sparseopt`."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from .. import _config
from .._text import escaped
from .._version import __version__
from . import bench, clicks, compare, ratings, words
from ._common import UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status. The default takes the arguments of the process.

    | status | meaning                                                                          |
    |--------|----------------------------------------------------------------------------------|
    | 0      | the command did its work                                                         |
    | 1      | the data or the run failed                                                       |
    | 2      | an option or argument is wrong; no data was read (argparse raises SystemExit(2)) |
    | 130    | Ctrl-C; a training has saved its work so far                                     |
    """
    for name in ("stdout", "stderr"):           # a stream that the caller has closed is None, and print takes the other
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))     # noqa: SIM115
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    options.command = shlex.join(["sparseopt", *arguments])
    try:
        return options.run(options) or 0
    except UsageError as error:
        print(f"sparseopt: {escaped(str(error), 1000)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sparseopt: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:                     # the reader of a pipe has gone, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # else Python would fail once more at exit
        return 1
    except (OSError, EOFError, ValueError, TypeError, ImportError, MemoryError) as error:
        print(f"sparseopt: {escaped(str(error), 1000)}", file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser(prog="sparseopt", description="Train embeddings with sparse optimizers.")
    parser.add_argument("--version", action="version", version=f"sparseopt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config_command = commands.add_parser("config", help="show the instruction set, threads, build flags and versions")
    config_command.set_defaults(run=lambda options: _config.show_config())
    train = commands.add_parser("train", help="train a model").add_subparsers(required=True, metavar="MODEL")
    evaluate = commands.add_parser("evaluate", help="measure the quality of a model")
    evaluate = evaluate.add_subparsers(required=True, metavar="MODEL")
    words.add(train, commands, evaluate)
    ratings.add(train, commands, evaluate)
    clicks.add(train, commands, evaluate)
    compare.add(commands)
    bench.add(commands)
    return parser
