"""Readers for the public graphs that the examples train on, and a generated graph for when none is at hand.

Nothing is downloaded. The raw files are looked for in `$GDSL_DATA`, or, where that is not set, in a
`shared/datasets` folder beside the repository. Every `load_*` function returns `None` when its files are
not there; a caller then uses `generated()` and says so.

    <root>/Planetoid/Cora/raw/ind.cora.{x,tx,allx,y,ty,ally,graph,test.index}
    <root>/Planetoid/CiteSeer/raw/ind.citeseer.*
    <root>/musae/{git,facebook}.npz
    <root>/TUDataset/MUTAG/MUTAG/raw/MUTAG_{A,graph_indicator,graph_labels,node_labels}.txt
    <root>/codex-s/{train,valid,test}.txt
"""

from __future__ import annotations

import os
import pickle
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional as F

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class NodeData:
    """One graph with a label on each node.

    `edge_index` is `[2, E]`, source row first, and holds both directions of every undirected edge, without
    duplicates, sorted by source and then target. The masks are `None` where the data set has no public split.
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


def data_root() -> Path | None:
    """The folder that holds the data sets, or `None`.

    `$GDSL_DATA`, when set, is the only place looked at: a wrong value is noticed rather than papered over.
    """
    named = os.environ.get("GDSL_DATA")
    if named:
        root = Path(named).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"GDSL_DATA names {named!r}, which is not a folder")
        return root
    beside = REPOSITORY.parent / "shared" / "datasets"
    return beside if beside.is_dir() else None


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


# Planetoid (Yang et al. 2016) -------------------------------------------------------------------------------

PLANETOID_FOLDERS = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}


def load_planetoid(name: str, root: Path | None = None) -> NodeData | None:
    """Cora, CiteSeer or PubMed, split as usual: 20 training nodes a class, 500 to validate, 1,000 to test.

    Features are the raw 0/1 (PubMed: tf-idf) rows; see `row_normalised`. The files are Python 2 pickles,
    read by an unpickler that knows arrays, sparse matrices and dictionaries only.
    """
    key = name.lower()
    if key not in PLANETOID_FOLDERS:
        raise ValueError(f"{name!r} is not a Planetoid graph; expected one of {', '.join(PLANETOID_FOLDERS)}")
    root = root or data_root()
    if root is None:
        return None
    raw = root / "Planetoid" / PLANETOID_FOLDERS[key] / "raw"
    if not raw.is_dir():
        return None

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

    index = torch.arange(num_nodes)
    return NodeData(
        name=PLANETOID_FOLDERS[key],
        edge_index=_undirected(row, col, num_nodes),
        num_nodes=num_nodes,
        y=torch.from_numpy(one_hot.argmax(axis=1)),
        num_classes=ally.shape[1],
        x=torch.from_numpy(x),
        train_mask=index < num_train,
        val_mask=(index >= num_train) & (index < num_train + 500),
        test_mask=torch.isin(index, torch.from_numpy(test_nodes)),
    )


class _Unpickler(pickle.Unpickler):
    """Makes no object but those below, from the modules where numpy and scipy keep them today."""

    ALLOWED: Mapping[str, Any] = {
        "defaultdict": defaultdict,
        "int": int,
        "list": list,
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "_reconstruct": np.ndarray((0,)).__reduce__()[0],
        "csr_matrix": csr_matrix,
    }

    def find_class(self, module: str, name: str) -> Any:
        if name not in self.ALLOWED:
            raise pickle.UnpicklingError(f"a Planetoid file asks for {module}.{name}, and has no use for it")
        return self.ALLOWED[name]


def _dense(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix, dtype=np.float32)


def _undirected(row: np.ndarray, col: np.ndarray, num_nodes: int) -> Tensor:
    """Both directions of each edge, once each, no self-loops, sorted."""
    keep = row != col
    row, col = row[keep].astype(np.int64), col[keep].astype(np.int64)
    flat = np.unique(np.concatenate([row * num_nodes + col, col * num_nodes + row]))
    return torch.from_numpy(np.stack([flat // num_nodes, flat % num_nodes]))


# MUSAE (Rozemberczki et al. 2019) --------------------------------------------------------------------------


def load_musae(name: str, root: Path | None = None) -> NodeData | None:
    """The `git` (developers, heavy-tailed degrees, no features) or `facebook` (pages, 0/1 features) graph."""
    if name not in ("git", "facebook"):
        raise ValueError(f"{name!r} is not a MUSAE graph; expected 'git' or 'facebook'")
    root = root or data_root()
    if root is None or not (path := root / "musae" / f"{name}.npz").is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        edges, y = arrays["edges"], arrays["y"].astype(np.int64)
        x = None
        if "feature_row" in arrays:
            row, col = arrays["feature_row"].astype(np.int64), arrays["feature_col"].astype(np.int64)
            x = torch.zeros(len(y), int(col.max()) + 1)
            x[torch.from_numpy(row), torch.from_numpy(col)] = 1.0
    edge_index = _undirected(edges[:, 0], edges[:, 1], len(y))
    return NodeData(f"musae-{name}", edge_index, len(y), torch.from_numpy(y), int(y.max()) + 1, x)


# TUDataset (Morris et al. 2020) ----------------------------------------------------------------------------


@dataclass(frozen=True)
class GraphData:
    """Many graphs with a label each, as one graph without edges between them.

    `x` is `[N, channels]`: one-hot labels of nodes, or one-hot degrees where nodes have none; `batch` `[N]` is the
    graph of each node, in order; `y` is `[G]`.
    """

    name: str
    edge_index: Tensor
    x: Tensor
    batch: Tensor
    y: Tensor

    @property
    def num_graphs(self) -> int:
        return len(self.y)

    @property
    def num_classes(self) -> int:
        return int(self.y.max()) + 1

    def subset(self, graphs: Tensor) -> GraphData:
        """Some of the graphs, in the order of their numbers."""
        graphs = graphs.sort().values
        kept = torch.isin(self.batch, graphs)
        place = kept.cumsum(0) - 1
        edges = self.edge_index[:, kept[self.edge_index[0]]]
        number = torch.zeros(self.num_graphs, dtype=torch.long)
        number[graphs] = torch.arange(len(graphs))
        return GraphData(self.name, place[edges], self.x[kept], number[self.batch[kept]], self.y[graphs])

    def __str__(self) -> str:
        size = f"{len(self.x):,} nodes, {self.edge_index.shape[1]:,} edges"
        return (
            f"{self.name}: {self.num_graphs:,} graphs, {size}, {self.x.shape[1]} features, {self.num_classes} classes"
        )


# Degrees above this one share a feature.
MOST_DEGREES = 64


def load_tu(name: str, root: Path | None = None) -> GraphData | None:
    """A data set of TUDataset by its name, such as "MUTAG"; `None` where its files are not there."""
    root = data_root() if root is None else root
    raw = None if root is None else root / "TUDataset" / name / name / "raw"
    if raw is None or not raw.is_dir():
        return None

    def numbers(part: str) -> Tensor:
        return torch.from_numpy(np.loadtxt(raw / f"{name}_{part}.txt", delimiter=",", dtype=np.int64))

    edge_index = numbers("A").t().contiguous() - 1
    batch = numbers("graph_indicator") - 1
    y = numbers("graph_labels").unique(return_inverse=True)[1]
    if (raw / f"{name}_node_labels.txt").is_file():
        kind = numbers("node_labels").unique(return_inverse=True)[1]
    else:
        kind = torch.bincount(edge_index[1], minlength=len(batch)).clamp(max=MOST_DEGREES)
    x = F.one_hot(kind).float()
    return GraphData(name, edge_index, x, batch, y)


def generated_graphs(count: int = 60, seed: int = 0) -> GraphData:
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
    return GraphData("generated rings", edge_index, x, torch.tensor(batch), torch.tensor(y))


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
        edge_index=_undirected(row, col, num_nodes),
        num_nodes=num_nodes,
        y=torch.from_numpy(y),
        num_classes=num_classes,
        x=torch.from_numpy(x),
        train_mask=train,
        val_mask=val,
        test_mask=test,
    )
