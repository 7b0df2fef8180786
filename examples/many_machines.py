"""One graph on many processes: attention over the whole graph, sampled training, and a split knowledge graph.

    torchrun --nproc-per-node=2 examples/many_machines.py              all three, on two processes
    python examples/many_machines.py --models gat                      the same on one
    torchrun --nproc-per-node=2 examples/many_machines.py --short      small generated graphs: does it run at all?

gat     Two layers of attention on the whole GitHub graph (see sampled.py), a part of it on each process. What edges
        read of other processes is exchanged, so that the numbers are those of one process.
sage    GraphSAGE on sampled neighbourhoods: processes share the batches, and DDP averages gradients.
nbfnet  Neural Bellman-Ford networks (Zhu et al., NeurIPS 2021) on CoDEx-S: each process has all nodes and a share of
        the edges, and a layer's sums are added up over the processes.

Memory is what a process needs above what it had before training; bytes are those that it sends in a step of training.
Process 0 prints the table. With --checkpoints FOLDER, gat writes checkpoints and goes on from the last one.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from data import TripleData, data_root, generated, generated_triples, load_codex, load_musae
from knowledge import Ranking, both_ways, message_graph
from peers import percent
from sampled import FAN_OUTS, Network, with_sketches
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import gdsl
import gdsl.distributed as many
import gdsl.nn
from gdsl.data import LayerwiseInference, NeighborLoader, NodeData

HEADER = f"{'model':8}  {'processes':>9}  {'result':>14}  {'epochs / s':>10}  {'MiB':>7}  {'MiB sent a step':>15}"


@dataclass
class Row:
    """A line of the table. seconds: of an epoch; memory: MiB; sent: MiB a step."""

    model: str
    result: str
    seconds: float
    memory: float
    sent: float

    def text(self, world: many.World) -> str:
        numbers = f"{1 / self.seconds:10.2f}  {self.memory:7.0f}  {self.sent:15.2f}"
        return f"{self.model:8}  {world.size:9}  {self.result:>14}  {numbers}"


def memory() -> float:
    """The most that this process had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# The whole graph ---------------------------------------------------------------------------------------------


def gat(data: NodeData, world: many.World, epochs: int, how: str, checkpoints: str | None) -> Row:
    assert data.x is not None
    part = many.partition(gdsl.Graph(data.edge_index, data.num_nodes), how=how)
    graph = part.local()
    x, y, train, test = (part.scatter(v) for v in (data.x, data.y, data.train_mask, data.test_mask))
    torch.manual_seed(0)
    model = Network("gat", gdsl.nn, data.x.shape[1], data.num_classes)
    model(x[:3], gdsl.Graph(torch.tensor([[0], [0]]), len(x[:3]))).sum().backward()  # the compiler is in memory then
    model.zero_grad()
    before = memory()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    training = many.Training(model, optimizer, part=part)
    found = many.load_checkpoint(checkpoints, training) if checkpoints else None
    seconds, sent = [], many.Traffic()
    for epoch in range(found.step if found else 0, epochs):
        start = time.perf_counter()
        optimizer.zero_grad()
        with sent if epoch == epochs - 1 else nullcontext():
            # Dropout would draw other numbers on another number of processes: evaluation mode draws none.
            loss = part.mean(F.cross_entropy(model.eval()(x, graph)[train], y[train], reduction="none"))
            loss.backward()
            many.average_gradients(model)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        if checkpoints and (epoch + 1) % 20 == 0:
            many.save_checkpoint(checkpoints, epoch + 1, training)
    with torch.no_grad():
        right = (model(x, graph).argmax(dim=1) == y)[test].float()
        accuracy = 100 * float(part.mean(right))
    return Row("GAT", f"{accuracy:.2f} %", median(seconds), memory() - before, sent.total / 2**20)


# Sampled neighbourhoods --------------------------------------------------------------------------------------


