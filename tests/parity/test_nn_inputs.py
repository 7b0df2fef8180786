"""Kinds of inputs that torch_geometric takes: sparse features and adjacencies with features, columns of weights, whole
and complex numbers, rows of no channels, graphs that know their sizes, SciPy's dtypes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex, utils

import gdsl.nn
from tests.parity import catalogue, drop_in
from tests.parity.drop_in import NODES, TARGETS, Case, pyg, set_backend
from tests.parity.test_nn_sparse import FEATURES, SparseTensor, sorted_edges
from tests.programs import harness

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")

FIRST: dict[str, Case] = {}
for modules in catalogue.FAMILIES.values():
    for module in modules:
        for case in getattr(import_module(f"tests.parity.{module}"), "CASES", []):
            FIRST.setdefault(case.layer, case)

# Sparse features, and they are looked at before any program runs, or are no rows of numbers.
NO_FEATURES = {"WLConv", "HANConv", "HGTConv", "HeteroConv"}
LIBRARIES = (gdsl.nn, pyg)


def both(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The layer of each library, with the same parameters, in float64."""
    ours, theirs = (getattr(library, name)(*args, **kwargs).double() for library in LIBRARIES)
    theirs.load_state_dict(ours.state_dict())
    set_backend(ours, "torch")
    return ours, theirs


# ------------------------------------------------------------------------------------- sizes of the graph


class OurSum(gdsl.nn.MessagePassing):
    def forward(self, x: Any, edge_index: Any) -> Any:
        return self.propagate(edge_index, x=x)


class TheirSum(pyg.MessagePassing):
    def forward(self, x: Any, edge_index: Any) -> Any:
        return self.propagate(edge_index, x=x)


@pytest.mark.parametrize("told", [(5, 3), (None, 3)])
def test_sizes_of_an_edge_index(told: Any) -> None:
    edges = EdgeIndex([[0, 1], [1, 0]], sparse_size=told)
    x = torch.randn(5, 4, dtype=torch.float64)
    for ours, theirs in (both("SAGEConv", (4, 4), 2), both("GraphConv", (4, 4), 2), (OurSum(), TheirSum())):
        found = ours((x, None), edges)
        assert found.shape[0] == 3
        assert harness.difference([found], [theirs((x, None), edges)]) < 1e-9
    assert OurSum()(x, edges).shape == (3, 4)  # one side is asked for, and only one


def test_sizes_of_an_edge_index_under_torch_compile() -> None:
    edges = EdgeIndex([[0, 1], [1, 0]], sparse_size=(5, 3))
    x = torch.randn(5, 4)
    for layer in (gdsl.nn.SAGEConv((4, 4), 2, backend="torch"), gdsl.nn.GraphConv((4, 4), 2, backend="torch")):
        compiled = torch.compile(lambda x, e, layer=layer: layer((x, None), e), backend="eager", fullgraph=True)
        assert torch.allclose(compiled(x, edges), layer((x, None), edges))
        assert compiled(x, edges).shape == (3, 2)


def test_sizes_of_an_edge_index_against_the_edges() -> None:
    edges = EdgeIndex([[0, 1, 4], [1, 0, 2]], sparse_size=(5, 3))
    e = torch.randn(3, 2)

    class Edges(gdsl.nn.MessagePassing):
        def forward(self, e: Tensor, edge_index: Tensor) -> Any:
            return self.propagate(edge_index, e=e)

        def message(self, e: Tensor) -> Tensor:
            return e

    assert Edges()(e, edges).shape == (3, 2)
    assert Edges(flow="target_to_source")(e, edges).shape == (5, 2)


@pytest.mark.parametrize("rows", [3, 7])
def test_features_of_another_size_than_the_edge_index_says(rows: int) -> None:
    edges = EdgeIndex([[0, 1], [1, 0]], sparse_size=(5, 5))
    x = torch.randn(rows, 4)
    for layer in (gdsl.nn.GCNConv(4, 2), gdsl.nn.SAGEConv(4, 2), OurSum()):
        with pytest.raises(ValueError) as caught:
            layer(x, edges)
        assert str(caught.value) == (
            f"Encountered tensor with size {rows} in dimension -2, but expected size 5. The second is the number of "
            f"sources in the sparse size of `edge_index`"
        )


# ------------------------------------------------------------------------------------- adjacencies with features


