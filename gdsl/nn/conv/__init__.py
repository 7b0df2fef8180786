"""Graph convolutions: each a program of the language and a thin class. Names of ``torch_geometric.nn.conv``."""

from __future__ import annotations

from typing import Any

import gdsl.nn

__all__ = gdsl.nn.names_in("conv")


def __getattr__(name: str) -> Any:
    return gdsl.nn.member("conv", name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
