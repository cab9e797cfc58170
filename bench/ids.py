"""Rows for keys by `so.IdMap`, beside pandas, pyarrow and dict: nanoseconds of CPU time for a key.

    python bench/ids.py [--keys N] [--look-ups N] [--rounds N]

A map has a million keys, and ten million keys are looked up. The keys come evenly, or by Zipf's law with exponent 1.
The best of several rounds counts. In a round, all columns run one after the other.

| column       | what runs                                                              |
|--------------|------------------------------------------------------------------------|
| IdMap        | `ids.rows(keys, add=False)`                                            |
| and counting | `ids.rows(keys)`, which also counts the uses of each key               |
| pandas       | `pandas.Index(known).get_indexer(keys)`; the index has its table before |
| pyarrow      | `pyarrow.compute.index_in(keys, known)`, in one call for all keys      |
| dict         | a list comprehension with `dict.get`, on a tenth of the keys           |

`index_in` makes its table anew in every call. The time of a call with one key is taken off, as "pyarrow, net" says.
In the rows of strings, both libraries get the named form. pyarrow takes a list by `pyarrow.array(keys)`. Its own form
is an array of strings, and is the fair comparison.
"""

import argparse
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

import sparseopt as so


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--look-ups", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    numbers = rng.permutation(np.unique(rng.integers(0, 2**62, options.keys)))
    weights = np.cumsum(1 / np.arange(1, len(numbers) + 1))
    picks = {"even": rng.integers(0, len(numbers), options.look_ups),
             "Zipf": np.searchsorted(weights, rng.random(options.look_ups) * weights[-1])}
    print(f"{len(numbers):,} keys, {options.look_ups:,} look-ups, best of {options.rounds}; ns a key")
    columns = "IdMap", "and counting", "pandas", "pyarrow", "pyarrow, net", "dict"
    print(f"{'':22}" + "".join(f"{name:>14}" for name in columns), flush=True)
    compare("int64", numbers, picks, options.rounds, {"array": lambda keys: keys})
    names = np.array([f"user-{number}" for number in rng.permutation(10 * len(numbers))[:len(numbers)]])
    compare("str", names, picks, options.rounds,
            {"pyarrow": pa.array, "list": np.ndarray.tolist, "array": lambda keys: keys})


def compare(kind, known, picks, rounds, forms):
    ids, added = so.IdMap(kind), []
    for _ in range(rounds):
        ids = so.IdMap(kind)
        added.append(seconds(lambda ids=ids: ids.rows(known)) / len(known))
    print(f"{kind}: {1e9 * min(added):.0f} ns for a new key")
    index, stored, rows = pd.Index(known), pa.array(known), {key: row for row, key in enumerate(known.tolist())}
    index.get_indexer(known[:1])
    for law, pick in picks.items():
        for form, made in forms.items():
            keys = made(known[pick])
            tenth = (keys if isinstance(keys, list) else keys.tolist() if form == "array" else keys.to_pylist())[::10]
            as_arrow = (lambda keys=keys: keys) if form == "pyarrow" else lambda keys=keys: pa.array(keys)
            runs = {
                "IdMap": lambda keys=keys: ids.rows(keys, add=False),
                "and counting": lambda keys=keys: ids.rows(keys),
                "pandas": (lambda keys=keys: index.get_indexer(keys)) if kind == "int64" else None,
                "pyarrow": lambda as_arrow=as_arrow: pc.index_in(as_arrow(), stored),
                "one": lambda: pc.index_in(stored[:1], stored),
                "dict": lambda tenth=tenth: [rows.get(key, -1) for key in tenth],
            }
            np.testing.assert_array_equal(ids.rows(keys, add=False) - 1, pick)
            np.testing.assert_array_equal(runs["pyarrow"]().to_numpy(), pick)
            times = {name: [] for name in runs}
            for _ in range(rounds):
                for name, run in runs.items():
                    if run is not None:
                        times[name].append(seconds(run))
            best = {name: min(found, default=np.nan) for name, found in times.items()}
            best |= {"pyarrow, net": best["pyarrow"] - best.pop("one"), "dict": 10 * best["dict"]}
            order = "IdMap", "and counting", "pandas", "pyarrow", "pyarrow, net", "dict"
            cells = [f"{1e9 * best[name] / len(pick):14.1f}" for name in order]
            print(f"{f'{kind}, {form}, {law}':22}" + "".join(cells).replace("nan", "  -"), flush=True)


def seconds(run):
    before = time.process_time()
    run()
    return time.process_time() - before


if __name__ == "__main__":
    main()
