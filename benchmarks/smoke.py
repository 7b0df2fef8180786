"""The first minute on a GPU: a few layers' Triton kernels against the reference, and the host time of a call.

    python benchmarks/smoke.py --json smoke.json

A row is written as soon as it is known. Exits with 1 if a number is wrong.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import machine
import report
import torch
from programs import LAYERS
from torch import Tensor

import gdsl

NAMES = ("GCN", "SAGE-max", "GAT", "EdgeConv")
FEATURES = 16
TOLERANCE = 1e-9
HOST_LAYER = "layer Host(d) { node x[d] aggregate a = sum(x[j]) update y = a }"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cpu, with TRITON_INTERPRET=1, tries the script")
    report.add_options(parser)
    args = parser.parse_args()
    found: dict[str, Any] = {"kind": "smoke", "machine": machine.describe(args.threads, tiny=True), "results": []}
    for name in NAMES[:1] if args.tiny else NAMES:
        _add(found, args.json, {"layer": name, **_agrees(name, args.device)})
    _add(found, args.json, {"layer": "host time of a call", **_host_time(args.device, 20 if args.tiny else 1000)})
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


def _host_time(device: str, calls: int) -> dict[str, Any]:
    """Microseconds of the host for a forward call on a small graph, launches not waited for."""
    conv = gdsl.compile(HOST_LAYER, d=64, backend="triton")
    graph = gdsl.Graph(torch.randint(30, (2, 64)).to(device), 30)
    x = torch.rand(30, 64, device=device)
    with torch.no_grad():
        for _ in range(max(calls // 20, 1)):
            conv(x, graph)
        _wait(device)
        start = time.perf_counter()
        for _ in range(calls):
            conv(x, graph)
        took = time.perf_counter() - start
    _wait(device)
    return {"us": took / calls * 1e6}


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
