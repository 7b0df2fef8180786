"""How long a new process waits: for `import gdsl`, and for GAT from its text to a first result.

    python benchmarks/startup.py --repeats 7 --json startup.json --markdown

Cold: the kernel cache is an empty folder, so the C++ compiler runs. Cached: the folder that a cold run has
filled. Both count from the text to the end of the first call, in a process that has imported torch and gdsl.
A model of five unlike layers (GCN, GAT, SAGE, GIN, PNA) is timed from its construction to the end of its first step.
The import of gdsl is timed against that of torch alone, as whole processes in turns, and inside a process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

import machine
import report
from children import FOLDER, environment
from programs import LAYERS

GAT = LAYERS["GAT"](64)

# What the children run. Their last line says how many seconds what took. Names of gdsl are imported on first use:
# they are touched, so that what they take is counted as import.
IMPORTS = """
import json, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import gdsl
gdsl.Graph, gdsl.compile
print(json.dumps({"torch": middle - start, "gdsl": time.perf_counter() - middle}))
"""

FIRST_CALL = """
import json, sys, time
import torch, gdsl
gdsl.Graph, gdsl.compile
given = json.load(sys.stdin)
x = torch.randn(1000, 64, requires_grad=True)
edge_index = torch.randint(1000, (2, 10_000))
torch.mm(x.t(), x).sum().backward()   # torch's own set-up is not the layer's to pay
with torch.set_grad_enabled(given["backward"]):
    start = time.perf_counter()
    conv = gdsl.compile(given["source"], **given["arguments"], backend="cpp")
    module = time.perf_counter()
    y = conv(x, edge_index)
    if given["backward"]:
        y.sum().backward()
print(json.dumps({"module": module - start, "all": time.perf_counter() - start}))
"""

# A model that a user writes in one go, from its construction to the end of its first step, and how later steps compare.
MODEL = """
import json, statistics, sys, time
import torch
from torch import nn
given = json.load(sys.stdin)
if given["library"] == "gdsl":
    import gdsl
    import gdsl.nn as layers
    gdsl.Graph
else:
    import torch_geometric.nn as layers
degree = torch.bincount(torch.randint(1, 12, (1000,)))
x, edge_index = torch.randn(1000, 16), torch.randint(1000, (2, 5000))
torch.mm(x.t(), x.requires_grad_()).sum().backward()
layers.GCNConv, layers.GATConv, layers.SAGEConv, layers.GINConv, layers.PNAConv

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        inner = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
        self.convs = nn.ModuleList([
            layers.GCNConv(16, 32), layers.GATConv(32, 16, heads=2), layers.SAGEConv(32, 32), layers.GINConv(inner),
            layers.PNAConv(32, 8, ["mean", "max", "min", "std"], ["identity", "amplification", "attenuation"], degree),
        ])

    def forward(self, x):
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return x

def step():
    start = time.perf_counter()
    model(x).sum().backward()
    return time.perf_counter() - start

start = time.perf_counter()
model = Model()
step()
first = time.perf_counter() - start
steps = [step() for _ in range(60)]
print(json.dumps({"first": first, "tenth": statistics.median(steps[9:14]), "later": statistics.median(steps[30:])}))
"""

CALLS = {"forward": False, "forward + backward": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="new processes of each kind")
    report.add_options(parser)
    args = parser.parse_args()
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(args.repeats):
        for what, took in _round(args.threads).items():
            seconds[what].append(took)
    results = []
    for what, values in seconds.items():
        median, q1, q3 = machine.summary(values)
        results.append({"what": what, "s": median, "q1": q1, "q3": q3, "rounds": values})
    about = machine.describe(args.threads, tiny=args.tiny)
    found = {"kind": "startup", "machine": about, "repeats": args.repeats, "results": results}
    report.write(found, args.json)
    print("\n".join(f"{r['s']:8.4f} s  {r['what']}" for r in results))
    if args.markdown:
        print(report.render(found))


def _round(threads: int) -> dict[str, float]:
    """One new process of each kind."""
    with tempfile.TemporaryDirectory() as cache:
        alone, _ = _run("import torch\nprint('{}')", threads, cache)
        both, inside = _run(IMPORTS, threads, cache)
    found = {
        "`import torch`, the process": alone,
        "`import torch, gdsl`, the process": both,
        "what `import gdsl` adds, by processes": both - alone,
        "what `import gdsl` adds, inside": inside["gdsl"],
    }
    for name, backward in CALLS.items():
        given = {"source": GAT.source, "arguments": dict(GAT.arguments), "backward": backward}
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "cached"):
                _, took = _run(FIRST_CALL, threads, cache, given)
                found[f"GAT {state}, text to first {name}"] = took["all"]
    for library in ("gdsl", "torch_geometric"):
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "cached") if library == "gdsl" else ("",):
                _, took = _run(MODEL, threads, cache, {"library": library})
                name = f"five layers {state}, {library}".replace(" ,", ",")
                found[f"{name}, first step"] = took["first"]
                found[f"{name}, steps 10 to 14"] = took["tenth"]
                found[f"{name}, later steps"] = took["later"]
    return found


def _run(code: str, threads: int, cache: str, given: Any = None) -> tuple[float, dict[str, float]]:
    """Seconds that the process took, and what its last line says."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(given),
        env=environment(threads, cache),
        cwd=FOLDER,
        capture_output=True,
        text=True,
    )
    took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    return took, json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
