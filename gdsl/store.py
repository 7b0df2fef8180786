"""The folder of what gdsl keeps between runs: compiled kernels, and the tables of its own grammar.

Both are code once they are loaded, so a file counts only when it is the user's own, nobody else can write to it, and it
is as it was written: a checksum at its end tells.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gdsl.errors import CacheError

_MARK = b"gdsl-sha256:"
_CHECKSUM = len(_MARK) + hashlib.sha256().digest_size


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


def is_whole(path: Path) -> bool:
    """Whether the file is there, the user's own, writable by nobody else, and as it was sealed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return False
        content = opened.read()
    body, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    return checksum == _MARK + hashlib.sha256(body).digest()


def seal(path: Path) -> None:
    """Put the checksum at the end of a file, which its readers must not mind, and close it to others."""
    content = path.read_bytes()
    with open(path, "ab") as opened:
        opened.write(_MARK + hashlib.sha256(content).digest())
    path.chmod(0o700)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder, which becomes ``path`` when the block ends well and goes when it
    does not."""
    descriptor, name = tempfile.mkstemp(prefix=".building-", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
