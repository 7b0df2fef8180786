"""Layers with several aggregations, weights from edge features, and attention over whole graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gdsl.module.arguments import count_graphs
from gdsl.module.checks import check_batch
from gdsl.module.meeting import meeting, must_meet
from gdsl.module.repeated import repeatable
from gdsl.nn.activations import activation
from gdsl.nn.aggr import DegreeScalerAggregation
from gdsl.nn.attention import PerformerAttention, blocks_of_graphs
from gdsl.nn.conv.all_pairs import all_pairs, fits
from gdsl.nn.conv.base import Conv
from gdsl.nn.conv.graphs import is_loop
from gdsl.nn.conv.inputs import Adjacency, edge_features, is_torch_sparse, strided
from gdsl.nn.conv.programmed import Declared, InitVar, Summed, Weighted
from gdsl.nn.declared import Module, declared
from gdsl.nn.grouped import count_in
from gdsl.nn.inits import glorot, reset, zeros
from gdsl.nn.linear import Linear
from gdsl.nn.norm import norm_resolver, takes_batch
from gdsl.runtime.together import gathered, is_shared, most, norms_over_all
from gdsl.runtime.tracers import recording


class PNAConv(Declared, program="pna", fixed="node_dim=0", shows="towers edge_dim"):
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

    in_channels: int
    out_channels: int
    aggregators: InitVar[list[str]]
    scalers: InitVar[list[str]]
    deg: InitVar[Tensor]
    edge_dim: int | None = None
    towers: int = 1
    pre_layers: InitVar[int] = 1
    post_layers: InitVar[int] = 1
    divide_input: bool = False
    act: InitVar[str | Callable[[Tensor], Tensor] | None] = "relu"
    act_kwargs: InitVar[dict[str, Any] | None] = None
    train_norm: InitVar[bool] = False

    def _aggregates(self, aggr: None, kwargs: dict[str, Any]) -> DegreeScalerAggregation:
        return DegreeScalerAggregation(self.aggregators, self.scalers, self.deg, self.train_norm)

    def _setup(self) -> None:
        in_channels, out_channels, towers = self.in_channels, self.out_channels, self.towers
        if self.divide_input:
            assert in_channels % towers == 0, f"{in_channels} input channels are no multiple of 'towers'"
        assert out_channels % towers == 0, f"{out_channels} output channels are no multiple of 'towers'"
        size = self.F_in = in_channels // towers if self.divide_input else in_channels
        self.F_out = out_channels // towers
        if self.edge_dim is not None:
            self.edge_encoder = Linear(self.edge_dim, size)
        after = (len(self.aggregators) * len(self.scalers) + 1) * size
        before = (3 if self.edge_dim else 2) * size
        self.pre_nns = nn.ModuleList([self._network(before, size, self.pre_layers) for _ in range(towers)])
        self.post_nns = nn.ModuleList([self._network(after, self.F_out, self.post_layers) for _ in range(towers)])

    def _network(self, size: int, to: int, layers: int) -> nn.Sequential:
        parts: list[nn.Module] = [Linear(size, to)]
        for _ in range(layers - 1):
            parts += [activation(self.act, **(self.act_kwargs or {})), Linear(to, to)]
        return nn.Sequential(*parts)

    @repeatable
    def forward(self, x: Tensor, edge_index: Adjacency, edge_attr: Tensor | None = None) -> Tensor:
        """[N, in_channels] and [E, edge_dim] to [N, out_channels]."""
        graph, values = self.square(x, edge_index)
        inputs = {"x": x, "e": edge_features(edge_attr, values, edge_index)}
        return self._compute(graph, inputs, width=self.F_in, divide=self.divide_input)

    @staticmethod
    def get_degree_histogram(loader: Iterable[Any]) -> Tensor:
        """How many nodes have each in-degree in some graphs with ``edge_index`` and ``num_nodes``: [D]."""
        found = torch.zeros(1, dtype=torch.long)
        for data in loader:
            degree = torch.bincount(data.edge_index[1], minlength=data.num_nodes)
            count = torch.bincount(degree, minlength=len(found))
            found = torch.nn.functional.pad(found.to(count.device), (0, len(count) - len(found))) + count
        return found


class EGConv(Weighted, program="eg", aggr=None, fixed="node_dim=0", shows="aggregators"):
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

    in_channels: int
    out_channels: int
    aggregators: list[str] | None = None
    num_heads: int = 8
    num_bases: int = 4
    cached: bool = False
    add_self_loops: bool = True
    bias: InitVar[bool] = True

    AGGREGATORS: ClassVar[tuple[str, ...]] = ("sum", "mean", "symnorm", "min", "max", "var", "std")

    def _setup(self) -> None:
        if self.out_channels % self.num_heads != 0:
            raise ValueError(
                f"'out_channels' (got {self.out_channels}) must be divisible by the number of heads (got "
                f"{self.num_heads})"
            )
        self.aggregators = self.aggregators or ["symnorm"]
        for name in self.aggregators:
            if name not in self.AGGREGATORS:
                raise ValueError(f"Unsupported aggregator: '{name}'")

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        assert self.aggregators is not None
        width, count = self.out_channels // self.num_heads, len(self.aggregators)
        return {"heads": self.num_heads, "bases": self.num_bases, "width": width, "count": count}

    @repeatable
    def forward(self, x: Tensor, edge_index: Adjacency) -> Tensor:  # type: ignore[override]
        """[N, in_channels] to [N, out_channels]."""
        assert self.aggregators is not None
        graph, weight = self._weights(x, edge_index, None)
        return self._compute(
            graph,
            {"x": x, "w": weight},
            code=sum(self.AGGREGATORS.index(name) * 8**n for n, name in enumerate(self.aggregators)),
            symmetric="symnorm" in self.aggregators,
            **self._sizes({}),
        )


class PDNConv(Summed, program="pdn"):
    """A GCN whose weights a network makes of the edges' features. Rozemberczki et al., WWW 2021, section 3.

    in_channels, out_channels: sizes
    edge_dim:        size of the edge features
    hidden_channels: of the network
    add_self_loops:  whether to add them
    normalize:       whether to divide by the degrees
    bias:            whether to add one
    **kwargs:        of :class:`Conv`
    """

    in_channels: int
    out_channels: int
    edge_dim: int
    hidden_channels: int
    add_self_loops: bool = True
    normalize: bool = True
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        self.lin = nn.Linear(self.in_channels, self.out_channels, bias=False)
        first, second = nn.Linear(self.edge_dim, self.hidden_channels), nn.Linear(self.hidden_channels, 1)
        self.mlp = nn.Sequential(first, nn.ReLU(inplace=True), second, nn.Sigmoid())

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        Conv.reset_parameters(self)
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
        loop = strided(x).new_zeros(graph.num_edges)
        if is_torch_sparse(edge_index) and self.normalize and self.add_self_loops:
            loop = is_loop(graph).to(loop.dtype)  # also where there is one: torch_geometric sets the diagonal
        return self._compute(graph, {"x": x, "e": edge_attr, "loop": loop})


def _check_batch(x: Tensor, batch: Tensor) -> None:
    if torch.compiler.is_compiling() or recording():
        return  # its values are not known
    count_graphs(batch, None, x.device)
    check_batch(batch, len(x))


@declared(shows="conv heads attn_type", drawn=False)
class GPSConv(Module):
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
    over all nodes of a graph is torch's, on graphs that are padded to the largest; where most of that would be padding,
    it is a kernel of gdsl's with the same parameters, whose memory grows with the nodes. So it is in training with
    dropout of the attention on graphs of more than 1024 nodes on the CPU, where torch's keeps a weight for each pair.
    torch's has no second derivative but under ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``; the kernel has one.
    """

    channels: int
    conv: nn.Module | None
    heads: int = 1
    dropout: float = 0.0
    act: InitVar[str | Callable[[Tensor], Tensor]] = "relu"
    act_kwargs: InitVar[dict[str, Any] | None] = None
    norm: InitVar[Any] = "batch_norm"
    norm_kwargs: InitVar[dict[str, Any] | None] = None
    attn_type: str = "multihead"
    attn_kwargs: InitVar[dict[str, Any] | None] = None

    def _setup(self) -> None:
        if self.attn_type not in ("multihead", "performer"):
            raise ValueError(f"{self.attn_type} is not supported")
        channels, dropout = self.channels, self.dropout
        if self.attn_type == "multihead":
            self.attn: Any = nn.MultiheadAttention(channels, self.heads, batch_first=True, **(self.attn_kwargs or {}))
        else:
            self.attn = PerformerAttention(channels, self.heads, **(self.attn_kwargs or {}))
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels * 2),
            activation(self.act, **(self.act_kwargs or {})),
            nn.Dropout(dropout),
            nn.Linear(channels * 2, channels),
            nn.Dropout(dropout),
        )
        self.norm1, self.norm2, self.norm3 = (
            norm_resolver(self.norm, channels, **(self.norm_kwargs or {})) for _ in range(3)
        )

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

        Raises :class:`gdsl.InputError` for a ``batch`` of another shape or dtype, or with negative numbers.

        Of a distributed graph, each process has keys and values of all nodes for torch's attention, and sums over them
        alone for that in linear time.
        """
        if must_meet(self, edge_index):
            norms = nn.ModuleList([self.norm1, self.norm2, self.norm3])
            with meeting(self, edge_index, x, batch, **kwargs), norms_over_all(norms):
                return self.forward(x, edge_index, batch, **kwargs)
        if batch is not None and not is_shared():
            _check_batch(x, batch)
        parts = []
        if self.conv is not None:
            h = self.conv(x, edge_index, **kwargs)
            parts.append(self._normed(self.norm1, nn.functional.dropout(h, self.dropout, self.training) + x, batch))
        h = nn.functional.dropout(self._attended(x, batch), self.dropout, self.training) + x
        parts.append(self._normed(self.norm2, h, batch))
        out = sum(parts[1:], parts[0])
        return self._normed(self.norm3, out + self.mlp(out), batch)

    def _attended(self, x: Tensor, batch: Tensor | None) -> Tensor:
        """What each node hears from all nodes of its graph."""
        if not len(x) and not is_shared():  # torch's attention refuses to hear nobody
            return x
        of_graph = x.new_zeros(len(x), dtype=torch.long) if batch is None else batch
        alone = batch is None and not is_shared()  # nothing is counted: that a tracer could not follow
        count = torch.full((1,), len(x), device=x.device) if alone else torch.bincount(of_graph)
        if is_shared():
            count = torch.bincount(of_graph, minlength=most(len(count), x.device))
        elif fits(self.attn, count):
            return all_pairs(self.attn, x, of_graph)
        if alone:
            blocks, known = x.unsqueeze(0), torch.ones(1, len(x), dtype=torch.bool, device=x.device)
        else:
            blocks, known = blocks_of_graphs(x, of_graph, len(count))
        if isinstance(self.attn, PerformerAttention):
            h: Tensor = self.attn(blocks, known)
        else:
            keys, there = blocks, known
            if is_shared():
                everyone, order = gathered(of_graph).sort(stable=True)
                keys, there = blocks_of_graphs(gathered(x).index_select(0, order), everyone, count_in(everyone))
            h, _ = self.attn(blocks, keys, keys, key_padding_mask=~there, need_weights=False)
        return h[0] if alone else h[known]

    @staticmethod
    def _normed(norm: Any, h: Tensor, batch: Tensor | None) -> Tensor:
        if norm is None:
            return h
        return norm(h, batch=batch) if takes_batch(norm) else norm(h)
