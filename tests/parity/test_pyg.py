"""Same weights, same numbers as torch_geometric: outputs, and gradients by every input and parameter.

A row of CASES builds the layer of torch_geometric and says how its parameters read as the program's. The map is
linear and takes gradients as well as values. Parameters that it leaves out, biases that a program does not have,
are zero. Graphs have isolated nodes, a node without in-edges, self-loops and parallel edges. No node has two
self-loops: where edges have weights, torch_geometric gives the one it drops a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
from tests.programs import harness
from tests.programs.sources import PROGRAMS, modules_for

pyg = pytest.importorskip("torch_geometric.nn")

State = Mapping[str, Tensor]
NODES, TARGETS = 9, 6


@dataclass(frozen=True)
class Case:
    """
    program: its name in tests.programs.sources
    peer:    makes torch_geometric's layer from the torch modules of the program, by name
    weights: the program's parameters from torch_geometric's
    given:   the program's inputs besides x, as torch_geometric takes them after the graph
    call:    how torch_geometric is called, where that is not ``peer(x, edge_index, *given)``
    symmetric: whether each edge goes both ways
    single:  how near float32 comes; mean(m^2) - mean(m)^2, in a standard deviation, costs digits
    """

    program: str
    peer: Callable[[dict[str, nn.Module]], nn.Module]
    weights: Callable[[State], State]
    given: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    call: Callable[[nn.Module, Tensor, dict[str, Any]], Any] | None = None
    symmetric: bool = False
    single: float = 1e-5


def heads(weight: Tensor) -> Tensor:
    """The [2 * 4, in] of a Linear as [in, heads, out]."""
    return weight.view(2, 4, -1).permute(2, 0, 1)


def same(*names: str, **renamed: str) -> Callable[[State], State]:
    """Parameters of the same shape; a Linear's weight is transposed."""
    table = {**{n: n for n in names}, **renamed}
    return lambda p: {ours: p[k].t() if k.endswith("weight") and "." in k else p[k] for ours, k in table.items()}


def inside(name: str) -> Callable[[State], State]:
    """The parameters of a torch module that both have."""
    return lambda p: {k: v for k, v in p.items() if k.startswith(f"{name}.")}


def both(*maps: Callable[[State], State]) -> Callable[[State], State]:
    return lambda p: {k: v for one in maps for k, v in one(p).items()}


def scalar(ours: str, theirs: str) -> Callable[[State], State]:
    return lambda p: {ours: p[theirs].reshape(())}


def relations(p: State, part: str) -> Tensor:
    return torch.stack([p[f"{part}.{r}.weight"].t() for r in range(3)])


def _pna() -> nn.Module:
    degrees = torch.bincount(edges()[1], minlength=NODES)
    peer = pyg.PNAConv(
        5, 4, ["mean", "max", "min", "std"], ["identity", "amplification", "attenuation"], torch.bincount(degrees)
    )
    peer.lin = nn.Identity()
    return peer


def _gen(mlp: nn.Module) -> nn.Module:
    peer = pyg.GENConv(5, 5, learn_t=True)
    peer.mlp = mlp
    return peer


def _attention(peer: nn.Module, graph: Tensor, v: dict[str, Any]) -> Any:
    y, (_, alpha) = peer(v["x"], graph, v.get("e"), return_attention_weights=True)
    return y, alpha


_gcn = same(weight="lin.weight", b="bias")
_sage = same(weight_l="lin_l.weight", bias="lin_l.bias", weight_r="lin_r.weight")


def _gat(p: State) -> State:
    edge = {"weight_edge": heads(p["lin_edge.weight"]), "att_edge": p["att_edge"][0]} if "att_edge" in p else {}
    bias = {"bias": p["bias"].view(2, 4)} if "bias" in p else {}
    return {
        "weight": heads(p["lin.weight"]), "att_src": p["att_src"][0], "att_dst": p["att_dst"][0], **bias, **edge,
    }  # fmt: skip


