"""Filters of the graph's spectrum: powers and polynomials of a normalised adjacency."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gdsl.nn.conv.base import Adjacency, Conv, as_module, like_features, parameter, real_features, see, strided
from gdsl.nn.inits import glorot, zeros
from gdsl.nn.linear import Linear
from gdsl.runtime.graph import Graph


class SGConv(Conv):
    """(D^-1/2 (A + I) D^-1/2)^K X W + b. Wu et al., "Simplifying Graph Convolutional Networks", ICML 2019, equation 8.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    K:              number of hops
    cached:         keep the smoothed features of the first call for all others
    add_self_loops: whether to add them
    bias:           whether to add one
    **kwargs:       of :class:`Conv`
    """

    program_name = "sgc"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int = 1,
        cached: bool = False,
        add_self_loops: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.K = K
        self.cached = cached
        self.add_self_loops = add_self_loops
        self.lin = Linear(in_channels, out_channels, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, and forget the cached features."""
        super().reset_parameters()
        self.lin.reset_parameters()
        self._cached_x: Tensor | None = None

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels] and weights [E] to [N, out_channels]."""
        if self._cached_x is not None:
            return self.lin(self._cached_x.detach())
        see((self.lin, x))
        graph, weight = self.weighted(x, edge_index, edge_weight, loops=float(self.add_self_loops))
        y: Tensor = self.run(graph, {"x": x, "w": weight}, **self._arguments(), linear=not self.cached)
        if not self.cached:
            return y
        self._cached_x = y
        return self.lin(y)

    def _arguments(self) -> dict[str, Any]:
        return {"out_channels": self.out_channels, "K": self.K, "add_self_loops": self.add_self_loops}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, K={self.K})"


class SSGConv(SGConv):
    """The mean of the hops, with a part of the input. Zhu and Koniusz, ICLR 2021, equation 8.

    alpha: the part of the input
    Other arguments as in :class:`SGConv`.
    """

    program_name = "ssgc"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        alpha: float,
        K: int = 1,
        cached: bool = False,
        add_self_loops: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(in_channels, out_channels, K, cached, add_self_loops, bias, **kwargs)
        self.alpha = alpha

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "alpha": self.alpha}

    @property
    def _cached_h(self) -> Tensor | None:
        """What torch_geometric calls the features that are kept."""
        return self._cached_x

    @_cached_h.setter
    def _cached_h(self, value: Tensor | None) -> None:
        self._cached_x = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, K={self.K}, alpha={self.alpha})"


class TAGConv(Conv):
    """sum_k (D^-1/2 A D^-1/2)^k X W_k + b. Du et al., 2017, equation 4.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    K:         number of hops
    bias:      whether to add one
    normalize: whether to divide by the degrees
    **kwargs:  of :class:`Conv`
    """

    program_name = "tag"

    def __init__(
        self, in_channels: int, out_channels: int, K: int = 3, bias: bool = True, normalize: bool = True, **kwargs: Any
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.K = K
        self.normalize = normalize
        self.lins = nn.ModuleList([Linear(in_channels, out_channels, bias=False) for _ in range(K + 1)])
        self.bias = parameter(out_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for lin in self.lins:
            lin.reset_parameters()  # type: ignore[operator]
        zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels] and weights [E] to [N, out_channels]."""
        see_all(self.lins, x)
        graph, weight = self.weighted(x, edge_index, edge_weight)
        y: Tensor = self.run(
            graph,
            {"x": x, "w": weight},
            out_channels=self.out_channels,
            K=self.K,
            normalize=self.normalize,
            with_bias=self.bias is not None,
        )
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, K={self.K})"


def see_all(lins: nn.Module, x: Tensor) -> None:
    """Lazy sizes of the linear maps among some modules."""
    for lin in lins.children():
        if isinstance(lin, Linear):
            see((lin, x))


class APPNP(Conv):
    """K steps of personalised PageRank from the features. Gasteiger et al., ICLR 2019, equation 4.

    K:              number of steps
    alpha:          probability of a restart
    dropout:        of edges, in training
    cached:         keep the graph and weights of the first call for all others
    add_self_loops: whether to add them
    normalize:      whether to divide by the degrees
    **kwargs:       of :class:`Conv`
    """

    program_name = "appnp"

    def __init__(
        self,
        K: int,
        alpha: float,
        dropout: float = 0.0,
        cached: bool = False,
        add_self_loops: bool = True,
        normalize: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.K = K
        self.alpha = alpha
        self.dropout = dropout
        self.cached = cached
        self.add_self_loops = add_self_loops
        self.normalize = normalize

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, channels] and weights [E] to [N, channels]."""
        loops = self.normalize and self.add_self_loops
        keep = self.cached and self.normalize
        real = real_features(x)
        graph, weight = self.weighted(real, edge_index, edge_weight, keep=keep, loops=float(loops))
        y: Tensor = self.run(
            graph,
            {"x": real, "w": weight},
            K=self.K,
            alpha=float(self.alpha),
            p=float(self.dropout),
            add_self_loops=loops,
            normalize=self.normalize,
        )
        return like_features(y, x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(K={self.K}, alpha={self.alpha})"


class LGConv(Conv):
    """D^-1/2 A D^-1/2 X. He et al., "LightGCN", SIGIR 2020, equation 3.

    normalize: whether to divide by the degrees
    **kwargs:  of :class:`Conv`
    """

    program_name = "lgc"

    def __init__(self, normalize: bool = True, **kwargs: Any):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.normalize = normalize

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, channels] and weights [E] to [N, channels]."""
        real = real_features(x)
        graph, weight = self.weighted(real, edge_index, edge_weight)
        y: Tensor = self.run(graph, {"x": real, "w": weight}, normalize=self.normalize)
        return like_features(y, x)


