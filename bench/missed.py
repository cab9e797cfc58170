"""Train word vectors with missed="skip", "replay" and "dense" from one start: loss curves, times and differences.

    python bench/missed.py [--epochs N] [--optimizer NAME] [--picture FILE] [FILE ...]

Without a file, the text is the documentation that every Python carries. The picture needs the extra `cli`.
"""

import argparse
import time

import numpy as np

from sparseopt import datasets
from sparseopt._files import save_picture
from sparseopt.models import GloVe
from sparseopt.models.glove import cooccurrence
from sparseopt.models.words import tokenize, vocabulary


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--optimizer", default="Adam")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--picture")
    options = parser.parse_args()
    texts = datasets.read_texts(options.files) if options.files else datasets.python_documentation()
    tokens = [token for text in texts for token in tokenize(text)]
    words, _ = vocabulary(tokens)
    X = cooccurrence([tokens], words)
    print(f"{len(words):,} words, {X.nnz:,} pairs, {options.optimizer}, {options.batch_size} pairs a step")
    models, seconds = {}, {}
    for missed in ("dense", "replay", "skip"):
        models[missed] = GloVe(optimizer=options.optimizer, lr=options.lr, epochs=options.epochs, missed=missed,
                               batch_size=options.batch_size)
        begin = time.perf_counter()
        models[missed].fit(X)
        seconds[missed] = time.perf_counter() - begin
    dense = models["dense"]
    print(f"{'missed':>8}  {'seconds':>8}  {'last loss':>10}  {'loss curve off dense':>21}  {'vectors off dense':>18}")
    for missed, model in models.items():
        curve = np.max(np.abs(np.array(model.loss_curve_) / dense.loss_curve_ - 1))
        vectors = np.linalg.norm(model.vectors_ - dense.vectors_) / np.linalg.norm(dense.vectors_)
        print(f"{missed:>8}  {seconds[missed]:8.1f}  {model.loss_curve_[-1]:10.5f}  {curve:21.1e}  {vectors:18.1e}")
    if options.picture:
        draw(models, options)


def draw(models, options):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    styles = {"dense": dict(linewidth=5, alpha=0.35), "replay": dict(linestyle="--", color="k"),
              "skip": dict(marker=".")}
    for missed, model in models.items():
        axes.plot(np.arange(1, options.epochs + 1), model.loss_curve_, label=missed, **styles[missed])
    axes.set(xlabel="epoch", ylabel="mean weighted squared error", yscale="log",
             title=f"GloVe, {options.optimizer}, {options.batch_size} pairs a step")
    axes.legend()
    axes.grid(alpha=0.3)
    save_picture(figure, options.picture)
    print(f"drawn: {options.picture}")


if __name__ == "__main__":
    main()
