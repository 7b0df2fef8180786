"""The simulator of many processes counts by hand what is sent; the benchmark that it is compared with runs."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gdsl.distributed import divide


@pytest.fixture
def simulate(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("simulate")


def test_bytes_and_seconds_by_hand(simulate: Any) -> None:
    cut = simulate.Cut([10, 20], [3, 4], [2, 1], [1, 2], [1, 1])
    plan = simulate.Plan([8, 4], 100)
    assert simulate.sent(plan, cut) == (2 + 1) * 12
    machine = simulate.Machine("", bandwidth=6.0, latency=0.5, edge=1.0, row=0.25)
    # 20 + 1 to compute, 2 rows of 12 bytes, two messages, and a ring of 100 bytes in two steps.
    assert simulate.seconds(plan, cut, machine) == pytest.approx(21 + 24 / 6 + 2 * 0.5 + 100 / 6 + 2 * 0.5)
    busy = simulate.Machine("", 6.0, 0.5, edge=1.0, row=0.25, copy=0.1, call=3.0)
    assert simulate.computing(plan, cut, busy) == pytest.approx(21 + 2 * 12 * 0.1 + 2 * 3)
    # What a message costs the processor is in the time of the message.
    assert simulate.seconds(plan, cut, busy) == simulate.seconds(plan, cut, machine)
    # Two processes take turns on one core: 10 + 20 edges and 3 + 4 rows. On one and a half, the busiest is waited for.
    for cores, computed in ((1, 31.75), (1.5, 31.75 / 1.5), (2, 21.0), (8, 21.0)):
        shared = simulate.Machine("", 6.0, 0.5, edge=1.0, row=0.25, cores=cores)
        assert simulate.seconds(plan, cut, shared) == pytest.approx(computed + 24 / 6 + 1 + 100 / 6 + 1)
    alone = simulate.Cut([10], [3], [0], [0], [0])
    assert simulate.seconds(plan, alone, machine) == 10.75


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_a_cut_by_chance_is_as_expected(simulate: Any, parts: int) -> None:
    """The degrees of a graph that is drawn by the same law."""
    random, nodes = torch.Generator().manual_seed(0), 4000
    graph = simulate.Sizes("drawn", nodes, 0.0, 1.0)
    degree = (torch.randn(nodes, generator=random) + 1.5).exp().round().long()
    source = torch.arange(nodes).repeat_interleave(degree)
    target = torch.randint(nodes, (len(source),), generator=random)
    made = divide(torch.stack([source, target]), parts, "hash", nodes)
    graph = simulate.Sizes("drawn", nodes, float(len(source)), 1.0)
    expected = simulate.by_hash(graph, parts)
    assert sum(expected.received) == pytest.approx(float(made.halo_counts.sum()), rel=0.06)
    assert sum(expected.edges) == pytest.approx(len(source))
    half = simulate.shrunk(expected, 0.5)
    assert sum(half.sent) == 0.5 * sum(expected.sent)


@pytest.mark.slow
def test_the_benchmark_runs(repository: Path, tmp_path: Path) -> None:
    sizes = ["--nodes", "300", "--edges", "2000", "--processes", "1,2", "--how", "hash", "--tiny"]
    done = subprocess.run(
        [sys.executable, str(repository / "benchmarks" / "cluster.py"), *sizes, "--json", str(tmp_path / "found.json")],
        env={**os.environ, "PYTHONPATH": str(repository)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    by = {r["implementation"]: r for r in found["results"] if r["processes"] == 2}
    ours, plain = by["gdsl"], by["plain exchange"]
    assert ours["sent"] == ours["floor"] == ours["simulated_sent"] and plain["sent"] > 1.5 * ours["sent"]
    page = tmp_path / "page.md"
    page.write_text("<!-- begin cluster -->\n<!-- end cluster -->\n")
    report = [str(repository / "benchmarks" / "report.py"), str(tmp_path / "found.json"), "--page", str(page)]
    assert subprocess.run([sys.executable, *report]).returncode == 0
    assert "plain exchange" in page.read_text()
