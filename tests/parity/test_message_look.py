"""The look inside a layer of a user's own: what a layer in text has, a message in torch has."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
from gdsl.nn import MessagePassing

NODES, EDGES = 6, 14


def graph(seed: int = 1) -> Tensor:
    return torch.randint(NODES, (2, EDGES), generator=torch.Generator().manual_seed(seed))


def features(seed: int = 2) -> Tensor:
    return torch.randn(NODES, 3, generator=torch.Generator().manual_seed(seed))


class Mixing(MessagePassing):
    """A part, a buffer, a tensor of nobody's, and an aggregation that learns."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"aggr": "softmax", "aggr_kwargs": {"learn": True}, **kwargs})
        torch.manual_seed(0)
        self.mix = nn.Linear(6, 3)
        self.register_buffer("scale", torch.tensor([0.5, 2.0, 1.5]))

    def forward(self, x: Tensor, edge_index: Tensor, w: Tensor | None = None) -> Tensor:
        return self.propagate(edge_index, x=x, w=w)  # type: ignore[no-any-return]

    def message(self, x_i: Tensor, x_j: Tensor, w: Tensor | None) -> Tensor:  # type: ignore[override]
        y: Tensor = self.mix(torch.cat([x_i, x_j], -1)).tanh() * self.scale
        return y if w is None else y * w.view(-1, 1)


class Twice(Mixing):
    """Two calls in one."""

    def forward(self, x: Tensor, edge_index: Tensor, w: Tensor | None = None) -> Tensor:
        y = self.propagate(edge_index, x=x, w=w)
        return self.propagate(edge_index.flip(0), x=y, w=None)  # type: ignore[no-any-return]


class Broken(Mixing):
    """What has no form in a program."""

    def message(self, x_i: Tensor, x_j: Tensor, w: Tensor | None) -> Tensor:  # type: ignore[override]
        return x_j.cumsum(0)


def test_the_program_names_what_it_reads() -> None:
    layer = Mixing(backend="torch")
    layer(features(), graph(), torch.rand(EDGES))
    roles = {d.name: d.role for d in layer.program.declarations}
    assert roles == {"x": "input", "w": "input", "mix.weight": "param", "mix.bias": "param", "scale": "param",
                     "aggr_module.t": "param"}  # fmt: skip
    text = layer.explain()
    assert "message = tanh(" in text and "mix.weight" in text and "softmax" not in text


def test_names_are_those_of_this_moment() -> None:
    """A parameter of another name, one in another's place, and a tensor that is none."""

    class Changing(MessagePassing):
        def __init__(self) -> None:
            super().__init__(backend="torch")
            self.first, self.second = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(3))
            self.held: Any = self.first

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)  # type: ignore[no-any-return]

        def message(self, x_j: Tensor) -> Tensor:
            return x_j * (self.held if isinstance(self.held, Tensor) else self.held[0])

    layer, x, edges = Changing(), features(), graph()

    def names() -> list[str]:
        expected = torch.zeros(NODES, 3).index_add(0, edges[1], layer.message(x)[edges[0]])
        assert torch.allclose(layer(x, edges), expected, atol=1e-6) and layer.how == "fused"
        return [d.name for d in layer.program.declarations if d.name != "x"]

    assert names() == ["first"]
    object.__setattr__(layer, "held", [layer.second])
    layer._parameters.pop("held", None)
    assert names() == ["second"]
    layer.second = nn.Parameter(torch.rand(3))
    (name,) = names()
    assert name.startswith("given.")  # which was the second one
    layer.held = [layer.second]
    assert names() == ["second"]
    del layer.second
    (name,) = names()
    assert name.startswith("given.")
    values = {"first": torch.rand(3), "second": torch.rand(3)}
    layer.second = nn.Parameter(torch.rand(3))
    layer.held = [layer.first]
    y = torch.func.functional_call(layer, values, (x, edges))
    assert torch.allclose(y, layer(x, edges))  # of the tensor that the method read


def test_all_calls_of_propagate_are_shown() -> None:
    layer, x, edges = Twice(), features(), graph()
    with pytest.raises(gdsl.InputError, match="call Twice once"):
        layer.explain()
    layer(x, edges, torch.rand(EDGES))
    assert layer.explain().count("program Twice {") == 2
    one = Mixing()
    one(x, edges)
    assert len(layer.kernels) == 2 * len(one.kernels) > 0
    layer.propagate(edges, x=x, w=None)  # by itself
    assert layer.explain().count("program Twice {") == 1
    layer(x, edges)
    assert layer.explain().count("program Twice {") == 2


def test_kernels() -> None:
    layer = Mixing()
    layer(features(), graph())
    found = layer.kernels
    assert {k.language for k in found} == {"cpp"} and {k.direction for k in found} == {"forward", "backward"}
    assert {k.language for k in layer.kernels_for("triton")} == {"triton"}
    assert "== kernels on this graph ==" in layer.explain(graph())