CASES = {
    "GCN": Case("GCN", lambda m: pyg.GCNConv(5, 4), _gcn),
    "GCN, weighted": Case("GCN", lambda m: pyg.GCNConv(5, 4), _gcn, ("w",)),
    "GCN, plain": Case(
        "GCN", lambda m: pyg.GCNConv(5, 4, add_self_loops=False, normalize=False, bias=False),
        same(weight="lin.weight"), ("w",), {"add_loops": False, "normalize": False, "bias": False},
    ),
    "SGC": Case("SGC", lambda m: pyg.SGConv(5, 4, K=2), same(weight="lin.weight", bias="lin.bias"), ("w",)),
    "SSG": Case(
        "SSG", lambda m: pyg.SSGConv(5, 4, alpha=0.1, K=2), same(weight="lin.weight", bias="lin.bias"),
    ),
    "TAG": Case(
        "TAG", lambda m: pyg.TAGConv(5, 4, K=3),
        lambda p: {"weight": torch.stack([p[f"lins.{k}.weight"].t() for k in range(4)]), "bias": p["bias"]},
    ),
    "APPNP": Case("APPNP", lambda m: pyg.APPNP(K=3, alpha=0.1), lambda p: {}),
    "APPNP, weighted": Case("APPNP", lambda m: pyg.APPNP(K=3, alpha=0.1), lambda p: {}, ("w",)),
    # torch_geometric's Laplacian takes degrees by source, the rules by target.
    "Cheb": Case(
        "Cheb", lambda m: pyg.ChebConv(5, 4, K=3),
        lambda p: {"weight": relations(p, "lins"), "bias": p["bias"]},
        call=lambda peer, graph, v: peer(v["x"], graph, lambda_max=2.0), symmetric=True,
    ),
    "ARMA": Case(
        "ARMA", lambda m: pyg.ARMAConv(5, 4, num_stacks=2, num_layers=2),
        lambda p: {**{k: p[k] for k in ("init_weight", "weight", "root_weight")}, "bias": p["bias"][:, :, 0]},
    ),
    "SAGE, mean": Case("SAGE_mean", lambda m: pyg.SAGEConv(5, 4), _sage),
    "SAGE, max": Case("SAGE_max", lambda m: pyg.SAGEConv(5, 4, aggr="max"), _sage),
    "SAGE, std": Case("SAGE_std", lambda m: pyg.SAGEConv(5, 4, aggr="std"), _sage, single=1e-3),
    "SAGE, normalized": Case("SAGE_normalized", lambda m: pyg.SAGEConv(5, 4, normalize=True), _sage),
    "SAGE, bipartite": Case(
        "SAGE_bipartite", lambda m: pyg.SAGEConv((5, 3), 4), _sage,
        call=lambda peer, graph, v: peer((v["x"], v["z"]), graph),
    ),
    "GAT": Case("GAT", lambda m: pyg.GATConv(5, 4, heads=2), _gat),
    "GAT, edge features": Case(
        "GAT_edge", lambda m: pyg.GATConv(5, 4, heads=2, edge_dim=3, bias=False), _gat, ("e",), call=_attention,
    ),
    "GAT, edge features absent": Case(
        "GAT_edge", lambda m: pyg.GATConv(5, 4, heads=2, edge_dim=3, bias=False), _gat, call=_attention,
    ),
    "GAT, mean of heads": Case(
        "GAT_edge", lambda m: pyg.GATConv(5, 4, heads=2, concat=False, bias=False), _gat,
        arguments={"concat": False, "edge_dim": None}, call=_attention,
    ),
    "GATv2": Case(
        "GATv2", lambda m: pyg.GATv2Conv(5, 4, heads=2),
        lambda p: {
            "weight_l": heads(p["lin_l.weight"]), "weight_r": heads(p["lin_r.weight"]),
            "att": p["att"][0], "bias": p["bias"].view(2, 4),
        },
    ),
    "AGNN": Case("AGNN", lambda m: pyg.AGNNConv(), scalar("beta", "beta")),
    "Transformer": Case(
        "Transformer", lambda m: pyg.TransformerConv(5, 4, heads=2, edge_dim=3, bias=False),
        lambda p: {
            "wq": heads(p["lin_query.weight"]), "wk": heads(p["lin_key.weight"]), "wv": heads(p["lin_value.weight"]),
            "we": heads(p["lin_edge.weight"]), "wskip": p["lin_skip.weight"].t(),
        }, ("e",),
    ),
    "SuperGAT": Case(
        "SuperGAT", lambda m: pyg.SuperGATConv(5, 4, heads=2),
        lambda p: {
            "weight": heads(p["lin.weight"]), "att_l": p["att_l"][0], "att_r": p["att_r"][0], "bias": p["bias"],
        },
    ),
    "GIN": Case("GIN", lambda m: pyg.GINConv(m["nn"]), inside("nn")),
    "GIN, learned eps": Case(
        "GIN", lambda m: pyg.GINConv(m["nn"], eps=0.3, train_eps=True), both(inside("nn"), scalar("epsilon", "eps")),
        arguments={"eps": 0.3, "train_eps": True},
    ),
    "GINE": Case(
        "GINE", lambda m: pyg.GINEConv(m["nn"], edge_dim=3),
        both(inside("nn"), same(weight="lin.weight", bias="lin.bias")), ("e",),
    ),
    "EdgeConv": Case("EdgeConv", lambda m: pyg.EdgeConv(m["nn"]), inside("nn")),
    "EdgeConv, text": Case(
        "EdgeConv_text", lambda m: pyg.EdgeConv(nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 4))),
        same(w1="nn.0.weight", b1="nn.0.bias", w2="nn.2.weight", b2="nn.2.bias"),
    ),
    "PointNetConv": Case(
        "PointNetConv", lambda m: pyg.PointNetConv(nn.Sequential(nn.Linear(8, 4), nn.ReLU())),
        same(w1="local_nn.0.weight", b1="local_nn.0.bias"),
        call=lambda peer, graph, v: peer(v["x"], v["pos"], graph),
    ),
    "CGConv": Case(
        "CGConv", lambda m: pyg.CGConv(5, dim=3),
        same(wf="lin_f.weight", bf="lin_f.bias", ws="lin_s.weight", bs="lin_s.bias"), ("e",),
    ),
    "ResGated": Case(
        "ResGated", lambda m: pyg.ResGatedGraphConv(5, 4),
        same("bias", wk="lin_key.weight", wq="lin_query.weight", wv="lin_value.weight", wskip="lin_skip.weight"),
    ),
    "GEN": Case("GEN", lambda m: _gen(m["mlp"]), both(inside("mlp"), scalar("t", "aggr_module.t"))),
    "PNA": Case(
        "PNA", lambda m: _pna(),
        same(pre="pre_nns.0.0.weight", post="post_nns.0.0.weight", bias="post_nns.0.0.bias"), single=1e-3,
    ),
    "NNConv": Case(
        "NNConv", lambda m: pyg.NNConv(5, 4, nn.Linear(3, 20, bias=False), aggr="mean"),
        lambda p: {"theta": p["nn.weight"].t().view(3, 5, 4), "root": p["lin.weight"].t(), "bias": p["bias"]},
        ("e",),
    ),
    "NNConv, module": Case(
        "NNConv_module", lambda m: pyg.NNConv(5, 4, m["nn"], root_weight=False, bias=False), inside("nn"), ("e",),
    ),
    "GMM": Case(
        "GMMConv", lambda m: pyg.GMMConv(5, 4, dim=2, kernel_size=3),
        lambda p: {
            "g": p["g"].view(5, 3, 4), "mu": p["mu"], "sigma": p["sigma"], "root": p["root.weight"].t(),
            "bias": p["bias"],
        }, ("pseudo",),
    ),
    "RGCN": Case("RGCN", lambda m: pyg.RGCNConv(5, 4, 3), same("weight", "root", "bias"), ("rel",)),
    "RGCN, bases": Case(
        "RGCN_bases", lambda m: pyg.RGCNConv(5, 4, 3, num_bases=2, aggr="add", root_weight=False, bias=False),
        same("comp", bases="weight"), ("rel",),
    ),
    "RGCN, blocks": Case(
        "RGCN_blocks", lambda m: pyg.RGCNConv(4, 6, 3, num_blocks=2, aggr="add", root_weight=False, bias=False),
        same("weight"), ("rel",),
    ),
    # With several heads torch_geometric's q and k mix them.
    "RGAT": Case(
        "RGAT", lambda m: pyg.RGATConv(5, 4, 3, bias=False),
        lambda p: {"weight": p["weight"].view(3, 5, 1, 4), "q": p["q"].t(), "k": p["k"].t()},
        ("rel",), {"heads": 1},
    ),
    "FiLM": Case(
        "FiLM", lambda m: pyg.FiLMConv(5, 4, 3),
        lambda p: {
            "weight": relations(p, "lins"), "film_beta": relations(p, "films")[..., :4],
            "film_gamma": relations(p, "films")[..., 4:],
        }, ("rel",),
    ),
}  # fmt: skip


