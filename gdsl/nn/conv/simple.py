"""Layers with plain sums, and layers made of other layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.activations import activation
from gdsl.nn.conv.base import (
    Adjacency,
    Channels,
    Conv,
    Features,
    Size,
    edge_weights,
    like_features,
    pair_of,
    parameter,
    real_features,
    see,
    strided,
)
from gdsl.nn.conv.gcn import GCNConv
from gdsl.nn.inits import uniform, zeros
from gdsl.nn.linear import Linear
from gdsl.runtime.graph import Graph
from gdsl.runtime.tracers import check_proxy


class GraphConv(Conv):
    """W_1 x_i + W_2 sum_j w_ji x_j. Morris et al., AAAI 2019, equation 6.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    aggr:     how messages meet
    bias:     whether to add one
    **kwargs: of :class:`Conv`
    """

    program_name = "graph_conv"

    def __init__(self, in_channels: Channels, out_channels: int, aggr: Any = "add", bias: bool = True, **kwargs: Any):
        super().__init__(aggr, **kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        sources, targets = pair_of(in_channels)
        self.lin_rel = Linear(sources, out_channels, bias=bias)
        self.lin_root = Linear(targets, out_channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        self.lin_rel.reset_parameters()
        self.lin_root.reset_parameters()

    def forward(
        self, x: Features, edge_index: Adjacency, edge_weight: Tensor | None = None, size: Size = None
    ) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), and weights [E], to [N, out_channels]."""
        bipartite = not isinstance(x, Tensor)
        source, target = (x, x) if isinstance(x, Tensor) else x
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target), size)
        see((self.lin_rel, source), (self.lin_root, target))
        weight = edge_weights(edge_weight, values, source)
        y: Tensor = self.run(
            graph,
            {"x": source, "z": target, "w": weight},
            out_channels=self.out_channels,
            bipartite=bipartite,
        )
        return y


