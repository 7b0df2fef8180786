"""Whole models, each with an architecture of its own, as drop-ins."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gdsl.nn
from tests.parity.drop_in import (
    EDGE,
    IN,
    NODES,
    Case,
    build,
    flat,
    graph_of,
    make_tests,
    outcome,
    pair,
    pyg,
    same_state,
)
from tests.programs import harness

CASES = [
    Case("GraphUNet", (IN, 4, 3, 2), options={"sum_res": [False], "pool_ratios": [0.8, [0.5, 0.9]], "act": ["elu"]},
         half=2.0),  # which nodes are kept is known from numbers alone, and bfloat16 has fewer of them
    Case("GraphUNet", (IN, 4, 3, 1), call={"batch": "batch", "edge_weight": "w"}, half=2.0),
    Case("PMLP", (IN, 4, 3, 3), options={"norm": [False], "bias": [False], "dropout": [0.5]}),
    Case("RECT_L", (IN, 4), options={"normalize": [False], "dropout": [0.5]}, call={"edge_weight": "w"}),
    Case("NeuralFingerprint", (IN, 4, 3, 2), options={"max_degree": [2]}, call={"batch": "batch"}),
    Case("AttentiveFP", (IN, 4, 3, EDGE, 2, 2), options={"dropout": [0.5]}, call={"edge_attr": "e", "batch": "batch"}),
]  # fmt: skip

globals().update(make_tests(CASES))


def test_pmlp_in_training() -> None:
    """No graph, and the same draws; outside of training it needs one."""
    case = Case("PMLP", (IN, 4, 3, 3), {"dropout": 0.5})
    made = pair(case, {})
    assert made is not None
    same_state(case, *made)
    x, found = torch.randn(NODES, IN, dtype=torch.float64), []
    for model in made:
        torch.manual_seed(0)
        found.append(model.train()(x))
        with pytest.raises(ValueError, match="'edge_index' needs to be present during inference in 'PMLP'"):
            model.eval()(x)
    assert harness.difference([found[0]], [found[1]]) < 1e-9


def test_rect_gives_centres_and_embeddings() -> None:
    case = Case("RECT_L", (IN, 4))
    made = pair(case, {})
    assert made is not None
    same_state(case, *made)
    x, y = torch.randn(NODES, IN, dtype=torch.float64), torch.tensor([2, 0, 2, 1, 0, 4, 2, 2, 0])
    ours, theirs = (model.get_semantic_labels(x, y, torch.arange(NODES) != 3) for model in made)
    assert harness.difference([ours], [theirs]) < 1e-9
    ours, theirs = (model.embed(x, graph_of("any", 1, False)) for model in made)
    assert harness.difference([ours], [theirs]) < 1e-9
    assert not ours.requires_grad


@pytest.mark.parametrize("arguments", [{}, {"trans_num_heads": 2, "gnn_num_layers": 1}, {"aggregate": "cat"}], ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_sgformer(arguments: dict[str, Any], training: bool) -> None:
    case = Case("SGFormer", (IN, 4, 3), arguments)
    torch.set_default_dtype(torch.float64)  # torch_geometric's attention makes ones of the default dtype
    try:
        made = pair(case, {})
        assert made is not None
        same_state(case, *made)
        x, graph, batch = torch.randn(NODES, IN), graph_of("any", 1, False), torch.tensor([1, 0, 1, 1, 0, 2, 2, 0, 1])
        results = []
        for model in made:
            torch.manual_seed(6)
            results.append(outcome(model.train(training), (x,), graph, {"batch": batch}))
        # Without a batch there is one graph.
        one = [
            outcome(model.eval(), (x,), graph, {"batch": b}) for model, b in zip(made, (None, 0 * batch), strict=True)
        ]
    finally:
        torch.set_default_dtype(torch.float32)
    for found, expected in (results, one):
        assert found.keys() == expected.keys()
        assert harness.difference(list(found.values()), list(expected.values())) < 1e-9
    ours, theirs = made
    for name in ("params1", "params2"):
        assert [p.shape for p in getattr(ours, name)] == [p.shape for p in getattr(theirs, name)]
    assert repr(ours.trans_conv.attns[0]) == repr(theirs.trans_conv.attns[0])


def test_sgformer_draws_and_refuses() -> None:
    for again in (False, True):
        made = [build(Case("SGFormer", (IN, 4, 3)), library, {}) for library in (gdsl.nn, pyg)]
        for model in made if again else ():
            torch.manual_seed(3)
            model.reset_parameters()
        assert harness.difference(*[list(model.state_dict().values()) for model in made]) == 0
    with pytest.raises(ValueError, match="Invalid aggregate type:mean"):
        gdsl.nn.SGFormer(IN, 4, 3, aggregate="mean")
    with pytest.raises(AssertionError, match="multiple"):
        gdsl.nn.SGFormerAttention(4, 3)
    assert gdsl.nn.SGFormerAttention(4, 2, None).head_channels == 2


def test_in_training_with_the_same_draws() -> None:
    made = pair(Case("GraphUNet", (IN, 4, 3, 2)), {})
    assert made is not None
    made[0].load_state_dict(made[1].state_dict())
    x, graph = torch.randn(NODES, IN, dtype=torch.float64), graph_of("any", 2, False)
    found, expected = (outcome(model.train(), (x,), graph, {}) for model in made)
    assert harness.difference(flat(list(found.values())), flat(list(expected.values()))) < 1e-9
    with pytest.raises(AssertionError, match="depth"):
        gdsl.nn.GraphUNet(IN, 4, 3, 0)
    with pytest.raises(AssertionError, match=r"weights have shape \[E\]"):
        made[0](x, graph, None, torch.ones(3))
