"""Filters of the graph's spectrum: powers and polynomials of a normalised adjacency."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.module.repeated import repeatable
from gdsl.nn.conv.inputs import Adjacency, like_features, real_features, strided
from gdsl.nn.conv.programmed import InitVar, Weighted
from gdsl.nn.linear import Linear
from gdsl.runtime.graph import Graph
from gdsl.runtime.local import added_by_owners, read_by_edges
from gdsl.runtime.together import has_others, largest_of, together


class _Smoothed(Weighted):
    """A linear map of smoothed features, which may be kept."""

    def reset_parameters(self) -> None:
        """Draw the parameters anew, and forget the cached features."""
        super().reset_parameters()
        self._cached_x: Tensor | None = None

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels] and weights [E] to [N, out_channels]."""
        if self._cached_x is not None:
            return self.lin(self._cached_x.detach())
        graph, weight = self.weighted(x, edge_index, edge_weight, loops=float(self.add_self_loops), normed=True)
        y: Tensor = self._compute(graph, {"x": x, "w": weight}, linear=not self.cached)
        if not self.cached:
            return y
        self._cached_x = y
        return self.lin(y)


class SGConv(_Smoothed, program="sgc", shows="K"):
    """(D^-1/2 (A + I) D^-1/2)^K X W + b. Wu et al., "Simplifying Graph Convolutional Networks", ICML 2019, equation 8.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    K:              number of hops
    cached:         keep the smoothed features of the first call for all others
    add_self_loops: whether to add them
    bias:           whether to add one
    **kwargs:       of :class:`Conv`
    """

    in_channels: int
    out_channels: int
    K: int = 1
    cached: bool = False
    add_self_loops: bool = True
    bias: InitVar[bool] = True


class SSGConv(_Smoothed, program="ssgc", shows="K alpha"):
    """The mean of the hops, with a part of the input. Zhu and Koniusz, ICLR 2021, equation 8.

    alpha: the part of the input
    Other arguments as in :class:`SGConv`.
    """

    in_channels: int
    out_channels: int
    alpha: float
    K: int = 1
    cached: bool = False
    add_self_loops: bool = True
    bias: InitVar[bool] = True

    @property
    def _cached_h(self) -> Tensor | None:
        """What torch_geometric calls the features that are kept."""
        return self._cached_x

    @_cached_h.setter
    def _cached_h(self, value: Tensor | None) -> None:
        self._cached_x = value


class TAGConv(Weighted, program="tag", shows="K"):
    """sum_k (D^-1/2 A D^-1/2)^k X W_k + b. Du et al., 2017, equation 4.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    K:         number of hops
    bias:      whether to add one
    normalize: whether to divide by the degrees
    **kwargs:  of :class:`Conv`
    """

    in_channels: int
    out_channels: int
    K: int = 3
    bias: InitVar[bool] = True
    normalize: bool = True


class _Real(Weighted):
    """A layer that is linear in each feature by itself."""

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, channels] and weights [E] to [N, channels]."""
        real = real_features(x)
        graph, weight = self._weights(real, edge_index, edge_weight)
        return like_features(self._compute(graph, {"x": real, "w": weight}), x)


class APPNP(_Real, program="appnp", shows="K alpha"):
    """K steps of personalised PageRank from the features. Gasteiger et al., ICLR 2019, equation 4.

    K:              number of steps
    alpha:          probability of a restart
    dropout:        of edges, in training
    cached:         keep the graph and weights of the first call for all others
    add_self_loops: whether to add them
    normalize:      whether to divide by the degrees
    **kwargs:       of :class:`Conv`
    """

    K: int
    alpha: float
    dropout: float = 0.0
    cached: bool = False
    add_self_loops: bool = True
    normalize: bool = True


class LGConv(_Real, program="lgc"):
    """D^-1/2 A D^-1/2 X. He et al., "LightGCN", SIGIR 2020, equation 3.

    normalize: whether to divide by the degrees
    **kwargs:  of :class:`Conv`

    Whole numbers and truth values that nothing is multiplied with are summed as such, as torch sums them.
    """

    normalize: bool = True

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, channels] and weights [E] to [N, channels]."""
        whole = isinstance(x, Tensor) and not (self.normalize or x.is_floating_point() or x.is_complex())
        if whole and not (self._watched and self._is_watched()):
            graph, values = self.square(x, edge_index)
            if values is None and edge_weight is None:
                source, target = graph.local_edge_index
                messages = read_by_edges(graph, strided(x)).index_select(self.node_dim, source)
                return self.aggr_module(messages, target, dim_size=graph.num_targets, dim=self.node_dim)
        return super().forward(x, edge_index, edge_weight)


