"""Settings that change from step to step: each value counts at once, and no step compiles a program of its own."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn as ours
from gdsl.kept import MOST, Kept
from gdsl.runtime.autograd import Runner

theirs = pytest.importorskip("torch_geometric.nn")

VALUES = (0.2, 0.35, 0.1, 0.0, 0.7, -0.3, 0.2, 1.0)


def edges() -> Tensor:
    return torch.randint(12, (2, 40), generator=torch.Generator().manual_seed(3))


def features(seed: int = 4) -> Tensor:
    return torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that were compiled, forward and backward."""
    found: list[str] = []
    compile = Runner.compile

    def counted(self: Runner, program: Any, visible: int) -> Any:
        found.append(program.name)
        return compile(self, program, visible)

    monkeypatch.setattr(Runner, "compile", counted)
    return found


@dataclass(frozen=True)
class Setting:
    make: Callable[[Any], nn.Module]
    change: Callable[[Any, float], Any]
    pair: bool = False

    def call(self, layer: nn.Module, x: Tensor) -> Tensor:
        result: Tensor = layer(x, features(5), edges()) if self.pair else layer(x, edges())
        return result


def _set(*path: str) -> Callable[[Any, float], None]:
    def change(layer: Any, value: float) -> None:
        for name in path[:-1]:
            layer = getattr(layer, name)
        setattr(layer, path[-1], value)

    return change


def _network(name: str) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6 if name == "gin" else 12, 5), nn.LeakyReLU(0.1), nn.Linear(5, 4))


SETTINGS: dict[str, Setting] = {
    "GAT slope": Setting(lambda n: n.GATConv(6, 4, heads=2), _set("negative_slope")),
    "GATv2 slope": Setting(lambda n: n.GATv2Conv(6, 4, heads=2), _set("negative_slope")),
    "GCN2 alpha": Setting(lambda n: n.GCN2Conv(6, alpha=0.1), _set("alpha"), pair=True),
    "APPNP alpha": Setting(lambda n: n.APPNP(3, alpha=0.1), _set("alpha")),
    "slope in a part": Setting(lambda n: n.GINConv(_network("gin")), _set("nn", "1", "negative_slope")),
    "slope in a part of EdgeConv": Setting(lambda n: n.EdgeConv(_network("edge")), _set("nn", "1", "negative_slope")),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_a_setting_counts_at_once_and_is_compiled_once(name: str, backend: str, compiled: list[str]) -> None:
    setting = SETTINGS[name]
    torch.manual_seed(1)
    layer, twin = setting.make(ours).double(), setting.make(theirs).double()
    layer.backend = backend  # type: ignore[assignment]
    twin.load_state_dict(layer.state_dict())
    counts = []
    for value in VALUES:
        results = []
        for made in (layer, twin):
            setting.change(made, value)
            x = features().requires_grad_()
            y = setting.call(made, x)
            y.square().sum().backward()
            results.append([y, x.grad, *(p.grad for p in made.parameters())])
            made.zero_grad()
        for found, wanted in zip(*results, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
        counts.append(len(compiled))
    # The first value is a constant of the kernels, and all others are inputs of another program.
    assert counts[1] > counts[0]
    assert counts[2:] == counts[1:2] * (len(VALUES) - 2)


def test_a_first_value_is_a_constant() -> None:
    """One layer knows nothing of another one with other settings."""
    sources = []
    for slope in (0.2, 0.3):
        layer = ours.GATConv(6, 4, negative_slope=slope)
        layer(features().float(), edges())
        sources.append([k.source for k in layer.kernels])
    assert [s.replace("0.3", "0.2") for s in sources[1]] == sources[0]
    assert not any("number" in s for s in sources[0])


def test_the_look_inside_shows_the_input() -> None:
    layer = ours.GATConv(6, 4)
    for slope in (0.2, 0.3):
        layer.negative_slope = slope
        layer(features().float(), edges())
    assert "number" in layer.explain() and any("number" in k.source for k in layer.kernels)


@pytest.mark.parametrize("name", ["GATConv", "TransformerConv"])
def test_a_rate_of_dropout_on_a_schedule(name: str, compiled: list[str]) -> None:
    layer = getattr(ours, name)(6, 4, dropout=0.5, backend="cpp")
    counts, kept = [], []
    for rate in (0.5, 0.4, 0.3, 0.2, 0.1):
        layer.dropout = rate
        twin = copy.deepcopy(layer)
        results = []
        for made in (layer, twin):
            torch.manual_seed(7)
            results.append(made(features().float(), edges()))
        # What is an input here is a constant there.
        torch.testing.assert_close(*results)
        kept.append(results[0])
        counts.append(len(compiled))
    assert not torch.equal(kept[0], kept[1])
    # The twin compiles in each step, this layer in the first two.
    steps = [b - a for a, b in itertools.pairwise(counts)]
    assert steps[1:] == [steps[0] // 2] * 3


TEXT = """
    layer Slope(d = 6, slope = 0.2, shift = 1.0) {
        node x[d]
        module act
        aggregate y = sum(act(leaky_relu(x[j], slope) + shift))
        return y
    }
"""


def test_a_layer_in_text(compiled: list[str]) -> None:
    layer = gdsl.compile(TEXT, act=nn.ELU(1.0), backend="cpp")
    counts, x, e = [], features(), edges()
    for k, value in enumerate(VALUES):
        layer.arguments["slope"] = value
        layer.act.alpha = 1.0 + k
        wanted = nn.functional.leaky_relu(x[e[0]], value) + 1.0
        wanted = torch.zeros(12, 6, dtype=torch.float64).index_add(0, e[1], nn.functional.elu(wanted, 1.0 + k))
        torch.testing.assert_close(layer(x, e), wanted, rtol=1e-12, atol=1e-12)
        counts.append(len(compiled))
    assert counts[2:] == [counts[1]] * (len(VALUES) - 2)


def test_layers_in_text_of_several_stages(compiled: list[str]) -> None:
    """A part that runs as it is, between kernels whose numbers change."""
    layer = gdsl.compile(TEXT, act=nn.Softshrink(0.1), backend="cpp")
    x, e = features(), edges()
    for k, value in enumerate(VALUES):
        layer.arguments["slope"] = value
        wanted = nn.functional.softshrink(nn.functional.leaky_relu(x[e[0]], value) + 1.0, 0.1)
        torch.testing.assert_close(layer(x, e), torch.zeros_like(x).index_add(0, e[1], wanted))
        if k == 1:
            count = len(compiled)
    assert len(compiled) == count


def test_what_half_precision_has_not_stays_a_constant() -> None:
    layer = gdsl.compile(TEXT, act=nn.Identity(), backend="torch").half()
    x, e = features().half(), edges()
    for value in (0.5, 1e-6, 1e-7):
        layer.arguments["slope"] = value
        wanted = nn.functional.leaky_relu(x[e[0]].double(), value) + 1.0
        wanted = torch.zeros(12, 6, dtype=torch.float64).index_add(0, e[1], wanted)
        torch.testing.assert_close(layer(x, e).double(), wanted, rtol=1e-2, atol=1e-2)
    assert not layer._ran()[0].compiled.numbers


def test_what_is_remembered_is_bounded() -> None:
    kept = Kept()
    for k in range(3 * MOST):
        assert kept.once(k, lambda k=k: k) == k  # type: ignore[misc]
    assert len(kept) == MOST
    layer = ours.APPNP(1, alpha=0.1, backend="torch")
    for k in range(300):
        layer.alpha = 0.1 + k / 1000
        layer(features()[:, :1], edges())
    assert len(layer._texts) <= MOST
