"""Layers with plain sums, and layers made of other layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.module.repeated import repeatable
from gdsl.nn.activations import activation
from gdsl.nn.conv.gcn import GCNConv
from gdsl.nn.conv.graphs import is_loop
from gdsl.nn.conv.inputs import (
    Adjacency,
    Channels,
    Features,
    Size,
    is_torch_sparse,
    like_features,
    parameter,
    real_features,
    strided,
)
from gdsl.nn.conv.programmed import Declared, InitVar, Summed
from gdsl.nn.declared import Module, declared, redraw, words
from gdsl.nn.grouped import count_in
from gdsl.nn.inits import zeros
from gdsl.nn.linear import Linear
from gdsl.runtime.graph import Graph
from gdsl.runtime.halo import gather
from gdsl.runtime.local import LocalGraph, read_by_edges
from gdsl.runtime.tracers import check_proxy


class GraphConv(Declared, program="graph_conv"):
    """W_1 x_i + W_2 sum_j w_ji x_j. Morris et al., AAAI 2019, equation 6.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    aggr:     how messages meet
    bias:     whether to add one
    **kwargs: of :class:`Conv`
    """

    in_channels: Channels
    out_channels: int
    aggr: Any = "add"
    bias: InitVar[bool] = True

    @repeatable
    def forward(
        self, x: Features, edge_index: Adjacency, edge_weight: Tensor | None = None, size: Size = None
    ) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), and weights [E], to [N, out_channels]."""
        return self._applied(x, edge_index, size, edge_weight=edge_weight)


class LEConv(Summed, program="le"):
    """W_1 x_i + sum_j w_ji (W_2 x_j - W_3 x_i). Ranjan et al., "ASAP", AAAI 2020, equation 8.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    bias:     whether to add some
    **kwargs: of :class:`Conv`
    """

    in_channels: Channels
    out_channels: int
    bias: InitVar[bool] = True
    _multiplies = frozenset()

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets, and weights [E], to [N, out_channels]. Weights beside a
        sparse matrix are taken for its values, as in torch_geometric's."""
        return self._applied(x, edge_index, edge_weight=edge_weight)


class SimpleConv(Declared, program="simple"):
    """The aggregation of the neighbours, without parameters.

    aggr:         how messages meet
    combine_root: the node's own features: "sum" adds them, "cat" puts them in front, "self_loop" makes them a message
    **kwargs:     of :class:`Conv`

    Raises ValueError for another way to combine.
    """

    aggr: Any = "sum"
    combine_root: str | None = None

    def _setup(self) -> None:
        if self.combine_root not in ("sum", "cat", "self_loop", None):
            raise ValueError(f"Received invalid value for 'combine_root' (got '{self.combine_root}')")

    @repeatable
    def forward(
        self, x: Features, edge_index: Adjacency, edge_weight: Tensor | None = None, size: Size = None
    ) -> Tensor:
        """[N, channels], or a pair of sources and targets (or None), and weights [E], to [N, channels].

        Raises ValueError for "self_loop" with two sets of nodes.
        """
        bipartite = not isinstance(x, Tensor)
        source, target = (x, x) if isinstance(x, Tensor) else x
        loops = self.combine_root == "self_loop"
        if loops and (bipartite or (size is not None and size[0] != size[1])):
            raise ValueError("Cannot use `combine_root='self_loop'` for bipartite message passing")
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target), size)
        weight = self._weights_of(edge_weight, values, source)
        if loops:
            if is_torch_sparse(edge_index):  # of whose diagonal torch_geometric sets all
                others = ~is_loop(graph)
                weight = None if weight is None else weight[others]
                graph = graph.with_edges(graph.edge_index[:, others])
            graph, weight = _with_more_loops(graph, weight)
        if source.is_complex() or not (source.is_floating_point() or (self._watched and self._is_watched())):
            return self._of_other_numbers(strided(source), target, graph, weight)
        y: Tensor = self.run(
            graph,
            {"x": source, "z": target if self.combine_root in ("sum", "cat") else None, "w": weight},
            bipartite=bipartite,
            root=None if loops else self.combine_root,
        )
        return y

    def _of_other_numbers(self, source: Tensor, target: Tensor | None, graph: Graph, weight: Tensor | None) -> Tensor:
        """On whole or complex numbers, in torch: kernels have real ones."""
        self.check_unwatched("adds up complex numbers")
        m = read_by_edges(graph, source).index_select(self.node_dim, graph.local_edge_index[0])
        if weight is not None:
            m = m * weight.view(-1, *[1] * (m.dim() - 1 - self.node_dim % m.dim()))
        y: Tensor = self.aggr_module(m, graph.local_edge_index[1], dim_size=graph.num_targets, dim=self.node_dim)
        if target is None or self.combine_root not in ("sum", "cat"):
            return y
        return y + target if self.combine_root == "sum" else torch.cat([target, y], dim=-1)