def matrix(layout: str, edges: Tensor, values: Tensor, rows: int = NODES) -> Tensor:
    """Rows are targets; the edges are sorted by them."""
    source, target = edges
    shape = (rows, NODES, *values.shape[1:])
    if layout == "coo":
        return torch.sparse_coo_tensor(edges.flip(0), values, shape).coalesce()
    if layout == "csr":
        starts = nn.functional.pad(torch.bincount(target, minlength=rows).cumsum(0), (1, 0))
        return torch.sparse_csr_tensor(starts, source, values, shape)
    order = (source * rows + target).argsort()
    starts = nn.functional.pad(torch.bincount(source, minlength=NODES).cumsum(0), (1, 0))
    return torch.sparse_csc_tensor(starts, target[order], values[order], shape)


@pytest.mark.parametrize("root", [True, False], ids=["both sides", "sources only"])
@pytest.mark.parametrize("name", ["GraphConv", "SAGEConv", "GENConv"])
def test_a_matrix_of_two_sets_of_nodes_by_torch_geometric(name: str, root: bool) -> None:
    """As its own functions make it, turned: not coalesced, or by rows."""
    edges = torch.tensor([[0, 1, 2, 4, 4], [0, 0, 1, 1, 2]])
    x, z = torch.randn(5, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    ours, theirs = both(name, (4, 4), 2)
    given = (x, z if root else None)
    expected = theirs(given, edges, size=(5, 3))
    coo = utils.to_torch_coo_tensor(edges, size=(5, 3)).double().t()
    columns = utils.to_torch_csc_tensor(edges, size=(5, 3)).double()
    for adjacency in (coo, coo.coalesce(), coo.to_sparse_csr(), columns.t()):
        found = ours(given, adjacency)
        assert found.shape == (3, 2)
        assert harness.difference([found], [expected]) < 1e-9


def unique_edges() -> Tensor:
    """Without parallel ones, of which a matrix has the sum."""
    target, source = (sorted_edges().flip(0)).unique(dim=1)
    return torch.stack([source, target])


WITH_FEATURES = {
    **FEATURES,
    "GATConv": ((5, 4), {"edge_dim": 3, "add_self_loops": False}),
    "GATConv loops": ((5, 4), {"edge_dim": 3}),
    "PDNConv": ((5, 4, 3, 6), {}),
    "PNAConv": ((5, 4, ["mean"], ["identity"], torch.tensor([1, 3, 5])), {"edge_dim": 3}),
}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *((name, layout) for name in WITH_FEATURES for layout in ("coo", "csr")),
        *((name, "csc") for name in ("GATConv loops", "GENConv", "NNConv", "GMMConv")),
    ],
)
def test_features_of_edges_in_a_matrix(name: str, layout: str) -> None:
    """As the same call with ``edge_index, edge_attr``."""
    args, kwargs = WITH_FEATURES[name]
    ours, theirs = both(name.split()[0], *args, **kwargs)
    edges = unique_edges()
    x, e = torch.randn(NODES, 5, dtype=torch.float64), torch.randn(edges.shape[1], 3, dtype=torch.float64)
    expected = theirs(x, edges, e)
    adjacency = matrix(layout, edges, e)
    assert harness.difference([ours(x, adjacency)], [expected]) < 1e-9
    # torch_geometric forgets the features of a matrix in PDNConv, and has no self-loops for blocks.
    if layout != "csc" and name not in ("PDNConv", "GATConv loops"):
        assert harness.difference([theirs(x, adjacency)], [expected]) < 1e-9


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_features_of_edges_in_a_matrix_have_gradients(layout: str) -> None:
    ours, _ = both("TransformerConv", 5, 4, edge_dim=3)
    edges = unique_edges()
    x, e = torch.randn(NODES, 5, dtype=torch.float64), torch.randn(edges.shape[1], 3, dtype=torch.float64)
    a, b = (e.clone().requires_grad_() for _ in range(2))
    ours(x, edges, a).square().sum().backward()
    ours(x, matrix(layout, edges, b), None).square().sum().backward()
    assert harness.difference([b.grad], [a.grad]) < 1e-9


