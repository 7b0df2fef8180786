"""What a run was made on: processor, measured ceilings, versions, date and command."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("gdsl", "torch", "triton", "torch_geometric", "dgl", "numpy")
REPOSITORY = Path(__file__).resolve().parent.parent


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(threads: int, *, tiny: bool = False) -> dict[str, Any]:
    """Everything that a reader needs to compare another machine's run with this one."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "command": command(),
        "commit": commit(),
        "versions": versions(),
        "cpu": cpu(),
        "cores": cores(),
        "threads": threads,
        "ceilings": ceilings(threads, tiny=tiny),
    }


def command() -> str:
    """The command line, without the folders of this machine."""
    script, *arguments = sys.argv
    script = os.path.relpath(script, REPOSITORY)
    return shlex.join(["python", script, *(_shortened(a) for a in arguments)])


def _shortened(argument: str) -> str:
    path = Path(argument)
    return path.name if path.is_absolute() else argument


def commit() -> str:
    if shutil.which("git") is None:
        return ""
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(describe, cwd=REPOSITORY, capture_output=True, text=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["compiler"] = _compiler()
    return found


def _compiler() -> str:
    from gdsl.runtime.cache import find_compiler

    found = find_compiler()
    return found.version if found is not None else "none"


def cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    widest = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return " ".join([names[0] if names else platform.processor() or platform.machine(), widest]).strip()


def ceilings(threads: int, *, tiny: bool = False) -> dict[str, float]:
    """The best of a few tries: a copy that no cache holds (bytes read and written), and a matrix product."""
    import torch

    torch.set_num_threads(threads)
    numbers, size = (1 << 18, 128) if tiny else (1 << 26, 2048)
    source, target = torch.ones(numbers), torch.empty(numbers)
    copy = best(lambda: target.copy_(source))
    a, b, c = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    product = best(lambda: torch.mm(a, b, out=c))
    return {
        "copy_gb_s": 2 * 4 * numbers / copy / 1e9,
        "matmul_gflop_s": 2 * size**3 / product / 1e9,
    }


def summary(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return median, q1, q3


def best(call: Callable[[], Any], tries: int = 7) -> float:
    """The shortest wall time of a call in seconds."""
    found = []
    for _ in range(tries):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def lines(about: dict[str, Any]) -> list[str]:
    """A description for people."""
    tops = about["ceilings"]
    shown = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    ceilings = (
        f"copy {tops['copy_gb_s']:.3g} GB/s (read + written), "
        f"float32 matrix product {tops['matmul_gflop_s']:.3g} GFLOP/s"
    )
    return [
        f"{about['date']}, commit {about['commit'] or 'unknown'}, `{about['command']}`",
        f"{about['cpu']}, {about['threads']} of {about['cores']} cores; measured ceilings: {ceilings}",
        shown,
    ]
