"""The page as one text: beside its files on a server, or with all of them inside."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "page"
STYLES = ("style.css",)
SCRIPTS = ("dom.js", "editor.js", "formulas.js", "panes.js", "code.js", "chart.js", "app.js")

# What a page may load: its own files, and nothing from anywhere else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def served(start: dict[str, Any]) -> str:
    """The page that asks a server; ``start`` is what it begins with."""
    styles = "".join(f'<link rel="stylesheet" href="/page/{name}">' for name in STYLES)
    scripts = "".join(f'<script src="/page/{name}"></script>' for name in SCRIPTS)
    return _page(styles, scripts, start)


def single(start: dict[str, Any]) -> str:
    """The page with its files and a whole view inside, which opens without a server and may load nothing."""
    style = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in STYLES)
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    policy = f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return _page(f"{meta}<style>{style}</style>", f"<script>{script}</script>", start)


def _page(head: str, scripts: str, start: dict[str, Any]) -> str:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    data = json.dumps(start, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    before, between, after = re.split(
        "<!--head-->|<!--start-->", html.replace("<!--scripts-->", scripts, 1), maxsplit=2
    )
    return "".join([before, head, between, data, after])


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