def _with_more_loops(graph: Graph, weight: Tensor | None) -> tuple[Graph, Tensor | None]:
    """A loop of weight 1 at each node, besides those that are there: unlike any transform of the language."""
    ones = None if weight is None else torch.cat([weight, weight.new_ones(graph.num_nodes)])
    return graph.with_more_loops(), ones


class GatedGraphConv(Declared, program="gated_graph", shows="num_layers"):
    """Steps of a GRU whose input is what the neighbours send. Li et al., ICLR 2016, equations 2 to 6.

    out_channels: size of inputs and outputs; smaller inputs are filled up with zeros
    num_layers:   number of steps
    aggr:         how messages meet
    bias:         whether the GRU has some
    **kwargs:     of :class:`Conv`

    The GRU cell is torch's, between the kernels of the steps.
    """

    out_channels: int
    num_layers: int
    aggr: Any = "add"
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        self.rnn = nn.GRUCell(self.out_channels, self.out_channels, bias=self.bias)

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"channels": self.out_channels}

    @repeatable
    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, at most out_channels] and weights [E] to [N, out_channels].

        Raises ValueError for more features.
        """
        check_proxy(x)
        x = strided(x)
        missing = self.out_channels - x.size(-1)
        if missing < 0:
            raise ValueError(
                "The number of input channels is not allowed to be larger than the number of output channels"
            )
        graph, weight = self.weighted(x, edge_index, edge_weight)
        x = nn.functional.pad(x, (0, missing)) if missing else x
        return self._compute(graph, {"x": x, "w": weight}, channels=self.out_channels)


class MFConv(Summed, program="mf"):
    """A weight for each degree. Duvenaud et al., NeurIPS 2015, algorithm 2.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    max_degree: the largest degree with a weight of its own
    bias:       whether to add some
    **kwargs:   of :class:`Conv`
    """

    in_channels: Channels
    out_channels: int
    max_degree: int = 10
    bias: InitVar[bool] = True

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), to [N, out_channels]."""
        return self._applied(x, edge_index, size)


class SignedConv(Summed, program="signed_half", aggr="mean", shows="first_aggr"):
    """Balanced and unbalanced paths apart, on a graph of friends and one of foes. Derr et al., ICDM 2018, eqs. 3 to 6.

    in_channels, out_channels: sizes of each of the two halves; -1 takes the first from the first call
    first_aggr: whether this is the first layer, whose input has one half
    bias:       whether to add some
    **kwargs:   of :class:`Conv`

    The sums over the edges of one sign are a program; joining them and the linear maps are torch's, since a program
    has one graph.
    """

    in_channels: int
    out_channels: int
    first_aggr: bool
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        wide = self.in_channels if self.first_aggr else 2 * self.in_channels
        self.lin_pos_l = Linear(wide, self.out_channels, False)
        self.lin_pos_r = Linear(self.in_channels, self.out_channels, self.bias)
        self.lin_neg_l = Linear(wide, self.out_channels, False)
        self.lin_neg_r = Linear(self.in_channels, self.out_channels, self.bias)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for lin in (self.lin_pos_l, self.lin_pos_r, self.lin_neg_l, self.lin_neg_r):
            lin.reset_parameters()

    def forward(
        self, x: Tensor | tuple[Tensor, Tensor], pos_edge_index: Adjacency, neg_edge_index: Adjacency
    ) -> Tensor:
        """[N, halves * in_channels], or a pair of sources and targets, to [N, 2 * out_channels]."""
        source, target = map(strided, (x, x) if isinstance(x, Tensor) else x)
        bipartite = not isinstance(x, Tensor)

        def along(edge_index: Adjacency, features: Tensor) -> Tensor:
            graph, _ = self.graph(edge_index, self.rows(source), self.rows(target))
            return self.run(graph, {"x": features.contiguous()}, bipartite=bipartite)

        if self.first_aggr:
            pos, neg = along(pos_edge_index, source), along(neg_edge_index, source)
            own = (target, target)
        else:
            size = self.in_channels
            a, b = source[..., :size], source[..., size:]
            pos = torch.cat([along(pos_edge_index, a), along(neg_edge_index, b)], dim=-1)
            neg = torch.cat([along(pos_edge_index, b), along(neg_edge_index, a)], dim=-1)
            own = (target[..., :size], target[..., size:])
        out_pos = self.lin_pos_l(pos) + self.lin_pos_r(own[0])
        out_neg = self.lin_neg_l(neg) + self.lin_neg_r(own[1])
        return torch.cat([out_pos, out_neg], dim=-1)


