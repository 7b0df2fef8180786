"""What programs mean: the types and IR of single constructs."""

from __future__ import annotations

from typing import Any

import pytest

from gdsl.ir.node import Node, walk
from gdsl.ir.types import Domain
from gdsl.language.check import check
from gdsl.language.errors import LanguageError
from gdsl.language.parse import parse
from gdsl.language.program import TypedProgram


def program(body: str, arguments: str = "d = 2, k = 3", **options: Any) -> TypedProgram:
    source = f"layer A({arguments}) {{\n node x[d]\n edge w[d]\n edge rel: int(k)\n {body}\n}}"
    return check(parse(source).layer(), options.pop("given", {}), **options)


def result(body: str, **options: Any) -> Node:
    return program(body, **options).outputs[-1][1]


def type_of(expression: str, **options: Any) -> str:
    before, _, last = expression.rpartition(";;")
    return str(result(f"{before} z = {last} return z", **options).type)


def ops(node: Node) -> set[str]:
    return {n.op for n in walk([node])}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("x[j] + w", "edge[d]"),
        ("x @ x", "node"),
        ("param W[d, k] ~ zeros;;x @ W", "node[k]"),
        ("param W[d, d'] ~ zeros;;rename(x @ W, d' -> d)", "node[d]"),
        ("cat(x[i], x[j])", "edge[2*d]"),
        ("cat(x, x, x; d)", "node[3*d]"),
        ("param a[k] ~ zeros;;cat(x, a + 0 * sum[d](x))", "node[d+k]"),
        ("cat(x, x @ x)", "node[d+1]"),
        ("param V[d, k] ~ zeros;;merge(V, k, d)", "global[k*d]"),
        ("param V[2*d] ~ zeros;;cat(x, x) + V", "node[2*d]"),
        ("param V[d*2] ~ zeros;;cat(x, x) + V", "node[2*d]"),
        ("param V[k*d] ~ zeros;;split(V, k*d, k, d)", "global[k, d]"),
        ("param V[d, k] ~ zeros;;transpose(V, k, d)", "global[k, d]"),
        ("mean(w) by rel", "node[k, d]"),
        ("sum(w) at j", "node[d]"),
        ("softmax(w) at j", "edge[d]"),
        ("softmax[d](x)", "node[d]"),
        ("stack(w, 4)", "node[4, d]"),
        ("one_hot(rel)", "edge[k]"),
        ("param V[d, k] ~ zeros;;V[rel]", "edge[d]"),
        ("param V[d, k] ~ zeros;;V[1]", "global[k]"),
        ("param V[d, k, 3] ~ zeros;;V[rel, 1]", "edge[3]"),
        ("x > 0 and not (x > 1)", "node[d]: bool"),
        ("degree(i)[i] * degree(j)[j]", "edge"),
        ("degree(w)", "node[d]"),
        ("graph u[d];;u[g] + x", "node[d]"),
        ("graph t: float;;t[g] * x", "node[d]"),
        ("max(x, 0)", "node[d]"),
        ("max(w)", "node[d]"),
        ("median(w)", "node[d]"),
        ("norm(x)", "node"),
        ("rel", "edge: int(k)"),
    ],
)
def test_type(expression: str, expected: str) -> None:
    assert type_of(expression).replace("int(3)", "int(k)") == expected


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("2 * k * x", "6 * x"),
        ("x ** 2", "x * x"),
        ("where(true, x, 1)", "x"),
        ("x * pi", "x * 3.141592653589793"),
        ("leaky_relu(x, slope = 0.2)", "leaky_relu(x, 0.2)"),
        ("leaky_relu(x)", "leaky_relu(x, 0.01)"),
        ("sqrt(4) * x", "2.0 * x"),
        ("dropout(x, 0.5)", "x"),
    ],
)
def test_same_node(a: str, b: str) -> None:
    """What is known at construction is computed then; nodes are hash-consed, so equal values are one node."""
    assert result(f"update y = {a}") is result(f"update y = {b}")


def test_loop_is_unrolled_and_carries_names_over() -> None:
    loop = result("h = x for t in 1..3 { h = h * t + x } update y = h")
    assert loop is result("update y = ((x * 1 + x) * 2 + x) * 3 + x")