def test_user_s_layer_on_a_matrix_with_features() -> None:
    class Layer(gdsl.nn.MessagePassing):
        def forward(self, x: Tensor, adjacency: Any, edge_attr: Any = None) -> Any:
            return self.propagate(adjacency, x=x, edge_attr=edge_attr)

        def message(self, x_j: Tensor, edge_attr: Tensor) -> Tensor:
            return x_j + edge_attr

    edges = unique_edges()
    x, e = torch.randn(NODES, 3), torch.randn(edges.shape[1], 3)
    for layout in ("coo", "csr", "csc"):
        assert torch.allclose(Layer()(x, matrix(layout, edges, e)), Layer()(x, edges, e), atol=1e-5)


@pytest.mark.parametrize("name", ["GCNConv", "GraphConv", "ChebConv", "SGConv"])
def test_features_in_the_place_of_weights(name: str) -> None:
    layer = getattr(gdsl.nn, name)(5, 4, *([2] if name == "ChebConv" else []))
    edges = unique_edges()
    e = torch.randn(edges.shape[1], 3)
    for adjacency, given in ((matrix("coo", edges, e), ()), (edges, (e,))):
        for kind in (ValueError, RuntimeError):
            with pytest.raises(kind, match=r"`edge_weight` must have shape \[E\], and it has shape \[\d+, 3\]"):
                layer(torch.randn(NODES, 5), adjacency, *given)


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_attention_weights_in_the_layout_of_the_matrix(layout: str) -> None:
    edges = unique_edges()
    x = torch.randn(NODES, 5)
    layer = gdsl.nn.GATConv(5, 4, heads=2, add_self_loops=False)
    _, (seen, alpha) = layer(x, edges, return_attention_weights=True)
    adjacency = matrix(layout, edges, torch.ones(edges.shape[1]))
    _, (found, _) = layer(x, adjacency, return_attention_weights=True)
    assert found.layout is adjacency.layout
    expected = torch.zeros(NODES, NODES, 2).index_put((seen[1], seen[0]), alpha.detach())
    graph = gdsl.Graph.from_any(found)
    whole = torch.zeros(NODES, NODES, 2).index_put(
        (graph.edge_index[1], graph.edge_index[0]), graph.edge_weight.detach()
    )
    assert torch.allclose(whole, expected, atol=1e-6)


# ------------------------------------------------------------------------------------- torch_sparse's matrices


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("GENConv", (5, 4), {}), ("GENConv", (5, 4), {"aggr": "max"}), ("CGConv", (5,), {}), ("GATv2Conv", (5, 4), {}),
        ("SAGEConv", (5, 4), {}),
    ],
)  # fmt: skip
def test_numbers_in_a_matrix_are_no_features_of_a_layer_without_them(name: str, args: Any, kwargs: Any) -> None:
    layer = getattr(gdsl.nn, name)(*args, **kwargs)
    edges = sorted_edges()
    x, values = torch.randn(NODES, 5), torch.rand(edges.shape[1])
    made = SparseTensor(edges[1], edges[0], values, (NODES, NODES))
    csr = matrix("csr", unique_edges(), torch.rand(unique_edges().shape[1]))
    assert torch.allclose(layer(x, made), layer(x, edges), atol=1e-5)
    assert torch.allclose(layer(x, csr), layer(x, unique_edges()), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("GENConv", (5, 4), {"edge_dim": 1}),
        ("GATConv", (5, 4), {"edge_dim": 1}),
        ("GATv2Conv", (5, 4), {"edge_dim": 1}),
        ("GeneralConv", (5, 4), {"in_edge_channels": 1}),
    ],
)
def test_numbers_in_a_matrix_are_features_of_size_1(name: str, args: Any, kwargs: Any) -> None:
    """Those of torch_sparse: as the call with the edges and their features [E, 1], with the gradient."""
    layer = getattr(gdsl.nn, name)(*args, **kwargs)
    edges = sorted_edges()
    x, values = torch.randn(NODES, 5), torch.rand(edges.shape[1])
    found = []
    for inside in (values, values[:, None], None):
        leaf = values.clone().requires_grad_()
        if inside is None:
            y = layer(x, edges, leaf[:, None])
        else:
            y = layer(x, SparseTensor(edges[1], edges[0], leaf.view(inside.shape), (NODES, NODES)))
        found.append((y, torch.autograd.grad(y.square().sum(), leaf)[0]))
    for y, gradient in found[:2]:
        assert torch.allclose(y, found[2][0], atol=1e-5)
        assert torch.allclose(gradient, found[2][1], rtol=1e-4, atol=1e-5)
    assert found[2][1].abs().max() > 1e-3


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_pdn_on_a_matrix_of_torch_has_no_weights_but_those_of_features(layout: str) -> None:
    ours, theirs = gdsl.nn.PDNConv(5, 4, 3, 6), pyg.PDNConv(5, 4, 3, 6)
    theirs.load_state_dict(ours.state_dict())
    edges = unique_edges()
    x, values = torch.randn(NODES, 5), torch.rand(edges.shape[1]) + 0.5
    made, ones = matrix(layout, edges, values), matrix(layout, edges, torch.ones_like(values))
    assert torch.allclose(ours(x, made), theirs(x, edges), atol=1e-5)
    assert torch.allclose(ours(x, ones), theirs(x, ones), atol=1e-5)
    weighted = pyg.GCNConv(5, 4)
    weighted.load_state_dict({name: value for name, value in ours.state_dict().items() if "mlp" not in name})
    assert torch.allclose(theirs(x, made), weighted(x, edges, values), atol=1e-5)  # the page of layers says so


