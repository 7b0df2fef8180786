"""What is costly to find of a graph, kept in a file for the next run."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdsl.data import given
from gdsl.errors import InputError
from gdsl.runtime.graph import Graph
from gdsl.store import replacing


def stored(
    folder: Any, name: str, graph: Graph, settings: dict[str, Any], find: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors of a file of a folder, which is made and written where it is not there; without a folder, found anew.

    settings: all that they depend on besides the graph, as text and numbers

    Raises ``InputError`` for a file of something else or that cannot be read, and for a folder that cannot be made.
    Nothing of a file is executed.
    """
    if folder is None:
        return find()
    path, about = given.path(folder) / name, fingerprint(graph) | settings
    if path.exists():
        return _read(path, about)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be made, where something is to be kept: {error}") from None
    found = find()
    # As a file and not by its name: torch takes no name that begins with a dot.
    with replacing(path) as temporary, open(temporary, "wb") as out:
        torch.save({"about": about, "tensors": found}, out)
    return found


def _read(path: Path, about: dict[str, Any]) -> dict[str, Tensor]:
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
        tensors, of = found["tensors"], found["about"]
    except Exception as error:  # whatever torch raises for a file that is none of its own
        raise InputError(f"{path} cannot be read ({type(error).__name__}): delete it, and it is made anew") from None
    if of != about:
        raise InputError(f"{path} belongs to another graph or to other settings: delete it, or take another folder")
    return tensors


def fingerprint(graph: Graph) -> dict[str, int]:
    """What tells a graph from others."""
    edges = graph.edge_index.contiguous().numpy()
    return {"nodes": graph.num_targets, "edges": graph.num_edges, "crc": zlib.crc32(edges.data)}
