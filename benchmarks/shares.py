"""The share of the machine's ceilings that each layer reaches, from the times that layers.py has measured.

    python benchmarks/shares.py layers.json --markdown

Bytes and operations are from the formulas (``gdsl.look.accounts.traffic``), evaluated on the same graph. Bytes
are counted as if no cache held a gathered row: a graph whose features fit the last-level cache can exceed 100%.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import report
import torch
from graphs import GRAPHS
from programs import ALL

import gdsl
from gdsl.look.accounts import traffic


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", help="what layers.py wrote")
    parser.add_argument("--data", help="folder of the GitHub graph, as for layers.py")
    parser.add_argument("--json", help="file to write everything to")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/performance.md")
    args = parser.parse_args()
    measured = json.loads(Path(args.results).read_text())
    about = measured["graph"]
    edge_index, nodes = GRAPHS[about["name"]](about["nodes"], about["edges"], args.data)
    graph = gdsl.Graph(edge_index, nodes)
    rows = [r for r in measured["results"] if r["implementation"] == "gdsl" and "both" in r]
    found: dict[str, Any] = {
        "kind": "shares",
        "machine": measured["machine"],
        "graph": about,
        "results": [_row(r, graph, measured) for r in rows],
    }
    report.finish(found, args)


def _row(measured: dict[str, Any], graph: gdsl.Graph, about: dict[str, Any]) -> dict[str, Any]:
    layer = ALL[measured["layer"]](about["features"])
    conv = gdsl.compile(layer.source, **layer.arguments, backend="cpp")
    conv.free_sizes.update(dict.fromkeys(conv.signature.free_dims, about["features"]))
    plans = traffic(conv._ran()[0].on(graph).inspection, graph, torch.float32)
    ceilings = about["machine"]["ceilings"]
    found: dict[str, Any] = {"layer": measured["layer"]}
    work = {"forward": plans["forward"], "both": tuple(a + b for a, b in zip(*plans.values(), strict=True))}
    for mode, (moved, flops) in work.items():
        seconds = measured[mode]["ms"] / 1e3
        found[mode] = {
            "gb": moved / 1e9,
            "gflop": flops / 1e9,
            "bandwidth": moved / 1e9 / seconds / ceilings["copy_gb_s"],
            "peak": flops / 1e9 / seconds / ceilings["matmul_gflop_s"],
        }
    return found


if __name__ == "__main__":
    main()
