"""Whole training steps in torch: torch.optim's optimizer beside sparseopt.torch's, in turns, from one start.

    python bench/torch_steps.py [--data NOVELS] [--cases bags,pairs,...] [--pairs sparse,dense] [--threads 1,2]
        [--turns N] [--steps N] [--epochs N]

A step is the forward pass, the backward pass and the optimizer. Times are those of one step, the least of all turns:
CPU time of all threads, and wall time. `optimizer`: its share of the CPU time. With --data, the epoch of
examples/novel_sentences.py, too, and how far its weights are from those of the other optimizer after 300 steps.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import sparseopt.torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import novel_sentences

LR = 1e-3


def zipf(rng, rows, *shape):
    """Row numbers whose chance falls as 1 / (number + 1)."""
    return torch.from_numpy((rows ** rng.random(shape)).astype(np.int64) - 1)


class Bags(nn.Module):
    """The mean of 50 words for each of 2,048 bags."""

    def __init__(self, sparse, rows=1_000_000, dim=64):
        super().__init__()
        self.rows = rows
        self.bag = nn.EmbeddingBag(rows, dim, mode="mean", sparse=sparse)

    def batch(self, rng):
        return zipf(rng, self.rows, 2048, 50),

    def forward(self, words):
        return (self.bag(words) - 1).square().mean()


class Pairs(nn.Module):
    """The product of a user's and an item's vector, for 4,096 pairs."""

    def __init__(self, sparse, rows=1_000_000, dim=64):
        super().__init__()
        self.rows = rows
        self.user, self.item = (nn.Embedding(rows, dim, sparse=sparse) for _ in range(2))

    def batch(self, rng):
        return torch.from_numpy(rng.integers(self.rows, size=4096)), zipf(rng, self.rows, 4096)

    def forward(self, user, item):
        scores = (self.user(user) * self.item(item)).sum(1)
        return F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))


class Walks(nn.Module):
    """Node2Vec's loss as PyTorch Geometric computes it: 14,080 walks of ten nodes, and as many drawn at random."""

    def __init__(self, sparse, rows=100_000, dim=128):
        super().__init__()
        self.rows = rows
        self.embedding = nn.Embedding(rows, dim, sparse=sparse)

    def batch(self, rng):
        return zipf(rng, self.rows, 14_080, 10), torch.from_numpy(rng.integers(self.rows, size=(14_080, 10)))

    def scores(self, walks):
        start, rest = self.embedding(walks[:, 0]), self.embedding(walks[:, 1:].reshape(-1))
        return (start.view(len(walks), 1, -1) * rest.view(len(walks), 9, -1)).sum(-1).view(-1)

    def forward(self, positive, negative):
        return (-torch.log(torch.sigmoid(self.scores(positive)) + 1e-15).mean()
                - torch.log(1 - torch.sigmoid(self.scores(negative)) + 1e-15).mean())


CASES = {"bags": Bags, "pairs": Pairs, "walks": Walks}
PAIRS = {"sparse": ("torch.optim.SparseAdam", "sparseopt.torch.SparseAdam"),
         "dense": ("torch.optim.Adam, dense gradients", 'sparseopt.torch.Adam(missed="replay")')}


def optimizer_of(name, model):
    if name == "SparseAdam":
        return torch.optim.SparseAdam(model.parameters(), lr=LR)
    if name == "Adam":
        return torch.optim.Adam(model.parameters(), lr=LR)
    if name == "ours":
        return sparseopt.torch.SparseAdam(model.parameters(), lr=LR)
    optimizer = sparseopt.torch.Adam(model.parameters(), lr=LR, missed="replay")
    optimizer.attach(model)
    return optimizer


class Turn:
    """One optimizer on a model of its own, which all start alike, and the least times of its turns."""

    def __init__(self, case, name):
        torch.manual_seed(0)
        self.model = CASES[case](sparse=name != "Adam")
        self.optimizer = optimizer_of(name, self.model)
        self.least = np.full(3, np.inf)

    def run(self, batches):
        cpu, wall, stepping = time.process_time(), time.perf_counter(), 0.0
        for batch in batches:
            self.optimizer.zero_grad()
            self.model(*batch).backward()
            begin = time.process_time()
            self.optimizer.step()
            stepping += time.process_time() - begin
        times = np.array([time.process_time() - cpu, time.perf_counter() - wall, stepping]) / len(batches) * 1e3
        self.least = np.minimum(self.least, times)


