"""Layers on points in space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gdsl.module.repeated import repeatable
from gdsl.nn.conv.inputs import Adjacency, Channels, Features, Size, as_module, pair_of, see
from gdsl.nn.conv.programmed import Declared, InitVar, Summed
from gdsl.nn.declared import Module, declared, redraw
from gdsl.nn.linear import Linear
from gdsl.nn.neighbors import knn

Points = Tensor | tuple[Tensor, Tensor]


class PointNetConv(Summed, program="pointnet", aggr="max", shows="local_nn global_nn"):
    """gamma(max_j h([x_j, p_j - p_i])). Qi et al., "PointNet++", NeurIPS 2017, section 3.2.

    local_nn:       h, a module on the edges, or None
    global_nn:      gamma, a module on the nodes, or None
    add_self_loops: whether to add them
    **kwargs:       of :class:`Conv`
    """

    local_nn: nn.Module | None = None
    global_nn: nn.Module | None = None
    add_self_loops: bool = True

    @repeatable
    def forward(self, x: Tensor | tuple[Tensor | None, Any] | None, pos: Points, edge_index: Adjacency) -> Tensor:
        """Features [N, channels] of the sources, or None, and positions [N, d], or a pair of them, to [M, out]."""
        features = x[0] if isinstance(x, tuple) else x
        p, q = (pos, pos) if isinstance(pos, Tensor) else pos
        graph, _ = self.graph(edge_index, self.rows(p), self.rows(q))
        return self._compute(graph, {"p": p, "q": q, "x": features}, bipartite=not isinstance(pos, Tensor))


PointConv = PointNetConv  # torch_geometric's other name


class PPFConv(PointNetConv, program="ppf"):
    """:class:`PointNetConv` on distances and angles, which no rotation changes. Deng et al., CVPR 2018, equation 1.

    Arguments as in :class:`PointNetConv`.
    """

    @repeatable
    def forward(  # type: ignore[override]
        self, x: Tensor | tuple[Tensor | None, Any] | None, pos: Points, normal: Points, edge_index: Adjacency
    ) -> Tensor:
        """Features [N, channels] of the sources, or None, positions and normals [N, 3], or pairs, to [M, out]."""
        features = x[0] if isinstance(x, tuple) else x
        p, q = (pos, pos) if isinstance(pos, Tensor) else pos
        n, r = (normal, normal) if isinstance(normal, Tensor) else normal
        graph, _ = self.graph(edge_index, self.rows(p), self.rows(q))
        bipartite = not (isinstance(pos, Tensor) and isinstance(normal, Tensor))
        return self._compute(graph, {"p": p, "q": q, "n": n, "r": r, "x": features}, bipartite=bipartite)


class PointTransformerConv(Summed, program="point_transformer"):
    """A softmax of vectors over the neighbours, with positions. Zhao et al., "Point Transformer", ICCV 2021.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    pos_nn:         a module, [E, d] to [E, out_channels]; a linear map from 3 dims by default
    attn_nn:        a module on the scores, [E, out_channels] to the same, or None
    add_self_loops: whether to add them
    **kwargs:       of :class:`Conv`
    """

    in_channels: Channels
    out_channels: int
    pos_nn: InitVar[nn.Module | None] = None
    attn_nn: nn.Module | None = None
    add_self_loops: bool = True

    def _setup(self) -> None:
        attn_nn = self._modules.pop("attn_nn", None)
        self.pos_nn = Linear(3, self.out_channels) if self.pos_nn is None else as_module(self.pos_nn)
        if attn_nn is not None:  # behind `pos_nn` among the modules
            self.attn_nn = attn_nn

    @repeatable
    def forward(self, x: Features, pos: Points, edge_index: Adjacency) -> Tensor:
        """[N, in_channels] and positions [N, d], or pairs of them, to [M, out_channels]."""
        source, target = (x, x) if isinstance(x, Tensor) else x
        p, q = (pos, pos) if isinstance(pos, Tensor) else pos
        graph, _ = self.graph(edge_index, self.rows(source), self.rows(target))
        bipartite = not (isinstance(x, Tensor) and isinstance(pos, Tensor))
        return self._compute(graph, {"x": source, "z": target, "p": p, "q": q}, bipartite=bipartite)


class PointGNNConv(Summed, program="point_gnn", aggr="max"):
    """x_i + g(max_j f([p_j - p_i + h(x_i), x_j])). Shi and Rajkumar, "Point-GNN", CVPR 2020, equation 5.

    mlp_h:    a module, [N, channels] to [N, d]: how far a point moves to look at the others
    mlp_f:    a module on the edges, [E, d + channels] to [E, hidden]
    mlp_g:    a module, [N, hidden] to [N, channels]
    **kwargs: of :class:`Conv`
    """

    mlp_h: nn.Module
    mlp_f: nn.Module
    mlp_g: nn.Module

    @repeatable
    def forward(self, x: Tensor, pos: Tensor, edge_index: Adjacency) -> Tensor:
        """[N, channels] and positions [N, d] to [N, channels]."""
        graph, _ = self.square(x, edge_index)
        return self._compute(graph, {"x": x, "p": pos})

    def __repr__(self) -> str:
        return f"{type(self).__name__}(\n  mlp_h={self.mlp_h},\n  mlp_f={self.mlp_f},\n  mlp_g={self.mlp_g},\n)"


class GMMConv(Declared, program="gmm", shows="dim"):
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

    in_channels: Channels
    out_channels: int
    dim: int
    kernel_size: int
    separate_gaussians: bool = False
    aggr: Any = "mean"
    root_weight: bool = True
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        self.rel_in_channels, _ = pair_of(self.in_channels)
        if self.rel_in_channels <= 0:
            self.g, self.mu, self.sigma = (UninitializedParameter() for _ in range(3))

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"root": self.root_weight}

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, edge_attr: Tensor | None = None, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), and [E, dim], to [N, out_channels]."""
        return self._applied(x, edge_index, size, edge_attr=edge_attr)


