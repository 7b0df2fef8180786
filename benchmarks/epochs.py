"""Whole epochs of training, batches included: gdsl's loaders and layers against torch_geometric's.

    python benchmarks/epochs.py --json epochs.json --markdown
    python benchmarks/epochs.py --threads 1 --tasks molecules --models GIN --epochs 2
    python benchmarks/epochs.py --tasks github,rmat --data FOLDER

An epoch makes each batch, and trains on it: forward, loss, backward, step. The ways run in turns in this process, of
which each loader feeds each library's layers, of sampled neighbours gdsl's also block by block. torch_geometric samples
where torch-sparse or pyg-lib is there. DGL, where it is there, feeds its own layers, of which each has a graph of its
own, as a block is; its attention adds no loops. Ratios are taken within a round. Before anything is timed, the models
of gdsl and of torch_geometric give the same loss for the same weights and batch.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import graphs
import machine
import numpy as np
import report
import torch
import torch_geometric.loader
import torch_geometric.nn
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

import gdsl.nn
from gdsl.data import Loader, NeighborLoader, pack

dgl: Any = None
with contextlib.suppress(ImportError, OSError):
    import dgl
    import dgl.nn


class Nothing(nn.Module):
    """In the place of a layer, what takes no time: its targets' rows, as wide as it gives them, with a gradient."""

    def __init__(self, width: int):
        super().__init__()
        self.width, self.one = width, nn.Parameter(torch.ones(()))

    def forward(self, x: Any, *_: Any) -> Tensor:
        rows: Tensor = x[1] if isinstance(x, tuple) else x
        missing = self.width - rows.shape[1]
        return (nn.functional.pad(rows, (0, missing)) if missing > 0 else rows[:, : self.width]) * self.one


# What a model takes besides its layers, with any library: embeddings, norms, the readout, the optimizer.
NONE = "none"
WITHOUT_LAYERS = SimpleNamespace(
    GINConv=lambda mlp: Nothing(mlp[-1].out_features),
    PNAConv=lambda _, width, *args, **kwargs: Nothing(width),
    SAGEConv=lambda _, width: Nothing(width),
    GATConv=lambda _, width, heads: Nothing(width * heads),
    global_add_pool=gdsl.nn.global_add_pool,
)

LIBRARIES: dict[str, Any] = {"gdsl": gdsl.nn, "torch_geometric": torch_geometric.nn, NONE: WITHOUT_LAYERS}
TOLERANCE = 2e-3
ATOM_KINDS, BOND_KINDS = 28, 4


class Way(NamedTuple):
    """A loader, and the layers that it feeds."""

    loader: str
    layers: str


# -- molecules -------------------------------------------------------------------------------------


def molecules(count: int) -> list[Data]:
    random = np.random.default_rng(graphs.SEED)
    found = []
    for _ in range(count):
        size = int(random.integers(20, 31))
        bonds = torch.tensor(graphs._molecule(size, random)).t()
        kinds = torch.from_numpy(random.integers(0, BOND_KINDS, bonds.shape[1]))
        found.append(
            Data(
                x=torch.from_numpy(random.integers(0, ATOM_KINDS, size)),
                edge_index=torch.cat([bonds, bonds.flip(0)], dim=1),
                edge_attr=torch.cat([kinds, kinds]),
                y=torch.from_numpy(random.standard_normal((1, 1), dtype=np.float32)),
            )
        )
    return found


class Molecules(nn.Module):
    """Layers on embedded atoms and bonds, with batch norms between, and a readout, as in benchmarks of molecules."""

    def __init__(self, kind: str, library: Any, hidden: int, depth: int, degrees: Tensor):
        super().__init__()
        self.atoms, self.bonds = nn.Embedding(ATOM_KINDS, hidden), nn.Embedding(BOND_KINDS, hidden)
        self.edges = kind == "PNA"
        self.convs = nn.ModuleList(_layer(kind, library, hidden, degrees) for _ in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(depth))
        self.pool = library.global_add_pool
        self.last = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, batch: Any, edges: Any) -> Tensor:
        h = self.atoms(batch.x)
        given = (self.bonds(batch.edge_attr),) if self.edges else ()
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = norm(conv(h, edges, *given)).relu()
        return self.last(self.pool(h, batch.batch, batch.num_graphs))


