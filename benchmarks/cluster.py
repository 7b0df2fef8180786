"""Attention over one graph on several processes of this machine: bytes, time, memory, and what they would be on many.

    python benchmarks/cluster.py --json cluster.json --markdown
    python benchmarks/cluster.py --graph github --data FOLDER --processes 1,2,4

Two layers of GAT, 500 features in and 4 × 16 out, forward, backward and a step. gdsl's compiler chooses what crosses
between processes; the peer is a plain exchange of the rows that a layer is given, around the same layers, as one writes
it by hand (``PlainExchange`` below). The floor is that of the narrowest values that the layers make of a row.

The simulator (simulate.py) is told the widths that a run on two small parts has sent, so that its bytes for other cuts
can be compared with what is measured, and its times with those of this machine: an edge's and a row's are those of one
process on the whole graph and on half of its edges, in seconds of the processor, and a byte's those of an exchange of
16 MB. On the wall processes wait for the busiest, and for the cores that they share. Then tables for large graphs.

All is measured in some rounds, in turns, and of each time the least counts, which what else runs on the machine changes
least: `--rounds 5` on one that is not quiet. Time on the wall is to be trusted where the cores are free.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import graphs
import machine
import report
import simulate
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

import gdsl
import gdsl.distributed as many
import gdsl.nn
from gdsl.look.measure import most_of_tensors

FEATURES, HEADS, HIDDEN, CLASSES = 500, 4, 16, 16
STEPS = 15

# Values that the layers make of a row before edges read it: forward, and their gradients on the way back.
NARROWEST = 4 * 2 * (HEADS * HIDDEN + CLASSES)

LARGE = (
    (simulate.Sizes("ogbn-papers100M, both ways", 111_059_956, 2 * 1_615_685_872), 128, 172),
    (simulate.Sizes("MAG240M's citations, both ways", 121_751_666, 2 * 1_297_748_926), 768, 153),
)
COUNTS = (8, 64, 256, 1024)
# An H100 with a network card of 400 Gbit/s: bytes a second to other machines, seconds a message.
NETWORK, LATENCY, MEMORY_RATE = 50e9, 5e-6, 3.35e12

# Rows of another process that are read at a time.
CHUNK = 2000
WAYS: dict[str, dict[str, Any]] = {
    "gdsl": {}, f"gdsl, chunks of {CHUNK:,} rows": {"chunk": CHUNK}, "plain exchange": {},
}  # fmt: skip


class Swap(torch.autograd.Function):
    """Rows of the halo from their owners; gradients go back and are added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, halo: many.Halo) -> Tensor:
        ctx.halo, ctx.rows = halo, len(x)
        found = x.new_empty((halo.rows, *x.shape[1:]))
        counts = list(halo.receive_counts), list(halo.send_counts)
        dist.all_to_all_single(found, x.index_select(0, halo.send), *counts, group=halo.group)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        halo = ctx.halo
        found = grad.new_empty((len(halo.send), *grad.shape[1:]))
        counts = list(halo.send_counts), list(halo.receive_counts)
        dist.all_to_all_single(found, grad.contiguous(), *counts, group=halo.group)
        return grad.new_zeros((ctx.rows, *grad.shape[1:])).index_add(0, halo.send, found), None


class PlainExchange(nn.Module):
    """A layer around which rows are exchanged by hand: it reads own rows and the halo's, and gives own ones."""

    def __init__(self, layer: nn.Module, graph: many.LocalGraph) -> None:
        super().__init__()
        self.layer, self.halo = layer, graph.halo
        self.edges = gdsl.Graph(graph.local_edge_index, (self.halo.own + self.halo.rows, self.halo.own))

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        return self.layer((torch.cat([x, Swap.apply(x, self.halo)]), x), self.edges)  # type: ignore[no-any-return]


