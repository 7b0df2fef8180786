"""The programs of language.md parse, check in every way, have the types they say, and survive formatting."""

from __future__ import annotations

import pytest

from gdsl.ir.node import walk
from gdsl.language.check import check
from gdsl.language.format import format_text
from gdsl.language.parse import parse
from gdsl.language.placeholders import check_any
from gdsl.language.program import TypedProgram
from tests.programs.sources import FREE_DIMS, PROGRAMS, modules_for

# The types of the results, where there is more to them than node[out_channels].
RESULTS = {
    "APPNP": ["node[channels]"],
    "SAGE_bipartite": ["target[out_channels]"],
    "GAT": ["node[heads*out_channels]"],
    "GATv2": ["node[heads*out_channels]"],
    "GAT_edge": ["node[heads*out_channels]", "edge[heads]"],
    "AGNN": ["node[channels]"],
    "Transformer": ["node[heads*out_channels]"],
    "SuperGAT": ["node[heads*out_channels]", "edge[heads]"],
    "GIN": ["node[nn.out]"],
    "GINE": ["node[nn.out]"],
    "EdgeConv": ["node[nn.out]"],
    "DynamicEdgeConv": ["node[nn.out]"],
    "GEN": ["node[mlp.out]"],
    "CGConv": ["node[channels]"],
    "RGCN_blocks": ["node[blocks*block_out]"],
    "RGAT": ["node[heads*out_channels]"],
    "HGT": ["node[in_channels]"],
    "Statistics": ["node[channels]", "graph[channels]"],
    "NBFNet": ["node[channels]", "edge"],
    "Geometry": ["node[channels]"],
    "Selection": ["node[channels]"],
    "Tables": ["node[c, channels]", "edge[channels]"],
}


def checked(name: str, **options: object) -> TypedProgram:
    source, arguments = PROGRAMS[name]
    modules = modules_for(name)
    return check(parse(source).layer(), arguments, modules=modules, free_dims=FREE_DIMS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PROGRAMS)
def test_result_types(name: str) -> None:
    program = checked(name)
    assert [str(node.type) for _, node in program.outputs] == RESULTS.get(name, ["node[out_channels]"])


@pytest.mark.parametrize("name", PROGRAMS)
def test_training_and_optional_inputs(name: str) -> None:
    optional = {d.name for d in checked(name).of_role("input") if d.optional}
    program = checked(name, training=True, present=optional)
    assert all(d.present for d in program.of_role("input"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_branch_without_arguments(name: str) -> None:
    assert check_any(parse(PROGRAMS[name][0]).layer())


@pytest.mark.parametrize("name", PROGRAMS)
def test_formatted_program_is_the_same(name: str) -> None:
    source, arguments = PROGRAMS[name]
    text = format_text(source)
    assert parse(text) == parse(source)
    assert format_text(text) == text
    # Nodes are hash-consed: the same program gives the very same nodes.
    again = check(parse(text).layer(), arguments, modules=modules_for(name), free_dims=FREE_DIMS)
    assert [n for _, n in again.outputs] == [n for _, n in checked(name).outputs]


@pytest.mark.parametrize("name", PROGRAMS)
def test_everything_read_is_declared(name: str) -> None:
    program = checked(name, training=True)
    declared = {d.name for d in program.declarations} | {"seed"}
    inner = {"acc", "0", "1"}  # the step of a user's reduction
    loads = {n.attrs.name for n in walk([node for _, node in program.outputs]) if n.op == "load"}
    assert loads - inner <= declared