def _layer(kind: str, library: Any, hidden: int, degrees: Tensor) -> nn.Module:
    if kind == "GIN":
        return library.GINConv(nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)))
    return library.PNAConv(
        hidden, hidden, ["mean", "min", "max", "std"], ["identity", "amplification", "attenuation"], degrees,
        edge_dim=hidden, towers=4, divide_input=True,
    )  # fmt: skip


class Task(NamedTuple):
    """What is trained: the batches of each loader, a model for each library, the loss of a batch; of neighbours also
    their samples alone, without features."""

    batches: dict[str, Callable[[], Iterable[Any]]]
    models: dict[str, nn.Module]
    loss: Callable[[nn.Module, Any, Any], Tensor]
    about: str
    samples: dict[str, Callable[[], Iterable[Any]]] = {}


def _molecules(kind: str, args: argparse.Namespace) -> Task:
    items = molecules(args.molecules)
    packed = pack(items)
    degrees = torch.bincount(torch.cat([torch.bincount(i.edge_index[1], minlength=i.num_nodes) for i in items]))
    own = Loader(packed, args.batch, shuffle=True, seed=graphs.SEED, num_workers=args.workers)
    their = DataLoader(items, args.batch, shuffle=True)
    models = {name: Molecules(kind, lib, args.hidden, args.depth, degrees) for name, lib in LIBRARIES.items()}

    def loss(model: nn.Module, batch: Any, edges: Any) -> Tensor:
        return nn.functional.mse_loss(model(batch, edges), batch.y)

    about = f"{args.molecules:,} molecules, batches of {args.batch}, {args.depth} layers of {args.hidden}"
    return Task({"gdsl": lambda: own, "torch_geometric": lambda: their}, models, loss, about)


# -- neighbours ------------------------------------------------------------------------------------


