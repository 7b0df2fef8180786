"""Layers with several aggregations, weights from edge features, and attention over whole graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.activations import activation
from gdsl.nn.aggr import DegreeScalerAggregation
from gdsl.nn.aggr.base import dense
from gdsl.nn.attention import PerformerAttention
from gdsl.nn.conv.base import Adjacency, Conv, edge_features, parameter, see, strided
from gdsl.nn.inits import glorot, reset, zeros
from gdsl.nn.linear import Linear
from gdsl.nn.norm import norm_resolver, takes_batch


class PNAConv(Conv):
    """Several aggregations times several functions of the degree. Corso et al., NeurIPS 2020, equations 7 and 8.

    in_channels, out_channels: sizes
    aggregators:  names of aggregations
    scalers:      of "identity", "amplification", "attenuation", "linear" and "inverse_linear"
    deg:          [D] the histogram of in-degrees of the training graphs; see :meth:`get_degree_histogram`
    edge_dim:     size of the edge features, if there are any
    towers:       number of networks side by side
    pre_layers, post_layers: layers of the networks before and after the aggregation
    divide_input: whether each tower sees a part of the features, or all
    act, act_kwargs: the function between the layers: the name of a class of torch.nn, or a module
    train_norm:   whether the mean degrees are learned
    **kwargs:     of :class:`Conv`

    Raises AssertionError for sizes that the towers do not divide.
    """

    program_name = "pna"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        aggregators: list[str],
        scalers: list[str],
        deg: Tensor,
        edge_dim: int | None = None,
        towers: int = 1,
        pre_layers: int = 1,
        post_layers: int = 1,
        divide_input: bool = False,
        act: str | Callable[[Tensor], Tensor] | None = "relu",
        act_kwargs: dict[str, Any] | None = None,
        train_norm: bool = False,
        **kwargs: Any,
    ):
        super().__init__(DegreeScalerAggregation(aggregators, scalers, deg, train_norm), node_dim=0, **kwargs)
        if divide_input:
            assert in_channels % towers == 0, f"{in_channels} input channels are no multiple of 'towers'"
        assert out_channels % towers == 0, f"{out_channels} output channels are no multiple of 'towers'"
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.edge_dim = edge_dim
        self.towers = towers
        self.divide_input = divide_input
        self.F_in = in_channels // towers if divide_input else in_channels
        self.F_out = out_channels // towers
        if edge_dim is not None:
            self.edge_encoder = Linear(edge_dim, self.F_in)

        def network(size: int, to: int, layers: int) -> nn.Sequential:
            parts: list[nn.Module] = [Linear(size, to)]
            for _ in range(layers - 1):
                parts += [activation(act, **(act_kwargs or {})), Linear(to, to)]
            return nn.Sequential(*parts)

        before = (3 if edge_dim else 2) * self.F_in
        after = (len(aggregators) * len(scalers) + 1) * self.F_in
        self.pre_nns = nn.ModuleList([network(before, self.F_in, pre_layers) for _ in range(towers)])
        self.post_nns = nn.ModuleList([network(after, self.F_out, post_layers) for _ in range(towers)])
        self.lin = Linear(out_channels, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for module in (self._modules.get("edge_encoder"), *self.pre_nns, *self.post_nns, self.lin):
            reset(module)

    def forward(self, x: Tensor, edge_index: Adjacency, edge_attr: Tensor | None = None) -> Tensor:
        """[N, in_channels] and [E, edge_dim] to [N, out_channels]."""
        graph, values = self.square(x, edge_index)
        y: Tensor = self.run(
            graph,
            {"x": x, "e": edge_features(edge_attr, values, edge_index)},
            out_channels=self.out_channels,
            towers=self.towers,
            width=self.F_in,
            divide=self.divide_input,
        )
        return y

    @staticmethod
    def get_degree_histogram(loader: Iterable[Any]) -> Tensor:
        """How many nodes have each in-degree in some graphs with ``edge_index`` and ``num_nodes``: [D]."""
        found = torch.zeros(1, dtype=torch.long)
        for data in loader:
            degree = torch.bincount(data.edge_index[1], minlength=data.num_nodes)
            count = torch.bincount(degree, minlength=len(found))
            found = torch.nn.functional.pad(found.to(count.device), (0, len(count) - len(found))) + count
        return found

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, towers={self.towers}, "
            f"edge_dim={self.edge_dim})"
        )


class EGConv(Conv):
    """Heads that mix a few bases, aggregated in several ways. Tailor et al., ICLR 2022, equations 5 and 6.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    aggregators:    of "sum", "mean", "symnorm", "min", "max", "var" and "std"; "symnorm" by default
    num_heads:      number of heads, which divides the outputs
    num_bases:      number of bases
    cached:         keep the graph of the first call for all others
    add_self_loops: whether to add them
    bias:           whether to add one
    **kwargs:       of :class:`Conv`

    Raises ValueError for heads that do not divide the outputs, and for an aggregation that there is not. Every node
    gets its loop; torch_geometric, without "symnorm", leaves out nodes behind the last one with an edge.
    """

    program_name = "eg"
    AGGREGATORS = ("sum", "mean", "symnorm", "min", "max", "var", "std")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        aggregators: list[str] | None = None,
        num_heads: int = 8,
        num_bases: int = 4,
        cached: bool = False,
        add_self_loops: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(node_dim=0, **kwargs)
        if out_channels % num_heads != 0:
            raise ValueError(
                f"'out_channels' (got {out_channels}) must be divisible by the number of heads (got {num_heads})"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_heads = num_heads
        self.num_bases = num_bases
        self.cached = cached
        self.add_self_loops = add_self_loops
        self.aggregators = aggregators or ["symnorm"]
        for name in self.aggregators:
            if name not in self.AGGREGATORS:
                raise ValueError(f"Unsupported aggregator: '{name}'")
        wide = out_channels // num_heads * num_bases
        self.bases_lin = Linear(in_channels, wide, bias=False, weight_initializer="glorot")
        self.comb_lin = Linear(in_channels, num_heads * num_bases * len(self.aggregators))
        self.bias = parameter(out_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        self.bases_lin.reset_parameters()
        self.comb_lin.reset_parameters()
        zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Adjacency) -> Tensor:
        """[N, in_channels] to [N, out_channels]."""
        see((self.bases_lin, x), (self.comb_lin, x))
        loops = float(self.add_self_loops)
        graph, weight = self.weighted(x, edge_index, None, keep=self.cached, loops=loops)
        y: Tensor = self.run(
            graph,
            {"x": x, "w": weight},
            out_channels=self.out_channels,
            heads=self.num_heads,
            width=self.out_channels // self.num_heads,
            bases=self.num_bases,
            count=len(self.aggregators),
            code=sum(self.AGGREGATORS.index(name) * 8**n for n, name in enumerate(self.aggregators)),
            loops=self.add_self_loops,
            symmetric="symnorm" in self.aggregators,
            with_bias=self.bias is not None,
        )
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, aggregators={self.aggregators})"


class PDNConv(Conv):
    """A GCN whose weights a network makes of the edges' features. Rozemberczki et al., WWW 2021, section 3.

    in_channels, out_channels: sizes
    edge_dim:        size of the edge features
    hidden_channels: of the network
    add_self_loops:  whether to add them
    normalize:       whether to divide by the degrees
    bias:            whether to add one
    **kwargs:        of :class:`Conv`
    """

    program_name = "pdn"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        edge_dim: int,
        hidden_channels: int,
        add_self_loops: bool = True,
        normalize: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.edge_dim = edge_dim
        self.hidden_channels = hidden_channels
        self.add_self_loops = add_self_loops
        self.normalize = normalize
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        first, second = nn.Linear(edge_dim, hidden_channels), nn.Linear(hidden_channels, 1)
        self.mlp = nn.Sequential(first, nn.ReLU(inplace=True), second, nn.Sigmoid())
        self.bias = parameter(out_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        glorot(self.lin.weight)
        for lin in self.mlp:
            if isinstance(lin, nn.Linear):
                glorot(lin.weight)
                zeros(lin.bias)
        zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Adjacency, edge_attr: Tensor | None = None) -> Tensor:
        """[N, in_channels] and [E, edge_dim] to [N, out_channels]."""
        graph, values = self.square(x, edge_index)
        edge_attr = edge_features(edge_attr, values, edge_index)
        y: Tensor = self.run(
            graph,
            {"x": x, "e": edge_attr, "loop": strided(x).new_zeros(graph.num_edges)},
            out_channels=self.out_channels,
            loops=self.normalize and self.add_self_loops,
            normalize=self.normalize,
            with_bias=self.bias is not None,
        )
        return y


class GPSConv(nn.Module):
    """A layer on the edges and attention over whole graphs, added. Rampasek et al., "GraphGPS", NeurIPS 2022.

    channels:    size of inputs and outputs
    conv:        the layer on the edges, or None
    heads:       of the attention
    dropout:     after each part
    act, act_kwargs: the function in the network: the name of a class of torch.nn, or a module
    norm, norm_kwargs: after each part: the name of one of :mod:`gdsl.nn.norm`, a module, or None
    attn_type:   "multihead", or "performer" for attention in linear time
    attn_kwargs: of ``torch.nn.MultiheadAttention`` or :class:`gdsl.nn.attention.PerformerAttention`

    Raises ValueError for another kind of attention or a norm that there is not. A layer made of others: the attention
    over all nodes of a graph is torch's.
    """

    def __init__(
        self,
        channels: int,
        conv: nn.Module | None,
        heads: int = 1,
        dropout: float = 0.0,
        act: str | Callable[[Tensor], Tensor] = "relu",
        act_kwargs: dict[str, Any] | None = None,
        norm: Any = "batch_norm",
        norm_kwargs: dict[str, Any] | None = None,
        attn_type: str = "multihead",
        attn_kwargs: dict[str, Any] | None = None,
    ):
        super().__init__()
        if attn_type not in ("multihead", "performer"):
            raise ValueError(f"{attn_type} is not supported")
        self.channels = channels
        self.conv = conv
        self.heads = heads
        self.dropout = dropout
        self.attn_type = attn_type
        self.attn: nn.MultiheadAttention | PerformerAttention
        if attn_type == "multihead":
            self.attn = nn.MultiheadAttention(channels, heads, batch_first=True, **(attn_kwargs or {}))
        else:
            self.attn = PerformerAttention(channels, heads, **(attn_kwargs or {}))
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels * 2),
            activation(act, **(act_kwargs or {})),
            nn.Dropout(dropout),
            nn.Linear(channels * 2, channels),
            nn.Dropout(dropout),
        )
        self.norm1, self.norm2, self.norm3 = (norm_resolver(norm, channels, **(norm_kwargs or {})) for _ in range(3))

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        reset(self.conv)
        self.attn._reset_parameters()
        for module in (self.mlp, self.norm1, self.norm2, self.norm3):
            reset(module)

    def forward(self, x: Tensor, edge_index: Adjacency, batch: Tensor | None = None, **kwargs: Any) -> Tensor:
        """[N, channels] to [N, channels].

        batch:    [N] the graph of each node, in order
        **kwargs: of the layer on the edges
        """
        of_graph = x.new_zeros(len(x), dtype=torch.long) if batch is None else batch
        parts = []
        if self.conv is not None:
            h = self.conv(x, edge_index, **kwargs)
            parts.append(self._normed(self.norm1, nn.functional.dropout(h, self.dropout, self.training) + x, batch))
        count = torch.bincount(of_graph)
        blocks = dense(x, of_graph, len(count))
        known = torch.arange(blocks.shape[1], device=x.device) < count.unsqueeze(1)
        if isinstance(self.attn, PerformerAttention):
            h = self.attn(blocks, known)
        else:
            h, _ = self.attn(blocks, blocks, blocks, key_padding_mask=~known, need_weights=False)
        h = nn.functional.dropout(h[known], self.dropout, self.training) + x
        parts.append(self._normed(self.norm2, h, batch))
        out = sum(parts[1:], parts[0])
        return self._normed(self.norm3, out + self.mlp(out), batch)

    @staticmethod
    def _normed(norm: Any, h: Tensor, batch: Tensor | None) -> Tensor:
        if norm is None:
            return h
        y: Tensor = norm(h, batch=batch) if takes_batch(norm) else norm(h)
        return y

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, conv={self.conv}, heads={self.heads}, attn_type={self.attn_type})"
        )