class ChebConv(Weighted, program="cheb"):
    """A Chebyshev polynomial of the scaled Laplacian. Defferrard et al., NeurIPS 2016, equations 4 and 5.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    K:             number of terms, at least 1
    normalization: of the Laplacian: "sym", "rw" or None
    bias:          whether to add one
    **kwargs:      of :class:`Conv`

    Raises AssertionError for a K or a normalisation that there is not. The largest eigenvalue, which is a number of the
    whole graph, is found in torch.
    """

    in_channels: int
    out_channels: int
    K: InitVar[int]
    normalization: str | None = "sym"
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        assert self.K > 0, f"'K' must be above 0, and it is {self.K}"
        assert self.normalization in (None, "sym", "rw"), "Invalid normalization"

    def forward(
        self,
        x: Tensor,
        edge_index: Adjacency,
        edge_weight: Tensor | None = None,
        batch: Tensor | None = None,
        lambda_max: Tensor | float | None = None,
    ) -> Tensor:
        """[N, in_channels] and weights [E] to [N, out_channels].

        batch:      [N] the graph of each node
        lambda_max: the largest eigenvalue, or those of the graphs of a batch; by default twice the largest entry
        """
        x = strided(x)
        graph, weight = self.weighted(x, edge_index, edge_weight)
        nodes = graph.num_targets
        if lambda_max is None:
            lambda_max = 2.0 * self._largest(graph, weight, nodes, x)
        scale = 2.0 / torch.as_tensor(lambda_max, dtype=x.dtype, device=x.device)
        scale = scale.masked_fill(scale == math.inf, 0.0)
        scale = scale[batch] if batch is not None and scale.numel() > 1 else scale.reshape(1).expand(nodes)
        inputs = {"x": x, "scale": scale.contiguous(), "w": weight}
        return self._compute(graph, inputs, K=len(self.lins), reversed=self.flow == "target_to_source")

    def _largest(self, graph: Graph, weight: Tensor | None, nodes: int, x: Tensor) -> Tensor:
        """The largest entry of the Laplacian, with its gradient."""
        source, target = graph.local_edge_index
        kept = (source != target).nonzero().squeeze(1)
        source, target = source[kept], target[kept]
        values = x.new_ones(len(kept)) if weight is None else weight[kept]
        first = target if self.flow == "target_to_source" else source
        degree = added_by_owners(graph, values.new_zeros(graph.num_readable).index_add(0, first, values))
        if self.normalization is None:
            entries, diagonal = values, degree
        else:
            power = -0.5 if self.normalization == "sym" else -1.0
            inverse = degree.pow(power).masked_fill(degree == 0, 0.0)
            of_rows = read_by_edges(graph, inverse, turned=True)
            entries, diagonal = values * of_rows[first], values.new_ones(nodes)
            if self.normalization == "sym":
                entries = entries * of_rows[source if first is target else target]
        every = torch.cat([-entries, diagonal])
        if has_others(graph):
            with together(graph):
                return largest_of(every)
        return largest_of(every)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, K={len(self.lins)}, "
            f"normalization={self.normalization})"
        )


class ARMAConv(Weighted, program="arma", shows="num_stacks num_layers"):
    """Stacks of recursive filters side by side, averaged. Bianchi et al., 2019, equations 9 and 10.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    num_stacks:     number of filters side by side
    num_layers:     steps of each
    shared_weights: whether the steps have the same weights
    act:            the function between the steps: a module, a function, or None
    dropout:        of the skip connection, in training
    bias:           whether to add one
    **kwargs:       of :class:`Conv`
    """

    in_channels: int
    out_channels: int
    num_stacks: int = 1
    num_layers: int = 1
    shared_weights: bool = False
    act: Callable[[Tensor], Tensor] | None = nn.ReLU()
    dropout: float = 0.0
    bias: InitVar[bool] = True


