"""What docs/data.md shows must run as it is printed."""

from __future__ import annotations

import re


def test_the_page_runs_from_top_to_bottom(repository, capsys):
    page = (repository / "docs" / "data.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "data.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "Packed(300 graphs" in printed
    assert "300 ['edge_index', 'x', 'y']" in printed
    assert "\n5 [" in printed
