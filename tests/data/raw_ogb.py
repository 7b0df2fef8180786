"""Folders as those of Open Graph Benchmark's downloads, written in small."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SPLITS = ("train", "valid", "test")


def csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)


def _folder(root: Path, name: str, split: str, parts: Sequence[Tensor]) -> Path:
    folder = root / name
    for part, ids in zip(SPLITS, parts, strict=True):
        csv(folder / "split" / split / f"{part}.csv.gz", ids.unsqueeze(1).tolist())
    (folder / "RELEASE_v1.txt").write_text("")
    csv(folder / "mapping" / "README.csv.gz", [["the numbers of nodes in other data sets; nothing reads them"]])
    return folder / "raw"


def arxiv(root: Path, nodes: int = 40, edges: int = 150) -> dict[str, Tensor]:
    """ogbn-arxiv: one graph with features, years and labels of its nodes, split by time. Gives what is in it."""
    random = torch.Generator().manual_seed(0)
    found = {
        "x": torch.randn(nodes, 128, generator=random),
        "edge_index": torch.randint(nodes, (2, edges), generator=random),
        "node_year": torch.randint(2010, 2021, (nodes, 1), generator=random),
        "y": torch.randint(40, (nodes, 1), generator=random),
    }
    order = found["node_year"][:, 0].argsort(stable=True)
    found |= dict(zip(SPLITS, order.split([nodes - 20, 10, 10]), strict=True))
    raw = _folder(root, "ogbn_arxiv", "time", [found[part] for part in SPLITS])
    csv(raw / "edge.csv.gz", found["edge_index"].t().tolist())
    csv(raw / "num-node-list.csv.gz", [[nodes]])
    csv(raw / "num-edge-list.csv.gz", [[edges]])
    csv(raw / "node-feat.csv.gz", found["x"].tolist())
    csv(raw / "node_year.csv.gz", found["node_year"].tolist())
    csv(raw / "node-label.csv.gz", found["y"].tolist())
    return found


def molhiv(root: Path, graphs: int = 12) -> list[dict[str, Tensor]]:
    """ogbg-molhiv: molecules with nine numbers of an atom and three of a bond, each bond once, split by scaffolds.
    Gives each molecule, with its bonds both ways as ogb gives them."""
    random = torch.Generator().manual_seed(0)
    found, bonds = [], []
    for _ in range(graphs):
        atoms = int(torch.randint(2, 9, (1,), generator=random))
        chain = torch.stack([torch.arange(atoms - 1), torch.arange(1, atoms)], dim=1)
        kinds = torch.randint(4, (atoms - 1, 3), generator=random)
        bonds.append((chain, kinds))
        found.append(
            {
                "x": torch.randint(119, (atoms, 9), generator=random),
                "edge_index": torch.stack([chain, chain.flip(1)], dim=1).reshape(-1, 2).t().contiguous(),
                "edge_attr": kinds.repeat_interleave(2, dim=0),
                "y": torch.randint(2, (1, 1), generator=random),
            }
        )
    raw = _folder(root, "ogbg_molhiv", "scaffold", torch.randperm(graphs, generator=random).split([graphs - 4, 2, 2]))
    csv(raw / "edge.csv.gz", torch.cat([chain for chain, _ in bonds]).tolist())
    csv(raw / "edge-feat.csv.gz", torch.cat([kinds for _, kinds in bonds]).tolist())
    csv(raw / "num-node-list.csv.gz", [[len(graph["x"])] for graph in found])
    csv(raw / "num-edge-list.csv.gz", [[len(chain)] for chain, _ in bonds])
    csv(raw / "node-feat.csv.gz", torch.cat([graph["x"] for graph in found]).tolist())
    csv(raw / "graph-label.csv.gz", torch.cat([graph["y"] for graph in found]).tolist())
    return found