def test_one_node() -> None:
    layer, x, edges, w = Twice(), features(), graph(), torch.rand(EDGES)
    with torch.no_grad():
        layer(x, edges, w)
        single = Mixing()
        expected = single(x, edges, w)
    single.load_state_dict(layer.state_dict())
    node = int(edges[1, 0])
    text = single.explain(edges, node=node, inputs=[x, w])
    assert "message = tanh(" in text
    last = text[text.index("\nout = ") :].splitlines()[2].split("|")[0]
    assert torch.allclose(torch.tensor([float(v) for v in last.split()]), expected[node], rtol=1e-3)
    assert layer.explain(edges, node=node).count("largest difference between reference and kernel") > 4
    with pytest.raises(gdsl.InputError, match="no node 6"):
        layer.explain(edges, node=NODES)


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("make", [Mixing, lambda **kw: gdsl.nn.SAGEConv(3, 3, **kw)], ids=["own", "library"])
def test_one_node_is_seen_as_messages_flow(make: Any, flow: str) -> None:
    layer, edges = make(flow=flow, backend="torch"), graph()
    layer(features(), edges)
    out_of, into = (torch.bincount(row, minlength=NODES) for row in edges)
    node = int((out_of - into).abs().argmax())
    count = int((into if flow == "source_to_target" else out_of)[node])
    assert out_of[node] != into[node]
    assert f"node {node} of {NODES}: {count} in-edges" in layer.explain(edges, node=node)


@pytest.mark.parametrize("kind", [Mixing, Twice])
def test_check(kind: type[Mixing]) -> None:
    layer = kind()
    assert layer.check(features()[:3], graph()[:, :4] % 3, w=torch.rand(4)).passed
    y = layer(features(), graph())
    assert layer.how == "fused" and y.shape == (NODES, 3)


def test_check_finds_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from gdsl.module import ways

    plain = ways.optimise

    def wrong(program: Any, options: Any) -> Any:
        (node,) = program.nodes
        return plain(program.mapped({node: node * 1.001}), options)

    monkeypatch.setattr(ways, "optimise", wrong)
    found = Mixing().check(features(), graph())
    assert not found.passed


@pytest.mark.parametrize("call", ["program", "kernels", "explain", "explain on a graph", "check"])
def test_a_layer_that_runs_as_it_is_says_so(call: str) -> None:
    layer, x, edges = Broken(), features(), graph()
    calls: dict[str, Any] = {
        "program": lambda: layer.program,
        "kernels": lambda: layer.kernels,
        "explain": lambda: layer.explain(),
        "explain on a graph": lambda: layer.explain(edges, node=0),
        "check": lambda: layer.check(x, edges),
    }
    layer(x, edges)
    with pytest.raises(gdsl.InputError, match=r"ran no program.*cumsum"):
        calls[call]()
    assert "kernels" not in dir(layer) and "program" not in dir(layer)


def test_choose() -> None:
    x, edges = features().requires_grad_(), graph()
    layer, saves = Mixing(), []
    y = layer(x, edges)
    (expected,) = torch.autograd.grad(y.sum(), x)
    for choice in ("all", "nothing"):
        assert layer.choose(save=choice) is layer
        z = layer(x, edges)
        assert layer.how == "fused" and torch.allclose(z, y, atol=1e-6)
        assert torch.allclose(torch.autograd.grad(z.sum(), x)[0], expected, atol=1e-5)
        saves.append(layer.explain())
    assert saves[0] != saves[1]
    with pytest.raises(gdsl.InputError, match="there is no choice"):
        layer.choose(speed="high")


def test_copies_have_programs_of_their_own() -> None:
    layer, x, edges = Mixing(backend="torch"), features(), graph()
    y = layer(x, edges)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with pytest.raises(gdsl.InputError):
            twin.program  # noqa: B018
        assert torch.equal(twin(x, edges), y)
        assert twin.program.name == "Mixing" and twin._store is not layer._store


# ------------------------------------------------------------------------------------------- aggregations in a trace


AGGREGATIONS: dict[str, dict[str, Any]] = {
    "softmax": {"learn": True}, "std": {}, "median": {}, "quantile": {"q": 0.3}, "powermean": {"learn": True},
    "multi": {"aggrs": ["sum", "max", "std"]},
}  # fmt: skip


SHAPES = [((NODES, 4), -2), ((NODES,), 0), ((2, NODES, 4), -2), ((NODES, 3, 4), 0)]


@pytest.mark.parametrize(
    ("aggr", "shape", "node_dim"),
    [
        # An aggregation has rows of numbers or single ones; all that is more is turned to rows in one place.
        *((aggr, *shape) for aggr in AGGREGATIONS for shape in SHAPES[:2]),
        *((aggr, *shape) for aggr in ("softmax", "multi") for shape in SHAPES[2:]),
    ],
)
def test_aggregations_in_a_compiled_call(aggr: str, shape: tuple[int, ...], node_dim: int) -> None:
    """The message is torch's there, and what a node makes of it is one operator."""

    class Passing(MessagePassing):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)  # type: ignore[no-any-return]

        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:  # type: ignore[override]
            return torch.tanh(x_j) * x_i

    options: dict[str, Any] = {"aggr": aggr, "aggr_kwargs": AGGREGATIONS[aggr]}
    if aggr == "multi":
        options = {"aggr": AGGREGATIONS[aggr]["aggrs"]}
    layer = Passing(node_dim=node_dim, backend="torch", **options).double()
    torch._dynamo.reset()
    results = []
    for call in (layer, torch.compile(layer, backend="eager", fullgraph=True, dynamic=node_dim == 0)):
        for edges in (graph(), graph(3)[:, :9]):
            g = torch.Generator().manual_seed(0)
            x = torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()
            layer.zero_grad()
            y = call(x, edges)
            y.square().sum().backward()
            results.append([y, x.grad, *(p.grad for p in layer.parameters())])
    for one, other in zip(results[:2], results[2:], strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_an_aggregation_in_an_exported_call() -> None:
    layer, x, edges = Mixing(), features(), graph()
    found = torch.export.export(layer, (x, edges)).module()(x, edges)
    torch.testing.assert_close(found, layer(x, edges))
