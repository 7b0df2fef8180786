"""``conv.check``: passes on right layers of every kind, and names what is wrong with wrong ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
from gdsl.ir.ops import ELEMENTWISE
from gdsl.look.check import CheckReport
from gdsl.module.checked import other_backends
from gdsl.runtime import backend, cache, execute
from gdsl.runtime.triton import interpreted

NODES, EDGES = 5, 9


@pytest.fixture
def only_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler: what a test says about derivatives does not need one."""
    monkeypatch.setattr(cache, "find_compiler", lambda: None)


def edges(nodes: int = NODES, count: int = EDGES) -> Tensor:
    return torch.randint(nodes, (2, count))


ATTENTION = """
layer Attention(d, out) {
    param weight[d, out] ~ glorot
    param att[out] ~ glorot
    param bias[out] ~ zeros
    node x[d]
    h = tanh(x @ weight)
    alpha = softmax((h @ att)[j] + (h @ att)[i])
    aggregate a = sum(alpha * h[j])
    update y = a + bias
}
"""

MEAN = "layer Mean { node x[d]\n edge w = 1\n aggregate a = mean(w * tanh(x[j]))\n update y = a }"


def names(report: CheckReport) -> list[str]:
    return [row.name for row in report.failures]


@pytest.mark.usefixtures("only_torch")
def test_report_of_a_right_layer() -> None:
    report = gdsl.compile(ATTENTION, d=3, out=2).check(torch.randn(NODES, 3), edges())
    assert report
    assert report.passed
    assert report.failures == ()
    found = [row.name for row in report.rows]
    inputs = ["x", "weight", "att", "bias"]
    assert found == [
        "optimised as unoptimised: result y",
        *(f"optimised as unoptimised: gradient of {n}" for n in inputs),
        *(f"gradcheck: {n}" for n in inputs),
        "gradgradcheck: incoming gradient",
        *(f"gradgradcheck: {n}" for n in inputs),
        "adjoint: <Jv, u> = <v, J'u>",
        "same bits twice: results",
        "same bits twice: gradients",
    ]
    lines = str(report).split("\n")
    assert lines[0] == "Attention, in float64: all 17 checks passed"
    assert len(lines) == 2 + len(report.rows)
    assert all(line.startswith("  ok  ") for line in lines[2:])
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.rows = ()  # type: ignore[misc]


@pytest.mark.skipif(cache.find_compiler() is None, reason="no C++ compiler")
def test_compiled_kernels_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = gdsl.compile(MEAN)
    x, graph = torch.randn(NODES, 3), edges()
    report = conv.check(x, graph)
    assert report, str(report)
    assert "cpp as torch: gradient of x" in {row.name for row in report.rows}

    right = execute.KernelPlan.run

    def wrong(self: Any, *args: Any) -> list[Tensor]:
        return [value + 1e-6 for value in right(self, *args)]

    monkeypatch.setattr(execute.KernelPlan, "run", wrong)
    found = names(conv.check(x, graph))
    assert found[:2] == ["cpp as torch: result y", "cpp as torch: gradient of x"]


@pytest.mark.usefixtures("only_torch")
def test_wrong_derivative_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(ELEMENTWISE["tanh"], derivative=(lambda x, y: 1.0 - y,))
    monkeypatch.setitem(ELEMENTWISE, "tanh", wrong)
    source = """
    layer L(d) {
        param inside[d] ~ ones
        param outside[d] ~ ones
        node x[d]
        aggregate a = sum(tanh(inside * x[j]))
        update y = a + outside
    }
    """
    report = gdsl.compile(source, d=2).check(torch.randn(NODES, 2), edges())
    assert not report
    assert {n for n in names(report) if n.startswith("gradcheck")} == {"gradcheck: x", "gradcheck: inside"}
    assert "adjoint: <Jv, u> = <v, J'u>" in names(report)
    (row,) = [row for row in report.failures if row.name == "gradcheck: x"]
    assert row.value > row.tolerance
    assert row.note == "the derivative does not fit the function"
    assert str(report).startswith("L, in float64: ")
    assert "  FAIL  gradcheck: inside" in str(report)


@pytest.mark.usefixtures("only_torch")
def test_kink_is_told_from_a_wrong_derivative() -> None:
    conv = gdsl.compile("layer L { node x[d]\n edge w\n aggregate a = sum(w * relu(x[j]))\n update y = a }")
    x = torch.randn(NODES, 2)
    x[1] = 0.0
    graph = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    report = conv.check(x, graph, torch.rand(4) + 0.5)
    assert "gradcheck: x" in names(report)
    assert "gradcheck: w" not in names(report)
    (row,) = [row for row in report.failures if row.name == "gradcheck: x"]
    assert "kink" in row.note


@pytest.mark.usefixtures("only_torch")
def test_nothing_of_the_user_changes() -> None:
    conv = gdsl.compile(ATTENTION, d=3, out=2).train()
    x, graph = torch.randn(NODES, 3, requires_grad=True), edges()
    before, state = x.detach().clone(), {k: v.clone() for k, v in conv.state_dict().items()}
    seed = torch.get_rng_state()
    with torch.no_grad():
        assert conv.check(x, graph)
    assert torch.equal(x, before)
    assert x.grad is None
    assert all(p.grad is None and p.dtype == torch.float32 for p in conv.parameters())
    assert all(torch.equal(v, state[k]) for k, v in conv.state_dict().items())
    assert conv.training
    assert conv.backend == "auto"
    assert torch.equal(torch.get_rng_state(), seed)


