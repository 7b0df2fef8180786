"""The tables of docs/performance.md and of the README, from the JSON that the benchmarks write.

    python benchmarks/report.py benchmarks/results/layers.json benchmarks/results/startup.json

replaces what stands between the page's markers, such as `<!-- begin layers -->` and `<!-- end layers -->`. A table
shows what a reader compares; every number is in the file of the run, which the line below the table names.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import machine

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE, README = REPOSITORY / "docs" / "performance.md", REPOSITORY / "README.md"

Cells = Sequence[str]

# The graph of a kind of result that its markers do not name, where it is another than the power-law graph.
_USUAL_GRAPH = {"library": "molecules"}


def render(found: Mapping[str, Any], file: str | None = None) -> str:
    """A result as Markdown; ``file`` is where all of its numbers are."""
    return f"{_TABLES[found['kind']](found)}\n\n{_about(found['machine'], file)}"


def _about(about: Mapping[str, Any], file: str | None) -> str:
    if file is None:
        return "  \n".join(machine.lines(dict(about)))
    versions = {name: about["versions"][name] for name in ("torch", "torch_geometric") if name in about["versions"]}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    cores = f"{about['cpu']}, {about['threads']} of {about['cores']} cores"
    return (
        f"{about['date']}, commit {about['commit'] or 'unknown'}, {cores}, {shown}; command and all numbers: `{file}`"
    )


def section(found: Mapping[str, Any]) -> str:
    """The name of the markers that a result stands between."""
    usual = _USUAL_GRAPH.get(found["kind"], "power-law")
    graph = found.get("graph", {}).get("name", usual)
    return found["kind"] if graph == usual else f"{found['kind']}-{graph}"


def table(header: Cells, rows: Iterable[Cells]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every benchmark takes."""
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument("--json", help="file to write everything to")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/performance.md")
    parser.add_argument("--tiny", action="store_true", help="for tests: ceilings only roughly, no cold first calls")


def write(found: Mapping[str, Any], path: str | None) -> None:
    """Write a result as JSON, a row a line, if there is a path for it."""
    if path:
        head = json.dumps({key: value for key, value in found.items() if key != "results"}, indent=1)
        rows = ",\n".join("  " + json.dumps(row) for row in found["results"])
        Path(path).write_text(f'{head[:-2]},\n "results": [\n{rows}\n ]\n}}\n')


def finish(found: Mapping[str, Any], args: argparse.Namespace) -> None:
    """A result as its options ask for it: in a file, as a table."""
    write(found, args.json)
    if args.markdown:
        print(render(found))


# -- layers ----------------------------------------------------------------------------------------


def _layers(found: Mapping[str, Any]) -> str:
    graph = found["graph"]
    head = (
        f"{graph['name']} graph, {graph['nodes']:,} nodes, {graph['edges']:,} edges, "
        f"{found['features']} features, float32; {found['repeats']} rounds of {found['calls']} calls: "
        "medians. Forward / forward + backward; × is how many times as long as gdsl takes, MB the peak with backward."
    )
    by: dict[str, dict[str, Any]] = {}
    for row in found["results"]:
        if "first_call" in row:
            by.setdefault(row["layer"], {})[row["implementation"]] = row
    peers = list(dict.fromkeys(name for rows in by.values() for name in rows if name != "gdsl"))
    fresh = any("fresh" in row["both"] for rows in by.values() for row in rows.values())
    header = ["layer", "gdsl ms", *(f"× {peer}" for peer in peers), *(f"{name} MB" for name in _held(peers))]
    header += ["fresh ms", *(f"fresh × {peer}" for peer in peers)] if fresh else []
    cells = [[layer, *_layer_cells(rows, ["gdsl", *peers], fresh)] for layer, rows in by.items()]
    missing = [f"{row['layer']} by {row['implementation']}" for row in found["results"] if "failed" in row]
    note = f"\n\nFailed: {', '.join(missing)}." if missing else ""
    return f"{head}\n\n{table(header, cells)}{note}"


def _layer_cells(rows: Mapping[str, Any], names: Sequence[str], fresh: bool) -> list[str]:
    """Of gdsl and its peers: times or ratios, forward / forward + backward; peak memory; times on new graphs."""

    def times(get: Callable[[Mapping[str, Any]], Mapping[str, Any]], name: str) -> str:
        show = _ms if name == "gdsl" else _times
        return " / ".join(show(get(rows[name][mode])) for mode in ("forward", "both")) if name in rows else ""

    memory = [_number(rows[name]["memory"]["both"]["mb"]) if name in rows else "" for name in _held(names[1:])]
    anew = [times(lambda found: found["fresh"], name) for name in names] if fresh else []
    return [*(times(lambda found: found, name) for name in names), *memory, *anew]


