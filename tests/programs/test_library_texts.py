"""The programs of the library as texts of their own: each compiles without a torch module from Python, and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gdsl
from gdsl.language.format import format_text
from gdsl.language.parse import parse
from gdsl.language.placeholders import check_any
from gdsl.language.signature import signature_of
from tests.programs import harness

FOLDER = Path(gdsl.__file__).parent / "nn" / "programs"
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.gdsl"))}

# A recurrence has no form in the language, so it is a module from Python.
NEEDS_MODULES = {"gated_graph"}

SIZES: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "channels": 4, "in_target": 4, "in_source": 4, "edge_dim": 3, "hidden": 5,
    "space": 3, "heads": 2, "num_relations": 2, "K": 2, "alpha": 0.2, "beta": 0.3, "num_stacks": 2, "num_layers": 2,
    "kernel_size": 2, "dim": 2, "size": 2, "width": 4, "bases": 2, "count": 2, "code": 1, "max_degree": 2, "powers": 3,
    "highest": 1, "filter_size": 2, "towers": 1, "propagate": 3, "num_types": 2, "type_dim": 2, "attr_dim": 2,
    "concat": True, "slope": 0.2, "p": 0.0, "root_weight": True, "with_bias": True, "groups": 2, "layers": 2,
    "normalization": "sym", "types": 2, "bipartite": False, "filters": 4, "rate": 0.3, "gaussians": 3, "inner": 3,
    "basis": 3, "classes": 3, "bilinear": 2, "radial": 3, "points": 4, "num_blocks": 2,
}  # fmt: skip
# Where these are not what fits.
OTHERS: dict[str, dict[str, Any]] = {
    "dna": {"heads": 2, "size": 2, "groups": 2, "width": 2},
    "eg": {"width": 2},
    "gat": {"lin": True},
    "han": {"size": 2},
    "hgt": {"size": 2},
    "rgat": {"kind": "full", "parts": 1, "block_in": 1, "block_out": 1, "additive": True, "within": False,
             "change": "none"},
    "rgcn": {"num_blocks": None},
    "gen": {"edge_dim": 4},
}  # fmt: skip


def alone(name: str, backend: str) -> gdsl.Layer:
    layer = parse(TEXTS[name]).layer()
    needed = {p.name for p in layer.parameters if p.required} | set(signature_of(layer).free_dims)
    given = {**SIZES, **OTHERS.get(name, {})}
    chosen = {n: v for n, v in given.items() if n in needed or n in OTHERS.get(name, {})}
    torch.manual_seed(0)
    return gdsl.compile(TEXTS[name], backend=backend, **chosen).double()


def test_all_but_a_few_need_no_module() -> None:
    assert len(TEXTS) - len(NEEDS_MODULES) >= 55
    required = {n for n, text in TEXTS.items() if not all(o for _, o in signature_of(parse(text).layer()).modules)}
    assert required == NEEDS_MODULES


@pytest.mark.parametrize("name", TEXTS)
def test_checked_and_formatted(name: str) -> None:
    assert check_any(parse(TEXTS[name]).layer())
    assert format_text(TEXTS[name]) == TEXTS[name]


@pytest.mark.parametrize("name", sorted(set(TEXTS) - NEEDS_MODULES))
def test_it_runs_alone(name: str) -> None:
    made = alone(name, "torch")
    values = harness.inputs(made, harness.random_edges(6, 14, seed=1), 6)
    results = made(**values)
    results = results if isinstance(results, tuple) else (results,)
    assert all(torch.isfinite(r).all() for r in results)
