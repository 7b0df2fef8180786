"""Loops over features are SIMD code, says gcc, in layers whose kernels once were not: each loop that is not a copy."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import torch

import gdsl.nn
from gdsl.codegen import cpp
from gdsl.runtime import cache

F, NODES = 64, 60
TYPES = ("float", "int64_t")
RELATIONS = {"edge_type": torch.randint(4, (400,), generator=torch.Generator().manual_seed(0))}

# The layer, and what it is called with besides features and edges.
LAYERS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "conditions of an edge": (lambda: gdsl.nn.FiLMConv(F, F, 4), RELATIONS),
    "numbers of all rows": (lambda: gdsl.nn.GENConv(F, F, aggr="power", learn_p=True), {}),
    "pads of an outer dim": (lambda: gdsl.nn.MeshCNNConv(F, F), {}),
    "sums along the wrong dim": (lambda: gdsl.nn.EGConv(128, 128, aggregators=["symnorm", "max"]), {}),
    "loops around a product": (lambda: gdsl.nn.MFConv(F, F), {}),
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
    compiler = cache.find_compiler()
    assert compiler is not None
    flags = [*cache.FLAGS, *cache.FLAGS_OF[compiler.kind], "-fopt-info-vec", "-S", "-x", "c++", "-", "-o", "/dev/null"]
    done = subprocess.run([compiler.path, *flags], input=text, capture_output=True, text=True, check=True)
    return {int(n) for n in re.findall(r":(\d+):\d+: optimized: loop vectorized", done.stderr)}


@pytest.mark.parametrize("name", LAYERS)
def test_every_loop_is_simd_code(name: str) -> None:
    compiler = cache.find_compiler()
    if compiler is None or compiler.kind != "gcc":
        pytest.skip("only gcc says which loops become SIMD code")
    make, then = LAYERS[name]
    layer = make()
    source = torch.randint(NODES, (400,), generator=torch.Generator().manual_seed(1))
    target = torch.arange(NODES).repeat_interleave(4) if "pads" in name else source.roll(1)
    edges = torch.stack([source[: len(target)], target])
    width = 128 if "wrong" in name else F
    layer(torch.randn(NODES, width), edges, **then)
    checked = 0
    for kernel in (k for part in layer.modules() if hasattr(part, "_shown") for k in part._shown().kernels_for("cpp")):
        head = f"{cpp.header('prelude.h')}\ntypedef {TYPES[0]} T;\ntypedef {TYPES[1]} idx_t;\n"
        text = head + kernel.source
        done = _vectorised(text)
        for line, body in _loops(text):
            assert done & set(range(line, line + len(body) + 1)), f"{kernel.name}: no SIMD code\n" + "\n".join(body)
            checked += 1
    assert checked > 2
