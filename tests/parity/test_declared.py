"""Layers and modules as declarations: what follows from the body of a class, and what a program says of its parts."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from gdsl.language.parse import parse
from gdsl.nn.blueprint import Blueprint
from gdsl.nn.conv.programmed import Declared, Summed, Weighted
from gdsl.nn.declared import InitVar, declared, redraw, words

SQUARE = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
LAYERS = [
    kind for name in gdsl.nn._HOMES if inspect.isclass(kind := getattr(gdsl.nn, name)) and issubclass(kind, Declared)
]


@declared(shows="heads scale=factor")
class Scaled(nn.Module):
    """What a test declares."""

    in_channels: int
    heads: int = 2
    factor: float = 1.0
    bias: InitVar[bool] = True
    act: InitVar[Any] = None

    def _setup(self) -> None:
        self.lin = nn.Linear(self.in_channels, self.heads, bias=self.bias)
        self.act = self.act or torch.relu

    reset_parameters = redraw


def test_a_constructor_follows_from_a_body() -> None:
    assert str(inspect.signature(Scaled)) == (
        "(in_channels: 'int', heads: 'int' = 2, factor: 'float' = 1.0, bias: 'bool' = True, act: 'Any' = None)"
    )
    made = Scaled(3, factor=0.5, bias=False)
    assert repr(made) == "Scaled(3, heads=2, scale=0.5)"
    assert made.lin.bias is None and made.act is torch.relu
    assert not hasattr(made, "bias"), "an InitVar is not kept"
    assert not hasattr(Scaled, "heads"), "a default is no attribute of the class"
    with pytest.raises(TypeError, match=r"Scaled.__init__\(\) missing 1 required positional argument: 'in_channels'"):
        Scaled()
    with pytest.raises(TypeError, match="unexpected keyword argument 'head'"):
        Scaled(3, head=1)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert repr(other) == repr(made) and torch.equal(other.lin.weight, made.lin.weight)


def test_what_is_given_stays_although_it_is_what_there_was() -> None:
    """An argument that ``_setup`` gives back unchanged is kept: only what it leaves alone goes."""
    assert Scaled(3, act=torch.tanh).act is torch.tanh
    layer = gdsl.nn.TopKPooling(3, nonlinearity=torch.tanh)
    assert layer.select.act is torch.tanh
    assert gdsl.nn.TAGConv(3, 2, bias=None).bias is None


def test_draws_are_made_once_and_again() -> None:
    torch.manual_seed(0)
    made = Scaled(3)
    torch.manual_seed(0)
    nn.Linear(3, 2), made.reset_parameters()
    again = made.lin.weight.clone()
    torch.manual_seed(0)
    assert torch.equal(Scaled(3).lin.weight, again)


def test_types_are_known() -> None:
    for kind in (gdsl.nn.TAGConv, gdsl.nn.GATConv, gdsl.nn.GINConv, gdsl.nn.LayerNorm):
        found = typing.get_type_hints(kind.__init__)
        assert list(found) == list(inspect.signature(kind).parameters)
    assert typing.get_type_hints(gdsl.nn.TAGConv.__init__)["K"] is int
    assert Declared.__mro__[1].__dataclass_transform__["field_specifiers"]  # for those who check types


def test_words() -> None:
    class Shown(nn.Module):
        __repr__ = words("{self.lin.in_features}, heads={self.heads}")

        def __init__(self) -> None:
            super().__init__()
            self.lin, self.heads = nn.Linear(3, 2), 4

    assert repr(Shown()) == "Shown(3, heads=4)"


class Mine(gdsl.nn.TAGConv):
    """A user's layer: annotations of its own are no arguments, and its constructor is its own."""

    extra: int = 3

    def __init__(self, size: int):
        super().__init__(size, size, K=1, aggr="mean")
        self.extra = 5


class Plain(gdsl.nn.GCNConv):
    extra: int = 3


def test_classes_of_users() -> None:
    made = Mine(4)
    assert made.extra == 5 and repr(made) == "Mine(4, 4, K=1)"
    x = torch.randn(4, 4)
    plain = gdsl.nn.TAGConv(4, 4, K=1, aggr="mean")
    plain.load_state_dict(made.state_dict())
    assert torch.equal(made(x, SQUARE), plain(x, SQUARE))
    assert inspect.signature(Plain) == inspect.signature(gdsl.nn.GCNConv)
    assert Plain(4, 2)(x, SQUARE).shape == (4, 2)


def test_settings_count_at_once() -> None:
    """An attribute is an argument of the program in each call."""
    layer, x = gdsl.nn.APPNP(2, 0.1), torch.randn(4, 3)
    before = layer(x, SQUARE)
    layer.alpha, layer.K = 0.4, 3
    assert torch.allclose(layer(x, SQUARE), gdsl.nn.APPNP(3, 0.4)(x, SQUARE))
    assert not torch.allclose(layer(x, SQUARE), before)
    layer.bias = torch.nn.Parameter(torch.ones(3))  # the program has none
    assert layer(x, SQUARE).shape == (4, 3)
    tag = gdsl.nn.TAGConv(3, 2, bias=False)
    first = tag(x, SQUARE)
    tag.bias = nn.Parameter(torch.ones(2))
    assert torch.allclose(tag(x, SQUARE), first + 1)
    tag.bias = None
    assert torch.allclose(tag(x, SQUARE), first)


