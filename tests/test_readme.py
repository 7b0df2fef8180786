"""What the README shows must run as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PRINTED = [
    ['extern "C" void Attention', "== plan =="],
    ["torch.Size([100, 16]) fused"],
    ["replaced: 1 GraphSAGE"],
    ["@triton.jit", "def Conv_0(", ".entry Conv_0"],
]


@pytest.mark.parametrize(("code", "marks"), list(zip(CODE, PRINTED, strict=True)))
def test_code_runs(code: str, marks: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if "torch_geometric" in code:
        pytest.importorskip("torch_geometric")
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert all(mark in printed for mark in marks)
