"""examples/graphs.py runs, on data and without, and reads what is in the files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch


def run(repository, *arguments: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, str(repository / "examples" / "graphs.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(repository), **env},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_short_run(repository, data_root):
    if not (data_root / "TUDataset" / "MUTAG").is_dir():
        pytest.skip("no TUDataset/MUTAG in the data folder")
    rows = run(repository, "--short", "--dataset", "MUTAG", GDSL_DATA=str(data_root)).strip().splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [["GIN", "MUTAG"], ["SAGE", "MUTAG"], ["GCN", "MUTAG"]]


def test_without_data(repository, tmp_path):
    out = run(repository, "--short", "--dataset", "MUTAG", "--layers", "gcn", GDSL_DATA=str(tmp_path))
    assert "Training on generated graphs instead" in out
    assert "GCN     generated rings" in out


def test_folds_have_all_classes(examples_on_path):
    from graphs import folds_of

    y = torch.tensor([0] * 20 + [1] * 10)
    folds = folds_of(y, 5)
    assert torch.equal(torch.cat(folds).sort().values, torch.arange(30))
    assert all(int((y[fold] == 1).sum()) == 2 for fold in folds)
