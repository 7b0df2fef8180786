"""The Triton kernels under a sanitizer of memory, with the sums of each kernel in an order of its own.

    python -m tests.triton.sanitize                   all programs of the collection and 200 random ones, with hubs too
    python -m tests.triton.sanitize --random 20 --programs GCN,EdgeConv

Values, gradients and second derivatives are computed in Triton's interpreter, and compared with plain torch's: another
order of sums may change no more than the last digits.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
from tqdm import tqdm

from gdsl import Graph
from gdsl.codegen import triton as codegen
from gdsl.codegen import unrolled
from gdsl.passes.options import Options
from gdsl.passes.pipeline import optimise
from gdsl.runtime import order, reference
from gdsl.runtime.autograd import Runner
from gdsl.runtime.frame import Frame
from tests.programs import harness, random_programs
from tests.programs.sources import PROGRAMS
from tests.programs.test_random import GRAPHS, tensors
from tests.triton.orders import other_orders
from tests.triton.sanitizer import watched

MOST = 1e-8


@contextmanager
def small_hubs() -> Iterator[None]:
    """Rows with more than 3 edges are hubs, in chunks of 4."""
    with (
        mock.patch.object(order, "GPU_CHUNK_EDGES", 4),
        mock.patch.object(codegen, "GPU_CHUNK_EDGES", 4),
        mock.patch.object(order, "GPU_HUB_EDGES", 3),
        mock.patch.object(order, "GPU_HUB_MEANS", 0),
    ):
        yield


def of_collection(name: str, hubs: bool) -> Callable[[str], harness.Results]:
    """Runs a program on a graph with parallel edges and loops, by a backend."""
    made = harness.layer(name, "torch")
    edges = harness.random_edges(23, 90, seed=1)
    if hubs:
        edges[1, :14], edges[0, 14:21] = 2, 5
    values = harness.inputs(made, edges, 23)
    return lambda backend: harness.run(harness.twin(made, backend), values)


def of_random(seed: int) -> Callable[[str], harness.Results]:
    """Runs a random program by a backend."""
    program = random_programs.write(seed, 4 + seed % 12)
    nodes, edges = GRAPHS[seed % len(GRAPHS)]
    graph = Graph(harness.random_edges(nodes, edges, seed), nodes)
    frame, given = Frame(graph, torch.float64, torch.device("cpu")), tensors(program, graph, seed)
    leaves = [t for t in given if t.requires_grad]
    by_name = {n.attrs.name: t for n, t in zip(program.inputs, given, strict=True)}

    def run(backend: str) -> harness.Results:
        if backend == "torch":
            found = reference.run(program.nodes, dict(zip(program.inputs, given, strict=True)), frame)
        else:
            runner = Runner(optimise(program), backend, torch.float64, torch.int32, Options())
            found = list(runner([by_name[n.attrs.name] for n in runner.inputs], frame))
        return harness._derivatives(found, leaves)

    return run


def mistakes(run: Callable[[str], harness.Results]) -> list[str]:
    """What a program's kernels do that they must not."""
    wanted = run("torch")
    with watched() as watch, other_orders(), np.errstate(all="ignore"):
        found = run("triton")
    lines = [str(report) for report in watch.reports]
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if (off := harness.difference(a, b)) > MOST:
            lines.append(f"derivative of order {number} is off by {off:.1e} where sums are in another order")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--random", type=int, default=200, help="how many random programs (default: 200)")
    parser.add_argument("--programs", help="names of the collection, with commas between (default: all; none: -)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_args()
    # The aggregator of SAGE_module is torch's own.
    every = [n for n in PROGRAMS if n != "SAGE_module"]
    names = every if given.programs is None else [n for n in given.programs.split(",") if n != "-"]
    bad = 0
    for hubs in (False, True):
        runs = {f"{name}, with hubs" if hubs else name: partial(of_collection, name, hubs) for name in names}
        # Triton writes out the short dims of every other random program, as otherwise only beside long ones.
        seeds = range(hubs, given.random, 2)
        runs |= {f"random program {seed}": partial(of_random, seed) for seed in seeds}
        with small_hubs() if hubs else mock.patch.object(unrolled, "LEAST_BESIDE", 2):
            for name, made in tqdm(runs.items(), disable=given.quiet):
                lines = mistakes(made())
                bad += bool(lines)
                for line in lines:
                    print(f"{name}: {line}", flush=True)
    found = f"{bad} WITH REPORTS" if bad else "no report"
    print(f"triton     {len(names)} programs and {given.random} random ones: {found}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
