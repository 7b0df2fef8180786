"""The sanitizers' command reports mistakes, and finds none in generated kernels.

All programs: python -m tests.sanitize
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import sanitize

FEW = "GCN,SAGE_max,GAT_edge,EdgeConv"


def command(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.sanitize", "--quiet", *arguments],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(params=list(sanitize.SANITIZERS))
def sanitizer(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if sanitize.library(sanitize.SANITIZERS[name][1]) is None:
        pytest.skip(f"no gcc with {sanitize.SANITIZERS[name][1]}")
    return name


def test_a_mistake_is_reported(sanitizer: str, repository: Path) -> None:
    done = command(repository, "--only", sanitizer, "--broken")
    assert done.returncode == 1
    assert {"address": "heap-buffer-overflow", "undefined": "misaligned", "thread": "data race"}[
        sanitizer
    ] in done.stdout


@pytest.mark.slow
def test_kernels_are_clean(sanitizer: str, repository: Path) -> None:
    done = command(repository, "--only", sanitizer, "--programs", FEW, "--random", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 programs and 5 random ones: no report" in done.stdout