def edges(symmetric: bool = False, seed: int = 1) -> Tensor:
    """Random edges and the hard ones: none into 7, none at 8, loops at 0 and 3, 1 -> 2 three times."""
    random = torch.randint(0, 7, (2, 18), generator=torch.Generator().manual_seed(seed))
    random = random[:, random[0] != random[1]]
    special = torch.tensor([[0, 3, 1, 1, 1, 7, 7], [0, 3, 2, 2, 2, 1, 4]])
    found = torch.cat([random, special], 1)
    return torch.cat([found, found.flip(0)], 1).unique(dim=1) if symmetric else found


def build(case: Case) -> tuple[gdsl.Layer, nn.Module]:
    """The layer on the C++ backend and its peer, in float64, with the same weights."""
    source, arguments = PROGRAMS[case.program]
    modules = modules_for(case.program)
    peer = case.peer(modules).double().eval()
    arguments = arguments | case.arguments
    if case.program == "PNA":
        arguments["delta"] = float(peer.aggr_module.avg_deg_log)
    layer = gdsl.compile(source, backend="cpp", **arguments, **modules_for(case.program)).double().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in peer.parameters():
            p.copy_(torch.rand(p.shape, generator=generator, dtype=p.dtype) - 0.4)
    # What the map does not read is told by a gradient of nothing.
    state = {k: p.detach().clone().requires_grad_() for k, p in peer.named_parameters()}
    ours = case.weights(state)
    if ours:
        read = torch.autograd.grad(sum(v.sum() for v in ours.values()), list(state.values()), allow_unused=True)
        with torch.no_grad():
            for p, gradient in zip(peer.parameters(), read, strict=True):
                p.zero_() if gradient is None else None
    layer.load_state_dict({k: v.detach() for k, v in ours.items()})  # strict: the map is complete
    return layer, peer


