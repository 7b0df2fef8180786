"""Whole models, made of the layers. Interface and names of ``torch_geometric.nn.models``."""

from __future__ import annotations

from typing import Any

import gdsl.nn

__all__ = gdsl.nn.names_in("models")


def __getattr__(name: str) -> Any:
    return gdsl.nn.member("models", name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
