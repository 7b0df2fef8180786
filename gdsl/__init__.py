"""gdsl: a compiler for graph neural network operators."""

from gdsl.api import compile, define
from gdsl.errors import CacheError, CompilerError, GdslError, GraphError, InputError
from gdsl.language.errors import LanguageError
from gdsl.layer import Layer
from gdsl.runtime.graph import Graph

__version__ = "0.1.0"

__all__ = [
    "CacheError",
    "CompilerError",
    "GdslError",
    "Graph",
    "GraphError",
    "InputError",
    "LanguageError",
    "Layer",
    "compile",
    "define",
]
