"""SkipGram on a long text: peak memory and speed, from files on disk and from a list in memory.

    python bench/long_text.py [--words 300_000_000] [--vocabulary 200_000] [--dim 100] [--epochs 1] [--threads 2]
        [--sources disk,memory] [--file FILE]

The text has lines of 20 words, drawn by Zipf's law. Each part runs in a process of its own. A list takes about
70 bytes of memory for each word, so `--sources disk` is for long texts. Equal checksums mean equal bits of all vectors.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

import sparseopt as so
from sparseopt.datasets import LineSentences
from sparseopt.models import SkipGram

_BLOCK = 1_000_000          # words that are written at a time
_LINE = 20                  # words of a sentence


def write(path, n_words, n_different):
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(n_different)], object)
    shares = np.cumsum(1 / np.arange(3, n_different + 3))           # Zipf's law without its two most frequent words
    shares /= shares[-1]
    with open(path, "w", encoding="ascii") as file:
        for start in range(0, n_words, _BLOCK):
            n = min(_BLOCK, n_words - start)
            drawn = words[np.searchsorted(shares, rng.random(n))].tolist()
            file.writelines(" ".join(drawn[i:i + _LINE]) + "\n" for i in range(0, n, _LINE))


def train(path, source, dim, epochs, threads):
    so.set_num_threads(threads)
    text = LineSentences(path, tokens="whitespace")
    marks = [time.perf_counter()]
    if source == "memory":
        text = list(text)
    marks.append(time.perf_counter())
    model = SkipGram(dim=dim, epochs=epochs, random_state=0)
    done = []

    def callback(progress):
        if not done:
            marks.append(time.perf_counter())
        done[:] = [progress.total]

    model.fit(text, callback)
    marks.append(time.perf_counter())
    n_words = done[0]
    return {"source": source, "words": n_words, "different": len(model.words_),
            "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
            "list s": marks[1] - marks[0], "two passes s": marks[2] - marks[1], "training s": marks[3] - marks[2],
            "words/s": n_words * epochs / (marks[3] - marks[2]), "checksum": zlib.crc32(model.vectors_.tobytes())}


def main():
    parser = argparse.ArgumentParser()
    for name, default in (("words", 300_000_000), ("vocabulary", 200_000), ("dim", 100), ("epochs", 1), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sources", default="disk,memory", type=lambda text: text.split(","))
    parser.add_argument("--file", type=Path, help="where the text is written, and kept")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "write":
        write(options.file, options.words, options.vocabulary)
    elif options.part:
        print(json.dumps(train(options.file, options.part, options.dim, options.epochs, options.threads)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = options.file or Path(folder, "text.txt")

            def part(name):
                settings = [f"--{key}={value}" for key, value in vars(options).items()
                            if key in ("words", "vocabulary", "dim", "epochs", "threads")]
                return subprocess.run([sys.executable, __file__, f"--part={name}", f"--file={path}", *settings],
                                      check=True, capture_output=name != "write", text=True).stdout

            part("write")
            print(f"{options.words:,} words, {path.stat().st_size / 1e6:,.0f} MB; {options.dim} dimensions, "
                  f"{options.epochs} epochs, {options.threads} threads", flush=True)
            head = None
            for source in options.sources:
                row = json.loads(part(source))
                head = head or print("".join(f"{name:>14}" for name in row)) or True
                print("".join(f"{value:>14,.1f}" if isinstance(value, float) and value < 1000 else
                              f"{value:>14,.0f}" if name != "source" and name != "checksum" else f"{value:>14}"
                              for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
