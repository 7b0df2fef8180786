"""Processes of torch.distributed that are started once and run many cases."""

from __future__ import annotations

import copy
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

WORLD = 4
# A case that hangs is a failure, not a wait.
SECONDS = 20


class Pool:
    """So many processes with gloo. Each has one thread: the machine has few cores."""

    def __init__(self, world: int = WORLD):
        self.world = world
        # The server imports torch once, and is forked for each process.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["torch.distributed", "gdsl.nn", "tests.distributed.work"])
        self._start()

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(self.world):
            here, there = self._context.Pipe()
            about = (rank, self.world, f"{self._folder.name}/store", there)
            process = self._context.Process(target=_work, args=about, daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def run(self, world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What ``function(rank, world, group, *args)`` gives on each of the first ``world`` processes.

        Raises AssertionError with the errors of all processes that had one.
        """
        for pipe in self.pipes:
            pipe.send((world, function, args))
        found = []
        for rank, pipe in enumerate(self.pipes):
            try:
                found.append(pipe.recv() if pipe.poll(SECONDS + 30) else None)
            except EOFError:
                found.append(None)
            if found[-1] is None:
                self._restart()
                raise AssertionError(f"process {rank} of {world} does not answer")
        errors = {rank: text for rank, (text, _) in enumerate(found[:world]) if text}
        if errors:
            # Where some wait for others, their group is of no use any more.
            alike = len(errors) == world and len({text.splitlines()[-1] for text in errors.values()}) == 1
            if not alike:
                self._restart()
            raise AssertionError("\n".join(f"process {rank} of {world}: {text}" for rank, text in errors.items()))
        return [result for _, result in found[:world]]

    def _restart(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(1)
            if process.is_alive():
                process.kill()
                process.join()
        self._folder.cleanup()


def _work(rank: int, world: int, store: str, pipe: Connection) -> None:
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    timeout = timedelta(seconds=SECONDS)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timeout)
    groups = {size: distributed.new_group(list(range(size)), timeout=timeout) for size in range(1, world + 1)}
    while True:
        try:
            size, function, args = pipe.recv()
        except (EOFError, ConnectionResetError):
            break
        text, result = "", None
        if rank < size:
            try:
                # Tensors come in memory that all processes share.
                result = function(rank, size, groups[size], *copy.deepcopy(args))
            except Exception:
                text = "".join(traceback.format_exc().splitlines(keepends=True)[-6:])
        pipe.send((text, result))
    distributed.destroy_process_group()
