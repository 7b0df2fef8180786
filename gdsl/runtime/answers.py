"""Other processes of ``torch.distributed`` that do not answer: which of them has failed, and why.

A process says in the store of the run what it fails with and what it waits for, so that the others can tell it.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from gdsl.errors import DistributedError, GdslError, GraphError

# Seconds that a process waits to hear which of the others still live, when one of them does not answer.
GRACE = 3.0

# What torch's backends say when another process is gone or slow. They are RuntimeErrors without a type of their own.
_SILENCE = (
    "connection closed by peer", "connection reset", "timed out", "timeout", "broken pipe", "socket",
    "connection refused", "connectfullmesh", "peer closed", "nccl",
)  # fmt: skip


def place(group: Any) -> tuple[int, int]:
    """The number of this process in a group, and how many there are; (0, 1) where none were joined."""
    if group is None and not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


@contextmanager
def answered(doing: str = "") -> Iterator[None]:
    """A block in which processes speak: where one of them does not answer any more, ``DistributedError`` says which.

    doing: what this process waits with, for others that wait with something else
    """
    try:
        yield
    except GdslError:
        raise
    except RuntimeError as error:
        report(error, doing)
        raise


def from_all(value: Any, group: Any) -> list[Any]:
    """What each process of a group says, by rank; all of them call it.

    Raises ``GraphError``, on every process alike, where some are in another call.
    """
    if place(group)[1] == 1:
        return [value]
    here = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    agree("an agreement of all processes", group, here)
    return _objects(value, group)


def _objects(value: Any, group: Any) -> list[Any]:
    found = [None] * place(group)[1]
    with answered("an agreement of all processes"):
        dist.all_gather_object(found, value, group=group)
    return found


def numbers_of_all(own: Sequence[int], group: Any, device: torch.device, doing: str) -> list[list[int]]:
    """Some numbers of each process of a group, as many on all, by rank; all of them call it.

    device: where a process computes
    doing:  what others hear that wait with something else
    """
    if place(group)[1] == 1:
        return [list(own)]
    given = torch.tensor(own, device=_place_of_numbers(device, group))
    found = [torch.empty_like(given) for _ in range(place(group)[1])]
    with answered(doing):
        dist.all_gather(found, given, group=group)
    return [part.tolist() for part in found]


def _place_of_numbers(device: torch.device, group: Any) -> torch.device:
    """Not a GPU, which would be waited for, where a group has another place to speak from."""
    if device.type != "cpu":
        processes: Any = group or dist.group.WORLD
        with suppress(RuntimeError):  # it has none
            processes._get_backend(torch.device("cpu"))
            return torch.device("cpu")
    return device


def agree(
    doing: str,
    group: Any,
    device: torch.device,
    digest: int | None = None,
    tag: int = 0,
    refused: bool = False,
) -> None:
    """All processes of a group call it before what they do together.

    doing:   words for it
    digest:  a number for it; without one, that of the words
    tag:     a number for the graph
    refused: whether this process cannot, for the reason that ``doing`` gives

    Raises ``GraphError``, on every process alike, where they do not do the same.
    """
    own = zlib.crc32(doing.encode()) if digest is None else digest
    said = numbers_of_all([refused, own, tag], group, device, doing)
    if not any(first for first, *_ in said) and all(one == said[0] for one in said):
        return
    texts = _objects(doing, group)
    failed = next((k for k, one in enumerate(said) if one[0]), None)
    if failed is not None:
        raise heard(GraphError(f"process {failed} has refused its call: {texts[failed]}"))
    other = next(k for k, one in enumerate(said) if one != said[0])
    why = ""
    if texts[other] == texts[0]:
        why = "; on parts of two graphs" if said[other][1] == said[0][1] else "; rules, settings or sizes differ"
    raise heard(
        GraphError(
            f"all processes must make the same calls: process 0 is in {texts[0]}; process {other} in {texts[other]}"
            f"{why}"
        )
    )


Raised = TypeVar("Raised", bound=BaseException)


def heard(error: Raised) -> Raised:
    """The error, of which the others need not be told: they know, or wait for something else than an agreement."""
    error.__dict__["heard"] = True
    return error


def is_heard(error: BaseException) -> bool:
    """Whether the others need not be told of an error, or of what it was raised from; see :func:`heard`."""
    if isinstance(error, DistributedError) or "heard" in error.__dict__:
        return True
    return error.__cause__ is not None and is_heard(error.__cause__)


def report(error: BaseException, doing: str = "") -> None:
    """Tell the others what has failed here; where it is that they do not answer, raise an error that says why."""
    rank, size = place(None)
    if size == 1 or isinstance(error, DistributedError):  # of which the others know
        return
    if not _is_silence(error):
        tell("failed", f"{type(error).__name__}: {line(error)}")
        return
    tell("waits", doing or "something of its own")
    why = _why(rank, size)
    tell("knows", why)
    raise DistributedError(
        f"process {rank}: {why}; start again from the last checkpoint. torch says: {line(error)}"
    ) from error


def tell(what: str, text: str) -> None:
    """Say in the store what has "failed" here, that the run has "ended", or what this process "waits" with."""
    with suppress(RuntimeError):  # of a store that is gone
        dist.distributed_c10d._get_default_store().set(f"gdsl/{what}/{dist.get_rank()}", text)


@contextmanager
def known_to_others(error: BaseException | None) -> Iterator[None]:
    """A block that ends the processes' group: where that is for an error, a process that holds the store of the run
    stays for some seconds, so that the others can read there what has failed."""
    rank, size = place(None)
    # Of torchrun the store is its own.
    holds = error is not None and rank == 0 < size - 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = dist.distributed_c10d._get_default_store() if holds else None
    yield
    limit = time.monotonic() + GRACE
    while store is not None and time.monotonic() < limit:
        if store.check([f"gdsl/knows/{k}" for k in range(1, size)]):
            return
        time.sleep(0.05)


def line(error: BaseException) -> str:
    """The first line of a message."""
    return str(error).strip().partition("\n")[0]


def _is_silence(error: BaseException) -> bool:
    if isinstance(error, GdslError) or not isinstance(error, RuntimeError):
        return False
    backends = (dist.DistBackendError, dist.DistNetworkError)
    return isinstance(error, backends) or any(word in str(error).lower() for word in _SILENCE)


def _why(rank: int, size: int) -> str:
    """Which process has failed: each that lives says so, and those that do not within some seconds are dead."""
    try:
        store = dist.distributed_c10d._get_default_store()

        def said(what: str, k: int) -> str:
            return store.get(f"gdsl/{what}/{k}").decode() if store.check([f"gdsl/{what}/{k}"]) else ""

        store.set(f"gdsl/alive/{rank}", "yes")
        limit = time.monotonic() + GRACE
        while True:
            for what, words in (("failed", "has failed ({})"), ("ended", "has ended its run, and the others have not")):
                told = next((k for k in range(size) if said(what, k)), None)
                if told is not None:
                    return f"process {told} {words.format(said(what, told))}"
            silent = [k for k in range(size) if not said("alive", k)]
            if not silent:
                own = said("waits", rank)
                other = next((k for k in range(size) if said("waits", k) != own), None)
                if other is None:
                    return "some process was too slow, for all of them live"
                return (
                    f"processes make different calls: process {rank} waits with {own}, process {other} with "
                    f"{said('waits', other)}"
                )
            if time.monotonic() > limit:
                names = " and ".join(map(str, silent))
                return f"process {names} does not answer: it died, hangs, or is slower than the timeout"
            time.sleep(0.05)
    except RuntimeError:
        return "the process that holds the store of the run, mostly process 0, has died or has ended its run"
