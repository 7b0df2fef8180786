"""Layers with a network on the edges or after the sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.module.repeated import repeatable
from gdsl.nn.aggr import MultiAggregation
from gdsl.nn.conv.inputs import Adjacency, Channels, Features, Size, edge_features, pair_of, see
from gdsl.nn.conv.programmed import Declared, InitVar, Summed
from gdsl.nn.declared import words
from gdsl.nn.inits import reset
from gdsl.nn.linear import Linear
from gdsl.nn.neighbors import knn
from gdsl.nn.norm import MessageNorm


class GINConv(Summed, program="gin", shows="nn"):
    """nn((1 + eps) x_i + sum_j x_j). Xu et al., ICLR 2019, equation 4.1.

    nn:        a module, [N, channels] to [N, out]
    eps:       at first
    train_eps: whether it is learned
    **kwargs:  of :class:`Conv`
    """

    nn: nn.Module
    eps: InitVar[float] = 0.0
    train_eps: InitVar[bool] = False

    def _setup(self) -> None:
        self.initial_eps = self.eps

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"learned": given.get("train_eps", False)}

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, size: Size = None) -> Tensor:
        """[N, channels], or a pair of sources and targets (or None), to [N, out]."""
        return self._applied(x, edge_index, size, learned=isinstance(self.eps, torch.nn.Parameter))


class GINEConv(Summed, program="gine", shows="nn"):
    """nn((1 + eps) x_i + sum_j relu(x_j + e_ji)). Hu et al., ICLR 2020, appendix A.

    nn:        a module, [N, channels] to [N, out]
    eps:       at first
    train_eps: whether it is learned
    edge_dim:  size of the edge features, if it is not that of the nodes': a linear map then goes before
    **kwargs:  of :class:`Conv`

    Raises ValueError where the size that ``nn`` takes cannot be told.
    """

    nn: nn.Module
    eps: InitVar[float] = 0.0
    train_eps: InitVar[bool] = False
    edge_dim: InitVar[int | None] = None

    def _setup(self) -> None:
        self.initial_eps = self.eps

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        learned, lin = given.get("train_eps", False), given.get("edge_dim") is not None
        return {"learned": learned, "lin": lin, "channels": _inputs_of(self.nn) if lin else 0}

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, edge_attr: Tensor | None = None, size: Size = None) -> Tensor:
        """[N, channels], or a pair of sources and targets (or None), and [E, edge_dim], to [N, out].

        Raises ValueError for edge features of another size than the nodes'.
        """
        source, target, bipartite, graph, values = self._between(x, edge_index, size)
        edge_attr = edge_features(edge_attr, values, edge_index)
        if self.lin is None and edge_attr is not None and source.size(-1) != edge_attr.size(-1):
            raise ValueError(
                "Node and edge feature dimensionalities do not match. Consider setting the 'edge_dim' attribute of "
                "'GINEConv'"
            )
        learned = isinstance(self.eps, torch.nn.Parameter)
        inputs = {"x": source, "z": target, "e": edge_attr}
        return self._compute(graph, inputs, bipartite=bipartite, learned=learned)


def _inputs_of(network: nn.Module) -> int:
    """The number of features that a network takes, as its first linear map tells."""
    first: Any = network[0] if isinstance(network, nn.Sequential) else network
    for name in ("in_features", "in_channels"):
        if hasattr(first, name):
            return int(getattr(first, name))
    raise ValueError("Could not infer input channels from `nn`.")


class EdgeConv(Declared, program="edge", shows="nn"):
    """max_j nn([x_i, x_j - x_i]). Wang et al., TOG 2019, equation 8.

    nn:       a module, [E, 2 * channels] to [E, out]
    aggr:     how messages meet
    **kwargs: of :class:`Conv`
    """

    nn: nn.Module
    aggr: Any = "max"

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency) -> Tensor:
        """[N, channels], or a pair of sources and targets, to [N, out]."""
        if hasattr(self.nn, "see"):
            source = x if isinstance(x, Tensor) else x[0]
            see((self.nn, source.new_empty(0, 2 * source.size(-1))))
        return self._applied(x, edge_index)


class DynamicEdgeConv(EdgeConv):
    """:class:`EdgeConv` on the k nearest neighbours in feature space. Wang et al., TOG 2019, section 3.2.

    nn:          a module, [E, 2 * channels] to [E, out]
    k:           number of neighbours; a point is its own first one
    aggr:        how messages meet
    num_workers: accepted for torch_geometric's sake
    **kwargs:    of :class:`Conv`

    The neighbours are found outside the program, by a KD-tree or by distances in torch.
    """

    def __init__(self, nn: nn.Module, k: int, aggr: Any = "max", num_workers: int = 1, **kwargs: Any):
        super().__init__(nn, aggr, flow="source_to_target", **kwargs)
        self.k = k
        self.num_workers = num_workers

    def forward(self, x: Features, batch: Tensor | tuple[Tensor | None, Tensor | None] | None = None) -> Tensor:
        """[N, channels], or a pair of sources and targets, to [N, out].

        batch: [N] the graph of each point, or a pair: neighbours are of the same graph

        Raises ValueError for features of more dims.
        """
        source, target = (x, x) if isinstance(x, Tensor) else x
        if source.dim() != 2:
            raise ValueError("Static graphs not supported in DynamicEdgeConv")
        of_source, of_target = batch if isinstance(batch, tuple) else (batch, batch)
        assert target is not None, f"'{type(self).__name__}' needs features of the targets"
        edge_index = knn(source, target, self.k, of_source, of_target).flip(0)
        return super().forward(x, edge_index)

    __repr__ = words("nn={self.nn}, k={self.k}")


class NNConv(Declared, program="nnconv", shows="aggr nn"):
    """W x_i + sum_j x_j nn(e_ji): a matrix for every edge. Gilmer et al., ICML 2017, section 5.1.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    nn:          a module, [E, edge_dim] to [E, in_channels * out_channels]
    aggr:        how messages meet
    root_weight: whether to add the target's own features
    bias:        whether to add one
    **kwargs:    of :class:`Conv`
    """

    in_channels: Channels
    out_channels: int
    nn: nn.Module
    aggr: Any = "add"
    root_weight: bool = True
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        self.in_channels_l, _ = pair_of(self.in_channels)

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"lin": True} if self.root_weight else {}

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, edge_attr: Tensor | None = None, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), and [E, edge_dim], to [N, out_channels]."""
        width = (x if isinstance(x, Tensor) else x[0]).shape[-1]
        return self._applied(x, edge_index, size, edge_attr=edge_attr, in_channels=width)