def test_loop_index_picks_from_a_range() -> None:
    one = result("param V[1..k, d] ~ zeros h = x for t in 1..k { h = h + V[t] } update y = h")
    zero = result("param V[k, d] ~ zeros h = x for t in 1..k { h = h + V[t - 1] } update y = h")
    assert one is zero
    p = program("param V[0..k, d] ~ zeros update y = x * V[k]")
    assert [str(dim) for dim in p.of_role("param")[0].type.dims] == ["k+1=4", "d=2"]


def test_branches_and_flags() -> None:
    text = "if flag and k > 2 { update y = x } else if not flag { update y = 2 * x } else { update y = 3 * x }"
    arguments = "flag = true, d = 2, k = 3"
    assert result(text, arguments=arguments) is result("update y = x")
    assert result(text, arguments=arguments, given={"flag": False}) is result("update y = 2 * x")
    assert result(text, arguments=arguments, given={"k": 2}).op == "mul"


def test_none_and_strings_decide() -> None:
    text = 'if e == none and mode == "a" { update y = x } else { update y = 2 * x }'
    arguments = 'd = 2, k = 3, e = none, mode = "a"'
    assert result(text, arguments=arguments) is result("update y = x")
    assert result(text, arguments=arguments, given={"mode": "b"}) is result("update y = 2 * x")
    assert result(text, arguments=arguments, given={"e": 3}) is result("update y = 2 * x")


def test_optional_input_with_default() -> None:
    text = "edge v = 0.5 aggregate a = sum(v * x[j]) update y = a"
    absent, present = program(text), program(text, present={"v"})
    (d,) = [d for d in absent.declarations if d.name == "v"]
    assert (d.optional, d.default, d.present) == (True, 0.5, False)
    assert absent.outputs[0][1] is result("aggregate a = sum(0.5 * x[j]) update y = a")
    assert {n.attrs.name for n in walk([present.outputs[0][1]]) if n.op == "load"} == {"v", "x"}


def test_optional_input_without_default() -> None:
    text = "edge e[k] = none m = x[j] if e { m = m * sum[k](e) } aggregate y = sum(m) return y"
    assert result(text) is result("aggregate y = sum(x[j]) return y")
    assert result(text, present={"e"}) is not result(text)
    same = text.replace("if e", "if present(e)")
    assert result(same, present={"e"}) is result(text, present={"e"})


def test_module_left_out() -> None:
    text = "module nn = none h = x if nn { h = nn(x; d) } update y = h"
    assert result(text) is result("update y = x")


def test_dropout_in_training() -> None:
    p = program("update y = dropout(x, 0.5) + dropout(x, 0.5)", training=True)
    drawn = [n for n in walk([p.outputs[0][1]]) if n.op == "random"]
    assert sorted(n.attrs.salt for n in drawn) == [1, 2]
    assert all(n.domain is Domain.NODE for n in drawn)
    assert p.uses_seed
    assert not program("update y = dropout(x, 0.5)").uses_seed


def test_dropout_of_an_edge_weight_that_is_not_passed() -> None:
    p = program("edge v = 1 aggregate y = sum(dropout(v, 0.5) * x[j]) return y", training=True)
    assert {n.domain for n in walk([p.outputs[0][1]]) if n.op == "random"} == {Domain.EDGE}


def test_functions_see_the_layer() -> None:
    text = "param W[d, d'] ~ glorot def f(z, s) = rename(z @ W, d' -> d) * s def g2(z) = f(f(z, 2), 3)"
    expected = "rename(rename(x @ W, d' -> d) * 2 @ W, d' -> d) * 3"
    assert result(f"{text} update y = g2(x)") is result(f"param W[d, d'] ~ glorot update y = {expected}")


def test_reduce_of_the_users_own() -> None:
    node = result("reduce r(acc, m) = acc * 0.5 + m init 1 aggregate y = r(w) return y")
    assert node.op == "scan"
    assert node.domain is Domain.NODE
    assert node.attrs.init == 1.0


def test_stack_requires_degrees() -> None:
    p = program("aggregate a = stack(w, k) update y = sum[k](a)")
    assert [(r.kind, r.end, r.value) for r in p.requires] == [("degree", "i", 3)]


def test_several_results_and_rounds() -> None:
    p = program("aggregate a = sum(w) update h = x + a update y = h * 2 alpha = softmax(w) return y, alpha, h + 1")
    assert [name for name, _ in p.outputs] == ["y", "alpha", "out3"]


