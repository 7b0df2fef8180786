"""What a backward pass reads of the inputs: copies that take memory once somebody writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gdsl
import gdsl.nn
from gdsl.runtime import copies, products
from gdsl.runtime.copies import address, kept_apart

EDGES = torch.tensor([[0, 1, 2, 0, 3], [1, 2, 0, 2, 3]])
TEXT = "layer L(d) { node x[d] aggregate a = max(x[j] * x[i]) update y = a }"


def leaf() -> Tensor:
    return torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("where", [copies._address, address])
def test_addresses(where: object) -> None:
    x = torch.rand(4, 3)
    for t in (x, x[1:], x[:, 2], x.t(), x.double(), torch.empty(0, 3)):
        assert where(t) == t.data_ptr()  # type: ignore[operator]
    copy = torch._lazy_clone(x[1:])
    assert where(copy) == address(x) + 12  # type: ignore[operator]
    assert torch._C._is_cow_tensor(copy)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("backend", "nodes"), [("torch", 4), ("cpp", 4), ("cpp", 30_000)])
def test_nothing_is_copied_where_nobody_writes(
    backend: str, nodes: int, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels ask for no address to write to, nor do the products with the matrix and with its gradient: in one
    native call, and one by one."""
    monkeypatch.setattr(products, "wanted", lambda: own)
    made = "aggregate a = max(x[j]) update y = a + rename(x @ p, d' -> d)"
    text = f"layer L(d) {{ node x[d] param p[d, d'] ~ normal {made} }}"
    call, x = gdsl.compile(text, d=8, backend=backend), torch.rand(nodes, 8, requires_grad=True)
    edges = torch.randint(nodes, (2, 2 * nodes))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        h = x * 1.0
        at = address(h)
        kept.clear()
        y = call(h, edges)
    y.sum().backward()
    assert address(h) == at
    assert at in [address(t) for t in kept]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_two_readers_and_recomputation(backend: str) -> None:
    call = gdsl.compile(TEXT, d=3, backend=backend).double()
    found = []

    def added(h: Tensor) -> Tensor:
        h = h.clone()
        h += call(h, EDGES)
        return h

    for form in ("plain", "in place", "recomputed"):
        x = leaf()
        h = x.sin()
        if form == "plain":
            h = h + call(h, EDGES)
            h = (h + call(h, EDGES)).relu()
        elif form == "in place":
            h += call(h, EDGES)
            h += call(h, EDGES)
            h.relu_()
        else:
            for _ in range(2):
                h = checkpoint(added, h, use_reentrant=False)
            h = h.relu()
        h.sum().backward()
        found.append(x.grad)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_what_is_kept_as_it_is() -> None:
    """Leaves, views of them, other kinds of tensors, and memory that torch has not allocated."""
    weight = leaf()
    foreign = torch.from_numpy(np.ones((4, 3)))
    foreign += weight
    tensors = [weight, weight[1:], weight.detach(), (weight * 2).to_sparse(), foreign, weight * 2, weight * 3]
    found = kept_apart(tensors, range(6))
    assert [a is b for a, b in zip(tensors, found, strict=True)] == [True] * 5 + [False, True]


def test_a_view_of_a_value_is_written_to_through_its_base() -> None:
    found = []
    for writes in (False, True):
        x = leaf()
        h = torch.cat([x, x], 1)
        a = gdsl.compile(TEXT, d=3).double()(h[:, :3], EDGES)
        if writes:
            h.zero_()
        a.sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)


def test_activations_in_place_of_a_model() -> None:
    """A module that writes to its input, and to the layer's result."""
    found = []
    for inplace in (False, True):
        torch.manual_seed(0)
        conv = gdsl.nn.CGConv(3).double()
        act, x = nn.ReLU(inplace=inplace), leaf()
        h = x * 1.0
        y = conv(h, EDGES)
        z = act(y) + act(h)
        z.sum().backward()
        found.append([x.grad, *(p.grad for p in conv.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