class Network(nn.Module):
    def __init__(self, wrap: Callable[[nn.Module], nn.Module], features: int, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = gdsl.nn.GATConv(features, HIDDEN, heads=HEADS), gdsl.nn.GATConv(HEADS * HIDDEN, classes)
        self.first, self.second = map(wrap, layers)

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        return self.second(self.first(x, graph).relu(), graph)  # type: ignore[no-any-return]


# -- one process ------------------------------------------------------------------------------------


def work(request: dict[str, Any]) -> dict[str, Any]:
    """What one of several processes measures."""
    torch.set_num_threads(1)
    with many.init("gloo", timeout=600) as world:
        edge_index, nodes = _graph(request)
        part = many.partition(gdsl.Graph(edge_index, nodes), how=request["how"])
        del edge_index
        graph = part.local(chunk=request["chunk"])
        rows = len(part.node_ids())
        draw = torch.Generator().manual_seed(world.rank)
        x = torch.randn(rows, request["features"], generator=draw)
        y = torch.randint(request["classes"], (rows,), generator=draw)
        wrap = (lambda layer: PlainExchange(layer, graph)) if request["peer"] else (lambda layer: layer)
        model = Network(wrap, request["features"], request["classes"])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step() -> None:
            optimizer.zero_grad()
            part.mean(F.cross_entropy(model(x, graph), y, reduction="none")).backward()
            many.average_gradients(model)
            optimizer.step()

        before = held()
        step()
        optimizer.zero_grad()
        prepared = held() - before
        with many.Traffic() as sent:
            step()
        seconds, processor = [], []
        for _ in range(request["steps"]):
            dist.barrier()
            start, busy = time.perf_counter(), time.process_time()
            step()
            processor.append(time.process_time() - busy)
            dist.barrier()
            seconds.append(time.perf_counter() - start)
        halo = graph.halo
        most = most_of_tensors(step)
        found = {
            "seconds": min(seconds), "processor": min(processor),
            "sent": sent.rows, "reduced": sent.reduced, "calls": sent.calls, "agreed": sent.agreed,
            "memory": most / 2**20, "graph": prepared / 2**20,
            "edges": graph.num_edges, "rows": rows, "received": halo.rows,
            "sends": len(halo.send), "peers": sum(n > 0 for n in halo.receive_counts), "wire": _wire(world.size),
        }  # fmt: skip
        said: list[Any] = [None] * world.size
        dist.all_gather_object(said, found)
    return {"processes": said}


def held() -> int:
    """Bytes of all tensors."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if issubclass(type(t), Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _graph(request: dict[str, Any]) -> tuple[Tensor, int]:
    edge_index, nodes = getattr(graphs, request["graph"])(request["nodes"], request["edges"], request["data"])
    return (edge_index[:, ::2] if request["half"] else edge_index), nodes


def _wire(size: int) -> dict[str, float]:
    """Of an exchange of 16 MB and of one of nothing much: bytes a second, seconds a message, and what the processor
    spends on a byte and on an exchange."""
    if size == 1:
        return {"bandwidth": float("inf"), "latency": 0.0, "copy": 0.0, "call": 0.0}
    found = []
    for numbers in (1 << 22, 64):
        value, out = torch.ones(numbers), torch.empty(numbers)
        busy = time.process_time()
        wall = machine.best(lambda v=value, o=out: dist.all_to_all_single(o, v), tries=5)
        found.append((wall, (time.process_time() - busy) / 5))
    (large, large_busy), (small, small_busy) = found
    sent = 4 * (1 << 22) * (size - 1) / size
    return {
        "bandwidth": sent / max(large - small, 1e-9), "latency": small / (size - 1),
        "copy": max(large_busy - small_busy, 0.0) / sent, "call": small_busy,
    }  # fmt: skip


# -- all of them ------------------------------------------------------------------------------------


def run(processes: int, **request: Any) -> list[dict[str, Any]]:
    """What so many processes measure, each on one thread."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--work", json.dumps(request)],
            env={
                **os.environ, "RANK": f"{k}", "LOCAL_RANK": f"{k}", "WORLD_SIZE": f"{processes}",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE, text=True,
        )
        for k in range(processes)
    ]  # fmt: skip
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise SystemExit(f"a process of {processes} failed")
    return json.loads(outputs[0].splitlines()[-1])["processes"]  # type: ignore[no-any-return]