def test_features_of_edges_of_heat_in_a_matrix() -> None:
    layer = gdsl.nn.HEATConv(5, 4, 2, 3, 6, 3, 7)
    edges = sorted_edges()
    x, e = torch.randn(NODES, 5), torch.randn(edges.shape[1], 3)
    kinds, relations = torch.randint(2, (NODES,)), torch.randint(3, (edges.shape[1],))
    made = SparseTensor(edges[1], edges[0], e, (NODES, NODES))
    assert torch.allclose(layer(x, made, kinds, relations), layer(x, edges, kinds, relations, e), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: gdsl.nn.GENConv(5, 4),
            "edge features of size 3 need 'edge_dim', or to be of size 4, as the messages are",
        ),
        (lambda: gdsl.nn.ResGatedGraphConv(5, 4), "'edge_dim' and edge features need each other"),
        (lambda: gdsl.nn.TransformerConv(5, 4), "'edge_dim' and edge features need each other"),
        (lambda: gdsl.nn.GATv2Conv(5, 4), "edge features need 'edge_dim'"),
    ],
)
def test_features_of_edges_that_a_layer_does_not_take(make: Any, message: str) -> None:
    edges = sorted_edges()
    with pytest.raises(AssertionError) as caught:
        make()(torch.randn(NODES, 5), edges, torch.randn(edges.shape[1], 3))
    assert str(caught.value) == message


# ------------------------------------------------------------------------------------- features and weights


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *((name, "coo") for name in FIRST if name not in NO_FEATURES),
        *((name, "csr") for name in ("GCNConv", "SAGEConv", "ChebConv", "PDNConv", "SignedConv", "GatedGraphConv")),
    ],
)
def test_sparse_features(name: str, layout: str) -> None:
    """As the same features in rows of numbers, with a gradient."""
    layer = drop_in.build(FIRST[name], gdsl.nn, {})
    set_backend(layer, "torch")
    first, graph, values = drop_in.draw(FIRST[name], 1)
    if not isinstance(first[0], Tensor) or first[0].dim() != 2 or not first[0].is_floating_point():
        pytest.skip("no one matrix of features")
    graphs = () if graph is None else (graph,)
    x = first[0].clone().requires_grad_()
    torch.manual_seed(1)
    expected = layer(x, *first[1:], *graphs, **values)
    expected = expected if isinstance(expected, Tensor) else expected[0]
    sparse = first[0].detach().to_sparse_coo() if layout == "coo" else first[0].detach().to_sparse_csr()
    torch.manual_seed(1)
    found = layer(sparse, *first[1:], *graphs, **values)
    found = found if isinstance(found, Tensor) else found[0]
    assert harness.difference([found], [expected]) < 1e-9


def test_sparse_features_have_a_gradient() -> None:
    layer = gdsl.nn.GCNConv(3, 2)
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x = torch.sparse_coo_tensor(torch.tensor([[0, 1, 2], [2, 0, 1]]), values, (3, 3))
    layer(x, edges).square().sum().backward()
    assert values.grad is not None and bool((values.grad != 0).any())


