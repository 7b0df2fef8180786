"""``message`` of a user's layer means in each call what torch makes of it: modes, state, side effects.

Every layer here is made twice from one class body, on gdsl's base class and on torch_geometric's. Both get the same
calls in float64; results, gradients and whatever the layer has kept must agree.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdsl.nn import MessagePassing

pyg = pytest.importorskip("torch_geometric.nn")

NODES, EDGES, SIZE = 6, 14, 3
Make = Callable[[Any], Any]
# Calls of a layer, one after the other: each gives what is compared.
Calls = Callable[[Any, Tensor, Tensor], Iterator[Any]]

COUNT = itertools.count()
LAYERS: dict[str, tuple[Make, Calls, str]] = {}


def graph() -> Tensor:
    return torch.randint(NODES, (2, EDGES), generator=torch.Generator().manual_seed(1))


def features() -> Tensor:
    return torch.randn(NODES, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def twice(layer: Any, x: Tensor, edges: Tensor) -> Iterator[Any]:
    for _ in range(2):
        yield layer(x, edges)


def case(calls: Calls = twice, how: str = "fused") -> Callable[[Make], Make]:
    """A layer, its calls, and what ``how`` says after the last one."""

    def register(make: Make) -> Make:
        LAYERS[make.__name__] = make, calls, how
        return make

    return register


def outcome(layer: Any, calls: Calls) -> dict[str, Any]:
    """What each call gives, with its gradients."""
    torch.manual_seed(4)
    found: dict[str, Any] = {}
    for k, result in enumerate(calls(layer.double(), x := features().requires_grad_(), graph())):
        found[f"call {k}"] = result
        if isinstance(result, Tensor) and result.requires_grad:
            x.grad = None
            layer.zero_grad()
            (result * torch.arange(1.0, result.numel() + 1).view(result.shape)).sum().backward(retain_graph=True)
            found[f"x.grad {k}"] = x.grad
            found |= {f"{name}.grad {k}": p.grad for name, p in layer.named_parameters()}
    return found | {f"{name} at the end": b for name, b in layer.named_buffers()}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.allclose(one, other, 1e-9, 1e-9)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    # A gradient that is zero everywhere and one that is not there are both none.
    return bool(one == other)


def built(make: Make, base: Any) -> Any:
    """A layer. torch_geometric knows classes by their names, so that each needs one of its own."""
    kind = make(base)
    kind.__name__ = f"Layer{next(COUNT)}"
    return kind().double()


def check(make: Make, calls: Calls = twice, backend: str = "torch") -> Any:
    theirs, ours = built(make, pyg.MessagePassing), built(make, MessagePassing)
    ours.backend = backend
    ours.load_state_dict(theirs.state_dict())
    expected, found = outcome(theirs, calls), outcome(ours, calls)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert same(found[name], value), (name, found[name], value, ours.how)
    return ours


@pytest.mark.filterwarnings("ignore:.*Trying to infer.*")
def test_same_as_torch_geometric(name: str) -> None:
    make, calls, how = LAYERS[name]
    ours = check(make, calls)
    assert how in ours.how, ours.how


def pytest_generate_tests(metafunc: Any) -> None:
    if metafunc.function is test_same_as_torch_geometric:
        metafunc.parametrize("name", LAYERS)


class Simple:
    """What most layers here share."""

    def forward(self: Any, x: Tensor, edge_index: Tensor) -> Tensor:
        result: Tensor = self.propagate(edge_index, x=x)
        return result


# ------------------------------------------------------------------------------------------- gradients


@case()
def no_grad(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            with torch.no_grad():
                gate = torch.sigmoid(x_j)
            return gate * x_j

    return Layer


@case()
def no_grad_helper(base: Any) -> Any:
    @torch.no_grad()
    def gate(x: Tensor) -> Tensor:
        return torch.sigmoid(x * 2)

    class Layer(Simple, base):
        def message(self, x_j: Tensor, x_i: Tensor) -> Tensor:
            return gate(x_j - x_i) * x_j

    return Layer


@case()
def set_grad_enabled(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            torch.set_grad_enabled(False)
            gate = torch.sigmoid(x_j)
            torch.set_grad_enabled(True)
            return gate * x_j

    return Layer


@case()
def parameter_in_no_grad(base: Any) -> Any:
    """It gets no gradient, not even zeros."""

    class Layer(Simple, base):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.both = nn.Parameter(torch.rand(SIZE)), nn.Parameter(torch.rand(SIZE))

        def message(self, x_j: Tensor) -> Tensor:
            with torch.no_grad():
                gate = torch.sigmoid(x_j * self.frozen + self.both)
            return gate * x_j * self.both

    return Layer


@case()
def detach(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            return x_j * torch.tanh(x_j).detach()

    return Layer


@case(how="as they are")
def data(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            return x_j * torch.tanh(x_j).data

    return Layer


class Flip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -grad * ctx.saved_tensors[0]


class Untouched(torch.autograd.Function):
    """A forward that makes nothing of its argument, with a gradient to it all the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        return w.expand(x.shape[0], -1).clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return 3 * grad, grad.sum(0)


