"""Linear maps that a layer makes itself: their names, their draws, what may take their place."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import gdsl
from gdsl.nn.aggr import MedianAggregation

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 0, 0, 5, 5, 2]])

LINEAR = "layer L(d, k) { linear lin(d -> k) node x[d] aggregate a = sum(x[j]) update y = lin(x + a) }"
MLP = """
layer L(d, k) {
    mlp phi(d -> 5 -> k, silu)
    node x[d]
    aggregate a = sum(x[j])
    update y = phi(x + a)
}
"""
PARTS = """
layer Parts(d, k, bias = true) {
    linear lins[2](d -> d)
    mlp phi(2*d -> 4 -> k, leaky_relu(0.2), norm = batch_norm, dropout = 0.5)
    linear res(d -> k) ~ glorot = none
    param bias[k] ~ zeros = none
    module aggr = mean
    module act = none
    node x[d]
    h = lins[1](lins[0](x))
    message m = phi(cat(h[i], h[j]))
    aggregate y = aggr(m)
    if act { y = act(y) }
    if res { y = y + res(x) }
    if bias { y = y + bias }
    return y
}
"""


def features(d: int = 3) -> Tensor:
    return torch.randn(6, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def summed(x: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add(0, EDGES[1], x[EDGES[0]])


@pytest.mark.parametrize(
    ("text", "name", "make"),
    [
        (LINEAR, "lin", lambda: nn.Linear(3, 4)),
        (LINEAR.replace("-> k)", "-> k, bias = false)"), "lin", lambda: nn.Linear(3, 4, bias=False)),
        (MLP, "phi", lambda: nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 4))),
        (
            MLP.replace("silu", "elu(0.7), norm = layer_norm"),
            "phi",
            lambda: nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.ELU(0.7), nn.Linear(5, 4)),
        ),
    ],
)
def test_a_part_is_what_torch_makes(text: str, name: str, make: Any) -> None:
    """The same classes, names in the state, draws from a seed (of the first and of later times) and values."""
    torch.manual_seed(3)
    made = gdsl.compile(text, d=3, k=4)
    torch.manual_seed(3)
    twin = make()
    assert repr(getattr(made, name)) == repr(twin)
    assert list(made.state_dict()) == [f"{name}.{key}" for key in twin.state_dict()]
    for again in range(2):
        for key, value in twin.state_dict().items():
            assert torch.equal(made.state_dict()[f"{name}.{key}"], value), (again, key)
        torch.manual_seed(4)
        made.reset_parameters()
        torch.manual_seed(4)
        for layer in twin.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    x = features()
    assert torch.allclose(made.double()(x, EDGES), twin.double()(x + summed(x)), atol=1e-12)


@pytest.mark.parametrize(
    ("init", "bias", "draw"),
    [
        ("~ glorot", "", lambda m: nn.init.xavier_uniform_(m.weight)),
        ("~ glorot", ", bias = zeros", lambda m: (nn.init.xavier_uniform_(m.weight), nn.init.zeros_(m.bias))),
        ("~ normal(0, 0.1)", ", bias = constant(2)", lambda m: (m.weight.normal_(0, 0.1), m.bias.fill_(2.0))),
    ],
)
def test_draws(init: str, bias: str, draw: Any) -> None:
    text = LINEAR.replace("(d -> k)", f"(d -> k{bias}) {init}")
    torch.manual_seed(3)
    made = gdsl.compile(text, 3, 4)
    twin = nn.Linear(3, 4)
    torch.manual_seed(3)
    with torch.no_grad():
        draw(twin)
    assert torch.allclose(made.lin.weight, twin.weight, rtol=1e-6)
    if bias:
        assert torch.equal(made.lin.bias, twin.bias)
    else:
        assert 0 < made.lin.bias.abs().max() < 3**-0.5


def test_a_map_whose_draw_is_given_takes_that_of_its_fans() -> None:
    made = gdsl.compile(LINEAR.replace("(d -> k)", "(d -> k, bias = false) ~ glorot"), 1000, 2000)
    bound = (6 / 3000) ** 0.5
    assert 0.99 * bound < made.lin.weight.abs().max() <= bound


def test_parts_are_there_as_arguments_say() -> None:
    shown = str(inspect.signature(gdsl.define(PARTS)))
    assert shown == "(d, k, bias=True, res=None, aggr='mean', act=None, lins=None, phi=None, *, backend='auto')"
    without = gdsl.compile(PARTS, 3, 4, bias=False)
    assert without.bias is None and without.res is None
    keys = ["lins.0.weight", "lins.0.bias", "lins.1.weight", "lins.1.bias", "phi.0.weight", "phi.0.bias"]
    norm = [f"phi.1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    assert list(without.state_dict()) == [*keys, *norm, "phi.4.weight", "phi.4.bias"]
    every = gdsl.compile(PARTS, 3, 4, res=True)
    assert list(every.state_dict()) == ["bias", *without.state_dict(), "res.weight", "res.bias"]
    with pytest.raises(gdsl.LanguageError, match="`res` is there or not"):
        gdsl.compile(PARTS, 3, 4, res=2)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("how", ["mean", "sum", "max"])
def test_a_name_stands_for_a_function(how: str, backend: str) -> None:
    made = gdsl.compile(PARTS, 3, 4, aggr=how, act="relu", res=True, backend=backend).double().eval()
    x = features()
    h = made.lins[1](made.lins[0](x))
    m = made.phi(torch.cat([h[EDGES[1]], h[EDGES[0]]], 1))
    index = EDGES[1][:, None].expand_as(m)
    reduced = torch.zeros(6, 4, dtype=x.dtype).scatter_reduce(
        0, index, m, {"mean": "mean", "sum": "sum", "max": "amax"}[how], include_self=False
    )
    assert torch.allclose(made(x, EDGES), reduced.relu() + made.res(x) + made.bias, atol=1e-12)


def test_a_name_of_no_function() -> None:
    with pytest.raises(gdsl.LanguageError, match=r"the name of a function, not 'meen'(.|\n)*did you mean `mean`"):
        gdsl.compile(PARTS, 3, 4, aggr="meen")


def test_a_module_takes_the_place_of_a_part() -> None:
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 4))
    before = copy.deepcopy(mine.state_dict())
    made = gdsl.compile(LINEAR, 3, 4, lin=mine).double()
    assert made.lin is mine
    assert all(torch.equal(v, before[k].double()) for k, v in mine.state_dict().items())  # nobody drew it anew
    x = features()
    assert torch.allclose(made(x, EDGES), mine(x + summed(x)), atol=1e-12)
    with pytest.raises(gdsl.LanguageError, match="gives 5 places, and `k` has another size"):
        gdsl.compile(LINEAR, 3, 4, lin=nn.Linear(3, 5))
    with pytest.raises(gdsl.LanguageError, match="takes 2 features"):
        gdsl.compile(LINEAR, 3, 4, lin=nn.Linear(2, 4))
    with pytest.raises(gdsl.InputError, match=r"must be a torch\.nn\.Module, not str"):
        gdsl.compile(LINEAR, 3, 4, lin="relu")


def test_an_aggregation_takes_the_place_of_a_function() -> None:
    torch.manual_seed(0)
    made = gdsl.compile(PARTS, 3, 4, aggr=MedianAggregation()).double().eval()
    torch.manual_seed(0)
    named = gdsl.compile(PARTS, 3, 4, aggr="median").double().eval()
    assert torch.allclose(made(features(), EDGES), named(features(), EDGES))


FREE = "layer L { node x[d] mlp phi(2*d -> hidden -> out, relu) update y = max(phi(cat(x[i], x[j] - x[i]))) }"


def test_sizes_that_no_argument_gives_are_given_when_compiling() -> None:
    made = gdsl.compile(FREE, d=3, hidden=5, out=2).double()
    assert [tuple(p.shape) for p in made.parameters()] == [(5, 6), (5,), (2, 5), (2,)]
    assert made(features(), EDGES).shape == (6, 2)
    for given in ({}, {"d": 3}, {"d": 3, "hidden": 2}):
        with pytest.raises(gdsl.LanguageError, match=r"is (not known before|only known when)(.|\n)*when compiling"):
            gdsl.compile(FREE, **given)
    passed = gdsl.compile(FREE, phi=nn.Linear(6, 9)).double()
    assert passed(features(), EDGES).shape == (6, 9)
    assert str(passed.program.outputs[0][1].type) == "node[out]"


def test_copies_and_pickles_have_their_own() -> None:
    made = gdsl.define(PARTS)(3, 4, res=True).double().eval()
    expected = made(features(), EDGES)
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(twin(features(), EDGES), expected)
        torch.manual_seed(1)
        twin.reset_parameters()
        torch.manual_seed(1)
        made_again = copy.deepcopy(made)
        made_again.reset_parameters()
        assert torch.equal(twin.phi[0].weight, made_again.phi[0].weight)
        assert not torch.equal(twin.phi[0].weight, made.phi[0].weight)


def test_a_part_may_be_replaced_hooked_and_computed() -> None:
    made = gdsl.compile(LINEAR, 3, 4).double()
    x = features()
    made(x, EDGES)
    made.lin = nn.Linear(3, 4).double()
    assert torch.allclose(made(x, EDGES), made.lin(x + summed(x)), atol=1e-12)
    handle = made.lin.register_forward_hook(lambda module, args, result: 2 * result)
    assert torch.allclose(made(x, EDGES), made.lin(x + summed(x)), atol=1e-12)
    handle.remove()
    nn.utils.parametrizations.weight_norm(made.lin)
    assert torch.allclose(made(x, EDGES), made.lin(x + summed(x)), atol=1e-12)


def test_pruned_maps_are_not_drawn() -> None:
    made = gdsl.compile(LINEAR, 3, 4)
    prune.l1_unstructured(made.lin, "weight", 2)
    with pytest.raises(gdsl.InputError, match=r"`lin\.weight` is computed from other tensors"):
        made.reset_parameters()


def test_batch_norm_in_training_counts_once() -> None:
    text = MLP.replace("silu", "relu, norm = batch_norm")
    torch.manual_seed(0)
    made = gdsl.compile(text, d=3, k=4).double()
    twin = copy.deepcopy(made.phi)
    x = features()
    assert torch.allclose(made(x, EDGES), twin(x + summed(x)), atol=1e-12)
    assert made.phi[1].num_batches_tracked == 1
    assert torch.allclose(made.phi[1].running_mean, twin[1].running_mean)


def test_a_part_that_was_taken_away_is_named() -> None:
    text = "layer L(d, root = false) { node x[d] linear root(d -> d) = none"
    text += " if root { update y = root(x) } else { update y = x } }"
    made = gdsl.compile(text, d=3, root=True)
    made.root = None
    with pytest.raises(gdsl.InputError, match="the layer has no part `root`"):
        made(features(), EDGES)


@pytest.mark.parametrize("part", ["linear phi(d -> d)", "mlp phi(d -> d -> d, relu)", "linear phi(d -> d, bias=false)"])
def test_none_is_no_map_of_the_layer_s_own(part: str) -> None:
    """It is what leaves out a part that may be left out, and not what asks for one."""
    text = f"layer L(d) {{ node x[d] {part} update y = phi(x) }}"
    with pytest.raises(gdsl.InputError, match="`phi` cannot be left out, and is not None: leave the argument out"):
        gdsl.compile(text, d=3, phi=None)
    assert gdsl.compile(text, d=3).phi is not None
    assert gdsl.compile(text, d=3, phi=nn.Linear(3, 3)).phi.weight.shape == (3, 3)
    optional = text.replace(part, f"{part} = none").replace("phi(x)", "x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gdsl.LanguageWarning)
        assert gdsl.compile(optional, d=3, phi=None).phi is None


def test_what_is_left_out_is_none_of_its_kind() -> None:
    text = """layer L(d) {
        node x[d]
        linear lin(d -> d) = none
        mlp phi(d -> d) = none
        buffer table[d] ~ ones = none
        param bias[d] ~ zeros = none
        y = x
        if lin { y = lin(y) }
        if phi { y = phi(y) }
        if table { y = y * table }
        if bias { y = y + bias }
        return y
    }"""
    for there in (False, True):
        made = gdsl.compile(text, d=3, **dict.fromkeys(("lin", "phi", "table", "bias"), there))
        kinds = [list(getattr(made, f"_{kind}")) for kind in ("parameters", "buffers", "modules")]
        assert kinds == [["bias"], ["table"], ["lin", "phi"]]
        assert (made.lin is None) is not there
    made = gdsl.compile(text, d=3)
    made.lin = nn.Linear(3, 3)  # as in a module of torch's own that has None there
    assert dict(made.named_children()).keys() == {"lin"}


@pytest.mark.parametrize("declared", ["module act", "module act = relu", "linear act(d -> d)"])
def test_a_function_is_no_module(declared: str) -> None:
    text = f"layer L(d) {{ node x[d] {declared} update y = act(x) }}"
    for function in (torch.tanh, nn.functional.gelu, lambda x: x):
        with pytest.raises(gdsl.InputError, match=r"not the function .*: make a module whose `forward` calls it"):
            gdsl.compile(text, d=3, act=function)
    with pytest.raises(gdsl.InputError, match="not the class Tanh"):
        gdsl.compile(text, d=3, act=nn.Tanh)
