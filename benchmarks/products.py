"""Our own products of matrices beside torch's, on this machine: rows of nodes by a matrix, and sums over rows.

    python benchmarks/products.py --json products.json --threads 1

Both in turns in one process, processor time, the best of all rounds. Which of them layers use, `gdsl info` says.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import machine
import report
import torch
from graphs import SEED

from gdsl.runtime import products

# Nodes, and the two sizes of the matrix.
SIZES = (
    (30, 64, 64),
    (700, 64, 64),
    (3_200, 64, 64),
    (25_000, 64, 64),
    (16_000, 128, 64),
    (3_000, 256, 64),
    (700, 832, 64),
    (25_000, 64, 1),
    (1, 1_024, 1_024),
)
DTYPES = (torch.float32, torch.float64)
ROUNDS, ROUND_FLOPS = 9, 2e8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    report.add_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: dict[str, Any] = {"kind": "products", "machine": machine.describe(args.threads, tiny=args.tiny)}
    found["rounds"], found["own"] = ROUNDS, products.wanted()
    found["results"] = []
    for dtype in DTYPES:
        for size in SIZES[:2] if args.tiny else SIZES:
            row = _row(dtype, *size)
            print(row, flush=True)
            found["results"].append(row)
    report.finish(found, args)


def _row(dtype: torch.dtype, nodes: int, depth: int, width: int) -> dict[str, Any]:
    """Flops a second, of torch and of ours: forward, the gradient of the rows, the gradient of the matrix."""
    code = products.compiled(dtype)
    if code is None:
        raise SystemExit("our own products need a C++ compiler")
    random = torch.Generator().manual_seed(SEED)
    x, w, g = (torch.randn(s, generator=random, dtype=dtype) for s in ((nodes, depth), (depth, width), (nodes, width)))
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "x @ w": (lambda: torch.mm(x, w), lambda: code.by_matrix(x, w, False, width, None)),
        "g @ wT": (lambda: torch.mm(g, w.t()), lambda: code.by_matrix(g, w, True, depth, None)),
        "xT @ g": (lambda: torch.mm(x.t(), g), lambda: code.over_rows(x, g)),
    }
    flops = 2 * nodes * depth * width
    calls = max(1, int(ROUND_FLOPS / flops))
    row: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch."), "nodes": nodes, "matrix": [depth, width]}
    for name, both in pairs.items():
        torch.testing.assert_close(both[0](), both[1](), rtol=1e-3, atol=1e-2)
        best = [float("inf")] * 2
        for _ in range(ROUNDS):
            for k, run in enumerate(both):
                start = time.process_time()
                for _ in range(calls):
                    run()
                best[k] = min(best[k], (time.process_time() - start) / calls)
        row[name] = {"torch": flops / best[0], "own": flops / best[1]}
    return row


if __name__ == "__main__":
    main()
