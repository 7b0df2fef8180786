"""Kinds of calls of a user's layer: precision, sizes, dtypes, tracers, threads: as torch_geometric, or refused."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gdsl.module import run as runs
from gdsl.nn import MessagePassing

pyg = pytest.importorskip("torch_geometric.nn")


def edges_of(count: int, nodes: int = 6, seed: int = 1) -> Tensor:
    return torch.randint(nodes, (2, count), generator=torch.Generator().manual_seed(seed))


def diff(base: Any) -> Any:
    class Diff(base):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**{"aggr": "max", **kwargs})

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
            return torch.tanh(x_j - x_i)

    return Diff


def weighted(base: Any) -> Any:
    class Weighted(base):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.gain = nn.Parameter(torch.tensor([0.5, 2.0, 1.5]))

        def forward(self, x: Tensor, edge_index: Tensor, w: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x, w=w)

        def message(self, x_j: Tensor, w: Tensor) -> Tensor:
            return torch.tanh(x_j * self.gain) * w.view(-1, 1)

    return Weighted


def mixed(base: Any) -> Any:
    class Mixed(base):
        def __init__(self) -> None:
            super().__init__(aggr="mean")
            self.enter, self.mix = nn.Linear(3, 4), nn.Linear(8, 4)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=self.enter(x))

        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
            return self.mix(torch.cat([x_i, x_j], dim=-1)).relu()

    return Mixed


# ------------------------------------------------------------------------------------------- precision


def test_autocast() -> None:
    """One rule for all fused messages, that of layers in text: the lower precision, and gradients of parameters as
    the parameters are."""
    theirs, ours = mixed(pyg.MessagePassing)(), mixed(MessagePassing)()
    ours.load_state_dict(theirs.state_dict())
    x, edges = torch.randn(6, 3), edges_of(9)
    results = []
    for layer in (theirs, ours):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x, edges)
        y.float().square().sum().backward()
        results.append((y, layer.mix.weight.grad, layer.enter.weight.grad))
    assert ours.how == "fused"
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one.float(), other.float(), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_of_parameters_beside_features(dtype: torch.dtype) -> None:
    ours = weighted(MessagePassing)()
    x, edges, w = torch.randn(6, 3).to(dtype), edges_of(9), torch.rand(9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ours(x, edges, w)
    assert y.dtype == torch.bfloat16 and ours.how == "fused"
    y.float().sum().backward()
    assert ours.gain.grad.dtype == torch.float32
    assert torch.allclose(y.float(), ours(x.float(), edges, w), atol=0.05)


def test_autocast_inside_is_torchs() -> None:
    def make(base: Any) -> Any:
        class Inside(base):
            def __init__(self) -> None:
                super().__init__()
                self.lin = nn.Linear(3, 3)

            def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
                return self.propagate(edge_index, x=x)

            def message(self, x_j: Tensor) -> Tensor:
                h = torch.tanh(x_j)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    h = self.lin(h)
                return h.float() * x_j

        return Inside()

    theirs, ours = make(pyg.MessagePassing), make(MessagePassing)
    ours.load_state_dict(theirs.state_dict())
    x, edges = torch.randn(6, 3), edges_of(9)
    assert torch.allclose(ours(x, edges), theirs(x, edges), atol=1e-6)
    assert "autocast" in ours.how


@pytest.mark.parametrize("kinds", [(torch.float64, torch.float32), (torch.float32, torch.float64),
                                   (torch.float16, torch.float32), (torch.float64, torch.float16)])  # fmt: skip
def test_dtypes_that_torch_promotes(kinds: tuple[torch.dtype, torch.dtype]) -> None:
    x, edges, w = torch.randn(6, 3).to(kinds[0]), edges_of(9), torch.rand(9).to(kinds[1])
    theirs, ours = weighted(pyg.MessagePassing)(), weighted(MessagePassing)()
    for layer in (theirs, ours):
        layer(x, edges, w).sum().backward()
    y, expected = ours(x, edges, w), theirs(x, edges, w)
    assert y.dtype == expected.dtype
    assert torch.allclose(y, expected, rtol=1e-3, atol=1e-6)
    assert ours.gain.grad.dtype == torch.float32
    assert torch.allclose(ours.gain.grad, theirs.gain.grad, rtol=1e-3, atol=1e-5)


def passing(base: Any) -> Any:
    class Passing(base):
        def forward(self, x: Any, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

    return Passing


@pytest.mark.parametrize("aggr", ["sum", "mean", "max", "min", "mul"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.complex64])
def test_numbers_that_no_kernel_has(aggr: str, dtype: torch.dtype) -> None:
    x, edges = torch.tensor([[4, 1], [-5, 0], [6, 2], [0, 0]]), torch.tensor([[0, 1, 2, 0], [1, 2, 0, 0]])
    x = (x * 1j if dtype.is_complex else x).to(dtype)
    try:
        expected = passing(pyg.MessagePassing)(aggr=aggr)(x, edges)
    except (RuntimeError, NotImplementedError):
        return  # numbers that torch cannot compare or divide: nothing to agree with
    found = passing(MessagePassing)(aggr=aggr)(x, edges)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("shape", "node_dim"), [((2, 6, 3), 1), ((2, 6, 3), -2), ((3, 6), -1), ((6,), 0), ((6,), -1),
                                                 ((6, 2, 3), 0)])  # fmt: skip
@pytest.mark.parametrize("aggr", ["sum", "mean", "max"])
def test_dimensions_of_nodes(shape: tuple[int, ...], node_dim: int, aggr: str) -> None:
    x, edges = torch.randn(shape, dtype=torch.float64), edges_of(9)
    theirs = diff(pyg.MessagePassing)(aggr=aggr, node_dim=node_dim)
    ours = diff(MessagePassing)(aggr=aggr, node_dim=node_dim)
    results = []
    for layer in (theirs, ours):
        leaf = x.clone().requires_grad_()
        y = layer(leaf, edges)
        (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
        results.append((y, leaf.grad))
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other)


# ------------------------------------------------------------------------------------------- sizes


def test_one_edge_now_and_then() -> None:
    theirs, ours = weighted(pyg.MessagePassing)(), weighted(MessagePassing)()
    for count in (5, 1, 5, 40, 0, 5):
        x, edges, w = torch.randn(6, 3), edges_of(count), torch.rand(count)
        assert torch.allclose(ours(x, edges, w), theirs(x, edges, w), atol=1e-6)
        assert ours.how == "fused", count


def test_an_unfused_call_does_not_end_fusion() -> None:
    class Sometimes(MessagePassing):
        odd = False

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_j: Tensor) -> Tensor:
            return x_j.cumsum(0) if self.odd else torch.tanh(x_j)

    layer, x, edges = Sometimes(), torch.randn(6, 3), edges_of(9)
    layer(x, edges)
    assert layer.how == "fused"
    layer.odd = True
    layer(x, edges)
    assert "cumsum" in layer.how
    layer(x.to(torch.complex64), edges)
    assert "real numbers" in layer.how
    layer.odd = False
    with torch.no_grad():
        layer(x, edges)  # another kind of call
    assert layer.how == "fused"
    for _ in range(3):
        y = layer(x, edges)
    assert layer.how == "fused"
    assert torch.allclose(y, torch.zeros(6, 3).index_add(0, edges[1], torch.tanh(x)[edges[0]]))


@pytest.mark.parametrize("rows", [2, 5, 7, 600])
def test_node_values_of_other_sizes(rows: int) -> None:
    """A row for each node: otherwise memory that is not theirs would be read."""

    def make(base: Any) -> Any:
        class Two(base):
            def forward(self, x: Tensor, h: Tensor, edge_index: Tensor) -> Tensor:
                return self.propagate(edge_index, x=x, h=h)

            def message(self, x_j: Tensor, h_j: Tensor) -> Tensor:
                return x_j * h_j

        return Two()

    for base in (pyg.MessagePassing, MessagePassing):
        for x, h in ((6, rows), (rows, 6)):
            with pytest.raises((ValueError, IndexError), match=r"expected size|larger than"):
                make(base)(torch.ones(x, 3), torch.ones(h, 3), edges_of(9))


def test_edges_of_nodes_that_are_not() -> None:
    with pytest.raises(IndexError, match="larger than 3"):
        passing(MessagePassing)()(torch.ones(4, 2), torch.tensor([[0, 9], [1, 2]]))
    with pytest.raises(IndexError, match="negative"):
        passing(MessagePassing)()(torch.ones(4, 2), torch.tensor([[0, -1], [1, 2]]))


def test_a_pair_of_one_tensor_and_then_of_two() -> None:
    theirs, ours = diff(pyg.MessagePassing)(), diff(MessagePassing)()
    x, z, edges = torch.randn(6, 3), torch.randn(6, 3), edges_of(9)
    for pair in ((x, x), (x, z), (z, x), (x, x), x, (z, z)):
        assert torch.allclose(ours(pair, edges), theirs(pair, edges))
        assert ours.how == "fused"


def test_a_parameter_of_another_shape() -> None:
    class Scaled(MessagePassing):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.rand(3))

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_j: Tensor) -> Tensor:
            return x_j * self.w

    layer, x, edges = Scaled(), torch.randn(6, 3), edges_of(9)
    for shape in ((3,), (1,), (1, 3), ()):
        layer.w = nn.Parameter(torch.rand(shape))
        expected = torch.zeros(6, 3).index_add(0, edges[1], (x * layer.w)[edges[0]])
        assert torch.allclose(layer(x, edges), expected, atol=1e-6)
        assert layer.how == "fused"
    layer.w = nn.Parameter(torch.rand(2))
    with pytest.raises(RuntimeError, match="size of tensor"):
        layer(x, edges)


# ------------------------------------------------------------------------------------------- numbers


def test_a_number_that_changes_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    plain = runs.Runner.__init__

    def counted(self: Any, *args: Any) -> None:
        made.append(args)
        plain(self, *args)

    monkeypatch.setattr(runs.Runner, "__init__", counted)

    class Cooled(MessagePassing):
        t, p = 1.0, 0.0

        def forward(self, x: Tensor, edge_index: Tensor, shift: float) -> Tensor:
            return self.propagate(edge_index, x=x, shift=shift)

        def message(self, x_j: Tensor, shift: float) -> Tensor:
            return torch.tanh(x_j / self.t + shift) * 3 + x_j**2 / x_j.size(0)

    layer, x = Cooled(), torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    for step in range(8):
        layer.t, shift, edges = 0.97**step, float(step % 3), edges_of(7 + step)
        y = layer(x, edges, shift)
        leaf = x.detach().clone().requires_grad_()
        expected = torch.tanh(leaf / layer.t + shift) * 3 + leaf**2 / (7 + step)
        expected = torch.zeros(6, 3, dtype=x.dtype).index_add(0, edges[1], expected[edges[0]])
        assert torch.allclose(y, expected)
        (found,) = torch.autograd.grad(y.sum(), x)
        (wanted,) = torch.autograd.grad(expected.sum(), leaf)
        assert torch.allclose(found, wanted)
        assert layer.how == "fused"
    assert len([args for args in made if args[0].name == "Cooled"]) <= 4


# ------------------------------------------------------------------------------------------- tracers and transforms


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("make", [diff, mixed], ids=["diff", "mixed"])
def test_compiled(make: Any, dynamic: bool | None) -> None:
    torch._dynamo.reset()
    layer, x, edges = make(MessagePassing)().double(), torch.randn(6, 3, dtype=torch.float64), edges_of(9)
    compiled = torch.compile(layer, backend="eager", fullgraph=True, dynamic=dynamic)
    for count in (9, 12):
        edges = edges_of(count)
        results = []
        for call in (layer, compiled):
            leaf = x.clone().requires_grad_()
            y = call(leaf, edges)
            y.square().sum().backward()
            results.append((y, leaf.grad))
        for one, other in zip(*results, strict=True):
            assert torch.allclose(one, other)


def test_exported() -> None:
    layer, x, edges = mixed(MessagePassing)(), torch.randn(6, 3), edges_of(9)
    program = torch.export.export(layer, (x, edges))
    assert torch.allclose(program.module()(x, edges), layer(x, edges), atol=1e-6)


@pytest.mark.parametrize("make", [diff, mixed], ids=["diff", "mixed"])
def test_transformed(make: Any) -> None:
    layer, edges = make(MessagePassing)().double(), edges_of(9)
    theirs = make(pyg.MessagePassing)().double()
    theirs.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    batched = torch.func.vmap(lambda x: layer(x, edges))(x)
    assert torch.allclose(batched, torch.stack([theirs(v, edges) for v in x]))
    found = torch.func.grad(lambda x: layer(x, edges).square().sum())(x[0])
    leaf = x[0].clone().requires_grad_()
    theirs(leaf, edges).square().sum().backward()
    assert torch.allclose(found, leaf.grad)
    rows = torch.autograd.functional.jacobian(lambda x: theirs(x, edges), x[0])
    assert torch.allclose(torch.autograd.functional.jacobian(lambda x: layer(x, edges), x[0]), rows)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_code_that_torch_does_not_show() -> None:
    """A scripted function takes tensors without asking their class: the call runs again, on tensors."""

    @torch.jit.script
    def squared(x: Tensor) -> Tensor:
        return x * x

    hidden = {"squared": squared}

    class Scripted(MessagePassing):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.seen: list[int] = []

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_j: Tensor) -> Tensor:
            self.calls += 1
            self.seen.append(1)
            return hidden["squared"](x_j.tanh())

    layer, edges = Scripted(), edges_of(9)
    for count in (1, 2):
        x = torch.randn(6, 3, requires_grad=True)
        y = layer(x, edges)
        expected = torch.zeros(6, 3).index_add(0, edges[1], (x.tanh() ** 2)[edges[0]])
        assert torch.allclose(y, expected, atol=1e-6)
        assert torch.allclose(*(torch.autograd.grad(v.sum(), x)[0] for v in (y, expected)), atol=1e-6)
        assert layer.calls == count == len(layer.seen)
    assert "outside of Python" in layer.how


def test_what_hides_tensors_elsewhere_is_no_matter() -> None:
    """Only what ``message`` may reach keeps it from being fused."""

    class Reversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
            return -grad

    class Part(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Reversed.apply(x)

    class Layer(MessagePassing):
        def __init__(self, inside: bool) -> None:
            super().__init__()
            self.part, self.inside = Part(), inside
            self.within = nn.Sequential(nn.Tanh(), Part()) if inside else nn.Tanh()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=Reversed.apply(self.part(x)))

        def message(self, x_j: Tensor) -> Tensor:
            return self.within(x_j)

    outside, inside = Layer(False), Layer(True)
    for layer, sign in ((outside, 1), (inside, -1)):
        x = torch.randn(6, 3, requires_grad=True)
        edges = edges_of(9)
        layer(x, edges).sum().backward()
        leaf = x.detach().clone().requires_grad_()
        torch.tanh(leaf)[edges[0]].sum().backward()
        assert torch.allclose(x.grad, sign * leaf.grad, atol=1e-6)
    assert outside.how == "fused" and "`Reversed`" in inside.how


# ------------------------------------------------------------------------------------------- hooks, threads, bounds


def test_hooks_of_parts_run() -> None:
    layer, seen = mixed(MessagePassing)(), []
    layer.mix.register_forward_hook(lambda part, args, out: seen.append(out.shape) or out * 2)
    x, edges = torch.randn(6, 3), edges_of(9)
    doubled = layer(x, edges)
    assert seen == [torch.Size([9, 4])] and layer.how == "fused"
    layer.mix._forward_hooks.clear()
    assert torch.allclose(doubled, 2 * layer(x, edges), atol=1e-6)
    grads = []
    layer.mix.register_full_backward_hook(lambda part, before, after: grads.append(after[0].shape))
    layer(x, edges).sum().backward()
    assert grads == [torch.Size([9, 4])]


def test_threads() -> None:
    layer, edges = weighted(MessagePassing)(), [edges_of(5 + k, seed=k) for k in range(4)]
    x, w = torch.randn(6, 3), torch.rand(9)
    expected = [weighted(pyg.MessagePassing)()(x, e, w[: e.shape[1]]) for e in edges]
    wrong = []

    def run(k: int) -> None:
        for _ in range(20):
            if not torch.allclose(layer(x, edges[k], w[: edges[k].shape[1]]), expected[k], atol=1e-6):
                wrong.append(k)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_of_a_call_is_left() -> None:
    """No Symbol, and no tensor of the size of the edges, outlives the call."""
    import gc

    from gdsl.nn.lazy import Recording
    from gdsl.nn.symbols import Symbol

    layer, x, edges = diff(MessagePassing)(), torch.randn(6, 3), edges_of(9)
    gc.collect()
    gc.disable()
    try:
        layer(x, edges)
        assert not [o for o in gc.get_objects() if type(o) in (Symbol, Recording)]
    finally:
        gc.enable()


def test_copies_share_nothing() -> None:
    layer, x, edges = weighted(MessagePassing)(), torch.randn(6, 3), edges_of(9)
    y = layer(x, edges, torch.ones(9))
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.gain.zero_()
    assert not twin(x, edges, torch.ones(9)).any()
    assert torch.equal(layer(x, edges, torch.ones(9)), y)
