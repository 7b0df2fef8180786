"""Block sizes of Triton functions: chosen from the kernel and the graph's degrees, without a GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gdsl.codegen.blocks import LEAST_SIDE, power_of_two
from gdsl.codegen.triton import Function

# Numbers in the widest block of a program, and the most rows times edges.
BLOCK_NUMBERS = 4096
MOST_LANES = 128

# A block of up to so many numbers is shared by so many warps.
_WARPS = ((256, 1), (1024, 2), (8192, 4))
_MOST_WARPS = 8

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
        """Options of Triton. A product and a sum may be one instruction, as in the C++ kernels."""
        return {"num_warps": self.warps, "enable_fp_fusion": True}


def configure(function: Function, mean_degree: float = TYPICAL_DEGREE) -> Config:
    """As many edges of a row as a row has on average, and as many rows as fill a block."""
    lanes = max(1, min(MOST_LANES, BLOCK_NUMBERS // function.widest))
    lanes = 1 << (lanes.bit_length() - 1)
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
    numbers = rows * edges * function.widest
    return Config(rows, edges, next((w for most, w in _WARPS if numbers <= most), _MOST_WARPS))
