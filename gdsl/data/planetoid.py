"""The citation graphs of Planetoid (Yang et al. 2016), from their raw files."""

from __future__ import annotations

import pickle
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.folders import data_root
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU


@dataclass(frozen=True)
class NodeData:
    """One graph with a label on each node.

    `edge_index` is `[2, E]`, source row first; of a Planetoid graph it holds both directions of every undirected edge,
    without duplicates, sorted by source and then target. The masks are `None` where the data set has no public split.
    """

    name: str
    edge_index: Tensor
    num_nodes: int
    y: Tensor
    num_classes: int
    x: Tensor | None = None
    train_mask: Tensor | None = None
    val_mask: Tensor | None = None
    test_mask: Tensor | None = None

    @property
    def num_edges(self) -> int:
        return self.edge_index.shape[1]

    def __str__(self) -> str:
        features = "no features" if self.x is None else f"{self.x.shape[1]:,} features"
        size = f"{self.num_nodes:,} nodes, {self.num_edges:,} edges"
        return f"{self.name}: {size}, {features}, {self.num_classes} classes"


PLANETOID_FOLDERS = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}


def load_planetoid(name: str, root: str | Path | None = None) -> NodeData | None:
    """Cora, CiteSeer or PubMed, split as usual: 20 training nodes a class, 500 to validate, 1,000 to test.

    Features are the raw 0/1 (PubMed: tf-idf) rows. The files are Python 2 pickles, read by an unpickler that knows
    arrays, sparse matrices and dictionaries only.

    Raises ``InputError`` for another name, and for files that are missing, damaged or do not fit each other.
    """
    key = str(name).lower()
    if key not in PLANETOID_FOLDERS:
        raise InputError(f"{name!r} is not a Planetoid graph; expected one of {', '.join(PLANETOID_FOLDERS)}")
    root = data_root() if root is None else given.path(root)
    if root is None:
        return None
    raw = root / "Planetoid" / PLANETOID_FOLDERS[key] / "raw"
    if not raw.is_dir():
        return None

    try:
        return _read(raw, key)
    except ImportError:  # of SciPy
        raise
    except Exception as error:  # of a damaged pickle anything, as its types and shapes may be any
        raise InputError(f"{raw} cannot be read as {name}: {type(error).__name__}: {error}") from None


def _read(raw: Path, key: str) -> NodeData:
    def unpickle(part: str) -> Any:
        with open(raw / f"ind.{key}.{part}", "rb") as file:
            return _Unpickler(file, encoding="latin1").load()

    allx, tx = _dense(unpickle("allx")), _dense(unpickle("tx"))
    ally, ty = np.asarray(unpickle("ally")), np.asarray(unpickle("ty"))
    num_train = len(unpickle("y"))
    graph: dict[int, list[int]] = unpickle("graph")
    test_order = np.loadtxt(raw / f"ind.{key}.test.index", dtype=np.int64)
    test_nodes = np.sort(test_order)

    # Test rows come in the order of `test.index`, and CiteSeer lists 1,000 of its last 1,015 nodes: the
    # other 15 have no edges, no features and no label. Their rows are zeros, and their (unused) label is
    # class 0.
    num_nodes = max(len(allx) + len(tx), int(test_nodes[-1]) + 1)
    x = np.zeros((num_nodes, allx.shape[1]), dtype=np.float32)
    one_hot = np.zeros((num_nodes, ally.shape[1]), dtype=np.int64)
    x[: len(allx)], one_hot[: len(ally)] = allx, ally
    x[test_order], one_hot[test_order] = tx, ty

    row = np.repeat(list(graph), [len(targets) for targets in graph.values()])
    col = np.concatenate([np.asarray(targets, dtype=np.int64) for targets in graph.values()])

    index = torch.arange(num_nodes, device=CPU)
    return NodeData(
        name=PLANETOID_FOLDERS[key],
        edge_index=undirected(row, col, num_nodes),
        num_nodes=num_nodes,
        y=torch.from_numpy(one_hot.argmax(axis=1)),
        num_classes=ally.shape[1],
        x=torch.from_numpy(x),
        train_mask=index < num_train,
        val_mask=(index >= num_train) & (index < num_train + 500),
        test_mask=torch.isin(index, torch.from_numpy(test_nodes)),
    )


_ALLOWED = {
    "defaultdict": defaultdict,
    "int": int,
    "list": list,
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_reconstruct": np.ndarray((0,)).__reduce__()[0],
}


class _Unpickler(pickle.Unpickler):
    """Makes no object but those above and sparse matrices, from the modules where numpy and SciPy keep them today."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "csr_matrix":
            from scipy.sparse import csr_matrix

            return csr_matrix
        if name not in _ALLOWED:
            raise pickle.UnpicklingError(f"a Planetoid file asks for {module}.{name}, and has no use for it")
        return _ALLOWED[name]


def _dense(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix, dtype=np.float32)


def undirected(row: np.ndarray, col: np.ndarray, num_nodes: int) -> Tensor:
    """[2, E] both directions of each edge, once each, no self-loops, sorted."""
    keep = row != col
    row, col = row[keep].astype(np.int64), col[keep].astype(np.int64)
    flat = np.unique(np.concatenate([row * num_nodes + col, col * num_nodes + row]))
    return torch.from_numpy(np.stack([flat // num_nodes, flat % num_nodes]))