class LEConv(Conv):
    """W_1 x_i + sum_j w_ji (W_2 x_j - W_3 x_i). Ranjan et al., "ASAP", AAAI 2020, equation 8.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    bias:     whether to add some
    **kwargs: of :class:`Conv`
    """

    program_name = "le"

    def __init__(self, in_channels: Channels, out_channels: int, bias: bool = True, **kwargs: Any):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        sources, targets = pair_of(in_channels)
        self.lin1 = Linear(sources, out_channels, bias=bias)
        self.lin2 = Linear(targets, out_channels, bias=False)
        self.lin3 = Linear(targets, out_channels, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for lin in (self.lin1, self.lin2, self.lin3):
            lin.reset_parameters()

    def forward(self, x: Features, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets, and weights [E], to [N, out_channels]."""
        bipartite = not isinstance(x, Tensor)
        source, target = (x, x) if isinstance(x, Tensor) else x
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target))
        see((self.lin1, source), (self.lin2, target), (self.lin3, target))
        weight = edge_weights(edge_weight, values, source)
        y: Tensor = self.run(
            graph,
            {"x": source, "z": target, "w": weight},
            out_channels=self.out_channels,
            bipartite=bipartite,
        )
        return y


class SimpleConv(Conv):
    """The aggregation of the neighbours, without parameters.

    aggr:         how messages meet
    combine_root: the node's own features: "sum" adds them, "cat" puts them in front, "self_loop" makes them a message
    **kwargs:     of :class:`Conv`

    Raises ValueError for another way to combine.
    """

    program_name = "simple"

    def __init__(self, aggr: Any = "sum", combine_root: str | None = None, **kwargs: Any):
        if combine_root not in ("sum", "cat", "self_loop", None):
            raise ValueError(f"Received invalid value for 'combine_root' (got '{combine_root}')")
        super().__init__(aggr, **kwargs)
        self.combine_root = combine_root

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
        weight = edge_weights(edge_weight, values, source)
        if loops:
            graph, weight = _with_more_loops(graph, weight)
        if not source.is_floating_point():
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
        self.check_unwatched("adds up whole or complex numbers")
        m = source.index_select(self.node_dim, graph.edge_index[0])
        if weight is not None:
            m = m * weight.view(-1, *[1] * (1 if self.node_dim == -2 else m.dim() - 1))
        y: Tensor = self.aggr_module(m, graph.edge_index[1], dim_size=graph.num_targets, dim=self.node_dim)
        if target is None or self.combine_root not in ("sum", "cat"):
            return y
        return y + target if self.combine_root == "sum" else torch.cat([target, y], dim=-1)


def _with_more_loops(graph: Graph, weight: Tensor | None) -> tuple[Graph, Tensor | None]:
    """A loop of weight 1 at each node, besides those that are there: unlike any transform of the language."""
    loops = torch.arange(graph.num_nodes, device=graph.device)
    edges = torch.cat([graph.edge_index, torch.stack([loops, loops])], dim=1)
    ones = None if weight is None else torch.cat([weight, weight.new_ones(len(loops))])
    return graph.with_edges(edges), ones


class GatedGraphConv(Conv):
    """Steps of a GRU whose input is what the neighbours send. Li et al., ICLR 2016, equations 2 to 6.

    out_channels: size of inputs and outputs; smaller inputs are filled up with zeros
    num_layers:   number of steps
    aggr:         how messages meet
    bias:         whether the GRU has some
    **kwargs:     of :class:`Conv`

    The GRU cell is torch's, between the kernels of the steps.
    """

    program_name = "gated_graph"

    def __init__(self, out_channels: int, num_layers: int, aggr: Any = "add", bias: bool = True, **kwargs: Any):
        super().__init__(aggr, **kwargs)
        self.out_channels = out_channels
        self.num_layers = num_layers
        self.weight = parameter(num_layers, out_channels, out_channels)
        self.rnn = nn.GRUCell(out_channels, out_channels, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        uniform(self.out_channels, self.weight)
        self.rnn.reset_parameters()

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
        y: Tensor = self.run(
            graph,
            {"x": nn.functional.pad(x, (0, missing)) if missing else x, "w": weight},
            channels=self.out_channels,
            num_layers=self.num_layers,
        )
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.out_channels}, num_layers={self.num_layers})"


class MFConv(Conv):
    """A weight for each degree. Duvenaud et al., NeurIPS 2015, algorithm 2.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    max_degree: the largest degree with a weight of its own
    bias:       whether to add some
    **kwargs:   of :class:`Conv`
    """

    program_name = "mf"

    def __init__(
        self, in_channels: Channels, out_channels: int, max_degree: int = 10, bias: bool = True, **kwargs: Any
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.max_degree = max_degree
        sources, targets = pair_of(in_channels)
        degrees = range(max_degree + 1)
        self.lins_l = nn.ModuleList([Linear(sources, out_channels, bias=bias) for _ in degrees])
        self.lins_r = nn.ModuleList([Linear(targets, out_channels, bias=False) for _ in degrees])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for lin in (*self.lins_l, *self.lins_r):
            lin.reset_parameters()

    def forward(self, x: Features, edge_index: Adjacency, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), to [N, out_channels]."""
        bipartite = not isinstance(x, Tensor)
        source, target = (x, x) if isinstance(x, Tensor) else x
        graph, _ = self.graph(edge_index, self.rows(source), self.rows(target), size)
        see(*((lin, source) for lin in self.lins_l), *((lin, target) for lin in self.lins_r))
        y: Tensor = self.run(
            graph,
            {"x": source, "z": target},
            out_channels=self.out_channels,
            max_degree=self.max_degree,
            bipartite=bipartite,
        )
        return y


class SignedConv(Conv):
    """Balanced and unbalanced paths apart, on a graph of friends and one of foes. Derr et al., ICDM 2018, eqs. 3 to 6.

    in_channels, out_channels: sizes of each of the two halves; -1 takes the first from the first call
    first_aggr: whether this is the first layer, whose input has one half
    bias:       whether to add some
    **kwargs:   of :class:`Conv`

    The sums over the edges of one sign are a program; joining them and the linear maps are torch's, since a program
    has one graph.
    """

    program_name = "signed_half"

    def __init__(self, in_channels: int, out_channels: int, first_aggr: bool, bias: bool = True, **kwargs: Any):
        kwargs.setdefault("aggr", "mean")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.first_aggr = first_aggr
        wide = in_channels if first_aggr else 2 * in_channels
        self.lin_pos_l = Linear(wide, out_channels, False)
        self.lin_pos_r = Linear(in_channels, out_channels, bias)
        self.lin_neg_l = Linear(wide, out_channels, False)
        self.lin_neg_r = Linear(in_channels, out_channels, bias)
        self.reset_parameters()

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
            found: Tensor = self.run(graph, {"x": features.contiguous()}, bipartite=bipartite)
            return found

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, first_aggr={self.first_aggr})"


class DirGNNConv(nn.Module):
    """alpha conv(against the edges) + (1 - alpha) conv(along them) + W x. Rossi et al., "Edge Directionality Improves
    Learning on Heterophilic Graphs", LoG 2023, equation 9. A layer made of two others.

    conv:        a layer, of which two copies are made, without self-loops and own features where it has a choice
    alpha:       the part of the messages against the edges
    root_weight: whether to add a linear map of the own features
    """

    def __init__(self, conv: nn.Module, alpha: float = 0.5, root_weight: bool = True):
        super().__init__()
        self.alpha = alpha
        self.root_weight = root_weight
        self.conv_in = copy.deepcopy(conv)
        self.conv_out = copy.deepcopy(conv)
        for part in (self.conv_in, self.conv_out):
            for name in ("add_self_loops", "root_weight"):
                if hasattr(conv, name):
                    setattr(part, name, False)
        sizes: Any = conv
        self.lin = nn.Linear(sizes.in_channels, sizes.out_channels) if root_weight else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        parts: tuple[Any, ...] = (self.conv_in, self.conv_out, self.lin)
        for part in parts:
            if part is not None:
                part.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """[N, in_channels] to [N, out_channels]."""
        y: Tensor = self.alpha * self.conv_out(x, edge_index.flip([0])) + (1 - self.alpha) * self.conv_in(x, edge_index)
        return y if self.lin is None else y + self.lin(x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.conv_in}, alpha={self.alpha})"


