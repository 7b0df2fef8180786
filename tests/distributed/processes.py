"""Processes of gloo that run cases: forked from one that has torch imported, and kept for the tests of a module.

A case is a function of a module, called as ``case(group, *args)`` on each process of the group; its results come back
by rank. Processes compute on one thread.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

# Imported once, by the process that the others are forked from.
PRELOADED = [
    "torch", "torch._dynamo", "torch.distributed.tensor", "torch.distributed.checkpoint.state_dict", "pytest",
    "torch_geometric.data", "gdsl.nn", "gdsl.data", "gdsl.distributed.checkpoint", "tests.distributed.work",
]  # fmt: skip


# A case that hangs is a failure, not a wait; one that a busy machine is slow with is neither.
SECONDS = 60.0


class CaseError(AssertionError):
    """What a case raised: of each rank the type's name and the message, or None."""

    def __init__(self, errors: list[tuple[str, str] | None], text: str):
        super().__init__(text)
        self.errors = errors


class Processes:
    """Processes that wait for cases. ``run(case, *args, world=2)`` is for the first two of them.

    joined: they are a group already; else each has torchrun's variables, and cases get None for a group
    """

    def __init__(self, count: int = 4, timeout: float = SECONDS, joined: bool = True):
        self.count, self.timeout, self.joined = count, timeout, joined
        self._start()

    def _start(self) -> None:
        count, joined = self.count, self.joined
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._folder = tempfile.TemporaryDirectory()  # of the store
        self._held = held_port()
        self.connections, self.children = list[Connection](), list[Any]()
        store = f"{self._folder.name}/store" if joined else self._held.getsockname()[1]
        threads = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"
        try:
            for rank in range(count):
                here, there = context.Pipe()
                child = context.Process(target=_serve, args=(there, rank, count, store, self.timeout), daemon=True)
                child.start()
                there.close()
                self.connections.append(here)
                self.children.append(child)
        finally:
            if threads is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = threads

    def run(self, case: Callable[..., Any], *args: Any, world: int | None = None) -> list[Any]:
        """What the case gives on each process. Raises ``CaseError`` where it raises on any."""
        used = self.connections[: world or len(self.connections)]
        for connection in used:
            connection.send((case, args, len(used)))
        answers = [self.answer(connection) for connection in used]
        errors = [None if ok else (found[0], found[1]) for ok, found in answers]
        if any(errors):
            texts = [f"process {k} of {len(used)}:\n{found[2]}" for k, (ok, found) in enumerate(answers) if not ok]
            raise CaseError(errors, "\n".join(texts))
        return [found for _, found in answers]

    def answer(self, connection: Connection) -> tuple[bool, Any]:
        """Whether a process has done its case, and what it gives, or its error's type, message and text."""
        try:
            if connection.poll(self.timeout + 30):
                return connection.recv()  # type: ignore[no-any-return]
        except EOFError:
            return False, ("EOFError", "the process has died", "it has died")
        return False, ("TimeoutError", "the process does not answer", "it does not answer")

    def restart(self) -> None:
        """Others in their place, where some wait for each other."""
        self.close()
        self._start()

    def close(self) -> None:
        for child, connection in zip(self.children, self.connections, strict=True):
            connection.close()
            child.kill()
        for child in self.children:
            child.join()
        self._held.close()
        self._folder.cleanup()


@contextmanager
def processes(count: int = 4, timeout: float = SECONDS, joined: bool = True) -> Iterator[Processes]:
    """``Processes`` that end with the block."""
    made = Processes(count, timeout, joined)
    try:
        yield made
    finally:
        made.close()


def held_port() -> socket.socket:
    """A socket that has a port of this machine. Nobody is given that one as long as it is open, and who names it, as
    the store of a run does, may listen there."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", 0))
    return found


def _serve(connection: Connection, rank: int, count: int, store: str | int, timeout: float) -> None:
    import torch
    import torch.distributed as dist

    from gdsl.runtime import cache, native

    torch.set_num_threads(1)
    cache.cores = lambda: 1  # as tests/conftest.py has it
    native._state = "missing"
    groups: dict[int, Any] = {}
    if isinstance(store, int):
        os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{count}"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{store}"}
    else:
        limit = timedelta(seconds=timeout)
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=count, timeout=timedelta(seconds=SECONDS)
        )
        groups = {n: dist.new_group(range(n), timeout=limit) for n in range(1, count + 1)}
    while True:
        try:
            case, args, world = connection.recv()
        except EOFError:
            return
        try:
            torch.manual_seed(0)
            # Tensors come in memory that all processes share.
            answer: tuple[bool, Any] = True, case(groups.get(world), *copy.deepcopy(args))
        except Exception as error:
            answer = False, (type(error).__name__, str(error), traceback.format_exc())
        try:
            connection.send(answer)
        except OSError:
            return