WEIGHTS = {
    "GCNConv": (5, 4), "GraphConv": (5, 4), "SGConv": (5, 4, 2), "SSGConv": (5, 4, 0.2, 2), "TAGConv": (5, 4),
    "APPNP": (2, 0.2), "LGConv": (), "MixHopConv": (5, 4), "LEConv": (5, 4), "GatedGraphConv": (6, 2),
    "ChebConv": (5, 4, 2), "ARMAConv": (5, 4), "SimpleConv": (), "WLConvContinuous": (), "GCN2Conv": (5, 0.2),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_column_of_weights(name: str) -> None:
    ours, theirs = both(name, *WEIGHTS[name])
    x = [torch.randn(NODES, 5, dtype=torch.float64)] * (2 if name == "GCN2Conv" else 1)
    edges = sorted_edges()
    weight = torch.rand(edges.shape[1], 1, dtype=torch.float64) + 0.1
    found = ours(*x, edges, weight)
    assert harness.difference([found], [theirs(*x, edges, weight)]) < 1e-9
    assert torch.equal(found, ours(*x, edges, weight.squeeze(1)))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(("GCNConv", dtype) for dtype in (bool, np.int8, np.int64, np.uint32, np.float32, np.float64, np.longdouble)),
        *(
            (name, dtype)
            for name in ("GraphConv", "SGConv", "LEConv", "ChebConv", "a user's")
            for dtype in (bool, np.float64)
        ),
    ],
)
def test_values_of_scipy(name: str, dtype: Any) -> None:
    """In the dtype of the features."""

    class Weighted(gdsl.nn.MessagePassing):
        def forward(self, x: Tensor, adjacency: Any, edge_weight: Any = None) -> Any:
            return self.propagate(adjacency, x=x, edge_weight=edge_weight)

        def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
            return x_j * edge_weight.view(-1, 1)

    layer = Weighted() if name == "a user's" else getattr(gdsl.nn, name)(5, 4, *([2] if name == "ChebConv" else []))
    set_backend(layer, "torch")
    edges = unique_edges()
    values = np.random.default_rng(0).integers(1, 9, edges.shape[1]).astype(dtype)
    adjacency = scipy.sparse.coo_array((values, tuple(edges.numpy())), shape=(NODES, NODES))
    x = torch.randn(NODES, 5)
    found = layer(x, adjacency)
    assert found.dtype == torch.float32
    weight = torch.from_numpy(values.astype(np.float32))
    assert torch.allclose(found, layer(x, edges, weight), atol=1e-5)


def test_complex_values_of_scipy() -> None:
    adjacency = scipy.sparse.eye_array(NODES, dtype=np.complex64)
    with pytest.raises(ValueError, match="`edge_weight` must hold floating-point numbers, and it is complex64"):
        gdsl.nn.GraphConv(5, 4)(torch.randn(NODES, 5), adjacency)