ECConv = NNConv  # torch_geometric's other name: Simonovsky and Komodakis, CVPR 2017


class CGConv(Declared, program="cg", shows="dim"):
    """x_i + sum_j sigmoid(W_f z) softplus(W_s z) with z = [x_i, x_j, e]. Xie and Grossman, PRL 2018, equation 5.

    channels:   size of inputs and outputs, or of sources and targets
    dim:        size of the edge features
    aggr:       how messages meet
    batch_norm: whether a batch norm comes after the sum
    bias:       whether the linear maps have one
    **kwargs:   of :class:`Conv`
    """

    channels: Channels
    dim: int = 0
    aggr: Any = "add"
    batch_norm: bool = False
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        sources, targets = pair_of(self.channels)
        self.lin_f = nn.Linear(sources + targets + self.dim, targets, bias=self.bias)
        self.lin_s = nn.Linear(sources + targets + self.dim, targets, bias=self.bias)
        self.bn = nn.BatchNorm1d(targets) if self.batch_norm else None

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, edge_attr: Tensor | None = None) -> Tensor:
        """[N, channels], or a pair of sources and targets, and [E, dim], to [N, channels]."""
        source, target, bipartite, graph, values = self._between(x, edge_index)
        edge_attr = edge_features(edge_attr, values if self.dim else None, edge_index)
        return self._compute(
            graph,
            {"x": source, "z": target, "e": edge_attr},
            channels=pair_of(self.channels)[1],
            dim=0 if edge_attr is None else edge_attr.shape[1],
            bipartite=bipartite,
        )


