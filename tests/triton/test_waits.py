"""A call on a prepared graph leaves all to the GPU: the host reads no result, and copies no number there.

Seen on the CPU, where tensors stand for those of a GPU: which operations of torch a call makes between its kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import gdsl
import gdsl.nn
from gdsl.runtime import extremes, prepare
from gdsl.runtime import triton as runtime
from tests.programs import harness
from tests.programs.test_programs import NAMES

# Their result, or its size, is known once a GPU has made it.
WAITS = (
    "aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::bincount", "aten::masked_select", "aten::equal",
    "aten::_unique", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
)  # fmt: skip
# Each call asks anew which nodes are near each other: how many are as near as the last is for the host to know.
NEAREST = {"DynamicEdgeConv", "GravNet", "XConv"}
FAST = {
    "APPNP", "ARMA", "Cheb", "EdgeConv", "FiLM", "GAT", "GATv2", "GAT_edge", "GCN", "GIN", "GINE", "GMMConv", "RGAT",
    "RGCN", "SAGE_max", "SAGE_mean", "SGC", "SSG", "SplineConv", "Statistics", "Tables",
}  # fmt: skip


Seen = Callable[[Callable[[], Any]], list[str]]


class Waits(TorchDispatchMode):
    """Notes operations whose result the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name
        by_mask = name.startswith("aten::index") and any(
            isinstance(i, Tensor) and i.dtype is torch.bool for i in (args[1] if isinstance(args[1], list) else ())
        )
        counted = name == "aten::repeat_interleave" and not (kwargs or {}).get("output_size")
        if name in WAITS or by_mask or counted:
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The waits of a call, on tensors that stand for a GPU's: no native preparation, no kernel that runs."""

    def launch(self: Any, number: int, rows: int, about: Any, given: Any, key: Any, hubs: bool = False) -> None:
        for tensor in given.writes:
            tensor.zero_()

    monkeypatch.setattr(runtime.TritonLaunch, "launch", launch)
    monkeypatch.setattr(prepare, "native", lambda **_: None)
    monkeypatch.setattr(extremes, "waits", lambda value: True)
    made: list[str] | None = None

    def noted(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def given(data: Any, *args: Any, **kwargs: Any) -> Any:
            if made is not None and isinstance(data, Tensor) == (owner is Tensor):
                made.append(name)
            return function(data, *args, **kwargs)

        monkeypatch.setattr(owner, name, given)

    # What torch does not tell a mode of: numbers of the host for a new tensor, and all numbers of one.
    for name in ("tensor", "as_tensor"):
        noted(torch, name)
    for name in ("tolist", "cpu", "numpy"):
        noted(Tensor, name)

    def found(call: Callable[[], Any]) -> list[str]:
        nonlocal made
        made = []
        with Waits() as seen:
            call()
        copied, made = made, None
        return seen.seen + copied

    return found


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FAST)) for n in NAMES if n not in NEAREST]
)
def test_no_wait_in_a_call(name: str, waits: Seen) -> None:
    """Forward, backward and second derivatives of every program."""
    made = harness.layer(name, "triton")
    values = harness.inputs(made, harness.random_edges(30, 90, seed=4), 30)
    harness.run(made, values)
    assert waits(lambda: harness.run(made, values)) == []


def test_no_wait_in_a_training_step(waits: Seen) -> None:
    """So that a CUDA graph can hold it: with draws, norms, a loss and an optimiser."""
    torch.manual_seed(0)
    graph, x = gdsl.Graph(harness.random_edges(30, 90, seed=4), 30), torch.rand(30, 8)
    labels = torch.arange(30) % 3
    convs = [gdsl.nn.GATConv(8, 4, heads=2, dropout=0.4), gdsl.nn.GCNConv(8, 3)]
    model = torch.nn.ModuleList([*convs, gdsl.nn.BatchNorm(8)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for conv in convs:
        conv.backend = "triton"

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        hidden = torch.nn.functional.dropout(model[2](convs[0](x, graph)).relu(), 0.5)
        torch.nn.functional.cross_entropy(convs[1](hidden, graph), labels).backward()
        optimizer.step()

    step()
    assert {ran.backend for conv in convs for ran in conv._ran()} == {"triton"}
    assert waits(step) == []


def test_a_wait_is_seen(waits: Seen) -> None:
    x = torch.arange(5)
    assert waits(lambda: x[x > 2]) == ["aten::index"]
    assert waits(lambda: int(x.max())) == ["aten::_local_scalar_dense"]
    assert waits(lambda: x.bincount()) == ["aten::bincount"]
    assert waits(lambda: torch.tensor([1])) == ["tensor"]
    assert waits(lambda: x.tolist()) == ["tolist"]
    assert waits(lambda: x[torch.zeros(2, dtype=torch.long)]) == []


def test_integers_are_read_again_once_they_change(waits: Seen) -> None:
    """The check of an index is remembered for the same tensor, unchanged, and for no other."""
    made = harness.layer("RGCN", "triton")
    values = harness.inputs(made, harness.random_edges(30, 90, seed=4), 30)
    (name,) = [k for k, v in values.items() if isinstance(v, Tensor) and v.dtype is torch.int64 and k != "graph"]
    with torch.no_grad():
        made(**values)
        assert waits(lambda: made(**values)) == []
        values[name][3] = 0
        assert waits(lambda: made(**values)) == ["tolist"]
        assert waits(lambda: made(**values)) == []
        assert waits(lambda: made(**{**values, name: values[name].clone()})) == ["tolist"]
        values[name][3] = 99
        with pytest.raises(gdsl.InputError, match="99"):
            made(**values)
