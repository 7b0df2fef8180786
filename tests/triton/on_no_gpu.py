"""Run in a process of its own, with ``no_gpu.c`` for the CUDA driver: what gdsl launches, as JSON."""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any

import torch
import triton
from triton.backends.nvidia.driver import CudaDriver
from triton.runtime.jit import JITFunction

import gdsl
from gdsl.runtime import backend as backends
from tests.programs import harness

TEXT = "layer Sum(d) { node x[d] aggregate a = sum(x[j]) update y = a }"
CALLS = 1000
WORDS = 32

driver = ctypes.CDLL("libcuda.so.1")
launched = (ctypes.c_uint64 * (3 + WORDS) * 256).in_dll(driver, "launched")
launches = ctypes.c_int.in_dll(driver, "launches")
words = ctypes.c_int.in_dll(driver, "words")
stream = 0
asked: list[str] = []
compiled: list[str] = []


class Driver(CudaDriver):
    """Triton's own, for a GPU that torch does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.get_current_device = lambda: 0
        self.get_current_stream = lambda device=None: stream
        self.get_device_capability = lambda device=0: (9, 0)


def during(call: Any) -> dict[str, Any]:
    """What a call launches, for which of it Triton looks for a compiled function, and which it compiles only then."""
    before, asked[:], compiled[:] = launches.value, [], []
    call()
    words = [list(launched[k % 256]) for k in range(before, launches.value)]
    return {"launched": words, "asked": list(asked), "compiled": list(compiled)}


def main() -> None:
    global stream
    run, compile_now = JITFunction.run, JITFunction._do_compile

    def noticed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs["warmup"]:
            asked.append(self.__name__)
        return run(self, *args, **kwargs)

    def compiles(self: Any, *args: Any) -> Any:
        if not args[-1]:  # whether it is for a later launch
            compiled.append(self.__name__)
        return compile_now(self, *args)

    JITFunction.run, JITFunction._do_compile = noticed, compiles
    triton.runtime.driver.set_active(Driver())
    backends._interpreted = lambda: True  # so that tensors of the CPU may stand for a GPU's
    words.value = 6
    graph = gdsl.Graph(harness.random_edges(30, 64, seed=0), 30)
    conv = gdsl.compile(TEXT, d=64, backend="triton")
    x = torch.rand(30 * 64 + 1)
    aligned, shifted = x[:-1].view(30, 64), x[1:].view(30, 64)
    found: dict[str, Any] = {}
    with torch.no_grad():
        found["first"] = during(lambda: conv(aligned, graph))
        found["again"] = during(lambda: conv(aligned, graph))
        found["shifted"] = during(lambda: conv(shifted, graph))
        told: list[Any] = []
        triton.knobs.runtime.launch_enter_hook.add(told.append)
        found["hooked"] = during(lambda: conv(aligned, graph)) | {"told": len(told)}
        triton.knobs.runtime.launch_enter_hook.remove(told.append)
        stream = 42
        found["stream"] = during(lambda: conv(aligned, graph))
        start = time.perf_counter()
        for _ in range(CALLS):
            conv(aligned, graph)
        found["host_us"] = (time.perf_counter() - start) / CALLS * 1e6
        words.value = 4
        edges = harness.random_edges(900, 3000, seed=1)
        edges[1, :1200] = 5
        hub = gdsl.Graph(edges, 900)
        found["hub"] = during(lambda: conv(torch.rand(900, 64), hub))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
