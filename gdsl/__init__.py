"""gdsl: a compiler for graph neural network operators."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gdsl.errors import CacheError, CompilerError, DistributedError, GdslError, GraphError, InputError
    from gdsl.language.errors import LanguageError, LanguageWarning
    from gdsl.module.api import compile, define
    from gdsl.module.layer import Layer
    from gdsl.runtime.complete import CompleteGraph
    from gdsl.runtime.graph import Graph

__version__ = "0.1.0"

# Where each public name lives. They are imported on first use, so that the command line can check and format
# programs without waiting for torch.
_HOMES = {
    "CacheError": "gdsl.errors",
    "CompilerError": "gdsl.errors",
    "CompleteGraph": "gdsl.runtime.complete",
    "DistributedError": "gdsl.errors",
    "GdslError": "gdsl.errors",
    "Graph": "gdsl.runtime.graph",
    "GraphError": "gdsl.errors",
    "InputError": "gdsl.errors",
    "LanguageError": "gdsl.language.errors",
    "LanguageWarning": "gdsl.language.errors",
    "Layer": "gdsl.module.layer",
    "compile": "gdsl.module.api",
    "define": "gdsl.module.api",
}

__all__ = [
    "CacheError",
    "CompilerError",
    "CompleteGraph",
    "DistributedError",
    "GdslError",
    "Graph",
    "GraphError",
    "InputError",
    "LanguageError",
    "LanguageWarning",
    "Layer",
    "compile",
    "define",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gdsl' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
