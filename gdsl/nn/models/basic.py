"""Models of equal layers, one below the other: each names its layer, and the rest is in the base."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gdsl.module.meeting import meeting, must_meet
from gdsl.nn.activations import activation
from gdsl.nn.conv.attention import GATv2Conv
from gdsl.nn.conv.edge import EdgeConv, GINConv
from gdsl.nn.conv.gat import GATConv
from gdsl.nn.conv.gcn import GCNConv
from gdsl.nn.conv.inputs import Adjacency, Channels
from gdsl.nn.conv.mixed import PNAConv
from gdsl.nn.conv.sage import SAGEConv
from gdsl.nn.declared import words
from gdsl.nn.models.jumping import JumpingKnowledge
from gdsl.nn.models.mlp import MLP
from gdsl.nn.norm import norm_resolver, takes_batch
from gdsl.runtime.graph import Graph


class BasicGNN(nn.Module):
    """Base of the models of equal layers. A subclass makes one layer with :meth:`init_conv`.

    in_channels:     size of the inputs, or a pair for sources and targets; -1 takes it from the first call
    hidden_channels: size of the hidden features
    num_layers:      number of layers
    out_channels:    size of the outputs; None stands for that of the hidden features
    dropout:         in training, after each layer but the last
    act, act_kwargs: the name of a class of torch.nn, a function, or None
    act_first:       whether it comes before the norm
    norm, norm_kwargs: the name of one of :mod:`gdsl.nn.norm`, a module, or None
    jk:              "last", "cat", "max" or "lstm": a linear map of the features of the last layer, or of all; see
                     :class:`JumpingKnowledge`
    **kwargs:        of the layers
    """

    supports_edge_weight: ClassVar[bool] = False
    supports_edge_attr: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: Channels,
        hidden_channels: int,
        num_layers: int,
        out_channels: int | None = None,
        dropout: float = 0.0,
        act: str | Callable[[Tensor], Tensor] | None = "relu",
        act_first: bool = False,
        act_kwargs: dict[str, Any] | None = None,
        norm: Any = None,
        norm_kwargs: dict[str, Any] | None = None,
        jk: str | None = None,
        **kwargs: Any,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.num_layers = num_layers
        self.out_channels = hidden_channels if out_channels is None else out_channels
        self.dropout = nn.Dropout(dropout)
        self.act: Any = activation(act, **(act_kwargs or {}))
        self.jk_mode = jk
        self.act_first = act_first
        self.norm = norm if isinstance(norm, str) else None
        self.norm_kwargs = norm_kwargs

        pair = isinstance(in_channels, tuple | list)
        inner: Channels = (hidden_channels, hidden_channels) if pair else hidden_channels
        self.convs = nn.ModuleList()
        for k in range(max(num_layers, 1)):
            # Told to the subclass before it makes the layer: heads that are joined would not give any size.
            self.ends_in_conv = out_channels is not None and jk is None and k == max(num_layers, 1) - 1
            size = self.out_channels if self.ends_in_conv else hidden_channels
            self.convs.append(self.init_conv(inner if k else in_channels, size, **kwargs))

        made = norm_resolver(norm, hidden_channels, **(norm_kwargs or {}))
        made = nn.Identity() if made is None else made
        self.supports_norm_batch = takes_batch(made)
        self._trim = _Trim()
        self.norms = nn.ModuleList(copy.deepcopy(made) for _ in range(num_layers - (jk is None)))
        if jk is None:
            self.norms.append(nn.Identity())
        else:
            if jk != "last":
                self.jk = JumpingKnowledge(jk, hidden_channels, num_layers)
            self.lin = nn.Linear(hidden_channels * (num_layers if jk == "cat" else 1), self.out_channels)

    def init_conv(self, in_channels: Any, out_channels: int, **kwargs: Any) -> nn.Module:
        """One layer of the model."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for part in (*self.convs, *self.norms, getattr(self, "jk", None), getattr(self, "lin", None)):
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()

    def forward(
        self,
        x: Any,
        edge_index: Adjacency,
        edge_weight: Tensor | None = None,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        batch_size: int | None = None,
        num_sampled_nodes_per_hop: list[int] | None = None,
        num_sampled_edges_per_hop: list[int] | None = None,
    ) -> Tensor:
        """[N, in_channels] to [N, out_channels].

        edge_weight, edge_attr: [E] and [E, edge_dim], for layers that take them
        batch, batch_size: [N] the graph of each node, and their number, for norms that ask
        num_sampled_nodes_per_hop, num_sampled_edges_per_hop: of a batch of sampled neighbours: each layer leaves out
                           the nodes and edges that the results do not depend on any more

        Raises NotImplementedError for sampled neighbours with both weights and features of edges, and ValueError
        where the number of nodes or of edges is missing, or the graph is none of edges [2, E].
        """
        if must_meet(self, edge_index):
            others = {"edge_weight": edge_weight, "edge_attr": edge_attr, "batch_size": batch_size}
            with meeting(self, edge_index, x, batch, **others):  # norms take the nodes of all processes
                return self.forward(x, edge_index, edge_weight, edge_attr, batch, batch_size)
        # Instances are asked for, since tracers pass something that is never None.
        trimmed = num_sampled_nodes_per_hop is not None
        if trimmed and isinstance(edge_weight, Tensor) and isinstance(edge_attr, Tensor):
            raise NotImplementedError(
                "'trim_to_layer' functionality does not yet support trimming of both 'edge_weight' and 'edge_attr'"
            )
        hops = num_sampled_nodes_per_hop, num_sampled_edges_per_hop
        xs = []
        for k, conv in enumerate(self.convs):
            if trimmed and edge_weight is not None:
                x, edge_index, edge_weight = self._trim(k, *hops, x, edge_index, edge_weight)
            elif trimmed:
                x, edge_index, edge_attr = self._trim(k, *hops, x, edge_index, edge_attr)
            given: dict[str, Tensor | None] = {}
            if self.supports_edge_weight:
                given["edge_weight"] = edge_weight
            if self.supports_edge_attr:
                given["edge_attr"] = edge_attr
            x = conv(x, edge_index, **given)
            if k < self.num_layers - 1 or self.jk_mode is not None:
                x = self.dropout(self._normed(k, x, batch, batch_size))
                xs.append(x)
        x = self.jk(xs) if hasattr(self, "jk") else x
        return self.lin(x) if hasattr(self, "lin") else x

    def _normed(self, k: int, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        norm = self.norms[k]
        x = self.act(x) if self.act is not None and self.act_first else x
        x = norm(x, batch, batch_size) if self.supports_norm_batch else norm(x)
        return self.act(x) if self.act is not None and not self.act_first else x

    @torch.no_grad()
    def inference_per_layer(self, layer: int, x: Tensor, edge_index: Adjacency, batch_size: int) -> Tensor:
        """One layer for the first ``batch_size`` nodes."""
        x = self.convs[layer](x, edge_index)[:batch_size]
        last = layer == self.num_layers - 1
        if last and self.jk_mode is None:
            return x
        x = self._normed(layer, x)
        return self.lin(x) if last and hasattr(self, "lin") else x

    @torch.no_grad()
    def inference(
        self,
        loader: Iterable[Any],
        device: Any = None,
        embedding_device: Any = "cpu",
        progress_bar: bool = False,
        cache: bool = False,
    ) -> Tensor:
        """All nodes layer by layer, so that none is computed twice: [N, out_channels], where ``jk`` is None or "last".

        loader:           batches of the nodes in order with all neighbours of one hop, as
                          ``NeighborLoader(data, [-1])`` makes them: ``n_id``, ``edge_index`` and ``batch_size``; and
                          the features, ``loader.data.x``
        device:           where the layers run
        embedding_device: where the features between them are
        progress_bar:     whether to show one, by the package tqdm
        cache:            whether to keep the batches of the first layer for the others

        Raises AssertionError in training, and for another ``jk``.
        """
        assert self.jk_mode in (None, "last"), f"layer by layer there is no jk='{self.jk_mode}'"
        assert not self.training, "a model infers in evaluation mode: call `eval()` first"
        data: Any = loader.data  # type: ignore[attr-defined]
        known = data.x.to(embedding_device)
        batches: Any = list(loader) if cache else loader
        bar = _progress(self.num_layers * len(batches)) if progress_bar else None
        for k in range(self.num_layers):
            found = []
            for batch in batches:
                graph = (batch.adj_t if hasattr(batch, "adj_t") else batch.edge_index).to(device)
                x = self.inference_per_layer(k, known[batch.n_id.to(known.device)].to(device), graph, batch.batch_size)
                found.append(x.to(embedding_device))
                if bar is not None:
                    bar.update(1)
            known = torch.cat(found)
        if bar is not None:
            bar.close()
        return known

    __repr__ = words("{self.in_channels}, {self.out_channels}, num_layers={self.num_layers}")


def _perceptron(model: BasicGNN, in_channels: int, out_channels: int) -> MLP:
    """Two layers with the model's function and norm."""
    return MLP(
        [in_channels, out_channels, out_channels],
        act=model.act,
        act_first=model.act_first,
        norm=model.norm,
        norm_kwargs=model.norm_kwargs,
    )


class _Trim(nn.Module):
    """What layers of sampled neighbours need not compute. A module, so that a tracer takes it as a whole."""

    def forward(
        self,
        layer: int,
        nodes: list[int] | None,
        edges: list[int] | None,
        x: Any,
        edge_index: Adjacency,
        value: Tensor | None = None,
    ) -> tuple[Any, Adjacency, Tensor | None]:
        """Features, edges and their values for a layer, counted from 0: without those of the last hops.

        Raises ValueError where the number of nodes or of edges is missing.
        """
        if isinstance(nodes, list) != isinstance(edges, list):
            missing = "edges" if isinstance(nodes, list) else "nodes"
            raise ValueError(f"'num_sampled_{missing}_per_hop' needs to be given")
        if layer == 0 or nodes is None or edges is None:
            return x, edge_index, value
        x = x[: len(x) - nodes[-layer]]
        value = None if value is None else value[: len(value) - edges[-layer]]
        return x, _without_last(edge_index, edges[-layer], len(x)), value


def _without_last(edge_index: Adjacency, count: int, nodes: int) -> Any:
    """A graph without the last edges, on the first nodes. Raises ValueError for one that is no edges."""
    edge_index = edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index  # an EdgeIndex has a size
    if isinstance(edge_index, Graph):
        return Graph(edge_index.edge_index[:, : edge_index.num_edges - count], nodes)
    if not isinstance(edge_index, Tensor) or edge_index.layout is not torch.strided:
        raise ValueError(f"Unsupported 'edge_index' type '{type(edge_index)}': sampled neighbours come as edges [2, E]")
    return edge_index[:, : edge_index.size(1) - count]


def _progress(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="Inference")


class GCN(BasicGNN):
    """Layers :class:`GCNConv`. Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
    ICLR 2017. Arguments as in :class:`BasicGNN`.
    """

    supports_edge_weight = True

    def init_conv(self, in_channels: int, out_channels: int, **kwargs: Any) -> nn.Module:
        """A :class:`GCNConv`."""
        return GCNConv(in_channels, out_channels, **kwargs)


class GraphSAGE(BasicGNN):
    """Layers :class:`SAGEConv`. Hamilton et al., "Inductive Representation Learning on Large Graphs", NeurIPS 2017.
    Arguments as in :class:`BasicGNN`.
    """

    def init_conv(self, in_channels: Channels, out_channels: int, **kwargs: Any) -> nn.Module:
        """A :class:`SAGEConv`."""
        return SAGEConv(in_channels, out_channels, **kwargs)


class GIN(BasicGNN):
    """Layers :class:`GINConv` with perceptrons of two layers. Xu et al., "How Powerful are Graph Neural Networks?",
    ICLR 2019. Arguments as in :class:`BasicGNN`; the perceptrons have its function and norm, too.
    """

    def init_conv(self, in_channels: int, out_channels: int, **kwargs: Any) -> nn.Module:
        """A :class:`GINConv`."""
        return GINConv(_perceptron(self, in_channels, out_channels), **kwargs)


class EdgeCNN(BasicGNN):
    """Layers :class:`EdgeConv` with perceptrons of two layers. Wang et al., "Dynamic Graph CNN for Learning on Point
    Clouds", TOG 2019. Arguments as in :class:`BasicGNN`; the perceptrons have its function and norm, too.
    """

    def init_conv(self, in_channels: int, out_channels: int, **kwargs: Any) -> nn.Module:
        """An :class:`EdgeConv`."""
        return EdgeConv(_perceptron(self, 2 * in_channels, out_channels), **kwargs)


class GAT(BasicGNN):
    """Layers :class:`GATConv`, or :class:`GATv2Conv`. Velickovic et al., "Graph Attention Networks", ICLR 2018, and
    Brody et al., "How Attentive are Graph Attention Networks?", ICLR 2022.

    v2: whether the layers are :class:`GATv2Conv`
    Other arguments as in :class:`BasicGNN`. Heads are joined, and share the size of the features, but in a last layer
    of ``out_channels``, which has their mean.

    Raises ValueError for a size that the heads do not divide.
    """

    supports_edge_attr = True

    def init_conv(
        self,
        in_channels: Channels,
        out_channels: int,
        v2: bool = False,
        heads: int = 1,
        concat: bool = True,
        **kwargs: Any,
    ) -> nn.Module:
        """A :class:`GATConv` or :class:`GATv2Conv`."""
        concat = concat and not self.ends_in_conv
        if concat and out_channels % heads:
            raise ValueError(
                f"Ensure that the number of output channels of 'GATConv' (got '{out_channels}') is divisible by the "
                f"number of heads (got '{heads}')"
            )
        size = out_channels // heads if concat else out_channels
        kind = GATv2Conv if v2 else GATConv
        return kind(in_channels, size, heads=heads, concat=concat, dropout=self.dropout.p, **kwargs)


class PNA(BasicGNN):
    """Layers :class:`PNAConv`. Corso et al., "Principal Neighbourhood Aggregation for Graph Nets", NeurIPS 2020.
    Arguments as in :class:`BasicGNN`.
    """

    supports_edge_attr = True

    def init_conv(self, in_channels: int, out_channels: int, **kwargs: Any) -> nn.Module:
        """A :class:`PNAConv`."""
        return PNAConv(in_channels, out_channels, **kwargs)