def sage(data: NodeData, world: many.World, epochs: int, batch_size: int) -> Row:
    assert data.x is not None and data.test_mask is not None
    before = memory()
    torch.manual_seed(0)
    network = Network("sage", gdsl.nn, data.x.shape[1], data.num_classes)
    model = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    # As many seeds in a step as one process has.
    size = max(1, batch_size // world.size)
    share = {"rank": world.rank, "world": world.size, "seed": 0, "shuffle": True}
    loader = NeighborLoader(data, FAN_OUTS, data.train_mask, batch_size=size, **share)
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        model.train()
        with Join([model]):  # for some processes have a batch more
            for batch in loader:
                optimizer.zero_grad()
                out = model(batch.x, batch.graph)[: batch.batch_size]
                F.cross_entropy(out, batch.y[: batch.batch_size]).backward()
                optimizer.step()
        seconds.append(time.perf_counter() - start)
    network.eval()
    out = LayerwiseInference(data)([lambda x, b, k=k: network.layer(k, x, b.graph) for k in range(2)])
    accuracy = percent((out.argmax(dim=1) == data.y)[data.test_mask])
    shared = sum(p.nbytes for p in network.parameters()) * 2 * (world.size - 1) / world.size
    return Row("SAGE", f"{accuracy:.2f} %", median(seconds), memory() - before, shared / 2**20)


# A knowledge graph whose edges are split ----------------------------------------------------------------------

SUMS = """
layer Paths(d, R) {
    linear relations(d -> R*d)
    node x[queries, d]
    edge rel: int(R)
    global asked[queries, d]

    w = split(relations(asked), R*d, R, d)
    message m = x[j] * w[rel]
    update a = sum(m)
    return a
}
"""


class BellmanFord(nn.Module):
    """Of each query (entity, relation) a number for every entity; ``share`` are the edges of this process."""

    def __init__(self, data: TripleData, hidden: int, rounds: int) -> None:
        super().__init__()
        relations = 2 * data.num_relations
        self.entities = data.num_entities
        self.query = nn.Embedding(relations, hidden)
        sums = gdsl.define(SUMS)
        self.sums = nn.ModuleList(sums(d=hidden, R=relations) for _ in range(rounds))
        self.out = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(rounds))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(rounds))
        self.score = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, questions: Tensor, share: gdsl.Graph, relation: Tensor) -> Tensor:
        asked = self.query(questions[:, 1])
        start = asked.new_zeros(self.entities, *asked.shape)
        start = start.index_put((questions[:, 0], torch.arange(len(questions))), asked)
        x = start
        for sums, out, norm in zip(self.sums, self.out, self.norms, strict=True):
            a = many.total(sums(x, asked, share, relation)) + start
            x = x + norm(out(torch.cat([x, a], dim=2))).relu()
        return self.score(torch.cat([x, asked.expand_as(x)], dim=2)).squeeze(2).t()


def shared(triples: Tensor, data: TripleData, world: many.World) -> tuple[gdsl.Graph, Tensor]:
    """Every process has another share of the triples, both ways, and all entities."""
    return message_graph(triples[world.rank :: world.size], data)


def nbfnet(data: TripleData, world: many.World, steps: int, hidden: int, rounds: int = 3, questions: int = 16) -> Row:
    before = memory()
    torch.manual_seed(0)
    model = BellmanFord(data, hidden, rounds)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    seconds, sent, draw = [], many.Traffic(), torch.Generator().manual_seed(0)  # the same on all processes
    for step in range(steps):
        start = time.perf_counter()
        order = torch.randperm(len(data.train), generator=draw)
        asked = both_ways(data.train[order[: questions // 2]], data.num_relations)
        optimizer.zero_grad()
        with sent if step == steps - 1 else nullcontext():
            scores = model(asked, *shared(data.train[order[questions // 2 :]], data, world))
            F.cross_entropy(scores, asked[:, 2]).backward()
            many.average_gradients(model)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    ranking = Ranking(data, data.test[:256])
    whole = shared(data.train, data, world)

    class Scores:
        """As ``Ranking`` asks for them."""

        def eval(self) -> None:
            model.eval()

        def __call__(self, *graph: Any) -> None:
            return None

        def scores(self, h: None, all_questions: Tensor) -> Tensor:
            return torch.cat([model(q, *whole) for q in all_questions.split(questions)])

    mrr = ranking(Scores(), *whole)[0]  # type: ignore[arg-type]
    return Row("NBFNet", f"{mrr:.4f} MRR", median(seconds), memory() - before, sent.total / 2**20)


def median(seconds: list[float]) -> float:
    """Without the first, which compiles."""
    return sorted(seconds[1:] or seconds or [1.0])[len(seconds[1:]) // 2]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default="gat,sage,nbfnet", help="some of gat,sage,nbfnet")
    parser.add_argument("--epochs", type=int, default=100, help="of gat; sage has a tenth, nbfnet twice as many steps")
    parser.add_argument("--how", default="metis", help="metis or hash: how the graph is divided")
    parser.add_argument("--checkpoints", help="a folder for those of gat")
    parser.add_argument("--short", action="store_true", help="small generated graphs, ten epochs")
    args = parser.parse_args(argv)
    wanted = args.models.split(",")
    if unknown := sorted(set(wanted) - {"gat", "sage", "nbfnet"}):
        parser.error(f"there is no model {unknown[0]}; there are gat, sage, nbfnet")
    epochs = 10 if args.short else args.epochs

    graph = None if args.short else load_musae("git", data_root())
    triples = None if args.short else load_codex()
    with many.init() as world:
        say = print if world.rank == 0 else lambda *_, **__: None
        if not args.short and (graph is None or triples is None):
            say("No musae/git.npz or codex-s found (set GDSL_DATA). Training on generated graphs instead.")
        found = with_sketches(generated(600, mean_degree=12.0, num_features=70) if graph is None else graph)
        known = generated_triples() if triples is None else triples
        runs: dict[str, Callable[[], Row]] = {
            "gat": lambda: gat(found, world, epochs, args.how, args.checkpoints),
            "sage": lambda: sage(found, world, max(1, epochs // 10), 32 if args.short else 512),
            "nbfnet": lambda: nbfnet(known, world, 2 * epochs, 8 if args.short else 32),
        }
        say(HEADER)
        for name in wanted:
            say(runs[name]().text(world), flush=True)


if __name__ == "__main__":
    main()
