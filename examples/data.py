"""Where the examples' graphs lie, readers for those that gdsl.data has none for, and generated ones.

Nothing is downloaded. Raw files are looked for in `$GDSL_DATA`, or, where that is not set, in a `shared/datasets`
folder beside the repository. Every `load_*` function returns `None` when its files are not there; a caller then uses
`generated()` and says so.

    <root>/musae/{git,facebook}.npz
    <root>/codex-s/{train,valid,test}.txt
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gdsl import data as sets
from gdsl.data import NodeData, Packed, pack_arrays
from gdsl.data.planetoid import undirected

REPOSITORY = Path(__file__).resolve().parent.parent


def data_root() -> Path | None:
    """The folder that holds the data sets: that of `gdsl.data.data_root`, else one beside the repository, or `None`."""
    beside = REPOSITORY.parent / "shared" / "datasets"
    return sets.data_root() or (beside if beside.is_dir() else None)


def row_normalised(x: Tensor) -> Tensor:
    """Each row divided by its sum; a row of zeros stays zero."""
    return x / x.sum(dim=1, keepdim=True).clamp(min=1.0)


class WordDropout(nn.Module):
    """Dropout of a fixed, sparse feature matrix that is stored densely.

    Dropping a zero changes nothing, so random numbers are drawn for the nonzeros only (1.3% of Cora's
    entries): the same distribution as `F.dropout(x)`. The result is a buffer that the next call overwrites,
    which is safe because a training step is done with it by then.
    """

    def __init__(self, x: Tensor, p: float) -> None:
        super().__init__()
        self.x, self.p = x, p
        self.places = x.flatten().nonzero().squeeze(1)
        self.values = x.flatten()[self.places]
        self.dropped = x.clone()

    def forward(self) -> Tensor:
        if not self.training:
            return self.x
        self.dropped.view(-1)[self.places] = F.dropout(self.values, self.p)
        return self.dropped


# MUSAE (Rozemberczki et al. 2019) --------------------------------------------------------------------------


def load_musae(name: str, root: Path | None = None) -> NodeData | None:
    """The `git` (developers, heavy-tailed degrees, no features) or `facebook` (pages, 0/1 features) graph."""
    if name not in ("git", "facebook"):
        raise ValueError(f"{name!r} is not a MUSAE graph; expected 'git' or 'facebook'")
    root = data_root() if root is None else root
    if root is None or not (path := root / "musae" / f"{name}.npz").is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        edges, y = arrays["edges"], arrays["y"].astype(np.int64)
        x = None
        if "feature_row" in arrays:
            row, col = arrays["feature_row"].astype(np.int64), arrays["feature_col"].astype(np.int64)
            x = torch.zeros(len(y), int(col.max()) + 1)
            x[torch.from_numpy(row), torch.from_numpy(col)] = 1.0
    edge_index = undirected(edges[:, 0], edges[:, 1], len(y))
    return NodeData(f"musae-{name}", edge_index, len(y), torch.from_numpy(y), int(y.max()) + 1, x)


# Generated graphs -------------------------------------------------------------------------------------------


def generated_graphs(count: int = 60, seed: int = 0) -> Packed:
    """Rings of two sizes, of which the larger ones have a chord: a stand-in where no data set is at hand."""
    generator = torch.Generator().manual_seed(seed)
    edges, batch, y, first = [], [], [], 0
    for graph in range(count):
        label = graph % 2
        size = int(torch.randint(6, 12, (1,), generator=generator))
        ring = torch.arange(size)
        pairs = torch.stack([ring, (ring + 1) % size])
        if label:
            pairs = torch.cat([pairs, torch.tensor([[0], [size // 2]])], dim=1)
        edges.append(torch.cat([pairs, pairs.flip(0)], dim=1) + first)
        batch += [graph] * size
        y.append(label)
        first += size
    edge_index = torch.cat(edges, dim=1)
    degree = torch.bincount(edge_index[1], minlength=first)
    x = F.one_hot(degree).float()
    return pack_arrays(edge_index, torch.tensor(batch), nodes={"x": x}, graphs={"y": torch.tensor(y)})


# CoDEx (Safavi and Koutra 2020) -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TripleData:
    """A knowledge graph: each part is `[T, 3]`, the head, the relation and the tail of a triple."""

    name: str
    num_entities: int
    num_relations: int
    train: Tensor
    val: Tensor
    test: Tensor

    def __str__(self) -> str:
        sizes = "/".join(f"{len(part):,}" for part in (self.train, self.val, self.test))
        return (
            f"{self.name}: {self.num_entities:,} entities, {self.num_relations} relations, "
            f"{sizes} triples to train, validate and test"
        )


def load_codex(name: str = "codex-s", root: Path | None = None) -> TripleData | None:
    """CoDEx-S, or another size; `None` where its files are not there.

    Entities and relations are numbered in the order of their names.
    """
    root = data_root() if root is None else root
    if root is None or not (root / name / "train.txt").is_file():
        return None
    parts = [np.loadtxt(root / name / f"{part}.txt", dtype=str, delimiter="\t") for part in ("train", "valid", "test")]
    entities = np.unique(np.concatenate([part[:, [0, 2]].ravel() for part in parts]))
    relations = np.unique(np.concatenate([part[:, 1] for part in parts]))

    def numbered(part: np.ndarray) -> Tensor:
        columns = (np.searchsorted(names, part[:, k]) for k, names in enumerate((entities, relations, entities)))
        return torch.from_numpy(np.stack(list(columns), axis=1))

    return TripleData(name, len(entities), len(relations), *map(numbered, parts))


def generated_triples(people: int = 300, cities: int = 30, countries: int = 6, seed: int = 0) -> TripleData:
    """People who live in a city of a country, and are citizens of that country: the held-out triples follow.

    Entities are the people, then the cities, then the countries. Of the triples about citizens, a third is held out.
    """
    generator = torch.Generator().manual_seed(seed)
    person, city = torch.arange(people), torch.arange(cities)
    home = torch.randint(cities, (people,), generator=generator)
    country = people + cities + city % countries
    lives_in, lies_in, citizen_of = (
        torch.stack([head, torch.full_like(head, relation), tail], dim=1)
        for relation, (head, tail) in enumerate(
            [(person, people + home), (people + city, country), (person, country[home])]
        )
    )
    held, part = torch.randperm(people, generator=generator), people // 6
    return TripleData(
        name="generated citizens",
        num_entities=people + cities + countries,
        num_relations=3,
        train=torch.cat([lives_in, lies_in, citizen_of[held[2 * part :]]]),
        val=citizen_of[held[:part]],
        test=citizen_of[held[part : 2 * part]],
    )


# A generated graph -----------------------------------------------------------------------------------------


def generated(
    num_nodes: int = 2_700,
    num_classes: int = 7,
    num_features: int = 1_400,
    mean_degree: float = 4.0,
    homophily: float = 0.8,
    words: int = 18,
    topical: float = 0.15,
    seed: int = 0,
) -> NodeData:
    """A stochastic block model of about Cora's size whose sparse 0/1 features depend on the class.

    Of a node's edges, a share `homophily` stays within its class. Of the `words` features that each node
    draws, a share `topical` comes from the words of its class and the rest from all words. Split as
    Planetoid's: 20 training nodes a class, 500 to validate, the last 1,000 to test (fewer on a smaller
    graph).
    """
    draw = np.random.default_rng(seed)
    y = draw.integers(num_classes, size=num_nodes)
    members = [np.flatnonzero(y == label) for label in range(num_classes)]

    num_undirected = round(num_nodes * mean_degree / 2)
    row = draw.integers(num_nodes, size=num_undirected)
    col = draw.integers(num_nodes, size=num_undirected)
    for k in np.flatnonzero(draw.random(num_undirected) < homophily):
        col[k] = draw.choice(members[y[row[k]]])

    x = np.zeros((num_nodes, num_features), dtype=np.float32)
    per_class = num_features // num_classes
    for node in range(num_nodes):
        of_class = y[node] * per_class + draw.integers(per_class, size=words)
        of_all = draw.integers(num_features, size=words)
        x[node, np.where(draw.random(words) < topical, of_class, of_all)] = 1.0

    num_val, num_test = min(500, num_nodes // 5), min(1_000, num_nodes * 2 // 5)
    train, val, test = (torch.zeros(num_nodes, dtype=torch.bool) for _ in range(3))
    test[num_nodes - num_test :] = True
    for nodes in members:
        train[torch.from_numpy(nodes[nodes < num_nodes - num_test][:20])] = True
    val[(~train & ~test).nonzero().flatten()[:num_val]] = True
    return NodeData(
        name=f"generated (stochastic block model, seed {seed})",
        edge_index=undirected(row, col, num_nodes),
        num_nodes=num_nodes,
        y=torch.from_numpy(y),
        num_classes=num_classes,
        x=torch.from_numpy(x),
        train_mask=train,
        val_mask=val,
        test_mask=test,
    )
