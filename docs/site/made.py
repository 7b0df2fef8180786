"""The pages that are made from the code when the site is built, and kept nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from docs.site import api, findings, layers

LAYERS = "made/layers"
REPOSITORY = Path(__file__).resolve().parents[2]
# Pages of the repository, and those that are made of them.
INSTEAD = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "findings/README.md": "findings.md"}


def write(folder: Path) -> None:
    """Write all pages below a folder, and remove what is there from builds before."""
    pages = {**api.pages(), **layers.pages(), **findings.pages()}
    pages |= {made: _of_repository(name) for name, made in INSTEAD.items() if made not in pages}
    for old in folder.rglob("*.md"):
        if str(old.relative_to(folder)) not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # Sphinx reads again what is newer
            path.write_text(text, encoding="utf-8")


def _of_repository(name: str) -> str:
    """A page of the repository's own folder, its links as they are from here."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return re.sub(r"\]\((?!\w+:|#)(docs/)?", lambda m: "](../" if m[1] else "](../../", text)
