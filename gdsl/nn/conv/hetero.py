"""Layers that apply one to each type of edge, and put together what a node gets from several."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.conv.inputs import Adjacency, parameter
from gdsl.nn.conv.programmed import Declared
from gdsl.nn.conv.types import EdgeType, Metadata, NodeType, by_type
from gdsl.nn.declared import words
from gdsl.nn.inits import glorot, reset
from gdsl.nn.linear import Linear
from gdsl.runtime.graph import Graph
from gdsl.runtime.together import is_shared, summed, together


class HANConv(Declared, program="han", aggr=None, fixed='aggr="add", node_dim=0', parts=False):
    """Attention over the edges of each type, then over the types. Wang et al., WWW 2019, equations 1 to 9.

    The linear maps of the types of nodes, and the attention over types of edges (equations 7 to 9), of which there are
    a few, run in torch; one program is applied to each type of edges.

    in_channels:    size of the inputs, or a dict with one for each type of node; -1 takes it from the first call
    out_channels:   size of the outputs
    metadata:       (types of nodes, types of edges)
    heads:          number of heads
    negative_slope: of the leaky relu on the scores
    dropout:        of the weights of edges, in training
    **kwargs:       of :class:`Conv`, without ``aggr``
    """

    in_channels: int | dict[NodeType, int]
    out_channels: int
    metadata: Metadata
    heads: int = 1
    negative_slope: float = 0.2
    dropout: float = 0.0

    def _setup(self) -> None:
        out_channels, heads = self.out_channels, self.heads
        sizes = self.in_channels = by_type(self.in_channels, self.metadata)
        self.k_lin = nn.Linear(out_channels, out_channels)
        self.q = parameter(1, out_channels)
        self.proj = nn.ModuleDict({kind: Linear(size, out_channels) for kind, size in sizes.items()})
        names = ["__".join(edge_type) for edge_type in self.metadata[1]]
        self.lin_src = nn.ParameterDict({name: parameter(1, heads, out_channels // heads) for name in names})
        self.lin_dst = nn.ParameterDict({name: parameter(1, heads, out_channels // heads) for name in names})

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        reset(self.proj)
        for value in (*self.lin_src.values(), *self.lin_dst.values()):
            glorot(value)
        self.k_lin.reset_parameters()
        glorot(self.q)

    def forward(
        self,
        x_dict: Mapping[NodeType, Tensor],
        edge_index_dict: Mapping[EdgeType, Adjacency],
        return_semantic_attention_weights: bool = False,
    ) -> Any:
        """[N, in_channels] to [N, out_channels], for each type of node; None for a type without edges into it.

        return_semantic_attention_weights: also give the weights of the types of edges into each type of node

        Raises KeyError for types of nodes that the layer does not know, and AttributeError for such types of edges.
        """
        sizes = {"out_channels": self.out_channels, "heads": self.heads, "size": self.out_channels // self.heads}
        features = {kind: self.proj[kind](x) for kind, x in x_dict.items()}
        found: dict[NodeType, list[Tensor]] = {kind: [] for kind in x_dict}
        last: Graph | None = None
        for edge_type, edge_index in edge_index_dict.items():
            name = "__".join(edge_type)
            x, z = features[edge_type[0]], features[edge_type[-1]]
            graph, _ = self.graph(edge_index, len(x), len(z))
            last = graph
            found[edge_type[-1]].append(
                self.run_with(
                    {"att_src": self.lin_src[name], "att_dst": self.lin_dst[name]},
                    graph,
                    {"x": x, "z": z},
                    **sizes,
                    slope=float(self.negative_slope),
                    p=float(self.dropout),
                )
            )
        with together(last):
            both = {kind: self._weighed(parts) for kind, parts in found.items()}
        results = {kind: y for kind, (y, _) in both.items()}
        if return_semantic_attention_weights:
            return results, {kind: weights for kind, (_, weights) in both.items()}
        return results

    def _weighed(self, parts: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """The weighted sum of what edges of each type gave, and the weights."""
        if not parts:
            return None, None
        if not len(parts[0]) and not is_shared():
            return parts[0], None
        found = torch.stack(parts)
        rows = torch.tanh(self.k_lin(found))
        keys = summed(rows.sum(dim=1)) / summed(rows.new_tensor(len(parts[0]))) if is_shared() else rows.mean(dim=1)
        weights = torch.softmax(keys @ self.q[0], dim=0)
        return torch.tensordot(weights, found, dims=1), weights

    __repr__ = words("{self.out_channels}, heads={self.heads}")


class EdgeModules(nn.ModuleDict):
    """Modules by type of edge. Their names inside are torch_geometric's: "<source___relation___target>"."""

    def __init__(self, modules: Mapping[EdgeType, nn.Module]):
        super().__init__({self._inner(edge_type): module for edge_type, module in modules.items()})

    @staticmethod
    def _inner(edge_type: Any) -> str:
        return f"<{'___'.join(edge_type)}>".replace(".", "#")

    def __getitem__(self, edge_type: Any) -> nn.Module:
        return super().__getitem__(self._inner(edge_type))

    def __setitem__(self, edge_type: Any, module: nn.Module) -> None:
        self.add_module(edge_type if isinstance(edge_type, str) else self._inner(edge_type), module)

    def __delitem__(self, edge_type: Any) -> None:
        super().__delitem__(self._inner(edge_type))

    def __contains__(self, edge_type: Any) -> bool:
        return self._inner(edge_type) in self._modules

    def keys(self) -> Any:
        """The types of edges."""
        return [tuple(name[1:-1].replace("#", ".").split("___")) for name in self._modules]

    def items(self) -> Any:
        """The types of edges with their modules."""
        return list(zip(self.keys(), self.values(), strict=True))


