"""The generated C++ under the compiler's sanitizers: addresses, undefined behaviour, data races.

    python -m tests.sanitize                        all programs of the collection and 500 random ones, each sanitizer
    python -m tests.sanitize --random 20 --only thread
    python -m tests.sanitize --broken               a mistake of each kind on purpose: each must be reported

Each sanitizer has a process of its own, in which kernels are compiled with it (CXX takes compiler and options) and its
library is loaded before Python. Values, gradients and second derivatives are computed; other tests say what they are.
ThreadSanitizer cannot see how the OpenMP library hands over work, and would report each time: its kernels are
linked with the few OpenMP functions that they call, written with POSIX threads in tests/sanitize_openmp.c.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tqdm import tqdm

OPENMP = Path(__file__).with_name("sanitize_openmp.c")

# Sanitizer -> its flags, its library, its environment. Leaks are Python's own; other reports end up in the log.
SANITIZERS = {
    "address": (
        "-fsanitize=address -fno-omit-frame-pointer",
        "libasan.so",
        {"ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:log_path={log}"},
    ),
    "undefined": (
        "-fsanitize=undefined -fno-sanitize-recover=undefined",
        "libubsan.so",
        {"UBSAN_OPTIONS": "print_stacktrace=1:log_path={log}"},
    ),
    # Only kernels are compiled with it: what libraries do without it says nothing.
    "thread": (
        "-fsanitize=thread",
        "libtsan.so",
        {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=1:report_bugs=1:log_path={log}"},
    ),
}


def library(name: str) -> str | None:
    """Where the compiler has a sanitizer's library; None if it has none."""
    from gdsl.runtime.cache import find_compiler

    compiler = find_compiler()
    if compiler is None or compiler.kind != "gcc":
        return None
    path = subprocess.run([compiler.path, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    found = path.stdout.strip()
    return found if os.path.isabs(found) else None


def run(sanitizer: str, arguments: list[str]) -> tuple[int, str]:
    """Exit status and reports of a process that runs this file's ``--inside`` under a sanitizer."""
    from gdsl.runtime.cache import find_compiler

    compiler = find_compiler()
    preload = library(SANITIZERS[sanitizer][1])
    if compiler is None or preload is None:
        raise SystemExit(f"gcc with {SANITIZERS[sanitizer][1]} is needed")
    flags, _, settings = SANITIZERS[sanitizer]
    with tempfile.TemporaryDirectory() as folder:
        words = [compiler.path, "-g1", *flags.split()]
        if sanitizer == "thread":
            made = f"{folder}/openmp.o"
            subprocess.run([*words, "-O2", "-fPIC", "-x", "c", "-c", str(OPENMP), "-o", made], check=True)
            words.append(made)
        environment = {
            **os.environ,
            **{k: v.format(log=f"{folder}/report") for k, v in settings.items()},
            "CXX": shlex.join(words),
            "LD_PRELOAD": preload,
            "GDSL_CACHE": f"{folder}/cache",
            "TMPDIR": folder,
        }
        # ThreadSanitizer wants memory where the system would put it without randomisation.
        start = ["setarch", "-R"] if sanitizer == "thread" else []
        done = subprocess.run(
            [*start, sys.executable, "-m", "tests.sanitize", "--inside", sanitizer, *arguments],
            env=environment,
            stderr=subprocess.STDOUT if "--quiet" in arguments else None,
            stdout=subprocess.PIPE if "--quiet" in arguments else None,
            check=False,
        )
        reports = "".join(p.read_text(errors="replace") for p in sorted(Path(folder).glob("report*")))
    return done.returncode, reports


def inside(sanitizer: str, names: list[str], random: int, quiet: bool) -> None:
    """Every program with its derivatives, under the sanitizer of this process."""
    from gdsl import Graph
    from gdsl.passes.options import Options
    from gdsl.passes.pipeline import optimise
    from gdsl.runtime.autograd import Runner
    from gdsl.runtime.frame import Frame
    from tests.programs import harness, random_programs
    from tests.programs.test_random import GRAPHS, tensors

    # More threads than blocks of a small graph, and hubs that all of them walk.
    torch.set_num_threads(3)
    for name in tqdm(names, desc=f"{sanitizer}, collection", disable=quiet):
        made = harness.layer(name, "cpp")
        for nodes, edges, hub in ((9, 24, False), (300, 4_000, False), (30, 40_000, True)):
            edge_index = harness.random_edges(nodes, edges, seed=1)
            if hub:
                edge_index[:, edges // 8 :] = torch.tensor([[0], [1]])
            harness.run(made, harness.inputs(made, edge_index, nodes))
    for seed in tqdm(range(random), desc=f"{sanitizer}, random", disable=quiet):
        program = optimise(random_programs.write(seed, 4 + seed % 12))
        nodes, edges = GRAPHS[seed % len(GRAPHS)]
        graph = Graph(harness.random_edges(nodes, edges, seed), nodes)
        runner = Runner(program, "cpp", torch.float64, torch.int32, Options())
        given = tensors(program, graph, seed)
        outputs = runner(given, Frame(graph, torch.float64, torch.device("cpu")))
        harness._derivatives(list(outputs), [t for t in given if t.requires_grad])


BROKEN = """
extern "C" void broken(float* values, long count, int* odd) {
#pragma omp parallel num_threads(3)
    {
#pragma omp for schedule(dynamic, 1)
        for (long k = 0; k < 64; ++k) values[k % count] += 1;
    }
    odd[0] += 1;
}
"""


def broken(sanitizer: str) -> None:
    """A store past the end, an int where none may lie, and three threads that add to one number."""
    from gdsl.runtime import cache

    function = cache.load(BROKEN, name="broken").broken
    memory, numbers = torch.zeros(8), (ctypes.c_char * 16)()
    count = {"address": 9, "undefined": 1, "thread": 1}[sanitizer]
    odd = ctypes.addressof(numbers) + (1 if sanitizer == "undefined" else 0)
    function(ctypes.c_void_p(memory.data_ptr()), ctypes.c_long(count), ctypes.c_void_p(odd))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--random", type=int, default=500, help="how many random programs (default: 500)")
    parser.add_argument("--only", choices=SANITIZERS, help="one sanitizer (default: each)")
    parser.add_argument("--programs", help="names of the collection, with commas between (default: all; none: -)")
    parser.add_argument("--broken", action="store_true", help="run a kernel with mistakes instead")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--inside", choices=SANITIZERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    from tests.programs.sources import PROGRAMS

    # The aggregator of SAGE_module is torch's own.
    every = [n for n in PROGRAMS if n != "SAGE_module"]
    names = every if given.programs is None else [n for n in given.programs.split(",") if n != "-"]
    if given.inside:
        if given.broken:
            broken(given.inside)
        else:
            inside(given.inside, names, given.random, given.quiet)
        return 0
    failed = False
    for sanitizer in [given.only] if given.only else SANITIZERS:
        status, reports = run(sanitizer, sys.argv[1:])
        bad = bool(status or reports)
        failed = failed or bad
        what = "a kernel with mistakes" if given.broken else f"{len(names)} programs and {given.random} random ones"
        print(f"{sanitizer:10} {what}: {'REPORTS' if bad else 'no report'} (exit {status})", flush=True)
        if reports:
            print(reports[:6000])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
