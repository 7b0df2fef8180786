"""Layers that layers call: what a call means, whose parameters it has, which graph it runs on, and what is refused."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl import nn as layers
from gdsl.language.forms import SPECIAL
from gdsl.language.functions import FORMS
from gdsl.language.imports import library
from gdsl.language.library_calls import CLASSES

GRAPH = torch.tensor([[0, 1, 2, 3, 3, 1, 4, 2, 2], [1, 0, 1, 2, 3, 4, 0, 2, 0]])
N, E = 5, GRAPH.shape[1]

BLOCK = """
layer Block(k, slope = 0.0) {
    linear lin(d -> k)
    param b[k] ~ normal
    node x[d]
    edge w = 1
    update y = leaky_relu(lin(x) + sum(w * lin(x)[j]), slope) + b
}
"""


def made(text: str, *args: Any, **kwargs: Any) -> gdsl.Layer:
    torch.manual_seed(0)
    return gdsl.compile(text, *args, backend="torch", **kwargs).double()


def block(m: Any, x: Tensor, w: Tensor | None = None, slope: float = 0.0) -> Tensor:
    h = torch.nn.functional.linear(x, m.lin.weight, m.lin.bias)
    near = h[GRAPH[0]] if w is None else h[GRAPH[0]] * w[:, None]
    return torch.nn.functional.leaky_relu(h + torch.zeros_like(h).index_add(0, GRAPH[1], near), slope) + m.b


def inputs(*sizes: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randn(n, dtype=torch.float64, generator=random) for n in sizes]


def message(text: str, **kwargs: Any) -> str:
    with pytest.raises(gdsl.GdslError) as caught:
        gdsl.compile(text, **kwargs)
    return str(caught.value)


# ------------------------------------------------------------------------------------- parameters


NET = (
    BLOCK
    + """
