"""Parts that users prune, parametrise, hook, or put something else in the place of, over all tables of the layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import gdsl.nn
from tests.parity import drop_in
from tests.parity.drop_in import Case
from tests.parity.test_nn_lazy import FAMILIES
from tests.programs import harness

TABLES = [case for name in FAMILIES for case in import_module(f"tests.parity.test_nn_{name}").CASES]
pyg = pytest.importorskip("torch_geometric.nn")


class Double(nn.Module):
    """A parametrisation."""

    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


class Adapted(nn.Module):
    """A linear map and a map of low rank beside it. It has nothing of a linear map's attributes."""

    def __init__(self, lin: Any):
        super().__init__()
        self.lin = lin
        out, inner = lin.weight.shape
        self.a, self.b = (nn.Parameter(torch.ones(*s, dtype=torch.float64) / 3) for s in ((inner, 1), (1, out)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin(x) + x @ self.a @ self.b
        return y


# Read by torch's attention as weights, not called.
READ_AS_WEIGHTS = nn.modules.linear.NonDynamicallyQuantizableLinear
# Each layer is tried with each change by --slow, and these with some by default.
FAST = ("GATConv", "TransformerConv", "PNAConv", "EGConv", "ARMAConv", "FAConv", "HEATConv", "SuperGATConv", "PDNConv")
# torch_geometric's layers call the `forward` of their maps, where no hook is called: not compared.
HOOKLESS = ("TAGConv", "ChebConv", "MixHopConv")


def _linear_maps(layer: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Each linear map, with its parent and its name there."""
    for parent in list(layer.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.Linear | pyg.Linear) and type(part) is not READ_AS_WEIGHTS:
                yield parent, name, part


def _plain(lin: Any) -> nn.Linear:
    """torch's own linear map, of the same numbers."""
    made = nn.Linear(lin.weight.shape[1], lin.weight.shape[0], lin.bias is not None, dtype=torch.float64)
    made.load_state_dict(lin.state_dict())
    return made


def _for_each(change: Callable[[Any], Any]) -> Callable[[nn.Module], None]:
    def apply(layer: nn.Module) -> None:
        for parent, name, lin in _linear_maps(layer):
            made = change(lin)
            if isinstance(made, nn.Module) and made is not lin:
                setattr(parent, name, made)

    return apply


def _own_parameters(layer: nn.Module) -> None:
    for name in [name for name, value in layer._parameters.items() if value is not None]:
        parametrize.register_parametrization(layer, name, Double())


def _old_norm(lin: Any) -> None:
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(lin)


CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "adapters": _for_each(Adapted),
    "own parameters parametrised": _own_parameters,
    "pruned": _for_each(lambda lin: prune.l1_unstructured(lin, "weight", amount=0.3)),
    "plain linear maps": _for_each(_plain),
    "hooks": _for_each(lambda lin: lin.register_forward_hook(lambda m, args, y: 3 * y) and None),
    "parametrised": _for_each(lambda lin: parametrize.register_parametrization(lin, "weight", Double())),
    "weight norm": _for_each(lambda lin: parametrizations.weight_norm(lin)),
    "old weight norm": _for_each(_old_norm),
}


def _compare(case: Case, change: str) -> None:
    made = drop_in.pair(case, {})
    assert made is not None
    ours, theirs = made
    drop_in.same_state(case, ours, theirs)
    drop_in.set_backend(ours, "torch")
    first, graph, values = drop_in.draw(case, 1)
    drop_in.outcome(ours, first, graph, values)  # the program of the layer as it was does not stay
    for layer in made:
        CHANGES[change](layer)
    with torch.no_grad():  # a weight that was computed before the call is not the one of the call
        for layer in made:
            for p in layer.parameters():
                p.mul_(1.25)
    try:
        expected = drop_in.outcome(theirs, first, graph, values)
    except (ValueError, AssertionError, NotImplementedError, AttributeError, TypeError) as error:
        pytest.skip(f"torch_geometric does not take it: {error}")
    found = drop_in.outcome(ours, first, graph, values)
    assert found.keys() == expected.keys()
    for part, value in expected.items():
        gap = harness.difference([found[part].double()], [value.double()])
        assert gap < case.exact, f"{part} is {gap:.1e} off"


def _tests() -> list[Any]:
    first = {case.layer: case for case in reversed(TABLES)}
    fast = {
        (first[name].id, change) for name in FAST for change in ("adapters", "own parameters parametrised", "pruned")
    }
    return [
        pytest.param(
            case, change, id=f"{case.id}, {change}", marks=[] if (case.id, change) in fast else pytest.mark.slow
        )
        for change in CHANGES
        for case in TABLES
        if case.note != "refused" and case.id != "GATv2Conv source"
        if case.layer not in HOOKLESS or change not in ("pruned", "hooks", "old weight norm")
    ]


@pytest.mark.parametrize("layer", HOOKLESS)
def test_hooks_that_torch_geometric_does_not_call(layer: str) -> None:
    """Pruning is a hook: after a step the weights of the call are those of the parameters as they are now."""
    case = next(case for case in TABLES if case.layer == layer)
    pruned, plain = drop_in.build(case, gdsl.nn, {}), drop_in.build(case, gdsl.nn, {})
    first, graph, values = drop_in.draw(case, 1)
    for conv in (pruned, plain):
        drop_in.set_backend(conv, "torch")
    CHANGES["pruned"](pruned)
    pruned(*first, graph, **values)
    with torch.no_grad():
        for p in pruned.parameters():
            p.mul_(1.25)
        for name, p in plain.named_parameters():
            state = pruned.state_dict()
            kept = state[f"{name}_orig"] * state[f"{name}_mask"] if f"{name}_orig" in state else state[name]
            p.copy_(kept)
    torch.testing.assert_close(pruned(*first, graph, **values), plain(*first, graph, **values))


@pytest.mark.parametrize(("case", "change"), _tests())
def test_changed_parts(case: Case, change: str) -> None:
    """As torch_geometric's layer with the same change: values and gradients by inputs and parameters."""
    _compare(case, change)
