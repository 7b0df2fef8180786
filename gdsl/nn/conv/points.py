"""Layers on points in space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gdsl.nn.conv.base import (
    Adjacency,
    Channels,
    Conv,
    Features,
    Size,
    as_module,
    edge_features,
    pair_of,
    parameter,
    see,
)
from gdsl.nn.inits import glorot, reset, uniform, zeros
from gdsl.nn.linear import Linear
from gdsl.nn.neighbors import knn

Points = Tensor | tuple[Tensor, Tensor]


class PointNetConv(Conv):
    """gamma(max_j h([x_j, p_j - p_i])). Qi et al., "PointNet++", NeurIPS 2017, section 3.2.

    local_nn:       h, a module on the edges, or None
    global_nn:      gamma, a module on the nodes, or None
    add_self_loops: whether to add them
    **kwargs:       of :class:`Conv`
    """

    program_name = "pointnet"

    def __init__(
        self,
        local_nn: nn.Module | None = None,
        global_nn: nn.Module | None = None,
        add_self_loops: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "max")
        super().__init__(**kwargs)
        self.local_nn = None if local_nn is None else as_module(local_nn)
        self.global_nn = None if global_nn is None else as_module(global_nn)
        self.add_self_loops = add_self_loops
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the networks' parameters anew."""
        super().reset_parameters()
        reset(self.local_nn)
        reset(self.global_nn)

    def forward(self, x: Tensor | tuple[Tensor | None, Any] | None, pos: Points, edge_index: Adjacency) -> Tensor:
        """Features [N, channels] of the sources, or None, and positions [N, d], or a pair of them, to [M, out]."""
        features = x[0] if isinstance(x, tuple) else x
        p, q = (pos, pos) if isinstance(pos, Tensor) else pos
        graph, _ = self.graph(edge_index, self.rows(p), self.rows(q))
        y: Tensor = self.run(
            graph,
            {"p": p, "q": q, "x": features},
            bipartite=not isinstance(pos, Tensor),
            loops=self.add_self_loops,
        )
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}(local_nn={self.local_nn}, global_nn={self.global_nn})"


PointConv = PointNetConv  # torch_geometric's other name


class PPFConv(PointNetConv):
    """:class:`PointNetConv` on distances and angles, which no rotation changes. Deng et al., CVPR 2018, equation 1.

    Arguments as in :class:`PointNetConv`.
    """

    program_name = "ppf"

    def forward(  # type: ignore[override]
        self,
        x: Tensor | tuple[Tensor | None, Any] | None,
        pos: Points,
        normal: Points,
        edge_index: Adjacency,
    ) -> Tensor:
        """Features [N, channels] of the sources, or None, positions and normals [N, 3], or pairs, to [M, out]."""
        features = x[0] if isinstance(x, tuple) else x
        p, q = (pos, pos) if isinstance(pos, Tensor) else pos
        n, r = (normal, normal) if isinstance(normal, Tensor) else normal
        graph, _ = self.graph(edge_index, self.rows(p), self.rows(q))
        y: Tensor = self.run(
            graph,
            {"p": p, "q": q, "n": n, "r": r, "x": features},
            bipartite=not (isinstance(pos, Tensor) and isinstance(normal, Tensor)),
            loops=self.add_self_loops,
        )
        return y