@declared
class DirGNNConv(Module):
    """alpha conv(against the edges) + (1 - alpha) conv(along them) + W x. Rossi et al., "Edge Directionality Improves
    Learning on Heterophilic Graphs", LoG 2023, equation 9. A layer made of two others.

    conv:        a layer, of which two copies are made, without self-loops and own features where it has a choice
    alpha:       the part of the messages against the edges
    root_weight: whether to add a linear map of the own features
    """

    conv: InitVar[nn.Module]
    alpha: float = 0.5
    root_weight: bool = True

    def _setup(self) -> None:
        self.conv_in = copy.deepcopy(self.conv)
        self.conv_out = copy.deepcopy(self.conv)
        for part in (self.conv_in, self.conv_out):
            for name in ("add_self_loops", "root_weight"):
                if hasattr(self.conv, name):
                    setattr(part, name, False)
        sizes: Any = self.conv
        self.lin = nn.Linear(sizes.in_channels, sizes.out_channels) if self.root_weight else None

    reset_parameters = redraw

    def forward(self, x: Tensor, edge_index: Adjacency) -> Tensor:
        """[N, in_channels] to [N, out_channels]."""
        y: Tensor = self.alpha * self.conv_out(x, _turned(edge_index)) + (1 - self.alpha) * self.conv_in(x, edge_index)
        return y if self.lin is None else y + self.lin(x)

    __repr__ = words("{self.conv_in}, alpha={self.alpha}")


def _turned(edge_index: Adjacency) -> Adjacency:
    """The same edges the other way round."""
    if isinstance(edge_index, Graph):
        return edge_index.reverse()
    if isinstance(edge_index, Tensor) and edge_index.layout is torch.strided:
        return edge_index.flip([0])
    return edge_index.t() if hasattr(edge_index, "t") else edge_index.T  # a sparse matrix; SciPy's has no `t`


