"""Links of a knowledge graph predicted with RGCN and DistMult, on CoDEx-S.

    python examples/knowledge.py                           RGCN with DistMult, and DistMult alone, 3 seeds each
    python examples/knowledge.py --models rgcn --seeds 1
    python examples/knowledge.py --short                   one seed and few epochs

As in section 4 of Schlichtkrull et al., "Modeling Relational Data with Graph Convolutional Networks", ESWC 2018: two
layers of RGCN, with weights mixed from bases, make a vector of each entity from those of its neighbours; DistMult
scores a triple by sum_k head_k relation_k tail_k. Each triple asks two questions, for its tail and for its head. A
relation read backwards is one more relation, for the messages and for the questions. Training is by a softmax over all
entities instead of the paper's sampled negatives: the entities are few.

A step asks for a part of the training triples and sends messages along the rest. An encoder that sees the very edge
that it is asked for learns to find that edge, which a test triple does not have.

Ranks are filtered, as usual: other right answers, from whichever part, are left out of the competition. Equal scores
share their mean rank. The figures are of the epoch with the best validation MRR. The first row is the network with its
parameters as drawn.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch
from data import TripleData, generated_triples, load_codex
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import gdsl
from gdsl import nn as layers

MODELS = ("rgcn", "distmult")
METRICS = ("MRR", "Hits@1", "Hits@3", "Hits@10")


class Network(nn.Module):
    """Vectors of entities and relations, the former with or without RGCN's layers."""

    def __init__(self, kind: str, data: TripleData, hidden: int, bases: int = 8, dropout: float = 0.3) -> None:
        super().__init__()
        relations = 2 * data.num_relations
        self.entity = nn.Parameter(torch.empty(data.num_entities, hidden))
        self.relation = nn.Parameter(torch.empty(relations, hidden))
        for vectors in (self.entity, self.relation):
            nn.init.xavier_normal_(vectors)
        self.convs = nn.ModuleList(
            layers.RGCNConv(hidden, hidden, relations, num_bases=bases) for _ in range(2 if kind == "rgcn" else 0)
        )
        self.dropout = dropout

    def forward(self, graph: gdsl.Graph, edge_type: Tensor) -> Tensor:
        """The vector of each entity: [entities, hidden]."""
        h = self.entity
        for conv in self.convs:
            # What an entity is itself goes around the layer, so that neighbours add to it.
            h = h + F.dropout(torch.tanh(conv(h, graph, edge_type)), self.dropout, self.training)
        return h

    def scores(self, h: Tensor, questions: Tensor) -> Tensor:
        """Of every entity as the answer to (head, relation): [questions, entities]."""
        asked = h[questions[:, 0]] * self.relation[questions[:, 1]]
        return F.dropout(asked, self.dropout, self.training) @ h.t()


def both_ways(triples: Tensor, num_relations: int) -> Tensor:
    """The triples, and behind them the same read backwards: (tail, relation + num_relations, head)."""
    head, relation, tail = triples.t()
    return torch.cat([triples, torch.stack([tail, relation + num_relations, head], dim=1)])


def message_graph(triples: Tensor, data: TripleData) -> tuple[gdsl.Graph, Tensor]:
    """The graph of the triples in both directions, and the relation of each edge."""
    head, relation, tail = both_ways(triples, data.num_relations).t()
    return gdsl.Graph(torch.stack([head, tail]), data.num_entities), relation


class Ranking:
    """The filtered ranks of a part's answers."""

    def __init__(self, data: TripleData, part: Tensor) -> None:
        self.questions = both_ways(part, data.num_relations)
        known = both_ways(torch.cat([data.train, data.val, data.test]), data.num_relations)

        def number(triples: Tensor) -> Tensor:
            return triples[:, 0] * 2 * data.num_relations + triples[:, 1]

        asked, place = number(self.questions).unique(return_inverse=True)
        known = known[torch.isin(number(known), asked)]
        right = torch.zeros(len(asked), data.num_entities, dtype=torch.bool)
        right[torch.searchsorted(asked, number(known)), known[:, 2]] = True
        self.others = right[place]
        self.others[torch.arange(len(self.questions)), self.questions[:, 2]] = False

    def __call__(self, network: Network, graph: gdsl.Graph, edge_type: Tensor) -> list[float]:
        """MRR and the hits, as in `METRICS`."""
        network.eval()
        with torch.no_grad():
            scores = network.scores(network(graph, edge_type), self.questions)
        found = scores.gather(1, self.questions[:, 2:])
        scores[self.others] = -torch.inf
        above = (scores > found).sum(dim=1)
        # The answer itself is one of the equal ones.
        equal = (scores == found).sum(dim=1) - 1
        rank = 1.0 + above + 0.5 * equal
        return [(1 / rank).mean().item(), *((rank <= k).float().mean().item() for k in (1, 3, 10))]


def train(
    kind: str, data: TripleData, seed: int, epochs: int, hidden: int, parts: int = 10
) -> tuple[list[float], list[float]]:
    """The test metrics of the network as drawn, and of the one trained, with a progress bar."""
    torch.manual_seed(seed)
    network = Network(kind, data, hidden)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    validate, test = Ranking(data, data.val), Ranking(data, data.test)
    whole = message_graph(data.train, data)
    untrained = found = test(network, *whole)
    best = 0.0
    bar = tqdm(range(epochs), desc=f"{kind.upper()} on {data.name}, seed {seed}", leave=False, disable=None)
    for epoch in bar:
        network.train()
        order = torch.randperm(len(data.train)).chunk(parts)
        for k, asked in enumerate(order):
            rest = torch.cat([other for n, other in enumerate(order) if n != k])
            questions = both_ways(data.train[asked], data.num_relations)
            h = network(*message_graph(data.train[rest], data))
            loss = F.cross_entropy(network.scores(h, questions), questions[:, 2], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch % 2 and epoch + 1 < epochs:
            continue
        mrr = validate(network, *whole)[0]
        if mrr > best:
            best, found = mrr, test(network, *whole)
        bar.set_postfix(loss=f"{loss.item():.3f}", val_mrr=f"{mrr:.3f}", refresh=False)
    bar.close()
    return untrained, found


def row(name: str, data: TripleData, runs: list[list[float]]) -> str:
    """A line of the table: the mean and standard deviation of each metric."""
    cells = []
    for values in zip(*runs, strict=True):
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{statistics.fmean(values):.3f} ± {std:.3f}")
    return f"{name:18}  {data.name:18}  " + "  ".join(cells) + f"  {len(runs):5}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS), help=f"some of {','.join(MODELS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=96, help="numbers in a vector")
    parser.add_argument("--short", action="store_true", help="one seed, one epoch, 32 numbers")
    args = parser.parse_args(argv)
    kinds = args.models.split(",")
    unknown = sorted(set(kinds) - set(MODELS))
    if unknown:
        parser.error(f"there is no model {unknown[0]}; there are {', '.join(MODELS)}")
    seeds, epochs, hidden = (1, 1, 32) if args.short else (args.seeds, args.epochs, args.hidden)

    data = load_codex()
    if data is None:
        print(
            "No codex-s files found (set GDSL_DATA to the folder that holds codex-s/). "
            "Training on generated triples instead."
        )
        data = generated_triples()
    print(f"{'model':18}  {'data':18}  " + "  ".join(f"{name:13}" for name in METRICS) + "  seeds")
    for kind in kinds:
        runs = [train(kind, data, seed, epochs, hidden) for seed in range(seeds)]
        print(row(f"{kind.upper()} untrained", data, [untrained for untrained, _ in runs]))
        print(row(kind.upper(), data, [trained for _, trained in runs]))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
