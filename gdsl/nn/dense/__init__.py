"""Layers and poolings on dense adjacencies, and linear maps by type. Interface of ``torch_geometric.nn.dense``."""

from __future__ import annotations

from typing import Any

import gdsl.nn

__all__ = gdsl.nn.names_in("dense")


def __getattr__(name: str) -> Any:
    return gdsl.nn.member("dense", name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