def test_errors_name_the_arguments_of_forward() -> None:
    """And not those of the program."""
    edges = sorted_edges()
    x, count = torch.randn(NODES, 5), edges.shape[1]
    for layer, given, message in (
        (
            gdsl.nn.GraphConv(5, 4),
            (x, edges, torch.ones(count).double()),
            "`edge_weight` is float64 and `x` is float32",
        ),
        (gdsl.nn.GraphConv(5, 4), ((x, x.double()), edges), r"`x\[1\]` is float64 and `x` is float32"),
        (gdsl.nn.TransformerConv(5, 4, edge_dim=3), (x, edges, torch.ones(4, 3)), "`edge_attr` has 4 rows"),
        (gdsl.nn.RGCNConv(5, 4, 3), (x, edges, torch.full((count,), 7)), "edge 0 has edge_type = 7"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(*given)


# ------------------------------------------------------------------------------------- whole and complex numbers


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_complex_features_of_a_node_without_edges_into_it(backend: str) -> None:
    """0 for real features, and NaN in torch_geometric for complex ones."""
    layer, path = gdsl.nn.LGConv(), torch.tensor([[0, 1, 1], [1, 2, 2]])
    set_backend(layer, backend)
    x = torch.randn(3, 2, dtype=torch.float64)
    found = layer(x * (1 + 2j), path)
    assert harness.difference([found.real, found.imag], [pyg.LGConv()(x, path) * k for k in (1, 2)]) < 1e-9

SIMPLE = [
    "SumAggregation", "MeanAggregation", "MaxAggregation", "MinAggregation", "MulAggregation", "VarAggregation",
    "StdAggregation", "SoftmaxAggregation", "PowerMeanAggregation", "MedianAggregation",
    "VariancePreservingAggregation",
]  # fmt: skip
NUMBERS = [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.complex64]
GROUPS = torch.tensor([0, 0, 0, 1, 3, 3])


# torch_geometric's sums of truth values are truth values again, and its differences of uint8 wrap around.
ITS_OWN = {
    *((f"{name}Aggregation", torch.bool) for name in ("Mean", "PowerMean", "Var", "Std", "VariancePreserving")),
    ("SoftmaxAggregation", torch.uint8),
}


def whole(dtype: torch.dtype, *shape: int) -> Tensor:
    x = torch.randint(0, 5, (len(GROUPS), *shape)).to(dtype)
    return x * (1 + 2j) if dtype.is_complex else x


@pytest.mark.parametrize("name", SIMPLE)
def test_one_number_a_row(name: str) -> None:
    x = torch.rand(len(GROUPS), dtype=torch.float64)
    ours, theirs = (getattr(library.aggr, name)() for library in LIBRARIES)
    for dim in (0, -1):
        a, b = (x.clone().requires_grad_() for _ in range(2))
        found, expected = ours(a, GROUPS, dim=dim), theirs(b, GROUPS, dim=dim)
        assert found.shape == (4,)
        assert harness.difference([found], [expected]) < 1e-6
        found.square().sum().backward()
        expected.square().sum().backward()
        assert harness.difference([a.grad], [b.grad]) < 1e-6
    with pytest.raises(ValueError, match="invalid dimension '-2' of source tensor with 1 dimensions"):
        ours(x, GROUPS)


def test_several_numbers_of_one_number_a_row_are_refused() -> None:
    with pytest.raises(ValueError, match=r"DegreeScalerAggregation takes rows of one dimension, not of shape \[\]"):
        gdsl.nn.aggr.DegreeScalerAggregation("sum", ["identity", "linear"], torch.tensor([1, 2]))(
            torch.rand(6), GROUPS, dim=0
        )


def test_user_s_layer_of_one_number_a_node() -> None:
    for kind in (OurSum, TheirSum):
        found = kind(node_dim=0)(torch.arange(4.0), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 3]]))
        assert found.tolist() == [0.0, 0.0, 1.0, 5.0]


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("name", SIMPLE)
def test_other_numbers(name: str, dtype: torch.dtype) -> None:
    """The dtype that torch_geometric's result has, and its numbers; where it fails, ours are right or refused."""
    ours, theirs = (getattr(library.aggr, name)() for library in LIBRARIES)
    for x in (whole(dtype, 2), whole(dtype, 2, 3)):
        try:
            expected = theirs(x, GROUPS, dim=0)
        except (RuntimeError, NotImplementedError):
            expected = None
        if dtype.is_complex and name not in ("SumAggregation", "MulAggregation", "MeanAggregation", SIMPLE[-1]):
            assert expected is None
            with pytest.raises((ValueError, RuntimeError), match="complex"):
                ours(x, GROUPS, dim=0)
            continue
        found = ours(x, GROUPS, dim=0)
        if expected is None or (name, dtype) in ITS_OWN:
            expected = found if dtype.is_complex else theirs(x.float(), GROUPS, dim=0)
        assert found.dtype == expected.dtype
        assert torch.allclose(found, expected, atol=1e-5)


def test_means_of_other_numbers() -> None:
    """torch_geometric's mean of truth values is of their sum as a truth value, and it has none of complex numbers."""
    mean = gdsl.nn.aggr.MeanAggregation()
    assert mean(torch.tensor([[True], [False], [True]]), torch.tensor([0, 0, 1])).tolist() == [[0.5], [1.0]]
    assert mean(torch.tensor([[1 + 2j], [3 + 4j]]), torch.tensor([0, 0])).tolist() == [[2 + 3j]]
    big = torch.tensor([[2**60], [2**60]])
    assert mean(big, torch.tensor([0, 0])).tolist() == [[2.0**60]]


