"""Which process owns each node of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.clusters import divided
from gdsl.data.source import Source
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU

METHODS = ("metis", "hash")


def assigned(source: Source, parts: int, how: Any) -> dict[str, Tensor]:
    """Of each type of nodes [N] int64 the owner of each.

    how: "metis" for few edges between parts and as many edges into each, "hash" for no order at all, or the owners

    Raises ``InputError`` for others, and for METIS where it is not installed.
    """
    if isinstance(how, str):
        if how not in METHODS:
            raise InputError(f"how is 'metis', 'hash' or the owner of each node, not {how!r}")
        return by_metis(source, parts) if how == "metis" else by_hash(source, parts)
    return given_owners(source, parts, how)


def by_metis(source: Source, parts: int) -> dict[str, Tensor]:
    """Nodes weigh as many as they have edges into them, and one: a process computes edges, and holds rows."""
    sizes = source.num_nodes.values()
    first = dict(zip(source.num_nodes, accumulate(sizes, initial=0), strict=False))
    total = sum(sizes)
    weights = torch.ones(total, dtype=torch.int64, device=CPU)
    ends = []
    for type, graph in source.graphs.items():
        source_type, target_type = source.ends(type)
        shift = torch.tensor([[first[source_type]], [first[target_type]]], device=CPU)
        ends.append(graph.edge_index + shift)
        weights += torch.bincount(ends[-1][1], minlength=total)
    joined = torch.cat(ends, dim=1) if ends else torch.empty(2, 0, dtype=torch.int64, device=CPU)
    found = divided(joined, total, parts, "how='hash', or how= with the owner of each node", weights=weights)
    return dict(zip(source.num_nodes, found.split(list(sizes)), strict=True))


def by_hash(source: Source, parts: int) -> dict[str, Tensor]:
    """By the bits of a node's number, mixed (splitmix64): balanced, and the same for a node whatever the edges are."""
    found = {}
    for k, (type, count) in enumerate(source.num_nodes.items()):
        bits = np.arange(count, dtype=np.uint64) + np.uint64(k << 56)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        bits ^= bits >> np.uint64(31)
        found[type] = torch.from_numpy((bits % np.uint64(parts)).astype(np.int64))
    return found


def given_owners(source: Source, parts: int, how: Any) -> dict[str, Tensor]:
    """A tensor [N], or one for each type of nodes, checked."""
    if not isinstance(how, Mapping):
        if len(source.num_nodes) != 1:
            names = ", ".join(map(repr, source.num_nodes))
            raise InputError(f"of several types of nodes, owners are a dictionary by type: {names}")
        how = {next(iter(source.num_nodes)): how}
    found = {}
    for type, count in source.num_nodes.items():
        what = "the owners of nodes" + (f" of type {type!r}" if type else "")
        if type not in how:
            raise InputError(f"{what} are missing")
        owner = given.integers(what, how[type], (count,))
        if count and not 0 <= int(owner.min()) <= int(owner.max()) < parts:
            raise InputError(f"{what} must be numbers of {parts} processes, from 0 on")
        found[type] = owner
    return found
