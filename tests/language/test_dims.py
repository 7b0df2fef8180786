"""Which dims are one: sums of values with other dims, second names `d'`, products of matrices, and `outer`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
from gdsl.ir.types import Type
from gdsl.language.check import check
from gdsl.language.errors import LanguageError
from gdsl.language.parse import parse
from gdsl.language.placeholders import check_any

HEAD = """layer A(d = 3, k = 3, heads = 1) {
    node x[d]
    node z[k]
    edge e[k]
    param w[d, d'] ~ glorot
    param v[d, k] ~ glorot
    param t[d', d] ~ glorot
    param h[heads] ~ zeros
    param b[d] ~ zeros
"""


def program(body: str) -> str:
    return f"{HEAD}    {body}\n}}\n"


def type_of(expression: str) -> str:
    result = check(parse(program(f"result = {expression} return result")).layer(), {}).outputs[0][1].type
    return str(Type(result.domain, result.dims))


def compiled(source: str, *modules: nn.Module, **options: Any) -> gdsl.Layer:
    torch.manual_seed(0)
    return gdsl.compile(source, *modules, backend="torch", **options).double()


@pytest.mark.parametrize(
    ("expression", "message", "types", "remedy"),
    [
        ("x + z", "`+`", "node[d] and node[k]", "rename(z, k -> d)"),
        ("x - relu(x @ v)", "`-`", "node[d] and node[k]", "rename(relu(x @ v), k -> d)"),
        ("x[j] + e", "`+`", "edge[d] and edge[k]", "rename(e, k -> d)"),
        ("x < z", "`<`", "node[d] and node[k]", "rename(z, k -> d)"),
        ("x > 0 and z > 0", "`and`", "node[d]: bool and node[k]: bool", "rename(z > 0, k -> d)"),
        ("where(x > 0, z, 1)", "`where`", "node[d]: bool and node[k]", "rename(z, k -> d)"),
        ("where(x[0] > 0, x, z)", "`where`", "node[d] and node[k]", "rename(z, k -> d)"),
        ("max(x, z)", "`max`", "node[d] and node[k]", "rename(z, k -> d)"),
        ("min(x, 0, z)", "`min`", "node[d] and node[k]", "rename(z, k -> d)"),
        ("clamp(x, 0, z)", "`clamp`", "node[d] and node[k]", "rename(z, k -> d)"),
        ("atan2(x, z)", "`atan2`", "node[d] and node[k]", "rename(z, k -> d)"),
        ("x + merge(x * h, d, heads)", "`+`", "node[d] and node[d*heads]", "d*heads -> d)"),
        ("merge(x * z, d, k) + x", "`+`", "node[d*k] and node[d]", "`d*k` has size 9 and `d` has size 3"),
        ("v + w", "`+`", "global[d, k] and global[d, d']", "rename(w, d' -> k)"),
        ("cat(v, v; d, k)", "`cat`", "global[d, k] and global[d, k]", "rename(v, d -> k)"),
        ("x * (x @ w)", "`*`", "node[d] and node[d']", "rename(x @ w, d' -> d)"),
        ("(x @ w) / x", "`/`", "node[d'] and node[d]", "rename(x @ w, d' -> d)"),
        ("rename(x, d -> d') * x", "`*`", "node[d'] and node[d]", "rename(..., d' -> d)"),
    ],
)
def test_pairs_that_nobody_meant(expression: str, message: str, types: str, remedy: str) -> None:
    with pytest.raises(LanguageError, match="would pair each place of") as caught:
        type_of(expression)
    (found,) = caught.value.diagnostics
    assert found.message.startswith(message)
    assert found.detail == types
    assert found.hint is not None
    assert remedy in found.hint
    assert f"outer({expression}) for every pair" in found.hint
    # What the hint says is taken.
    assert type_of(f"outer({expression})")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("x * z", "node[d, k]"),
        ("x / (1 + z * z)", "node[d, k]"),
        ("(1 + x * x) ** z", "node[d, k]"),
        ("outer(x + z)", "node[d, k]"),
        ("outer(x, z)", "node[d, k]"),
        ("outer(where(x > 0, z, 1))", "node[d, k]"),
        ("outer(x * rename(x, d -> d'))", "node[d, d']"),
        ("v + x", "node[d, k]"),
        ("x + 1", "node[d]"),
        ("where(v > 0, x, z)", "node[d, k]"),
        ("x + relu(x @ w)", "node[d]"),
        ("relu(x @ w) + x", "node[d]"),
        ("x @ w + b", "node[d]"),
        ("x < x @ w", "node[d]: bool"),
        ("max(x @ w, x)", "node[d]"),
        ("w + x", "node[d, d']"),
        ("x @ w", "node[d']"),
        ("(x @ w) @ w", "node[d']"),
        ("(x @ w) @ v", "node[k]"),
        ("x @ t", "node[d']"),
        ("rename(x @ t, d' -> d) @ t", "node[d']"),
        ("(x @ w) @ rename(w, d -> k)", "node[k]"),
        ("sum[d']((x @ w) * w)", "node[d]"),
        ("w @ rename(w, d -> d', d' -> d'')", "global[d, d'']"),
    ],
)
def test_dims_that_are_one(expression: str, expected: str) -> None:
    assert type_of(expression) == expected.replace(": bool", "")


@pytest.mark.parametrize("expression", ["(x @ t) @ t", "relu(x @ w) @ t", "(x @ w) @ transpose(w, d', d)"])
def test_a_product_that_could_be_two(expression: str) -> None:
    """The output of one weight meets the same name as the first dim of another."""
    with pytest.raises(LanguageError, match="`@` could sum over `d` and over `d'`") as caught:
        type_of(expression)
    left, right = expression.rsplit(" @ ", 1)
    hint = str(caught.value.diagnostics[0].hint)
    # Both remedies are taken, and are what they say.
    assert type_of(f"rename({left.strip('()') if left[0] == '(' else left}, d' -> d) @ {right}") == "node[d']"
    assert type_of(f"sum[d']({left} * {right})") == "node[d]"
    assert "-> d) @ " in hint and "sum[d'](" in hint


@pytest.mark.parametrize(
    "body",
    [
        "h = x for r in 1..3 { h = tanh(sum(h[j]) @ w) } update y = h",
        "h = x for r in 1..3 { m = h @ w h = tanh(sum(m[j])) } update y = h",
        "def step(h) = tanh(sum(h[j]) @ w) update y = step(step(step(x)))",
        "update y = tanh(sum(tanh(sum(tanh(sum(x[j]) @ w)[j]) @ w)[j]) @ w)",
        "h = x for r in 1..3 { h = tanh(rename(sum(h[j]) @ w, d' -> d)) } update y = h",
    ],
)
def test_a_weight_that_is_used_again_is_not_its_transpose(body: str) -> None:
    """Three rounds with one weight: W W W, in values and gradients."""
    conv = compiled(f"layer A(d = 3) {{ param w[d, d'] ~ glorot node x[d] {body} }}")
    x, edges = torch.randn(6, 3, dtype=torch.float64), torch.randint(0, 6, (2, 14))

    def plain(h: Tensor, w: Tensor) -> Tensor:
        for _ in range(3):
            h = torch.tanh(torch.zeros_like(h).index_add(0, edges[1], h[edges[0]]) @ w)
        return h

    w = conv.w.detach().clone().requires_grad_()
    expected, found = plain(x, w), conv(x, edges)
    assert torch.allclose(found, expected, atol=1e-12)
    (gradient,) = torch.autograd.grad(expected.square().sum(), w)
    (ours,) = torch.autograd.grad(found.square().sum(), conv.w)
    assert torch.allclose(ours, gradient, atol=1e-12)


def test_two_square_layers() -> None:
    """`relu(x @ w1) @ w2` with both `[d, d']`; with `w2[hidden, d]` it needs no primes."""
    x = torch.randn(6, 3, dtype=torch.float64)
    edges = torch.empty(2, 0, dtype=torch.int64)
    for one, two in (("d, d'", "d, d'"), ("d, hidden", "hidden, d")):
        conv = compiled(
            f"layer A(d = 3, hidden = 3) {{ param w1[{one}] ~ glorot param w2[{two}] ~ glorot node x[d] "
            "update y = x + relu(x @ w1) @ w2 }"
        )
        assert torch.allclose(conv(x, edges), x + torch.relu(x @ conv.w1) @ conv.w2, atol=1e-12)


def test_a_weight_that_is_stored_with_its_output_first() -> None:
    """As torch's Linear stores it: summed over the dim that the value has."""
    conv = compiled("layer A(d = 3) { param w[d', d] ~ glorot node x[d] update y = x + relu(x @ w) }")
    x = torch.randn(6, 3, dtype=torch.float64)
    assert torch.allclose(conv(x, torch.empty(2, 0).long()), x + torch.relu(x @ conv.w.T), atol=1e-12)


def test_the_transpose_is_said_by_its_dim() -> None:
    conv = compiled("layer A(d = 3) { param w[d, d'] ~ glorot node x[d] update y = x + sum[d'](relu(x @ w) * w) }")
    x = torch.randn(6, 3, dtype=torch.float64)
    assert torch.allclose(conv(x, torch.empty(2, 0).long()), x + torch.relu(x @ conv.w) @ conv.w.T, atol=1e-12)


@pytest.mark.parametrize("operator", ["+", "*", "-"])
def test_a_module_says_which_dim_it_gives(operator: str) -> None:
    """A dim that a module made and nobody named is neither added to another nor multiplied with it."""
    source = "layer A(d = 3) {{ module mlp node x[d] node a[d] update y = x {} mlp(a{}) }}"
    with pytest.raises(LanguageError, match=r"pair each place of `d` with each of `mlp\.out`") as caught:
        gdsl.compile(source.format(operator, ""), nn.Linear(3, 3))
    assert "mlp(a; d)" in str(caught.value.diagnostics[0].hint)
    mlp = nn.Linear(3, 3)
    conv = compiled(source.format(operator, "; d"), mlp)
    x, a = torch.randn(2, 6, 3, dtype=torch.float64)
    expected = {"+": torch.add, "*": torch.mul, "-": torch.sub}[operator](x, mlp(a))
    assert torch.allclose(conv(x, a, torch.empty(2, 0).long()), expected, atol=1e-12)


def test_two_modules_side_by_side() -> None:
    with pytest.raises(LanguageError, match=r"`f\.out` with each of `g\.out`"):
        gdsl.compile("layer A { module f module g node x[3] update y = f(x) * g(x) }", nn.Linear(3, 3), nn.Linear(3, 3))


def test_a_module_of_a_list() -> None:
    with pytest.raises(LanguageError) as caught:
        gdsl.compile("layer A { module fs node x[3] update y = x + relu(fs[0](x)) }", nn.ModuleList([nn.Linear(3, 3)]))
    assert "say which dim the module gives: fs[0](x; 3)" in str(caught.value.diagnostics[0].hint)


def test_a_fold_of_two_messages() -> None:
    body = "reduce r(acc, m, t) = acc + m * t init 0 aggregate y = r(x[j], {}) return y"
    assert check(parse(program(body.format("x[i] @ w"))).layer(), {})
    with pytest.raises(LanguageError, match=r"`r` would pair each place of `d` with each of `k`"):
        check(parse(program(body.format("e"))).layer(), {})


def test_sizes_decide_nothing() -> None:
    """The same text with other sizes is the same mistake, and the same sum."""
    for d, k in ((3, 3), (3, 4), (1, 5)):
        with pytest.raises(LanguageError, match="`d` with each of `k`"):
            check(parse(program("update y = x + z")).layer(), {"d": d, "k": k})
        check(parse(program("update y = x + x @ w")).layer(), {"d": d, "k": k})


def test_the_hint_for_a_dim_that_occurs_twice_leads_somewhere() -> None:
    """Taken by the word, it gives a residual that adds place by place."""
    text = "layer A(d = 3) { node x[d] param w[d, d] ~ glorot update y = x + relu(x @ w) }"
    with pytest.raises(LanguageError, match="dim `d` occurs twice") as caught:
        check_any(parse(text).layer())
    assert caught.value.diagnostics[0].hint is not None
    assert "`d'`" in caught.value.diagnostics[0].hint
    (again,) = check_any(parse(text.replace("[d, d]", "[d, d']")).layer())
    assert str(again.outputs[0][1].type) == "node[d]"
