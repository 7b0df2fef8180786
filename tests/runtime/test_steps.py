"""Steps that run in one native call: the same bits as one by one, whatever the graph is like."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.ir import build as ops
from gdsl.ir.ops import of
from gdsl.ir.types import Dim, Domain, Type
from gdsl.passes.options import Options
from gdsl.runtime import order, prepare, products, steps, stretches
from gdsl.runtime.cache import find_compiler
from gdsl.runtime.items import TorchItem
from gdsl.runtime.steps import Together

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")

TEXTS = {
    "products and a walk": """
        layer A(d, o) { param w[d, o] ~ glorot param b[o] ~ normal node x[d]
                        aggregate a = mean(x[j] @ w) update y = a + b }""",
    "a sum of products with two biases": """
        layer B(d, o) { param w[d, o] ~ glorot param v[d, o] ~ glorot param b[o] ~ normal param c[o] ~ normal node x[d]
                        aggregate a = mean(x[j]) update y = a @ w + x @ v + b + c }""",
    "a map with a bias": """
        layer F(d, o) { param w[d, o] ~ glorot param b[o] ~ normal node x[d]
                        h = tanh(x @ w + b) aggregate a = sum(h[j]) update y = a }""",
    "views, an edge softmax, edge inputs": """
        layer C(d, h, o) { param w[d, h, o] ~ glorot param att[o] ~ normal node x[d] edge e
                           z = x @ w s = exp(e) * (leaky_relu(z[i] + z[j], 0.2) @ att) p = softmax(s)
                           aggregate a = sum(p * z[j]) update y = merge(a, h, o) }""",
    "between torch's own steps": """
        layer D(d, o) { param w[2*d, o] ~ glorot param k ~ normal node x[d]
                        aggregate m = max(x[j]) update y = cat(x, m) @ w * tanh(k) return y, m }""",
    "parts of parameters, and numbers for all rows": """
        layer H(d, o) { param w[2*d, o] ~ glorot param g[o] ~ normal param k[o] ~ normal node x[d]
                        aggregate a = max(relu(cat(x[i], x[j]) @ w)) update y = a * (1 + g) / (2 + k * k) }""",
    "a matrix in many parts": """
        layer I(d, o) { param w[4*d, 4*o] ~ glorot node x[d]
                        all = cat(sum(x[j]), max(x[j]), x) update y = cat(x * x, all) @ w }""",
    "products whose matrix and result are turned": """
        layer J(d, o, h = 8, k = 4) { param v[d, h*k] ~ glorot param w[k, h, 4*o] ~ glorot node x[d]
                                      aggregate a = max((x @ v)[j])
                                      update y = sum[k, h](split(a, h*k, h, k) * w) }""",
    "choices among numbers for all rows": """
        layer K(d, o) { param w[d, o] ~ glorot param k ~ normal param l[o] ~ normal node x[d]
                        c = where(k < 0.3, where(l >= 0, -l, leaky_relu(l, 0.1)), l / (1 + k * k))
                        aggregate a = sum((x @ w)[j]) update y = a * c }""",
    "out-edges and degrees": """
        layer E(d) { node x[d] aggregate a = sum((x / (1 + degree(j)))[j]) update y = a * degree(i) }""",
}
ARGUMENTS = {"d": 6, "o": 5, "h": 2}


def made(text: str, dtype: torch.dtype = torch.float32) -> gdsl.Layer:
    torch.manual_seed(0)
    names = TEXTS[text].partition("(")[2].partition(")")[0].split(", ")
    given = {name: ARGUMENTS[name] for name in names if "=" not in name}
    return gdsl.compile(TEXTS[text], **given, backend="cpp").to(dtype)


def graph_of(nodes: int, edges: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(max(nodes, 1), (2, edges if nodes else 0), generator=random)


def all_of(layer: gdsl.Layer, nodes: int, edges: Tensor, **given: Tensor) -> list[Tensor]:
    """Results and gradients by everything."""
    dtype = next(iter(layer.parameters()), torch.zeros(())).dtype
    random = torch.Generator().manual_seed(1)
    x = torch.randn(nodes, ARGUMENTS["d"], dtype=dtype, generator=random).requires_grad_()
    more = [torch.randn(edges.shape[1], dtype=dtype, generator=random)] if "edge e" in layer.source else []
    layer.zero_grad()
    found = layer(x, edges, *more)
    outputs = found if isinstance(found, tuple) else (found,)
    torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])
    return [*outputs, x.grad, *(p.grad for p in layer.parameters())]  # type: ignore[list-item]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each run of steps that may be one call, whether it was."""
    prepare.native(wait=True)
    prepare.native(wait=True, another=True)
    found: list[bool] = []
    run = Together.run

    def counted(*args: object) -> bool:
        found.append(run(*args))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(Together, "run", counted)
    return found


