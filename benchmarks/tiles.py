"""How many edges lie in dense tiles of the adjacency matrix, by the order of the nodes: what tensor cores could have.

    python benchmarks/tiles.py

A tile of 16 × 16 that is computed as a dense product reads the rows of its 16 sources once, edges one by one read a row
each: rows are saved where a tile has more than 16 edges. Counts, which no machine changes. Needs pymetis
(`pip install 'gdsl[metis]'`) for the order by clusters.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import graphs
import report
import torch
from torch import Tensor

import gdsl
from gdsl.data.clusters import metis

TILE = 16
# Nodes of a cluster.
CLUSTER = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="the folder of data sets, in place of GDSL_DATA")
    parser.add_argument("--graphs", type=lambda text: text.split(","), default=list(GRAPHS), help=", ".join(GRAPHS))
    parser.add_argument("--edges", type=int, default=2_000_000, help="of the R-MAT graph, ten times its nodes")
    args = parser.parse_args()
    header = ("graph", "order", "edges a tile", f"edges in tiles of {TILE} or more", "rows saved")
    print(report.table(header, [row for name in args.graphs for row in _rows(name, args)]))


def _rows(name: str, args: argparse.Namespace) -> list[Sequence[str]]:
    edge_index, nodes = GRAPHS[name](args)
    edge_index = edge_index.unique(dim=1)
    title = f"{name}, {nodes:,} nodes, {edge_index.shape[1]:,} edges"
    found = []
    for order, places in ORDERS.items():
        counts = tiles(edge_index, places(edge_index, nodes), nodes)
        edges = edge_index.shape[1]
        dense, saved = (float(n.sum()) / edges for n in (counts[counts >= TILE], (counts - TILE).clamp_min(0)))
        found.append((title, order, f"{edges / len(counts):.2f}", f"{dense:.0%}", f"{saved:.0%}"))
        title = ""
    return found


def tiles(edge_index: Tensor, place: Tensor, nodes: int) -> Tensor:
    """How many edges each tile has that has one. ``place`` is where each node stands."""
    source, target = place[edge_index] // TILE
    _, counts = (target * (nodes // TILE + 1) + source).unique(return_counts=True)
    return counts


def _as_is(edge_index: Tensor, nodes: int) -> Tensor:
    return torch.arange(nodes)


def _by_degree(edge_index: Tensor, nodes: int) -> Tensor:
    return _places(edge_index[1].bincount(minlength=nodes).argsort(descending=True, stable=True))


def _by_cluster(edge_index: Tensor, nodes: int) -> Tensor:
    """Clusters of METIS one after the other, nodes of high degree first in each."""
    cluster = metis(gdsl.Graph(edge_index, nodes), max(2, nodes // CLUSTER))
    degree = edge_index[1].bincount(minlength=nodes)
    return _places((cluster * (int(degree.max()) + 1) - degree).argsort(stable=True))


def _places(order: Tensor) -> Tensor:
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))


ORDERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "as it is": _as_is, "by degree": _by_degree, "by clusters": _by_cluster,
}  # fmt: skip
GRAPHS: dict[str, Callable[[argparse.Namespace], tuple[Tensor, int]]] = {
    "GitHub": lambda args: graphs.github(0, 0, args.data),
    "R-MAT": lambda args: (graphs.rmat(args.edges // 10, args.edges, "cpu"), args.edges // 10),
    "molecules": lambda args: graphs.molecules(25_000, 54_000),
}


if __name__ == "__main__":
    main()
