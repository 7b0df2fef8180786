"""The data sets of TUDataset (Morris et al. 2020), from their raw files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gdsl.data import given
from gdsl.data.folders import data_root
from gdsl.data.packed import Packed, pack_arrays
from gdsl.errors import InputError
from gdsl.runtime.graph import Graph

# Degrees above this one share a feature.
MOST_DEGREES = 64


def load_tu(
    name: str, root: str | Path | None = None, *, use_node_attr: bool = False, use_edge_attr: bool = False
) -> Packed | None:
    """A data set of TUDataset by its name, such as "MUTAG"; None where its files are not there.

    root: the folder with ``TUDataset/<name>/<name>/raw``; that of ``$GDSL_DATA`` where it is None

    What is read is what torch_geometric's ``TUDataset`` reads: no self-loops, each edge once; ``x`` the one-hot labels
    of nodes, after their attributes with ``use_node_attr``; ``edge_attr`` likewise; ``y``. Nodes that have none of
    these are told apart by their degrees.
    """
    root = data_root() if root is None else given.path(root)
    raw = None if root is None else root / "TUDataset" / str(name) / str(name) / "raw"
    if raw is None or not raw.is_dir():
        return None
    return read_tu(raw, name, use_node_attr=use_node_attr, use_edge_attr=use_edge_attr)


def read_tu(raw: Path, name: str, *, use_node_attr: bool = False, use_edge_attr: bool = False) -> Packed:
    """See :func:`load_tu`; ``raw`` is the folder with ``<name>_A.txt`` and so on.

    Raises ``InputError`` for a file that is missing or that does not fit the others, ``GraphError`` for edges between
    nodes that are not there or not in one graph.
    """
    batch = _read(raw, name, "graph_indicator", np.int64).squeeze(1) - 1
    edge_index = _read(raw, name, "A", np.int64).t() - 1
    if edge_index.shape[0] != 2:
        raise InputError(f"{raw / f'{name}_A.txt'}: an edge has {edge_index.shape[0]} ends")
    Graph(edge_index, len(batch))  # all nodes are there
    parts = {}
    for kind, rows, wanted in (("node", len(batch), use_node_attr), ("edge", edge_index.shape[1], use_edge_attr)):
        found = []
        if wanted and (raw / f"{name}_{kind}_attributes.txt").is_file():
            found.append(_read(raw, name, f"{kind}_attributes", np.float64, rows).float())
        if (raw / f"{name}_{kind}_labels.txt").is_file():
            found += [F.one_hot(c - c.min()).float() for c in _read(raw, name, f"{kind}_labels", np.int64, rows).t()]
        parts[kind] = torch.cat(found, dim=1) if found else None
    edge_index, edge_attr = _without_repeats(edge_index, parts["edge"], len(batch))
    x = parts["node"]
    if x is None:
        x = F.one_hot(torch.bincount(edge_index[1], minlength=len(batch)).clamp(max=MOST_DEGREES)).float()
    return pack_arrays(
        edge_index, batch, nodes={"x": x}, edges={} if edge_attr is None else {"edge_attr": edge_attr},
        graphs={"y": _labels(raw, name)},
    )  # fmt: skip


def _labels(raw: Path, name: str) -> Tensor:
    if (raw / f"{name}_graph_attributes.txt").is_file():
        found = _read(raw, name, "graph_attributes", np.float64).float()
        return found.squeeze(1) if found.shape[1] == 1 else found
    return _read(raw, name, "graph_labels", np.int64).squeeze(1).unique(return_inverse=True)[1]


def _without_repeats(edge_index: Tensor, value: Tensor | None, nodes: int) -> tuple[Tensor, Tensor | None]:
    """Each edge once, sorted by source and target, without self-loops; values of an edge that came twice add up."""
    kept = edge_index[0] != edge_index[1]
    edge_index, value = edge_index[:, kept], None if value is None else value[kept]
    flat, place = (edge_index[0] * nodes + edge_index[1]).unique(return_inverse=True)
    if value is not None:
        value = value.new_zeros(len(flat), value.shape[1]).index_add(0, place, value)
    return torch.stack([flat // max(nodes, 1), flat % max(nodes, 1)]), value


def _read(raw: Path, name: str, part: str, dtype: type, rows: int | None = None) -> Tensor:
    """[rows, columns]"""
    path = raw / f"{name}_{part}.txt"
    try:
        found = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=dtype, ndmin=2))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if rows is not None and len(found) != rows:
        raise InputError(f"{path} has {len(found)} lines, and {rows} are needed")
    return found
