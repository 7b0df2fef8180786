"""The layer on meshes as a drop-in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gdsl.nn import MeshCNNConv
from tests.parity.drop_in import IN, NODES, Case, make_tests, mlp


def kernels() -> nn.ModuleList:
    """Networks instead of linear maps."""
    return nn.ModuleList([mlp(5, 6, 4)() for _ in range(5)])


CASES = [
    Case("MeshCNNConv", (5, 4), graph="mesh", exact=1e-6),  # torch_geometric keeps messages in float32
    Case("MeshCNNConv", (5, 4, kernels), graph="mesh", exact=1e-6, note="networks"),
]

pytestmark = pytest.mark.filterwarnings("ignore:kernel")  # torch_geometric's, of networks without a size

globals().update(make_tests(CASES))


def test_the_sides_of_an_edge_do_not_matter() -> None:
    """A flip of the faces swaps a with c and b with d."""
    neighbours = torch.randint(NODES, (NODES, 4), generator=torch.Generator().manual_seed(0))
    targets = torch.arange(NODES).repeat_interleave(4)
    x, layer = torch.randn(NODES, IN), MeshCNNConv(IN, 4)
    assert isinstance(layer.kernels, nn.ModuleList)
    one, other = (
        layer(x, torch.stack([n.flatten(), targets])) for n in (neighbours, neighbours[:, [2, 3, 0, 1]].contiguous())
    )
    assert torch.allclose(one, other, atol=1e-6)


def test_refuses() -> None:
    with pytest.raises(AssertionError, match="5 modules"):
        MeshCNNConv(IN, 4, nn.ModuleList([nn.Linear(IN, 4)]))
    with pytest.raises(AssertionError, match="ModuleList"):
        MeshCNNConv(IN, 4, [nn.Linear(IN, 4)] * 5)
    with pytest.raises(AssertionError, match="outputs"):
        MeshCNNConv(IN, 3, kernels=nn.ModuleList([nn.Linear(IN, 4)] * 5))
    edges = torch.stack([torch.arange(NODES).repeat_interleave(4), torch.arange(4 * NODES) % NODES])
    with pytest.raises(ValueError, match="four edges into each node"):
        MeshCNNConv(IN, 4)(torch.randn(NODES, IN), edges)


def test_kernels_that_cannot_be_read() -> None:
    class Kernel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.lin(x.clone())

    layer = MeshCNNConv(3, 2, nn.ModuleList([Kernel() for _ in range(5)]))
    plain = MeshCNNConv(3, 2, nn.ModuleList([kernel.lin for kernel in layer.kernels]))
    x, targets = torch.randn(6, 3), torch.arange(6).repeat_interleave(4)
    edges = torch.stack([torch.randint(6, (24,)), targets])
    assert torch.allclose(layer(x, edges), plain(x, edges), atol=1e-6)
