"""Rows with more edges than one thread should walk: the same results as the reference, the same bits on any threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gdsl.codegen import cpp, hubs
from gdsl.codegen.schedule import CHUNK_EDGES, HUB_EDGES
from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.ir.program import Program
from gdsl.ir.types import Dim
from gdsl.passes.options import Options
from gdsl.passes.pipeline import lower, optimise
from gdsl.passes.tiles import Tile, tiled
from gdsl.runtime import execute
from gdsl.runtime.frame import Frame
from tests.codegen.test_products import edge_mlp, outer, softmax_mlp
from tests.ir.drive import A, E, G, N, assert_same, expected, frame, gradients, integer, load, program, runner, tensors


def hub_frame(dtype: torch.dtype = torch.float64) -> Frame:
    """A node with many in-edges, one with many out-edges, one with as many as an ordinary row may have, and others."""
    generator = torch.Generator().manual_seed(0)

    def random(count: int) -> Tensor:
        return torch.randint(0, 50, (count,), generator=generator)

    parts = [
        (random(HUB_EDGES + 1), torch.full((HUB_EDGES + 1,), 3)),
        (torch.full((HUB_EDGES + CHUNK_EDGES + 5,), 7), 10 + random(HUB_EDGES + CHUNK_EDGES + 5) % 40),
        (random(HUB_EDGES), torch.full((HUB_EDGES,), 60)),
        (random(500), random(500)),
    ]
    source, target = (torch.cat([p[k] for p in parts]) for k in (0, 1))
    order = torch.randperm(len(source), generator=generator)
    return frame(torch.stack([source[order], target[order]]), 70, dtype)


def reducers() -> Program:
    x, e = load("x", N, A), load("e", E, A)
    m = b.elementwise("tanh", b.gather(x, "j") * e)
    made = [b.segment(m, "i", how, N) for how in ("sum", "max", "min", "argmax", "argmin")]
    product = b.segment(b.elementwise("where", e > 1.599, e, 1.0), "i", "mul", N)
    return program(*made, product, b.segment(m, "j", "max", N), name="reducers", m=m)


def attention() -> Program:
    q, k, v = load("q", N, A), load("k", N, A), load("v", N, A)
    score = b.contract([b.gather(q, "i"), b.gather(k, "j")], ["a"]) * 0.3
    alpha = library.segment_softmax(score, "i", N)
    total = b.contract([alpha, load("e", E, A)], total=True)
    return program(b.segment(alpha * b.gather(v, "j"), "i", "sum", N), total, name="attention", alpha=alpha)


def by_relation() -> Program:
    rel = integer("rel", E, 3)
    return program(b.segment(b.gather(load("x", N, A), "j"), "i", "sum", N, rel, Dim("kinds", 3)), name="by")


PROGRAMS = {
    "reducers": reducers(),
    "attention": attention(),
    "by": by_relation(),
    "mlp": edge_mlp("max"),
    "outer": outer(),
    "softmax": softmax_mlp(),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients(name: str) -> None:
    p, at = optimise(PROGRAMS[name]), hub_frame()
    values = tensors(p, at)
    found, wanted = runner(p, "cpp")(values, at), expected(p, values, at)
    assert_same(found, wanted, 1e-9)
    assert_same(gradients(found, values), gradients(wanted, values), 1e-8)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_bits_for_any_number_of_threads(name: str) -> None:
    p, at = optimise(PROGRAMS[name]), hub_frame(torch.float32)
    values, run = tensors(p, at), runner(p, "cpp", dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        outputs = run(values, at)
        results.append([*outputs, *gradients(outputs, values)])
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, c) for a, c in zip(results[0], other, strict=True))


def test_wide_sums_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hubs at both ends, in tiles of nine rows: each is walked in its own tile."""
    monkeypatch.setattr(execute, "TILE_BYTES", 9 * 8 * 8 * 32)
    kinds, f, o = Dim("kinds", 8), Dim("f", 32), Dim("o", 32)
    summed = b.segment(b.gather(load("x", N, f), "j"), "i", "sum", N, integer("rel", E, 8), kinds)
    p, at = optimise(program(b.contract([summed, load("w", G, kinds, f, o)], ["kinds", "f"]), name="wide")), hub_frame()
    values = tensors(p, at)
    found, wanted = runner(p, "cpp")(values, at), expected(p, values, at)
    assert [type(s) for s in tiled(lower(p, Options()))] == [Tile]
    assert_same(found, wanted, 1e-9)
    assert_same(gradients(found, values), gradients(wanted, values), 1e-8)


def test_the_graph_lists_its_hubs() -> None:
    graph = hub_frame().graph
    assert graph.in_edges.hubs.tolist() == [3]
    assert graph.in_edges.chunks.tolist() == [0, HUB_EDGES // CHUNK_EDGES + 1]
    assert graph.out_edges.hubs.tolist() == [7]
    assert graph.out_edges.chunks.tolist() == [0, HUB_EDGES // CHUNK_EDGES + 2]


def test_the_text_says_where_hubs_go() -> None:
    plan = lower(optimise(attention()), Options())
    walk = next(k for k in plan.kernels if k.phases)
    assert f"continue;  // a hub, left to {walk.name}_hubs" in cpp.kernel_source(walk, plan)
    text = hubs.writer(walk, plan.program, frozenset()).write()
    assert f"// {walk.name}_hubs: the rows of {walk.name} that are hubs" in text
    assert text.count("#pragma omp for") == len(walk.phases)
