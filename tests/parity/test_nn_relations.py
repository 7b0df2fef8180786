"""Layers on edges of several kinds as drop-ins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gdsl.nn import FiLMConv, RGCNConv
from tests.parity.drop_in import KINDS, NODES, RELATIONS, TARGETS, Case, graph_of, make_tests, mlp

REL = {"edge_type": "rel"}
RGCN = {"aggr": ["add", "max"], "root_weight": [False], "bias": [False], "flow": ["target_to_source"]}

KINDS["numbers"] = lambda g, e: torch.randint(7, (NODES,), generator=g)
KINDS["number pair"] = lambda g, e: (KINDS["numbers"](g, e), torch.randint(7, (TARGETS,), generator=g))
KINDS["x6"] = lambda g, e: torch.randn(NODES, 6, generator=g, dtype=torch.float64)
# torch_geometric adds to zeros in float32.
SINGLE = 1e-6

CASES = [
    Case("RGCNConv", (5, 4, RELATIONS), call=REL, options=RGCN, compiled={"num_bases": 2}),
    Case("RGCNConv", (5, 4, RELATIONS), {"num_bases": 2}, call=REL, options=RGCN),
    Case("RGCNConv", (6, 4, RELATIONS), {"num_blocks": 2}, x="x6", call=REL, options=RGCN, compiled={"aggr": "add"}),
    Case("RGCNConv", ((5, 3), 4, RELATIONS), x="pair", call=REL, options={"aggr": ["max"]}),
    Case(
        "RGCNConv", (7, 4, RELATIONS), x="numbers", call=REL, exact=SINGLE,
        options={**RGCN, "num_bases": [2], "num_blocks": [1]},
    ),
    Case("RGCNConv", (7, 4, RELATIONS), x="number pair", call=REL, exact=SINGLE),
    Case("RGCNConv", (NODES, 4, RELATIONS), x="none", call=REL, options={"num_bases": [2]}, exact=SINGLE),
    Case("RGCNConv", (5, 4, RELATIONS), note="refused"),
    Case("FastRGCNConv", (5, 4, RELATIONS), call=REL, options=RGCN),
    Case("FastRGCNConv", (6, 4, RELATIONS), {"num_blocks": 2}, x="x6", call=REL),
    Case("FastRGCNConv", ((5, 3), 4, RELATIONS), x="pair", call=REL, options={"num_bases": [2]}),
    Case(
        "FiLMConv", (5, 4, RELATIONS), call=REL, compiled={"nn": mlp(5, 6, 8)},
        options={"nn": [mlp(5, 6, 8)], "act": [None, nn.Tanh], "aggr": ["add", "max"], "flow": ["target_to_source"]},
    ),
    Case("FiLMConv", (5, 4), options={"act": [None], "aggr": ["std"]}),
    Case("FiLMConv", ((5, 3), 4, RELATIONS), x="pair", call=REL),
    Case("FiLMConv", (5, 4, RELATIONS), note="refused"),
]  # fmt: skip

globals().update(make_tests(CASES))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="Can not apply both"):
        RGCNConv(6, 4, RELATIONS, 2, 2)
    for make in (lambda: RGCNConv(6, 4, RELATIONS, aggr="std"), lambda: FiLMConv(6, 4, RELATIONS, aggr="std")):
        with pytest.raises(ValueError, match="no aggregation by relation"):
            make()


def test_a_relation_that_there_is_not() -> None:
    graph = graph_of("any", 1, False)
    assert graph is not None
    kinds = torch.zeros(graph.shape[1], dtype=torch.long)
    kinds[3] = RELATIONS
    with pytest.raises(ValueError, match="edge 3 has edge_type = 3"):
        RGCNConv(5, 4, RELATIONS)(torch.randn(NODES, 5), graph, kinds)
