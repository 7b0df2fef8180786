"""Batches as torch_geometric's objects, and back, so that its transforms run on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor

from gdsl.data.examples import TELLING


def transformed(transform: Callable[[Any], Any], batch: Any) -> Any:
    """What a function gives for a :class:`gdsl.data.Batch`; one of torch_geometric's transforms is called with its own
    object, and what it gives becomes a batch again."""
    module = sys.modules.get("torch_geometric.transforms")
    if module is None or not isinstance(transform, module.BaseTransform) or not hasattr(batch, "with_values"):
        return transform(batch)
    return _ours(transform(_theirs(batch)), batch)


def _theirs(batch: Any) -> Any:
    from torch_geometric.data import Batch as Joined
    from torch_geometric.data import Data, HeteroData

    kind = HeteroData if batch.node_types else Data
    joined = "num_graphs" in batch
    data: Any = Joined(_base_cls=kind) if joined else kind()
    types: list[Any] = ["", *batch.node_types, *batch.edge_types]
    for type in types:
        store: Any = batch[type] if type else batch
        told = any(name in store for name in (*TELLING, "batch"))
        for name, value in store.items():
            if name != "num_graphs" and not (name == "num_nodes" and told):
                setattr(data[type] if type else data, name, value)
    if joined:
        data._num_graphs = batch.num_graphs
    return data


def _ours(found: Any, batch: Any) -> Any:
    if isinstance(found, list | tuple):
        return tuple(_ours(value, batch) for value in found)
    if not hasattr(found, "stores"):
        return found
    made: dict[Any, dict[str, Any]] = {store._key or "": dict(store.items()) for store in found.stores}
    stores = [store for store in getattr(found, "node_stores", found.stores) if store.num_nodes is not None]
    nodes = {store._key or "": int(store.num_nodes) for store in stores}
    for type, count in nodes.items():
        made[type]["num_nodes"] = count
    own = made.pop("", {}) | ({"num_graphs": batch.num_graphs} if "num_graphs" in batch else {})
    result = batch.with_values(own, made)
    for type in ("", *made):
        first, last = (type[0], type[2]) if isinstance(type, tuple) else (type, type)
        before = batch._stores.get(type) if type else batch
        _keep_graph(result[type] if type else result, before, (nodes.get(first), nodes.get(last)))
    return result


def _keep_graph(store: Any, before: Any | None, sizes: tuple[int | None, int | None]) -> None:
    """The graph of the edges, if they are still those that they were, and else their sizes alone."""
    parts = store.__dict__
    parts["_unmade"].clear()
    edges: Any = parts.get("edge_index")
    if not isinstance(edges, Tensor):
        return
    parts["_sizes"], parts["_index"], version = sizes, edges.dtype, edges._version
    if before is None or before.__dict__.get("edge_index") is not edges:
        return
    graph = before.graph  # made anew, if the edges were written to
    if (graph.num_sources, graph.num_targets) == sizes:
        parts.update(_graph=graph, _version=version)
