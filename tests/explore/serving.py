"""A server of ``gdsl explore`` in a process of its own, as a user starts it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Served:
    """Where a server is, and how long it took until it was there."""

    url: str
    seconds: float

    def ask(
        self, method: str, path: str, data: Any = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request. Headers are given by their names with underscores."""
        at = urlsplit(self.url)
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=60)
        body = data if isinstance(data, bytes) else None if data is None else json.dumps(data).encode()
        given = {"Content-Type": "application/json"} if body is not None else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def post(self, path: str, data: Any, **headers: str) -> tuple[int, Any]:
        """What the server makes of a JSON value; its text where it answers with one."""
        status, _, body = self.ask("POST", path, data, **headers)
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body.decode()

    def ready(self) -> None:
        """Wait until the compiler is imported and the machine measured."""
        for _ in range(600):
            _, found = self.post("/api/view", {"text": "layer A(d) { node x[d] update y = x }", "parts": []})
            if not found.get("loading") and found["machines"]:
                return
            time.sleep(0.1)
        raise AssertionError("the server does not get ready")


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    """Start ``gdsl explore`` on a free port; it is ended afterwards."""
    # A user's process compiles for a GPU where the tests' own interprets.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "gdsl.cli", "explore", "--no-browser", *arguments]
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found is not None, line + process.stdout.read()
            yield Served(found.group(0), time.perf_counter() - start)
        finally:
            process.terminate()
            process.wait(30)
