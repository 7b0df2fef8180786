"""``graph add_self_loops`` and the like inside a program: which edges the rules see, and with which values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, tensor

import gdsl

# 0 -> 0 with 5, 0 -> 1 with 2, 2 -> 1 with 4; node 3 has no edge.
EDGES = tensor([[0, 0, 2], [0, 1, 1]])
W = tensor([5.0, 2.0, 4.0])
X = tensor([[1.0], [10.0], [100.0], [1000.0]])


def edges_seen(transform: str, w: Tensor | None = W, declared: str = "edge w") -> tuple[list, list]:
    """The value of each edge of the rewired graph, and the sum of w * x[j] at each node."""
    source = f"""
layer L {{
    {transform}
    node x[c]
    {declared}
    message m = w * x[j]
    aggregate y = sum(m)
    message u = w * 1
    return u, y
}}
"""
    layers = [gdsl.compile(source, backend=backend) for backend in ("cpp", "torch")]
    (u, y), again = (layer(X, gdsl.Graph(EDGES, 4), w) for layer in layers)
    torch.testing.assert_close((u, y), again)
    return u.tolist(), y.flatten().tolist()


KEPT = [2.0, 4.0]

CASES = {
    "nothing": ("", [5.0, *KEPT], [5.0, 402.0, 0.0, 0.0]),
    "removed": ("graph remove_self_loops", KEPT, [0.0, 402.0, 0.0, 0.0]),
    "added": ("graph add_self_loops(w = 1)", [*KEPT, 1, 1, 1, 1], [1.0, 412.0, 100.0, 1000.0]),
    "added, a number": ("graph add_self_loops(w = 0.5)", [*KEPT, 0.5, 0.5, 0.5, 0.5], [0.5, 407.0, 50.0, 500.0]),
    "remaining": ("graph add_remaining_self_loops(w = 1)", [*KEPT, 5, 1, 1, 1], [5.0, 412.0, 100.0, 1000.0]),
    "the mean of the others": ('graph add_self_loops(w = "mean")', [*KEPT, 0, 3, 0, 0], [0.0, 432.0, 0.0, 0.0]),
    "the greatest": ('graph add_self_loops(w = "max")', [*KEPT, 0, 4, 0, 0], [0.0, 442.0, 0.0, 0.0]),
    "removed, then added": (
        "graph remove_self_loops\n    graph add_remaining_self_loops(w = 1)", [*KEPT, 1, 1, 1, 1],
        [1.0, 412.0, 100.0, 1000.0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values(case: str) -> None:
    transform, values, sums = CASES[case]
    assert edges_seen(transform) == (values, sums)


def test_the_default_stands_on_new_loops() -> None:
    seen = edges_seen("graph add_self_loops", W, "edge w = 3")
    assert seen == ([*KEPT, 3, 3, 3, 3], [3.0, 432.0, 300.0, 3000.0])
    seen = edges_seen("graph add_self_loops(w = 2)", W, "edge w = 3")
    assert seen == ([*KEPT, 2, 2, 2, 2], [2.0, 422.0, 200.0, 2000.0])


def test_an_absent_value_is_its_default_on_every_edge() -> None:
    seen = edges_seen("graph add_remaining_self_loops(w = 2)", None, "edge w = 3")
    assert seen[0] == [3.0] * 6


def test_integers_are_rewired_as_integers() -> None:
    source = """
layer L {
    graph add_self_loops(rel = 2)
    param value[3] ~ ones
    node x[c]
    edge rel: int(3)
    aggregate y = sum(value[rel] * x[j])
    return y
}
"""
    for backend in ("cpp", "torch"):
        layer = gdsl.compile(source, backend=backend)
        layer.load_state_dict({"value": tensor([1.0, 2.0, 3.0])})
        y = layer(X, gdsl.Graph(EDGES, 4), tensor([0, 1, 0]))
        assert y.flatten().tolist() == [3.0, 100 + 2.0 + 30, 300.0, 3000.0]


def test_gradients_reach_every_edge_once() -> None:
    """By the value of each edge of the call: a removed loop has none, a kept one its own, a mean its share."""
    expected = {
        "graph remove_self_loops": [0.0, 1.0, 100.0],
        "graph add_self_loops(w = 1)": [0.0, 1.0, 100.0],
        "graph add_remaining_self_loops(w = 1)": [1.0, 1.0, 100.0],
        'graph add_self_loops(w = "mean")': [0.0, 1 + 10 / 2, 100 + 10 / 2],
    }
    for transform, gradient in expected.items():
        source = f"layer L {{\n    {transform}\n    node x[c]\n    edge w\n    update y = sum(w * x[j])\n}}\n"
        for backend in ("cpp", "torch"):
            w = W.clone().requires_grad_()
            gdsl.compile(source, backend=backend)(X, gdsl.Graph(EDGES, 4), w).sum().backward()
            assert w.grad.tolist() == gradient, transform


def test_a_graph_is_rewired_and_sorted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from gdsl.runtime import prepare

    sorts = []
    sort = prepare.sort
    monkeypatch.setattr(prepare, "sort", lambda edges, end, sizes: sorts.append(end) or sort(edges, end, sizes))
    source = "layer L {\n    graph add_self_loops\n    node x[c]\n    update y = sum(x[j])\n}\n"
    first, second, edges = gdsl.compile(source), gdsl.compile(source), EDGES.clone()
    x = X.clone().requires_grad_()
    for _ in range(2):
        second(first(x, edges), edges).sum().backward()
    assert sorted(sorts) == [0, 1]
