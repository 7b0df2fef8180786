"""Tracers that record a call: those that cannot see the kernels are refused at once, with what to do instead; and what
torch.compile cannot trace runs as it is."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import gdsl
import gdsl.nn
from tests.programs import harness

X, EDGES = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)), harness.random_edges(6, 14, seed=1)

TEXT = "layer L(d) { node x[d] message m = x[j] aggregate a = mean(m) update y = tanh(a) }"
DROPOUT = "layer L(d) { node x[d] message m = dropout(x[j], 0.5) aggregate a = sum(m) update y = dropout(a, 0.3) }"


class Mean(gdsl.nn.MessagePassing):
    """A user's own layer."""

    def __init__(self) -> None:
        super().__init__(aggr="mean")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)  # type: ignore[no-any-return]


class Model(nn.Module):
    """A layer inside something else."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index).relu()  # type: ignore[no-any-return]


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "text": lambda: gdsl.compile(TEXT, d=4),
    "text of a free size": lambda: gdsl.compile("layer L { node x[d] aggregate a = mean(x[j])\n update y = a }"),
    "GCNConv": lambda: gdsl.nn.GCNConv(4, 2),
    "GATConv": lambda: gdsl.nn.GATConv(4, 2),
    "GATv2Conv": lambda: gdsl.nn.GATv2Conv(4, 2),
    "SAGEConv": lambda: gdsl.nn.SAGEConv(4, 2),
    "GINConv": lambda: gdsl.nn.GINConv(nn.Linear(4, 2)),
    "GatedGraphConv": lambda: gdsl.nn.GatedGraphConv(4, 2),
    "MessagePassing": Mean,
}  # fmt: skip


def with_fakes(module: nn.Module) -> Any:
    """A call whose results have no memory."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        return module(X, EDGES)


TOOLS: dict[str, Callable[[nn.Module], Any]] = {
    "jit.trace": lambda m: torch.jit.trace(m, (X, EDGES), check_trace=False),
    "jit.script": torch.jit.script,
    "symbolic_trace": torch.fx.symbolic_trace,
    "make_fx": lambda m: make_fx(m)(X, EDGES),
    "make_fx of fakes": lambda m: make_fx(m, tracing_mode="symbolic")(X, EDGES),
    "FakeTensorMode": with_fakes,
}

MODES = {"grad": contextlib.nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_refused_with_what_to_do(name: str, called: bool) -> None:
    """Before and after a call, alone and inside a model, with gradients and without."""
    made = LAYERS[name]()
    if called:
        made(X, EDGES)
    for tool in TOOLS.values():
        for mode in MODES.values():
            for module in (made, Model(made)):
                with mode(), pytest.raises(gdsl.InputError, match=r"use torch\.export\.export"):
                    tool(module)


def test_the_core_refuses_too() -> None:
    """Where nobody has asked before: a function that calls ``forward`` itself."""
    made = gdsl.compile(TEXT, d=4)
    made(X, EDGES)
    with torch.no_grad(), pytest.raises(gdsl.InputError, match=r"torch\.jit\.trace"):
        torch.jit.trace(lambda x: made.forward(x, EDGES), (X,), check_trace=False)


GROUPS = torch.tensor([0, 0, 1, 1, 1, 2])

AGGREGATIONS: dict[str, Callable[[], Any]] = {
    "sum": gdsl.nn.SumAggregation,
    "softmax": lambda: gdsl.nn.SoftmaxAggregation(learn=True),
    "several": lambda: gdsl.nn.MultiAggregation(["mean", "std"]),
    "attention": lambda: gdsl.nn.AttentionalAggregation(nn.Linear(4, 1)),
    "a part that runs": lambda: gdsl.nn.AttentionalAggregation(nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5))),
    "global_add_pool": lambda: gdsl.nn.global_add_pool,
    "global_max_pool": lambda: gdsl.nn.global_max_pool,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", AGGREGATIONS)
def test_aggregations_are_refused_with_what_to_do(name: str) -> None:
    """Called by themselves: alone, inside a model, and as functions."""
    made = AGGREGATIONS[name]()
    made(X, GROUPS)
    tools: list[Callable[[], Any]] = [
        lambda: torch.jit.trace(made, (X, GROUPS), check_trace=False),
        lambda: torch.jit.trace(lambda x: made(x, GROUPS), (X,), check_trace=False),
        lambda: make_fx(lambda x: made(x, GROUPS))(X),
        lambda: make_fx(lambda x: made(x, GROUPS), tracing_mode="fake")(X),
    ]
    if isinstance(made, nn.Module):
        tools += [lambda: torch.jit.trace(Model(made), (X, GROUPS), check_trace=False), lambda: torch.jit.script(made)]
        tools += [lambda: torch.jit.script(Model(made)), lambda: torch.fx.Tracer().trace(made)]
    for tool in tools:
        with pytest.raises(gdsl.InputError, match=r"use torch\.export\.export"):
            tool()


@pytest.mark.filterwarnings("ignore")
def test_an_aggregation_of_a_users_own_in_torch_is_traced() -> None:
    class Own(gdsl.nn.Aggregation):
        def forward(self, x: Tensor, index: Tensor) -> Tensor:  # type: ignore[override]
            return x.new_zeros(3, x.shape[1]).index_add(0, index, x)

    for traced in (torch.jit.trace(Own(), (X, GROUPS)), torch.jit.script(Own())):
        torch.testing.assert_close(traced(X + 1, GROUPS.flip(0)), Own()(X + 1, GROUPS.flip(0)))


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_every_member_can_be_looked_at(name: str, called: bool) -> None:
    made = LAYERS[name]()
    if called:
        made(X, EDGES)
    members = dict(inspect.getmembers(made))
    assert members["training"] is True
    if name == "GCNConv":
        assert ("kernels" in members) == called
        if not called:
            with pytest.raises(gdsl.InputError, match="call GCNConv once"):
                _ = made.kernels


def test_what_cannot_be_traced_runs_as_it_is() -> None:
    """GATConv adds self-loops, so that the number of its weights is not known: by default torch.compile does not trace
    that, calls it, and would compile the functions inside. Their kernels wrote to memory that was given back."""
    torch.manual_seed(0)
    made = gdsl.nn.GATConv(4, 4, heads=2)
    torch._dynamo.reset()
    compiled = torch.compile(made, backend="aot_eager")
    for _ in range(3):
        torch.testing.assert_close(compiled(X, EDGES), made(X, EDGES))
        first, second = (torch.autograd.grad(f(X, EDGES).square().sum(), made.att_src)[0] for f in (compiled, made))
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("layer", ["text", "GATConv"])
def test_dropout_masks_are_those_without_a_compiler(layer: str, compiler: str) -> None:
    """Inductor draws torch.randint's numbers by itself."""
    made = gdsl.compile(DROPOUT, d=4) if layer == "text" else gdsl.nn.GATConv(4, 4, dropout=0.5)
    torch._dynamo.reset()
    compiled = torch.compile(made, backend=compiler, fullgraph=True)

    def two(call: Callable[..., Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(1)
        return call(X, EDGES), call(X, EDGES), torch.rand(3)

    wanted, found = two(made), two(compiled)
    assert not torch.equal(wanted[0], wanted[1])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_two_layers_in_one_compiled_call_draw_apart() -> None:
    made = Model(gdsl.compile("layer L(d) { node x[d] update y = dropout(x, 0.5) }", d=4))
    torch._dynamo.reset()
    first, second = torch.compile(lambda x: (made(x, EDGES), made(x, EDGES)), backend="aot_eager", fullgraph=True)(X)
    assert not torch.equal(first, second)
