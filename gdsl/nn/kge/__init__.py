"""Embeddings of knowledge graphs. Interface and names of ``torch_geometric.nn.kge``."""

from __future__ import annotations

from typing import Any

import gdsl.nn

__all__ = gdsl.nn.names_in("kge")


def __getattr__(name: str) -> Any:
    return gdsl.nn.member("kge", name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
