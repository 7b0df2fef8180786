"""Layers that weigh the neighbours by what they are, besides :class:`gdsl.nn.conv.gat.GATConv`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdsl.module.repeated import repeatable
from gdsl.nn.conv.inputs import Adjacency, Channels, Features, Result, Size, edge_features, pair_of, parameter, see
from gdsl.nn.conv.programmed import Declared, InitVar, Summed, Weighted
from gdsl.nn.inits import glorot
from gdsl.nn.linear import Linear
from gdsl.runtime.tracers import check_proxy


class GATv2Conv(Summed, program="gatv2", aggr=None, fixed="node_dim=0", shows="heads"):
    """Scores that no fixed order of the neighbours explains: a_ij = softmax_j(att . leaky_relu(W_r x_i + W_l x_j)).

    Brody et al., "How Attentive are Graph Attention Networks?", ICLR 2022, equation 7.

    in_channels:    size of the inputs, or of those of sources and targets; -1 takes it from the first call
    out_channels:   size of the outputs of each head
    heads:          number of heads
    concat:         whether the heads are joined, or averaged
    negative_slope: of the leaky relu
    dropout:        of the weights, in training
    add_self_loops: whether to add them
    edge_dim:       size of the edge features, if there are any
    fill_value:     edge features of self-loops: a number, or the name of an aggregation of the edges into the node
    bias:           whether to add one, in the linear maps too
    share_weights:  whether W_l and W_r are the same
    residual:       whether to add a linear map of the target's features
    **kwargs:       of :class:`Conv`
    """

    in_channels: Channels
    out_channels: int
    heads: int = 1
    concat: bool = True
    negative_slope: float = 0.2
    dropout: float = 0.0
    add_self_loops: bool = True
    edge_dim: int | None = None
    fill_value: float | str = "mean"
    bias: InitVar[bool] = True
    share_weights: bool = False
    residual: bool = False

    def _setup(self) -> None:
        if self.share_weights:
            sources, _ = pair_of(self.in_channels)
            self.lin_l = self.lin_r = Linear(sources, self.heads * self.out_channels, self.bias, "glorot")

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"lin_edge": self.edge_dim is not None, "res": self.residual}

    @repeatable
    def forward(
        self,
        x: Features,
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Result:
        """[N, in_channels], or a pair of sources and targets, to [N, heads * out_channels].

        edge_attr: [E, edge_dim]
        return_attention_weights: True asks for ``(result, (edge_index, weights))`` with the weights [E', heads] on the
                   edges with self-loops

        Raises AssertionError for sources without targets, and for edge features without ``edge_dim``.
        """
        check_proxy(x)
        source, target = (x, x) if isinstance(x, Tensor) else x
        assert source.dim() == 2, f"Static graphs not supported in '{type(self).__name__}'"
        assert target is not None, f"'{type(self).__name__}' needs features of the targets"
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target))
        edge_attr = edge_features(edge_attr)
        if self.edge_dim is not None and edge_attr is None:
            edge_attr = edge_features(None, values, edge_index)
        assert edge_attr is None or self.lin_edge is not None, "edge features need 'edge_dim'"
        inputs = {"x": source, "z": target, "e": edge_attr}
        asked = bool(return_attention_weights)
        found = self._compute(graph, inputs, bipartite=not isinstance(x, Tensor), attended=asked)
        return self._answer(found, asked, edge_index, graph, self.add_self_loops)


class AGNNConv(Summed, program="agnn"):
    """x_i' = sum_j softmax_j(beta cos(x_i, x_j)) x_j. Thekumparampil et al., 2018, equation 5.

    requires_grad:  whether beta is learned; otherwise it is 1
    add_self_loops: whether to add them
    **kwargs:       of :class:`Conv`
    """

    requires_grad: bool = True
    add_self_loops: bool = True

    @repeatable
    def forward(self, x: Tensor, edge_index: Adjacency) -> Tensor:
        """[N, channels] to [N, channels]."""
        graph, _ = self.square(x, edge_index)
        return self._compute(graph, {"x": x})


class TransformerConv(Summed, program="transformer", fixed="node_dim=0", shows="heads"):
    """x_i' = W_1 x_i + sum_j softmax_j((W_3 x_i) . (W_4 x_j) / sqrt(d)) W_2 x_j. Shi et al., IJCAI 2021, equation 3.

    in_channels:  size of the inputs, or of those of sources and targets; -1 takes it from the first call
    out_channels: size of the outputs of each head
    heads:        number of heads
    concat:       whether the heads are joined, or averaged
    beta:         whether a gate weighs W_1 x_i against the rest: equation 5
    dropout:      of the weights, in training
    edge_dim:     size of the edge features, if there are any: they are added to keys and values
    bias:         whether the linear maps have one
    root_weight:  whether W_1 x_i is added
    **kwargs:     of :class:`Conv`
    """

    in_channels: Channels
    out_channels: int
    heads: int = 1
    concat: bool = True
    beta: bool = False
    dropout: float = 0.0
    edge_dim: int | None = None
    bias: InitVar[bool] = True
    root_weight: bool = True

    def _setup(self) -> None:
        self.beta = self.beta and self.root_weight

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"lin_edge": self.edge_dim is not None, "lin_beta": self.beta}

    @repeatable
    def forward(
        self,
        x: Features,
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Result:
        """[N, in_channels], or a pair of sources and targets, to [N, heads * out_channels].

        edge_attr: [E, edge_dim]
        return_attention_weights: True or False asks for ``(result, (edge_index, weights))`` with the weights [E, heads]

        Raises AssertionError where ``edge_dim`` and the edge features do not come together.
        """
        source, target, bipartite, graph, values = self._between(x, edge_index)
        edge_attr = edge_features(edge_attr, None if self.lin_edge is None else values, edge_index)
        assert (edge_attr is None) == (self.lin_edge is None), "'edge_dim' and edge features need each other"
        inputs = {"x": source, "z": target, "e": edge_attr}
        asked = isinstance(return_attention_weights, bool)
        found = self._compute(graph, inputs, bipartite=bipartite, attended=asked)
        if not asked:
            return found
        y, alpha = found
        # torch_geometric's layer gives one of torch's matrices back as it is.
        whole = isinstance(edge_index, Tensor) and edge_index.layout is not torch.strided
        return y, (edge_index, alpha) if whole else self.attended(edge_index, graph, alpha)


class SuperGATConv(Summed, program="supergat", fixed="node_dim=0", shows="heads type=attention_type"):
    """Attention that also learns to tell edges from pairs of nodes without one.

    Kim and Oh, "How to Find Your Friendly Neighborhood", ICLR 2021, equations 3 to 7.

    in_channels:       size of the inputs; -1 takes it from the first call
    out_channels:      size of the outputs of each head
    heads:             number of heads
    concat:            whether the heads are joined, or averaged
    negative_slope:    of the leaky relu on the scores
    dropout:           of the weights, in training
    add_self_loops:    whether to add them
    bias:              whether to add one
    attention_type:    "MX", scores of GAT times the probability of the edge, or "SD", scaled dot products
    neg_sample_ratio:  pairs without an edge for each edge in the loss
    edge_sample_ratio: the part of the edges in the loss
    is_undirected:     whether the graph is known to be; otherwise it is made so before pairs are drawn
    **kwargs:          of :class:`Conv`

    Raises AssertionError for another type of attention, and for ratios that are not above 0, or an edge_sample_ratio
    above 1.
    """

    in_channels: int
    out_channels: int
    heads: int = 1
    concat: bool = True
    negative_slope: float = 0.2
    dropout: float = 0.0
    add_self_loops: bool = True
    bias: InitVar[bool] = True
    attention_type: str = "MX"
    neg_sample_ratio: float = 0.5
    edge_sample_ratio: float = 1.0
    is_undirected: bool = False

    def _setup(self) -> None:
        assert self.attention_type in ("MX", "SD"), f"there is no attention '{self.attention_type}'"
        in_range = self.neg_sample_ratio > 0 and 0 < self.edge_sample_ratio <= 1
        assert in_range, "a ratio is out of range"
        # Of the last call in training: logits of edges and of drawn pairs, and which of them are edges.
        self.att_x: Any = None
        self.att_y: Any = None

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        mixed = self.attention_type == "MX"
        return {"att_l": mixed, "att_r": mixed}

    def forward(
        self, x: Tensor, edge_index: Adjacency, neg_edge_index: Tensor | None = None, batch: Tensor | None = None
    ) -> Tensor:
        """[N, in_channels] to [N, heads * out_channels].

        neg_edge_index: [2, P] pairs without an edge, for the loss in training; without them they are drawn
        batch:          [N] the graph of each node: pairs are drawn within a graph
        """
        graph, _ = self.square(x, edge_index)
        y: Tensor = self._compute(graph, {"x": x})
        if self.training:
            edges = self.seen_edges(graph, self.add_self_loops)
            there = self.positive_sampling(edges)
            absent = self.negative_sampling(edges, len(x), batch) if neg_edge_index is None else neg_edge_index
            pairs = graph.with_edges(torch.cat([there, absent.to(there.dtype)], dim=1))
            self.att_x = self._compute(pairs, {"x": x}, add_self_loops=False, logits=True)
            self.att_y = self.att_x.new_zeros(len(self.att_x))
            self.att_y[: there.shape[1]] = 1.0
        return y

    # Which pairs are drawn is no arithmetic on tensors of a graph, so that it is done in torch.

    def positive_sampling(self, edge_index: Tensor) -> Tensor:
        """The edges that are in the loss, [2, E']."""
        if self.edge_sample_ratio == 1.0:
            return edge_index
        kept = torch.rand(edge_index.shape[1], device=edge_index.device) >= 1.0 - self.edge_sample_ratio
        return edge_index[:, kept]

    def negative_sampling(self, edge_index: Tensor, num_nodes: int, batch: Tensor | None = None) -> Tensor:
        """Pairs of different nodes, of one graph, without an edge in either direction, [2, P]."""
        count = int(self.neg_sample_ratio * self.edge_sample_ratio * edge_index.shape[1])
        if not self.is_undirected:
            edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
        if batch is None:
            return absent_pairs(edge_index, num_nodes, count)
        found = []
        where = torch.empty_like(batch)
        for graph in batch.unique():
            nodes = (batch == graph).nonzero().squeeze(1)
            where[nodes] = torch.arange(len(nodes), device=batch.device)
            inside = edge_index[:, batch[edge_index[0]] == graph]
            found.append(nodes[absent_pairs(where[inside], len(nodes), count)])
        return torch.cat(found, dim=1)

    def get_attention_loss(self) -> Tensor:
        """How badly the last call in training told edges from other pairs: a term for the loss. 0 in evaluation."""
        if not self.training:
            return torch.tensor([0], device=next(self.parameters()).device)
        return functional.binary_cross_entropy_with_logits(self.att_x.mean(dim=-1), self.att_y)


def absent_pairs(edge_index: Tensor, nodes: int, count: int) -> Tensor:
    """So many ordered pairs of different nodes that are no edges, all different; fewer where there are not so many."""
    source, target = edge_index[:, edge_index[0] != edge_index[1]].long()
    total = nodes * (nodes - 1)
    # A pair by its number: the target is counted without the source.
    taken = (source * (nodes - 1) + target - (target > source).long()).unique()
    found = taken[:0]
    count = min(count, total - len(taken))
    while len(found) < count:
        missing = count - len(found)
        tries = 2 * missing * total // (total - len(taken)) + 1
        drawn = torch.randint(total, (tries,), device=taken.device).unique()
        drawn = drawn[~torch.isin(drawn, taken)]
        drawn = drawn[torch.randperm(len(drawn), device=taken.device)[:missing]]
        found, taken = torch.cat([found, drawn]), torch.cat([taken, drawn])
    source, target = found // max(nodes - 1, 1), found % max(nodes - 1, 1)
    return torch.stack([source, target + (target >= source).long()])


class FAConv(Weighted, program="fa", shows="eps"):
    """x_i' = eps x_i(0) + sum_j tanh(g . [x_i, x_j]) / sqrt(d_i d_j) x_j: weights may be negative.

    Bo et al., "Beyond Low-Frequency Information in Graph Convolutional Networks", AAAI 2021, equations 5 and 6.

    channels:       size of inputs and outputs; -1 takes it from the first call
    eps:            the part of the initial features
    dropout:        of the weights, in training
    cached:         keep the graph of the first call for all others
    add_self_loops: whether to add them, where the layer normalises
    normalize:      whether to divide by the degrees; otherwise the call gives the edge weights
    **kwargs:       of :class:`Conv`
    """

    channels: int
    eps: float = 0.1
    dropout: float = 0.0
    cached: bool = False
    add_self_loops: bool = True
    normalize: bool = True

    @repeatable
    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        x_0: Tensor,
        edge_index: Adjacency,
        edge_weight: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Result:
        """[N, channels] to [N, channels].

        x_0:         [N, channels] the features before the first of a stack of such layers
        edge_weight: [E], without ``normalize``
        return_attention_weights: True or False asks for ``(result, (edge_index, weights))`` with the weights [E'] on
                     the edges with self-loops

        Raises AssertionError for edge weights with ``normalize``, and for none without it.
        """
        assert edge_weight is None or not self.normalize, "a layer that normalises takes no edge weights"
        graph, weight = self._weights(x, edge_index, edge_weight)
        assert weight is not None or self.normalize, "a layer that does not normalise needs edge weights"
        asked = isinstance(return_attention_weights, bool)
        found = self._compute(graph, {"x": x, "x_0": x_0, "w": weight}, attended=asked)
        return self._answer(found, asked, edge_index, graph, self.add_self_loops and self.normalize)


class FeaStConv(Summed, program="feast", aggr="mean", shows="heads"):
    """x_i' = mean_j sum_h softmax_h(u_h . (x_j - x_i) + c_h) W_h x_j + b.

    Verma et al., "FeaStNet: Feature-Steered Graph Convolutions for 3D Shape Analysis", CVPR 2018, equations 4 and 5.

    in_channels:    size of the inputs; -1 takes it from the first call
    out_channels:   size of the outputs
    heads:          number of weights W
    add_self_loops: whether to add them
    bias:           whether to add one
    **kwargs:       of :class:`Conv`
    """

    in_channels: int
    out_channels: int
    heads: int = 1
    add_self_loops: bool = True
    bias: InitVar[bool] = True

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency) -> Tensor:
        """[N, in_channels], or a pair of sources and targets, to [N, out_channels]."""
        return self._applied(x, edge_index)


class GeneralConv(Declared, program="general", fixed="node_dim=0", parts=False):
    """x_i' = W_self x_i + aggr_j a_ij W_msg x_j, averaged over the heads. You et al., NeurIPS 2020, section 3.

    in_channels:      size of the inputs, or of those of sources and targets; -1 takes it from the first call
    out_channels:     size of the outputs
    in_edge_channels: size of the edge features, if there are any: they are added to the messages
    aggr:             how messages meet: see :class:`Conv`
    skip_linear:      whether the target's features go through a linear map even where the sizes are the same
    directed_msg:     whether messages depend on the source only; otherwise on both ends
    heads:            number of heads
    attention:        whether messages have weights
    attention_type:   "additive" or "dot_product"
    l2_normalize:     whether to scale the outputs to length 1
    bias:             whether the linear maps have one
    **kwargs:         of :class:`Conv`

    Raises ValueError for another type of attention.
    """

    in_channels: Channels
    out_channels: int
    in_edge_channels: int | None = None
    aggr: Any = "add"
    skip_linear: bool = False
    directed_msg: bool = True
    heads: int = 1
    attention: bool = False
    attention_type: str = "additive"
    l2_normalize: InitVar[bool] = False
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        out_channels, heads, bias = self.out_channels, self.heads, self.bias
        self.normalize_l2 = self.l2_normalize
        sources, targets = pair_of(self.in_channels)
        self.lin_msg = Linear(sources, out_channels * heads, bias=bias)
        if not self.directed_msg:
            self.lin_msg_i = Linear(sources, out_channels * heads, bias=bias)
        mapped = self.skip_linear or self.in_channels != out_channels
        self.lin_self = Linear(targets, out_channels, bias=bias) if mapped else nn.Identity()
        if self.in_edge_channels is not None:
            self.lin_edge = Linear(self.in_edge_channels, out_channels * heads, bias=bias)
        if self.attention:
            if self.attention_type == "additive":
                self.att_msg = parameter(1, heads, out_channels)
            elif self.attention_type == "dot_product":
                self.register_buffer("scaler", torch.tensor(out_channels, dtype=torch.float).sqrt())
            else:
                raise ValueError(f"Attention type '{self.attention_type}' not supported")

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for lin in (self.lin_msg, self.lin_self, self._modules.get("lin_edge")):
            if isinstance(lin, Linear):
                lin.reset_parameters()
        glorot(self._parameters.get("att_msg"))
        if not self.directed_msg:
            self.lin_msg_i.reset_parameters()

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, edge_attr: Tensor | None = None, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets, to [N, out_channels].

        edge_attr: [E, in_edge_channels]

        Raises AttributeError for edge features without ``in_edge_channels``.
        """
        source, target, bipartite, graph, values = self._between(x, edge_index, size)
        if edge_attr is None and "lin_edge" in self._modules:
            edge_attr = edge_features(None, values, edge_index)
        if not self.directed_msg:
            see((self.lin_msg_i, source))
        if edge_attr is not None:
            see((self.lin_edge, edge_attr))
        return self._compute(
            graph,
            {"x": source, "z": target, "e": edge_attr},
            bipartite=bipartite,
            attention=self.attention_type if self.attention else "none",
            normalize=self.normalize_l2,
        )
