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
import gc
import importlib
import json
import os
import sys
import time
import warnings
from functools import partial
from typing import Any, TextIO

import torch
from peers import BUILDERS, LIBRARIES, Built, Case, Unsupported
from programs import ALL

from gdsl.look.measure import MEGA, clear, peak, seconds


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
        gc.freeze()  # modules: nothing to look at before each round
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
        """MB that a call adds to the process at its peak: see :func:`gdsl.look.measure.peak`."""
        call = {"forward": self.forward, "both": self.both}[request["mode"]]
        return peak(call, self.leaves())


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