class ClusterGCNConv(Weighted, program="cluster_gcn", shows="diag_lambda"):
    """(A' + lambda diag(A')) X W_1 + X W_2 with A' = (D + I)^-1 (A + I). Chiang et al., KDD 2019, equation 11.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    diag_lambda:    how much the diagonal is raised
    add_self_loops: whether to add them
    bias:           whether to add one
    **kwargs:       of :class:`Conv`
    """

    in_channels: int
    out_channels: int
    diag_lambda: float = 0.0
    add_self_loops: bool = True
    bias: InitVar[bool] = True

    def forward(self, x: Tensor, edge_index: Adjacency) -> Tensor:  # type: ignore[override]
        """[N, in_channels] to [N, out_channels]."""
        graph, _ = self.square(x, edge_index)
        source, target = graph.local_edge_index
        return self._compute(graph, {"x": x, "loop": (source == target).to(x.dtype)})


class GCN2Conv(Weighted, program="gcn2", shows="alpha beta", tells="beta"):
    """A GCN step with a part of the first features and of the identity. Chen et al., ICML 2020, equation 5.

    channels:       size of inputs and outputs
    alpha:          the part of the first features
    theta, layer:   the part of the weight is log(theta / layer + 1); 1 without them
    shared_weights: whether both parts have one weight
    cached:         keep the graph and weights of the first call for all others
    add_self_loops: whether to add them
    normalize:      whether to divide by the degrees
    **kwargs:       of :class:`Conv`

    Raises AssertionError for one of ``theta`` and ``layer`` alone.
    """

    channels: int
    alpha: float
    theta: InitVar[float | None] = None
    layer: InitVar[int | None] = None
    shared_weights: InitVar[bool] = True
    cached: bool = False
    add_self_loops: bool = True
    normalize: bool = True

    def _setup(self) -> None:
        self.beta = 1.0
        if self.theta is not None or self.layer is not None:
            assert self.theta is not None and self.layer is not None, "'theta' and 'layer' need each other"
            self.beta = math.log(self.theta / self.layer + 1)

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"weight2": not given.get("shared_weights", True)}

    def forward(  # type: ignore[override]
        self, x: Tensor, x_0: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None
    ) -> Tensor:
        """[N, channels], first features [N, channels] and weights [E] to [N, channels]."""
        graph, weight = self._weights(x, edge_index, edge_weight)
        return self._compute(graph, {"x": x, "x_0": x_0[: x.size(0)], "w": weight})


class MixHopConv(Weighted, program="mixhop", shows="powers"):
    """(D^-1/2 (A + I) D^-1/2)^p X W_p for several powers, joined. Abu-El-Haija et al., ICML 2019, equation 2.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    powers:         the powers; 0, 1 and 2 by default
    add_self_loops: whether to add them
    bias:           whether to add one
    **kwargs:       of :class:`Conv`
    """

    in_channels: int
    out_channels: int
    powers: list[int] | None = None
    add_self_loops: bool = True
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        powers = self.powers = [0, 1, 2] if self.powers is None else self.powers
        self.lins = nn.ModuleList(
            [
                Linear(self.in_channels, self.out_channels, bias=False) if p in powers else nn.Identity()
                for p in range(max(powers) + 1)
            ]
        )

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"count": len(given["powers"])}

    @repeatable
    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels] and weights [E] to [N, len(powers) * out_channels]."""
        assert self.powers is not None
        graph, weight = self._weights(x, edge_index, edge_weight)
        rising = sorted(set(self.powers))
        plain = rising == self.powers
        y: Tensor = self._compute(
            graph,
            {"x": x, "w": weight},
            powers=sum(2**p for p in rising),
            highest=rising[-1],
            count=len(rising),
            bias=plain and self.bias is not None,
        )
        if plain:
            return y
        # The program joins rising powers; another order, or a power that comes twice, is a matter of places.
        parts = y.split(self.out_channels, dim=-1)
        y = torch.cat([parts[rising.index(p)] for p in self.powers], dim=-1)
        return y if self.bias is None else y + self.bias
