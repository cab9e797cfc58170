"""Seconds and memory for reading ratings from CSV, beside pandas and polars; and for checkpoints with many ids.

    python bench/reading.py [--rows N] [--ids N] [--plain]

Files of N ratings by N / 50 users of 60,000 items are made in a temporary folder: one with integer ids and one with
ids that are texts. Each reader runs in a process of its own. All of them read the file and number users and items from
0. `read_ratings` also checks every cell, leaves one rating of each pair, and keeps the ids. The second table saves and
loads a recommender of N users whose ids are texts of 14 letters. Other libraries take part where they are installed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

READERS = ("read_ratings", "read_ratings, plain", "pandas", "pandas, pyarrow", "polars")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--ids", type=int, default=10_000_000)
    parser.add_argument("--plain", action="store_true", help="also without pyarrow, which takes a minute")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, *arguments = options.one
        print(json.dumps({"save": save, "load": load}[name](*arguments) if name in ("save", "load")
                         else read(name, *arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.rows:
            print(f"{options.rows:,} ratings\n{'':22}  {'ids':8}  {'seconds':>7}  {'GB':>5}")
            for kind in ("integers", "texts"):
                path = Path(folder) / f"{kind}.csv"
                write(path, options.rows, kind)
                for name in READERS:
                    if options.plain or "plain" not in name:
                        show(f"{name:22}  {kind:8}", [name, path])
        if options.ids:
            print(f"\n{options.ids:,} users with ids that are texts\n{'':22}  {'':8}  {'seconds':>7}  {'GB':>5}")
            for name in ("save", "load"):
                show(f"{name:32}", [name, str(options.ids), str(Path(folder) / "checkpoint.safetensors")])


def show(label, arguments):
    """Run one measurement in a process of its own, and print a line."""
    done = subprocess.run([sys.executable, __file__, "--one", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        print(f"{label}  left out: {done.stderr.strip().splitlines()[-1]}", flush=True)
    else:
        seconds, kilobytes = json.loads(done.stdout)
        print(f"{label}  {seconds:7.1f}  {kilobytes / 2**20:5.1f}", flush=True)


def measured(begin):
    return time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def write(path, rows, kind):
    rng = np.random.default_rng(0)
    with open(path, "w") as file:
        file.write("user_id,item_id,rating,timestamp\n")
        form = "{},{},{},{}\n" if kind == "integers" else "A{:013X},B{:09d},{},{}\n"
        for start in range(0, rows, 2**20):
            n = min(2**20, rows - start)
            users = rng.integers(max(1, rows // 50), size=n)
            items = (rng.pareto(1.0, n) * 1000).astype(np.int64) % 60_000
            columns = users, items, rng.integers(1, 11, n) / 2, rng.integers(900_000_000, 1_600_000_000, n)
            file.writelines(map(form.format, *(column.tolist() for column in columns)))


def read(name, path):
    begin = time.perf_counter()
    if name.startswith("read_ratings"):
        if "plain" in name:
            sys.modules["pyarrow"] = None
        from sparseopt import datasets

        begin = time.perf_counter()         # the import is not reading
        datasets.read_ratings(path)
    elif name.startswith("pandas"):
        import pandas

        begin = time.perf_counter()
        table = pandas.read_csv(path, engine="pyarrow" if "pyarrow" in name else "c")
        for column in ("user_id", "item_id"):
            pandas.factorize(table[column], sort=True)
    else:
        import polars

        begin = time.perf_counter()
        table = polars.read_csv(path)
        for column in ("user_id", "item_id"):
            if table[column].dtype == polars.String:
                table[column].cast(polars.Categorical).to_physical()
            else:
                table[column].rank("dense")
    return measured(begin)


def save(n, path):
    from sparseopt.datasets import Ratings
    from sparseopt.models import ImplicitFactorization

    n = int(n)
    users = np.arange(n, dtype=np.int32)
    X = Ratings(users, users % 1000, np.ones(n), None, np.array([f"A{user:013X}" for user in range(n)], object),
                np.arange(1000))
    model = ImplicitFactorization(dim=2, epochs=1, loss="bpr", batch_size=2**20).fit(X)
    begin = time.perf_counter()
    model.save(path)
    return measured(begin)


def load(n, path):
    from sparseopt.models import ImplicitFactorization

    begin = time.perf_counter()
    model = ImplicitFactorization.load(path)
    found = measured(begin)
    assert model.user_ids_[-1] == f"A{int(n) - 1:013X}"
    return found


if __name__ == "__main__":
    main()
