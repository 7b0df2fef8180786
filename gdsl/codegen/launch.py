"""Block sizes of Triton functions: chosen from the kernel and the graph's degrees, without a GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gdsl.codegen.blocks import LEAST_SIDE
from gdsl.codegen.notation import power_of_two
from gdsl.codegen.schedule import GPU_CHUNK_EDGES
from gdsl.codegen.triton import TritonFunction

# What a block is cut for: so many threads, if its numbers are as many as they should be. More are used where an edge
# alone has more numbers.
THREADS = 128
MOST_THREADS = 512
MOST_LANES = 128

# How many numbers of a block a thread takes, by how many such blocks there are: registers must hold those that are
# alive at a time.
THREAD_NUMBERS = ((12, 32), (20, 16))
# The same in a walk, where a thread takes as many numbers as it loads at once from each of a few edges of its row, and
# adds them up alone: more edges save few instructions, and cost registers that another program could have.
WALK_NUMBERS = ((14, 16),)
VECTOR = 4
# Where there are matrix products: each warp turns a whole operand into what the matrix units take.
DOT_NUMBERS = 16
DOT_EDGES = 8
# Otherwise, and where a sum of matrix products is held beside, or many other values are.
FEWEST_NUMBERS = 8

# Numbers that the rows of a program hold all along, and a thread of it; the second where registers are scarce.
HELD_NUMBERS = 10240
THREAD_HELD = (80, 20)

# What is worth trying: times the rows, the edges and the warps of the choice made without trying, which is the first.
AROUND = ((1, 1, 1), (1, 2, 1), (1, 0.5, 1), (2, 1, 2), (0.5, 1, 0.5))
# The same where there are matrix products: of 64 edges, units of Hopper's size take them, for half of the instructions.
AROUND_DOTS = ((1, 1, 1), (1, 2, 1), (2, 2, 1), (1, 4, 1), (2, 1, 2))

# Threads of a warp, of NVIDIA's GPUs; AMD's have twice as many.
WARP = 32

# The typical degree, a power of two, that is assumed where no graph is at hand.
TYPICAL_DEGREE = 16


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


def configure(function: TritonFunction, degree: int = TYPICAL_DEGREE, warp: int = WARP) -> Config:
    """A few edges of each row or chunk at a time, and as many of these as fill a block. ``warp`` is the GPU's."""
    lanes = floor_power(min(MOST_LANES, THREADS * _share(function) // function.widest))
    if function.ordered:
        return Config(lanes, 1, _warps(function, lanes, 1, warp))
    if function.dots:
        lanes = max(lanes, LEAST_SIDE)
    rows, edges = 1 if function.part == "hubs" else lanes, 1
    if function.walks:
        most = DOT_EDGES if function.dots else _share(function) // VECTOR
        edges = min(lanes, most, degree if function.part is None else GPU_CHUNK_EDGES)
        rows = min(lanes // edges, floor_power(HELD_NUMBERS // max(1, function.held_rows)))
        edges = max(edges, LEAST_SIDE // rows) if function.dots else edges
    if function.row_dots and function.walks:
        edges = max(edges, LEAST_SIDE)
    return Config(rows, edges, _warps(function, rows, edges, warp))


def _share(function: TritonFunction) -> int:
    """How many numbers of a block a thread takes."""
    if function.dots:
        return FEWEST_NUMBERS if function.held or function.crowded else DOT_NUMBERS
    shares = WALK_NUMBERS if function.walks else THREAD_NUMBERS
    return next((share for few, share in shares if function.values < few), FEWEST_NUMBERS)


def _warps(function: TritonFunction, rows: int, edges: int, warp: int) -> int:
    for_blocks = rows * edges * function.widest / _share(function)
    for_sums = (rows * function.held_rows + function.held) / THREAD_HELD[function.crowded]
    return power_of_two(math.ceil(min(MOST_THREADS, max(warp, for_blocks, for_sums)) / warp))


def floor_power(count: int) -> int:
    """The largest power of two that is not above the count, and at least 1."""
    return 1 << (max(1, count).bit_length() - 1)


def candidates(function: TritonFunction, degree: int, warp: int = WARP) -> list[Config]:
    """The block sizes worth trying, the ones that are taken without trying first."""
    first, most = configure(function, degree, warp), MOST_THREADS // warp
    found = []
    for rows, edges, warps in AROUND_DOTS if function.dots else AROUND:
        r, e, w = int(first.rows * rows), int(first.edges * edges), int(first.warps * warps)
        fits = r and e and 1 <= w <= most and (function.part != "hubs" or r == 1) and (function.walks or e == 1)
        fits = fits and not (function.ordered and e > 1)
        dots = not function.dots or r * e >= LEAST_SIDE
        if fits and dots and not (function.row_dots and e < LEAST_SIDE):
            found.append(Config(r, e, w))
    return list(dict.fromkeys(found))