def one_by_one(monkeypatch: pytest.MonkeyPatch, function: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
    with monkeypatch.context() as patched:
        patched.setattr(Together, "run", lambda *_: False)
        return function()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_the_same_bits(text: str, dtype: torch.dtype, calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    layer = made(text, dtype)
    for nodes, edges in ((30, 60), (7, 0), (1, 1), (0, 0), (300, 2000)):
        given = graph_of(nodes, edges)
        found = all_of(layer, nodes, given)
        assert calls
        assert all(calls)
        for a, b in zip(found, one_by_one(monkeypatch, lambda: all_of(layer, nodes, given)), strict=True):  # noqa: B023
            assert torch.equal(a, b)


@pytest.mark.parametrize("text", TEXTS)
def test_the_same_bits_in_several_blocks(text: str, calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Partial sums are added up in the same order; of more blocks the steps run one by one."""
    for work, together in ((600, True), (100, False)):
        for module in (order, prepare):
            monkeypatch.setattr(module, "BLOCK_WORK", work)
        layer, given = made(text), graph_of(300, 2000, seed=work)
        calls.clear()
        found = all_of(layer, 300, given)
        assert all(called == together for called in calls)
        for a, b in zip(found, one_by_one(monkeypatch, lambda: all_of(layer, 300, given)), strict=True):  # noqa: B023
            assert torch.equal(a, b)


def test_by_what_the_reference_gives(calls: list[bool]) -> None:
    for text in TEXTS:
        layer = made(text, torch.float64)
        found = all_of(layer, 30, graph_of(30, 60))
        layer.backend = "torch"
        torch.testing.assert_close(found, all_of(layer, 30, graph_of(30, 60)))
    assert all(calls)


PIECES = [
    lambda x: ops.slice_dim(x, "a", 2, Dim("p", 3)),
    lambda x: ops.slice_dim(x, "b", 1, Dim("p", 2)),
    lambda x: ops.slice_dim(x, "c", 1, Dim("p", 1)),
    lambda x: ops.transpose(x, ["b", "c", "a"]),
    lambda x: ops.transpose(x, ["c", "a", "b"]),
    lambda x: ops.cat([x, ops.const(0.5, [Dim("z", 2)]), x], ["a", "z", "a"], Dim("p", 12)),
    lambda x: ops.cat([ops.const(0.5, [Dim("z", 1)]), x], ["z", "b"], Dim("p", 5)),
    lambda x: ops.cat([x, x], ["c", "c"], Dim("p", 4)),
]


@pytest.mark.parametrize("domain", [Domain.GLOBAL, Domain.NODE], ids=str)
@pytest.mark.parametrize("piece", range(len(PIECES)))
def test_runs_are_where_the_numbers_stand(piece: int, domain: Domain) -> None:
    x = ops.load("x", Type(domain, (Dim("a", 5), Dim("b", 4), Dim("c", 2))), "input")
    node = PIECES[piece](x)
    row = torch.randn(x.type.numel)
    found = [
        0.5 if run.operand < 0 else float(row[run.start + k * run.apart])
        for run in stretches.stretches(node)
        for k in range(run.length)
    ]
    parts = [torch.tensor(0.5).expand(n.type.shape) if n.op == "const" else row.view(n.type.shape) for n in node.inputs]
    if domain is Domain.NODE:
        parts = [part if n.op == "const" else part[None] for part, n in zip(parts, node.inputs, strict=True)]
    expected = of(node).value(node, parts, stretches.ONE_ROW)  # type: ignore[misc]
    assert found == expected.flatten().tolist()
    assert len(stretches.stretches(node)) <= node.type.numel // (1 if piece in (2, 7) else 2)


def test_views_of_views(calls: list[bool]) -> None:
    text = """layer V(d, o = 6) { param w[d, o] ~ normal node x[d] h = x @ w
                           return merge(split(merge(split(h, o, 2, 3), 2, 3), 2*3, 3, 2), 3, 2), h }"""
    for optimise in (True, False):
        layer = gdsl.compile(text, d=6, backend="cpp")
        layer.options = Options(optimise=optimise)
        x = torch.randn(5, 6)
        y, h = layer(x, graph_of(5, 9))
        assert torch.equal(y, h)
        torch.testing.assert_close(h, x @ layer.w)
    assert calls
    assert all(calls)


def test_inputs_that_do_not_lie_as_kernels_read_them(calls: list[bool]) -> None:
    layer, edges = made("a sum of products with two biases"), graph_of(30, 60)
    x = torch.randn(6, 30).t()
    assert not x.is_contiguous()
    assert torch.equal(layer(x, edges), layer(x.contiguous(), edges))
    assert all(calls)


def test_what_is_too_large_runs_one_by_one(calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_BYTES", 1000)
    layer = made("products and a walk")
    all_of(layer, 30, graph_of(30, 60))
    assert calls and not any(calls)


def test_what_is_read_no_more_gives_its_memory(calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many steps follow each other: a network of any depth, and parts of what lies in memory."""
    whole: list[Together] = []
    run = Together.run
    monkeypatch.setattr(Together, "run", lambda self, *args: (whole.append(self), run(self, *args))[1])
    found = {}
    for depth in (3, 9):
        text = f"""layer N(d) {{ param w[2*d, d] ~ glorot node x[d] h = x
                   for k in 1..{depth} {{ aggregate a = max(h[j]) h = tanh(cat(h, a) @ w) }} update y = h }}"""
        layer, given = gdsl.compile(text, d=6, backend="cpp"), graph_of(30, 60)
        layer.options = Options(save="nothing")
        whole.clear()
        layer(torch.randn(30, 6), given)
        found[depth] = max(sum(width for _, width in one._places) for one in whole)
        together = all_of(layer, 30, given)
        for a, b in zip(together, one_by_one(monkeypatch, lambda: all_of(layer, 30, given)), strict=True):  # noqa: B023
            assert torch.equal(a, b)
    assert all(calls)
    assert 0 < found[9] == found[3]


def test_without_a_blas_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are then steps of torch."""
    text = "a sum of products with two biases"
    monkeypatch.setattr(products, "wanted", lambda: False)
    wanted = all_of(made(text), 30, graph_of(30, 60))
    monkeypatch.setattr(steps, "_blas", dict)
    layer = made(text)
    found = all_of(layer, 30, graph_of(30, 60))
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)
    runners = [runner for ready in layer._ran()[0].kind.ready.values() for _, runner, _ in ready.stages]
    plans = [plan.forward for runner in runners for plan in runner._differentiable.values()]
    assert any(isinstance(step, TorchItem) for plan in plans for step in plan.steps)  # type: ignore[union-attr]


def test_kernels_of_any_number_of_pointers(calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each input and output; from some number on Python calls them."""
    for count in (1, 5, 20, 44, 60):
        inputs = " ".join(f"param p{k} ~ normal" for k in range(count))
        text = f"layer P(d) {{ node x[d] {inputs} update y = x * ({' + '.join(f'p{k}' for k in range(count))}) }}"
        layer = gdsl.compile(text, d=2, backend="cpp")
        x, edges = torch.randn(5, 2), graph_of(5, 9)
        found = layer(x, edges)
        expected = x * sum(p for _, p in layer.named_parameters())
        torch.testing.assert_close(found, expected)


def test_what_is_turned_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of bits would say nothing if no matrix and no result were turned."""
    written: list[object] = []
    arrange = steps._StepWriter._arrange
    monkeypatch.setattr(steps._StepWriter, "_arrange", lambda *args: (written.append(args[1:]), arrange(*args)))
    # Sizes that no other test has: what is compiled is kept.
    text = TEXTS["products whose matrix and result are turned"]
    all_of(gdsl.compile(text, d=6, o=4, backend="cpp"), 30, graph_of(30, 60))
    assert any(node is as_in for node, as_in in written)  # type: ignore[misc]
    assert any(node is not as_in for node, as_in in written)  # type: ignore[misc]
