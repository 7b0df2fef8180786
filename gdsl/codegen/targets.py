"""The GPUs that kernels are compiled for, and what the versions of Triton do there."""

from __future__ import annotations

import functools
from importlib.metadata import version

# Name -> what Triton calls it: backend, architecture, threads of a warp.
TARGETS: dict[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_86": ("cuda", 86, 32),
    "sm_89": ("cuda", 89, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx90a": ("hip", "gfx90a", 64),
    "gfx942": ("hip", "gfx942", 64),
}
DEFAULT_TARGET = "sm_90"

# How `tl.dot` multiplies float32 without losing digits, by Triton's backend: in three products of 11 bits each, where
# the matrix units have none of 24. Sums over edges add few products to many results, which three times the operands
# would crowd out of the registers.
PRECISE = {"cuda": "tf32x3", "hip": "ieee"}
SUM_PRECISE = "ieee"

# The first Triton that hands axes out to threads from the last on, of those that lie alike in memory.
LAST_AXIS_FIRST = (3, 7)


@functools.cache
def edge_axis() -> int:
    """The axis of blocks that counts edges: the one that Triton hands out to threads last, of two that lie alike."""
    major, minor = version("triton").split(".")[:2]
    return 0 if (int(major), int(minor)) >= LAST_AXIS_FIRST else 1
