"""Methods of torch_geometric's layers in a layer that is computed by a program: refused, never ignored."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import gdsl
import gdsl.nn

METHODS = ("message", "aggregate", "message_and_aggregate", "update", "edge_update")
MADE: dict[str, tuple[Any, ...]] = {
    "GCNConv": (3, 3),
    "SAGEConv": (3, 3),
    "GATConv": (3, 3),
    "GINConv": (torch.nn.Tanh(),),
}


def own(self: Any, x_j: Tensor) -> Tensor:
    """What nobody would call."""
    return x_j


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MADE)
def test_a_method_of_a_subclass(name: str, method: str) -> None:
    kind = type("Mine", (getattr(gdsl.nn, name),), {method: own})
    with pytest.raises(gdsl.InputError, match=f"Mine .* never calls `{method}`.*derive .* gdsl.nn.MessagePassing"):
        kind(*MADE[name])


def test_a_method_of_a_class_beside_it() -> None:
    mixin = type("Mixin", (), {"update": own})
    with pytest.raises(gdsl.InputError, match="`update`"):
        type("Mixed", (mixin, gdsl.nn.GCNConv), {})(3, 3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MADE)
def test_a_method_that_is_assigned(name: str, method: str) -> None:
    layer = getattr(gdsl.nn, name)(*MADE[name])
    with pytest.raises(gdsl.InputError, match=f"{name} .* never calls `{method}`"):
        setattr(layer, method, own)


def test_other_subclasses_are_as_before() -> None:
    class Mine(gdsl.nn.GCNConv):
        def helper(self, x: Tensor) -> Tensor:
            return 2 * x

        def forward(self, x: Tensor, edge_index: Any, edge_weight: Any = None) -> Any:
            return super().forward(self.helper(x), edge_index, edge_weight)

    layer, plain = Mine(3, 2), gdsl.nn.GCNConv(3, 2)
    plain.load_state_dict(layer.state_dict())
    x, edges = torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])
    assert torch.allclose(layer(x, edges), plain(2 * x, edges))
    twin = pickle.loads(pickle.dumps(copy.deepcopy(plain)))
    assert torch.equal(twin(x, edges), plain(x, edges))
    for name in dir(plain):
        getattr(plain, name)
    assert not any(hasattr(plain, method) for method in METHODS)


@pytest.mark.parametrize("method", ["message", "aggregate", "update"])
def test_a_base_class_calls_what_is_assigned(method: str) -> None:
    """In a layer of a user's own a method may also be put on the object."""
    pyg = pytest.importorskip("torch_geometric.nn")
    methods = {
        "message": lambda x_j: 3 * x_j,
        "aggregate": lambda inputs, index, dim_size, ptr: inputs.new_zeros(dim_size, 3).index_add(0, index, 2 * inputs),
        "update": lambda inputs: inputs - 1,
    }
    x, edges = torch.randn(4, 3), torch.tensor([[0, 1, 2, 0], [1, 2, 3, 1]])
    results = []
    for base in (pyg.MessagePassing, gdsl.nn.MessagePassing):
        layer = type(f"Assigned{method}", (base,), {})()
        setattr(layer, method, methods[method])
        results.append(layer.propagate(edges, x=x))
    assert torch.allclose(*results)


@pytest.mark.parametrize("name", ["graph", "rows", "check", "kernels", "run", "weighted"])
def test_a_part_that_a_method_would_hide(name: str) -> None:
    """torch looks for a module only where a class has nothing of its name."""

    class Hidden(gdsl.nn.MessagePassing):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, name, torch.nn.Linear(3, 3))

        def forward(self, x: Tensor, edge_index: Tensor) -> Any:
            return self.propagate(edge_index, x=getattr(self, name)(x))

    with pytest.raises(gdsl.InputError, match=f"have `{name}` themselves: give the part of Hidden another name"):
        Hidden()(torch.randn(4, 3), torch.tensor([[0, 1], [1, 2]]))


@pytest.mark.parametrize("name", ["graph", "rows", "run", "weighted", "square"])
def test_a_value_of_the_name_of_a_method_is_no_matter(name: str) -> None:
    class Named(gdsl.nn.MessagePassing):
        def __init__(self) -> None:
            super().__init__(backend="torch")
            setattr(self, name, 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Any:
            return self.propagate(edge_index, x=getattr(self, name) * x)

    x, edges = torch.randn(4, 3), torch.tensor([[0, 1], [1, 2]])
    layer = Named()
    assert torch.allclose(layer(x, edges), torch.zeros(4, 3).index_add(0, edges[1], 3 * x[edges[0]]))
    assert layer.how == "fused"
