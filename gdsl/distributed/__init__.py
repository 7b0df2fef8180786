"""Graphs over several processes of ``torch.distributed``."""

from __future__ import annotations

from gdsl.runtime.halo import Halo
from gdsl.runtime.local import LocalGraph

__all__ = ["Halo", "LocalGraph"]
