"""Block sizes of Triton functions: chosen from the kernel and the graph's degrees, without a GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gdsl.codegen.blocks import LEAST_SIDE, power_of_two
from gdsl.codegen.triton import Function

# Numbers in the widest block of a program, the most rows times edges, and the most that a program holds all along.
BLOCK_NUMBERS = 4096
MOST_LANES = 128
HELD_NUMBERS = 4096

# How many numbers of a block a thread takes, by how many such blocks there are: registers must hold those that are
# alive at a time. Beside them it holds up to so many all along.
THREAD_NUMBERS = ((12, 32), (20, 16), (40, 8))
FEWEST_NUMBERS = 4
THREAD_HELD = 16
THREADS = 256
MOST_THREADS = 512

# Threads of a warp, of NVIDIA's GPUs; AMD's have twice as many.
WARP = 32

# The mean degree that is assumed where no graph is at hand.
TYPICAL_DEGREE = 16.0


@dataclass(frozen=True)
class Config:
    """The block sizes and warps of a launch."""

    rows: int
    edges: int
    warps: int

    @property
    def blocks(self) -> dict[str, int]:
        """The constants of a function."""
        return {"BLOCK_ROWS": self.rows, "BLOCK_EDGES": self.edges}

    @property
    def compiler(self) -> dict[str, int]:
        """Options of Triton."""
        return {"num_warps": self.warps}


def configure(function: Function, mean_degree: float = TYPICAL_DEGREE, warp: int = WARP) -> Config:
    """As many edges of a row as a row has on average, and as many rows as fill a block. ``warp`` is the GPU's."""
    # Matrix units take operands in layouts of their own, beside those that the blocks have.
    numbers = min(BLOCK_NUMBERS, THREADS * _share(function))
    if function.dots:
        numbers = BLOCK_NUMBERS // (4 if function.held else 2)
    lanes = floor_power(min(MOST_LANES, numbers // function.widest))
    if function.dots:
        lanes = max(lanes, LEAST_SIDE)
    edges = lanes
    if function.part == "hubs" or not function.walks:
        edges = 1
    elif function.part is None:
        edges = min(lanes, power_of_two(max(1, math.ceil(mean_degree))))
    if function.row_dots and function.part != "hubs":
        edges = max(edges, LEAST_SIDE)
    rows = 1 if function.part is not None else max(1, lanes // edges)
    if function.part is None and function.held_rows:
        rows = min(rows, floor_power(HELD_NUMBERS // function.held_rows))
        edges = max(edges, LEAST_SIDE // rows) if function.dots else edges
    return Config(rows, edges, _warps(function, rows, edges, warp))


def _share(function: Function) -> int:
    return next((share for few, share in THREAD_NUMBERS if function.values < few), FEWEST_NUMBERS)


def _warps(function: Function, rows: int, edges: int, warp: int) -> int:
    # More threads than this leave each so few registers that there is nothing gained.
    for_blocks = min(THREADS, rows * edges * function.widest / _share(function))
    for_sums = (rows * function.held_rows + function.held) / THREAD_HELD
    threads = THREADS if function.dots else max(warp, for_blocks, for_sums)
    return power_of_two(math.ceil(min(MOST_THREADS, threads) / warp))


def floor_power(count: int) -> int:
    """The largest power of two that is not above the count, and at least 1."""
    return 1 << (max(1, count).bit_length() - 1)


def candidates(function: Function, mean_degree: float, warp: int = WARP) -> list[Config]:
    """The block sizes worth trying, the ones that are taken without trying first."""
    first = configure(function, mean_degree, warp)
    found = [first]
    for rows, edges in ((1, 1), (2, 0.5), (0.5, 2), (0.5, 1), (1, 0.5)):
        r, e = int(first.rows * rows), int(first.edges * edges)
        fits = r and e and (function.part is None or r == 1) and (function.walks or e == 1)
        dots = not function.dots or r * e >= LEAST_SIDE
        if fits and dots and not (function.row_dots and e < LEAST_SIDE):
            found.append(Config(r, e, _warps(function, r, e, warp)))
    most = MOST_THREADS // warp
    found += [Config(first.rows, first.edges, w) for w in (first.warps // 2, first.warps * 2) if 1 <= w <= most]
    return list(dict.fromkeys(found))
