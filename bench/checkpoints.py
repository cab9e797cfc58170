"""Checkpoints: the time and memory of a save and a load, and how many flipped bits are refused.

    python bench/checkpoints.py [--gigabytes 1] [--turns 3] [--folder /tmp] [--flips 1000]

Beside them: the package safetensors, and the bare writing and reading of the bytes, each with an fsync. Each turn is a
process of its own. Needs the package safetensors, and Linux.
"""

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import sparseopt as so


def saves_and_loads(size):
    """From names to what saves to a path, and what loads; all of arrays of so many bytes together."""
    import safetensors.numpy

    opt = so.Adam({"table": so.normal((round(size / (3 * 64 * 4 + 4)), 64), seed=0)})
    opt.step({"table": so.RowGradient(np.arange(1000), opt.params["table"][:1000].copy())})
    for array in opt.state["table"].values():
        array += array.dtype.type(0)            # zeros that nothing was written to take no memory
    arrays = {"table": opt.params["table"], **opt.state["table"]}

    def synced(path):
        with open(path, "rb") as file:
            os.fsync(file.fileno())

    def bare(path):
        with open(path, "wb") as file:
            for array in arrays.values():
                array.tofile(file)
            os.fsync(file.fileno())

    return arrays, {
        "sparseopt": (lambda path: so.save(path, opt), so.load),
        "safetensors": (lambda path: [safetensors.numpy.save_file(arrays, path), synced(path)],
                        safetensors.numpy.load_file),
        "bytes alone": (bare, lambda path: np.fromfile(path, np.uint8)),
    }


def one_turn(name, path, size):
    """Print the seconds of a save and a load, and the memory that each took more, as a share of the arrays."""
    arrays, both = saves_and_loads(size)
    size = sum(array.nbytes for array in arrays.values())
    for call in both[name]:
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        kept = call(path)
        seconds = time.perf_counter() - start
        print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / size)
        del kept


def refused_flips(folder, flips):
    """How many files with one flipped bit, at so many places drawn at random, are refused."""
    path = os.path.join(folder, "small")
    opt = so.Adam({"table": so.normal((200, 8), seed=0)})
    opt.step({"table": so.RowGradient(np.arange(200), np.ones((200, 8), np.float32))})
    so.save(path, opt)
    with open(path, "rb") as file:
        whole = file.read()
    rng, refused = random.Random(0), 0
    for _ in range(flips):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        with open(path, "wb") as file:
            file.write(flipped)
        try:
            so.load(path)
        except ValueError:
            refused += 1
    return refused


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--one", nargs=2, metavar=("NAME", "PATH"), help="a single turn; prints numbers alone")
    options = parser.parse_args()
    size = round(options.gigabytes * 1e9)
    if options.one:
        return one_turn(*options.one, size)
    times = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for _ in range(options.turns):
            for name in ("sparseopt", "safetensors", "bytes alone"):
                command = [sys.executable, __file__, "--gigabytes", str(options.gigabytes), "--one", name,
                           os.path.join(folder, "file")]
                lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
                times.setdefault(name, []).append([float(number) for line in lines for number in line.split()])
                os.unlink(os.path.join(folder, "file"))
        print(f"{options.gigabytes:g} GB of arrays on {options.folder}; median (least, most) of {options.turns} turns")
        print("extra: memory beyond what was there, as a share of the arrays")
        print(f"{'':12s}  {'save s':>19s}  {'load s':>19s}  {'save extra':>10s}  {'load extra':>10s}")
        for name, turns in times.items():
            save, save_extra, load, load_extra = zip(*turns, strict=True)
            spread = "  ".join(f"{statistics.median(one):7.2f} ({min(one):.2f}, {max(one):.2f})"
                               for one in (save, load))
            print(f"{name:12s}  {spread}  {max(save_extra):10.3f}  {max(load_extra):10.3f}")
        print(f"{refused_flips(folder, options.flips):,} of {options.flips:,} files with one flipped bit are refused")


if __name__ == "__main__":
    main()