def least(rounds: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What processes have measured in some rounds: the least time, and the best of what the wire did."""
    found = []
    for of_one in zip(*rounds, strict=True):
        wires = [one["wire"] for one in of_one]
        wire = {name: (max if name == "bandwidth" else min)(w[name] for w in wires) for name in wires[0]}
        times = {name: min(one[name] for one in of_one) for name in ("seconds", "processor")}
        found.append(of_one[0] | times | {"wire": wire})
    return found


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all processes: the slowest, the largest, and the bytes of all."""
    return {
        "processes": len(found),
        "seconds": max(p["seconds"] for p in found),
        "processor": max(p["processor"] for p in found),
        "memory": max(p["memory"] for p in found),
        "graph": max(p["graph"] for p in found),
        "sent": sum(p["sent"] for p in found),
        "floor": NARROWEST * sum(p["received"] for p in found),
        "halo": sum(p["received"] for p in found) / max(sum(p["rows"] for p in found), 1),
    }


def cut_of(found: list[dict[str, Any]]) -> simulate.Cut:
    names = ("edges", "rows", "received", "sends", "peers")
    return simulate.Cut(*([p[name] for p in found] for name in names))


def plan_of(found: list[dict[str, Any]]) -> simulate.Plan:
    """The widths of what two processes sent, and the bytes of sums."""
    calls = max((p["calls"] for p in found), key=lambda c: sum(rows for rows, _ in c))
    reduced = sum(width for rows, width in calls if not rows)
    return simulate.Plan([width for rows, width in calls if rows], reduced, found[0]["agreed"])


def here(whole: list[dict[str, Any]], half: list[dict[str, Any]], many_: list[dict[str, Any]]) -> simulate.Machine:
    """This machine, from one process on a graph and on half of its edges."""
    (one,), (other,) = whole, half
    edge = max(one["processor"] - other["processor"], 0.0) / (one["edges"] - other["edges"])
    row = max(one["processor"] - edge * one["edges"], 0.0) / one["rows"]
    wire = {name: statistics.median(p["wire"][name] for p in many_) for name in many_[0]["wire"]}
    wires = wire["bandwidth"], wire["latency"]
    return simulate.Machine("here", *wires, edge, row, machine.cores(), wire["copy"], wire["call"])


def large(small: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of large graphs: GAT of the same widths on a share of H100s, nodes owned by chance."""
    rows = []
    for sizes, features, classes in LARGE:
        request = small | {"features": features, "classes": classes}
        plans = {peer: plan_of(run(2, **request, peer=peer)) for peer in (False, True)}
        # Each edge reads a row of the widths that the layers aggregate, forward, and twice on the way back.
        edge = 3 * 4 * (HEADS * HIDDEN + classes) / MEMORY_RATE
        row = 3 * 4 * (features + 2 * HEADS * HIDDEN + classes) / MEMORY_RATE
        for count in COUNTS:
            cut = simulate.by_hash(sizes, count)
            h100 = simulate.Machine("H100", NETWORK, LATENCY, edge, row)
            ours, theirs = plans[False], plans[True]
            rows.append({
                "graph": sizes.name, "processes": count, "halo": cut.received[0] / cut.rows[0],
                "sent": simulate.sent(ours, cut) / count, "peer_sent": simulate.sent(theirs, cut) / count,
                "seconds": simulate.seconds(ours, cut, h100), "peer_seconds": simulate.seconds(theirs, cut, h100),
            })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--graph", default="power_law", choices=["power_law", "github"])
    parser.add_argument("--data", help="the folder of musae/git.npz; else $GDSL_DATA")
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--edges", type=int, default=300_000)
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--how", default="metis", help="metis or hash")
    parser.add_argument("--rounds", type=int, default=3, help="how often all is measured")
    report.add_options(parser)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(json.loads(args.work))))
        return
    request = {
        "graph": args.graph, "data": args.data, "nodes": args.nodes, "edges": args.edges, "how": args.how,
        "half": False, "chunk": None, "steps": 2 if args.tiny else STEPS, "features": FEATURES, "classes": CLASSES,
    }  # fmt: skip
    load = os.getloadavg()[0]
    small = request | {"graph": "power_law", "nodes": 200, "edges": 800, "how": "hash", "steps": 1}
    plan = plan_of(run(2, **small, peer=False))
    half = {"half": True}
    wanted = [(1, "gdsl", {}), (1, "gdsl", half)]
    wanted += [(n, name, how) for n in map(int, args.processes.split(",")) if n > 1 for name, how in WAYS.items()]
    rounds = [
        [run(n, **request | how, peer=name == "plain exchange") for n, name, how in wanted]
        for _ in range(1 if args.tiny else args.rounds)
    ]
    whole, other, *measured = (least(of_one) for of_one in zip(*rounds, strict=True))
    results = []
    for (count, name, _), found in zip([wanted[0], *wanted[2:]], [whole, *measured], strict=True):
        row = summary(found) | {"implementation": name}
        if name == "gdsl" and count > 1:
            cut, machine_ = cut_of(found), here(whole, other, found)
            row["simulated_sent"] = simulate.sent(plan, cut)
            row["simulated_seconds"] = simulate.seconds(plan, cut, machine_)
            row["simulated_processor"] = simulate.computing(plan, cut, machine_)
        results.append(row)
        print(row, flush=True)
        for name, what in (("processor", "seconds of the processor"), ("seconds", "time on the wall")):
            if (off := report.off_by(row, name)) is not None:
                print(f"{count} processes: simulated {what} is off by {off:+.0%} from what is measured", flush=True)
    found_all = {
        "kind": "cluster",
        "machine": machine.describe(1, tiny=args.tiny),
        "graph": {"name": args.graph.replace("_", "-"), "nodes": args.nodes, "edges": args.edges},
        "how": args.how,
        "load": load,
        "plan": asdict(plan),
        "results": results,
        "large": large(small),
    }
    report.write(found_all, args.json)
    if args.markdown:
        print(report.render(found_all))


if __name__ == "__main__":
    main()