class ChebConv(Conv):
    """A Chebyshev polynomial of the scaled Laplacian. Defferrard et al., NeurIPS 2016, equations 4 and 5.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    K:             number of terms, at least 1
    normalization: of the Laplacian: "sym", "rw" or None
    bias:          whether to add one
    **kwargs:      of :class:`Conv`

    Raises AssertionError for a K or a normalisation that there is not. The largest eigenvalue, which is a number of the
    whole graph, is found in torch.
    """

    program_name = "cheb"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int,
        normalization: str | None = "sym",
        bias: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        assert K > 0, f"'K' must be above 0, and it is {K}"
        assert normalization in (None, "sym", "rw"), "Invalid normalization"
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.normalization = normalization
        self.lins = nn.ModuleList(
            [Linear(in_channels, out_channels, bias=False, weight_initializer="glorot") for _ in range(K)]
        )
        self.bias = parameter(out_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for lin in self.lins:
            lin.reset_parameters()  # type: ignore[operator]
        zeros(self.bias)

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
        see_all(self.lins, x)
        graph, weight = self.weighted(x, edge_index, edge_weight)
        nodes = graph.num_targets
        if lambda_max is None:
            lambda_max = 2.0 * self._largest(graph, weight, nodes, x)
        scale = 2.0 / torch.as_tensor(lambda_max, dtype=x.dtype, device=x.device)
        scale = scale.masked_fill(scale == math.inf, 0.0)
        scale = scale[batch] if batch is not None and scale.numel() > 1 else scale.reshape(1).expand(nodes)
        y: Tensor = self.run(
            graph,
            {"x": x, "scale": scale.contiguous(), "w": weight},
            out_channels=self.out_channels,
            K=len(self.lins),
            normalization=self.normalization,
            reversed=self.flow == "target_to_source",
            with_bias=self.bias is not None,
        )
        return y

    def _largest(self, graph: Graph, weight: Tensor | None, nodes: int, x: Tensor) -> Tensor:
        """The largest entry of the Laplacian, with its gradient."""
        source, target = graph.edge_index
        kept = (source != target).nonzero().squeeze(1)
        source, target = source[kept], target[kept]
        values = x.new_ones(len(kept)) if weight is None else weight[kept]
        first = target if self.flow == "target_to_source" else source
        degree = x.new_zeros(nodes).index_add(0, first, values)
        if self.normalization is None:
            entries, diagonal = values, degree
        else:
            power = -0.5 if self.normalization == "sym" else -1.0
            inverse = degree.pow(power).masked_fill(degree == 0, 0.0)
            entries, diagonal = values * inverse[first], x.new_ones(nodes)
            if self.normalization == "sym":
                entries = entries * inverse[source if first is target else target]
        return torch.cat([-entries, diagonal]).max()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, K={len(self.lins)}, "
            f"normalization={self.normalization})"
        )


