"""The graphs that layers are measured on: edge_index [2, E] (sources, targets) and the number of nodes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gdsl.look import measure

SEED = 0
MOLECULES = 1000
MAX_VALENCE = 4


def power_law(nodes: int, edges: int, data: str | None = None) -> tuple[Tensor, int]:
    """Sources drawn with a probability that falls as rank ** -0.8, targets drawn evenly."""
    return measure.power_law(nodes, edges, SEED), nodes


def github(nodes: int, edges: int, data: str | None = None) -> tuple[Tensor, int]:
    """GitHub developers who follow each other (Rozemberczki et al., 2019), each edge both ways."""
    root = data or os.environ.get("GDSL_DATA")
    if not root:
        raise SystemExit("the GitHub graph needs --data FOLDER or $GDSL_DATA, with musae/git.npz in it")
    path = Path(root).expanduser() / "musae" / "git.npz"
    if not path.is_file():
        raise SystemExit(f"there is no {path}")
    with np.load(path) as held:
        pairs = torch.from_numpy(held["edges"].astype(np.int64)).t()
        count = len(held["y"])
    return torch.cat([pairs, pairs.flip(0)], dim=1), count


def molecules(nodes: int, edges: int, data: str | None = None) -> tuple[Tensor, int]:
    """1,000 random trees of 20 to 30 atoms with up to three ring bonds each, each bond both ways."""
    random = np.random.default_rng(SEED)
    bonds: list[tuple[int, int]] = []
    first = 0
    for _ in range(MOLECULES):
        size = int(random.integers(20, 31))
        bonds += [(first + a, first + b) for a, b in _molecule(size, random)]
        first += size
    pairs = torch.tensor(bonds).t()
    return torch.cat([pairs, pairs.flip(0)], dim=1), first


def _molecule(size: int, random: np.random.Generator) -> list[tuple[int, int]]:
    valence = np.zeros(size, dtype=int)
    bonds: list[tuple[int, int]] = []

    def bond(a: int, b: int) -> None:
        bonds.append((a, b))
        valence[[a, b]] += 1

    for atom in range(1, size):
        # Near the end of the chain, as in real molecules, where long paths are more common than stars.
        free = [a for a in range(max(0, atom - 4), atom) if valence[a] < MAX_VALENCE]
        bond(int(random.choice(free)), atom)
    for _ in range(3):
        a, b = (int(v) for v in random.choice(size, 2, replace=False))
        if max(valence[a], valence[b]) < MAX_VALENCE and not {(a, b), (b, a)} & set(bonds):
            bond(a, b)
    return bonds


# Entities and triples, both ways, of FB15k-237 (Toutanova and Chen, 2015), which has 237 relations and their inverses.
ENTITIES, TRIPLES = 14_541, 544_230


def knowledge(nodes: int, edges: int, data: str | None = None) -> tuple[Tensor, int]:
    """As many edges and nodes as FB15k-237 has, with the degrees of ``power_law``."""
    return power_law(ENTITIES, TRIPLES)


# Quadrants of R-MAT, as in Graph500.
QUADRANTS = (0.57, 0.19, 0.19, 0.05)
# Nodes and directed edges of well-known graphs.
SIZES = {"arxiv": (169_343, 1_166_243), "reddit": (232_965, 114_615_892), "products": (2_449_029, 123_718_280)}


def rmat(nodes: int, edges: int, device: torch.device | str) -> Tensor:
    """An R-MAT graph with skewed degrees, made on a device (Chakrabarti et al., SDM 2004). Nodes are renumbered."""
    random = torch.Generator(device).manual_seed(SEED)
    source = torch.zeros(edges, dtype=torch.int64, device=device)
    target = torch.zeros_like(source)
    a, b, c, _ = QUADRANTS
    for _bit in range((nodes - 1).bit_length()):
        draw = torch.rand(edges, generator=random, device=device)
        source = source * 2 + (draw >= a + b)
        target = target * 2 + ((draw >= a) & (draw < a + b) | (draw >= a + b + c))
    order = torch.randperm(nodes, generator=random, device=device)
    return torch.stack([order[source % nodes], order[target % nodes]])


def add_options(parser: argparse.ArgumentParser, usual: str) -> None:
    """What says which graph, ``usual`` if nothing does."""
    parser.add_argument("--graph", choices=GRAPHS, default=usual)
    parser.add_argument("--nodes", type=int, default=50_000, help="of the power-law graph")
    parser.add_argument("--edges", type=int, default=1_000_000, help="of the power-law graph")
    parser.add_argument("--data", help="folder with musae/git.npz, for --graph github (default: $GDSL_DATA)")


def sizes(text: str) -> list[tuple[int, int]]:
    """Numbers of nodes and edges that an argument lists."""
    pairs = [size.partition("x") for size in text.split(",")]
    if not all(nodes.isdigit() and edges.isdigit() for nodes, _, edges in pairs):
        raise argparse.ArgumentTypeError(f"sizes are like 30x60,700x1500, not {text!r}")
    return [(int(nodes), int(edges)) for nodes, _, edges in pairs]


GRAPHS: dict[str, Callable[[int, int, str | None], tuple[Tensor, int]]] = {
    "power-law": power_law,
    "github": github,
    "molecules": molecules,
    "knowledge": knowledge,
}