TEXT = """
layer Parts(out_channels, K = 2, heads = 1, shared = false, bias = true) {
    linear lins[K+1](in_channels -> out_channels, bias = bias) ~ glorot
    linear skip(in_channels -> heads*out_channels) = none
    if shared { const count = 1 } else { const count = max(K, 3) }
    param weight[count, out_channels, out_channels'] ~ linear(K * out_channels)
    if heads > 1 and not shared { param att[1, heads] ~ normal(0, 0.1) } else { buffer att[1, heads] ~ ones }
    param bias[heads*out_channels/2] ~ zeros = none
    node x[in_channels]
    return x
}
"""


def test_a_blueprint_reads_declarations() -> None:
    blueprint = Blueprint(parse(TEXT).layer())
    assert [part.name for part in blueprint.parts] == ["lins", "skip", "weight", "att", "att", "bias"]
    assert blueprint.lazy == (("lins", "x"), ("skip", "x"))
    values = {**blueprint.arguments, "in_channels": 3, "out_channels": 4, "heads": 2, "bias": False}
    parts = {p.name: p for p in blueprint.parts if p.there(values)}
    assert parts["att"].role == "param" and parts["att"].shape(values) == (1, 2)
    assert parts["weight"].shape(values) == (3, 4, 4) and parts["bias"].shape(values) == (4,)
    lins = parts["lins"].make(values)
    assert len(lins) == 3 and lins[0].bias is None and lins[0].weight_initializer == "glorot"
    weight = parts["weight"].make(values)
    torch.manual_seed(0)
    parts["weight"].draw(weight, values)
    bound = 1 / (2 * 4) ** 0.5
    torch.manual_seed(0)
    assert torch.equal(weight, torch.empty(3, 4, 4).uniform_(-bound, bound))
    others = {**values, "heads": 1, "shared": True}
    assert {p.name: p.role for p in blueprint.parts if p.there(others)}["att"] == "buffer"
    assert parts["weight"].shape(others) == (1, 4, 4)


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind._has_parts], ids=lambda kind: kind.__name__)
def test_parameters_are_those_of_the_program(kind: Any) -> None:
    """Each name in a layer's state is one that its program declares."""
    needed = {"K": 2, "alpha": 0.1, "in_channels": 8, "out_channels": 8, "channels": 8, "dim": 2, "kernel_size": 3,
              "num_layers": 2, "num_relations": 2, "first_aggr": True, "filter_size": 2, "space_dimensions": 2,
              "propagate_dimensions": 2, "k": 2, "edge_dim": 2, "hidden_channels": 2, "nn": nn.Identity(),
              "mlp_h": nn.Identity(), "mlp_f": nn.Identity(), "mlp_g": nn.Identity(), "aggregators": ["mean"],
              "scalers": ["identity"], "deg": torch.tensor([1, 2])}  # fmt: skip
    asked = [p.name for p in inspect.signature(kind).parameters.values() if p.default is p.empty and p.name != "kwargs"]
    made = kind(**{name: needed[name] for name in asked})
    declared = {part.name for part in Blueprint(parse(_text(made)).layer()).parts}
    other = {"lin_pos_l", "lin_pos_r", "lin_neg_l", "lin_neg_r", "kernel_size", "is_open_spline"}
    assert {name.split(".")[0] for name in made.state_dict()} <= {*declared, "aggr_module"} | other


def _text(made: Any) -> str:
    file = Path(gdsl.nn.__file__).parent / "programs" / f"{made.program_name}.gdsl"
    return file.read_text(encoding="utf-8")


def test_families_are_no_layers() -> None:
    for kind in (Declared, Summed, Weighted):
        assert not hasattr(kind, "program_name")


def test_sizes_that_come_with_the_first_call_have_the_draws_of_the_program() -> None:
    x, e = torch.randn(4, 5), torch.rand(4, 2)
    for name, args, call in (("GMMConv", (4, 2, 3), [e]), ("SplineConv", (4, 2, 3), [e]), ("ARMAConv", (4, 2, 2), [])):
        known, lazy = getattr(gdsl.nn, name)(5, *args), getattr(gdsl.nn, name)(-1, *args)
        torch.manual_seed(0)
        lazy(x, SQUARE, *call)
        shapes = [{k: v.shape for k, v in made.state_dict().items()} for made in (lazy, known)]
        assert shapes[0] == shapes[1]
        lazy.load_state_dict(known.state_dict())
        assert torch.allclose(lazy(x, SQUARE, *call), known(x, SQUARE, *call))


def test_no_annotation_is_forgotten() -> None:
    """A tensor that is given is no parameter: it is what the user had."""
    deg = torch.tensor([1, 2, 3])
    made: Any = gdsl.nn.PNAConv(4, 4, ["mean"], ["identity"], deg)
    assert not any(isinstance(v, Tensor) for v in vars(made).values())


@pytest.mark.parametrize("kwargs", [{}, {"heads": 2}, {"heads": 2, "use_attention": True}, {"heads": 3, "bias": False}])
def test_a_bias_of_heads_that_there_are_not(kwargs: dict[str, Any]) -> None:
    """torch_geometric's HypergraphConv has a bias for all heads, also where there is one."""
    states = []
    for library in (gdsl.nn, pytest.importorskip("torch_geometric.nn")):
        torch.manual_seed(0)
        states.append(library.HypergraphConv(5, 4, **kwargs).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