def _held(peers: Sequence[str]) -> list[str]:
    """Whose memory is shown: torch-scatter's kernels hold what torch's do."""
    return ["gdsl", *(peer for peer in peers if peer != "pyg-scatter")]


def _ms(found: Mapping[str, Any]) -> str:
    return _number(found["ms"])


def _times(found: Mapping[str, Any]) -> str:
    return _number(found["over_gdsl"]) if "over_gdsl" in found else ""


def _number(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return "?"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def progress(row: Mapping[str, Any]) -> str:
    """A line for the terminal."""
    parts = [f"{row['layer']:12} {row['implementation']:13}"]
    for mode, label in (("forward", "fwd"), ("both", "fwd+bwd")):
        ratio = f"×{row[mode]['over_gdsl']:<6.2f}" if "over_gdsl" in row[mode] else " " * 7
        parts.append(f"{label} {_number(row[mode]['ms']):>7} ms {ratio}")
    forward, both = (_number(row["memory"][mode]["mb"]) for mode in ("forward", "both"))
    parts.append(f"peak {forward:>6} | {both:>6} MB")
    parts.append(f"first call {sum(row['first_call'].values()):.2f} s")
    return "  ".join(parts)


def _library(found: Mapping[str, Any]) -> str:
    graph = found["graph"]
    modes = [
        mode for mode in ("forward", "both", "fresh") if all(mode in r for r in found["results"] if "failed" not in r)
    ]
    named = {"forward": "forward", "both": "forward + backward", "fresh": "forward + backward on a new graph"}
    head = (
        f"{graph['name']} graph, {graph['nodes']:,} nodes, {graph['edges']:,} edges, float32; medians of turns. "
        f"How many times as long torch_geometric takes: {' / '.join(named[mode] for mode in modes)}."
    )
    cells = [
        [row["layer"], " / ".join(f"{row[mode]['ratio']:.2f}" for mode in modes)]
        for row in found["results"]
        if "failed" not in row
    ]
    missing = [row["layer"] for row in found["results"] if "failed" in row]
    note = f"\n\nFailed: {', '.join(missing)}." if missing else ""
    return f"{head}\n\n{_side_by_side(cells)}{note}"


def fresh_progress(row: Mapping[str, Any]) -> str:
    """A line of :mod:`fresh`."""
    size, us = f"{row['nodes']}x{row['edges']}", row["us"]
    return f"{size:9} {row['layer']:26} {us['gdsl']:9.0f} us, torch_geometric {us['pyg']:9.0f}: x{row['ratio']:.2f}"


def _fresh(found: Mapping[str, Any]) -> str:
    sizes = list(dict.fromkeys((row["nodes"], row["edges"]) for row in found["results"]))
    shown = " / ".join(f"{nodes:,} nodes, {edges:,} edges" for nodes, edges in sizes)
    head = (
        f"Processor time, the best of {found['rounds']} rounds. How many times as long torch_geometric takes for "
        f"forward + backward on a new graph: {shown}."
    )
    ratios: dict[str, list[str]] = {}
    for row in found["results"]:
        ratios.setdefault(row["layer"], []).append(f"{row['ratio']:.2f}")
    cells = [[layer, " / ".join(numbers)] for layer, numbers in ratios.items()]
    return f"{head}\n\n{_side_by_side(cells)}"


def _side_by_side(cells: Sequence[Cells]) -> str:
    """Layers and their ratios as a table three times as wide, filled from the top of each column."""
    height = -(-len(cells) // 3)
    columns = (cells[k * height : (k + 1) * height] for k in range(3))
    rows = itertools.zip_longest(*columns, fillvalue=("", ""))
    return table(["layer", "×"] * 3, map(itertools.chain.from_iterable, rows))


# -- start-up and small graphs ---------------------------------------------------------------------


def _startup(found: Mapping[str, Any]) -> str:
    rows = [[r["what"], f"{r['s']:.3g}", f"{r['q1']:.3g}", f"{r['q3']:.3g}"] for r in found["results"]]
    head = f"Medians and quartiles of {found['repeats']} new processes."
    return f"{head}\n\n{table(['what', 's', 'q1', 'q3'], rows)}"


def _small(found: Mapping[str, Any]) -> str:
    head = (
        f"{found['nodes']} nodes, {found['edges']} edges, {found['features']} features; "
        f"medians of {found['calls']:,} calls."
    )
    rows = [
        [r["layer"], r["implementation"], *(f"{r[mode]['us']:.0f}" for mode in ("forward", "both"))]
        for r in found["results"]
    ]
    return f"{head}\n\n{table(['layer', 'by', 'fwd µs', 'fwd+bwd µs'], rows)}"


def stream_progress(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for the terminal: what each way takes forward and forward + backward, and the ratios."""
    first = rows[0]
    parts = [f"{first['nodes']:>7,} {first['edges']:>9,} {first['layer']:12}"]
    for row in rows:
        times = " | ".join(_number(row[mode]["ms"]) + _ratio(row[mode]) for mode in ("forward", "both"))
        parts.append(f"{row['implementation']} {times}")
    return "   ".join(parts)


def _ratio(found: Mapping[str, Any]) -> str:
    return f" ×{found['ratio']:.2f}" if "ratio" in found else ""


def _streams(found: Mapping[str, Any]) -> str:
    head = (
        f"{found['features']} features, float32, every graph new; medians of {found['rounds']} rounds, forward / "
        "forward + backward. × is how many times as long torch_geometric takes, with torch-scatter or without, "
        'whichever is faster; "at most" is the same for the products of the matrices alone, by torch.'
    )
    by: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in found["results"]:
        by.setdefault((row["nodes"], row["edges"], row["layer"]), {})[row["implementation"]] = row
    header = ["nodes, edges", "layer", "gdsl.nn ms", "×", "text ms", "×", "at most ×"]
    rows = []
    for (nodes, edges, layer), ways in by.items():
        cells = [f"{nodes:,}, {edges:,}", layer]
        for way in ("gdsl.nn", "gdsl"):
            cells.append(" / ".join(_number(ways[way][mode]["ms"]) for mode in ("forward", "both")))
            cells.append(_ratios(ways[way]))
        cells.append(_ratios(ways["products"]))
        rows.append(cells)
    return f"{head}\n\n{table(header, rows)}"


def _ratios(way: Mapping[str, Any]) -> str:
    return " / ".join(f"{way[mode]['ratio']:.2f}" for mode in ("forward", "both"))


def epochs_progress(row: Mapping[str, Any]) -> str:
    """A line for the terminal: the seconds of an epoch by each way, and of its batches alone."""
    ways = [f"{w['loader']} + {w['layers']} {w['seconds'][0]:.3f} s ×{w['ratio'][0]:.2f}" for w in row["ways"]]
    loads = ", ".join(f"{loader} {seconds[0]:.4f} s" for loader, seconds in row["loading"].items())
    return f"{row['task']} {row['model']}: {'; '.join(ways)}; batches alone: {loads}"


def _epochs(found: Mapping[str, Any]) -> str:
    copies = "; ".join(
        f"of {copy['graphs']:,}, {copy['batch_us']:.0f} µs and {copy['copy_us']:.0f} µs" for copy in found["copies"]
    )
    head = (
        f"float32, whole epochs, each batch new; medians of {found['epochs']} epochs, {found['clock']} "
        "time. × is how many times as long as with gdsl's loader and layers. A batch of molecules by gdsl's loader, "
        f"and a copy of its tensors, wall time: {copies}."
    )
    rows = []
    for r in found["results"]:
        for k, way in enumerate(r["ways"]):
            task = [f"{r['task']}: {r['about']}", r["model"]] if not k else ["", ""]
            rows.append(
                [*task, way["loader"], way["layers"], *(f"{way[what][0]:.3g}" for what in ("seconds", "ratio"))]
            )
    epochs = table(["task", "model", "loader", "layers", "epoch s", "×"], rows)
    return f"{head}\n\n{epochs}\n\n{_samplers(found['results'])}".rstrip()


def _samplers(results: Sequence[Mapping[str, Any]]) -> str:
    """What the samplers of neighbours take alone, without features, each task once."""
    rows = []
    for r in {r["task"]: r for r in results if r["sampling"]}.values():
        own = r["sampling"]["gdsl"]
        for k, (loader, seconds) in enumerate(r["sampling"].items()):
            ratio = f"{seconds[0] / own[0]:.3g}"
            rows.append([r["task"] if not k else "", loader, f"{seconds[0]:.3g}", ratio])
    return table(["samples alone", "by", "epoch s", "×"], rows) if rows else ""


def _shares(found: Mapping[str, Any]) -> str:
    header = ["layer", *(f"{mode} {what}" for mode in ("fwd", "fwd+bwd") for what in ("of copy", "of peak"))]
    rows = [
        [r["layer"], *(f"{100 * r[mode][what]:.0f}%" for mode in ("forward", "both") for what in ("bandwidth", "peak"))]
        for r in found["results"]
    ]
    tops = found["machine"]["ceilings"]
    head = (
        f"A copy runs at {tops['copy_gb_s']:.3g} GB/s (read + written), a product of float32 matrices at "
        f"{tops['matmul_gflop_s']:.3g} GFLOP/s."
    )
    return f"{head}\n\n{table(header, rows)}"


def _scaling(found: Mapping[str, Any]) -> str:
    rows = found["results"]
    counts = sorted((k for k in rows[0] if k.isdigit()), key=int)
    header = ["layer", "edges", *(f"ms, {k} thread{'s' if k != '1' else ''}" for k in counts), "ns an edge", "speed-up"]
    cells = []
    for r in rows:
        most = r[counts[-1]]
        times = [_number(r[k]) for k in counts]
        cells.append([r["layer"], f"{r['edges']:,}", *times, _number(most * 1e6 / r["edges"]), f"{r['1'] / most:.2f}"])
    slopes = ", ".join(f"{name} {slope:.2f}" for name, slope in found["slopes"].items())
    head = (
        f"Forward + backward, {found['features']} features, {found['degree']} edges a node; medians of "
        f"{found['rounds']} calls. Slope of log time against log edges: {slopes}."
    )
    return f"{head}\n\n{table(header, cells)}"


def _networks(found: Mapping[str, Any]) -> str:
    head = (
        f"{found['nodes']:,} nodes, {found['edges']:,} edges, {found['features']} features, float32; processor time, "
        f"the best of {found['rounds']} rounds. Forward / forward + backward; × is how many times as long as the text "
        "takes, MB the peak with backward."
    )
    texts = {r["network"]: r for r in found["results"] if r["implementation"] == "one text"}
    rows = []
    for r in found["results"]:
        times = " / ".join(_number(r[mode]) for mode in ("forward", "both"))
        ratio = " / ".join(f"{r[mode] / texts[r['network']][mode]:.2f}" for mode in ("forward", "both"))
        rows.append([r["network"], r["implementation"], times, ratio, _number(r["mb"])])
    return f"{head}\n\n{table(['network', 'as', 'ms', '×', 'MB'], rows)}"


def _products(found: Mapping[str, Any]) -> str:
    names = ("x @ w", "g @ wT", "xT @ g")
    header = ["nodes", "matrix", *(f"{dtype}: {name}" for dtype in ("float32", "float64") for name in names)]
    by: dict[tuple[int, ...], list[str]] = {}
    for r in found["results"]:
        key = (r["nodes"], *r["matrix"])
        by.setdefault(key, []).extend(f"{r[n]['torch'] / 1e9:.0f}, {r[n]['own'] / 1e9:.0f}" for n in names)
    rows = [[f"{nodes:,}", f"{depth} × {width}", *cells] for (nodes, depth, width), cells in by.items()]
    head = (
        f"Billions of operations a second of processor time, the best of {found['rounds']} rounds: by torch, by ours. "
        f"Layers use {'ours' if found['own'] else 'those of torch'} on this machine."
    )
    return f"{head}\n\n{table(header, rows)}"


def _prepare(found: Mapping[str, Any]) -> str:
    ways = list(dict.fromkeys(way for r in found["results"] for way in r["us"]))
    names = {"gdsl": "gdsl", "torch": "gdsl, by torch's operators", "dgl": "DGL's formats"}
    rows = [
        [
            f"{r['graph']}, {r['nodes']:,} nodes, {r['edges']:,} edges{', loops added' if r['loops'] else ''}",
            *(_number(r["us"][way]) if way in r["us"] else "" for way in ways),
        ]
        for r in found["results"]
    ]
    head = f"Microseconds of processor time, both orders of a new `edge_index`; the best of {found['rounds']} rounds."
    return f"{head}\n\n{table(['graph', *(names[way] for way in ways)], rows)}"


def _gpu(found: Mapping[str, Any]) -> str:
    gpu = found["machine"]["gpu"]
    head = f"{gpu['name']}, a copy runs at {gpu['copy_gb_s']:,.0f} GB/s; {found['features']} features, float32."
    times = ("× gdsl", "of copy", "fresh", "× gdsl")
    columns = ("graph, layer", "by", "fwd ms", *times, "fwd+bwd ms", *times, "peak MB")
    best = {(r["graph"], r["layer"]): r for r in found["results"] if r["implementation"] == "gdsl" and "both" in r}
    rows, labels = [], [""]
    for row in found["results"]:
        ours = best.get((row["graph"], row["layer"]))
        labels.append(f"{row['graph']}, {row['layer']}")
        cells = ["" if labels[-1] == labels[-2] else labels[-1], row["implementation"]]
        if "both" not in row:
            reason = "failed" if "failed" in row else row["left_out"]
            # What a peer has no layer for is no result.
            if "no product" not in reason:
                rows.append([*cells, reason, *[""] * (len(columns) - 3)])
            continue
        for mode in ("forward", "both"):
            share = f"{row['share'][mode]:.0%}" if "share" in row else ""
            for kind in ("ms", "fresh_ms"):
                ratio = f"{row[mode][kind] / ours[mode][kind]:.2f}" if ours and row is not ours else ""
                cells += [_number(row[mode][kind]), ratio, *([share] if kind == "ms" else [])]
        peak = row["both"]["peak_mb"]
        rows.append([*cells, _number(peak) if peak else ""])
    return head + "\n\n" + table(columns, rows)


def _instructions(found: Mapping[str, Any]) -> str:
    size = found["size"]
    head = f"{size['nodes']:,} nodes and {size['edges']:,} edges, {size['features']} features, float32; an H200."
    columns = ["layer", "registers", "resident warps"]
    for mode in ("forward", "backward"):
        columns += [f"{mode}: instructions an edge", "ms to issue them", "ms to move the bytes"]
    rows = []
    for row in found["results"]:
        cells = [row["layer"], str(row["registers"]), str(row["resident"])]
        for mode in ("forward", "backward"):
            cells += [_number(row[mode][key]) for key in ("edge", "issue_ms", "memory_ms")]
        rows.append(cells)
    return head + "\n\n" + table(columns, rows)


def off_by(row: Mapping[str, Any], name: str) -> float | None:
    """How much more than what is measured is simulated, as a share of it; None where nothing is."""
    simulated = row.get(f"simulated_{name}")
    return None if simulated is None else simulated / row[name] - 1.0


def _cluster(found: Mapping[str, Any]) -> str:
    one = next((r for r in found["results"] if r["processes"] == 1), None)
    columns = ["processes", "by", "MB sent", "× floor", "simulated", "processor ms", "simulated", "ms", "simulated"]
    columns += ["MiB a step", "MiB of the graph"]
    rows = []
    for r in found["results"]:
        floor = f"{r['sent'] / r['floor']:.3f}" if r["floor"] else ""
        memory = _number(r["memory"]) + (f" ({r['memory'] / one['memory']:.2f})" if one and r is not one else "")
        bytes_ = f"{r['simulated_sent'] / 1e6:.3f}" if "simulated_sent" in r else ""
        times = []
        for name in ("processor", "seconds"):
            off = off_by(r, name)
            simulated = "" if off is None else f"{_number(1e3 * r[f'simulated_{name}'])} ({off:+.0%})"
            times += [_number(1e3 * r[name]), simulated]
        sent = f"{r['sent'] / 1e6:.3f}"
        rows.append(
            [str(r["processes"]), r["implementation"], sent, floor, bytes_, *times, memory, _number(r["graph"])]
        )
    size = found["graph"]
    head = (
        f"GAT with 500 features in and 4 × 16 out on the {size['name']} graph, cut by {found['how']}: one step of "
        "training. MB are those of all processes, MiB those of the largest, of tensors: at the peak of a step, in "
        "brackets by that of one process, and of its part of the graph, prepared. Behind simulated times stands by how "
        "much they are off."
    )
    if "load" in found:
        head += f" {found['load']:.1f} other threads ran on {found['machine']['cores']} cores when it began."
    columns_of_large = ["graph", "GPUs", "halo by own", "GB sent a GPU", "plain exchange", "s", "plain exchange"]
    far = [
        [
            r["graph"], f"{r['processes']:,}", f"{r['halo']:.1f}", f"{r['sent'] / 1e9:.2f}",
            f"{r['peer_sent'] / 1e9:.2f}", _number(r["seconds"]), _number(r["peer_seconds"]),
        ]
        for r in found["large"]
    ]  # fmt: skip
    text = (
        "Simulated: the same layers on H100s with 400 Gbit/s each, nodes owned by chance, which is the worst that a "
        "cut can be."
    )
    return "\n\n".join([head, table(columns, rows), text, table(columns_of_large, far)])


_TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "layers": _layers,
    "library": _library,
    "fresh": _fresh,
    "startup": _startup,
    "small": _small,
    "streams": _streams,
    "epochs": _epochs,
    "scaling": _scaling,
    "networks": _networks,
    "products": _products,
    "prepare": _prepare,
    "gpu": _gpu,
    "shares": _shares,
    "instructions": _instructions,
    "cluster": _cluster,
}


# -- the plot --------------------------------------------------------------------------------------


def plot(found: Mapping[str, Any], path: str) -> None:
    """Bars of how many times longer each peer takes, by layer, forward + backward, as a picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "gdsl"
    from matplotlib import pyplot

    ratios: dict[str, dict[str, float]] = {}
    for row in found["results"]:
        if "over_gdsl" in row.get("both", {}):
            ratios.setdefault(row["implementation"], {})[row["layer"]] = row["both"]["over_gdsl"]
    layers = list(dict.fromkeys(r["layer"] for r in found["results"]))
    height = 0.8 / max(len(ratios), 1)
    figure, axes = pyplot.subplots(figsize=(7, 0.5 + 0.42 * len(layers)))
    for k, (name, values) in enumerate(ratios.items()):
        places = [layers.index(layer) + (k - len(ratios) / 2 + 0.5) * height for layer in values]
        bars = axes.barh(places, list(values.values()), height, label=name)
        axes.bar_label(bars, fmt="%.1f", fontsize=6, padding=2)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(layers)), layers)
    axes.invert_yaxis()
    axes.set_xlabel("times as long as gdsl, forward + backward")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


# -- the README and the page --------------------------------------------------------------------------------------


def short(found: Mapping[str, Any]) -> str:
    """The table of the README: some layers, forward + backward."""
    rows = {(row["layer"], row["implementation"]): row for row in found["results"] if "both" in row}
    peers = {"pyg": "torch_geometric", "dgl": "DGL", "torch.sparse": "MKL's sparse product"}
    cells = []
    for layer in _SHORT:
        ratios = [f"{rows[layer, peer]['both']['over_gdsl']:.1f}" if (layer, peer) in rows else "" for peer in peers]
        memory = [_number(rows[layer, by]["memory"]["both"]["mb"]) for by in ("gdsl", "pyg")]
        cells.append([layer, *ratios, f"{memory[0]} / {memory[1]}"])
    return table(["layer", *peers.values(), "memory, MB: gdsl / torch_geometric"], cells)


_SHORT = ("GCN", "SAGE", "GIN", "GAT", "GATv2", "Transformer", "EdgeConv", "PNA", "RGCN")


def fill(page: str, name: str, text: str) -> str:
    """The page with ``text`` between the markers of ``name``."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the page has no {begin} … {end}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", nargs="+", help="JSON files")
    parser.add_argument("--page", default=str(PAGE), help="the Markdown file to change")
    parser.add_argument("--plot", help="an SVG of the first file's ratios to write; needs matplotlib")
    parser.add_argument("--only-plot", action="store_true", help="leave the page as it is")
    args = parser.parse_args()
    if args.plot:
        plot(json.loads(Path(args.results[0]).read_text()), args.plot)
    if args.only_plot:
        return
    path = Path(args.page)
    page = path.read_text()
    for name in args.results:
        found = json.loads(Path(name).read_text())
        file = Path(name).resolve()
        shown = str(file.relative_to(REPOSITORY)) if file.is_relative_to(REPOSITORY) else file.name
        page = fill(page, section(found), render(found, shown))
        if path == PAGE and section(found) == "layers":
            README.write_text(fill(README.read_text(), "readme", short(found)))
    path.write_text(page)


if __name__ == "__main__":
    main()