class Same(torch.autograd.Function):
    """The straight-through of a value, as gradient reversal has it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -grad


@case(how="`Flip`")
def autograd_function(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            return Flip.apply(torch.tanh(x_j)) + x_j

    return Layer


@case(how="as they are")
def autograd_function_that_reads_nothing(base: Any) -> Any:
    class Layer(Simple, base):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.rand(SIZE))

        def message(self, x_j: Tensor) -> Tensor:
            return Untouched.apply(x_j, self.w)

    return Layer


@case(how="as they are")
def autograd_function_that_gives_its_argument(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            return Same.apply(x_j * 2).tanh()

    return Layer


HIDDEN = {"flip": [Flip]}


@case(how="an autograd.Function")
def autograd_function_in_hiding(base: Any) -> Any:
    """What no reader of code finds is noticed: the call runs again, and what was counted is not counted again."""

    class Layer(Simple, base):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.seen: list[int] = []

        def message(self, x_j: Tensor) -> Tensor:
            self.calls += 1
            self.seen.append(len(self.seen))
            return HIDDEN["flip"][0].apply(x_j.tanh()) * len(self.seen)

    return Layer


@case(how="as they are")
def gradient_hook(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            h = torch.tanh(x_j)
            if h.requires_grad:
                h.register_hook(lambda g: g.clamp(-1, 1))
            return h * 2

    return Layer


@case(how="as they are")
def gradient_inside(base: Any) -> Any:
    """Forces: the gradient of an energy of each edge by its features."""

    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            energy = (x_j**3).sum(-1).tanh()
            (force,) = torch.autograd.grad(energy.sum(), x_j, create_graph=True)
            return force * energy.unsqueeze(-1)

    return Layer


def with_and_without(layer: Any, x: Tensor, edges: Tensor) -> Iterator[Any]:
    yield layer(x, edges)
    with torch.no_grad():
        yield layer(x, edges)
    yield layer(x, edges)


@case(with_and_without)
def is_grad_enabled(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            return x_j * (2 if torch.is_grad_enabled() else 3) * (1 if x_j.requires_grad else 5)

    return Layer


# ------------------------------------------------------------------------------------------- state


def cooled(layer: Any, x: Tensor, edges: Tensor) -> Iterator[Any]:
    yield layer(x, edges)
    layer.temperature.fill_(0.5)
    yield layer(x, edges)
    type(layer).scale = 10.0
    yield layer(x, edges)
    layer.load_state_dict({**layer.state_dict(), "temperature": torch.tensor(3.0)})
    yield layer(x, edges)


def tempered(message: Callable[..., Tensor]) -> Make:
    def make(base: Any) -> Any:
        class Layer(Simple, base):
            scale = 1.0

            def __init__(self) -> None:
                super().__init__(aggr="mean")
                self.register_buffer("temperature", torch.tensor(4.0))

            @property
            def doubled(self) -> float:
                return 2 * self.scale

            def message(self, x_j: Tensor) -> Tensor:
                return message(self, x_j)

        return Layer

    return make


for name, method in {
    "item": lambda self, x_j: torch.tanh(x_j / self.temperature.item()) * self.scale,
    "float of a buffer": lambda self, x_j: torch.tanh(x_j / float(self.temperature)) * self.doubled,
    "branch on a buffer": lambda self, x_j: torch.tanh(x_j) if self.temperature > 1 else x_j * self.scale,
    "buffer itself": lambda self, x_j: torch.tanh(x_j / self.temperature) * self.doubled,
    "buffer changed in between": lambda self, x_j: x_j + self.temperature + x_j / self.temperature.mul_(0.5),
}.items():
    LAYERS[name] = tempered(method), cooled, "fused"


@case(how="int64 beside truth values")
def integers(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            return (x_j > 0) * torch.arange(SIZE)

    return Layer


FACTOR = 1.0


def current() -> float:
    return FACTOR


def globals_change(layer: Any, x: Tensor, edges: Tensor) -> Iterator[Any]:
    global FACTOR
    for FACTOR in (1.0, 3.0, -2.0):  # noqa: B007
        yield layer(x, edges)


@case(globals_change)
def module_globals(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor) -> Tensor:
            return torch.tanh(x_j * current()) * FACTOR

    return Layer


def noted(layer: Any, x: Tensor, edges: Tensor) -> Iterator[Any]:
    for note in (True, False, True):
        layer.note = note
        yield layer(x, edges)
        yield [type(w) is Tensor for w in layer.weights], [w.detach().clone() for w in layer.weights], layer.count
        yield sum(w.sum() for w in layer.weights)


@case(noted)
def lists_and_counters(base: Any) -> Any:
    class Layer(Simple, base):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.weights: list[Tensor] = []
            self.count = 0

        def message(self, x_j: Tensor) -> Tensor:
            w = torch.sigmoid(x_j)
            if self.note:
                self.weights.append(w)
            self.calls += 1
            self.count += 1
            return w * x_j

    return Layer


def kept(layer: Any, x: Tensor, edges: Tensor) -> Iterator[Any]:
    for _ in range(2):
        yield layer(x, edges)
        yield layer.alpha
        (grad,) = torch.autograd.grad(layer(x, edges).square().sum(), layer.alpha)
        yield grad
        yield layer.mask, layer.gate, layer.x_j, layer.table["scores"][0]


@case(kept)
def put_aside(base: Any) -> Any:
    class Layer(Simple, base):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.rand(SIZE))
            self.table: dict[str, Any] = {}

        def message(self, x_j: Tensor, x_i: Tensor) -> Tensor:
            self.mask = x_j > x_i
            self.alpha = (x_j * self.w).sum(-1, keepdim=True).sigmoid()
            self.gate = self.alpha.detach().squeeze(-1)
            self.x_j = x_j
            self.table["scores"] = (self.alpha * 2,)
            return self.alpha * x_j * self.mask

    return Layer


def with_a_loss(layer: Any, x: Tensor, edges: Tensor) -> Iterator[Any]:
    yield layer(x, edges)
    yield layer.loss
    yield layer(x, edges) + layer.loss


@case(with_a_loss)
def kept_with_its_gradient(base: Any) -> Any:
    """The result has none, and what is put aside has."""

    class Layer(Simple, base):
        def message(self, x_j: Tensor, x_i: Tensor) -> Tensor:
            gate = (x_j * x_i).sigmoid()
            self.loss = gate.sum(-1, keepdim=True)
            return gate.detach() * 2

        def update(self, inputs: Tensor) -> Tensor:
            self.loss = self.loss.mean(0, keepdim=True)
            return inputs

    return Layer


REFERENCES: list[Any] = []


@case(how="weak reference")
def weak_reference(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor, x_i: Tensor) -> Tensor:
            h = x_j * x_i
            REFERENCES.append(weakref.ref(h))
            return h.cumsum(0)

    return Layer


@case(how="an autograd.Function")
def a_mistake_that_is_caught(base: Any) -> Any:
    class Layer(Simple, base):
        def message(self, x_j: Tensor, x_i: Tensor) -> Tensor:
            try:
                h = HIDDEN["flip"][0].apply(x_j).cumsum(0)
            except Exception:
                h = x_i
            return h * x_i

    return Layer


def trained_then_not(layer: Any, x: Tensor, edges: Tensor) -> Iterator[Any]:
    for _ in range(3):
        yield layer(x, edges)
    layer.eval()
    yield layer(x, edges)
    yield layer(x, edges)


@case(trained_then_not)
def batch_norm(base: Any) -> Any:
    class Layer(Simple, base):
        def __init__(self) -> None:
            super().__init__(aggr="mean")
            self.norm = nn.BatchNorm1d(SIZE, momentum=None)

        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
            return self.norm(x_j - 2 * x_i)

    return Layer


@case(how="`cumsum`")
def break_half_way(base: Any) -> Any:
    """What was put off before the break is computed, and what was counted is not counted again."""

    class Layer(Simple, base):
        def __init__(self) -> None:
            super().__init__(aggr="max")
            self.register_buffer("calls", torch.zeros(()))
            self.lin = nn.Linear(2 * SIZE, SIZE)
            self.seen: list[Tensor] = []

        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
            self.calls += 1
            h = F.elu(self.lin(torch.cat([x_i, x_j], -1)))
            self.seen.append(h)
            return h * h.cumsum(0) + self.seen[-1]

    return Layer


# ------------------------------------------------------------------------------------------- in place


def in_place(message: Callable[..., Tensor], how: str = "fused") -> tuple[Make, Calls, str]:
    def make(base: Any) -> Any:
        class Layer(Simple, base):
            def __init__(self) -> None:
                super().__init__()
                self.act = nn.ReLU(inplace=True)

            def message(self, x_j: Tensor, x_i: Tensor) -> Tensor:
                return message(self, x_j, x_i)

        return Layer

    return make, twice, how


def _assigned(self: Any, x_j: Tensor, x_i: Tensor) -> Tensor:
    h = x_j * 2
    h += 1
    h *= x_i
    return h


def _relu(self: Any, x_j: Tensor, x_i: Tensor) -> Tensor:
    h, g, f = x_j * 2, x_j - 1, x_j + x_i
    F.relu(h, inplace=True)
    torch.relu_(g)
    self.act(f)
    return h + g * f


def _alias(self: Any, x_j: Tensor, x_i: Tensor) -> Tensor:
    h = x_j * x_i
    other = h
    h += 1
    return h * other


def _view(self: Any, x_j: Tensor, x_i: Tensor) -> Tensor:
    h = x_j * x_i
    first = h[:, 0]
    h += 1
    first *= 2
    return h


def _reader_before(self: Any, x_j: Tensor, x_i: Tensor) -> Tensor:
    h = x_j * x_i
    twice = 2 * h
    h.mul_(3)
    return h + twice


def _out(self: Any, x_j: Tensor, x_i: Tensor) -> Tensor:
    h = torch.zeros(EDGES, SIZE, dtype=x_j.dtype)
    torch.add(x_j.detach(), 1, out=h)
    return h * x_i


def _item_assignment(self: Any, x_j: Tensor, x_i: Tensor) -> Tensor:
    h = x_j * 2
    h[:, 1] = x_i[:, 0]
    return h


def _same_conversion(self: Any, x_j: Tensor, x_i: Tensor) -> Tensor:
    h = x_j * 2
    h.to(x_i.dtype).add_(x_i)
    h.contiguous().mul_(2)
    return h


def _under_no_grad(self: Any, x_j: Tensor, x_i: Tensor) -> Tensor:
    h = x_j * 2
    with torch.no_grad():
        h.mul_(3)
    return h * x_i


for name, found in {
    "augmented assignment": in_place(_assigned),
    "activations in place": in_place(_relu),
    "another name": in_place(_alias),
    "a view of it": in_place(_view, "as they are"),
    "a reader before": in_place(_reader_before),
    "out": in_place(_out, "as they are"),
    "item assignment": in_place(_item_assignment, "as they are"),
    "a conversion that is none": in_place(_same_conversion, "as they are"),
    "without gradient": in_place(_under_no_grad, "as they are"),
}.items():
    LAYERS[f"in place: {name}"] = found


def written_outside(layer: Any, x: Tensor, edges: Tensor) -> Iterator[Any]:
    e = torch.ones(EDGES, 1, dtype=torch.float64)
    for _ in range(2):
        yield layer(x, edges, e)
        yield e.clone()


@case(written_outside, how="as they are")
def edge_argument_in_place(base: Any) -> Any:
    """An argument of the edges is the user's own tensor."""

    class Layer(base):
        def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x, e=e)

        def message(self, x_j: Tensor, e: Tensor) -> Tensor:
            e += 1
            return x_j * e

    return Layer


