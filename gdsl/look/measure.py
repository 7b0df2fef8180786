"""Time and memory of a call, and a graph to measure it on: for ``gdsl bench`` and for ``benchmarks/``."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

MEGA = 1e6
# Blocks of more bytes are given back to the system when they are freed, so that a peak is not hidden in an old heap.
MMAP_THRESHOLD = 65536
_M_MMAP_THRESHOLD = -3  # as malloc.h has it


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def clear(leaves: Iterable[Tensor]) -> None:
    """Drop the gradients of tensors."""
    for tensor in leaves:
        tensor.grad = None


def peak(call: Callable[[], Any], leaves: Sequence[Tensor]) -> dict[str, Any]:
    """MB that a call adds to the process at its peak, beyond its results and the gradients that it leaves.

    This counts resident pages, whoever asked for them: torch's tensors, a library's buffers, a kernel's own scratch
    space. The system's high-water mark of resident memory is reset before the call, and malloc must give blocks above
    :data:`MMAP_THRESHOLD` back when they are freed: by $MALLOC_MMAP_THRESHOLD_, or :func:`give_back`. Inputs,
    parameters and the prepared graph are resident before. The error is a few hundred kB: the system counts pages in
    batches, and smaller blocks may come from the heap. None where the system does not tell.

    leaves: the tensors whose gradients a call leaves; those and what it returns are not counted
    """
    call()
    clear(leaves)
    gc.collect()
    _trim()
    if not _reset_peak():
        return {"mb": None}
    before = status("VmRSS")
    y = call()
    most = status("VmHWM") - before
    results = [*(y if isinstance(y, list | tuple) else [y]), *(t.grad for t in leaves if t.grad is not None)]
    size = sum(t.numel() * t.element_size() for t in results)
    # A peak before the last gradient exists can be less than all the results together.
    return {"mb": max(0.0, (most - size) / MEGA), "with_results_mb": most / MEGA}


def give_back() -> None:
    """Have malloc give large blocks back when they are freed, from now on: calls are slower."""
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)


def peak_on_gpu(call: Callable[[], object]) -> float:
    """MB that a call adds to what torch has allocated on the GPU at its worst moment."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MEGA


def most_of_tensors(call: Callable[[], object]) -> int:
    """The most bytes of tensors on a CPU that a call holds at one time, beyond those that were there before.

    What torch's allocator gives is counted, the same in each run: not what libraries allocate by themselves.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    assert seen.profiler is not None
    events = seen.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate((change for _, change in changes), initial=0))


def power_law(nodes: int, edges: int, seed: int = 0) -> Tensor:
    """Edges [2, E] with sources drawn by a probability that falls as rank ** -0.8, and targets drawn evenly."""
    random = torch.Generator().manual_seed(seed)
    weight = (torch.arange(nodes) + 1.0) ** -0.8
    rank = torch.multinomial(weight, edges, replacement=True, generator=random)
    source = torch.randperm(nodes, generator=random)[rank]
    target = torch.randint(nodes, (edges,), generator=random)
    return torch.stack([source, target])


def status(name: str) -> int:
    """A size in bytes from the system's view of this process: "VmRSS" now, "VmHWM" at the peak."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))


def _reset_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _trim() -> None:
    """Give what malloc holds and nobody uses back to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
