"""examples/many_machines.py gives the same on one process and on two."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gdsl.distributed import processes


@pytest.fixture
def example(examples_on_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in processes.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    return importlib.import_module("many_machines")


def results(out: str) -> dict[str, float]:
    """By the name of the model."""
    lines = [line.split() for line in out.splitlines()]
    return {words[0]: float(words[2]) for words in lines if words and words[0] in ("GAT", "SAGE", "NBFNet")}


def test_one_process_learns(example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example.main(["--short", "--how", "hash", "--checkpoints", str(tmp_path)])
    found = results(capsys.readouterr().out)
    assert found["GAT"] > 80 and found["SAGE"] > 80 and found["NBFNet"] > 0.5


def test_unknown_model(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main(["--models", "gcn"])
    assert "there is no model gcn" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_learn_the_same(example: Any, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--short", "--how", "hash", "--models", "gat,nbfnet"]
    example.main(arguments)
    one = results(capsys.readouterr().out)
    script = str(repository / "examples" / "many_machines.py")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two = results(done.stdout)
    assert two.keys() == one.keys() and all(abs(two[k] - one[k]) < 0.02 * one[k] for k in one)
