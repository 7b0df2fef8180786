"""examples/citation.py runs with each of its layers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run(repository, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(repository / "examples" / "citation.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(repository), **env},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_three_layers_on_cora(repository, data_root):
    if not (data_root / "Planetoid" / "Cora").is_dir():
        pytest.skip("no Planetoid/Cora in the data folder")
    done = run(repository, "--short", "--dataset", "cora", "--layers", "sgc,appnp,agnn", GDSL_DATA=str(data_root))
    assert done.returncode == 0, done.stderr
    rows = done.stdout.strip().splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["SGC", "APPNP", "AGNN"]
    assert "83.3 ± 0.5" in rows[1]


@pytest.mark.slow
def test_all_layers_on_cora(repository, data_root):
    if not (data_root / "Planetoid" / "Cora").is_dir():
        pytest.skip("no Planetoid/Cora in the data folder")
    done = run(repository, "--short", "--dataset", "cora", GDSL_DATA=str(data_root))
    assert done.returncode == 0, done.stderr
    rows = done.stdout.strip().splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["GCN", "SGC", "CHEB", "ARMA", "GAT", "APPNP", "AGNN", "SAGE"]
    assert "81.5 ± 0.6" in rows[0]


def test_unknown_layer(repository):
    done = run(repository, "--layers", "gcn,none")
    assert done.returncode == 2
    assert "there is no layer none" in done.stderr


def test_sgc_reaches_the_papers_accuracy(data_root, examples_on_path):
    """It has one weight and no dropout, so that one seed is enough. Normalised features would give 77.7."""
    import citation

    from gdsl.data import load_planetoid

    cora = load_planetoid("cora", data_root)
    if cora is None:
        pytest.skip("no Planetoid/Cora in the data folder")
    (accuracy,) = citation.evaluate("sgc", cora, seeds=1)
    assert accuracy == pytest.approx(81.7, abs=0.3)
