"""Generated Triton source as functions."""

from __future__ import annotations

import functools
import hashlib
import linecache
import types
from collections.abc import Mapping
from typing import Any

import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction


def load(source: str, name: str) -> Mapping[str, Any]:
    """The names that generated source defines. Triton reads the text of a function again: it is kept for that."""
    key = hashlib.sha256(source.encode()).hexdigest()[:16]
    filename = f"<gdsl {name} {key}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = types.ModuleType(f"gdsl_{name}_{key}")
    exec(compile(source, filename, "exec"), module.__dict__)
    if interpreted():
        from gdsl.runtime import interpreted as functions

        ours = {name: getattr(functions, name) for name in functions.OURS if name in module.__dict__}
        module.__dict__.update(ours, libdevice=functions)
    return module.__dict__


@functools.cache
def interpreted() -> bool:
    """Whether Triton was imported to be interpreted."""
    return isinstance(tl.sum, InterpretedFunction)
