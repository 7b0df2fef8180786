"""examples/trainer.py runs where Lightning is installed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def test_short_run(repository, tmp_path):
    pytest.importorskip("lightning", reason="Lightning, the extra \"trainer\", is not installed")
    done = subprocess.run(
        [sys.executable, str(repository / "examples" / "trainer.py"), "--short"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), *sys.path[1:]]), "GDSL_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test accuracy" in done.stdout
