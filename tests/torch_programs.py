"""A small model for torch, its data and its training, for tests and for processes that tests start."""

import torch

import sparseopt.torch


class Model(torch.nn.Module):
    """Words and a dense head: sparse and dense gradients in one model."""

    def __init__(self, is_sparse=True, words=30):
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.EmbeddingBag(words, 4, sparse=is_sparse)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, bags):
        return self.head(self.words(bags))


def batches(n, words=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        yield torch.randint(words, (8, 3), generator=generator), torch.randint(2, (8,), generator=generator)


def train(model, opt, data, after=lambda: None):
    for bags, labels in data:
        opt.zero_grad()
        torch.nn.functional.cross_entropy(model(bags), labels).backward()
        opt.step()
        after()
    return model


class Bags(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        return torch.randint(30, (3,), generator=generator), torch.randint(2, (), generator=generator)


def train_in_shared_memory(model):
    torch.set_num_threads(1)
    train(model, sparseopt.torch.SGD(model.parameters(), lr=0.1), batches(3))
