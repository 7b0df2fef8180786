"""Each script of a finding is in the index, and its header says version, behaviour and output."""

from __future__ import annotations

import re

import pytest

from docs.site import findings


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in findings.scripts()])
def test_header(path) -> None:
    found = findings.read(path)
    assert found.name in findings.listed(), "add a row to findings/README.md"
    versions = re.findall(r"([\w-]+) (\d+\.[\w.]*\w)", found.versions)
    assert versions
    for package, version in versions:
        assert f"{package}=={version}" in path.read_text(encoding="utf-8"), f"{package} {version} is not installed"
    assert len(found.said) > 80 and found.output.strip()


def test_the_index_lists_scripts_that_are_there() -> None:
    assert list(findings.listed().keys() - {path.stem for path in findings.scripts()}) == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("#!/usr/bin/env bash\n# something: it does this\n#\n# Seen with torch 2.13.0:\n#   1\n", "a package"),
        ("#!/usr/bin/env bash\n# torch 2.13.0: it does this\n", "Seen with"),
        ("#!/usr/bin/env bash\n# torch 2.13.0: it does this\n#\n# Seen with torch 2.13.0:\n", "Seen with"),
    ],
)
def test_a_header_that_lacks_something(tmp_path, text: str, missing: str) -> None:
    path = tmp_path / "finding.sh"
    path.write_text(text)
    with pytest.raises(ValueError, match=missing):
        findings.read(path)