@pytest.mark.parametrize("way", ["linear", "lower", "higher", "nearest", "midpoint"])
def test_quantiles_of_whole_numbers(way: str) -> None:
    ours, theirs = (library.aggr.QuantileAggregation([0.3, 0.5], way) for library in LIBRARIES)
    x = torch.randint(0, 100, (len(GROUPS), 2))
    found, expected = ours(x, GROUPS), theirs(x, GROUPS)
    assert found.dtype == expected.dtype
    assert torch.allclose(found.double(), expected.double())


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("aggr", ["sum", "mean", "max", "mul"])
def test_other_numbers_along_edges(aggr: str, dtype: torch.dtype) -> None:
    edges = sorted_edges()
    x = torch.randint(0, 5, (NODES, 3)).to(dtype)
    weight = torch.rand(edges.shape[1])
    for given in ((x, edges), (x, edges, weight), ((x, x[:TARGETS]), edges[:, edges[1] < TARGETS])):
        for options in ({}, {"combine_root": "cat"}):
            ours, theirs = (library.SimpleConv(aggr, **options) for library in LIBRARIES)
            try:
                expected = theirs(*given)
            except (RuntimeError, NotImplementedError):
                continue
            found = ours(*given)
            assert found.dtype == expected.dtype
            if not (dtype is torch.bool and aggr == "mean"):
                assert torch.allclose(found, expected, atol=1e-4)
    if dtype is not torch.complex64 or aggr in ("sum", "mul"):
        assert torch.allclose(OurSum(aggr)(x, edges), TheirSum(aggr)(x, edges)) or (dtype is torch.bool)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize(("name", "args"), [("LGConv", ()), ("APPNP", (2, 0.1)), ("WLConvContinuous", ())])
def test_other_numbers_in_layers_that_are_linear(name: str, args: Any, dtype: torch.dtype) -> None:
    ours, theirs = (getattr(library, name)(*args) for library in LIBRARIES)
    edges = sorted_edges()
    x, weight = torch.randint(0, 5, (NODES, 3)).to(dtype), torch.rand(edges.shape[1])
    x = x * (1 + 2j) if dtype.is_complex else x
    found, expected = ours(x, edges, weight), theirs(x, edges, weight)
    assert found.dtype == expected.dtype
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_whole_numbers_are_summed_as_such(flow: str, dtype: torch.dtype) -> None:
    """Also those that float32 has not: nothing is multiplied here."""
    ours, theirs = (library.LGConv(normalize=False, flow=flow) for library in LIBRARIES)
    edges = sorted_edges()
    x = torch.randint(0, 5, (NODES, 3)).to(dtype)
    x = x + 2**40 if dtype is torch.int64 else x
    found, expected = ours(x, edges), theirs(x, edges)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    weight = torch.rand(edges.shape[1])
    if dtype is not torch.int64:
        assert torch.allclose(ours(x, edges, weight), theirs(x, edges, weight), atol=1e-4)