@declared(shows="phi num_iters epsilon gamma")
class AntiSymmetricConv(Module):
    """Euler steps of a stable differential equation on the graph. Gravina et al., "Anti-Symmetric DGN", ICLR 2023,
    equation 6. A layer made of another one.

    in_channels: size of inputs and outputs
    phi:         the layer that looks at the neighbours; a :class:`GCNConv` by default
    num_iters:   number of steps
    epsilon:     size of a step
    gamma:       how fast features fade
    act:         the function in a step: the name of a class of torch.nn, a function, or None
    act_kwargs:  arguments of one given by name
    bias:        whether to add one
    """

    in_channels: int
    phi: InitVar[nn.Module | None] = None
    num_iters: int = 1
    epsilon: float = 0.1
    gamma: float = 0.1
    act: str | Callable[[Tensor], Tensor] | None = "tanh"
    act_kwargs: InitVar[dict[str, Any] | None] = None
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        self.act = activation(self.act, **(self.act_kwargs or {}))
        self.W = parameter(self.in_channels, self.in_channels)
        self.eye: Tensor
        self.register_buffer("eye", torch.eye(self.in_channels))
        self.phi = GCNConv(self.in_channels, self.in_channels, bias=False) if self.phi is None else self.phi
        self.bias = parameter(self.in_channels) if self.bias else None

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        nn.init.kaiming_uniform_(self.W, a=math.sqrt(5))
        phi: Any = self.phi
        phi.reset_parameters()
        zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Adjacency, *args: Any, **kwargs: Any) -> Tensor:
        """[N, in_channels] to [N, in_channels]; further arguments go to ``phi``."""
        x = strided(x)
        act: Any = self.act
        antisymmetric = self.W - self.W.t() - self.gamma * self.eye
        for _ in range(self.num_iters):
            h = self.phi(x, edge_index, *args, **kwargs) + x @ antisymmetric.t()
            if self.bias is not None:
                h = h + self.bias
            x = x + self.epsilon * (h if act is None else act(h))
        return x


class WLConv(nn.Module):
    """Colours of Weisfeiler and Leman: nodes with the same colour and the same neighbours keep a common one. 1968.

    It has no derivative, and no number of colours that is known before: it runs in torch. The colours are numbered in
    the order in which they are met, in all calls of one layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hashmap: dict[int, int] = {}

    def reset_parameters(self) -> None:
        """Forget the colours."""
        self.hashmap = {}

    @torch.no_grad()
    def forward(self, x: Tensor, edge_index: Adjacency) -> Tensor:
        """Colours [N], or one-hot [N, colours], to colours [N]."""
        if x.dim() > 1:
            assert bool((x.sum(dim=-1) == 1).all()), "colours are whole numbers [N], or one-hot rows"
            x = x.argmax(dim=-1)
        assert x.dtype == torch.long, f"colours are of type torch.int64, not {x.dtype}"
        graph = Graph.from_any(edge_index, len(x))
        order = graph.in_edges
        neighbours = read_by_edges(graph, x)[order.index.long()].split(graph.in_degree.tolist())
        pairs = zip(x.tolist(), neighbours, strict=True)
        keys = [hash((own, *others.sort()[0].tolist())) for own, others in pairs]
        if isinstance(graph, LocalGraph):  # numbered in the order of all nodes
            ids, every = gather(graph.halo, torch.stack([graph.halo.own_ids, x.new_tensor(keys)], dim=1)).unbind(1)
            for key in every[ids.argsort()].tolist():
                self.hashmap.setdefault(key, len(self.hashmap))
        found = [self.hashmap.setdefault(key, len(self.hashmap)) for key in keys]
        return torch.tensor(found, dtype=torch.long, device=x.device)

    def histogram(self, x: Tensor, batch: Tensor | None = None, norm: bool = False) -> Tensor:
        """How often each colour is in each graph: [N] to [graphs, colours].

        batch: [N] the graph of each node
        norm:  whether to scale each row to length 1
        """
        batch = torch.zeros_like(x) if batch is None else batch
        colours, graphs = len(self.hashmap), count_in(batch)
        count = torch.bincount(batch * colours + x, minlength=graphs * colours).view(graphs, colours)
        return nn.functional.normalize(count.float(), dim=-1) if norm else count


class WLConvContinuous(Declared, program="wl_continuous", aggr=None, fixed='"add"'):
    """The mean of the own features and the weighted mean of the neighbours'. Togninalli et al., NeurIPS 2019.

    **kwargs: of :class:`Conv`
    """

    @repeatable
    def forward(
        self, x: Features, edge_index: Adjacency, edge_weight: Tensor | None = None, size: Size = None
    ) -> Tensor:
        """[N, channels], or a pair of sources and targets (or None), and weights [E], to [N, channels]."""
        source, target, bipartite, graph, values = self._between(x, edge_index, size)
        weight = self._weights_of(edge_weight, values, source)
        inputs = {"x": real_features(source), "z": None if target is None else real_features(target), "w": weight}
        y: Tensor = self.run(graph, inputs, bipartite=bipartite)
        return like_features(y, source)