class AntiSymmetricConv(nn.Module):
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

    def __init__(
        self,
        in_channels: int,
        phi: nn.Module | None = None,
        num_iters: int = 1,
        epsilon: float = 0.1,
        gamma: float = 0.1,
        act: str | Callable[[Tensor], Tensor] | None = "tanh",
        act_kwargs: dict[str, Any] | None = None,
        bias: bool = True,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.num_iters = num_iters
        self.gamma = gamma
        self.epsilon = epsilon
        self.act = activation(act, **(act_kwargs or {}))
        self.W = parameter(in_channels, in_channels)
        self.eye: Tensor
        self.register_buffer("eye", torch.eye(in_channels))
        self.phi = GCNConv(in_channels, in_channels, bias=False) if phi is None else phi
        self.bias = parameter(in_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        nn.init.kaiming_uniform_(self.W, a=math.sqrt(5))
        phi: Any = self.phi
        phi.reset_parameters()
        zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Adjacency, *args: Any, **kwargs: Any) -> Tensor:
        """[N, in_channels] to [N, in_channels]; further arguments go to ``phi``."""
        x = strided(x)
        antisymmetric = self.W - self.W.t() - self.gamma * self.eye
        for _ in range(self.num_iters):
            h = self.phi(x, edge_index, *args, **kwargs) + x @ antisymmetric.t()
            if self.bias is not None:
                h = h + self.bias
            x = x + self.epsilon * (h if self.act is None else self.act(h))
        return x

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, phi={self.phi}, num_iters={self.num_iters}, "
            f"epsilon={self.epsilon}, gamma={self.gamma})"
        )


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
        neighbours = x[order.index.long()].split(graph.in_degree.tolist())
        found = []
        for own, others in zip(x.tolist(), neighbours, strict=True):
            key = hash((own, *others.sort()[0].tolist()))
            found.append(self.hashmap.setdefault(key, len(self.hashmap)))
        return torch.tensor(found, device=x.device)

    def histogram(self, x: Tensor, batch: Tensor | None = None, norm: bool = False) -> Tensor:
        """How often each colour is in each graph: [N] to [graphs, colours].

        batch: [N] the graph of each node
        norm:  whether to scale each row to length 1
        """
        batch = torch.zeros_like(x) if batch is None else batch
        colours, graphs = len(self.hashmap), int(batch.max()) + 1
        count = torch.bincount(batch * colours + x, minlength=graphs * colours).view(graphs, colours)
        return nn.functional.normalize(count.float(), dim=-1) if norm else count


class WLConvContinuous(Conv):
    """The mean of the own features and the weighted mean of the neighbours'. Togninalli et al., NeurIPS 2019.

    **kwargs: of :class:`Conv`
    """

    program_name = "wl_continuous"

    def __init__(self, **kwargs: Any):
        super().__init__("add", **kwargs)

    def forward(
        self, x: Features, edge_index: Adjacency, edge_weight: Tensor | None = None, size: Size = None
    ) -> Tensor:
        """[N, channels], or a pair of sources and targets (or None), and weights [E], to [N, channels]."""
        bipartite = not isinstance(x, Tensor)
        source, target = (x, x) if isinstance(x, Tensor) else x
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target), size)
        weight = edge_weights(edge_weight, values, source)
        inputs = {"x": real_features(source), "z": None if target is None else real_features(target), "w": weight}
        y: Tensor = self.run(graph, inputs, bipartite=bipartite)
        return like_features(y, source)
