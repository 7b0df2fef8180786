"""GCN, GraphSAGE and GAT as drop-ins."""

from __future__ import annotations

from tests.parity.drop_in import Case, make_tests

AGGREGATIONS = ["sum", "max", "min", "mul", "var", "std", "median", ["mean", "max"], "softmax", "powermean"]
ATTENTION = {
    "heads": [2], "concat": [False], "negative_slope": [0.1], "add_self_loops": [False], "bias": [False],
    "residual": [True],
}  # fmt: skip

CASES = [
    Case(
        "GCNConv", (5, 4), call={"edge_weight": "w"}, compiled={"improved": True, "bias": False},
        options={
            "improved": [True], "cached": [True], "add_self_loops": [False], "normalize": [False], "bias": [False],
            "aggr": ["max"], "flow": ["target_to_source"],
        },
    ),
    Case("GCNConv", (5, 4)),
    Case(
        "SAGEConv", (5, 4), compiled={"normalize": True, "project": True, "aggr": ["mean", "max"]},
        options={
            "aggr": AGGREGATIONS, "normalize": [True], "root_weight": [False], "project": [True], "bias": [False],
            "flow": ["target_to_source"],
        },
        exact=1e-8,
    ),
    Case("SAGEConv", ((5, 3), 4), x="pair", options={"aggr": ["max"], "root_weight": [False], "project": [True]}),
    Case("SAGEConv", (5, 4), x="source"),
    Case(
        "GATConv", (5, 4), options={**ATTENTION, "flow": ["target_to_source"]},
        compiled={"heads": 2, "concat": False, "residual": True},
    ),
    Case("GATConv", (5, 4), {"heads": 2}, call={"return_attention_weights": "true"}),
    Case(
        "GATConv", (5, 4), {"edge_dim": 3}, call={"edge_attr": "e"},
        options={**ATTENTION, "fill_value": ["max", "add", 0.5]},
    ),
    Case("GATConv", ((5, 3), 4), x="pair", options=ATTENTION, compiled={"heads": 2}),
    Case("GATConv", (5, 4), x="equal pair"),
]  # fmt: skip

globals().update(make_tests(CASES))
