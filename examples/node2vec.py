"""PyTorch Geometric's Node2Vec with its sparse gradients, by torch's optimizer or by sparseopt's.

    python examples/node2vec.py [--optimizer torch|sparseopt|replay] [--nodes N] [--epochs N]

The graph is generated: seven communities, whose nodes have more neighbours within than outside. The vectors are judged
by a logistic regression that tells a node's community. Needs torch_geometric, and pyg_lib or torch_cluster for random
walks (torch_cluster up to torch_geometric 2.7).
"""

import argparse
import time

import torch
from torch_geometric.nn import Node2Vec
from torch_geometric.utils import stochastic_blockmodel_graph

import sparseopt.torch

COMMUNITIES = 7


def optimizer_of(name, model, lr):
    if name == "torch":
        return torch.optim.SparseAdam(model.parameters(), lr=lr)
    if name == "sparseopt":
        return sparseopt.torch.SparseAdam(model.parameters(), lr=lr)
    optimizer = sparseopt.torch.Adam(model.parameters(), lr=lr, missed="replay")
    optimizer.attach(model)
    return optimizer


def graph(nodes, within=12, outside=4):
    """Edges, and the community of each node, which has on average so many neighbours within and outside."""
    size = nodes // COMMUNITIES
    chances = torch.full((COMMUNITIES, COMMUNITIES), outside / (size * (COMMUNITIES - 1)))
    chances.fill_diagonal_(within / size)
    return (stochastic_blockmodel_graph([size] * COMMUNITIES, chances),
            torch.arange(COMMUNITIES).repeat_interleave(size))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizer", choices=["torch", "sparseopt", "replay"], default="sparseopt")
    parser.add_argument("--nodes", type=int, default=2800)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    train(options.optimizer, options.nodes, options.epochs)


def train(name, nodes=2800, epochs=5, dim=128, batch_size=128, lr=0.01, seed=0):
    torch.manual_seed(seed)
    edges, community = graph(nodes)
    model = Node2Vec(edges, embedding_dim=dim, walk_length=20, context_size=10, walks_per_node=10, sparse=True)
    optimizer = optimizer_of(name, model, lr)
    shuffled = torch.randperm(len(community))
    test, training = shuffled.tensor_split([len(shuffled) // 5])
    for epoch in range(1, epochs + 1):
        begin = time.perf_counter()
        for positive, negative in model.loader(batch_size=batch_size, shuffle=True):
            optimizer.zero_grad()
            loss = model.loss(positive, negative)
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - begin
        if name == "replay":
            optimizer.catch_up()        # Node2Vec gives its weights without a call of its Embedding
        with torch.no_grad():
            vectors = model(torch.arange(len(community)))
        accuracy = model.test(vectors[training], community[training], vectors[test], community[test], max_iter=150)
        print(f"epoch {epoch}: {accuracy:.1%} of communities right; {seconds:.1f} s")
    return accuracy


if __name__ == "__main__":
    main()
