"""Which novel is this sentence from? Words and pairs of words, averaged by an EmbeddingBag, and one linear layer.

    python examples/novel_sentences.py [FOLDER] [--optimizer torch|sparseopt|one|dense|replay] [--epochs N] [--rows N]
        [--threads N]

FOLDER has one text file per novel; without FOLDER the sentences are generated. A tenth of the sentences is held out.
A word or pair has the row of its hash, as in fastText (Joulin et al. 2017, "Bag of Tricks for Efficient Text
Classification").
"""

import argparse
import itertools
import random
import re
import time
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import sparseopt.torch

OPTIMIZERS = {
    "torch": "torch.optim.SparseAdam for the table, torch.optim.Adam for the layer",
    "sparseopt": "the same program with sparseopt.torch in place of torch.optim",
    "one": "sparseopt.torch.SparseAdam for both",
    "dense": "torch.optim.Adam on dense gradients",
    "replay": 'sparseopt.torch.Adam with missed="replay"',
}


class Classifier(nn.Module):
    def __init__(self, classes, rows=1_000_000, dim=64, sparse=True):
        super().__init__()
        self.bag = nn.EmbeddingBag(rows, dim, mode="mean", sparse=sparse)
        self.layer = nn.Linear(dim, classes)
        nn.init.uniform_(self.bag.weight, -1 / dim, 1 / dim)

    def forward(self, words, starts):
        return self.layer(self.bag(words, starts))


def optimizers_of(name, model, lr=5e-3):
    if name in ("torch", "sparseopt"):      # torch's SparseAdam refuses dense gradients, and its Adam sparse ones
        optim = torch.optim if name == "torch" else sparseopt.torch
        return [optim.SparseAdam(model.bag.parameters(), lr=lr), optim.Adam(model.layer.parameters(), lr=lr)]
    if name == "one":
        return [sparseopt.torch.SparseAdam(model.parameters(), lr=lr)]
    if name == "dense":
        return [torch.optim.Adam(model.parameters(), lr=lr)]
    optimizer = sparseopt.torch.Adam(model.parameters(), lr=lr, missed="replay")
    optimizer.attach(model)                 # rows catch up before the model reads them
    return [optimizer]


def read(folder):
    """The sentences of five words or more, each with the number of its novel."""
    novels = sorted(path for path in Path(folder).glob("*.txt") if path.name != "SOURCE.txt")
    for number, path in enumerate(novels):
        text = path.read_text(encoding="utf-8", errors="ignore")
        text = re.sub(r"(?s)^.*?\*\*\* ?START OF.*?\*\*\*|\*\*\* ?END OF.*$", "", text)
        for sentence in re.split(r"(?<=[.!?])\s+", text):
            words = re.findall(r"[^\W\d_]+", sentence.lower())
            if len(words) >= 5:
                yield words, number


def generate(novels=8, each=400, seed=0):
    """Sentences of twelve words; the novels share all words, and differ in how often they use one."""
    rng = random.Random(seed)
    words = [f"word{n}" for n in range(2000)]
    for number in range(novels):
        weights = [1 / (1 + rank) for rank in range(len(words))]
        rng.shuffle(weights)
        yield from ((rng.choices(words, weights, k=12), number) for _ in range(each))


def rows_of(words, rows):
    """The rows of the words and of the pairs of neighbours."""
    pairs = map(" ".join, itertools.pairwise(words))
    return torch.tensor([zlib.crc32(text.encode()) % rows for text in (*words, *pairs)])


def collate(batch):
    """One tensor of all rows, the place where each sentence starts, and the novels."""
    sentences, novels = zip(*batch, strict=True)
    starts = torch.tensor([0, *map(len, sentences[:-1])]).cumsum(0)
    return torch.cat(sentences), starts, torch.tensor(novels)


def loaders_of(sentences, rows=1_000_000, batch_size=512, seed=0):
    """Batches to train with, in another order each epoch, and batches to test with."""
    data = [(rows_of(words, rows), novel) for words, novel in sentences]
    random.Random(seed).shuffle(data)
    held_out = len(data) // 10
    return (DataLoader(data[held_out:], batch_size, shuffle=True, collate_fn=collate),
            DataLoader(data[:held_out], batch_size, collate_fn=collate))


def train(model, optimizers, batches):
    """One epoch; the seconds of the optimizers' steps and of the epoch."""
    begin, stepping = time.perf_counter(), 0.0
    for words, starts, novels in batches:
        loss = F.cross_entropy(model(words, starts), novels)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        step = time.perf_counter()
        for optimizer in optimizers:
            optimizer.step()
        stepping += time.perf_counter() - step
    return stepping, time.perf_counter() - begin


@torch.no_grad()
def accuracy(model, batches):
    right = [model(words, starts).argmax(1) == novels for words, starts, novels in batches]
    return torch.cat(right).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sparseopt")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table (default: a million)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    training, test = loaders_of(read(options.folder) if options.folder else generate(), options.rows)
    classes = 1 + max(novel for _, novel in training.dataset)
    model = Classifier(classes, options.rows, sparse=options.optimizer != "dense")
    optimizers = optimizers_of(options.optimizer, model)
    print(f"{len(training.dataset):,} sentences of {classes} novels; {OPTIMIZERS[options.optimizer]}")
    for epoch in range(1, options.epochs + 1):
        stepping, seconds = train(model, optimizers, training)
        print(f"epoch {epoch}: {accuracy(model, test):.1%} of held-out sentences right; step "
              f"{stepping / len(training) * 1e3:.2f} ms, epoch {seconds:.2f} s")


if __name__ == "__main__":
    main()