def deviation(model, other):
    """The largest difference of a weight; `state_dict` brings all rows up."""
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def show(name, threads, theirs, ours, last):
    columns = [f"{name:>8} {threads:>7}"]
    for before, after in zip(theirs[:2], ours[:2], strict=True):
        columns.append(f"{before:>8.1f} → {after:>6.1f} {before / after:>6.2f}x")
    print(*columns, f"{theirs[2] / theirs[0]:>7.0%} → {ours[2] / ours[0]:>4.0%} {last:>10.1e}", flush=True)


def steps(options, pair):
    print(f"{'case':>8} {'threads':>7} {'CPU ms':>17} {'ratio':>7} {'wall ms':>17} {'ratio':>7} {'optimizer':>14} "
          f"{'deviation':>10}")
    for case, threads in itertools.product(options.cases, options.threads):
        torch.set_num_threads(threads)
        turns = [Turn(case, name) for name in (("SparseAdam", "ours") if pair == "sparse" else ("Adam", "replay"))]
        rng = np.random.default_rng(0)
        for number in range(options.turns):
            batches = [turns[0].model.batch(rng) for _ in range(options.steps)]
            for turn in turns[::-1] if number % 2 else turns:
                turn.run(batches)
        show(case, threads, turns[0].least, turns[1].least, deviation(turns[0].model, turns[1].model))


def novels(options, pair):
    """An epoch of the classifier with each optimizer, in turns, and their weights after 300 steps."""
    names = ("torch", "sparseopt") if pair == "sparse" else ("dense", "replay")

    def start(name):
        torch.manual_seed(0)
        model = novel_sentences.Classifier(8, sparse=name != "dense")
        return model, novel_sentences.optimizers_of(name, model)

    training, test = novel_sentences.loaders_of(novel_sentences.read(options.data))
    for threads in options.threads:
        torch.set_num_threads(threads)
        least, right = {name: np.full(3, np.inf) for name in names}, {}
        for number in range(options.epochs):
            for name in names[::-1] if number % 2 else names:
                model, optimizers = start(name)
                cpu = time.process_time()
                step, wall = novel_sentences.train(model, optimizers, training)
                least[name] = np.minimum(least[name], [time.process_time() - cpu, wall, step])
                right[name] = novel_sentences.accuracy(model, test)
        print(f"an epoch of the novels, {threads} threads; {right[names[0]]:.1%} and {right[names[1]]:.1%} right")
        for what, before, after in zip(("CPU s", "wall s", "of it in steps"), *least.values(), strict=True):
            print(f"{what:>20} {before:>7.2f} → {after:>6.2f} {before / after:>6.2f}x", flush=True)
    models = []
    for name in names:
        model, optimizers = start(name)
        batches = itertools.chain.from_iterable(itertools.repeat(training))
        novel_sentences.train(model, optimizers, itertools.islice(batches, 300))
        models.append(model)
    moved = deviation(models[0], start(names[0])[0])
    print(f"after 300 steps: largest deviation of a weight {deviation(*models):.1e}, of a weight from its start "
          f"{moved:.2f}")


def main():
    def several(allowed):
        def chosen(text):
            if not set(text.split(",")) <= set(allowed):
                raise argparse.ArgumentTypeError(f"{text!r}; it must be some of {','.join(allowed)}")
            return text.split(",")
        return chosen

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="NOVELS", help="the folder of texts of examples/novel_sentences.py")
    parser.add_argument("--cases", type=several(CASES), default=list(CASES))
    parser.add_argument("--pairs", type=several(PAIRS), default=list(PAIRS))
    parser.add_argument("--threads", type=lambda text: [int(number) for number in text.split(",")], default=[1, 2])
    parser.add_argument("--turns", type=int, default=5, help="0 leaves the cases out (default: 5)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn (default: 10)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the novels, for each optimizer (default: 3)")
    options = parser.parse_args()
    for pair in options.pairs:
        print(f"\n{' → '.join(PAIRS[pair])}")
        if options.turns:
            steps(options, pair)
        if options.data:
            novels(options, pair)


if __name__ == "__main__":
    main()
