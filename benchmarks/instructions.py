"""What the machine code of GPU kernels lets one expect, without a GPU: instructions an edge, and two bounds on time.

    python benchmarks/instructions.py --json instructions.json --markdown
    python benchmarks/instructions.py --layers GCN,GAT --kernels      a line for each kernel

Kernels are compiled for an H100 or H200 at the block sizes that gdsl takes without measuring. A kernel cannot be faster
than its instructions can be issued, nor than its bytes can be moved, which the compiler's own formulas count as if no
cache held a gathered row. These are bounds and no measurements: what waits for memory is slower than both.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import machine
import report
from graphs import SIZES
from programs import LAYERS

import gdsl
from gdsl.ir.types import Domain
from gdsl.look.kernels import KernelInfo, compile_together
from gdsl.passes import cost

# An H200: processors, warp instructions that each issues in a cycle, cycles a second under load, bytes a second.
PROCESSORS, ISSUED, CLOCK, BANDWIDTH = 132, 4, 1.7e9, 4.8e12
REGISTERS, SHARED, WARPS, PROGRAMS = 65_536, 227 << 10, 64, 32
WARP = 32
TARGET = "sm_90"

_INSTRUCTION = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?);")
_JUMP = re.compile(r"(?:@!?U?P\d+ )?BRA.* 0x([0-9a-f]+)")


@dataclass(frozen=True)
class Count:
    """A kernel's warp instructions for an edge and for a row, and how many warps a processor holds of it."""

    edge: float
    row: float
    resident: int


def main() -> None:
    args = _arguments()
    nodes, edges = SIZES[args.graph]
    rows = {Domain.NODE: nodes, Domain.SOURCE: nodes, Domain.TARGET: nodes, Domain.EDGE: edges}
    results = [_layer(name, args, rows) for name in args.layers]
    about = machine.describe(args.threads, tiny=True)
    size = {"nodes": nodes, "edges": edges, "features": args.features}
    found = {"kind": "instructions", "machine": about, "size": size, "results": results}
    report.finish(found, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--graph", choices=list(SIZES), default="reddit", help="whose size to assume")
    parser.add_argument("--layers", type=lambda t: t.split(","), default=list(LAYERS), help=",".join(LAYERS))
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--kernels", action="store_true", help="print a line for each kernel")
    report.add_options(parser)
    return parser.parse_args()


def _layer(name: str, args: argparse.Namespace, rows: dict[Domain, int]) -> dict[str, Any]:
    """Both directions of a layer: the sums over its kernels."""
    layer = LAYERS[name](args.features)
    conv = gdsl.compile(layer.source, **layer.arguments)
    conv.free_sizes.update(dict.fromkeys(conv.signature.free_dims, args.features))
    kernels = [k for k in conv.kernels_for("triton", TARGET) if k.name == k.kernel.name]
    compile_together(kernels)
    found: dict[str, Any] = {"layer": name, "registers": 0, "resident": WARPS}
    sums = {mode: {"edge": 0.0, "issue_ms": 0.0, "memory_ms": 0.0} for mode in ("forward", "backward")}
    for k in kernels:
        count, total = instructions(k), sums[k.direction]
        moved = cost.bytes_moved(k.kernel, cost.Numbers(rows))
        issued = count.edge * rows[Domain.EDGE] + count.row * rows[k.kernel.rows]
        total["edge"] += issued / rows[Domain.EDGE]
        total["issue_ms"] += issued / (PROCESSORS * ISSUED * CLOCK) * 1e3
        total["memory_ms"] += moved / BANDWIDTH * 1e3
        found["registers"] = max(found["registers"], k.binary.registers)
        found["resident"] = min(found["resident"], count.resident)
        if args.kernels:
            numbers = f"{count.edge:8.1f} an edge {count.row:8.1f} a row {count.resident:4} warps"
            print(f"{k.name:28}{numbers} {k.binary.registers:4} registers {k.binary.shared:6} bytes shared")
    return found | sums


def instructions(kernel: KernelInfo) -> Count:
    """Counted in the machine code: a walk is a loop, all else is done once for a block of rows."""
    assert kernel.job is not None
    code = kernel.asm("sass")
    warps = kernel.job.options["num_warps"]
    rows, edges = kernel.job.constants["BLOCK_ROWS"], kernel.job.constants["BLOCK_EDGES"]
    assert isinstance(rows, int)
    assert isinstance(edges, int)
    # A loop that was unrolled has a second one for what is left over.
    walks = sorted(_innermost(code), reverse=True)[: len(kernel.kernel.phases)]
    rest = sum(1 for _ in _INSTRUCTION.finditer(code)) - sum(walks)
    binary = kernel.binary
    by_registers = REGISTERS // (-(-binary.registers // 8) * 8 * WARP * warps)
    programs = min(PROGRAMS, WARPS // warps, by_registers, SHARED // (binary.shared + 1024))
    return Count(sum(walks) * warps / (rows * edges), rest * warps / rows, programs * warps)


def _innermost(code: str) -> Iterator[int]:
    """How many instructions the loops have that hold no other."""
    lines = [(int(at, 16), text) for at, text in _INSTRUCTION.findall(code)]
    place = {at: k for k, (at, _) in enumerate(lines)}
    loops = []
    for k, (at, text) in enumerate(lines):
        jump = _JUMP.match(text)
        if jump and (back := int(jump[1], 16)) < at and back in place:
            loops.append((place[back], k))
    for loop in loops:
        if not any(other != loop and loop[0] <= other[0] and other[1] <= loop[1] for other in loops):
            yield loop[1] - loop[0] + 1


if __name__ == "__main__":
    main()
