"""gdsl against its peers on a GPU: time, peak memory, and the share of the copy bandwidth that is reached.

    python benchmarks/gpu.py --json gpu.json --markdown          every layer, three graphs, within eight minutes
    python benchmarks/gpu.py --graphs reddit --layers GCN,GAT    some

The graphs are R-MAT graphs with the sizes of ogbn-arxiv, Reddit and ogbn-products, made on the device. All run in this
process, one after the other, with the same weights; the medians of calls timed by the device. What does not fit the
memory, or would take longer than is left of ``--budget``, is left out and says so.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import machine
import report
import torch
from cases import make_case
from graphs import SIZES, rmat
from peers import BUILDERS, Built, Case, Unsupported
from programs import LAYERS
from torch import Tensor

import gdsl
from gdsl.ledger import traffic

PEERS = ("gdsl", "pyg", "pyg-compile", "torch.sparse")
MEGA = 1e6
WARM = 2
TOLERANCE = 1e-3


def main() -> None:
    args = _arguments()
    device = torch.device(args.device)
    start = time.monotonic()
    copy = _copy_rate(device, args.tiny)
    results = []
    for name in args.graphs:
        nodes, edges = (200, 1000) if args.tiny else SIZES[name]
        edge_index = rmat(nodes, edges, device)
        for layer in args.layers:
            results += _layer(name, layer, edge_index, nodes, args, copy, start)
        del edge_index
    about = machine.describe(args.threads, tiny=True)
    about["gpu"] = {"name": _device_name(device), "copy_gb_s": copy}
    found = {"kind": "gpu", "machine": about, "features": args.features, "results": results}
    report.write(found, args.json)
    if args.markdown:
        print(report.render(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--graphs", type=lambda t: t.split(","), default=list(SIZES), help=",".join(SIZES))
    parser.add_argument("--layers", type=lambda t: t.split(","), default=list(LAYERS), help=",".join(LAYERS))
    parser.add_argument("--peers", type=lambda t: t.split(","), default=list(PEERS), help=",".join(PEERS))
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--calls", type=int, default=5, help="timed calls")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds for everything")
    parser.add_argument("--device", default="cuda", help="cpu, with TRITON_INTERPRET=1 and --tiny, tries the script")
    report.add_options(parser)
    return parser.parse_args()


def _layer(
    graph: str, name: str, edge_index: Tensor, nodes: int, args: argparse.Namespace, copy: float, start: float
) -> list[dict[str, Any]]:
    """A row for each implementation of a layer on a graph."""
    layer = LAYERS[name](args.features)
    case = Case(**make_case(layer, edge_index, nodes, args.features))
    expected: Tensor | None = None
    rows = []
    for peer in args.peers:
        row: dict[str, Any] = {"graph": graph, "layer": name, "implementation": peer}
        if time.monotonic() - start > args.budget:
            row["left_out"] = "no time left"
        else:
            try:
                built = BUILDERS[peer](layer, case)
                y = built.call(case.x).detach()
                expected = y if expected is None else expected
                row["difference"] = float((y - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt())
                del y
                row |= _measure(built, case, args.calls)
                if peer == "gdsl":
                    row |= _share(name, edge_index, nodes, args.features, row, copy)
                del built
            except Unsupported as reason:
                row["left_out"] = str(reason)
            except torch.cuda.OutOfMemoryError:
                row["left_out"] = "out of memory"
        gc.collect()
        if edge_index.is_cuda:
            torch.cuda.empty_cache()
        if row.get("difference", 0.0) > TOLERANCE:
            raise SystemExit(f"{name} by {peer} differs from gdsl by {row['difference']:.1e}")
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        rows.append(row)
    return rows


def _measure(built: Built, case: Case, calls: int) -> dict[str, Any]:
    """Milliseconds and peak megabytes of a forward pass, and of both."""
    x = case.x.clone().requires_grad_()

    def clear() -> None:
        for tensor in (x, *built.parameters.values()):
            tensor.grad = None

    def forward() -> None:
        with torch.no_grad():
            built.call(x)

    def both() -> None:
        clear()
        built.call(x).backward(case.grad)

    found: dict[str, Any] = {}
    for mode, call in (("forward", forward), ("both", both)):
        times = _times(call, calls, x.device)
        clear()
        found[mode] = {"ms": statistics.median(times), "peak_mb": _peak(call, x.device)}
    return found


def _times(call: Callable[[], None], calls: int, device: torch.device) -> list[float]:
    for _ in range(WARM):
        call()
    found = []
    for _ in range(calls):
        if device.type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            call()
            last.record()
            last.synchronize()
            found.append(first.elapsed_time(last))
        else:
            begin = time.perf_counter()
            call()
            found.append((time.perf_counter() - begin) * 1e3)
    return found


def _peak(call: Callable[[], None], device: torch.device) -> float | None:
    """What a call adds to the allocated memory at its worst moment."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MEGA


def _share(
    name: str, edge_index: Tensor, nodes: int, features: int, row: dict[str, Any], copy: float
) -> dict[str, Any]:
    """The share of the copy rate: bytes as the compiler's own formulas count them, with no cache for gathered rows."""
    layer = LAYERS[name](features)
    graph = gdsl.Graph(edge_index, nodes)
    conv = gdsl.compile(layer.source, **layer.arguments)
    conv.free_sizes.update(dict.fromkeys(conv.signature.free_dims, features))
    plans = traffic(conv._inspect(graph), graph, torch.float32)
    moved = {"forward": plans["forward"][0], "both": sum(m for m, _ in plans.values())}
    return {"share": {mode: moved[mode] / 1e9 / (row[mode]["ms"] / 1e3) / copy for mode in moved}}


def _copy_rate(device: torch.device, tiny: bool) -> float:
    """GB/s read and written by a copy that no cache holds."""
    source = torch.empty((1 << 20) if tiny else (1 << 30), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = statistics.median(_times(lambda: target.copy_(source), 5, device))
    return 2 * source.numel() / 1e9 / (ms / 1e3)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the interpreter"


if __name__ == "__main__":
    main()
