"""A page for each layer of gdsl.nn: equation, program, costs, what is compared, measured ratios."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import gdsl.nn
from docs.site import api, picture, typeset
from gdsl.errors import GdslError
from gdsl.nn.conv.base import Programmed, program_text
from tests.parity import catalogue
from tests.parity.drop_in import Case

LIBRARY = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "library.json"


def pages() -> dict[str, str]:
    found, families = {}, []
    for title, modules in catalogue.FAMILIES.items():
        names = []
        for name, cases in catalogue.layers_of(modules):
            found[f"layers/{name}.md"] = page(name, cases)
            names.append(name)
        listed = "\n".join(names)
        families.append(f"## {title}\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n")
    found["layers/index.md"] = "# A page a layer\n\n" + "\n".join(families)
    return found


def page(name: str, cases: list[Case]) -> str:
    kind = getattr(gdsl.nn, name)
    if kind.__name__ != name:
        return f"# {name}\n\nAnother name of [{kind.__name__}]({kind.__name__}.md).\n"
    parts = [f"# {name}\n", catalogue.said_of(kind) + "\n"]
    ran = catalogue.called(cases[0]) if cases and issubclass(kind, Programmed) else None
    if ran is not None:
        parts.append(_equation(ran))
    if issubclass(kind, Programmed):
        parts.append(f"## Program\n\n```gdsl\n{program_text(kind.program_name).strip()}\n```\n")
    if ran is not None:
        parts += _costs(ran)
    parts.append(_measured(name))
    parts.append(f"## Compared\n\nWith torch_geometric's {name}: {catalogue.compared(cases)}\n")
    members = "   :members: forward\n"
    parts.append(f"## Class\n\n{api.entry(f'gdsl.nn.{name}', kind, members)}")
    return "\n".join(part for part in parts if part)


def _equation(layer: Any) -> str:
    try:
        program = layer.program
    except (GdslError, AttributeError):  # made of other layers
        return ""
    kind = type(getattr(layer, "aggr_module", None)).__name__
    latex = typeset.equation(program, {"aggr_module": kind.removesuffix("Aggregation").lower()})
    if latex is None:
        return ""
    said = "As a plain call computes it; i is a node, j → i an edge"
    changes = ", ".join(f"`{t.name}`" for t in program.transforms)
    return f"$$\n{latex}\n$$\n\n{said}{f', after {changes}' if changes else ''}.\n"


def _costs(layer: Any) -> list[str]:
    rows = [
        f"- {direction}, {kernels} kernel{'s' if kernels != '1' else ''}: an edge moves {bytes_edge} bytes and takes "
        f"{work_edge} operations; a node moves {bytes_node} bytes and takes {work_node} operations"
        for direction, kernels, bytes_edge, bytes_node, work_edge, work_node in catalogue.costs(layer)
    ]
    said = "Of the kernels of a plain call, in float32. Matrices are counted in operations of nodes.\n\n"
    return ["## Costs\n\n" + said + "\n".join(rows) + "\n"] if rows else []


@cache
def _results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(LIBRARY.read_text(encoding="utf-8"))
    return found


def _measured(name: str) -> str:
    """The rows of the library's benchmark for a layer, and its variants, as a table and as bars."""
    rows = [r for r in _results()["results"] if r["layer"].partition(",")[0] == name and "failed" not in r]
    if not rows:
        return ""
    lines = [
        f"| {r['layer']} | {r['forward']['ratio']:.1f} | {r['both']['ratio']:.1f} | "
        f"{_memory(r, 'forward')} | {_memory(r, 'both')} |"
        for r in rows
    ]
    return (
        "## Measured\n\nOn a batch of 1,000 graphs like molecules and two cores, forward + backward:\n\n"
        f"{_bars(rows[0])}\n\n"
        "How many times as long torch_geometric takes, and the most memory that each adds, gdsl / torch_geometric; on "
        "large graphs ratios are larger: see [performance](../../performance.md).\n\n"
        "| | × forward | × forward + backward | MB forward | MB forward + backward |\n|---|---:|---:|---:|---:|\n"
        + "\n".join(lines)
        + "\n"
    )


def _memory(row: dict[str, Any], mode: str) -> str:
    return f"{row['memory']['gdsl'][mode]:.1f} / {row['memory']['pyg'][mode]:.1f}"


def _bars(row: dict[str, Any]) -> str:
    names = {"gdsl": "gdsl", "pyg": "torch_geometric"}
    times = [(who, row["both"][by]) for by, who in names.items()]
    memory = [(who, row["memory"][by]["both"]) for by, who in names.items()]
    drawn = picture.bars(0, 14, "time", "ms", times, 180) + picture.bars(340, 14, "memory", "MB", memory, 180)
    return f'<svg class="bars" viewBox="0 0 680 70" role="img"><title>time and memory</title>{drawn}</svg>'
