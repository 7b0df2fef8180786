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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
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
from gdsl.look.accounts import traffic
from gdsl.look.measure import peak_on_gpu

# Compilers take a minute for what the others take seconds for: their rows come last.
PASSES = (("gdsl", "pyg", "torch.sparse"), ("pyg-compile",))
PEERS = tuple(peer for peers in PASSES for peer in peers)
# By worth, since time may run out.
WORTH = ("GCN", "GAT", "GATv2", "Transformer", "SAGE", "GIN", "EdgeConv", "PNA", "RGCN", "NNConv")
WARM = 2
TOLERANCE = 1e-3


class Wrong(Exception):
    """Two implementations of a layer give other numbers."""


def main() -> None:
    args = _arguments()
    device = torch.device(args.device)
    start = time.monotonic()
    copy = _copy_rate(device, args.tiny)
    about = machine.describe(args.threads, tiny=True)
    about["gpu"] = {"name": _device_name(device), "copy_gb_s": copy}
    found: dict[str, Any] = {"kind": "gpu", "machine": about, "features": args.features, "results": []}
    for peers in PASSES:
        chosen = [peer for peer in peers if peer in args.peers]
        for graph in args.graphs if chosen else ():
            nodes, edges = (200, 1000) if args.tiny else SIZES[graph]
            edge_index = rmat(nodes, edges, device)
            for layer in args.layers:
                for row in _layer(layer, edge_index, nodes, chosen, args, copy, start):
                    found["results"].append({"graph": graph, "layer": layer, **row})
                    # After each row: a run that is cut off has measured what it has measured.
                    report.write(found, args.json)
                    print({k: round(v, 4) if isinstance(v, float) else v for k, v in found["results"][-1].items()},
                          flush=True)  # fmt: skip
            del edge_index
    if args.markdown:
        print(report.render(found))
    failed = [f"{r['layer']} by {r['implementation']} on {r['graph']}" for r in found["results"] if "failed" in r]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _arguments() -> argparse.Namespace:
    def names(known: Iterable[str]) -> Callable[[str], list[str]]:
        def read(text: str) -> list[str]:
            wrong = [name for name in text.split(",") if name not in known]
            if wrong:
                raise argparse.ArgumentTypeError(f"there is no {wrong[0]!r}; there are {', '.join(known)}")
            return text.split(",")

        return read

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--graphs", type=names(SIZES), default=list(SIZES), help=",".join(SIZES))
    parser.add_argument("--layers", type=names(LAYERS), default=list(WORTH), help=",".join(LAYERS))
    parser.add_argument("--peers", type=names(PEERS), default=list(PEERS), help=",".join(PEERS))
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--calls", type=int, default=5, help="timed calls")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds for everything")
    parser.add_argument("--device", default="cuda", help="cpu, with TRITON_INTERPRET=1 and --tiny, tries the script")
    report.add_options(parser)
    return parser.parse_args()


def _layer(
    name: str, edge_index: Tensor, nodes: int, peers: Sequence[str], args: argparse.Namespace, copy: float, start: float
) -> Iterator[dict[str, Any]]:
    """A row for each implementation of a layer on a graph."""
    layer = LAYERS[name](args.features)
    case: Case | None = None
    expected: Tensor | None = None
    for peer in peers:
        row: dict[str, Any] = {"implementation": peer}
        try:
            if time.monotonic() - start > args.budget:
                raise Unsupported("no time left")
            if case is None:
                case = Case(**make_case(layer, edge_index, nodes, args.features))
                expected = BUILDERS["gdsl"](layer, case).call(case.x).detach()
            built = BUILDERS[peer](layer, case)
            assert expected is not None
            row["difference"] = _difference(built.call(case.x).detach(), expected)
            if row["difference"] > TOLERANCE:
                raise Wrong(f"differs from gdsl by {row['difference']:.1e}")
            row |= _measure(built, case, args.calls)
            if peer == "gdsl":
                row |= _share(name, edge_index, nodes, args.features, row, copy)
            del built
        except Unsupported as reason:
            row["left_out"] = str(reason)
        except torch.cuda.OutOfMemoryError:
            row["left_out"] = "out of memory"
        except Exception as error:  # the other rows are worth having, whatever this one's fault is
            row["failed"] = f"{type(error).__name__}: {error}"[:300]
        gc.collect()
        if edge_index.is_cuda:
            torch.cuda.empty_cache()
        yield row


def _difference(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt())


def _measure(built: Built, case: Case, calls: int) -> dict[str, Any]:
    """Milliseconds on a prepared and on a fresh graph, and peak megabytes, of a forward pass and of both."""
    x = case.x.clone().requires_grad_()

    def clear() -> None:
        for tensor in (x, *built.parameters.values()):
            tensor.grad = None

    def forward(layer: Callable[[Tensor], Tensor]) -> None:
        with torch.no_grad():
            layer(x)

    def both(layer: Callable[[Tensor], Tensor]) -> None:
        clear()
        layer(x).backward(case.grad)

    found: dict[str, Any] = {}
    for mode, step in (("forward", forward), ("both", both)):
        times = _times(partial(step, built.call), calls, x.device)
        fresh = _times(partial(step, built.fresh), calls, x.device)
        clear()
        peak = _peak(partial(step, built.call), x.device)
        found[mode] = {"ms": statistics.median(times), "fresh_ms": statistics.median(fresh), "peak_mb": peak}
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
    return peak_on_gpu(call) if device.type == "cuda" else None


def _share(
    name: str, edge_index: Tensor, nodes: int, features: int, row: dict[str, Any], copy: float
) -> dict[str, Any]:
    """The share of the copy rate: bytes as the compiler's own formulas count them, with no cache for gathered rows."""
    layer = LAYERS[name](features)
    graph = gdsl.Graph(edge_index, nodes)
    conv = gdsl.compile(layer.source, **layer.arguments)
    conv.free_sizes.update(dict.fromkeys(conv.signature.free_dims, features))
    plans = traffic(conv._ran()[0].on(graph).inspection, graph, torch.float32)
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
