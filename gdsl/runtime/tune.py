"""Block sizes by measurement: the few candidates of a function are timed once a GPU, and the best is kept on disk.

Kept for a function's text, a GPU, a degree of the graph and the versions that compile it. ``GDSL_TUNE=0``, or
``torch.use_deterministic_algorithms(True)``, takes the first candidate and measures nothing: then the same input gives
the same bits on every machine with such a GPU, and not only as long as the choice is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import triton

from gdsl.codegen.launch import Config
from gdsl.errors import CacheError
from gdsl.locks import Lock
from gdsl.store import cache_folder, replacing

FILE = "tuned.json"
# Calls of a candidate before and while it is timed.
WARM, TIMED = 2, 5

_lock = Lock()
_known: dict[str, Config] = {}

Run = Callable[[Config], None]


def key(source: str, degree: int, device: int | None) -> str:
    """What a choice depends on."""
    name = "cpu" if device is None else torch.cuda.get_device_name(device)
    text = "\n".join([source, str(degree), name, triton.__version__, torch.__version__])
    return hashlib.sha256(text.encode()).hexdigest()


def best(name: str, found: Sequence[Config], run: Run, measure: Callable[[Run, Config], float]) -> Config:
    """The candidate that runs fastest, from memory, from disk, or by running them all.

    A candidate that does not compile, or needs more of the GPU than there is, is left out.
    """
    chosen = known(name, found)
    if chosen is None:
        chosen = _fastest(found, run, measure)
        with _lock:
            _known[name] = chosen
            _write(name, chosen)
    return chosen


def known(name: str, found: Sequence[Config]) -> Config | None:
    """The candidate that was found to be the fastest before, if one was. The file names one of these, or none."""
    with _lock:
        if name not in _known:
            stored = _read().get(name)
            for candidate in found:
                if stored == [candidate.rows, candidate.edges, candidate.warps]:
                    _known[name] = candidate
        return _known.get(name)


def enabled() -> bool:
    """Whether block sizes are measured. They decide the order of sums: not where torch was told to be deterministic."""
    return os.environ.get("GDSL_TUNE", "1") != "0" and not torch.are_deterministic_algorithms_enabled()


def seconds(run: Run, config: Config) -> float:
    """The GPU's time for a launch."""
    for _ in range(WARM):
        run(config)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(TIMED):
        run(config)
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / 1e3 / TIMED


def _fastest(found: Sequence[Config], run: Run, measure: Callable[[Run, Config], float]) -> Config:
    times: dict[Config, float] = {}
    for config in found:
        # A candidate may ask for more shared memory or registers than the GPU has: another will do.
        with contextlib.suppress(triton.runtime.errors.OutOfResources, triton.compiler.errors.CompilationError):
            times[config] = measure(run, config)
    return min(times, key=lambda c: times[c]) if times else found[0]


def _path() -> Path | None:
    try:
        return cache_folder() / FILE
    except (CacheError, OSError):
        return None


def _read() -> dict[str, Any]:
    path = _path()
    try:
        found = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(name: str, config: Config) -> None:
    """Add a choice to the file. Two processes at once may each lose one of the other's: it is measured again."""
    path = _path()
    if path is None:
        return
    table = {**_read(), name: [config.rows, config.edges, config.warps]}
    with contextlib.suppress(OSError), replacing(path) as temporary:
        temporary.write_text(json.dumps(table))
