"""What machines can do at most: the roofs over a kernel's operations a byte."""

from __future__ import annotations

import functools
from typing import Any

import torch

from gdsl.codegen.targets import DEFAULT_TARGET
from gdsl.look.measure import seconds

# Name, what is compiled for it, bytes a second from memory, float32 operations a second: of the vendors' data sheets.
KNOWN: tuple[tuple[str, str, float, float], ...] = (
    ("NVIDIA A100 80 GB", "sm_80", 2.039e12, 19.5e12),
    ("NVIDIA H100 SXM", "sm_90", 3.35e12, 67e12),
    ("NVIDIA RTX 4090", "sm_89", 1.008e12, 82.6e12),
    ("AMD MI300X", "gfx942", 5.3e12, 163.4e12),
)

# Beyond what caches hold, and few enough that a measurement is over in half a second.
_COPIED, _SIDE, _TRIES = 1 << 26, 768, 3


def machines() -> list[dict[str, Any]]:
    """This machine as it was measured, then those that are known."""
    bandwidth, flops = measured()
    # Its processor; a GPU's code is looked at for the usual one.
    own = {"name": "this machine", "device": "cpu", "target": DEFAULT_TARGET, "bandwidth": bandwidth, "flops": flops}
    known = ({"name": n, "device": "cuda", "target": t, "bandwidth": b, "flops": f} for n, t, b, f in KNOWN)
    return [own, *known]


@functools.cache
def measured() -> tuple[float, float]:
    """Bytes a second of a copy, and operations a second of a product of matrices, on the threads that torch has."""
    source = torch.zeros(_COPIED // 4)
    target = torch.empty_like(source)
    square = torch.ones(_SIDE, _SIDE)
    copy = min(seconds(lambda: target.copy_(source)) for _ in range(_TRIES))
    product = min(seconds(lambda: square @ square) for _ in range(_TRIES))
    return 2 * _COPIED / copy, 2 * _SIDE**3 / product
