"""The processes of one run: how they begin, agree, and end when one of them does not answer."""

from __future__ import annotations

import atexit
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, ProcessGroup, Store
from torch.distributed.rendezvous import rendezvous

from gdsl.data import given
from gdsl.errors import DistributedError, GdslError, InputError
from gdsl.runtime.answers import from_all, known_to_others, line, report, tell

# What torchrun tells each process.
ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """This process among those of its run; left as a context, it tells the others when it fails.

    rank, size   its number, from 0 on, and how many there are
    local_rank   its number on this machine
    device       where it computes
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes' group. Raises ``DistributedError`` in place of what torch raises where another process
        has failed."""
        if isinstance(error, SystemExit) and not error.code:  # sys.exit(), which is no failure
            error = None
        try:
            if error is not None:
                report(error)
            elif dist.is_initialized():
                tell("ended", "yes")
        finally:
            if dist.is_initialized():
                with known_to_others(error):
                    _end()

    def __repr__(self) -> str:
        return f"World(rank={self.rank}, size={self.size}, device='{self.device}')"


def _end() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def init(backend: str | None = None, timeout: float = 300.0) -> World:
    """Join the processes of ``torchrun``; a script that was started without it is a run of one process.

        with gdsl.distributed.init() as world:
            ...

    Their group ends with the block, and where there is none with the script.

    backend: "gloo", "nccl", or None: nccl beside gloo where each process of this machine has a GPU of its own
    timeout: seconds that a process waits for the others; then ``DistributedError``, and so in every other process

    Raises ``InputError`` where torchrun's variables are incomplete or no numbers, where the backend is missing, and
    where the processes were joined before; ``DistributedError`` where the others do not come.
    """
    if not dist.is_available():
        raise InputError("this build of torch has no torch.distributed")
    if dist.is_initialized():
        raise InputError("the processes are joined already: call init() once")
    seconds = given.positive("timeout", timeout)
    rank, size, local = _environment()
    name, device = _backend(backend, local)
    # Its functions have the group of all processes for a default, as it is when they are defined. Imported later, as by
    # torch.optim and torch.profiler, they keep the group when it has ended.
    import_module("torch.distributed.nn.functional")
    try:
        store = dist.HashStore() if size == 1 else _store(rank, seconds)
        dist.init_process_group(name, timeout=timedelta(seconds=seconds), store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise DistributedError(
            f"process {rank} of {size} could not join the others at {where} within {seconds:g} s: {line(error)}"
        ) from error
    # A group that is still there when Python ends aborts one process in some: gloo's threads outlive what they use.
    atexit.register(_end)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return World(rank, size, local, device)


# The name of the last run that this process was in.
_last = ""


def _store(rank: int, seconds: float) -> Store:
    """The store of torchrun's environment, with the keys of this run alone: process 0 gives the run a name.

    Two runs of the same processes have one address. A process that is in the second one before process 0 has left the
    first meets the store of the first, which ends with it or holds what was said there.
    """
    global _last
    limit = time.monotonic() + seconds
    while True:
        try:
            store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=max(0.1, limit - time.monotonic()))))
            if rank == 0:
                store.set("gdsl/run", uuid.uuid4().hex)
            name = store.get("gdsl/run").decode()
            if name != _last:
                _last = name
                return PrefixStore(name, store)
        except RuntimeError:
            if rank == 0 or time.monotonic() > limit:
                raise
        time.sleep(0.02)


def _environment() -> tuple[int, int, int]:
    missing = [name for name in ENVIRONMENT if name not in os.environ]
    if "RANK" in missing and "WORLD_SIZE" in missing:
        return 0, 1, 0
    if missing:
        raise InputError(f"{', '.join(missing)} not set: start the script by `torchrun --nproc-per-node=2 script.py`")
    numbers = []
    for name in ENVIRONMENT[:3]:
        try:
            numbers.append(int(os.environ[name]))
        except ValueError:
            raise InputError(f"{name} must be a number, not {os.environ[name]!r}: torchrun sets it") from None
    rank, size, local = numbers
    if not 0 <= rank < size:
        raise InputError(f"RANK is {rank}, and WORLD_SIZE says that there are {size} processes")
    return rank, size, local


def _backend(asked: str | None, local: int) -> tuple[str, torch.device]:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() and dist.is_nccl_available() else 0
    if asked not in (None, "gloo", "nccl"):
        raise InputError(f"backend is 'gloo', 'nccl' or None, not {asked!r}")
    if asked == "nccl" and local >= gpus:
        raise InputError(f"nccl needs a GPU for each process, and process {local} of this machine finds {gpus}")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", local + 1))
    if asked == "nccl" or (asked is None and here <= gpus):
        return "cpu:gloo,cuda:nccl", torch.device("cuda", local)
    return "gloo", torch.device("cpu")


# -- agreement --------------------------------------------------------------------------------------


def agree(what: str, group: ProcessGroup | None, value: Any = None, error: Exception | None = None) -> list[Any]:
    """What each process has to say before all of them begin; every process must call it.

    value: which must be the same everywhere, where ``what`` is a name for it
    error: what is wrong here; None where nothing is

    Raises the error here, and ``InputError`` that tells it on all others; ``InputError`` on all where values differ.
    """
    text = None if error is None else f"{'' if isinstance(error, GdslError) else f'{type(error).__name__}: '}{error}"
    said = from_all((value, text), group)
    if error is not None:
        raise error
    wrong = [(k, what) for k, (_, what) in enumerate(said) if what is not None]
    if wrong:
        raise InputError(f"process {wrong[0][0]}: {wrong[0][1]}")
    values = [found for found, _ in said]
    other = next((k for k, found in enumerate(values) if found != values[0]), None)
    if other is not None:
        raise InputError(f"{what} must be the same on all processes: process 0 has {values[0]}, process {other} "
                         f"{values[other]}")  # fmt: skip
    return values


@contextmanager
def agreeing(what: str, group: ProcessGroup | None) -> Iterator[dict[str, Any]]:
    """A block that makes something alone, after which all agree: an error of one process is raised on every process.

    The block puts what must be the same everywhere under "value".
    """
    found: dict[str, Any] = {}
    try:
        yield found
    except Exception as error:
        agree(what, group, error=error)
        raise
    agree(what, group, found.get("value"))
