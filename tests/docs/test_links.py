"""Links between the pages lead somewhere: to a file of the repository, and to a heading of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import REPOSITORY, name, pages

_FENCED = re.compile(r"^(```+).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title).lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page)) for page in pages()])
def test_links(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", _FENCED.sub("", page.read_text(encoding="utf-8")))
    for link in _LINK.findall(text):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            assert link.startswith("https://"), f"{name(page)}: {link}"
            continue
        target = (page.parent / path).resolve() if path else page
        if "made" in target.relative_to(REPOSITORY).parts:  # made from the code: Sphinx looks
            continue
        assert target.exists(), f"{name(page)}: there is no {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)}: there is no heading {link}"


def test_pages_name_files_that_are_there() -> None:
    """Paths in code, such as `gdsl/ir/node.py` or `tests/trust`."""
    for page in pages():
        for path in re.findall(
            r"`((?:gdsl|tests|docs|benchmarks|examples|findings|grammar)/[\w./-]+)`", page.read_text()
        ):
            assert (REPOSITORY / path).exists() or "NAME" in path or "made" in path, f"{name(page)}: there is no {path}"