def _each(value: Any, dim: int) -> list[Any]:
    """A value for each dimension; the last of a list stands for those behind it."""
    values = list(value) if isinstance(value, Sequence) else [value]
    return (values + values[-1:] * dim)[:dim]


class SplineConv(Declared, program="spline", shows="dim", tells="size even"):
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

    in_channels: Channels
    out_channels: int
    dim: int
    kernel_size: InitVar[int | list[int]]
    is_open_spline: InitVar[bool | list[bool]] = True
    degree: int = 1
    aggr: Any = "mean"
    root_weight: bool = True
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        sizes, opened = _each(self.kernel_size, self.dim), _each(self.is_open_spline, self.dim)
        if self.degree not in (1, 2, 3):
            raise ValueError(f"a B-spline has degree 1, 2 or 3, not {self.degree}")
        if any(size <= self.degree * is_open for size, is_open in zip(sizes, opened, strict=True)):
            raise ValueError(
                f"an open B-spline of degree {self.degree} needs more than {self.degree} control points: {sizes}"
            )
        del self.kernel_size, self.is_open_spline
        self.register_buffer("kernel_size", torch.tensor(sizes, dtype=torch.long))
        self.register_buffer("is_open_spline", torch.tensor(opened, dtype=torch.uint8))
        self.K = math.prod(sizes)
        self.even = len(set(sizes)) == 1 and all(opened)
        self.size = sizes[0]
        if not self.even:
            self._lay_out(sizes, opened)

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"points": self.K, **({"lin": True} if self.root_weight else {})}

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

    def forward(self, x: Features, edge_index: Adjacency, edge_attr: Tensor | None = None, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), and [E, dim], to [N, out_channels]."""
        return self._applied(x, edge_index, size, edge_attr=edge_attr, points=self.K)


Batch = Tensor | tuple[Tensor | None, Tensor | None] | None


class GravNetConv(Declared, program="gravnet", aggr=None, fixed='["mean", "max"], flow="source_to_target"', shows="k"):
    """Messages between the nearest in a learned space, weighted by distance. Qasim et al., EPJ C 2019, equation 1.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    space_dimensions:     of the learned space
    propagate_dimensions: size of the messages
    k:                    number of neighbours; a point is its own first one
    num_workers:          accepted for torch_geometric's sake
    **kwargs:             of :class:`Conv`

    The neighbours are found outside the program.
    """

    in_channels: int
    out_channels: int
    space_dimensions: InitVar[int]
    propagate_dimensions: InitVar[int]
    k: int
    num_workers: int | None = None

    def _setup(self) -> None:
        self.lin_s = Linear(self.in_channels, self.space_dimensions)
        self.lin_h = Linear(self.in_channels, self.propagate_dimensions)
        self.lin_out1 = Linear(self.in_channels, self.out_channels, bias=False)
        self.lin_out2 = Linear(2 * self.propagate_dimensions, self.out_channels)

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
        bipartite = not isinstance(x, Tensor)
        return self._compute(graph, {"x": source, "z": target}, space=self.lin_s.out_channels, bipartite=bipartite)


class _Reshape(nn.Module):
    """A view as a part of a Sequential."""

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.view(*self.shape)


@declared
class XConv(Module):
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

    in_channels: int
    out_channels: int
    dim: int
    kernel_size: int
    hidden_channels: int | None = None
    dilation: int = 1
    bias: InitVar[bool] = True
    num_workers: int = 1

    def _setup(self) -> None:
        in_channels, out_channels, dim, k = self.in_channels, self.out_channels, self.dim, self.kernel_size
        h = self.hidden_channels = in_channels // 4 if self.hidden_channels is None else self.hidden_channels
        assert h > 0, "'hidden_channels' must be above 0; without it, it is 'in_channels' // 4"
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
            nn.Linear(joined * depth, out_channels, bias=self.bias),
        )

    reset_parameters = redraw

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
        return self.conv(lifted.transpose(1, 2).contiguous() @ transform)
