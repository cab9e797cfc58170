"""Neural collaborative filtering (NeuMF) on MovieLens: one model, and Adam in five ways.

    python examples/neural_collaborative_filtering.py [FOLDER] [--optimizer NAME] [--epochs N] [--seed N]

FOLDER holds MovieLens' ratings.csv; without FOLDER the ratings are generated. The last rating of each user is held out.
The hit rate is the share of users whose held-out item is among the first ten of 100 items: 99 others are drawn from
those that the user has not rated (He et al. 2017, "Neural Collaborative Filtering"). `of all` ranks all such items.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import sparseopt.torch

OPTIMIZERS = {
    "dense": "torch.optim.Adam on dense gradients",
    "sparse": "torch.optim.SparseAdam, and torch.optim.Adam for the dense layers",
    "global": "sparseopt.torch.Adam, one step count a table",
    "row": "sparseopt.torch.Adam, one step count a row",
    "replay": "sparseopt.torch.Adam with the steps that rows have missed",
}


class NeuMF(nn.Module):
    """The product of two vectors beside a small network on two others, as in Section 3.4 of the paper."""

    def __init__(self, users, items, factors=64, layers=(64, 32, 16), sparse=True):
        super().__init__()
        self.tables = nn.ModuleDict({
            "user_product": nn.Embedding(users, factors, sparse=sparse),
            "item_product": nn.Embedding(items, factors, sparse=sparse),
            "user_network": nn.Embedding(users, layers[0] // 2, sparse=sparse),
            "item_network": nn.Embedding(items, layers[0] // 2, sparse=sparse),
        })
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=0.01)
        self.network = nn.Sequential()
        for narrower, wider in zip(layers[1:], layers, strict=False):
            self.network += nn.Sequential(nn.Linear(wider, narrower), nn.ReLU())
        self.output = nn.Linear(factors + layers[-1], 1)

    def forward(self, user, item):
        product = self.tables["user_product"](user) * self.tables["item_product"](item)
        both = torch.cat([self.tables["user_network"](user), self.tables["item_network"](item)], dim=1)
        return self.output(torch.cat([product, self.network(both)], dim=1)).squeeze(1)


def optimizers_of(name, model, lr):
    tables, layers = model.tables.parameters(), [*model.network.parameters(), *model.output.parameters()]
    if name == "dense":
        return [torch.optim.Adam(model.parameters(), lr=lr)]
    if name == "sparse":                            # refuses dense gradients, as Adam refuses sparse ones
        return [torch.optim.SparseAdam(tables, lr=lr), torch.optim.Adam(layers, lr=lr)]
    if name in ("global", "row"):
        return [sparseopt.torch.Adam(model.parameters(), lr=lr, step_count=name)]
    optimizer = sparseopt.torch.Adam(model.parameters(), lr=lr, missed="replay")
    optimizer.attach(model)                         # rows catch up before the model reads them
    return [optimizer]


def read(folder):
    """User, item and time of each rating, both ids numbered from 0."""
    user, item, _, when = np.loadtxt(Path(folder) / "ratings.csv", delimiter=",", skiprows=1, unpack=True)
    return np.unique(user, return_inverse=True)[1], np.unique(item, return_inverse=True)[1], when


def generate(users=300, items=600, each=40, tastes=6, seed=0):
    """Ratings of users who like the items of one taste, the popular ones most."""
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(1, items // tastes + 1)
    item = np.concatenate([user % tastes + tastes * rng.choice(len(chance), each, False, chance / chance.sum())
                           for user in range(users)])
    return np.repeat(np.arange(users), each), item, rng.permutation(len(item))


class Ratings:
    """Pairs to train with, the last item of each user to test with, and draws of items that a user has not rated."""

    def __init__(self, user, item, when, seed=0):
        rng = np.random.default_rng(seed)
        self.users, self.items = user.max() + 1, item.max() + 1
        self.rated = np.zeros((self.users, self.items), bool)
        self.rated[user, item] = True
        order = np.lexsort((when, user))
        last = np.append(np.diff(user[order]) != 0, True)
        self.user, self.item = user[order][~last], item[order][~last]
        self.held_out = item[order][last]
        self.others = self.unrated(np.repeat(np.arange(self.users), 99), rng).reshape(-1, 99)

    def unrated(self, user, rng):
        item = rng.integers(self.items, size=len(user))
        while len(again := np.flatnonzero(self.rated[user, item])):
            item[again] = rng.integers(self.items, size=len(again))
        return item

    def epoch(self, rng, negatives=4):
        """All pairs and `negatives` unrated items for each, shuffled, as tensors: user, item, whether rated."""
        user = np.repeat(self.user, 1 + negatives)
        item = np.repeat(self.item, 1 + negatives).reshape(-1, 1 + negatives)
        item[:, 1:] = self.unrated(np.repeat(self.user, negatives), rng).reshape(-1, negatives)
        label = np.zeros(item.shape, np.float32)
        label[:, 0] = 1
        order = rng.permutation(len(user))
        return [torch.from_numpy(a.ravel()[order]) for a in (user, item, label)]


@torch.no_grad()
def hit_rate(model, ratings, first=10):
    """The share of users whose held-out item is among the `first` of 100."""
    items = torch.from_numpy(np.column_stack([ratings.held_out, ratings.others]))
    users = torch.arange(len(items))[:, None].expand_as(items)
    scores = model(users.flatten(), items.flatten()).view_as(items)
    return ((scores[:, 1:] >= scores[:, :1]).sum(1) < first).float().mean().item()


@torch.no_grad()
def hit_rate_of_all(model, ratings, first=10):
    """The share of users whose held-out item is among the `first` of all items that they have not rated before."""
    every = torch.arange(ratings.items)
    hits = 0
    for user, own in enumerate(ratings.held_out):
        scores = model(torch.tensor(user).expand_as(every), every)
        hits += int((scores[~ratings.rated[user]] >= scores[own]).sum()) < first
    return hits / ratings.users


def epoch(model, optimizers, batches):
    for user, item, label in batches:
        loss = F.binary_cross_entropy_with_logits(model(user, item), label)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()


def train(ratings, name, epochs=12, batch_size=2048, lr=2e-3, seed=0, **shape):
    """Yield the model and the seconds of training after each epoch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = NeuMF(ratings.users, ratings.items, sparse=name != "dense", **shape)
    optimizers = optimizers_of(name, model, lr)
    for _ in range(epochs):
        begin = time.perf_counter()
        epoch(model, optimizers, zip(*(a.split(batch_size) for a in ratings.epoch(rng)), strict=True))
        yield model, time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="replay")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ratings = Ratings(*(read(options.folder) if options.folder else generate()))
    print(f"{ratings.users:,} users, {ratings.items:,} items, {len(ratings.user):,} ratings; "
          f"{OPTIMIZERS[options.optimizer]}")
    epochs = train(ratings, options.optimizer, options.epochs, seed=options.seed)
    for number, (model, seconds) in enumerate(epochs, 1):
        print(f"epoch {number}: hit rate at 10 {hit_rate(model, ratings):.3f}; {seconds:.1f} s")
    print(f"hit rate at 10 of all items: {hit_rate_of_all(model, ratings):.3f}")


if __name__ == "__main__":
    main()