def draw(case: Case, layer: gdsl.Layer, seed: int) -> tuple[Tensor, dict[str, Any]]:
    """The edges, and the tensors of a call in float64, all of them leaves."""
    graph = edges(case.symmetric, seed)
    if case.program == "SAGE_bipartite":
        graph = torch.stack([graph[0], graph[1] % TARGETS])
    values = harness.inputs(layer, graph, NODES, seed)
    kept = {i.name for i in layer.signature.inputs if not i.optional or i.name in case.given}
    values = {k: v for k, v in values.items() if k in kept}
    if "z" in values:
        values["z"] = values["z"][:TARGETS]
    return graph, {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in values.items()}


def results(outputs: Any, leaves: Mapping[str, Tensor], parameters: State) -> dict[str, Tensor]:
    """Outputs and gradients by name, of a score in which every output element has its own weight."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    score = sum((harness._weights(o.double(), 0.7) * o).sum() for o in outputs)
    every = {**{f"d/d{k}": v for k, v in leaves.items() if v.requires_grad}, **parameters}
    found = torch.autograd.grad(score, list(every.values()), allow_unused=True)
    gradients = {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(every.items(), found, strict=True)}
    return {**{f"output {k}": o for k, o in enumerate(outputs)}, **gradients}


# These by default, in both precisions, and all with --slow: tests/parity/test_nn_*.py compare the library's programs.
SINGLE = {
    "GCN, weighted", "SAGE, mean", "SAGE, max", "SAGE, bipartite", "GAT, edge features", "GATv2", "GIN", "EdgeConv",
    "APPNP, weighted", "RGCN", "PNA",
}  # fmt: skip
ROWS = [
    pytest.param(name, dtype, id=f"{name}{also}", marks=[] if name in SINGLE else pytest.mark.slow)
    for dtype, also in ((torch.float64, ""), (torch.float32, ", float32"))
    for name in CASES
]


def reference(case: Case, peer: nn.Module, graph: Tensor, values: dict[str, Any]) -> dict[str, Tensor]:
    """torch_geometric's outputs and gradients, named as the program's."""
    if case.call is None:
        outputs = peer(values["x"], graph, *(values[k] for k in case.given))
    else:
        outputs = case.call(peer, graph, values)
    state = dict(peer.named_parameters())
    found = results(outputs, values, state)
    parameters = case.weights({k: found.pop(k) for k in state})
    return found | {f"d/d{k}": g for k, g in parameters.items()}


@pytest.mark.parametrize(("name", "dtype"), ROWS)
def test_same_numbers(name: str, dtype: torch.dtype) -> None:
    """Against torch_geometric in float64, whatever the dtype of the layer."""
    case = CASES[name]
    compiled, peer = build(case)
    ours = compiled.to(dtype), harness.twin(compiled, "torch").to(dtype)
    for seed in (1, 2):
        graph, exact = draw(case, compiled, seed)
        values = {k: v.detach().to(dtype).requires_grad_() if v.is_floating_point() else v for k, v in exact.items()}
        expected = reference(case, peer, graph, exact)
        for made in ours:
            outputs = made(**values, graph=gdsl.Graph(graph, (NODES, TARGETS) if "z" in values else NODES))
            if isinstance(outputs, tuple):  # torch_geometric may keep some to itself
                outputs = outputs[: sum(k.startswith("output") for k in expected)]
            found = results(outputs, values, {f"d/d{k}": p for k, p in made.named_parameters()})
            assert found.keys() == expected.keys()
            for part, value in found.items():
                assert value.dtype == dtype
                gap = harness.difference([value.double()], [expected[part]])
                assert gap < (1e-9 if dtype == torch.float64 else case.single), (
                    f"{made.backend}, graph {seed}: {part} is {gap:.1e} off"
                )


def test_lstm() -> None:
    """An aggregation of torch_geometric as the module of a program."""
    peer = pyg.SAGEConv(5, 4, aggr="lstm", bias=False).double()
    source, arguments = PROGRAMS["SAGE_module"]
    layer = gdsl.compile(source, backend="cpp", **arguments, lstm=pyg.LSTMAggregation(5, 5)).double()
    ours = both(
        same(weight_l="lin_l.weight", weight_r="lin_r.weight"),
        lambda p: {k.replace("aggr_module", "lstm"): v for k, v in p.items() if k.startswith("aggr_module")},
    )
    layer.load_state_dict(ours({k: p.detach() for k, p in peer.named_parameters()}))
    graph = edges()
    graph = graph[:, graph[1].argsort(stable=True)]  # torch_geometric takes no other order here
    x = torch.randn(NODES, 5, dtype=torch.float64, requires_grad=True)
    expected = reference(Case("", None, ours), peer, graph, {"x": x})  # type: ignore[arg-type]
    for made in (layer, harness.twin(layer, "torch")):
        found = results(made(x, gdsl.Graph(graph, NODES)), {"x": x}, {f"d/d{k}": p for k, p in made.named_parameters()})
        assert found.keys() == expected.keys()
        for part, value in found.items():
            assert harness.difference([value], [expected[part]]) < 1e-9, f"{made.backend}: {part}"


REDUCERS = {
    "sum": lambda: pyg.SumAggregation(),
    "mean": lambda: pyg.MeanAggregation(),
    "max": lambda: pyg.MaxAggregation(),
    "min": lambda: pyg.MinAggregation(),
    "mul": lambda: pyg.MulAggregation(),
    "var": lambda: pyg.VarAggregation(),
    "std": lambda: pyg.StdAggregation(),
    "median": lambda: pyg.MedianAggregation(),
    "quantile(0.25)": lambda: pyg.QuantileAggregation(0.25),
    "softmax(2.5)": lambda: pyg.SoftmaxAggregation(2.5),
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCERS)
def test_reducers(name: str) -> None:
    """Every reducer is the aggregation of that name, for nodes without edges too."""
    reducer, _, argument = name.rstrip(")").partition("(")
    rule = {
        "quantile": f"quantile(x[j], {argument})",
        "softmax": f"sum(softmax({argument} * x[j]) * x[j])",
    }.get(reducer, f"{reducer}(x[j])")
    layer = gdsl.compile(f"layer R {{\n    node x[c]\n    update y = {rule}\n}}\n", backend="cpp")
    graph = edges()
    x = torch.randn(NODES, 5, dtype=torch.float64, requires_grad=True)
    expected = results(REDUCERS[name]().double()(x[graph[0]], graph[1], dim_size=NODES, dim=0), {"x": x}, {})
    for made in (layer, harness.twin(layer, "torch")):
        found = results(made(x, gdsl.Graph(graph, NODES)), {"x": x}, {})
        for part, value in expected.items():
            assert harness.difference([found[part]], [value]) < 1e-9, f"{made.backend}: {part}"