class ARMAConv(Conv):
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

    program_name = "arma"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_stacks: int = 1,
        num_layers: int = 1,
        shared_weights: bool = False,
        act: Callable[[Tensor], Tensor] | None = nn.ReLU(),  # noqa: B008
        dropout: float = 0.0,
        bias: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_stacks = num_stacks
        self.num_layers = num_layers
        self.act = None if act is None else as_module(act)
        self.shared_weights = shared_weights
        self.dropout = dropout
        steps = 1 if shared_weights else num_layers
        self.weight = parameter(max(1, steps - 1), num_stacks, out_channels, out_channels)
        if in_channels > 0:
            self.init_weight: Any = parameter(num_stacks, in_channels, out_channels)
            self.root_weight: Any = parameter(steps, num_stacks, in_channels, out_channels)
        else:
            self.init_weight, self.root_weight = UninitializedParameter(), UninitializedParameter()
        self.bias = parameter(steps, num_stacks, 1, out_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        glorot(self.weight)
        if not isinstance(self.init_weight, UninitializedParameter):
            glorot(self.init_weight)
            glorot(self.root_weight)
        zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels] and weights [E] to [N, out_channels]."""
        if isinstance(self.init_weight, UninitializedParameter):
            steps = 1 if self.shared_weights else self.num_layers
            self.init_weight.materialize((self.num_stacks, x.shape[-1], self.out_channels))
            self.root_weight.materialize((steps, self.num_stacks, x.shape[-1], self.out_channels))
            glorot(self.init_weight)
            glorot(self.root_weight)
        graph, weight = self.weighted(x, edge_index, edge_weight)
        y: Tensor = self.run(
            graph,
            {"x": x, "w": weight},
            in_channels=self.init_weight.shape[1],
            out_channels=self.out_channels,
            num_stacks=self.num_stacks,
            num_layers=self.num_layers,
            shared=self.shared_weights,
            p=float(self.dropout),
            with_bias=self.bias is not None,
        )
        return y

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, num_stacks={self.num_stacks}, "
            f"num_layers={self.num_layers})"
        )


class ClusterGCNConv(Conv):
    """(A' + lambda diag(A')) X W_1 + X W_2 with A' = (D + I)^-1 (A + I). Chiang et al., KDD 2019, equation 11.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    diag_lambda:    how much the diagonal is raised
    add_self_loops: whether to add them
    bias:           whether to add one
    **kwargs:       of :class:`Conv`
    """

    program_name = "cluster_gcn"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        diag_lambda: float = 0.0,
        add_self_loops: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.diag_lambda = diag_lambda
        self.add_self_loops = add_self_loops
        self.lin_out = Linear(in_channels, out_channels, bias=bias, weight_initializer="glorot")
        self.lin_root = Linear(in_channels, out_channels, bias=False, weight_initializer="glorot")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        self.lin_out.reset_parameters()
        self.lin_root.reset_parameters()

    def forward(self, x: Tensor, edge_index: Adjacency) -> Tensor:
        """[N, in_channels] to [N, out_channels]."""
        see((self.lin_out, x))
        see((self.lin_root, x))
        graph, _ = self.square(x, edge_index)
        source, target = graph.edge_index
        y: Tensor = self.run(
            graph,
            {"x": x, "loop": (source == target).to(x.dtype)},
            out_channels=self.out_channels,
            diag_lambda=float(self.diag_lambda),
            add_self_loops=self.add_self_loops,
        )
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, diag_lambda={self.diag_lambda})"


class GCN2Conv(Conv):
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

    program_name = "gcn2"

    def __init__(
        self,
        channels: int,
        alpha: float,
        theta: float | None = None,
        layer: int | None = None,
        shared_weights: bool = True,
        cached: bool = False,
        add_self_loops: bool = True,
        normalize: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.channels = channels
        self.alpha = alpha
        self.beta = 1.0
        if theta is not None or layer is not None:
            assert theta is not None and layer is not None, "'theta' and 'layer' need each other"
            self.beta = math.log(theta / layer + 1)
        self.cached = cached
        self.normalize = normalize
        self.add_self_loops = add_self_loops
        self.weight1 = parameter(channels, channels)
        self.weight2 = None if shared_weights else parameter(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        glorot(self.weight1)
        glorot(self.weight2)

    def forward(self, x: Tensor, x_0: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, channels], first features [N, channels] and weights [E] to [N, channels]."""
        loops = self.normalize and self.add_self_loops
        keep = self.cached and self.normalize
        graph, weight = self.weighted(x, edge_index, edge_weight, keep=keep, loops=float(loops))
        y: Tensor = self.run(
            graph,
            {"x": x, "x_0": x_0[: x.size(0)], "w": weight},
            channels=self.channels,
            alpha=float(self.alpha),
            beta=float(self.beta),
            shared=self.weight2 is None,
            add_self_loops=loops,
            normalize=self.normalize,
        )
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, alpha={self.alpha}, beta={self.beta})"


class MixHopConv(Conv):
    """(D^-1/2 (A + I) D^-1/2)^p X W_p for several powers, joined. Abu-El-Haija et al., ICML 2019, equation 2.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    powers:         the powers; 0, 1 and 2 by default
    add_self_loops: whether to add them
    bias:           whether to add one
    **kwargs:       of :class:`Conv`
    """

    program_name = "mixhop"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        powers: list[int] | None = None,
        add_self_loops: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.powers = [0, 1, 2] if powers is None else powers
        self.add_self_loops = add_self_loops
        self.lins = nn.ModuleList(
            [
                Linear(in_channels, out_channels, bias=False) if p in self.powers else nn.Identity()
                for p in range(max(self.powers) + 1)
            ]
        )
        self.bias = parameter(len(self.powers) * out_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for lin in self.lins:
            if isinstance(lin, Linear):
                lin.reset_parameters()
        zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels] and weights [E] to [N, len(powers) * out_channels]."""
        see_all(self.lins, x)
        graph, weight = self.weighted(x, edge_index, edge_weight, loops=float(self.add_self_loops))
        rising = sorted(set(self.powers))
        plain = rising == self.powers
        y: Tensor = self.run(
            graph,
            {"x": x, "w": weight},
            out_channels=self.out_channels,
            powers=sum(2**p for p in rising),
            highest=rising[-1],
            count=len(rising),
            add_self_loops=self.add_self_loops,
            with_bias=plain and self.bias is not None,
        )
        if plain:
            return y
        # The program joins rising powers; another order, or a power that comes twice, is a matter of places.
        parts = y.split(self.out_channels, dim=-1)
        y = torch.cat([parts[rising.index(p)] for p in self.powers], dim=-1)
        return y if self.bias is None else y + self.bias

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, powers={self.powers})"
