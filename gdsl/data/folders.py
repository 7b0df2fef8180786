"""Where data sets lie. Nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> Path | None:
    """The folder that ``$GDSL_DATA`` names; None where it is not set.

    Raises ``FileNotFoundError`` where there is no such folder: a wrong value is noticed and not papered over.
    """
    named = os.environ.get("GDSL_DATA")
    if not named:
        return None
    root = Path(named).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"GDSL_DATA names {named!r}, which is not a folder")
    return root
