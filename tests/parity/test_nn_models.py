"""Models of equal layers, perceptrons and skip connections as drop-ins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from tests.parity.drop_in import EDGE, IN, NODES, Case, build, graph_of, make_tests, outcome, pair, pyg, same_state
from tests.programs import harness

HISTOGRAM = torch.tensor([2, 3, 4, 1])

# The base is tried with the first of the models, and each other with what is its own.
OPTIONS: dict[str, list[Any]] = {
    "out_channels": [3],
    "act": ["elu", None, torch.tanh, "prelu"],
    "act_first": [True],
    "norm": ["batch_norm", "GraphNorm"],
    "jk": ["last", "cat", "max", "lstm"],
}
SIZES = (IN, 4, 2)

CASES = [
    Case("GCN", SIZES, options={**OPTIONS, "improved": [True]}, compiled={"norm": "batch_norm", "jk": "cat"},
         call={"edge_weight": "w"}),
    Case("GCN", (IN, 4, 1), options={"out_channels": [3], "jk": ["cat"]}, note="one layer"),
    Case("GraphSAGE", SIZES, options={"aggr": ["max"]}),
    Case("GraphSAGE", ((IN, 3), 4, 1), x="pair"),
    Case("GIN", SIZES, options={"act": ["prelu"], "norm": ["batch_norm", "GraphNorm"], "train_eps": [True]}),
    Case("EdgeCNN", SIZES, options={"norm": ["batch_norm"]}, half=0.3),
    Case("GAT", SIZES, options={"heads": [2, 3], "out_channels": [3], "v2": [True], "dropout": [0.5]}, half=0.2),
    Case("GAT", (IN, 4, 1), {"edge_dim": EDGE}, options={"v2": [True]}, call={"edge_attr": "e"}),
    Case("PNA", SIZES, {"aggregators": ["mean", "max"], "scalers": ["identity", "linear"], "deg": HISTOGRAM},
         exact=1e-6, half=0.5),
    Case("PNA", (IN, 4, 1), {"aggregators": ["mean"], "scalers": ["identity"], "deg": HISTOGRAM, "edge_dim": EDGE},
         call={"edge_attr": "e"}, exact=1e-6, half=0.5),
    Case("MLP", ([IN, 4, 3],), options={"act": ["elu", None], "act_first": [True], "norm": [None, "GraphNorm"],
         "plain_last": [False], "bias": [False, [True, False]], "dropout": [0.5, [0.1, 0.2]]}, graph=None),
    Case("MLP", (), {"in_channels": IN, "hidden_channels": 4, "out_channels": 3, "num_layers": 3}, graph=None,
         call={"batch": "batch"}, options={"norm": ["InstanceNorm", "layer"]}, note="sizes"),
    *[Case("DeepGCNLayer", (), {"conv": lambda: nn.Linear(IN, IN), "norm": lambda: nn.LayerNorm(IN), "act": nn.ReLU,
           "block": block}, graph=None, note=block) for block in ("res+", "res", "dense", "plain")],
]  # fmt: skip

globals().update(make_tests(CASES))


@pytest.mark.parametrize("kind", ["GCN", "GraphSAGE", "GIN", "EdgeCNN"])
@pytest.mark.parametrize("options", [{}, {"norm": "batch_norm", "jk": "cat"}], ids=str)
def test_in_training_with_the_same_draws(kind: str, options: dict[str, Any]) -> None:
    case = Case(kind, SIZES, {"dropout": 0.5, **options})
    made = pair(case, {})
    assert made is not None
    same_state(case, *made)
    x, graph = torch.randn(NODES, IN, dtype=torch.float64), graph_of("any", 1, False)
    results = []
    for model in made:
        torch.manual_seed(5)
        results.append(outcome(model.train(), (x,), graph, {}))
    assert harness.difference(list(results[0].values()), list(results[1].values())) < 1e-9
    states = [list(model.state_dict().values()) for model in made]
    assert harness.difference(*states) < 1e-9


def test_a_norm_for_each_graph() -> None:
    case = Case("GCN", SIZES, {"norm": "GraphNorm"})
    made = pair(case, {})
    assert made is not None
    same_state(case, *made)
    x, graph, batch = torch.randn(NODES, IN, dtype=torch.float64), graph_of("any", 1, False), torch.arange(NODES) // 5
    found, expected = (outcome(model, (x,), graph, {"batch": batch, "batch_size": 3}) for model in made)
    assert harness.difference(list(found.values()), list(expected.values())) < 1e-9


@pytest.mark.parametrize(("kind", "value"), [("GCN", "edge_weight"), ("GAT", "edge_attr"), ("GIN", None)])
def test_layers_of_sampled_neighbours_leave_out_what_no_result_needs(kind: str, value: str | None) -> None:
    nodes, edges = [2, 3, 4], [4, 6]  # two hops around two seeds
    graph = torch.stack([torch.randint(2, 5, (4,)), torch.randint(2, (4,))])
    graph = torch.cat([graph, torch.stack([torch.randint(5, 9, (6,)), torch.randint(2, 5, (6,))])], dim=1)
    made = pair(Case(kind, (IN, 4, 2), {"edge_dim": EDGE} if value == "edge_attr" else {}), {})
    assert made is not None
    made[0].load_state_dict(made[1].state_dict())
    x = torch.randn(9, IN, dtype=torch.float64)
    values = {"edge_weight": torch.rand(10).double(), "edge_attr": torch.rand(10, EDGE).double()}
    given = {value: values[value]} if value else {}
    hops = {"num_sampled_nodes_per_hop": nodes, "num_sampled_edges_per_hop": edges}
    found, expected = (model(x, graph, **given, **hops) for model in made)
    assert found.shape == expected.shape == (5, 4)
    assert harness.difference([found], [expected]) < 1e-9
    if kind == "GIN":  # no degrees that the cut changes
        assert harness.difference([found[:2]], [made[0](x, graph)[:2]]) < 1e-9
    with pytest.raises(ValueError, match="'num_sampled_edges_per_hop' needs to be given"):
        made[0](x, graph, num_sampled_nodes_per_hop=nodes)
    with pytest.raises(NotImplementedError, match="both"):
        made[0](x, graph, **values, **hops)
    with pytest.raises(ValueError, match=r"edges \[2, E\]"):
        made[0](x, torch.eye(9).to_sparse(), **hops)


class Batch:
    """What a loader of neighbours gives."""

    def __init__(self, edge_index: Tensor, seeds: Tensor):
        into = torch.isin(edge_index[1], seeds)
        others = torch.tensor(sorted({*edge_index[0, into].tolist()} - {*seeds.tolist()}), dtype=torch.long)
        self.n_id = torch.cat([seeds, others])
        place = torch.zeros(NODES, dtype=torch.long)
        place[self.n_id] = torch.arange(len(self.n_id))
        self.edge_index, self.batch_size = place[edge_index[:, into]], len(seeds)


@pytest.mark.parametrize("options", [{}, {"jk": "last", "norm": "layer", "act_first": True}], ids=str)
@pytest.mark.parametrize("cache", [False, True])
def test_inference_layer_by_layer(options: dict[str, Any], cache: bool) -> None:
    model = gdsl.nn.GraphSAGE(IN, 4, 3, 2, **options).eval()
    graph = graph_of("any", 1, False)
    assert graph is not None

    class Loader(list):
        class data:
            x = torch.randn(NODES, IN)

    loader = Loader(Batch(graph, part) for part in torch.arange(NODES).split(4))
    if options.get("norm") == "layer":  # of each node, so that parts are as good as the whole
        for norm in model.norms:
            norm.mode = "node"
    found = model.inference(loader, cache=cache, progress_bar=cache)
    assert harness.difference([found], [model(loader.data.x, graph)]) < 1e-5
    with pytest.raises(AssertionError, match="jk='cat'"):
        gdsl.nn.GraphSAGE(IN, 4, 3, 2, jk="cat").eval().inference(loader)
    with pytest.raises(AssertionError, match="eval"):
        model.train().inference(loader)


def test_perceptrons_give_their_hidden_features() -> None:
    case = Case("MLP", ([IN, 4, 3],), {"norm": None})
    ours, theirs = build(case, gdsl.nn, {}), build(case, pyg, {})
    x = torch.randn(NODES, IN, dtype=torch.float64)
    assert ours(x, return_emb=False)[1] is None
    for found, expected in zip(ours(x, return_emb=True), theirs(x, return_emb=True), strict=True):
        assert harness.difference([found], [expected]) < 1e-12
    assert (ours.in_channels, ours.out_channels, ours.num_layers) == (IN, 3, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"in_channels": 4, "out_channels": 3}, {"in_channels": 4, "out_channels": 3, "num_layers": 2},
        {"in_channels": 4, "num_layers": 1}, {"channel_list": [4, 3], "bias": [True, True]},
        {"channel_list": [4, 3, 2], "dropout": [0.5]},
    ],
    ids=str,
)  # fmt: skip
def test_perceptrons_without_sizes(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".*") as theirs:
        pyg.MLP(**arguments)
    with pytest.raises(ValueError, match=r".*") as ours:
        gdsl.nn.MLP(**arguments)
    assert str(ours.value).partition("(")[0] == str(theirs.value).partition("(")[0]


def test_perceptrons_are_read_by_layers() -> None:
    layer = gdsl.nn.EdgeConv(gdsl.nn.MLP([2 * IN, 4, 3])).eval()
    graph = graph_of("any", 1, False)
    layer(torch.randn(NODES, IN), graph)
    assert "nn.lins.0.weight = param" in layer.explain()
    assert "nn.norms.0.module.running_mean = param" in layer.explain()
    # What draws, or learns from the rows of the call, runs as it is; and a change of it is seen.
    layer.train()
    layer(torch.randn(NODES, IN), graph)
    assert "nn.lins.0.weight = param" not in layer.explain()

    class Own(gdsl.nn.MLP):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) + 1

    own = gdsl.nn.EdgeConv(Own([2 * IN, 4, 3], norm=None))
    x = torch.randn(NODES, IN)
    before = own(x, graph)
    own.nn.__class__ = gdsl.nn.MLP
    assert torch.allclose(own(x, graph)[graph[1]] + 1, before[graph[1]], atol=1e-6)
    # Neither is one with a hook read past, on itself or on a part.
    for part in (own.nn, own.nn.lins[0], own.nn.act):
        seen: list[str] = []
        handle = part.register_forward_hook(lambda module, *_, seen=seen: seen.append(type(module).__name__))
        own(x, graph)
        handle.remove()
        assert seen == [type(part).__name__]


@pytest.mark.parametrize("mode", ["cat", "max", "lstm"])
def test_jumping_knowledge(mode: str) -> None:
    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(1)
        made.append(
            (
                library.JumpingKnowledge(mode, 4, 3).double(),
                library.HeteroJumpingKnowledge(["a", "b"], mode, 4, 3).double(),
            )
        )
    xs = [torch.randn(NODES, 4, dtype=torch.float64) for _ in range(3)]
    for ours, theirs in zip(*made, strict=True):
        assert repr(ours) == repr(theirs)
        assert harness.difference(list(ours.state_dict().values()), list(theirs.state_dict().values())) == 0
        assert list(ours.state_dict()) == list(theirs.state_dict())
        given = xs if "Hetero" not in repr(ours) else {"a": xs, "b": xs[::-1]}
        found, expected = (outcome(Given(module, given), (), None, {}) for module in (ours, theirs))
        assert found.keys() == expected.keys()
        assert harness.difference(list(found.values()), list(expected.values())) < 1e-9
        ours.reset_parameters()


class Given(nn.Module):
    """A module on one argument that is no tensor."""

    def __init__(self, module: nn.Module, given: Any):
        super().__init__()
        self.module, self.given = module, given

    def forward(self) -> Any:
        return self.module(self.given)


def test_jumping_knowledge_refuses() -> None:
    with pytest.raises(AssertionError, match="'mean'"):
        gdsl.nn.JumpingKnowledge("mean")
    for missing in ({}, {"channels": 3}):
        with pytest.raises(AssertionError, match="cannot be None for lstm"):
            gdsl.nn.JumpingKnowledge("lstm", **missing)


@pytest.mark.parametrize("block", ["res+", "res", "dense", "plain"])
def test_skip_connections(block: str) -> None:
    graph = graph_of("any", 1, False)
    results = []
    # torch_geometric's own runs a layer again in a way that torch.autograd.grad does not take.
    for library, again in ((pyg, False), (gdsl.nn, False), (gdsl.nn, True)):
        torch.manual_seed(2)
        conv = library.GCNConv(IN, IN)
        layer = library.DeepGCNLayer(conv, nn.LayerNorm(IN), nn.ReLU(), block, 0.5, again).double()
        torch.manual_seed(3)
        layer.reset_parameters()
        assert repr(layer) == f"DeepGCNLayer(block={block})"
        x = torch.linspace(-1, 1, NODES * IN, dtype=torch.float64).view(NODES, IN)
        results.append(outcome(layer, (x,), graph, {}))
    for other in results[1:]:
        assert other.keys() == results[0].keys()
        assert harness.difference(list(results[0].values()), list(other.values())) < 1e-9
    with pytest.raises(AssertionError, match="'none'"):
        gdsl.nn.DeepGCNLayer(block="none")
    assert gdsl.nn.DeepGCNLayer(nn.Linear(2, 2)).reset_parameters() is None


def test_packages_know_their_names() -> None:
    assert gdsl.nn.models.GCN is gdsl.nn.GCN
    assert {"GCN", "MLP"} <= set(dir(gdsl.nn.models))
    with pytest.raises(AttributeError, match="has no attribute 'GCNConv'"):
        _ = gdsl.nn.models.GCNConv
