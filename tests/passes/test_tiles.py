"""Which wide values of nodes exist for a few rows at a time only."""

from __future__ import annotations

import pytest

from gdsl.ir import build as b
from gdsl.ir.node import Node, users
from gdsl.ir.types import Dim, Kind
from gdsl.passes.options import GraphShape, Options
from gdsl.passes.pipeline import differentiate, lower
from gdsl.passes.plan import Kernel, TorchStep
from gdsl.passes.tiles import Tile, streamed, tiled
from tests.ir.drive import E, G, N, integer, load, program

KINDS, F, O = Dim("kinds", 8), Dim("f", 32), Dim("o", 32)
x, d, rel = load("x", N, F), load("d", N, O), integer("rel", E, 8)
sums = b.segment(b.gather(x, "j"), "i", "sum", N, rel, KINDS)
scaled = sums / (1.0 + load("s", N, KINDS))
weight = load("w", G, KINDS, F, O)
product = b.contract([scaled, weight], ["kinds", "f"])


def steps(*outputs: Node) -> list:
    return tiled(lower(program(*outputs), Options()))


@pytest.mark.parametrize(
    "outputs",
    [
        [product],
        [product + d + b.matmul(x, load("root", G, F, O))],
        [b.contract([d, scaled], total=True)],
        [product, b.contract([d, scaled], total=True)],
        [b.elementwise("tanh", product)],
        [product, b.elementwise("exp", scaled)],  # the kernel writes this one whole
    ],
)
def test_products_alone_read_it(outputs: list[Node]) -> None:
    tiles = [s for s in steps(*outputs) if isinstance(s, Tile)]
    assert [tile.inner for tile in tiles] == [{scaled}]
    assert scaled not in tiles[0].buffers and scaled not in tiles[0].outputs
    assert set(tiles[0].buffers) >= {x, rel}


@pytest.mark.parametrize(
    "outputs",
    [
        [product, scaled],  # the user sees it
        [product, b.segment(b.gather(scaled, "j"), "i", "max", N)],  # it is read at the other end
        [product, b.contract([b.matmul(product, load("v", G, O, F)), scaled], ["f"])],  # a kernel waits for the product
        [b.contract([b.segment(b.gather(load("y", N, F), "j"), "i", "sum", N), load("v", G, F, O)], ["f"])],  # narrow
    ],
)
def test_somebody_else_reads_it(outputs: list[Node]) -> None:
    plan = lower(program(*outputs), Options())
    assert tiled(plan) == list(plan.steps)


def test_every_step_is_there_once_and_after_what_it_reads() -> None:
    plan = lower(program(product, b.contract([d, scaled], total=True), b.total(d)), Options())
    flat: list[Kernel | TorchStep] = []
    for step in tiled(plan):
        flat += [step.kernel, *step.products] if isinstance(step, Tile) else [step]
    assert sorted(map(id, flat)) == sorted(map(id, plan.steps))
    made: set[Node] = set()
    for step in flat:
        assert not any(o in step.buffers for later in flat for o in later.outputs if o not in made)
        made |= set(step.outputs)


@pytest.mark.parametrize(("device", "saved"), [("cpu", False), ("cuda", True)])
def test_it_is_computed_again_for_the_backward_on_a_cpu(device: str, saved: bool) -> None:
    p, options = program(product), Options(shape=GraphShape(1 << 12, 1 << 12, 1 << 16, device))
    assert streamed(p.nodes, users(p.nodes)) == {sums, scaled}
    wrt = [n for n in p.inputs if n.kind is Kind.FLOAT]
    kept = {node for node, _ in differentiate(p, wrt, [0], None, options).saved}
    assert bool(kept & {sums, scaled}) is saved
