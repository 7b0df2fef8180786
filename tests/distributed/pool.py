"""Processes of torch.distributed that are started once and run many cases."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

WORLD = 4
# A case that hangs is a failure, not a wait.
SECONDS = 60


class Pool:
    """So many processes with gloo. Each has one thread: the machine has few cores."""

    def __init__(self, world: int = WORLD):
        # The server imports torch once, and is forked for each process.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed", "gdsl.nn", "tests.distributed.parts"])
        self._folder = tempfile.TemporaryDirectory()
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(world):
            here, there = context.Pipe()
            about = (rank, world, f"{self._folder.name}/store", there)
            process = context.Process(target=_work, args=about, daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def run(self, world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What ``function(rank, world, group, *args)`` gives on each of the first ``world`` processes.

        Raises the first process's error, or AssertionError where processes do not agree on one.
        """
        for pipe in self.pipes:
            pipe.send((world, function, args))
        found = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(SECONDS + 30):
                raise AssertionError(f"process {rank} of {world} does not answer")
            found.append(pipe.recv())
        errors = [(rank, text) for rank, (text, _) in enumerate(found[:world]) if text]
        if errors:
            raise AssertionError("\n".join(f"process {rank} of {world}:\n{text}" for rank, text in errors))
        return [result for _, result in found[:world]]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
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
        except EOFError:
            break
        text, result = "", None
        if rank < size:
            try:
                result = function(rank, size, groups[size], *args)
            except Exception:
                text = traceback.format_exc()
        pipe.send((text, result))
    distributed.destroy_process_group()