def _bipartite() -> tuple[Any, ...]:
    source = """layer Pair { source s[d]
    target t[d]
    aggregate a = sum(s[j] * t[i])
    update y = a
}"""
    graph = gdsl.Graph(torch.tensor([[0, 1, 3, 2], [1, 0, 2, 2]]), (4, 3))
    return source, {}, ((torch.randn(4, 2), torch.randn(3, 2)), graph), {}


def _relations() -> tuple[Any, ...]:
    source = """layer Relations(d, relations) {
    param weight[relations, d] ~ glorot
    node x[d]
    edge rel: int(relations)
    aggregate a = sum(weight[rel] * x[j])
    update y = a
}"""
    return source, {"d": 2, "relations": 3}, (torch.randn(NODES, 2), edges(), torch.randint(3, (EDGES,))), {}


def _pooled() -> tuple[Any, ...]:
    source = """layer Pool { node x[d]
    pool g = mean(exp(x))
    return g, x
}"""
    return source, {}, (torch.randn(NODES, 2), edges()), {"batch": torch.tensor([0, 0, 1, 1, 1])}


def _dropout() -> tuple[Any, ...]:
    source = "layer Drop { node x[d]\n aggregate a = sum(dropout(x[j], 0.5))\n update y = a }"
    return source, {}, (torch.randn(NODES, 2), edges()), {}


def _optional() -> tuple[Any, ...]:
    return MEAN, {}, (torch.randn(NODES, 2),), {"graph": edges(), "w": torch.rand(EDGES)}


def _many_runs() -> tuple[Any, ...]:
    return MEAN, {}, (torch.randn(200, 4), edges(200, 900)), {}


def _no_edges() -> tuple[Any, ...]:
    return MEAN, {}, (torch.randn(3, 2), torch.zeros(2, 0, dtype=torch.long), torch.zeros(0)), {}


def _no_nodes() -> tuple[Any, ...]:
    return MEAN, {}, (torch.zeros(0, 2), torch.zeros(2, 0, dtype=torch.long)), {}


def _no_derivative() -> tuple[Any, ...]:
    source = "layer Degree { node x[d]\n update y = degree(i) + floor(x) }"
    return source, {}, (torch.randn(NODES, 2), edges()), {}


def _no_real_input() -> tuple[Any, ...]:
    source = "layer Count { node kind: int(3)\n aggregate a = sum(2 * kind[j])\n update y = a }"
    return source, {}, (torch.randint(3, (NODES,)), edges()), {}


class _Cubic(nn.Module):
    """A module that the compiler cannot read: it runs as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x**3


MODULE = """layer Module { module nn
    node x[d]
    message m = nn(x[j] - x[i])
    aggregate a = sum(m)
    update y = a
}"""


def _module() -> tuple[Any, ...]:
    return MODULE, {"nn": _Cubic()}, (torch.randn(NODES, 2), edges()), {}


@pytest.mark.usefixtures("only_torch")
@pytest.mark.parametrize(
    "case",
    [
        _bipartite,
        _relations,
        _pooled,
        _dropout,
        _optional,
        _module,
        _many_runs,
        _no_edges,
        _no_nodes,
        _no_derivative,
        _no_real_input,
    ],
)
def test_layers_of_every_kind_pass(case: Any) -> None:
    source, arguments, args, kwargs = case()
    report = gdsl.compile(source, **arguments).check(*args, **kwargs)
    assert report, str(report)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("there is no second derivative")
        return 2 * ctx.saved_tensors[0] * g


class _OnceModule(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _Once.apply(x)


class _Drifting(nn.Module):
    """Gives something else each time."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (1 + 1e-13 * self.calls)


@pytest.mark.usefixtures("only_torch")
def test_missing_second_derivative_is_a_failed_row() -> None:
    report = gdsl.compile(MODULE, nn=_OnceModule()).check(torch.randn(NODES, 2), edges())
    assert names(report) == ["gradgradcheck: incoming gradient", "gradgradcheck: x"]
    assert {row.note for row in report.failures} == {"there is no second derivative"}


@pytest.mark.usefixtures("only_torch")
def test_other_bits_the_second_time_are_found() -> None:
    report = gdsl.compile(MODULE, nn=_Drifting()).check(torch.randn(NODES, 2), edges())
    assert "same bits twice: results" in names(report)
    assert "same bits twice: gradients" in names(report)
    assert report.failures[-1].note.endswith("differ")


def test_mistakes_of_the_call_are_raised() -> None:
    conv = gdsl.compile(ATTENTION, d=3, out=2)
    with pytest.raises(gdsl.InputError, match="x` must have shape"):
        conv.check(torch.randn(NODES, 4), edges())
    with pytest.raises(gdsl.InputError, match="is missing"):
        conv.check(torch.randn(NODES, 3))


def test_the_backend_that_auto_takes_on_a_gpu_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the reference with itself."""
    monkeypatch.setattr(backend, "_has_triton", lambda: True)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert other_backends("auto", gpu) == ("triton",)
    assert other_backends("torch", gpu) == ("triton",)
    monkeypatch.setattr(cache, "find_compiler", lambda: "g++")
    assert other_backends("auto", cpu) == ("cpp",)
    assert other_backends("triton", cpu) == ("cpp", "triton")
    monkeypatch.setattr(cache, "find_compiler", lambda: None)
    assert other_backends("auto", cpu) == ()


@pytest.mark.skipif(not interpreted(), reason="Triton runs on no CPU here")
def test_the_backend_of_the_layer_is_compared() -> None:
    report = gdsl.compile(MEAN, d=2, backend="triton").check(torch.randn(NODES, 2), edges())
    assert report
    assert "triton as torch: result y" in [row.name for row in report.rows]