class PointTransformerConv(Conv):
    """A softmax of vectors over the neighbours, with positions. Zhao et al., "Point Transformer", ICCV 2021.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    pos_nn:         a module, [E, d] to [E, out_channels]; a linear map from 3 dims by default
    attn_nn:        a module on the scores, [E, out_channels] to the same, or None
    add_self_loops: whether to add them
    **kwargs:       of :class:`Conv`
    """

    program_name = "point_transformer"

    def __init__(
        self,
        in_channels: Channels,
        out_channels: int,
        pos_nn: nn.Module | None = None,
        attn_nn: nn.Module | None = None,
        add_self_loops: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.add_self_loops = add_self_loops
        sources, targets = pair_of(in_channels)
        self.pos_nn = Linear(3, out_channels) if pos_nn is None else as_module(pos_nn)
        self.attn_nn = None if attn_nn is None else as_module(attn_nn)
        self.lin = Linear(sources, out_channels, bias=False)
        self.lin_src = Linear(sources, out_channels, bias=False)
        self.lin_dst = Linear(targets, out_channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for module in (self.pos_nn, self.attn_nn, self.lin, self.lin_src, self.lin_dst):
            reset(module)

    def forward(self, x: Features, pos: Points, edge_index: Adjacency) -> Tensor:
        """[N, in_channels] and positions [N, d], or pairs of them, to [M, out_channels]."""
        source, target = (x, x) if isinstance(x, Tensor) else x
        p, q = (pos, pos) if isinstance(pos, Tensor) else pos
        graph, _ = self.graph(edge_index, self.rows(source), self.rows(target))
        see((self.lin, source), (self.lin_src, source), (self.lin_dst, target))
        y: Tensor = self.run(
            graph,
            {"x": source, "z": target, "p": p, "q": q},
            out_channels=self.out_channels,
            bipartite=not (isinstance(x, Tensor) and isinstance(pos, Tensor)),
            loops=self.add_self_loops,
        )
        return y


class PointGNNConv(Conv):
    """x_i + g(max_j f([p_j - p_i + h(x_i), x_j])). Shi and Rajkumar, "Point-GNN", CVPR 2020, equation 5.

    mlp_h:    a module, [N, channels] to [N, d]: how far a point moves to look at the others
    mlp_f:    a module on the edges, [E, d + channels] to [E, hidden]
    mlp_g:    a module, [N, hidden] to [N, channels]
    **kwargs: of :class:`Conv`
    """

    program_name = "point_gnn"

    def __init__(self, mlp_h: nn.Module, mlp_f: nn.Module, mlp_g: nn.Module, **kwargs: Any):
        kwargs.setdefault("aggr", "max")
        super().__init__(**kwargs)
        self.mlp_h = mlp_h
        self.mlp_f = mlp_f
        self.mlp_g = mlp_g
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the networks' parameters anew."""
        super().reset_parameters()
        for module in (self.mlp_h, self.mlp_f, self.mlp_g):
            reset(module)

    def forward(self, x: Tensor, pos: Tensor, edge_index: Adjacency) -> Tensor:
        """[N, channels] and positions [N, d] to [N, channels]."""
        graph, _ = self.square(x, edge_index)
        y: Tensor = self.run(graph, {"x": x, "p": pos})
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}(\n  mlp_h={self.mlp_h},\n  mlp_f={self.mlp_f},\n  mlp_g={self.mlp_g},\n)"


class GMMConv(Conv):
    """Messages through weights that Gaussians of the edge's coordinates mix. Monti et al., CVPR 2017, equation 11.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    dim:                number of coordinates of an edge
    kernel_size:        number of Gaussians
    separate_gaussians: whether each pair of an input and an output feature has its own
    aggr:               how messages meet
    root_weight:        whether to add the target's own features
    bias:               whether to add one
    **kwargs:           of :class:`Conv`
    """

    program_name = "gmm"

    def __init__(
        self,
        in_channels: Channels,
        out_channels: int,
        dim: int,
        kernel_size: int,
        separate_gaussians: bool = False,
        aggr: Any = "mean",
        root_weight: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(aggr, **kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.dim = dim
        self.kernel_size = kernel_size
        self.separate_gaussians = separate_gaussians
        self.root_weight = root_weight
        sources, targets = pair_of(in_channels)
        self.rel_in_channels = sources
        self.g: Any = UninitializedParameter()
        self.mu: Any = UninitializedParameter()
        self.sigma: Any = UninitializedParameter()
        if sources > 0:
            for name, shape in self._shapes(sources).items():
                setattr(self, name, parameter(*shape))
        self.root = Linear(targets, out_channels, bias=False, weight_initializer="glorot") if root_weight else None
        self.bias = parameter(out_channels) if bias else None
        self.reset_parameters()

    def _shapes(self, sources: int) -> dict[str, tuple[int, ...]]:
        kernels: tuple[int, ...] = (self.kernel_size, self.dim)
        kernels = (sources, self.out_channels, *kernels) if self.separate_gaussians else kernels
        return {"g": (sources, self.out_channels * self.kernel_size), "mu": kernels, "sigma": kernels}

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        if not isinstance(self.g, UninitializedParameter):
            for value in (self.g, self.mu, self.sigma):
                glorot(value)
        reset(self.root)
        zeros(self.bias)

    def forward(self, x: Features, edge_index: Adjacency, edge_attr: Tensor | None = None, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), and [E, dim], to [N, out_channels]."""
        source, target = (x, x) if isinstance(x, Tensor) else x
        if isinstance(self.g, UninitializedParameter):
            for name, shape in self._shapes(source.shape[-1]).items():
                getattr(self, name).materialize(shape)
                glorot(getattr(self, name))
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target), size)
        see((self.root, target))
        y: Tensor = self.run(
            graph,
            {"x": source, "z": target, "e": edge_features(edge_attr, values, edge_index)},
            in_channels=self.g.shape[0],
            out_channels=self.out_channels,
            dim=self.dim,
            kernel_size=self.kernel_size,
            separate=self.separate_gaussians,
            bipartite=not isinstance(x, Tensor),
            with_bias=self.bias is not None,
        )
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, dim={self.dim})"


def _each(value: Any, dim: int) -> list[Any]:
    """A value for each dimension; the last of a list stands for those behind it."""
    values = list(value) if isinstance(value, Sequence) else [value]
    return (values + values[-1:] * dim)[:dim]


class SplineConv(Conv):
    """Messages through weights that B-splines of the edge's coordinates mix. Fey et al., CVPR 2018, equation 4.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    dim:            number of coordinates of an edge, each in [0, 1]
    kernel_size:    number of control points, or that of each dimension; the last of a list stands for those behind it
    is_open_spline: whether the splines end at the borders instead of beginning again, or that of each dimension
    degree:         of the splines
    aggr:           how messages meet
    root_weight:    whether to add the target's own features
    bias:           whether to add one
    **kwargs:       of :class:`Conv`

    Raises ValueError for another degree than 1, 2 or 3, and for an open spline with no more points than its degree.
    """

    program_name = "spline"

    def __init__(
        self,
        in_channels: Channels,
        out_channels: int,
        dim: int,
        kernel_size: int | list[int],
        is_open_spline: bool | list[bool] = True,
        degree: int = 1,
        aggr: Any = "mean",
        root_weight: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(aggr, **kwargs)
        sizes, opened = _each(kernel_size, dim), _each(is_open_spline, dim)
        if degree not in (1, 2, 3):
            raise ValueError(f"a B-spline has degree 1, 2 or 3, not {degree}")
        if any(size <= degree * is_open for size, is_open in zip(sizes, opened, strict=True)):
            raise ValueError(f"an open B-spline of degree {degree} needs more than {degree} control points: {sizes}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.dim = dim
        self.degree = degree
        self.root_weight = root_weight
        self.register_buffer("kernel_size", torch.tensor(sizes, dtype=torch.long))
        self.register_buffer("is_open_spline", torch.tensor(opened, dtype=torch.uint8))
        sources, targets = pair_of(in_channels)
        self.K = math.prod(sizes)
        self.even = len(set(sizes)) == 1 and all(opened)
        self.size = sizes[0]
        if not self.even:
            self._lay_out(sizes, opened)
        self.weight: Any = UninitializedParameter()
        if sources > 0:
            self.weight = parameter(self.K, sources, out_channels)
        if root_weight:
            self.lin = Linear(targets, out_channels, bias=False, weight_initializer="uniform")
        self.bias = parameter(out_channels) if bias else None
        self.reset_parameters()

    def _lay_out(self, sizes: list[int], opened: list[bool]) -> None:
        """The open spline that all dimensions are pieces of, and which control point is where on its grid."""
        spans = [size - self.degree * is_open for size, is_open in zip(sizes, opened, strict=True)]
        # A power of two, so that coordinates times spans over it are exact.
        self.size = self.degree + 2 ** math.ceil(math.log2(max(spans)))
        self.register_buffer("span", torch.tensor(spans, dtype=torch.float), persistent=False)
        point, stride = torch.zeros(1, dtype=torch.long), 1
        for size in sizes:
            place = stride * (torch.arange(self.size) % size)
            point, stride = (place.unsqueeze(1) + point).flatten(), stride * size
        self.register_buffer("point", point, persistent=False)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        if not isinstance(self.weight, UninitializedParameter):
            uniform(self.weight.size(0) * self.weight.size(1), self.weight)
        if self.root_weight:
            self.lin.reset_parameters()
        zeros(self.bias)

    def forward(self, x: Features, edge_index: Adjacency, edge_attr: Tensor | None = None, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), and [E, dim], to [N, out_channels]."""
        source, target = (x, x) if isinstance(x, Tensor) else x
        if isinstance(self.weight, UninitializedParameter):
            self.weight.materialize((self.K, source.shape[-1], self.out_channels))
            uniform(self.weight.size(0) * self.weight.size(1), self.weight)
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target), size)
        see((self._modules.get("lin"), target))
        y: Tensor = self.run(
            graph,
            {"x": source, "z": target, "e": edge_features(edge_attr, values, edge_index)},
            in_channels=self.weight.shape[1],
            out_channels=self.out_channels,
            dim=self.dim,
            size=self.size,
            points=self.K,
            degree=self.degree,
            even=self.even,
            bipartite=not isinstance(x, Tensor),
            with_bias=self.bias is not None,
        )
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, dim={self.dim})"