def test_last_update_is_the_result() -> None:
    assert program("update a = x update b = 2 * x").outputs[0][0] == "b"


def test_bipartite() -> None:
    source = """layer B(a, b) { source s[a] target t[b]
        aggregate m = mean(s[j]) aggregate n = sum(t[i]) at j update y = t * degree(i) return y, m, n }"""
    p = check(parse(source).layer(), {"a": 2, "b": 3})
    assert p.bipartite
    assert [str(n.type) for _, n in p.outputs] == ["target[b]", "target[a]", "source[b]"]


def test_transforms() -> None:
    p = program('graph remove_self_loops graph add_self_loops(w = "mean") update y = x')
    assert [(t.name, t.keywords) for t in p.transforms] == [
        ("remove_self_loops", ()),
        ("add_self_loops", (("w", "mean"),)),
    ]
    (knn,) = program("s = 2 * x graph knn(s, k, loop = true) update y = x").transforms
    assert isinstance(knn.arguments[0], Node)
    assert knn.arguments[1] == 3


def test_rules_are_kept_for_printing() -> None:
    p = program("h = x for t in 1..2 { aggregate h = sum(t * h[j]) } update y = h")
    assert [(r.kind, r.name, r.text) for r in p.rules] == [
        ("define", "h", "h = x"),
        ("aggregate", "h", "aggregate h = sum(1 * h[j])"),
        ("aggregate", "h", "aggregate h = sum(2 * h[j])"),
        ("update", "y", "update y = h"),
    ]
    assert sorted(p.names.values()) == ["h", "h_2"]


def test_doc_is_the_comment_above() -> None:
    text = "# not this\n\n# One.\n# Two.\nlayer A { node x[d] update y = x }"
    assert check(parse(text).layer(), {}, free_dims={"d": 2}).doc == "One.\nTwo."


def test_free_dim_is_named_in_the_mistake() -> None:
    with pytest.raises(LanguageError, match="the size of dim `d` is only known when the layer is called"):
        check(parse("layer A { node x[d] update y = x }").layer(), {})


def test_edge_softmax_subtracts_a_constant_maximum() -> None:
    node = result("update y = sum(softmax(w))")
    assert {"segment", "gather", "exp", "stop_gradient"} <= ops(node)


# ----------------------------------------------------------------------------------- modules


def test_module_is_read() -> None:
    from torch import nn

    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(0.5), nn.Sequential(nn.Linear(5, 6, bias=False)))
    p = program("module net message m = net(cat(x[i], x[j])) aggregate y = max(m) return y", modules={"net": net})
    assert str(p.outputs[0][1].type) == "node[net.out]"
    assert "call" not in ops(p.outputs[0][1])
    read = {d.name: d.type.shape for d in p.of_role("param")}
    assert read == {"net.0.weight": (5, 4), "net.0.bias": (5,), "net.3.0.weight": (6, 5)}
    assert {d.module for d in p.of_role("param")} == {"net"}


def test_module_that_cannot_be_read_is_called() -> None:
    from torch import nn

    class Mine(nn.Module):
        def forward(self, z: Any) -> Any:
            return z[..., :1]

    node = result("module net update y = net(x)", modules={"net": Mine()})
    assert node.op == "call"
    assert str(node.type) == "node[net.out]"
    assert node.type.shape == (1,)


def test_batch_norm_is_read_for_inference_only() -> None:
    from torch import nn

    net = nn.BatchNorm1d(2).eval()
    assert "call" not in ops(result("module net update y = net(x)", modules={"net": net}))
    assert "call" in ops(result("module net update y = net(x)", modules={"net": net.train()}, training=True))


def test_module_names_its_result() -> None:
    from torch import nn

    assert str(result("module net update y = net(x; k) + 1", modules={"net": nn.Linear(2, 3)}).type) == "node[k]"
    with pytest.raises(LanguageError, match="module `net` gives 4 places, and `k` has another size"):
        result("module net update y = net(x; k)", modules={"net": nn.Linear(2, 4)})


def test_module_as_aggregator() -> None:
    node = result("module lstm aggregate a = lstm(w) update y = a")
    assert (node.op, node.attrs.kind, node.attrs.end) == ("call", "aggregate", "i")