MULTIPLIED = {
    "GraphConv": (3, 3), "LEConv": (3, 3), "GatedGraphConv": (3, 2), "SimpleConv": (), "WLConvContinuous": (),
    "GCNConv": (3, 3), "LGConv": (), "TAGConv": (3, 3),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("name", MULTIPLIED)
def test_weights_that_are_whole_numbers(name: str, dtype: torch.dtype) -> None:
    """As real ones of the other numbers' dtype; torch_geometric's normalisation refuses them."""
    ours, theirs = (getattr(library, name)(*MULTIPLIED[name]).double() for library in LIBRARIES)
    ours.load_state_dict(theirs.state_dict())
    set_backend(ours, "torch")
    edges, x = sorted_edges(), torch.randn(NODES, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randint(1, 2 if dtype is torch.bool else 5, (edges.shape[1],)).to(dtype)
    found = ours(x, edges, weight)
    expected = (theirs if name not in ("GCNConv", "LGConv", "TAGConv") else ours)(x, edges, weight.double())
    assert found.dtype == torch.float64
    assert torch.allclose(found, expected, atol=1e-12)
    if name == "GraphConv":
        torch._dynamo.reset()
        assert torch.equal(torch.compile(ours, backend="eager", fullgraph=True)(x, edges, weight), found)


def test_features_that_are_whole_numbers() -> None:
    edges = sorted_edges()
    x, e = torch.randint(0, 5, (NODES, 3)), torch.randint(0, 5, (edges.shape[1], 3))
    for made, given in (
        (lambda library: library.GINConv(torch.nn.Linear(3, 3), train_eps=True), (x, edges)),
        (lambda library: library.GENConv(3, 3, edge_dim=3), (x.double(), edges, e.double())),
        (lambda library: library.CGConv(3, dim=3), (x, edges, e.double())),
        (lambda library: library.CGConv(3, dim=3), (x.double(), edges, e)),
    ):
        torch.manual_seed(0)
        ours, theirs = (made(library).double() for library in LIBRARIES)
        ours.load_state_dict(theirs.state_dict())
        set_backend(ours, "torch")
        assert torch.allclose(ours(*given), theirs(*given), atol=1e-12)


@pytest.mark.parametrize("name", ["GCNConv", "ChebConv", "GraphConv", "LGConv", "GatedGraphConv"])
def test_weights_of_another_dtype_are_refused_by_name(name: str) -> None:
    args = {"LGConv": (), "ChebConv": (3, 3, 2), "GatedGraphConv": (3, 2)}.get(name, (3, 3))
    edges = sorted_edges()
    with pytest.raises(ValueError, match=r"`edge_weight` is float64 and `\w+` is float32: convert one with .to\(torch"):
        getattr(gdsl.nn, name)(*args)(torch.randn(NODES, 3), edges, torch.rand(edges.shape[1], dtype=torch.float64))


@pytest.mark.parametrize("dtype", NUMBERS[1:], ids=str)
def test_other_numbers_of_whole_graphs(dtype: torch.dtype) -> None:
    x, batch = whole(dtype, 2), GROUPS
    for name in ("global_add_pool", "global_mean_pool", "global_max_pool"):
        ours, theirs = (getattr(library, name) for library in LIBRARIES)
        if not dtype.is_complex or name == "global_add_pool":
            found, expected = ours(x, batch), theirs(x, batch)
            assert found.dtype == expected.dtype and torch.allclose(found, expected)
    if dtype.is_complex:
        with pytest.raises(ValueError, match="MaxAggregation is of real numbers, and `x` is complex64"):
            gdsl.nn.global_max_pool(x, batch)


def test_numpy_integers_as_sizes() -> None:
    edges = sorted_edges()
    for layer in (
        gdsl.nn.GraphConv(np.int64(5), np.int64(4)),
        gdsl.nn.GCNConv(np.int32(5), np.int32(4)),
        gdsl.nn.TAGConv(5, 4, np.int64(2)),
    ):
        assert layer(torch.randn(NODES, 5), edges).shape == (NODES, 4)


def test_an_argument_named_as_what_dropout_draws_from() -> None:
    class Layer(gdsl.nn.MessagePassing):
        def forward(self, x: Tensor, seed: Tensor, edge_index: Tensor) -> Any:
            return self.propagate(edge_index, x=x, seed=seed)

        def message(self, x_j: Tensor, seed: Tensor) -> Tensor:
            return nn.functional.dropout(x_j, 0.5, True) * seed.view(-1, 1)

    edges = sorted_edges()
    layer = Layer()
    found = layer(torch.ones(NODES, 3), torch.ones(edges.shape[1]), edges)
    assert layer.how == "fused"
    assert bool(((found % 2) == 0).all())


def test_features_of_targets_that_are_not_asked_for() -> None:
    """They may have another size."""
    edges = unique_edges()
    x, z = torch.randn(NODES, 5, dtype=torch.float64), torch.randn(NODES, 3, dtype=torch.float64)
    ours, theirs = both("SimpleConv")
    assert harness.difference([ours((x, z), edges)], [theirs((x, z), edges)]) < 1e-9


@pytest.mark.parametrize("dim", [1, 2, -1, -3])
def test_nodes_along_any_dimension_of_a_user_s_layer(dim: int) -> None:
    edges = sorted_edges()
    x = torch.randn(2, 3, 4).movedim(1, dim).repeat_interleave(10, dim)
    x = x.narrow(dim, 0, NODES) if x.shape[dim] >= NODES else x
    ours, theirs = OurSum(node_dim=dim), TheirSum(node_dim=dim)
    found = ours(x, edges)
    assert found.shape == x.shape
    assert torch.allclose(found, theirs(x, edges), atol=1e-5)
    along = f"message and aggregate run as they are: nodes lie along dimension {dim}"
    assert ours.how == ("fused" if dim == -3 else along)  # which is the first


def test_sparse_features_in_a_user_s_layer() -> None:
    edges, x = sorted_edges(), torch.randn(NODES, 3).relu()
    layer = OurSum()
    assert torch.allclose(layer(x.to_sparse(), edges), layer(x, edges), atol=1e-6)
    assert gdsl.nn.SumAggregation()(x.to_sparse(), torch.zeros(NODES, dtype=torch.long)).shape == (1, 3)