class ResGatedGraphConv(Summed, program="res_gated"):
    """W_1 x_i + sum_j gate(W_2 x_i + W_3 x_j) W_4 x_j. Bresson and Laurent, 2017, equation 11.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    act:         the gate: a module or a function
    edge_dim:    size of the edge features, if there are any: they stand beside the node's
    root_weight: whether to add the target's own features
    bias:        whether to add one
    **kwargs:    of :class:`Conv`
    """

    in_channels: Channels
    out_channels: int
    act: Callable[[Tensor], Tensor] = nn.Sigmoid()
    edge_dim: int | None = None
    root_weight: bool = True
    bias: InitVar[bool] = True

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"edge_dim": self.edge_dim or 0, "lin_skip": self.root_weight}

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, edge_attr: Tensor | None = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets, and [E, edge_dim], to [N, out_channels].

        Raises AssertionError for edge features where there should be none, and the other way round.
        """
        source, target, bipartite, graph, values = self._between(x, edge_index)
        edge_attr = edge_features(edge_attr, None if self.edge_dim is None else values, edge_index)
        assert (edge_attr is None) == (self.edge_dim is None), "'edge_dim' and edge features need each other"
        if edge_attr is None:
            see((self.lin_key, target), (self.lin_query, source), (self.lin_value, source))
        inputs = {"x": source, "z": target, "e": edge_attr}
        width = 0 if edge_attr is None else edge_attr.shape[1]
        return self._compute(graph, inputs, edge_dim=width, bipartite=bipartite)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": lambda size: nn.BatchNorm1d(size, affine=True),
    "layer": lambda size: nn.LayerNorm(size, elementwise_affine=True),
    "instance": lambda size: nn.InstanceNorm1d(size, affine=False),
}


def _perceptron(channels: Sequence[int], norm: str | None, bias: bool) -> nn.Sequential:
    """Linear maps with a norm, a relu and a dropout of nothing between them, as torch_geometric numbers them."""
    if norm and norm not in NORMS:
        raise NotImplementedError(f'Normalization layer "{norm}" not supported.')
    parts: list[nn.Module] = []
    for k in range(1, len(channels)):
        parts.append(Linear(channels[k - 1], channels[k], bias=bias))
        if k < len(channels) - 1:
            parts += [*([NORMS[norm](channels[k])] if norm else []), nn.ReLU(), nn.Dropout(0.0)]
    return nn.Sequential(*parts)


class GENConv(Declared, program="gen", parts=False, drawn=False, shows="aggr"):
    """mlp(x_i + aggr_j (relu(x_j + e_ji) + eps)). Li et al., "DeeperGCN", 2020, equations 2 to 5.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    aggr:            "softmax", "softmax_sg" (no gradient through the weights), "power", any of :mod:`gdsl.nn.aggr`
    t, learn_t:      inverse temperature of the softmax, and whether it is learned
    p, learn_p:      power of the power mean, and whether it is learned
    msg_norm, learn_msg_scale: a norm of what is aggregated, by :class:`MessageNorm`
    norm:            in the network: "batch", "layer", "instance" or None
    num_layers, expansion: of the network: layers, and how much wider the inner ones are
    eps:             what is added to messages
    bias:            whether the linear maps have one
    edge_dim:        size of the edge features, if there are any
    **kwargs:        of :class:`Conv`

    Raises NotImplementedError for a norm that there is not. :class:`MessageNorm` runs in torch, on nodes.
    """

    in_channels: Channels
    out_channels: int
    aggr: Any = "softmax"
    t: InitVar[float] = 1.0
    learn_t: InitVar[bool] = False
    p: InitVar[float] = 1.0
    learn_p: InitVar[bool] = False
    msg_norm: InitVar[bool] = False
    learn_msg_scale: InitVar[bool] = False
    norm: InitVar[str | None] = "batch"
    num_layers: InitVar[int] = 2
    expansion: InitVar[int] = 2
    eps: float = 1e-7
    bias: InitVar[bool] = False
    edge_dim: InitVar[int | None] = None

    def _aggregates(self, aggr: Any, kwargs: dict[str, Any]) -> Any:
        semi_grad = aggr == "softmax_sg"
        if isinstance(aggr, str):
            aggr = {"softmax_sg": "softmax", "power": "powermean"}.get(aggr, aggr)
        if "aggr_kwargs" not in kwargs and aggr == "softmax":
            kwargs["aggr_kwargs"] = {"t": self.t, "learn": self.learn_t, "semi_grad": semi_grad}
        elif "aggr_kwargs" not in kwargs and aggr == "powermean":
            kwargs["aggr_kwargs"] = {"p": self.p, "learn": self.learn_p}
        return aggr

    def _setup(self) -> None:
        out_channels = self.out_channels
        sources, targets = pair_of(self.in_channels)
        multi = isinstance(self.aggr_module, MultiAggregation)
        aggregated = self.aggr_module.get_out_channels(out_channels) if multi else out_channels
        sizes = {"lin_src": sources, "lin_edge": self.edge_dim, "lin_aggr_out": aggregated, "lin_dst": targets}
        for name, size in sizes.items():
            if size is not None and size != out_channels:
                self.add_module(name, Linear(size, out_channels, bias=self.bias))
        inner = [out_channels * self.expansion] * (self.num_layers - 1)
        self.mlp = _perceptron([out_channels, *inner, out_channels], self.norm, self.bias)
        if self.msg_norm:
            self._modules["msg_norm"] = MessageNorm(self.learn_msg_scale)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for name in ("mlp", "msg_norm", "lin_src", "lin_edge", "lin_aggr_out", "lin_dst"):
            reset(self._modules.get(name))

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, edge_attr: Tensor | None = None, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), and [E, edge_dim], to [N, out_channels].

        Raises AssertionError for edge features of a size that the layer was not made for.
        """
        source, target, bipartite, graph, values = self._between(x, edge_index, size)
        parts = self._modules
        if "lin_edge" not in parts and values is not None and values.dim() == 1:
            values = None  # a number for each edge is no feature where there is no linear map of them
        edge_attr = edge_features(edge_attr, values, edge_index)
        if edge_attr is not None and "lin_edge" not in parts:
            assert edge_attr.size(-1) == self.out_channels, (
                f"edge features of size {edge_attr.size(-1)} need 'edge_dim', or to be of size {self.out_channels}, as "
                f"the messages are"
            )
        return self._compute(graph, {"x": source, "z": target, "e": edge_attr}, bipartite=bipartite)
