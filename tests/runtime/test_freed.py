"""What is freed stays with the process: a step that takes as much as the one before waits for no page of the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A process of its own: what its allocator has learnt depends on all that was freed before.
STEPS = """
import ctypes, resource, sys
from gdsl.runtime import freed

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]

def step():
    values = [library.malloc(400_000) for _ in range(80)]  # 32 MB, as much as a step on molecules takes
    for value in values:
        ctypes.memset(value, 1, 400_000)
    for value in values:
        library.free(value)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    freed.keep()
for _ in range(3):
    step()
before = faults()
step()
print(faults() - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_step_takes_what_the_one_before_freed() -> None:
    given_back = _faults("given back")
    if given_back < 1000:  # of 4 KB
        pytest.skip("this allocator keeps what is freed by itself")
    assert _faults("kept") < given_back / 20