layer Net(hidden, K = 2) {
    use first = Block(2 * hidden, slope = 0.1)
    use rest[K] = Block(2 * hidden)
    node x[inside]
    edge w = 1
    h = first(x, w)
    for k in 0..K - 1 { h = h + rest[k](h) }
    h = first(Block(h; inside), w = w)
    update y = h + Block(x; 2 * hidden)
}
"""
)


def test_each_call_has_parameters_under_its_name_and_a_name_has_one_set() -> None:
    net = made(NET, hidden=3, inside=4, layer="Net")
    own = [f"{name}.{part}" for name in ("first", "rest.0", "rest.1", "Block", "Block_2") for part in
           ("b", "lin.weight", "lin.bias")]  # fmt: skip
    assert sorted(net.state_dict()) == sorted(own)
    (x,) = (torch.randn(N, 4, dtype=torch.float64, requires_grad=True),)
    (w,) = inputs(E)
    for weight in (None, w):
        h = block(net.first, x, weight, 0.1)
        for k in range(2):
            h = h + block(net.rest[k], h)
        h = block(net.first, block(net.Block, h), weight, 0.1)
        expected = h + block(net.Block_2, x)
        found = net(x, GRAPH) if weight is None else net(x, GRAPH, weight)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(y.square().sum(), [x, *net.parameters()]) for y in (found, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_copies_and_pickles_have_their_own() -> None:
    net = made(NET, hidden=3, inside=4, layer="Net")
    (x,) = (torch.randn(N, 4, dtype=torch.float64),)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x, GRAPH), net(x, GRAPH))
        with torch.no_grad():
            other.first.lin.weight.zero_()
        assert not torch.equal(other(x, GRAPH), net(x, GRAPH))
    before = {name: p.clone() for name, p in net.named_parameters()}
    net.reset_parameters()
    assert not any(torch.equal(p, before[name]) for name, p in net.named_parameters())
    with pytest.raises(gdsl.InputError, match="a part of another layer"):
        net.first(x)


def test_a_hook_on_what_is_never_called_is_refused() -> None:
    net = made(NET, hidden=3, inside=4, layer="Net")
    x = torch.randn(N, 4, dtype=torch.float64)
    seen = []
    net.first.lin.register_forward_hook(lambda *_: seen.append(1))
    net(x, GRAPH)
    assert seen
    net.rest[1].register_forward_hook(lambda *_: seen.append(2))
    with pytest.raises(gdsl.GdslError, match=r"`rest.1` has a hook"):
        net(x, GRAPH)


def test_a_call_without_a_name_has_parameters_for_one_time() -> None:
    text = BLOCK + "layer Net { node x[d] for n in 1..2 { x = Block(x; d) } update z = x }"
    assert "name it before the loop" in message(text, layer="Net", d=2)
    text = "use LGConv\nlayer Net { node x[d] for n in 1..2 { x = LGConv(x; normalize = false) } update z = x }"
    assert not made(text, d=2).state_dict()
    text = BLOCK + "layer Net(k) { node x[d] def f(v) = Block(v; k) update z = f(x) + f(2 * x) }"
    assert "in this layer" in message(text, layer="Net", k=2, d=2)
    text = BLOCK + "layer Net(k) { param Block[k] ~ ones node x[d] update z = Block + rename(x, d -> k) }"
    assert made(text, layer="Net", k=2, d=2)
    text = BLOCK + "layer Net(k) { linear Block_2(k -> k) node x[d] update z = Block_2(Block(Block(x; k); k)) }"
    assert "`Block_2` is declared twice" in message(text, layer="Net", k=2, d=2)


def test_programs_that_would_grow_without_end_are_refused() -> None:
    """Each layer calls two of the next: their statements count together, and nothing is gone through in vain."""
    pairs = "".join(
        f"layer {a}{n} {{ node x[d] update y = A{n + 1}(x) + B{n + 1}(x) }}\n" for n in range(30) for a in "AB"
    )
    last = "".join(f"layer {a}30 {{ node x[d] update y = x }}\n" for a in "AB")
    assert "more than 500 calls of layers" in message(pairs + last, layer="A0", d=2)
    chain = "".join(f"layer A{n} {{ node x[d] update y = A{n + 1}(x) }}\n" for n in range(2000))
    assert "more than 40 deep" in message(chain + "layer A2000 { node x[d] update y = x }", layer="A0", d=2)


# ------------------------------------------------------------------------------------------ library

LIBRARY = """
use GATConv, GCNConv, SAGEConv
layer GAT(in_channels, hidden, classes, p = 0.0) {
    use conv1 = GATConv(hidden, heads = 4, dropout = p)
    use conv2 = GATConv(classes, edge_dim = 2)
    node x[in_channels]
    edge e[2]
    h = elu(conv1(dropout(x, p)))
    y = conv2(h, e = e)
    return y
}
layer Mixed(in_channels, hidden, K = 2) {
    use convs[K] = GCNConv(hidden)
    node x[in_channels]
    edge w = 1
    h = x
    jumps = 0 * convs[0](x, w)
    for k in 0..K - 1 {
        h = relu(convs[k](h, w))
        jumps = max(jumps, h)
    }
    update y = GATConv(jumps; hidden)
}
layer Sage(in_channels, hidden) {
    use conv = SAGEConv(hidden)
    node x[in_channels]
    update y = conv(x)
}
"""


def test_layers_of_the_library_are_those_of_nn() -> None:
    x, e, w = (torch.randn(N, 6, dtype=torch.float64), torch.randn(E, 2, dtype=torch.float64), inputs(E)[0])
    net = made(LIBRARY, 6, 3, 2, layer="GAT")
    one = layers.GATConv(6, 3, heads=4, backend="torch").double()
    two = layers.GATConv(12, 2, edge_dim=2, backend="torch").double()
    one.load_state_dict(net.conv1.state_dict())
    two.load_state_dict(net.conv2.state_dict())
    expected = two(torch.nn.functional.elu(one(x, GRAPH)), GRAPH, e)
    torch.testing.assert_close(net(x, GRAPH, e), expected, rtol=1e-12, atol=1e-12)

    net = made(LIBRARY, 6, 3, layer="Mixed")
    convs = [layers.GCNConv(n, 3, backend="torch").double() for n in (6, 3)]
    last = layers.GATConv(3, 3, backend="torch").double()
    for twin, own in zip([*convs, last], [*net.convs, net.GATConv], strict=True):
        twin.load_state_dict(own.state_dict())
    for weight in (None, w.abs()):
        h, jumps = x, torch.zeros(N, 3, dtype=torch.float64)
        for conv in convs:
            h = conv(h, GRAPH, weight).relu()
            jumps = torch.maximum(jumps, h)
        found = net(x, GRAPH) if weight is None else net(x, GRAPH, weight)
        torch.testing.assert_close(found, last(jumps, GRAPH), rtol=1e-12, atol=1e-12)

    net = made(LIBRARY, 6, 3, layer="Sage")
    sage = layers.SAGEConv(6, 3, backend="torch").double()
    sage.load_state_dict(net.conv.state_dict())
    torch.testing.assert_close(net(x, GRAPH), sage(x, GRAPH), rtol=1e-12, atol=1e-12)


# What calls of the library's layers have besides 4 numbers out, and what the classes take; () and (4, 4) are the rest.
GIVEN: dict[str, tuple[str, tuple[Any, ...]]] = {
    "AGNNConv": ("", ()),
    "APPNP": ("; K = 2, alpha = 0.1", (2, 0.1)),
    "CGConv": ("", (4,)),
    "EdgeConv": ("; nn = two", (torch.nn.Linear(8, 4),)),
    "GINConv": ("; nn = one", (torch.nn.Linear(4, 4),)),
    "LGConv": ("", ()),
    "SSGConv": ("; 4, 0.1", (4, 4, 0.1)),
    "SimpleConv": ("", ()),
}


@pytest.mark.parametrize("name", sorted(library()))
def test_a_layer_of_the_library_is_that_of_nn_with_the_same_defaults(name: str) -> None:
    given, arguments = GIVEN.get(name, ("; 4", (4, 4)))
    parts = "linear _one(4 -> 4) linear _two(8 -> 4)"
    given = given.replace("two", "_two").replace("one", "_one")
    text = f"use {name}\nlayer Net {{ {parts} node x[4] update y = {name}(x{given}) }}"
    net, twin = made(text), getattr(layers, name)(*arguments, backend="torch").double()
    part = getattr(net, name, torch.nn.Module())
    left = twin.load_state_dict(part.state_dict(), strict=False)
    assert not left.unexpected_keys and all(key.startswith("nn.") for key in left.missing_keys)
    if left.missing_keys:
        twin.nn.load_state_dict((net._one if name == "GINConv" else net._two).state_dict())
    x = torch.randn(N, 4, dtype=torch.float64)
    torch.testing.assert_close(net(x, GRAPH), twin(x, GRAPH), rtol=1e-12, atol=1e-12)


def test_layers_that_their_classes_prepare_are_not_used() -> None:
    text = "use ChebConv\nlayer Net { node x[d] update y = ChebConv(x; 4) }"
    assert "gdsl.nn.ChebConv prepares what its program is given" in message(text)


# --------------------------------------------------------------------- inputs of the branches that are taken

BRANCHES = """
layer Either(k, two = false) {
    linear lin(d -> k)
    if two {
        source x[d]
        target z[d] = none
    } else { node x[d] }
    edge w = 1
    update y = sum(w * lin(x)[j])
}
layer Computed(k, mode = "plain") {
    full = mode == "full"
    node x[d]
    linear lin(d -> k)
    h = lin(x)
    if full { node bias[k] = none if bias { h = h + bias } }
    if not full { edge w = 1 h = w * h[j] } else { h = h[j] }
    update y = sum(h)
}
"""


@pytest.mark.parametrize(
    ("call", "args"),
    [("GraphConv", (4, 4)), ("LEConv", (4, 4)), ("SimpleConv", ())],
)
def test_inputs_by_place_are_those_that_the_layer_has_with_its_arguments(call: str, args: tuple[int, ...]) -> None:
    given = "; 4" if args else ""
    net = made(f"use {call}\nlayer Net {{ node x[4] edge w update y = {call}(x, w{given}) }}")
    twin = getattr(layers, call)(*args, backend="torch").double()
    twin.load_state_dict(getattr(net, call, torch.nn.Module()).state_dict())
    x, (w,) = torch.randn(N, 4, dtype=torch.float64), inputs(E)
    torch.testing.assert_close(net(x, GRAPH, w), twin(x, GRAPH, w), rtol=1e-12, atol=1e-12)


def test_inputs_by_place_where_a_branch_of_a_text_declares_them() -> None:
    x, (w,) = torch.randn(N, 3, dtype=torch.float64), inputs(E)
    for call in ("Either(x, w; 2)", "Computed(x, w; 2)", "Either(x, exp(log(w)); k = 2)"):
        net = made(BRANCHES + f"layer Net {{ node x[3] edge w update y = {call} }}", layer="Net")
        own = net.Either if "Either" in call else net.Computed
        near = w.abs()[:, None] * own.lin(x)[GRAPH[0]]
        expected = torch.zeros(N, 2, dtype=torch.float64).index_add(0, GRAPH[1], near)
        torch.testing.assert_close(net(x, GRAPH, w.abs()), expected, rtol=1e-12, atol=1e-12)
    text = BRANCHES + 'layer Net { node x[3] node b[2] update y = Computed(x, b; 2, mode = "full") }'
    net, b = made(text, layer="Net"), torch.randn(N, 2, dtype=torch.float64)
    near = (net.Computed.lin(x) + b)[GRAPH[0]]
    expected = torch.zeros(N, 2, dtype=torch.float64).index_add(0, GRAPH[1], near)
    torch.testing.assert_close(net(x, b, GRAPH), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("Either(x, w, x; 2)", r"takes 2 inputs, \(x, w = none\), not 3 with these arguments(.|\n)*`if two`"),
        ("Either(x, z = x; 2)", r"no input `z` with these arguments: \(x, w = none\)(.|\n)*declares it `if two`"),
        ('Computed(x, w = w; 2, mode = "full")', r"no input `w` with these arguments(.|\n)*declares it `if not full`"),
        ("GATConv(x, x; 2)", "`e` is an edge input, and `x` is node"),
        ("GATConv(x, z = x; 2)", "no input `z` with these arguments(.|\n)*declares it `if bipartite`"),
        ("CGConv(x, e = w)", "no input `e` with these arguments(.|\n)*`dim = ...`"),
        ("ResGatedGraphConv(x, w; 2)", r"takes 1 input, \(x\), not 2 with these(.|\n)*`e`:[^;]*`if edge_dim > 0`"),
    ],
)
def test_inputs_that_a_layer_has_not_with_its_arguments_are_refused(call: str, said: str) -> None:
    uses = "use GATConv, CGConv, ResGatedGraphConv\n"
    found = message(uses + BRANCHES + f"layer Net {{ node x[3] edge w\n update y = {call} }}", layer="Net")
    assert re.search(said, found), found
    assert f"{len((uses + BRANCHES).splitlines()) + 2} |  update y = " in found and "^" in found


def test_an_optional_input_that_no_rule_reads_is_not_passed() -> None:
    text = """
    layer Unread { node x[d] edge w = 1 update y = sum(x[j]) }
    layer Asked(k = 0) { node x[d] edge w = none h = x[j] if k > 0 and w { h = w * h } update y = sum(h) }
    layer Own { node x[d] edge w = 1 def f(w) = 2 * w update y = sum(f(x[j])) }
    layer Through { node x[d] edge v = 1 update y = Asked(x, v; k = 1) }
    """
    call = "layer Net {{ node x[3] edge w update y = {} }}"
    for given in ("Unread(x, w)", "Asked(x, w = w)", "Own(x, w)", "Through(Unread(x, w))"):
        assert "`w` is passed, and" in message(text + call.format(given), layer="Net"), given
    assert "reads it `if k > 0 and w`" in message(text + call.format("Asked(x, w)"), layer="Net")
    x, (w,) = torch.randn(N, 3, dtype=torch.float64), inputs(E)
    for given in ("Asked(x, w; 1)", "Through(x, w)"):
        found = made(text + call.format(given), layer="Net")(x, GRAPH, w)
        expected = torch.zeros_like(x).index_add(0, GRAPH[1], w[:, None] * x[GRAPH[0]])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for name in ("GATConv", "GATv2Conv", "TransformerConv"):
        text = f"use {name}\nlayer Net {{ node x[4] edge e[2] update y = {name}(x, e; 4) }}"
        assert "`e` is passed, and" in message(text) and "`edge_dim = ...`" in message(text)


# ------------------------------------------------------------------------- arguments as the classes have them


@pytest.mark.parametrize("name", sorted(library()))
def test_arguments_by_place_are_those_of_the_class(name: str) -> None:
    taken = inspect.signature(getattr(layers, name)).parameters
    assert CLASSES[name].order == tuple(n for n in taken if n not in ("in_channels", "kwargs"))


@pytest.mark.parametrize(
    ("call", "inputs", "args", "kwargs"),
    [
        ("GATConv(x; 4, 2, false)", "", (4, 4, 2, False), {}),
        ("GATConv(x; 4, residual = true, edge_dim = none)", "", (4, 4), {"residual": True}),
        ("GATConv(x, e; 4, edge_dim = 3)", "edge e[3]", (4, 4), {"edge_dim": 3}),
        ("GATv2Conv(x, e; 4, 2, true, 0.2, 0.0, true, 3)", "edge e[3]", (4, 4, 2, True, 0.2, 0.0, True, 3), {}),
        ("TransformerConv(x, e; 4, 1, true, true, 0.0, 3)", "edge e[3]", (4, 4, 1, True, True, 0.0, 3), {}),
        ("ResGatedGraphConv(x, e; 4, tanh, 3, false)", "edge e[3]", (4, 4, torch.nn.Tanh(), 3, False), {}),
        ("CGConv(x, e; 4, 3)", "edge e[3]", (4, 3), {}),
        ("SAGEConv(x; 4, max, true, true, true)", "", (4, 4, "max", True, True, True), {}),
        ("SAGEConv(x; 4, root_weight = false)", "", (4, 4), {"root_weight": False}),
        ("GraphConv(x; 4, mean)", "", (4, 4, "mean"), {}),
        ('SimpleConv(x; mean, "sum")', "", ("mean", "sum"), {}),
        ("GINConv(x; one, 0.5, true)", "", (torch.nn.Linear(4, 4), 0.5, True), {}),
        ("TAGConv(x; 4, 2, false, false)", "", (4, 4, 2, False, False), {}),
        ('SuperGATConv(x; 4, attention_type = "SD")', "", (4, 4), {"attention_type": "SD"}),
    ],
)
def test_arguments_mean_what_they_mean_to_the_class(call: str, inputs: str, args: Any, kwargs: Any) -> None:
    name = call.split("(")[0]
    net = made(f"use {name}\nlayer Net {{ linear one(4 -> 4) node x[4] {inputs} update y = {call} }}")
    twin = getattr(layers, name)(*args, **kwargs, backend="torch").double()
    state = getattr(net, name, torch.nn.Module()).state_dict()
    if name == "GINConv":
        state |= {f"nn.{key}": v for key, v in net.one.state_dict().items()}
    twin.load_state_dict(state)
    x, e = torch.randn(N, 4, dtype=torch.float64), torch.randn(E, 3, dtype=torch.float64)
    given = (e,) if inputs else ()
    torch.testing.assert_close(net(x, GRAPH, *given), twin(x, GRAPH, *given), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("GCNConv(x; 4, true)", "`improved` of gdsl.nn.GCNConv is not to be had in a text"),
        ("SAGEConv(x; 4, bias = false)", "`bias` of gdsl.nn.SAGEConv is not to be had"),
        ("TAGConv(x; 4, 2, false, false, 1)", "takes 4 arguments, not 5"),
        ("SimpleConv(x; combine_root = \"self_loop\")", "`root` of SimpleConv is one of"),
        ("SuperGATConv(x; 4, attention_type = \"XX\")", "`attention_type` of SuperGATConv is one of \"MX\", \"SD\""),
    ],
)
def test_arguments_that_only_the_class_takes(call: str, said: str) -> None:
    text = f"use {call.split('(')[0]}\nlayer Net {{ node x[4]\n update y = {call} }}"
    found = message(text)
    assert said in found and "line 3" in found, found


# ------------------------------------------------------------------------------------------- graphs

LOOPS = """
layer Loops { graph add_self_loops node x[d] update y = sum(x[j]) }
layer Plain { node x[d] update y = mean(x[j]) }
layer Weighted { graph add_remaining_self_loops(w = 1) node x[d] edge w update y = sum(w * x[j]) }
"""


def net(body: str) -> str:
    return LOOPS + "layer Net { node x[3] edge w = 1 " + body + " }"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("update y = Loops(x) + Plain(x)", r"Loops runs on the graph after `graph add_self_loops`, and Plain"),
        ("update y = Loops(x) + sum(x[j])", "what this layer computes from the edges itself"),
        ("h = Loops(x) update y = h + degree(i)", "what this layer computes from the edges itself"),
        ("graph remove_self_loops update y = Loops(x)", "graph remove_self_loops` of this layer"),
        ("update y = Weighted(x, w = 2)", "`2` says nothing of `w`"),
        ("update y = Weighted(x, w = exp(w))", r"`exp\(w\)` says nothing of `w`"),
    ],
)
def test_graphs_that_differ_are_refused(body: str, said: str) -> None:
    assert re.search(said, message(net(body), layer="Net"))


def test_what_all_ask_for_is_done_once_and_what_the_caller_says_holds_for_all() -> None:
    x, (w,) = torch.randn(N, 3, dtype=torch.float64), inputs(E)
    looped = made(LOOPS, layer="Loops")
    both = made(net("update y = Loops(x) + Weighted(x, w)"), layer="Net")
    weighted = made(LOOPS, layer="Weighted")
    nested = "layer Mid { node x[d] edge v = 1 update y = Weighted(x, v) }\n"
    inner = made(nested + net("update y = Loops(x) + Mid(x, w)"), layer="Net")
    torch.testing.assert_close(inner(x, GRAPH, w), looped(x, GRAPH) + weighted(x, GRAPH, w), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inner(x, GRAPH), 2 * looped(x, GRAPH), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both(x, GRAPH, w), looped(x, GRAPH) + weighted(x, GRAPH, w), rtol=1e-12, atol=1e-12)
    own = made(net("graph add_self_loops update y = Loops(x) + Plain(x)"), layer="Net")
    added = torch.cat([GRAPH[:, GRAPH[0] != GRAPH[1]], torch.arange(N).expand(2, N)], 1)
    plain = made(LOOPS, layer="Plain")
    torch.testing.assert_close(own(x, GRAPH), looped(x, GRAPH) + plain(x, added), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("update y = Block(x)", "Block needs a value for `k`"),
        ("update y = Block(x; 4, slop = 1)", "did you mean `slope`"),
        ("update y = Block(x; 4, slope = x)", "`slope` is known when the layer is made, and this is node"),
        ("update y = Block(x; 4, w = 1)", "`w` is an input"),
        ("update y = Block(x, slope = 1; 4)", "`slope` is an argument"),
        ("update y = Block(x, w, x; 4)", r"takes 2 inputs, \(x, w = none\), not 3"),
        ("update y = Block(x, x; 4)", "`w` is an edge input, and `x` is node"),
        ("update y = Block(w = w; 4)", "the input `x` is missing"),
        ("update y = Block(x; 4, d = 2)", r"`x` is declared as node\[d\]"),
        ("use b = Block(4) update y = b(x; 3)", "`3` another size"),
        ("use b = Block(4) update y = b(x; slope = 1)", "has its arguments already"),
        ("use b[2] = Block(4) update y = b[2](x)", "numbered 0 to 1"),
        ("use b = Blok(4) update y = b(x)", "there is no layer `Blok`"),
        ("use b = Block(4) h = b(x) update y = b(h)", "has another size here"),
        ("use x_ = Block(4) update y = x_", "`x_` is a function"),
        ("update y = Block(x; 4) at j", "takes no `at`"),
        ("update y = x + Net(x)", "`Net` calls itself"),
        ("update y = GATConv(x)", "`use GATConv` above the layer"),
    ],
)
def test_mistakes(body: str, said: str) -> None:
    text = BLOCK + f"layer Net {{\n    node x[3]\n    edge w = 1\n    {body}\n}}"
    found = message(text, layer="Net")
    assert re.search(said, found), found
    assert "line 12" in found or "calls itself" in found


def test_a_mistake_inside_shows_the_line_of_the_callee_and_that_of_the_call() -> None:
    text = "layer Deep { node x[d] update y = x + relu }\nlayer Mid { node x[d] update y = Deep(x) }\n"
    found = message(text + "layer Net { node x[3]\n update y = Mid(x) }", layer="Net")
    assert found == (
        "error: in `Deep`: unknown name `relu`\n"
        "  --> Net, line 4, column 13\n"
        "  |\n"
        "4 |  update y = Mid(x) }\n"
        "  |             ^^^^^^\n"
        "  --> in Mid, line 2, column 34\n"
        "  |\n"
        "2 | layer Mid { node x[d] update y = Deep(x) }\n"
        "  |                                  ^^^^^^^\n"
        "  --> in Deep, line 1, column 39\n"
        "  |\n"
        "1 | layer Deep { node x[d] update y = x + relu }\n"
        "  |                                       ^^^^\n"
        "  = hint: `relu` is a function: call it, relu(...)"
    )


# ------------------------------------------------------------------------------------------- files


def folder_with(path: Path, **files: str) -> Path:
    for name, text in files.items():
        file = path / (name.replace("__", "/") + ".gdsl")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return path / "net.gdsl"


TWICE = """
use Half = Block from "parts/block.gdsl"
layer Twice(k) { use one = Half(k) node x[d] h = one(x) update y = Half(h; k) }
"""


def test_layers_of_files(tmp_path: Path) -> None:
    net = 'use Twice from "twice.gdsl"\nlayer Net(k) { node x[d] update y = Twice(x; k, d = 4) }'
    path = folder_with(tmp_path, net=net.replace(", d = 4", ""), twice=TWICE, parts__block=BLOCK)
    found = gdsl.compile(path, 3, d=4, backend="torch").double()
    assert sorted(found.state_dict())[:3] == ["Twice.Half.b", "Twice.Half.lin.bias", "Twice.Half.lin.weight"]
    x = torch.randn(N, 4, dtype=torch.float64)
    expected = block(found.Twice.Half, block(found.Twice.one, x))
    torch.testing.assert_close(found(x, GRAPH), expected, rtol=1e-12, atol=1e-12)
    assert type(gdsl.compile(path.read_text(), 3, d=4, folder=tmp_path)) is type(found)
    again = pickle.dumps(found)
    folder_with(tmp_path, parts__block=BLOCK.replace("+ b", "- b"))
    assert torch.equal(pickle.loads(again)(x, GRAPH), found(x, GRAPH))
    assert gdsl.define(path) is not type(found)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("twic.gdsl", 'there is no file "twic.gdsl".*did you mean `twice.gdsl`'),
        ("../twice.gdsl", "no path below the folder"),
        ("parts/../twice.gdsl", "no path below the folder"),
        ("/etc/passwd", "no path below the folder"),
        ("c:twice.gdsl", "no path below the folder"),
        ("parts//twice.gdsl", "no path below the folder"),
        ("notes.txt", "no file of this language"),
        ("out.gdsl", "leads out of the folder"),
        ("a/" * 3000 + "a.gdsl", r'there is no file "a/a/[^\n]*\.\.\.[^\n]*a.gdsl"'),
        ("a" * 300 + ".gdsl", "cannot be read: file name too long"),
        ("one.gdsl", '"one.gdsl" cannot be read: (?!.*did you mean)'),
        ("circle/one.gdsl", '"circle/one.gdsl" cannot be read: '),
        ("nowhere.gdsl", '"nowhere.gdsl" is a link to no file'),
        ("twice.gdsl/block.gdsl", 'there is no file "twice.gdsl/block.gdsl"'),
        ("parts.gdsl", "is no file"),
        ("twice.gdsl", r'no layer `Layer` in "twice.gdsl"'),
        ("broken.gdsl", r"line 1, column 1.*in broken.gdsl, line 2, column 10"),
        ("round.gdsl", r"uses this text itself"),
        ("binary.gdsl", "cannot be read as UTF-8"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, path: str, said: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.gdsl").write_text(BLOCK)
    folder_with(
        inside,
        twice=TWICE,
        parts__block=BLOCK,
        broken="layer Layer {\n  update = 3 }",
        round='use Layer from "back.gdsl"\nlayer Other { node x[d] update y = Layer(x) }',
        back='use Layer from "round.gdsl"\nlayer Layer { node x[d] update y = Layer(x) }',
    )
    (inside / "notes.txt").write_text(BLOCK)
    (inside / "binary.gdsl").write_bytes(b"\xff\xfe")
    (inside / "parts.gdsl").mkdir()
    (inside / "out.gdsl").symlink_to(tmp_path / "secret.gdsl")
    (inside / "one.gdsl").symlink_to("two.gdsl")
    (inside / "two.gdsl").symlink_to("one.gdsl")
    (inside / "circle").symlink_to("circle")
    (inside / "nowhere.gdsl").symlink_to("gone.gdsl")
    text = f'use Layer from "{path}"\nlayer Net {{ node x[3] update y = Layer(x) }}'
    assert re.search(said, message(text, folder=inside), re.S)
    assert "in no folder" in message(text) or "no path" in message(text) or "no file" in message(text)


def test_names_that_are_taken() -> None:
    text = "use GATConv\nlayer GATConv { node x[d] update y = x }"
    assert "is a layer of this text, too" in message(text)
    text = "use GATConv\nuse GATConv\nlayer Net { node x[d] update y = x }"
    assert "`GATConv` is used twice" in message(text)
    text = "use relu = GATConv\nlayer Net { node x[d] update y = x }"
    assert "`relu` is a function of the language" in message(text)
    text = "use GATConf\nlayer Net { node x[d] update y = x }"
    assert "did you mean `GATConv`" in message(text)


def test_functions_that_read_text_are_known_by_name() -> None:
    assert frozenset(SPECIAL) == FORMS


def test_a_layer_that_is_called_has_no_name_of_a_function(tmp_path: Path) -> None:
    """The function would be called without a word, and not the layer."""
    calls = {"relu": "relu(x)", "mean": "mean(x[j])", "dot": "x + relu(dot(x, x))", "dropout": "dropout(x, 0.5)"}
    for name, call in calls.items():
        own = f"layer {name}(d) {{ node x[d] update y = {call} }}\n"
        assert gdsl.define(own)
        found = message(own + f"layer Net {{ node x[3] update y = {call} }}", layer="Net")
        assert f"`{name}` is a function of the language, and a layer of this text" in found, found
        assert "line 2" in found and "^" * len(name) in found
        (tmp_path / "own.gdsl").write_text(own + f"layer B {{ node x[d] update y = {call} }}")
        found = message('use B from "own.gdsl"\nlayer Net { node x[3] update y = B(x) }', folder=tmp_path)
        assert "and a layer of this text" in found
    text = "layer relu(d) { node x[d] update y = x }\nlayer Net { node x[3] def relu(v) = 2 * v update y = relu(x) }"
    x = torch.randn(N, 3, dtype=torch.float64)
    assert torch.equal(made(text, layer="Net")(x, GRAPH), 2 * x)


# ----------------------------------------------------------------------------- what a callee may have

PARTS = """
layer Norm(k) {
    mlp phi(d -> k -> k, relu, norm = batch_norm)
    module act = relu
    node x[d]
    edge rel: int(3)
    param w[3] ~ normal
    h = phi(x)
    update y = act(h + sum(w[rel] * h[j]))
}
layer Read(k) {
    linear lin(d -> k)
    node x[d]
    global q[k]
    graph u[k] = none
    pool r = mean(lin(x)) * q
    if u { r = r + u }
    return r, q
}
layer Net(k) {
    use one = Norm(k, act = tanh)
    node x[d]
    edge kind: int(3)
    global q[k]
    h = one(x, kind)
    a = Read(h, q; k)
    b = Read(x, q, u = a[r]; k)
    update y = h + a[0][g]
    return y, b[r]
}
layer Drop { node x[d] update y = dropout(x, 0.5) }
layer Noise { node x[d] a = Drop(x) b = Drop(x) update y = cat(a, b) }
layer Between(k) {
    source x[d]
    target z[d]
    linear lin(d -> k)
    update y = lin(z) + sum(lin(x)[j])
}
layer Two(k) {
    use one = Between(k)
    source s[width]
    target t[width]
    h = one(s, t)
    update y = h + Between(s, t; k)
}
"""


def test_norms_modules_pools_globals_and_integers() -> None:
    net = made(PARTS, 5, d=4, layer="Net")
    twin = copy.deepcopy(net)
    x, q = torch.randn(N, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    kind, batch = torch.arange(E) % 3, torch.tensor([0, 0, 0, 1, 1])
    counts = torch.tensor([[3.0], [2.0]], dtype=torch.float64)

    def mean(v: Tensor) -> Tensor:
        return torch.zeros(2, v.shape[1], dtype=v.dtype).index_add(0, batch, v) / counts

    for _ in range(2):  # in training: the norm keeps what it has seen
        y, read = net(x, q, GRAPH, kind, batch=batch)
        h = twin.one.phi(x)
        h = torch.tanh(h + torch.zeros_like(h).index_add(0, GRAPH[1], twin.one.w[kind][:, None] * h[GRAPH[0]]))
        a = mean(twin.Read.lin(h)) * q
        torch.testing.assert_close(y, h + a[batch], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(read, mean(twin.Read_2.lin(x)) * q + a, rtol=1e-12, atol=1e-12)
    for own, other in zip(net.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_dropout_of_two_calls_is_drawn_apart() -> None:
    net = made(PARTS, d=64, layer="Noise")
    y = net(torch.ones(200, 64, dtype=torch.float64), GRAPH).reshape(200, 2, 64) == 0
    assert (y[:, 0] != y[:, 1]).double().mean() == pytest.approx(0.5, abs=0.02)
    named = PARTS + "layer Again { use drop = Drop() node x[d] y = drop(x) update z = cat(y, drop(x)) }"
    y = made(named, d=64, layer="Again")(torch.ones(200, 64, dtype=torch.float64), GRAPH).reshape(200, 2, 64) == 0
    assert (y[:, 0] != y[:, 1]).double().mean() == pytest.approx(0.5, abs=0.02)


def test_two_sets_of_nodes() -> None:
    net = made(PARTS, 3, width=4, layer="Two")
    s, t = torch.randn(6, 4, dtype=torch.float64), torch.randn(N, 4, dtype=torch.float64)
    expected = torch.zeros(N, 3, dtype=torch.float64)
    for lin in (net.one.lin, net.Between.lin):
        expected = expected + lin(t) + torch.zeros(N, 3, dtype=torch.float64).index_add(0, GRAPH[1], lin(s)[GRAPH[0]])
    torch.testing.assert_close(net((s, t), GRAPH), expected, rtol=1e-12, atol=1e-12)
    wrong = PARTS + "layer Wrong { node x[3] update y = Between(x, x; 2) }"
    assert "`x` is a source input" in message(wrong, layer="Wrong")


def test_names_of_sizes_do_not_meet() -> None:
    """A caller's `k` is not the callee's, and a square map has two dims inside and one outside."""
    text = """
    layer Inner(k, d = 2) { linear lin(m -> k*d) node x[m] update y = lin(x) }
    layer Net(d, m = 3) {
        param k[d] ~ ones
        node x[d]
        h = Inner(x; k = d, d = 1)
        z = Inner(h; k = m)
        update y = sum[2*m](z) * (x + k * h)
    }"""
    net = made(text, 4, layer="Net")
    assert net.Inner.lin.weight.shape == (4, 4) and net.Inner_2.lin.weight.shape == (6, 4)
    x = torch.randn(N, 4, dtype=torch.float64)
    h = net.Inner.lin(x)
    torch.testing.assert_close(
        net(x, GRAPH), net.Inner_2.lin(h).sum(1, keepdim=True) * (x + net.k * h), rtol=1e-12, atol=1e-12
    )


def test_second_names_of_dims_stay_second_names() -> None:
    text = """
    layer Square(d) { param w[d, d'] ~ glorot node x[d] update y = x @ w }
    layer Net { node x[width] h = Square(x) g = Square(h) update y = x + h + g }"""
    net = made(text, width=4, layer="Net")
    x = torch.randn(N, 4, dtype=torch.float64)
    h = x @ net.Square.w
    torch.testing.assert_close(net(x, GRAPH), x + h + h @ net.Square_2.w, rtol=1e-12, atol=1e-12)


def test_what_a_caller_computes_from_edges_itself_is_told_from_the_same_in_a_callee() -> None:
    """Equal expressions are one node: which graph the caller means must not be read off them."""
    assert "computes from the edges itself" in message(net("a = sum(x[j]) update y = a + Loops(x)"), layer="Net")
    text = net("def f(v) = sum(v[j]) update y = f(x) + Loops(x)")
    assert "computes from the edges itself" in message(text, layer="Net")


@pytest.mark.slow
def test_under_torch_compile() -> None:
    net = made(NET, hidden=3, inside=4, layer="Net")
    x = torch.randn(N, 4, dtype=torch.float64)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, GRAPH), net(x, GRAPH), rtol=1e-12, atol=1e-12)


def test_the_words_are_names_elsewhere() -> None:
    text = """
    layer Net(use = 2) {
        node x[d]
        param uses[d] ~ ones
        from = x
        if use and true { h = use * from } else { h = from }
        def f(use) = use or false
        update y = where(f(h > 0), h, uses) - use
    }"""
    x = torch.randn(N, 3, dtype=torch.float64)
    torch.testing.assert_close(made(text, d=3)(x, GRAPH), torch.where(x > 0, 2 * x, torch.ones_like(x)) - 2)
