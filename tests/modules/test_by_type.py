"""Layers on sets of nodes, called with what torch_geometric keeps by type, against the same call by names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv

import gdsl
from gdsl.data import Loader, pack
from gdsl.errors import InputError

TEXT = """
layer Typed {
    nodes paper, author
    graph writes: author -> paper, paper_to_author: paper -> author, cites: paper -> paper
    node p[2] in paper
    node pos[1] in paper
    node a[2] in author
    edge w in cites
    edge s in writes = 1
    m = w * p[j]
    update papers = p * sum[1](pos) + sum(m) + mean(s * a[j])
    update authors = a + sum(p[j]) over paper_to_author
    return papers, authors%s
}
"""
TYPES = {
    "writes": ("author", "writes", "paper"),
    "paper_to_author": ("paper", "to", "author"),
    "cites": ("paper", "cites", "paper"),
}
EDGES = {
    "writes": torch.tensor([[0, 1, 1], [2, 0, 2]]),
    "paper_to_author": torch.tensor([[0, 2], [1, 1]]),
    "cites": torch.tensor([[0, 1, 2], [1, 2, 2]]),
}


def data() -> HeteroData:
    torch.manual_seed(0)
    made = HeteroData()
    made["paper"].x, made["paper"].pos = torch.randn(3, 2), torch.randn(3, 1)
    made["author"].x = torch.randn(2, 2)
    made["venue"].x = torch.randn(4, 7)
    for name, edges in EDGES.items():
        made[TYPES[name]].edge_index = edges
    made[TYPES["cites"]].edge_attr = torch.rand(3)
    made["venue", "to", "paper"].edge_index = torch.tensor([[0], [1]])
    return made


def by_name(made: gdsl.Layer, given: HeteroData) -> Any:
    graphs = {name: given[kind].edge_index for name, kind in TYPES.items()}
    paper, weights = given["paper"], given[TYPES["cites"]].edge_attr
    return made(p=paper.x, pos=paper.pos, a=given["author"].x, w=weights, **graphs)


def layer(more: str = "") -> gdsl.Layer:
    return gdsl.compile(TEXT.replace("p * sum[1](pos)", "p * pos[0]") % more, backend="torch")


def test_a_call_by_type_is_the_call_by_name() -> None:
    made, given = layer(), data()
    wanted = dict(zip(("paper", "author"), by_name(made, given), strict=True))
    dicts = {"pos_dict": given.pos_dict, "edge_attr_dict": given.edge_attr_dict}
    for found in (
        made(given),
        made(given.x_dict, given.edge_index_dict, **dicts),
        made(x_dict=given.x_dict, edge_index_dict=given.edge_index_dict, **dicts),
        made(given.x_dict, given.edge_index_dict, pos_dict=given.pos_dict, w_dict=given.edge_attr_dict),
    ):
        assert list(found) == list(wanted)
        assert all(torch.equal(found[kind], wanted[kind]) for kind in wanted)
    scaled = made(given.x_dict, given.edge_index_dict, s_dict={TYPES["writes"]: torch.full((3,), 2.0)}, **dicts)
    assert not torch.equal(scaled["paper"], wanted["paper"])
    assert torch.equal(scaled["author"], wanted["author"])
    assert "Typed" in made.reproduce(given)
    torch._dynamo.reset()
    found = torch.compile(made, backend="eager")(given.x_dict, given.edge_index_dict, **dicts)
    assert all(torch.equal(found[kind], wanted[kind]) for kind in wanted)


def test_a_batch_of_a_loader_is_called_by_type() -> None:
    made, given = layer(), data()
    (batch,) = Loader(pack([given, given]), batch_size=2)
    for kind, y in made(batch).items():
        torch.testing.assert_close(y, torch.cat([made(given)[kind]] * 2))


def test_values_of_edges_are_under_their_type_and_others_are_a_tuple() -> None:
    given = data()
    found = layer(", m")(given)
    assert list(found) == ["paper", "author", ("paper", "cites", "paper")]
    more = layer(", p")(given)
    assert isinstance(more, tuple)
    assert torch.equal(more[2], given["paper"].x)


def test_is_as_heteroconv() -> None:
    """Of one kind of layer a type of edges, summed at each node."""
    torch.manual_seed(0)
    made = gdsl.compile(
        "use SAGEConv layer L { nodes paper, author graph cites: paper -> paper, to: author -> author "
        "use one = SAGEConv(2) use two = SAGEConv(2) node p[2] in paper node a[2] in author "
        "update papers = one(p) over cites update authors = two(a) over to return papers, authors }", backend="torch",
    )  # fmt: skip
    kinds = (("paper", "cites", "paper"), ("author", "to", "author"))
    given = {kinds[0]: EDGES["cites"], kinds[1]: torch.tensor([[0, 1], [1, 1]])}
    conv = HeteroConv({kind: SAGEConv(2, 2) for kind in kinds})
    for kind, own in zip(kinds, (made.one, made.two), strict=True):
        conv.convs[kind].load_state_dict(own.state_dict())
    x = data().x_dict
    wanted = conv(x, given)
    for kind, y in made(x, given).items():
        torch.testing.assert_close(y, wanted[kind])


@pytest.mark.parametrize("graphs", ["graph bonds, near", "nodes atom graph bonds: atom -> atom, near: atom -> atom"])
def test_one_set_of_nodes_may_be_pooled_and_is_whichever_type_there_is_without_a_name(graphs: str) -> None:
    made = gdsl.compile(
        f"layer L {{ {graphs} node x update y = sum(x[j]) over bonds - sum(x[j]) over near pool g = sum(y) "
        "update z = y - g[g] return z + g[g], g }", backend="torch",
    )  # fmt: skip
    given = HeteroData()
    given["atom"].x, given["atom"].batch = torch.arange(3.0), torch.tensor([0, 0, 1])
    given["atom", "bonds", "atom"].edge_index = torch.tensor([[2], [0]])
    given["atom", "near", "atom"].edge_index = torch.tensor([[1], [2]])
    y, g = made(given)
    assert (y.tolist(), g.tolist()) == ([2.0, 0.0, -1.0], [2.0, -1.0])


def test_where_there_is_one_set_and_one_graph_inputs_need_not_say_it() -> None:
    made = gdsl.compile("layer L { nodes p graph to: p -> p node x edge w update y = sum(w * x[j]) }", backend="torch")
    kind = ("p", "to", "p")
    found = made({"p": torch.ones(3)}, {kind: EDGES["cites"]}, edge_attr_dict={kind: torch.ones(3)})
    assert found["p"].tolist() == [0.0, 1.0, 2.0]


MISTAKES = {
    "a set": ({"x_dict": {"paper": torch.zeros(3, 2)}}, "has nodes `author`, and there are those of paper"),
    "a graph": ({"edge_index_dict": {}}, r"edges \('author', 'writes', 'paper'\), and there are those of \('paper'"),
    "an input": ({"pos_dict": {}}, "'paper' has no `p` and no `pos`, of which one may have another name, .* it has x"),
    "of edges": ({"edge_attr_dict": {}}, "has no `w` or `edge_attr`, which the layer reads"),
    "too much": ({"time_dict": {"paper": torch.zeros(3)}}, "reads nothing of time_dict"),
    "no dict": ({"edge_attr_dict": torch.zeros(3)}, "`edge_attr_dict` is a dict by type, not a Tensor"),
    "by name": ({"graph": 3}, "there is no `graph`"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_a_call_by_type(name: str) -> None:
    given = data()
    changed, message = MISTAKES[name]
    dicts = {f"{what}_dict": getattr(given, f"{what}_dict") for what in ("x", "edge_index", "pos", "edge_attr")}
    edges = dicts["edge_index_dict"] if name != "a graph" else {}
    dicts |= {"edge_index_dict": edges} | (changed if isinstance(changed, dict) else {})
    if name == "of edges":
        dicts["edge_attr_dict"] = {}
    with pytest.raises(InputError, match=message):
        layer()(**dicts)


def test_mixed_ways_of_calling_are_refused() -> None:
    given = data()
    with pytest.raises(InputError, match="takes all by type"):
        layer()(given["paper"].x, given["author"].x, edge_index_dict=given.edge_index_dict)
    with pytest.raises(InputError, match="other dicts by name"):
        layer()(given.x_dict, given.edge_index_dict, given.pos_dict)
    given["paper", "paper_cites_paper", "paper"].edge_index = EDGES["cites"]
    assert layer()(given) is not None
    given["paper", "cites", "paper"].edge_index = EDGES["cites"]
    twin = gdsl.compile("layer L { nodes p graph p_to_p: p -> p node x in p update y = sum(x[j]) }", backend="torch")
    both = {("p", "to", "p"): EDGES["cites"], ("p", "p_to_p", "p"): EDGES["cites"]}
    with pytest.raises(InputError, match="graph `p_to_p` of L may be any of"):
        twin({"p": torch.zeros(3)}, both)
