"""A layer on the edges of a triangle mesh."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.conv.base import Conv


class MeshCNNConv(Conv):
    """W_0 x_i + W_1 |a - c| + W_2 (a + c) + W_3 |b - d| + W_4 (b + d), of the four neighbours of an edge of a mesh in
    their order. Hanocka et al., SIGGRAPH 2019, equations 1 and 2.

    in_channels, out_channels: sizes
    kernels: five modules for W_0 to W_4, [E, in_channels] to [E, out_channels]; linear maps by default

    Raises AssertionError for other kernels.
    """

    program_name = "meshcnn"

    def __init__(self, in_channels: int, out_channels: int, kernels: nn.ModuleList | None = None):
        super().__init__("add")
        self.in_channels = in_channels
        self.out_channels = out_channels
        if kernels is None:
            kernels = nn.ModuleList([nn.Linear(in_channels, out_channels) for _ in range(5)])
        assert isinstance(kernels, nn.ModuleList), f"`kernels` must be a ModuleList, not {type(kernels)}"
        assert len(kernels) == 5, f"`kernels` must have 5 modules, not {len(kernels)}"
        for kernel in kernels:
            for name, size in (("in", in_channels), ("out", out_channels)):
                found = getattr(kernel, f"{name}_channels", getattr(kernel, f"{name}_features", size))
                assert found == size, f"a kernel has {found} {name}puts, and `{name}_channels` is {size}"
        self._modules["kernels"] = kernels

    @property
    def kernels(self) -> Any:
        """The five modules, as in torch_geometric; generated code is in :meth:`kernels_for`."""
        return self._modules["kernels"]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """[E, in_channels] to [E, out_channels], for the E edges of a mesh.

        edge_index: [2, 4 * E], column 4 * i + k from the k-th neighbour of edge i to edge i. torch_geometric's page has
                    them the other way round, where its sums are not the paper's

        Raises ValueError for other targets.
        """
        graph, _ = self.graph(edge_index, self.rows(x), self.rows(x))
        places = torch.arange(graph.num_edges, device=x.device)
        if graph.num_edges != 4 * x.shape[-2] or not torch.equal(graph.local_edge_index[1], places >> 2):
            raise ValueError(
                "MeshCNNConv needs four edges into each node, in order: edge_index[1] is 0, 0, 0, 0, 1, ..."
            )
        sizes = {"in_channels": self.in_channels, "out_channels": self.out_channels}
        return self.run(graph, {"x": x, "k": places & 3}, **sizes)
