"""Layers with a network on the edges or after the sum, as drop-ins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gdsl.nn import DynamicEdgeConv, EdgeConv, GINEConv
from tests.parity.drop_in import EDGE, IN, NODES, Case, make_tests, mlp

EPS = {"eps": [0.5], "train_eps": [True]}
FLOW = {"flow": ["target_to_source"]}


def norms() -> nn.Module:
    """A network with parts of all kinds."""
    return nn.Sequential(
        nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ELU(), nn.Dropout(0.5), nn.Linear(6, 4), nn.LayerNorm(4)
    )


CASES = [
    Case("GINConv", (mlp(5, 6, 4),), options={**EPS, **FLOW, "aggr": ["mean", "max"]}, compiled={"train_eps": True}),
    Case("GINConv", (norms,), {"eps": 0.3}),
    Case("GINConv", (mlp(5, 4),), x="equal pair", options=EPS),
    Case("GINConv", (mlp(5, 4),), x="source"),
    Case("GINEConv", (mlp(5, 6, 4),), {"edge_dim": EDGE}, call={"edge_attr": "e"}, options=EPS),
    Case("GINEConv", (mlp(5, 4),), call={"edge_attr": "e5"}, options=EPS, x="equal pair"),
    Case("GINEConv", (mlp(5, 4),), call={"edge_attr": "e"}, note="refused"),
    Case("EdgeConv", (mlp(10, 6, 4),), options={"aggr": ["mean", "add"], **FLOW}),
    Case("EdgeConv", (mlp(10, 6, 4),), x="equal pair"),
    Case(
        "NNConv", (5, 4, mlp(EDGE, 6, 20)), call={"edge_attr": "e"}, compiled={"aggr": "mean"},
        options={"aggr": ["mean", "max"], "root_weight": [False], "bias": [False], **FLOW},
    ),
    Case("NNConv", ((5, 3), 4, mlp(EDGE, 20)), x="pair", call={"edge_attr": "e"}),
    Case("NNConv", (5, 4, mlp(EDGE, 20)), x="source", call={"edge_attr": "e"}),
    Case(
        "CGConv", (5, EDGE), call={"edge_attr": "e"}, compiled={"batch_norm": True},
        options={"aggr": ["mean", "max"], "batch_norm": [True], "bias": [False], **FLOW},
    ),
    Case("CGConv", (5,)),
    Case("CGConv", ((5, 3), EDGE), x="pair", call={"edge_attr": "e"}),
    Case(
        "ResGatedGraphConv", (5, 4), compiled={"act": nn.Tanh},
        options={
            "act": [nn.Tanh, lambda: torch.tanh], "root_weight": [False], "bias": [False], "aggr": ["max"], **FLOW,
        },
    ),
    Case("ResGatedGraphConv", (5, 4), {"edge_dim": EDGE}, call={"edge_attr": "e"}),
    Case("ResGatedGraphConv", (5, 4), {"edge_dim": EDGE}, note="refused"),
    Case("ResGatedGraphConv", ((5, 3), 4), x="pair"),
    Case(
        "GENConv", (5, 4), compiled={"learn_t": True, "norm": "layer"},
        options={
            "aggr": ["softmax_sg", "power", "max", ["mean", "max"]], "t": [0.5], "learn_t": [True], "learn_p": [True],
            "msg_norm": [True], "learn_msg_scale": [True], "norm": ["layer", "instance", None, "group"],
            "num_layers": [1, 3], "expansion": [3], "eps": [0.1], "bias": [True], **FLOW,
        },
    ),
    Case("GENConv", (5, 5), {"aggr": "power", "p": 2.0, "norm": None}, options={"msg_norm": [True]}),
    Case("GENConv", (5, 4), {"edge_dim": EDGE, "norm": None}, call={"edge_attr": "e"}),
    Case("GENConv", (5, 5), {"edge_dim": 5}, call={"edge_attr": "e5"}),
    Case("GENConv", (5, 4), call={"edge_attr": "e"}, note="refused"),
    Case("GENConv", ((5, 3), 4), {"norm": "layer"}, x="pair", options={"msg_norm": [True]}),
    Case("GENConv", (5, 4), {"norm": None}, x="source"),
]  # fmt: skip

globals().update(make_tests(CASES))


def test_batch_norm_in_training_runs_as_it_is() -> None:
    from gdsl.nn import GINConv

    layer = GINConv(norms())
    y = layer(torch.randn(NODES, IN), torch.randint(NODES, (2, 20)))
    assert y.shape == (NODES, 4)
    assert int(layer.nn[1].num_batches_tracked) == 1
    assert "nn: runs as it is" in layer.explain()


@pytest.mark.parametrize("batched", [False, True])
def test_dynamic_edge_conv_is_edge_conv_on_the_nearest(batched: bool) -> None:
    torch.manual_seed(0)
    network = mlp(10, 6, 4)()
    layer, plain = DynamicEdgeConv(network, k=3), EdgeConv(network)
    x = torch.randn(NODES, IN)
    batch = torch.arange(NODES) // 5 if batched else None
    distance = torch.cdist(x, x)
    if batch is not None:
        distance[batch.unsqueeze(1) != batch] = float("inf")
    near = distance.topk(3, largest=False).indices
    graph = torch.stack([near.flatten(), torch.arange(NODES).repeat_interleave(3)])
    assert torch.allclose(layer(x, batch), plain(x, graph), atol=1e-6)
    assert repr(layer) == f"DynamicEdgeConv(nn={network}, k=3)"
    pair = layer((x, x[:4]))
    assert torch.allclose(pair, layer(x)[:4], atol=1e-6)
    with pytest.raises(ValueError, match="Static graphs"):
        layer(x.unsqueeze(0))


def test_the_size_of_a_network_must_be_told() -> None:
    with pytest.raises(ValueError, match="Could not infer input channels"):
        GINEConv(nn.ReLU(), edge_dim=3)