# ------------------------------------------------------------------------------------------- numbers and places


def plain(message: Callable[..., Tensor], how: str = "fused", **kwargs: Any) -> tuple[Make, Calls, str]:
    def make(base: Any) -> Any:
        class Layer(Simple, base):
            def __init__(self) -> None:
                super().__init__(**kwargs)
                self.w = nn.Parameter(torch.rand(SIZE, SIZE))

            def message(self, x_j: Tensor, x_i: Tensor, index: Tensor) -> Tensor:
                return message(self, x_j, x_i, index)

        return Layer

    return make, twice, how


for name, found in {
    "to long": plain(lambda self, x_j, x_i, index: x_j.to(torch.long) * x_i, "`to`"),
    "to float16": plain(lambda self, x_j, x_i, index: x_j.to(torch.float16).to(torch.float64) * x_i, "`to`"),
    "float": plain(lambda self, x_j, x_i, index: x_j.float() * x_i, "`float`"),
    "to the same": plain(lambda self, x_j, x_i, index: x_j.to(x_i).double().type_as(x_i) * x_i.to("cpu")),
    "mask to float": plain(lambda self, x_j, x_i, index: (x_j > 0).double() * x_i),
    "equal": plain(lambda self, x_j, x_i, index: torch.where(x_i == x_j, x_j, x_i * 2)),
    "not equal": plain(lambda self, x_j, x_i, index: (x_i != x_j) * x_j),
    "masks": plain(lambda self, x_j, x_i, index: x_j.masked_fill((x_i > 0) & ~(x_j > x_i) | (x_j < -1), 0.5)),
    "masks made here": plain(lambda self, x_j, x_i, index: torch.where((index > 2)[:, None], x_j, x_i)
                             .masked_fill(torch.tensor([True, False, True]), 0.5)),
    "softplus": plain(lambda self, x_j, x_i, index: F.softplus(x_j, 2.0, 1.0) + F.softplus(30 * x_i)),
    "the number of edges": plain(lambda self, x_j, x_i, index: x_j / x_j.size(0) + len(x_i)),
    "an index": plain(lambda self, x_j, x_i, index: x_j * index.view(-1, 1) + x_i),
    "a degree": plain(lambda self, x_j, x_i, index: x_j / torch.bincount(index)[index].view(-1, 1)),
    "a tensor made here": plain(lambda self, x_j, x_i, index: x_j * torch.arange(1.0, 4.0) + x_j.new_ones(3)),
    "an edge tensor made here": plain(lambda self, x_j, x_i, index: x_j * torch.linspace(0, 1, EDGES)[:, None]),
    "noise": plain(lambda self, x_j, x_i, index: x_j + torch.randn_like(x_j) * torch.rand(1)),
    "over the edges": plain(lambda self, x_j, x_i, index: x_j - x_j.mean(0), "as they are"),
    "a condition on values": plain(lambda self, x_j, x_i, index: x_j if x_j.sum() > 0 else x_i, "as they are"),
    "zeros": plain(lambda self, x_j, x_i, index: torch.where(x_j > 0, x_j, torch.zeros_like(x_j))),
    "parts": plain(lambda self, x_j, x_i, index: torch.cat([p.tanh() for p in x_j.split([1, 2], dim=-1)], -1)),
    "chunks": plain(lambda self, x_j, x_i, index: x_i * x_j.chunk(3, dim=1)[1] + x_j.chunk(2, -1)[0].sum(-1, True)),
    "a matrix twice": plain(lambda self, x_j, x_i, index: (x_j @ self.w @ self.w + x_j @ self.w.t()).tanh()),
    "a product of a part": plain(lambda self, x_j, x_i, index: x_j @ (self.w.softmax(-1) * 2)),
    "normalised": plain(lambda self, x_j, x_i, index: F.normalize(x_j, dim=-1) + F.layer_norm(x_i, (SIZE,))),
    "log softmax": plain(lambda self, x_j, x_i, index: F.log_softmax(x_j, -1) * x_i.log_softmax(1)),
    "norms": plain(lambda self, x_j, x_i, index: x_j * x_i.norm(dim=-1, keepdim=True) + torch.linalg.norm(x_j, dim=1).view(-1, 1)),  # noqa: E501
    "places": plain(lambda self, x_j, x_i, index: x_j.view(EDGES, 1, -1).transpose(1, 2).permute(0, 2, 1).squeeze(1)),
    "unflatten": plain(lambda self, x_j, x_i, index: torch.cat([x_j, x_i], 1).unflatten(1, (2, -1)).sum(1)),
    "einsum": plain(lambda self, x_j, x_i, index: torch.einsum("ef,fg->eg", x_j, self.w), "`einsum`"),
    "gelu": plain(lambda self, x_j, x_i, index: F.gelu(x_j) + F.gelu(x_i, approximate="tanh")),
    "clamp": plain(lambda self, x_j, x_i, index: x_j.clamp(max=0.5) + torch.clamp(x_i, -0.1) + x_j.clip(0, 1)),
    "clamp by tensors": plain(lambda self, x_j, x_i, index: x_j.clamp(max=x_i), "as they are"),
    "rounded division": plain(lambda self, x_j, x_i, index: torch.div(x_j, 0.3, rounding_mode="floor") * x_i, "`div`"),
    "a sum of another dtype": plain(lambda self, x_j, x_i, index: x_j.sum(-1, True, dtype=torch.float16) * x_i,
                                     "`sum`"),
    "alpha": plain(lambda self, x_j, x_i, index: torch.add(x_j, x_i, alpha=2).sub(x_i, alpha=0.5)),
    "powers": plain(lambda self, x_j, x_i, index: x_j**2 + 2**x_i + x_i.abs().pow(0.5)),
    "numbers": plain(lambda self, x_j, x_i, index: 1 - x_j + 2 / (x_i.abs() + 1) - (-x_j) * 3),
    "one number each": plain(lambda self, x_j, x_i, index: (x_j * x_i).sum(-1), node_dim=0),
}.items():
    LAYERS[name] = found


@pytest.mark.parametrize("name", ["put_aside", "parameter_in_no_grad", "masks made here", "a matrix twice", "parts"])
def test_the_same_in_generated_code(name: str) -> None:
    make, calls, how = LAYERS[name]
    assert how in check(make, calls, "cpp").how


@pytest.mark.parametrize("index", [(slice(None), 7), (slice(None), -4), (0, 0, 0)])
def test_an_index_out_of_range(index: Any) -> None:
    make, _, _ = plain(lambda self, x_j, x_i, _: x_j[index])
    with pytest.raises(IndexError):
        built(make, MessagePassing)(features(), graph())


def test_a_sum_over_the_edges_is_torchs_own_mistake() -> None:
    make, _, _ = plain(lambda self, x_j, x_i, index: x_j.sum(dim=0))
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        built(make, MessagePassing)(features(), graph())


def test_a_mistake_of_the_user_is_shown_once() -> None:
    seen = []

    def message(self: Any, x_j: Tensor, x_i: Tensor, index: Tensor) -> Tensor:
        seen.append(1)
        return x_j @ torch.ones(SIZE + 1, 2, dtype=x_j.dtype)

    make, _, _ = plain(message)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        built(make, MessagePassing)(features(), graph())
    assert seen == [1]
