"""Loops over features are SIMD code, says gcc, in layers whose kernels once were not: each loop that is not a copy."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gdsl
import gdsl.nn
from gdsl.codegen import cpp
from gdsl.runtime import cache

F, NODES = 64, 60

RELATIONS = """
layer Relations(f) {
    node x[f]
    node a[f]
    node b[f]
    node c[f]
    node d[f]
    edge rel: int(4)
    m = relu(a[i] * x[j] + a[i])
    m = where(rel == 1, relu(b[i] * x[j] + b[i]), m)
    m = where(rel == 2, relu(c[i] * x[j] + c[i]), m)
    m = where(rel == 3, relu(d[i] * x[j] + d[i]), m)
    aggregate y = sum(m)
    return y
}
"""

# The sums of each base lie along another dim than the weights do.
HEADS = """
layer Heads(f, heads, bases) {
    node x[bases, f]
    node w[heads, bases]
    aggregate a = max(x[j])
    update y = w @ a
}
"""

# Loops over other dims read what is known of each head.
MASKS = """
layer Masks(heads, f) {
    node x[heads]
    node y[heads, f]
    near = exp(x[j] - x[i]) < 1
    aggregate a = sum(where(near, y[j], 0))
    aggregate b = sum(where(near, x[i], 0))
    update z = a + b
}
"""


def relations() -> Any:
    layer = gdsl.compile(RELATIONS, f=F)
    layer(*(torch.randn(NODES, F) for _ in range(5)), edges(), torch.arange(400) % 4)
    return layer


def heads() -> Any:
    layer = gdsl.compile(HEADS, f=16, heads=16, bases=4)
    layer(torch.randn(NODES, 4, 16), torch.randn(NODES, 16, 4), edges())
    return layer


def masks() -> Any:
    layer = gdsl.compile(MASKS, heads=16, f=16)
    layer(torch.randn(NODES, 16), torch.randn(NODES, 16, 16), edges())
    return layer


def dropped() -> Any:
    text = MASKS.replace("exp(x[j] - x[i]) < 1", "dropout(1 + 0 * x[j], 0.5) > 0")
    layer = gdsl.compile(text, heads=16, f=16)
    layer(torch.randn(NODES, 16), torch.randn(NODES, 16, 16), edges())
    return layer


def edges() -> Tensor:
    return torch.randint(NODES, (2, 400), generator=torch.Generator().manual_seed(1))


def powers() -> Any:
    layer = gdsl.nn.GENConv(F, F, aggr="power", learn_p=True)
    layer(torch.randn(NODES, F), edges())
    return layer


def mesh() -> Any:
    layer = gdsl.nn.MeshCNNConv(F, F)
    target = torch.arange(NODES).repeat_interleave(4)
    layer(torch.randn(NODES, F), torch.stack([target.roll(7), target]))
    return layer


LAYERS: dict[str, Callable[[], Any]] = {
    "conditions of an edge": relations,
    "masks that several loops read": masks,
    "random masks that several loops read": dropped,
    "numbers of all rows": powers,
    "pads of an outer dim": mesh,
}
# A loop that only copies becomes a call of memcpy.
COPY = re.compile(r"[\w\[\] +*()%/]+ = [\w\[\] +*()%/]+;")


def _loops(text: str) -> list[tuple[int, list[str]]]:
    """The line of each SIMD loop of 16 turns and more, counted from 1, and the lines inside."""
    lines, found = text.splitlines(), []
    for k, line in enumerate(lines):
        if "#pragma omp simd" not in line:
            continue
        turns = re.search(r"< (?:\w+ \+ )?(\d+);", lines[k + 1])
        stop = next(n for n in range(k + 2, len(lines)) if lines[n].strip() == "}")
        body = lines[k + 2 : stop]
        if turns and int(turns[1]) >= 16 and not all(COPY.fullmatch(b.strip()) for b in body):
            found.append((k + 2, body))
    return found


def _vectorised(text: str) -> set[int]:
    """The lines of the loops that gcc made SIMD code of."""
    command = [*cache._command(None).words, "-fopt-info-vec", "-S", "-x", "c++", "-", "-o", "/dev/null"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return {int(n) for n in re.findall(r":(\d+):\d+: optimized: loop vectorized", done.stderr)}


@pytest.fixture
def _gcc() -> None:
    compiler = cache.find_compiler()
    if compiler is None or compiler.kind != "gcc":
        pytest.skip("only gcc says which loops become SIMD code")


@pytest.mark.usefixtures("_gcc")
@pytest.mark.parametrize("name", LAYERS)
def test_every_loop_is_simd_code(name: str) -> None:
    layer, checked = LAYERS[name](), 0
    for kernel in layer.kernels_for("cpp"):
        head = f"{cpp.header('prelude.h')}\n{cpp.PHILOX}\ntypedef float T;\ntypedef int64_t idx_t;\n"
        text = head + kernel.source
        done = _vectorised(text)
        for line, body in _loops(text):
            assert done & set(range(line, line + len(body) + 1)), f"{kernel.name}: no SIMD code\n" + "\n".join(body)
            checked += 1
    assert checked > 1


def test_a_sum_runs_along_the_dim_in_which_its_result_lies() -> None:
    sources = [k.source for k in heads().kernels_for("cpp")]
    assert any(re.search(r"omp simd\n +for \(int64_t f =", s) for s in sources)
    assert not any(re.search(r"omp simd\n +for \(int64_t bases =", s) for s in sources[:1])


FACTOR = """
extern "C" void f(const float* __restrict__ a, const float* __restrict__ w, float* __restrict__ y, long n, float g) {
    for (long i = 0; i < n; ++i) {
        float dot[64] = {};
        for (long c = 0; c < 64; ++c) {
            const float factor = a[c] / (g > 0 ? a[i * 4 + c / 16] : 1.0f);
            #pragma omp simd
            for (long d = 0; d < 64; ++d) dot[d] += factor * w[c * 64 + d];
        }
        for (int k = 0; k < 64; ++k) y[i * 64 + k] = dot[k];
    }
}
"""


@pytest.mark.usefixtures("_gcc")
def test_a_factor_between_two_loops_stays_there() -> None:
    inner = next(k for k, line in enumerate(FACTOR.splitlines(), 1) if "long d" in line)
    assert inner in _vectorised(FACTOR)