Batch = Tensor | tuple[Tensor | None, Tensor | None] | None


class GravNetConv(Conv):
    """Messages between the nearest in a learned space, weighted by distance. Qasim et al., EPJ C 2019, equation 1.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    space_dimensions:     of the learned space
    propagate_dimensions: size of the messages
    k:                    number of neighbours; a point is its own first one
    num_workers:          accepted for torch_geometric's sake
    **kwargs:             of :class:`Conv`

    The neighbours are found outside the program.
    """

    program_name = "gravnet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        space_dimensions: int,
        propagate_dimensions: int,
        k: int,
        num_workers: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(["mean", "max"], flow="source_to_target", **kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.k = k
        self.num_workers = num_workers
        self.lin_s = Linear(in_channels, space_dimensions)
        self.lin_h = Linear(in_channels, propagate_dimensions)
        self.lin_out1 = Linear(in_channels, out_channels, bias=False)
        self.lin_out2 = Linear(2 * propagate_dimensions, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for lin in (self.lin_s, self.lin_h, self.lin_out1, self.lin_out2):
            lin.reset_parameters()

    def forward(self, x: Features, batch: Batch = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets, to [N, out_channels].

        batch: [N] the graph of each point, or a pair: neighbours are of the same graph

        Raises ValueError for features of more dims.
        """
        source, target = (x, x) if isinstance(x, Tensor) else x
        if source.dim() != 2:
            raise ValueError(f"Static graphs not supported in '{type(self).__name__}'")
        assert target is not None, f"'{type(self).__name__}' needs features of the targets"
        of_source, of_target = batch if isinstance(batch, tuple) else (batch, batch)
        see((self.lin_s, source), (self.lin_h, source), (self.lin_out1, target))
        with torch.no_grad():
            edge_index = knn(self.lin_s(source), self.lin_s(target), self.k, of_source, of_target).flip(0)
        graph, _ = self.graph(edge_index, self.rows(source), self.rows(target))
        y: Tensor = self.run(
            graph,
            {"x": source, "z": target},
            out_channels=self.out_channels,
            space=self.lin_s.out_channels,
            bipartite=not isinstance(x, Tensor),
        )
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, k={self.k})"


class _Reshape(nn.Module):
    """A view as a part of a Sequential."""

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.view(*self.shape)


class XConv(nn.Module):
    """A learned transform of the K nearest points in their order. Li et al., "PointCNN", NeurIPS 2018, algorithm 1.

    in_channels, out_channels: sizes
    dim:             of space
    kernel_size:     number of neighbours; a point is its own first one
    hidden_channels: size of the lifted positions; a quarter of the inputs by default
    dilation:        takes every so-manyeth of as many times more neighbours
    bias:            whether to add one
    num_workers:     accepted for torch_geometric's sake

    It runs in torch: all that it does is dense, on blocks [N, K, ...], with batch norms between, and no edge is left
    whose message could be fused.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dim: int,
        kernel_size: int,
        hidden_channels: int | None = None,
        dilation: int = 1,
        bias: bool = True,
        num_workers: int = 1,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.hidden_channels = in_channels // 4 if hidden_channels is None else hidden_channels
        assert self.hidden_channels > 0, "'hidden_channels' must be above 0; without it, it is 'in_channels' // 4"
        self.out_channels = out_channels
        self.dim = dim
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.num_workers = num_workers
        h, k = self.hidden_channels, kernel_size
        self.mlp1 = nn.Sequential(
            nn.Linear(dim, h), nn.ELU(), nn.BatchNorm1d(h), nn.Linear(h, h), nn.ELU(), nn.BatchNorm1d(h),
            _Reshape(-1, k, h),
        )  # fmt: skip
        self.mlp2 = nn.Sequential(
            nn.Linear(dim * k, k**2), nn.ELU(), nn.BatchNorm1d(k**2), _Reshape(-1, k, k),
            nn.Conv1d(k, k**2, k, groups=k), nn.ELU(), nn.BatchNorm1d(k**2), _Reshape(-1, k, k),
            nn.Conv1d(k, k**2, k, groups=k), nn.BatchNorm1d(k**2), _Reshape(-1, k, k),
        )  # fmt: skip
        joined = in_channels + h
        depth = math.ceil(out_channels / joined)
        self.conv = nn.Sequential(
            nn.Conv1d(joined, joined * depth, k, groups=joined),
            _Reshape(-1, joined * depth),
            nn.Linear(joined * depth, out_channels, bias=bias),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for module in (self.mlp1, self.mlp2, self.conv):
            reset(module)

    def forward(self, x: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Features [N, in_channels], or None, and positions [N, dim] to [N, out_channels].

        batch: [N] the graph of each point: neighbours are of the same graph

        Raises ValueError where a point has fewer neighbours than the kernel.
        """
        pos = pos.unsqueeze(-1) if pos.dim() == 1 else pos
        nodes, k = pos.shape[0], self.kernel_size
        row, col = knn(pos, pos, k * self.dilation, batch, batch)[:, :: self.dilation]
        if len(row) != nodes * k:
            raise ValueError(f"XConv needs {k * self.dilation} points in each graph")
        near = pos[col] - pos[row]
        lifted = self.mlp1(near)
        if x is not None:
            x = x.unsqueeze(-1) if x.dim() == 1 else x
            lifted = torch.cat([lifted, x[col].view(nodes, k, self.in_channels)], dim=-1)
        transform = self.mlp2(near.view(nodes, k * self.dim))
        y: Tensor = self.conv(lifted.transpose(1, 2).contiguous() @ transform)
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels})"