class HeteroConv(nn.Module):
    """A layer for each type of edge; what a type of node gets from several of them is put together.

    There is no maths in it but that of the layers: they may be of this library or any other modules.

    convs: (source type, relation, target type) -> layer
    aggr:  "sum", "mean", "min", "max", "mul" or "cat", another reduction of torch by its name, or None to stack the
           results, [N, relations, channels]

    Raises ValueError for a layer that adds self-loops between nodes of different types and for an ``aggr`` that there
    is not, and warns of types of nodes that no edge leads to.
    """

    def __init__(self, convs: Mapping[EdgeType, nn.Module], aggr: str | None = "sum"):
        super().__init__()
        if aggr not in (None, "cat") and not hasattr(torch, _PRODUCT.get(aggr, aggr)):
            raise ValueError(f"results are put together by a reduction of torch, and '{aggr}' is none")
        for edge_type, module in convs.items():
            if edge_type[0] != edge_type[-1] and getattr(module, "add_self_loops", False):
                raise ValueError(
                    f"'add_self_loops' attribute set to 'True' on module '{module}' for use with edge type(s) "
                    f"'{[edge_type]}'. This will lead to incorrect message passing results."
                )
        unseen = {edge_type[0] for edge_type in convs} - {edge_type[-1] for edge_type in convs}
        if unseen:
            warnings.warn(
                f"There exist node types ({unseen}) whose representations do not get updated during message passing "
                f"as they do not occur as destination type in any edge type. This may lead to unexpected behavior.",
                stacklevel=2,
            )
        self.convs = EdgeModules(convs)
        self.aggr = aggr

    def reset_parameters(self) -> None:
        """Draw the parameters of all layers anew."""
        for conv in self.convs.values():
            conv.reset_parameters()  # type: ignore[operator]

    def forward(self, *args_dict: Mapping[Any, Any], **kwargs_dict: Mapping[Any, Any]) -> dict[NodeType, Tensor]:
        """Dicts of arguments, by type of node or edge, to a dict of results by type of node.

        A layer gets the value of its type of edge, or those of its sources and targets as a pair; one value where both
        have the same type. The names of keyword arguments end with ``_dict``, and layers get them without it. A layer
        whose type of edge is in none of the dicts is left out.

        Raises ValueError for another name.
        """
        for name in kwargs_dict:
            if not name.endswith("_dict"):
                raise ValueError(
                    f"Keyword arguments in '{type(self).__name__}' need to end with '_dict' (got '{name}')"
                )
        found: dict[NodeType, list[Tensor]] = {}
        for edge_type, conv in self.convs.items():
            if not any(edge_type in values for values in (*args_dict, *kwargs_dict.values())):
                continue
            args = [a for values in args_dict for a in _argument(edge_type, values)]
            kwargs = {
                name.removesuffix("_dict"): a
                for name, values in kwargs_dict.items()
                for a in _argument(edge_type, values)
            }
            found.setdefault(edge_type[-1], []).append(conv(*args, **kwargs))
        return {kind: _together(results, self.aggr) for kind, results in found.items()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_relations={len(self.convs)})"


def _argument(edge_type: EdgeType, values: Mapping[Any, Any]) -> list[Any]:
    """What the layer of a type of edge gets out of a dict: one value, or none."""
    source, _, target = edge_type
    if edge_type in values:
        return [values[edge_type]]
    if source == target:
        return [values[source]] if source in values else []
    return [(values.get(source), values.get(target))] if source in values or target in values else []


# What torch calls the product, whose name torch_geometric's documentation has and its layer cannot call.
_PRODUCT = {"mul": "prod"}


def _together(results: list[Tensor], aggr: str | None) -> Tensor:
    if aggr is None:
        return torch.stack(results, dim=1)
    if len(results) == 1:
        return results[0]
    if aggr == "cat":
        return torch.cat(results, dim=-1)
    found = getattr(torch, _PRODUCT.get(aggr, aggr))(torch.stack(results), dim=0)
    return found if isinstance(found, Tensor) else found[0]
