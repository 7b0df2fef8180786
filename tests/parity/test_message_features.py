"""All that torch_geometric's base class offers a layer of a user's own: the same class body, the same calls and hooks.

Every layer is made twice, on gdsl's base class and on torch_geometric's; results, gradients and what the methods were
given must agree, in eager mode, as a copy, with other parameters put in, and under torch.compile and torch.export.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Optional

import pytest
import torch
from torch import Tensor, nn

from gdsl.nn import MessagePassing

pyg = pytest.importorskip("torch_geometric.nn")

NODES, TARGETS, EDGES = 6, 4, 14
FLOWS = ("source_to_target", "target_to_source")
COUNT = itertools.count()

Make = Callable[[Any], Any]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ends(count: int, seed: int) -> Tensor:
    return torch.randint(count, (EDGES,), generator=torch.Generator().manual_seed(seed))


X, Z, W, E = drawn(NODES, 3), drawn(TARGETS, 3, seed=3), drawn(EDGES, seed=4), drawn(EDGES, 3, seed=5)
SQUARE = torch.stack([ends(NODES, 1), ends(NODES, 7)])
ACROSS = torch.stack([ends(NODES, 1), ends(TARGETS, 2)])


def matrix(edges: Tensor, targets: int, layout: torch.layout = torch.sparse_csr, more: tuple[int, ...] = ()) -> Tensor:
    """The transposed adjacency of edges, with a value for each."""
    places = edges.flip(0).unique(dim=1)
    values = drawn(places.shape[1], *more, seed=9)
    made = torch.sparse_coo_tensor(places, values, (targets, NODES, *more)).coalesce()
    return made if layout is torch.sparse_coo else made.to_sparse_csr()


# ------------------------------------------------------------------------------------------- comparing


def parts(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from parts(part)


def leaves(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(leaves, value))
    real = isinstance(value, Tensor) and value.layout is torch.strided and value.is_floating_point()
    return value.detach().clone().requires_grad_() if real else value


def outcome(layer: Any, call: Callable[..., Any], args: tuple[Any, ...]) -> list[Any]:
    """Results, gradients of arguments and parameters, and what the layer has seen."""
    args = leaves(args)
    layer.zero_grad()
    result = call(*args)
    losses = [
        (part * torch.arange(1.0, part.numel() + 1).view(part.shape)).sum()
        for part in parts(result) if part.requires_grad
    ]  # fmt: skip
    torch.stack(losses).sum().backward()
    leaf = [part for part in parts(args) if part.is_leaf and part.requires_grad]
    return [result, [part.grad for part in [*leaf, *layer.parameters()]], getattr(layer, "seen", None)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.layout is not torch.strided:
            one, other = one.to_dense(), other.to_dense()
        return one.dtype == other.dtype and one.shape == other.shape and torch.allclose(one, other, 1e-9, 1e-9)
    return bool(one == other)


def built(make: Make, base: Any, **options: Any) -> Any:
    """A layer. torch_geometric knows classes by their names, so that each needs one of its own."""
    kind = make(base)
    kind.__name__ = f"Feature{next(COUNT)}"
    torch.manual_seed(1)
    return kind(**options).double()


def compiled(dynamic: bool | None) -> Callable[[Any], Any]:
    def compile(layer: Any) -> Any:
        torch._dynamo.reset()
        return torch.compile(layer, backend="eager", fullgraph=True, dynamic=dynamic)

    return compile


def exported(layer: Any) -> Any:
    def call(*args: Any) -> Any:
        return torch.export.export(layer, args).module()(*args)

    return call


def put_in(layer: Any) -> Any:
    values = dict(layer.named_parameters())
    return lambda *args: torch.func.functional_call(layer, values, args)


WAYS: dict[str, Callable[[Any], Any]] = {
    "eager": lambda layer: layer,
    "parameters put in": put_in,
    "compiled": compiled(None),
    "compiled for all sizes": compiled(True),
}

# name -> (class, options, calls, ways other than eager in which it runs)
LAYERS: dict[str, tuple[Make, dict[str, Any], list[tuple[Any, ...]], bool]] = {}


def case(*calls: tuple[Any, ...], traced: bool = True, **options: Any) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        words = [make.__name__, *map(str, options.values())]
        LAYERS[" ".join(words)] = make, options, list(calls), traced
        return make

    return register


def both_flows(*calls: tuple[Any, ...], **options: Any) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        for flow in FLOWS:
            case(*calls, flow=flow, **options)(make)
        return make

    return register


def ways_of(number: int, traced: bool) -> list[str]:
    """Every layer in eager mode, and compiled in one of two ways by turns: tracing takes a second."""
    compiled_ways = ("compiled", "compiled for all sizes")
    return ["eager", "parameters put in", compiled_ways[number % 2]] if traced else ["eager"]


def pytest_generate_tests(metafunc: Any) -> None:
    if metafunc.function is test_same_as_torch_geometric:
        cases = enumerate(LAYERS.items())
        metafunc.parametrize(("name", "way"), [(n, w) for k, (n, c) in cases for w in ways_of(k, c[3])])


@pytest.mark.filterwarnings("ignore")
def test_same_as_torch_geometric(name: str, way: str) -> None:
    make, options, calls, _ = LAYERS[name]
    theirs, ours = built(make, pyg.MessagePassing, **options), built(make, MessagePassing, **options)
    ours.load_state_dict(theirs.state_dict())
    ours.backend = "torch"
    for args in calls:
        expected, found = outcome(theirs, theirs, args), outcome(ours, WAYS[way](ours), args)
        assert same(found, expected), (found, expected)
        if way == "eager":
            twin = copy.deepcopy(ours)
            assert same(outcome(twin, twin, args)[:2], expected[:2])


# ------------------------------------------------------------------------------------------- edge updates


@both_flows((X, SQUARE), (drawn(2, NODES, 3), SQUARE))
def edge_updates(base: Any) -> Any:
    class Layer(base):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            alpha = self.edge_updater(edge_index, x=x)
            return self.propagate(edge_index, x=x, alpha=alpha)

        def edge_update(self, x_j: Tensor, x_i: Tensor) -> Tensor:
            return (x_j * x_i).sum(-1, keepdim=True).tanh()

        def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
            return x_j * alpha

    return Layer


@case(((X, Z), ACROSS, E), ((X, Z), ACROSS, None))
def edge_updates_between_two_sets(base: Any) -> Any:
    class Layer(base):
        def forward(self, x: Any, edge_index: Tensor, e: Optional[Tensor]) -> Any:  # noqa: UP045
            return self.edge_updater(edge_index, x=x, e=e)

        def edge_update(
            self, x_j: Tensor, x_i: Tensor, e: Any, index: Tensor, ptr: Any, size_i: int, size_j: int,
            dim_size: int, edge_index: Tensor, edge_index_i: Tensor, edge_index_j: Tensor,
        ) -> Any:  # fmt: skip
            seen = [index, ptr, size_i, size_j, dim_size, edge_index, edge_index_i, edge_index_j]
            return (x_j * x_i if e is None else x_j * x_i * e), seen

    return Layer


# ------------------------------------------------------------------------------------------- both in one


def whole(base: Any) -> Any:
    class Layer(base):
        def forward(self, x: Any, graph: Any) -> Tensor:
            return self.propagate(graph, x=x, power=2)

        def message(self, x_j: Tensor) -> Tensor:
            self.seen = "message"
            return x_j

        def message_and_aggregate(self, adj_t: Any, x: Any, power: int) -> Tensor:
            self.seen = "message_and_aggregate"
            return adj_t @ ((x[0] if isinstance(x, tuple) else x) * power)

        def update(self, inputs: Tensor, x: Any) -> Tensor:
            return inputs + x[1] if isinstance(x, tuple) else inputs - x

    return Layer


GIVEN = [(X, matrix(SQUARE, NODES)), (X, matrix(SQUARE, NODES, torch.sparse_coo)), ((X, Z), matrix(ACROSS, TARGETS))]
for aggr in ("add", "mean", "max"):
    case(*GIVEN, (X, SQUARE), traced=False, aggr=aggr)(whole)
case(*GIVEN, traced=False, aggr=None)(whole)  # type: ignore[arg-type]
# Which torch_geometric does not know to be one with it.
for aggr in ("mul", "std"):
    case((X, matrix(SQUARE, NODES)), (X, SQUARE), traced=False, aggr=aggr)(whole)


@case((X, matrix(SQUARE, NODES)), (X, SQUARE), traced=False)
def whole_and_not_wanted(base: Any) -> Any:
    class Layer(whole(base)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.fuse = False

    return Layer


def test_both_in_one_is_not_against_the_flow_of_a_matrix() -> None:
    layer = built(whole, MessagePassing, flow="target_to_source")
    with pytest.raises(ValueError, match="invalid for message propagation via a sparse matrix"):
        layer(X, matrix(SQUARE, NODES))


def test_both_in_one_of_torch_sparse() -> None:
    """Its class is known by its name."""

    class SparseTensor:
        def __matmul__(self, x: Tensor) -> Tensor:
            return 2 * x

    assert torch.equal(built(whole, MessagePassing)(X, SparseTensor()), 3 * X)


def test_both_in_one_of_sorted_edges() -> None:
    from torch_geometric import EdgeIndex

    edges = SQUARE[:, SQUARE[1].argsort(stable=True)]
    given = EdgeIndex(edges, sparse_size=(NODES, NODES), sort_order="col")

    def make(base: Any) -> Any:
        class Layer(whole(base)):  # type: ignore[misc]
            SUPPORTS_FUSED_EDGE_INDEX = True

            def message_and_aggregate(self, edge_index: Any, x: Any) -> Tensor:
                self.seen = "sorted"
                return edge_index.matmul(x, transpose=True)  # type: ignore[no-any-return]

        return Layer

    results = [built(make, base) for base in (pyg.MessagePassing, MessagePassing)]
    assert same(*[layer(X.float(), given) for layer in results]) and [layer.seen for layer in results] == ["sorted"] * 2


# ------------------------------------------------------------------------------------------- what a matrix gives


VALUES = {
    "edge_weight": matrix(SQUARE, NODES),
    "edge_attr": matrix(SQUARE, NODES, torch.sparse_coo, (3,)),
    "edge_type": matrix(SQUARE, NODES),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*VALUES, "edge_attr of one number"])
def test_values_of_a_matrix(name: str) -> None:
    """They are the first argument of these names that is asked for."""
    given = VALUES.get(name, matrix(SQUARE, NODES))
    name = name.split()[0]

    def make(base: Any) -> Any:
        class Layer(base):
            def forward(self, x: Tensor, graph: Tensor) -> Tensor:
                return self.propagate(graph, x=x, **{name: None})

            def note(self, x_j: Tensor, adj_t: Any, value: Any) -> Tensor:
                self.seen = [adj_t, value if value is None else value.detach()]
                return x_j

        asked = {
            "edge_weight": lambda self, x_j, adj_t, edge_weight: self.note(x_j, adj_t, edge_weight),
            "edge_attr": lambda self, x_j, adj_t, edge_attr: self.note(x_j, adj_t, edge_attr),
            "edge_type": lambda self, x_j, adj_t, edge_type: self.note(x_j, adj_t, edge_type),
        }
        Layer.message = asked[name]
        Layer.message.__name__ = "message"
        return Layer

    found = []
    for base in (pyg.MessagePassing, MessagePassing):
        layer = built(make, base)
        layer.backend = "torch"
        found.append([layer(X, given), *layer.seen])
    assert same(*found)


@pytest.mark.filterwarnings("ignore")
def test_where_the_edges_of_a_node_begin() -> None:
    """Of a matrix by rows and of sorted edges; a softmax over these groups is part of the program."""
    from torch_geometric import EdgeIndex
    from torch_geometric.utils import softmax

    class Layer(MessagePassing):
        def forward(self, x: Tensor, graph: Any) -> Tensor:
            return self.propagate(graph, x=x)

        def message(self, x_j: Tensor, index: Tensor, ptr: Any, size_i: int) -> Tensor:
            self.ptr = ptr
            return softmax(x_j, index, ptr, size_i) * x_j

    edges = SQUARE[:, (SQUARE[1] * NODES + SQUARE[0]).argsort()].unique(dim=1)
    edges = edges[:, edges[1].argsort(stable=True)]
    layer, pointer = Layer(), torch.cat([torch.zeros(1).long(), torch.bincount(edges[1], minlength=NODES).cumsum(0)])
    expected = layer(X, edges)
    assert layer.ptr is None
    sorted_edges = EdgeIndex(edges, sparse_size=(NODES, NODES), sort_order="col")
    for given in (matrix(edges, NODES), sorted_edges):
        assert same(layer(X, given), expected)
        assert same(layer.ptr, pointer) and layer.how == "fused"
    layer.flow = "target_to_source"
    backwards = EdgeIndex(edges.flip(0), sparse_size=(NODES, NODES), sort_order="row")
    assert same(layer(X, backwards), expected) and same(layer.ptr, pointer)
    # Whose rows end where the last edge is.
    layer(X, EdgeIndex(torch.tensor([[0, 1], [1, 2]]).flip(0), sort_order="row"))
    assert layer.ptr is None


# ------------------------------------------------------------------------------------------- calls and graphs


@both_flows((X, SQUARE, SQUARE.flip(1)[:, :5], W))
def several_calls(base: Any) -> Any:
    class Layer(base):
        def __init__(self, flow: str) -> None:
            super().__init__(flow=flow)
            self.lin = nn.Linear(3, 3)

        def forward(self, x: Tensor, first: Tensor, second: Tensor, w: Tensor) -> Any:
            a = self.propagate(first, x=x, w=w)
            b = self.propagate(second, x=self.lin(a), w=None)
            return a, b, self.propagate(first, x=(b, a), w=w)

        def message(self, x_j: Tensor, w: Optional[Tensor]) -> Tensor:  # noqa: UP045
            return x_j if w is None else x_j * w.view(-1, 1)

    return Layer


@case((X, SQUARE, (NODES, NODES)), ((X, Z), ACROSS, (NODES, TARGETS)), ((X, None), ACROSS, [NODES, TARGETS]),
      ((X, Z), ACROSS, (None, TARGETS)), (X, ACROSS, (NODES, TARGETS)), flow=FLOWS[0])  # fmt: skip
@case((X, SQUARE, (NODES, NODES)), (Z, ACROSS, (NODES, TARGETS)), (Z, ACROSS, [NODES, None]), flow=FLOWS[1])
def sizes(base: Any) -> Any:
    """The sizes are those of the rows of ``edge_index``, whichever way messages flow."""

    class Layer(base):
        def forward(self, x: Any, edge_index: Tensor, size: Any) -> Tensor:
            return self.propagate(edge_index, x=x, size=size)

        def message(self, x_j: Tensor, size_i: int, size_j: int, dim_size: int, size: Any) -> Tensor:
            self.seen = [size_i, size_j, dim_size, list(size)]
            return x_j.tanh()

    return Layer


@pytest.mark.parametrize("size", [(NODES + 1, NODES), (NODES, NODES + 3)])
@pytest.mark.parametrize("flow", FLOWS)
def test_sizes_that_do_not_fit(flow: str, size: Any) -> None:
    for base in (pyg.MessagePassing, MessagePassing):
        layer, raised = built(sizes, base, flow=flow), []
        try:
            layer(X, SQUARE, size)
        except ValueError as error:
            raised.append(str(error))
        assert bool(raised) == ((size[0] if flow == FLOWS[0] else size[1]) != NODES)


def along(base: Any) -> Any:
    class Layer(base):
        def forward(self, x: Any, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_j: Tensor, x_i: Tensor) -> Tensor:
            return torch.tanh(x_j) * x_i

        def update(self, inputs: Tensor) -> Tensor:
            return 2 * inputs

    return Layer


for shape, node_dim in [((2, NODES, 3), -2), ((2, NODES, 3), 1), ((NODES, 2, 3), 0), ((2, 3, NODES), -1),
                        ((NODES,), -1), ((2, 2, NODES, 3), -2)]:  # fmt: skip
    other = tuple(TARGETS if size == NODES else size for size in shape)
    for aggr in ("sum", "softmax"):
        case((drawn(*shape), SQUARE), node_dim=node_dim, aggr=aggr, flow=FLOWS[1], traced=aggr == "sum")(along)
        case(
            ((drawn(*shape), drawn(*other, seed=8)), ACROSS), node_dim=node_dim, aggr=aggr, traced=aggr == "sum"
        )(along)  # fmt: skip


@both_flows((X, SQUARE))
def arguments_of_update(base: Any) -> Any:
    class Layer(base):
        def forward(self, x: Tensor, edge_index: Tensor) -> Any:
            return self.propagate(edge_index, x=x, y=3)

        def update(self, inputs: Tensor, x: Tensor, x_i: Tensor, y: int, index: Tensor, dim_size: int) -> Any:
            return inputs * y + x, x_i.sum(), index, dim_size

    return Layer


@case((X, SQUARE), ((X, Z), ACROSS))
def messages_of_several_tensors(base: Any) -> Any:
    class Layer(base):
        def __init__(self) -> None:
            super().__init__(aggr=None)

        def forward(self, x: Any, edge_index: Tensor) -> Any:
            return self.propagate(edge_index, x=x, y=3)

        def message(self, x_j: Tensor, x_i: Tensor) -> Any:
            return x_j, x_i

        def aggregate(self, inputs: Any, index: Tensor, dim_size: int, x_i: Tensor, y: int, ptr: Any = None) -> Any:
            a, b = inputs
            return a.new_zeros(dim_size, 3).index_add(0, index, a * x_i * y + b), b

    return Layer


@case((X, SQUARE))
def arguments_that_are_left_out(base: Any) -> Any:
    class Layer(base):
        def forward(self, x: Tensor, edge_index: Tensor) -> Any:
            return self.propagate(edge_index, x=x, h=None, more=4)

        def message(self, x_j: Tensor, h_i: Optional[Tensor], w: Optional[Tensor] = None, y: int = 3) -> Any:  # noqa: UP045
            assert h_i is None and w is None
            return x_j * y

    return Layer


# ------------------------------------------------------------------------------------------- transforms


def mixing(base: Any) -> Any:
    class Layer(base):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(6, 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
            return self.lin(torch.cat([x_i, x_j], -1)).tanh()

    return Layer


TRANSFORMED: dict[str, Callable[[Any], Any]] = {
    "grad": lambda f: torch.func.grad(lambda x: f(x, SQUARE).square().sum())(X),
    "vmap": lambda f: torch.func.vmap(lambda x: f(x, SQUARE))(drawn(2, NODES, 3)),
    "jacrev": lambda f: torch.func.jacrev(lambda x: f(x, SQUARE))(X),
    "jacfwd": lambda f: torch.func.jacfwd(lambda x: f(x, SQUARE))(X),
    "hessian": lambda f: torch.func.hessian(lambda x: f(x, SQUARE).sum())(X[:, :]),
    "parameters": lambda f: torch.func.grad(
        lambda p: torch.func.functional_call(f, p, (X, SQUARE)).square().sum()
    )(dict(f.named_parameters()))["lin.weight"],
    "ensemble": lambda f: torch.func.vmap(lambda w: torch.func.functional_call(f, {"lin.weight": w}, (X, SQUARE)))(
        drawn(4, 3, 6)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms(name: str) -> None:
    theirs, ours = built(mixing, pyg.MessagePassing), built(mixing, MessagePassing)
    ours.load_state_dict(theirs.state_dict())
    assert same(TRANSFORMED[name](ours), TRANSFORMED[name](theirs))


@pytest.mark.parametrize("name", ["edge_updates source_to_target", "several_calls source_to_target", "along 0 sum",
                                  "edge_updates_between_two_sets", "arguments_of_update source_to_target"])  # fmt: skip
def test_exported(name: str) -> None:
    make, options, calls, _ = LAYERS[name]
    layer = built(make, MessagePassing, **options)
    for args in calls:
        found = torch.export.export(layer, args).module()(*args)
        assert same(found, layer(*args))


# ------------------------------------------------------------------------------------------- hooks


POINTS = ("propagate", "message", "aggregate", "edge_update")


def with_edge_updates(base: Any) -> Any:
    class Layer(base):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x, a=self.edge_updater(edge_index, x=x))

        def edge_update(self, x_j: Tensor, x_i: Tensor) -> Tensor:
            return torch.tanh(x_j) * x_i

        def message(self, x_j: Tensor, a: Tensor) -> Tensor:
            return torch.tanh(x_j) * a

        def update(self, inputs: Tensor) -> Tensor:
            return inputs + 1

    return Layer


def watched(layer: Any, points: tuple[str, ...]) -> list[Any]:
    """Hooks at these points that note the names of what they get, and double what comes out."""
    handles = []
    layer.seen = []

    def names(given: tuple[Any, ...]) -> list[Any]:
        return [sorted(part) for part in given if isinstance(part, dict)]

    for point in points:

        def before(module: Any, given: Any, point: str = point) -> None:
            module.seen.append((point, names(given)))

        def after(module: Any, given: Any, out: Tensor, point: str = point) -> Tensor:
            module.seen.append((point, names(given), out.detach().clone()))
            return 2 * out

        handles += [
            getattr(layer, f"register_{point}_forward_pre_hook")(before),
            getattr(layer, f"register_{point}_forward_hook")(after),
        ]
    return handles


@pytest.mark.parametrize("points", [POINTS, *[(point,) for point in POINTS]], ids="-".join)
def test_hooks(points: tuple[str, ...]) -> None:
    theirs, ours = built(with_edge_updates, pyg.MessagePassing), built(with_edge_updates, MessagePassing)
    ours.backend = "torch"
    plain = ours(X, SQUARE)
    assert ours.how == "fused"
    handles = [watched(layer, points) for layer in (theirs, ours)][1]
    expected, found = outcome(theirs, theirs, (X, SQUARE)), outcome(ours, ours, (X, SQUARE))
    assert same(found, expected)
    assert ("hooks" in ours.how) == bool({"message", "aggregate"} & {*points})
    twin = copy.deepcopy(ours)
    assert same(twin(X, SQUARE), found[0])
    ours.seen = []
    for handle in handles:
        handle.remove()
    assert same(ours(X, SQUARE), plain) and ours.how == "fused" and not ours.seen


@pytest.mark.filterwarnings("ignore")
def test_hooks_of_both_in_one() -> None:
    theirs, ours = built(whole, pyg.MessagePassing), built(whole, MessagePassing)
    results = []
    for layer in (theirs, ours):
        watched(layer, ("propagate", "message_and_aggregate"))
        layer.seen, kept = [], layer.seen
        type(layer).seen = property(lambda self, kept=kept: kept, lambda self, value: None)
        results.append((layer(X, matrix(SQUARE, NODES)), kept))
    assert same(*results)


def test_hooks_that_replace_what_is_given() -> None:
    found = []
    for base in (pyg.MessagePassing, MessagePassing):
        layer = built(with_edge_updates, base)
        layer.register_propagate_forward_pre_hook(lambda m, given: (given[0].flip(0), given[1], given[2]))
        layer.register_message_forward_pre_hook(lambda m, given: ({**given[0], "a": given[0]["a"] * 3},))
        layer.register_aggregate_forward_pre_hook(lambda m, given: {**given[0], "index": given[0]["index"].flip(0)})
        found.append(layer(X, SQUARE))
    assert same(*found)


def test_a_method_that_gives_its_first_argument_another_name() -> None:
    class Named(MessagePassing):
        def forward(this, x: Tensor, edge_index: Tensor) -> Tensor:
            return this.propagate(edge_index, x=x)

    x, edge_index = torch.randn(4, 2), torch.tensor([[0, 1, 2], [1, 2, 3]])
    assert torch.equal(Named()(x, edge_index)[1:], x[:-1])
