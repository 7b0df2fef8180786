"""Calls in native code: what the C++ of ``extension/`` is told, and how it is built.

On a small graph the Python between a user's call and the kernels takes longer than they do. An extension of torch and
Python takes the place of that: it is compiled once a machine, beside a process that calls often, and where it is not
there, or a call is not just as one before, Python does what it does without it. Both give the same bits.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import torch

from gdsl.codegen.schedule import BLOCK_WORK, CHUNK_EDGES, HUB_EDGES, LEAST_GROUPS, MAX_BLOCKS, MOST_BYTES, SMALL
from gdsl.errors import CacheError, CompilerError
from gdsl.language.parts import GLOBAL_HOOKS
from gdsl.locks import Lock
from gdsl.runtime import cache as kernels
from gdsl.runtime import prepare
from gdsl.runtime.order import EdgeEnds, Order

NAME = "gdsl_native"

PARTS = ("layout", *(f"extension/{part}" for part in ("head", "graph", "steps", "node", "calls", "module")))

# So many calls like one before are worth the compiler's work.
OFTEN = 1000
# Calls after which somebody looks whether the compiler is done.
PAUSE = 64

_module: Any = None
_state = "untried"  # then "unbuilt", "begun", and "there" or "missing"
_calls = 0
_lock = Lock()


def loaded() -> Any | None:
    """The extension, if it is there."""
    return _module


def status() -> str:
    """Whether the extension is there, in words. Raises as :func:`gdsl.runtime.cache.load` does."""
    if _module is not None:
        return "built and loaded"
    if not _can_be_built():
        return "none: the headers of Python or torch are missing, or this is no Linux"
    if kernels.is_built(_source(), name=NAME, recipe=_recipe()):
        return "built"
    return f"not built yet: after {OFTEN} calls like one before"


def native(*, wait: bool = False) -> Any | None:
    """The extension for a call like one before, which counts; None where it cannot be had, or with ``wait=False`` not
    yet."""
    global _calls
    if _module is not None or _state == "missing":
        return _module
    _calls += 1
    if wait or _calls % PAUSE == 1:
        with _lock:
            _look(wait)
    return _module


def _look(wait: bool) -> None:
    global _module, _state
    try:
        if _module is not None or _state == "missing" or prepare.native(wait=wait) is None:
            return
        if _state == "untried":
            _state = "unbuilt" if _can_be_built() else "missing"
        if _state == "unbuilt" and _calls > OFTEN and kernels.begin(_source(), name=NAME, recipe=_recipe()):
            _state = "begun"
        ready = _state == "begun" and kernels.is_over(_source(), recipe=_recipe())
        if _state != "missing" and (wait or ready or kernels.is_built(_source(), name=NAME, recipe=_recipe())):
            _module = kernels.load(_source(), name=NAME, recipe=_recipe(), open_library=_opened)
            _state = "there"
    except (CompilerError, CacheError, OSError, ImportError):
        _state = "missing"


def _can_be_built() -> bool:
    return sys.platform == "linux" and (_python() / "Python.h").exists() and _torch("include", "ATen").exists()


def _torch(*parts: str) -> Path:
    return Path(torch.__file__).parent.joinpath(*parts)


def _python() -> Path:
    return Path(sysconfig.get_paths()["include"])


@cache
def _recipe() -> kernels.Recipe:
    folders = (_torch("include"), _torch("include", "torch", "csrc", "api", "include"), _python())
    abi = int(torch._C._GLIBCXX_USE_CXX11_ABI)
    return kernels.Recipe(
        (
            *("-O1", "-std=c++20", "-fPIC", "-fvisibility=hidden", f"-D_GLIBCXX_USE_CXX11_ABI={abi}"),
            f"-DTORCH={torch.__version__}",  # another torch has the same folders
            *(word for folder in folders for word in ("-isystem", str(folder))),
        ),
        (f"-L{_torch('lib')}", "-ltorch_python", "-ltorch_cpu", "-ltorch", "-lc10"),
    )


@cache
def _source() -> str:
    # One after the other, as one text: torch's headers are read once.
    folder = Path(__file__).parent
    return "".join((folder / f"{part}.cpp").read_text() for part in PARTS)


def _opened(path: str) -> Any:
    loader = ExtensionFileLoader(NAME, path)
    spec = spec_from_loader(NAME, loader)
    assert spec is not None
    made = module_from_spec(spec)
    loader.exec_module(made)
    code = prepare.native()
    assert code is not None
    limits = MOST_BYTES, SMALL, LEAST_GROUPS, BLOCK_WORK, MAX_BLOCKS, HUB_EDGES, CHUNK_EDGES
    functions = (code.take[torch.int64, torch.int32], code.take[torch.int32, torch.int32], code.order[torch.int32])
    made.setup(limits, tuple(ctypes.cast(f, ctypes.c_void_p).value for f in functions), GLOBAL_HOOKS)
    return made


def small(edges: EdgeEnds, sizes: tuple[int, int], orders: Mapping[int, Order]) -> Any | None:
    """A graph as native calls take it; None for one of many edges, and where there are none.

    orders: those that are known, by end
    """
    code, (listed, facts, drop, added) = _module, edges
    if code is None or listed.dtype is not torch.int32 or not listed.is_cpu:
        return None
    if max(listed.shape[1], edges.num_edges) > HUB_EDGES:
        return None
    made = code.Small(listed, facts.loops, facts.by_source, facts.by_target, drop, added, *sizes)
    for end, order in orders.items():
        made.set(end, order.addresses, order.memory)
    return made


def _after_fork() -> None:
    global _state
    # The compiler is a child of the process that started it.
    if _state == "begun":
        _state = "unbuilt"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
