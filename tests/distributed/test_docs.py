"""What docs/distributed.md shows must run as it is printed, on one process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch.distributed as dist

from gdsl.distributed import processes


def test_the_page_runs_from_top_to_bottom(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in processes.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    page = (repository / "docs" / "distributed.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    try:
        for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
            exec(compile(code, "distributed.md", "exec"), names)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    printed = capsys.readouterr().out
    assert "GraphPart(0 of 1, 1,000 own nodes, 8,000 edges, halo 0) World(rank=0, size=1, device='cpu')" in printed
    assert "Division(1 parts" in printed and "100 {'epoch': 3}" in printed
