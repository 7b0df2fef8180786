"""examples/cora.py runs, says what it trains on, and reaches the papers' accuracies."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run_cora(repository, *arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, str(repository / "examples" / "cora.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(repository), **env},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_short_run_on_cora(repository, data_root):
    if not (data_root / "Planetoid" / "Cora").is_dir():
        pytest.skip("no Planetoid/Cora in the data folder")
    out = run_cora(repository, "--short", GDSL_DATA=str(data_root))
    assert "Cora: 2,708 nodes, 10,556 edges" in out
    assert "first layer: kernel" in out
    assert "first layer: explain()" in out
    assert "GCN seed 0: 20 epochs" in out
    assert "GAT seed 0: 20 epochs" in out
    assert "83.0 ± 0.7" in out


def test_without_data_it_trains_on_a_generated_graph_and_says_so(repository, tmp_path):
    out = run_cora(repository, "--short", "--model", "gcn", GDSL_DATA=str(tmp_path))
    assert "Training on a generated graph instead" in out
    assert "generated (stochastic block model, seed 0)" in out
    assert "81.5" not in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "model", "floor"),
    [("cora", "gcn", 81.0), ("cora", "gat", 82.0), ("citeseer", "gcn", 70.0), ("citeseer", "gat", 71.0)],
)
def test_ten_seeds_reach_the_papers_accuracy(data_root, examples_on_path, dataset, model, floor):
    import cora

    from gdsl.data import load_planetoid

    graph = load_planetoid(dataset, data_root)
    if graph is None:
        pytest.skip(f"no {dataset} in the data folder")
    result = cora.evaluate(model, graph, seeds=10)
    assert result.mean >= floor, f"{model} on {dataset}: {result.mean:.2f} over {result.accuracies}"
