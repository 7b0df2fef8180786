"""Data sets of Open Graph Benchmark (Hu et al. 2020) from their folders as downloaded, without the package ``ogb``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.folders import data_root
from gdsl.data.packed import Packed, pack_arrays
from gdsl.data.planetoid import NodeData
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.graph import Graph
from gdsl.runtime.spans import row_numbers

# Whether files have each edge once, and the split that is the standard one. Of molecules there are several sets.
_NODES = {"ogbn-arxiv": (False, "time"), "ogbn-products": (True, "sales_ranking")}
_MOLECULES = "ogbg-mol"
_SPLITS = ("train", "valid", "test")


def load_ogb(name: str, root: str | Path | None = None) -> NodeData | Packed | None:
    """A data set by its name: "ogbn-arxiv" and "ogbn-products" as one graph, "ogbg-molhiv" and other sets of molecules
    packed; None where its folder is not there.

    root: the folder with ``ogbn_arxiv`` and so on, as ``ogb`` downloads them; that of ``$GDSL_DATA`` where it is None

    Values are those that ``ogb`` gives, edges both ways where it gives them so. The nodes' standard split is in the
    masks; that of the graphs gives :func:`load_ogb_split`.

    Raises ``InputError`` for a name that is none of these, for a file that is missing, damaged or does not fit the
    others, ``GraphError`` for edges between nodes that are not there.
    """
    both_ways, split = _about(name)
    folder = _folder(name, root)
    if folder is None:
        return None
    raw = folder / "raw"
    nodes, edges = (_read(raw, f"num-{what}-list", np.int64).squeeze(1) for what in ("node", "edge"))
    edge_index = _read(raw, "edge", np.int64, int(edges.sum())).t().contiguous()
    if edge_index.shape[0] != 2:
        raise InputError(f"{raw / 'edge.csv.gz'}: an edge has {edge_index.shape[0]} ends")
    parts = {key: _features(raw, file, total) for key, file, total in (
        ("x", "node-feat", int(nodes.sum())), ("edge_attr", "edge-feat", edge_index.shape[1]),
    )}  # fmt: skip
    if both_ways:
        # ogb gives each edge, and the one the other way just behind it.
        edge_index = torch.stack([edge_index, edge_index.flip(0)], dim=2).reshape(2, -1)
        if parts["edge_attr"] is not None:
            parts["edge_attr"] = parts["edge_attr"].repeat_interleave(2, dim=0)
        edges = 2 * edges
    if name in _NODES:
        return _one_graph(name, folder, split, edge_index, int(nodes.sum()), parts["x"])
    y = _read(raw, "graph-label", np.float64, len(nodes))
    whole = not bool(y.isnan().any())
    owner, of_edge = map(row_numbers, (nodes, edges))
    first = nodes.cumsum(0) - nodes
    return pack_arrays(
        edge_index + first[of_edge], owner, nodes=_there("x", parts), edges=_there("edge_attr", parts),
        graphs={"y": y.long() if whole else y.float()}, num_graphs=len(nodes),
    )  # fmt: skip


def load_ogb_split(name: str, root: str | Path | None = None) -> dict[str, Tensor] | None:
    """The numbers of the nodes or graphs to train, validate ("valid") and test, by the standard split; None where the
    data set is not there.

    See :func:`load_ogb`.
    """
    _, split = _about(name)
    folder = _folder(name, root)
    return None if folder is None else _split(folder, split)


def _about(name: str) -> tuple[bool, str]:
    if name in _NODES:
        return _NODES[name]
    if isinstance(name, str) and name.startswith(_MOLECULES):
        return True, "scaffold"
    raise InputError(f"{name!r} is none of {', '.join(_NODES)} and {_MOLECULES}...; for others take the package ogb")


def _folder(name: str, root: str | Path | None) -> Path | None:
    root = data_root() if root is None else given.path(root)
    if root is None:
        return None
    names = (name.replace("-", "_"), name.replace("-", "_") + "_pyg")
    return next((root / found for found in names if (root / found / "raw").is_dir()), None)


def _one_graph(
    name: str, folder: Path, split: str, edge_index: Tensor, nodes: int, x: Tensor | None
) -> NodeData:
    y = _read(folder / "raw", "node-label", np.int64, nodes).squeeze(1)
    Graph(edge_index, nodes)  # all nodes are there
    masks = {part: torch.zeros(nodes, dtype=torch.bool, device=CPU) for part in _SPLITS}
    for part, ids in _split(folder, split).items():
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < nodes:
            raise InputError(f"{folder / 'split' / split}: {part} names a node that is not there: there are {nodes}")
        masks[part][ids] = True
    return NodeData(
        name=name, edge_index=edge_index, num_nodes=nodes, y=y, num_classes=int(y.max()) + 1 if nodes else 0, x=x,
        train_mask=masks["train"], val_mask=masks["valid"], test_mask=masks["test"],
    )  # fmt: skip


def _split(folder: Path, split: str) -> dict[str, Tensor]:
    return {part: _read(folder / "split" / split, part, np.int64).flatten() for part in _SPLITS}


def _features(raw: Path, part: str, rows: int) -> Tensor | None:
    """Integers where all are, else float32."""
    if not (raw / f"{part}.csv.gz").is_file():
        return None
    try:
        return _read(raw, part, np.int64, rows)
    except InputError:
        return _read(raw, part, np.float32, rows)


def _there(key: str, parts: dict[str, Tensor | None]) -> dict[str, Tensor]:
    value = parts[key]
    return {} if value is None else {key: value}


def _read(folder: Path, part: str, dtype: Any, rows: int | None = None) -> Tensor:
    """[rows, columns]; of floating point with NaN for what is left empty."""
    path = folder / f"{part}.csv.gz"
    try:
        if dtype is np.float64:
            found = np.genfromtxt(path, delimiter=",", dtype=dtype)
            found = found.reshape(rows, -1) if rows else found.reshape(0, 1)
        else:
            found = np.loadtxt(path, delimiter=",", dtype=dtype, ndmin=2)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if rows is not None and len(found) != rows:
        raise InputError(f"{path} has {len(found)} lines, and {rows} are needed")
    return torch.from_numpy(found)
