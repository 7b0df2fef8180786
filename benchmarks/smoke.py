"""The first minute on a GPU: a few layers' Triton kernels against the reference, and the host time of calls: on a small
graph, launches not waited for, with how often the host waits for the GPU; then what a large one's kernels take of it.

    python benchmarks/smoke.py --json smoke.json

A row is written as soon as it is known. Exits with 1 if a number is wrong.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import machine
import report
import torch
from graphs import SIZES, rmat
from programs import LAYERS
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import gdsl

NAMES = ("GCN", "SAGE-max", "GAT", "EdgeConv")
FEATURES = 16
TOLERANCE = 1e-9
HOST_LAYER = "layer Host(d) { node x[d] aggregate a = sum(x[j]) update y = a }"
# Layers whose calls are timed, and on which graphs.
THREAD = "in one thread on a prepared"
TIMED = (("GCN", "prepared"), ("GCN", "fresh"), ("GCN", THREAD), ("GAT", "prepared"))
LARGE = ("GCN", "GAT")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cpu, with TRITON_INTERPRET=1, tries the script")
    report.add_options(parser)
    args = parser.parse_args()
    found: dict[str, Any] = {"kind": "smoke", "machine": machine.describe(args.threads, tiny=True), "results": []}
    for name in NAMES[:1] if args.tiny else NAMES:
        _add(found, args.json, {"layer": name, **_agrees(name, args.device)})
    calls = 2 if args.tiny else 300
    for name, call in _torchs(args.device):
        _add(found, args.json, {"layer": f"torch: {name}", **_host_time(call, args.device, calls)})
    _add(found, args.json, {"layer": "host time of a call", **_host_time(_plain(args.device), args.device, 4 * calls)})
    for name, graph in TIMED[:2] if args.tiny else TIMED:
        about = {"layer": f"{name} forward and backward, {graph} graph"}
        both = _both(name, *_small(args.device), graph == "fresh")
        both = _in_one_thread(both) if graph == THREAD else both
        _add(found, args.json, about | _host_time(both, args.device, calls))
    for name in LARGE if args.device != "cpu" else ():
        nodes, edges = SIZES["arxiv"]
        call = _both(name, rmat(nodes, edges, torch.device(args.device)), nodes, False)
        _add(found, args.json, {"layer": f"{name} forward and backward, arxiv", **_shares(call)})
    wrong = [row["layer"] for row in found["results"] if row.get("difference", 0.0) > TOLERANCE]
    if wrong:
        raise SystemExit(f"wrong numbers: {', '.join(wrong)}")


def _add(found: dict[str, Any], path: str | None, row: dict[str, Any]) -> None:
    found["results"].append(row)
    report.write(found, path)
    print(row, flush=True)


def _agrees(name: str, device: str) -> dict[str, Any]:
    """The largest difference from the reference, in float64, of the output and of all gradients."""
    layer = LAYERS[name](FEATURES)
    random = torch.Generator().manual_seed(0)
    edges, x = torch.randint(100, (2, 700), generator=random), torch.randn(100, FEATURES, generator=random).double()
    conv = gdsl.compile(layer.source, **layer.arguments, backend="torch").double()
    expected = _values(conv, x, edges)
    start = time.perf_counter()
    conv.backend = "triton"
    values = _values(conv.to(device), x.to(device), edges.to(device))
    pairs = zip(values, expected, strict=True)
    return {"difference": max(_off(a.cpu(), b) for a, b in pairs), "first_s": time.perf_counter() - start}


def _values(conv: gdsl.Layer, x: Tensor, edges: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    y = conv(leaf, edges)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [leaf, *conv.parameters()])]


def _off(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def _torchs(device: str) -> list[tuple[str, Callable[[], object]]]:
    """What torch itself takes for a kernel, and for the way to the thread of its backward pass and back."""
    x, leaf = torch.zeros(8, device=device), torch.zeros(8, device=device, requires_grad=True)
    one = torch.ones_like(leaf)

    def both() -> None:
        torch.autograd.grad(2 * leaf, leaf, one)

    made = [("x.add_(1)", lambda: x.add_(1)), ("forward and backward of 2 * x", both)]
    return [*made, ("the same in one thread", _in_one_thread(both))]


def _in_one_thread(call: Callable[[], object]) -> Callable[[], object]:
    """A call whose backward pass does not go to a thread of torch's: to wake one takes long on some machines."""

    def alone() -> None:
        with torch.autograd.set_multithreading_enabled(False):
            call()

    return alone


def _small(device: str) -> tuple[Tensor, int]:
    return torch.randint(30, (2, 64), generator=torch.Generator().manual_seed(0)).to(device), 30


def _plain(device: str) -> Callable[[], object]:
    """A forward call of one kernel."""
    conv = gdsl.compile(HOST_LAYER, d=64, backend="triton")
    graph = gdsl.Graph(*_small(device))
    x = torch.rand(30, 64, device=device)

    def call() -> None:
        with torch.no_grad():
            conv(x, graph)

    return call


def _both(name: str, edges: Tensor, nodes: int, fresh: bool) -> Callable[[], object]:
    """A call of a layer with the gradients of its input and its parameters."""
    layer = LAYERS[name](64)
    conv = gdsl.compile(layer.source, **layer.arguments, backend="triton")
    graph, x = gdsl.Graph(edges, nodes), torch.rand(nodes, 64, device=edges.device, requires_grad=True)
    conv.to(edges.device)(x, graph)
    leaves = [x, *conv.parameters()]

    def call() -> None:
        y = conv(x, gdsl.Graph(edges, nodes) if fresh else graph)
        torch.autograd.grad(y, leaves, torch.ones_like(y))

    return call


def _host_time(call: Callable[[], object], device: str, calls: int) -> dict[str, Any]:
    """Microseconds of the host for a call, launches not waited for, and how often it waits for the GPU in one."""
    for _ in range(max(calls // 20, 1)):
        call()
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    took = time.perf_counter() - start
    _wait(device)
    return {"us": took / calls * 1e6, **({} if device == "cpu" else {"waits": _waits(call)})}


def _waits(call: Callable[[], object]) -> int:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(w.message) for w in seen)


def _shares(call: Callable[[], object]) -> dict[str, Any]:
    """Milliseconds of a call on the GPU's clock, of which its kernels run so many, and of the host; the longest."""
    for _ in range(3):
        call()
    times, host = [], []
    for _ in range(10):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start = time.perf_counter()
        first.record()
        call()
        last.record()
        host.append((time.perf_counter() - start) * 1e3)
        last.synchronize()
        times.append(first.elapsed_time(last))
    found: dict[str, Any] = {"ms": statistics.median(times), "host_ms": statistics.median(host)}
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    took = {e.key[:60]: e.self_device_time_total / 1e3 for e in seen.key_averages() if e.self_device_time_total}
    longest = sorted(took, key=lambda name: -took[name])[:8]
    return found | {"kernels_ms": sum(took.values()), "kernels": {name: round(took[name], 4) for name in longest}}


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
