"""A child process that runs one layer in one way, as the parent asks, in lines of JSON.

The requests:

    {"do": "build", "layer": ..., "implementation": ..., "features": ..., "threads": ...,
     "case": PATH to read, "result": PATH to write}
    {"do": "time", "mode": "forward" or "both", "fresh": whether the graph is prepared in each call, "calls": 3}
    {"do": "memory", "mode": "forward" or "both"}

and what comes back is what the methods of ``Worker`` return.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TextIO

import torch
from peers import BUILDERS, LIBRARIES, Built, Case, Unsupported
from programs import ALL

MEGA = 1e6


class Worker:
    """One built layer and the case that it runs on."""

    def __init__(self) -> None:
        self.case: Case
        self.built: Built
        self.x: torch.Tensor

    def build(self, request: dict[str, Any]) -> dict[str, Any]:
        """Build, run once each way, and write the results where the parent can compare them."""
        torch.set_num_threads(request["threads"])
        self.case = Case(**torch.load(request["case"], weights_only=True))
        # Threads, the math library's buffers and torch's lazy set-up are not the first call's to pay.
        torch.mm(self.case.x[:64].t(), self.case.x[:64])
        self._import(request["implementation"])
        start = time.perf_counter()
        try:
            layer = ALL[request["layer"]](request["features"])
            self.built = BUILDERS[request["implementation"]](layer, self.case)
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        built_s = time.perf_counter() - start - self.built.prepare_s
        self.x = self.case.x.clone().requires_grad_()
        forward = seconds(self.forward)
        clear(self.leaves())
        both = seconds(self.both)
        self._write(request["result"])
        return {
            "prepare_s": self.built.prepare_s,
            "graph_mb": sum(t.numel() * t.element_size() for t in self.built.graph()) / MEGA,
            "first_call": {"build_s": built_s, "forward_s": forward, "both_s": both},
        }

    def _import(self, implementation: str) -> None:
        # A library that is missing or broken is for its builder to report.
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module(LIBRARIES.get(implementation, "torch"))

    def _write(self, path: str) -> None:
        clear(self.leaves())
        y = self.built.call(self.x)
        y.backward(self.case.grad)
        assert self.x.grad is not None
        found = {"y": y.detach(), "x": self.x.grad}
        for name, parameter in self.built.parameters.items():
            assert parameter.grad is not None
            found[name] = self.built.restore(name, parameter.grad)
        torch.save(found, path)
        clear(self.leaves())

    def leaves(self) -> list[torch.Tensor]:
        return [self.x, *self.built.parameters.values()]

    def forward(self, fresh: bool = False) -> torch.Tensor:
        with torch.no_grad():
            return (self.built.fresh if fresh else self.built.call)(self.x)

    def both(self, fresh: bool = False) -> torch.Tensor:
        """Gradients of the input and of every parameter."""
        clear(self.leaves())
        y = (self.built.fresh if fresh else self.built.call)(self.x)
        y.backward(self.case.grad)
        return y

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        """Wall ms of each call, after one that is not counted: the others may have emptied the caches."""
        call = partial({"forward": self.forward, "both": self.both}[request["mode"]], request["fresh"])
        call()
        gc.collect()
        gc.disable()
        try:
            found = [seconds(call) * 1e3 for _ in range(request["calls"])]
        finally:
            gc.enable()
        return {"ms": found}

    def memory(self, request: dict[str, Any]) -> dict[str, Any]:
        """MB that a call adds to the process at its peak, beyond its output and the gradients that it leaves.

        This counts resident pages, whoever asked for them: torch's tensors, a library's buffers, a kernel's
        own scratch space. The system's high-water mark of resident memory is reset before the call, and the
        parent has set malloc to give every block above 64 kB back when it is freed, so that nothing is hidden
        in a heap that grew earlier. Inputs, parameters and the prepared graph are resident before. The error
        is a few hundred kB: the system counts pages in batches, and smaller blocks may come from the heap.
        """
        call = {"forward": self.forward, "both": self.both}[request["mode"]]
        return peak(call, self.leaves())


def clear(leaves: Iterable[torch.Tensor]) -> None:
    """Drop the gradients of tensors."""
    for tensor in leaves:
        tensor.grad = None


def peak(call: Callable[[], Any], leaves: Sequence[torch.Tensor]) -> dict[str, Any]:
    """MB that a call adds at its peak, as ``Worker.memory`` says.

    leaves  the tensors whose gradients a call leaves; those and what it returns are not counted
    """
    call()
    clear(leaves)
    gc.collect()
    _trim()
    if not _reset_peak():
        return {"mb": None}
    before = _status("VmRSS")
    y = call()
    most = _status("VmHWM") - before
    results = [*(y if isinstance(y, list) else [y]), *(t.grad for t in leaves if t.grad is not None)]
    size = sum(t.numel() * t.element_size() for t in results)
    # A peak before the last gradient exists can be less than all the results together.
    return {"mb": max(0.0, (most - size) / MEGA), "with_results_mb": most / MEGA}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _status(name: str) -> int:
    """A size in bytes from the kernel's view of this process."""
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


def _serve(requests: TextIO, replies: TextIO) -> None:
    worker = Worker()
    actions = {"build": worker.build, "time": worker.time, "memory": worker.memory}
    for line in requests:
        request = json.loads(line)
        replies.write(json.dumps(actions[request["do"]](request)) + "\n")
        replies.flush()


def main() -> None:
    # What a library prints must not mix with the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.filterwarnings("ignore", message=".*[Ss]parse.*", category=UserWarning)
    _serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
