"""Programs, graphs and tensors for tests that drive the IR directly, with no text in between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Kind, Type
from gdsl.passes.options import Options
from gdsl.runtime import reference
from gdsl.runtime.autograd import Runner
from gdsl.runtime.frame import Frame
from gdsl.runtime.graph import Graph

N, E, G, S, T = Domain.NODE, Domain.EDGE, Domain.GLOBAL, Domain.SOURCE, Domain.TARGET
A, B, C, H, R = Dim("a", 4), Dim("b", 3), Dim("c", 5), Dim("heads", 2), Dim("r", 3)
PLAIN = Options(optimise=False, save=False)

# Edge lists on 6 nodes, source row first. Node 5 has no edge in most of them.
GRAPHS: dict[str, list[list[int]]] = {
    "mixed": [[0, 1, 2, 3, 4, 0, 0, 2, 2], [1, 1, 0, 0, 4, 1, 1, 3, 2]],
    "no_edges": [[], []],
    "self_loops": [[0, 1, 2, 2], [0, 1, 2, 2]],
    "parallel": [[0, 0, 0, 1, 1], [1, 1, 1, 0, 2]],
    "hub": [[0, 1, 2, 3, 4, 0, 1, 2], [0, 0, 0, 0, 0, 0, 0, 0]],
}


def load(name: str, domain: Domain, *dims: Dim, role: str = "input") -> Node:
    return b.load(name, Type(domain, dims), role)


def integer(name: str, domain: Domain, bound: int | None, *dims: Dim) -> Node:
    return b.load(name, Type(domain, dims, Kind.INT, bound), "input")


def program(*outputs: Node, name: str = "Test", **names: Node) -> Program:
    """Outputs y, y1, y2, ...; keywords give names to nodes."""
    named = tuple((f"y{k or ''}", node) for k, node in enumerate(outputs))
    return Program(name, named, {node: text for text, node in names.items()})


def frame(
    edges: Sequence[Sequence[int]] | Tensor, nodes: int | tuple[int, int] = 6, dtype=torch.float64, **more
) -> Frame:
    return Frame(Graph(torch.as_tensor(edges, dtype=torch.long), nodes), dtype, torch.device("cpu"), **more)


def random_frame(nodes: int, edges: int, seed: int = 0, dtype=torch.float64) -> Frame:
    generator = torch.Generator().manual_seed(seed)
    return frame(torch.randint(0, nodes, (2, edges), generator=generator), nodes, dtype)


def tensors(p: Program, f: Frame, seed: int = 0, low: float = 0.4, high: float = 1.6) -> list[Tensor]:
    """A random tensor for each input: floats in [low, high) that require gradients, integers below their bound."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for node in p.inputs:
        shape = (*(() if node.domain is G else (f.rows(node.domain),)), *node.type.shape)
        if node.kind is Kind.FLOAT:
            value = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
            found.append(value.to(f.dtype).requires_grad_())
        else:
            found.append(torch.randint(0, node.type.bound or 5, shape, generator=generator))
    return found


def runner(p: Program, backend: str, options: Options = Options(), dtype=torch.float64) -> Runner:  # noqa: B008
    return Runner(p, backend, dtype, torch.int32, options)


def expected(p: Program, values: Sequence[Tensor], f: Frame) -> list[Tensor]:
    """The outputs by plain torch expressions, differentiable by torch's own autograd."""
    return reference.run(p.nodes, dict(zip(p.inputs, values, strict=True)), f)


def gradients(outputs: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a score in which every output element weighs differently."""
    leaves = [v for v in values if v.requires_grad]
    scores = [(weights(o) * o).sum() for o in outputs if o.requires_grad]
    if not scores:
        return [torch.zeros_like(v) for v in leaves]
    found = torch.autograd.grad(sum(scores), leaves, allow_unused=True, create_graph=True)
    return [torch.zeros_like(v) if g is None else g for g, v in zip(found, leaves, strict=True)]


def weights(like: Tensor) -> Tensor:
    return torch.cos(0.7 * torch.arange(like.numel(), dtype=like.dtype) + 0.7).reshape(like.shape)


def assert_same(found: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float = 1e-10) -> None:
    """The same numbers; integers may differ in width, which is the graph's in kernels."""
    assert len(found) == len(wanted)
    for a, w in zip(found, wanted, strict=True):
        assert a.is_floating_point() == w.is_floating_point()
        a, w = (t.detach() if t.is_floating_point() else t.long() for t in (a, w))
        torch.testing.assert_close(a, w, rtol=tolerance, atol=tolerance, equal_nan=True)


# ----------------------------------------------------------------------------- layers as programs


def gcn() -> Program:
    x, weight, w = load("x", N, A), load("weight", G, A, B, role="param"), load("w", E)
    norm = library.symmetric_norm(w)
    h = b.matmul(x, weight)
    m = norm * b.gather(h, "j")
    y = b.segment(m, "i", "sum", N) + load("bias", G, B, role="param")
    return program(y, name="GCN", h=h, norm=norm, m=m)


def gat() -> Program:
    x, weight = load("x", N, A), load("weight", G, A, H, B, role="param")
    h = b.matmul(x, weight)
    left = b.contract([h, load("att_src", G, H, B, role="param")], ["b"])
    right = b.contract([h, load("att_dst", G, H, B, role="param")], ["b"])
    score = b.elementwise("leaky_relu", b.gather(left, "j") + b.gather(right, "i"), 0.2)
    alpha = library.segment_softmax(score, "i", N)
    m = alpha * b.gather(h, "j")
    y = b.segment(m, "i", "sum", N)
    return program(y, name="GAT", h=h, left=left, right=right, score=score, alpha=alpha, m=m)


def gatv2() -> Program:
    x = load("x", N, A)
    left = b.matmul(x, load("weight_l", G, A, H, B, role="param"))
    right = b.matmul(x, load("weight_r", G, A, H, B, role="param"))
    z = b.elementwise("leaky_relu", b.gather(left, "j") + b.gather(right, "i"), 0.2)
    score = b.matmul(z, load("att", G, H, B, role="param"))
    alpha = library.segment_softmax(score, "i", N)
    m = alpha * b.gather(left, "j")
    y = b.segment(m, "i", "sum", N)
    return program(y, name="GATv2", left=left, right=right, z=z, score=score, alpha=alpha, m=m)


def sage_max() -> Program:
    x = load("x", N, A)
    a = b.segment(b.gather(x, "j"), "i", "max", N)
    y = b.matmul(a, load("weight_l", G, A, B, role="param")) + b.matmul(x, load("weight_r", G, A, B, role="param"))
    return program(y, name="SAGE_max", a=a)


LAYERS = {"GCN": gcn, "GAT": gat, "GATv2": gatv2, "SAGE_max": sage_max}


def pairs() -> Program:
    """Attention over the edges before each edge, and the largest of the edges behind it."""
    e, w = load("e", E, A), load("w", G, A, B, role="param")
    before, own = b.gather(e, "j"), b.gather(e, "i")
    score = b.contract([before, own], ["a"])
    heard = library.segment_sum(library.segment_softmax(score, "i", E) * before, "i", E)
    most = b.segment(own * b.gather(library.segment_sum(before, "i", E), "j"), "j", "max", E)
    y = b.segment(b.matmul(heard * most, w), "i", "sum", N)
    return program(y, heard, name="Pairs", score=score, heard=heard, most=most)
