"""Child processes that answer requests, one at a time: each implementation runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdsl.look.measure import MMAP_THRESHOLD

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent


class ChildFailed(Exception):
    """The child ended without an answer; the message holds the end of what it printed."""


class Child:
    """A worker process. Idle while no request is out: it waits for its next line."""

    def __init__(self, threads: int, cache: str | None, *, exact_memory: bool = False):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, str(FOLDER / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(threads, cache, exact_memory=exact_memory),
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            self._process.wait()
            self._errors.seek(0)
            raise ChildFailed(self._errors.read()[-2000:])
        return json.loads(reply)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        self._process.wait()
        self._errors.close()


@contextmanager
def children() -> Iterator[list[Child]]:
    """A list whose members are closed in the end."""
    found: list[Child] = []
    try:
        yield found
    finally:
        for child in found:
            child.close()


def environment(threads: int, cache: str | None, *, exact_memory: bool = False) -> dict[str, str]:
    """Variables for a child: threads, where compiled code lies (None: as always), and the repository's own gdsl."""
    more = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "DGLBACKEND": "pytorch",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])),
    }
    if cache is not None:
        more["GDSL_CACHE"] = os.path.join(cache, "gdsl")
        more["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(cache, "inductor")
    if exact_memory:
        # Each block above this size is mapped on its own and unmapped when it is freed; setting it also stops
        # malloc from raising the limit by itself.
        more["MALLOC_MMAP_THRESHOLD_"] = str(MMAP_THRESHOLD)
    return {**os.environ, **more}