class Sampled(nn.Module):
    """Two layers, of which the seeds' rows count."""

    def __init__(self, kind: str, library: Any, features: int, hidden: int, classes: int):
        super().__init__()
        if kind == "SAGE":
            self.convs = nn.ModuleList([library.SAGEConv(features, hidden), library.SAGEConv(hidden, classes)])
        else:
            heads = library.GATConv(features, hidden // 4, heads=4)
            self.convs = nn.ModuleList([heads, library.GATConv(hidden, classes, heads=1)])

    def forward(self, batch: Any, edges: Any) -> Tensor:
        first, second = self.convs
        if isinstance(edges, list):
            h = first((batch.x, batch.x[: edges[0].num_targets]), edges[0]).relu()
            return second((h, h[: batch.batch_size]), edges[1])
        return second(first(batch.x, edges).relu(), edges)[: batch.batch_size]


class OfDgl(nn.Module):
    """The same layers of DGL, on a graph for each of them."""

    def __init__(self, kind: str, features: int, hidden: int, classes: int):
        super().__init__()
        conv = dgl.nn.GATConv if kind == "GAT" else lambda i, o, _: dgl.nn.SAGEConv(i, o, "mean")
        heads = 4 if kind == "GAT" else 1
        self.convs = nn.ModuleList([conv(features, hidden // heads, heads), conv(hidden, classes, 1)])
        for layer in self.convs if kind == "GAT" else ():
            layer.set_allow_zero_in_degree(True)

    def forward(self, batch: Any, edges: Any) -> Tensor:
        h = self.convs[0](edges[0], batch.x).flatten(1).relu()
        return self.convs[1](edges[1], h).flatten(1)


class DglBatches:
    """DGL's loader, whose batches are given the names of the others."""

    def __init__(self, data: Data, chosen: Tensor, batch_size: int):
        self.data = data
        graph = dgl.graph((data.edge_index[0], data.edge_index[1]), num_nodes=data.num_nodes).formats(["csc"])
        sampler = dgl.dataloading.NeighborSampler(FAN_OUTS[::-1])
        self.loader = dgl.dataloading.DataLoader(graph, chosen, sampler, batch_size=batch_size, shuffle=True)

    def __iter__(self) -> Iterator[Any]:
        for nodes, seeds, blocks in self.loader:
            x, y = self.data.x[nodes], self.data.y[seeds]
            yield SimpleNamespace(x=x, y=y, batch_size=len(seeds), edge_index=blocks)


def _sampled(edge_index: Tensor, nodes: int, seeds: int, kind: str, args: argparse.Namespace) -> Task:
    random = torch.Generator().manual_seed(graphs.SEED)
    data = Data(
        x=torch.randn(nodes, args.features, generator=random),
        y=torch.randint(CLASSES, (nodes,), generator=random),
        edge_index=edge_index,
    )
    chosen = torch.randperm(nodes, generator=random)[:seeds]
    settings: dict[str, Any] = {"batch_size": args.seeds, "shuffle": True, "input_nodes": chosen}
    workers = {} if args.workers is None else {"num_workers": args.workers}
    own = NeighborLoader(data, FAN_OUTS, seed=graphs.SEED, **settings, **workers)
    alone = Data(edge_index=edge_index, num_nodes=nodes)
    bare = NeighborLoader(alone, FAN_OUTS, seed=graphs.SEED, **settings)
    bare.num_workers = 0
    samples: dict[str, Callable[[], Iterable[Any]]] = {"gdsl": lambda: bare}
    batches: dict[str, Callable[[], Iterable[Any]]] = {"gdsl": lambda: own}
    if WITH_TORCH_SPARSE or WITH_PYG_LIB:
        their = torch_geometric.loader.NeighborLoader(data, FAN_OUTS, **settings)
        batches["torch_geometric"] = lambda: their
        their_bare = torch_geometric.loader.NeighborLoader(alone, FAN_OUTS, **settings)
        samples["torch_geometric"] = lambda: their_bare
    models: dict[str, nn.Module] = {
        name: Sampled(kind, lib, args.features, args.hidden, CLASSES) for name, lib in LIBRARIES.items()
    }
    models[BLOCKS] = Sampled(kind, gdsl.nn, args.features, args.hidden, CLASSES)
    if dgl is not None:
        theirs = DglBatches(data, chosen, args.seeds)
        batches["dgl"], models["dgl"] = lambda: theirs, OfDgl(kind, args.features, args.hidden, CLASSES)
        samples["dgl"] = lambda: theirs.loader

    def loss(model: nn.Module, batch: Any, edges: Any) -> Tensor:
        return nn.functional.cross_entropy(model(batch, edges), batch.y[: batch.batch_size])

    about = f"{nodes:,} nodes, {edge_index.shape[1]:,} edges, {args.features} features, {seeds:,} seeds by {args.seeds}"
    return Task(batches, models, loss, about, samples)


def _github(kind: str, args: argparse.Namespace) -> Task:
    edge_index, nodes = graphs.github(0, 0, args.data)
    return _sampled(edge_index, nodes, nodes, kind, args)


def _rmat(kind: str, args: argparse.Namespace) -> Task:
    nodes = args.edges // 10
    return _sampled(graphs.rmat(nodes, args.edges, "cpu"), nodes, min(nodes, 20 * args.seeds), kind, args)


CLASSES, FAN_OUTS = 16, [15, 10]
BLOCKS = "gdsl, blocks"
TASKS = {
    "molecules": (("GIN", "PNA"), _molecules),
    "github": (("SAGE", "GAT"), _github),
    "rmat": (("SAGE", "GAT"), _rmat),
}


# -- epochs ----------------------------------------------------------------------------------------


def edges_for(way: Way, batch: Any) -> Any:
    if way.layers == BLOCKS:
        return batch.blocks()
    return batch.graph if way == Way("gdsl", "gdsl") else batch.edge_index


# Processor time, with that of threads that make batches ahead, is for machines that others use as well.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def epoch(task: Task, way: Way, optimizer: torch.optim.Optimizer, clock: Callable[[], float]) -> float:
    """Seconds."""
    model = task.models[way.layers]
    start = clock()
    for batch in task.batches[way.loader]():
        optimizer.zero_grad()
        task.loss(model, batch, edges_for(way, batch)).backward()
        optimizer.step()
    return clock() - start


def loading(batches: Iterable[Any], clock: Callable[[], float]) -> float:
    """Seconds of making the batches of an epoch."""
    start = clock()
    for _ in batches:
        pass
    return clock() - start


def check(task: Task) -> None:
    """The models give the same for the same weights."""
    their, batch = task.models["torch_geometric"], next(iter(task.batches["gdsl"]()))
    expected = task.loss(their, batch, batch.edge_index)
    for layers in task.models.keys() - {"torch_geometric", "dgl", NONE}:
        task.models[layers].load_state_dict(their.state_dict())
        found = task.loss(task.models[layers], batch, edges_for(Way("gdsl", layers), batch))
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def _is_measured(way: Way) -> bool:
    return way.loader == way.layers or ("dgl" not in way and (way.loader == "gdsl" or way.layers not in (BLOCKS, NONE)))


def measure(name: str, kind: str, args: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(graphs.SEED)
    task, clock = TASKS[name][1](kind, args), CLOCKS[args.clock]
    check(task)
    optimizers = {library: torch.optim.Adam(model.parameters(), lr=1e-4) for library, model in task.models.items()}
    pairs = [Way(loader, layers) for loader in task.batches for layers in task.models]
    ways = [way for way in pairs if _is_measured(way)]
    for way in ways:  # kernels are made
        epoch(task, way, optimizers[way.layers], clock)
    times: dict[Way, list[float]] = {way: [] for way in ways}
    loads: dict[str, list[float]] = {loader: [] for loader in task.batches}
    samples: dict[str, list[float]] = {loader: [] for loader in task.samples}
    for _ in range(args.epochs):
        gc.collect()
        for way in ways:
            times[way].append(epoch(task, way, optimizers[way.layers], clock))
        for found, made in ((loads, task.batches), (samples, task.samples)):
            for loader, batches in made.items():
                found[loader].append(loading(batches(), clock))
    own = times[Way("gdsl", "gdsl")]
    return {
        "task": name,
        "model": kind,
        "about": task.about,
        "loading": {loader: machine.summary(values) for loader, values in loads.items()},
        "sampling": {loader: machine.summary(values) for loader, values in samples.items()},
        "ways": [
            {
                **way._asdict(),
                "seconds": machine.summary(found),
                "ratio": machine.summary([a / b for a, b in zip(found, own, strict=True)]),
            }
            for way, found in times.items()
        ],
    }


def copy_ratio(args: argparse.Namespace, size: int) -> dict[str, Any]:
    """The next batch of the packed loader, made when it is asked for, against a copy of all tensors that it holds."""
    packed = pack(molecules(max(args.molecules, 4 * size)))
    loader = Loader(packed, size, shuffle=True, seed=graphs.SEED, drop_last=True, num_workers=0)
    times, copies = [], []
    for _ in range(10 * args.epochs):
        batches = iter(loader)
        for _ in range(len(loader)):
            start = time.perf_counter()
            batch = next(batches)
            made = time.perf_counter()
            orders = (batch.graph.in_edges, batch.graph.out_edges)
            tensors = [batch.x, batch.edge_attr, batch.y, batch.ptr, batch.graph._edges.listed]
            tensors += [t for o in orders for t in (o.rowptr, o.index, o.edge)]
            begun = time.perf_counter()
            _copied = [t.clone() for t in tensors]
            copies.append(time.perf_counter() - begun)
            times.append(made - start)
    batch_us, copy_us = (1e6 * statistics.median(values) for values in (times, copies))
    return {"graphs": size, "batch_us": batch_us, "copy_us": copy_us}


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    found: dict[str, Any] = {
        "kind": "epochs",
        "machine": machine.describe(args.threads, tiny=args.tiny),
        "epochs": args.epochs,
        "clock": args.clock,
        "copies": [copy_ratio(args, size) for size in (args.batch, 8 * args.batch)],
        "results": [],
    }
    for name in args.tasks:
        for kind in TASKS[name][0]:
            if args.models is None or kind in args.models:
                found["results"].append(measure(name, kind, args))
                print(report.epochs_progress(found["results"][-1]), flush=True)
                report.write(found, args.json)
    if args.markdown:
        print(report.render(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=_tasks, default=list(TASKS), help=",".join(TASKS))
    parser.add_argument("--data", help="folder with musae/git.npz, for github (default: $GDSL_DATA)")
    parser.add_argument("--edges", type=int, default=10_000_000, help="of the R-MAT graph")
    parser.add_argument("--features", type=int, default=128, help="of sampled nodes")
    parser.add_argument("--seeds", type=int, default=1024, help="of a batch of sampled nodes")
    parser.add_argument("--models", type=lambda text: text.split(","), help="some of each task's models")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="processor time where others work as well")
    parser.add_argument("--molecules", type=int, default=2_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--workers", type=int, help="threads that make gdsl's batches ahead")
    report.add_options(parser)
    return parser.parse_args()


def _tasks(text: str) -> list[str]:
    for name in text.split(","):
        if name not in TASKS:
            raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(TASKS)}")
    return text.split(",")


if __name__ == "__main__":
    main()
