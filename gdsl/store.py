"""The folder of what gdsl keeps between runs: compiled kernels, and the tables of its own grammar."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from gdsl.errors import CacheError


def cache_folder() -> Path:
    """Where compiled kernels are kept: $GDSL_CACHE, else gdsl in $XDG_CACHE_HOME or ~/.cache. Made if it is
    missing.

    Raises ``CacheError`` when it belongs to another user or others may write to it, ``OSError`` when it
    cannot be made.
    """
    named = os.environ.get("GDSL_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(named or os.path.join(base, "gdsl")).expanduser().absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not folder.is_dir():
        raise CacheError(f"the kernel cache {folder} is not a folder; set GDSL_CACHE to another place")
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise CacheError(
            f"the kernel cache {folder} belongs to another user (uid {status.st_uid}), whose code would run "
            "as yours; set GDSL_CACHE to a folder of your own"
        )
    if status.st_mode & 0o022:
        raise CacheError(
            f"others can write to the kernel cache {folder} (mode {stat.S_IMODE(status.st_mode):o}), and "
            f"their code would run as yours; empty it and run `chmod 700 {folder}`, or set GDSL_CACHE to "
            "another place"
        )
    return folder
