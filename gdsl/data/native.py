"""The native code of data sets, compiled once a machine; None where there is no compiler, and torch does the work."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

from gdsl.errors import CacheError, CompilerError
from gdsl.runtime import cache as kernels

POINTER, COUNT, FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int

# Of the numbers of nodes and edges within a graph, as a data set has them.
WIDTHS = ("uint8", "int16", "int32")

# File -> its functions: what they take, and what they give.
_FUNCTIONS: dict[str, dict[str, tuple[list[Any], Any]]] = {
    "gather": {
        "place": ([POINTER, COUNT, COUNT, POINTER, POINTER, POINTER], None),
        "gather": ([POINTER, COUNT, COUNT, COUNT, POINTER, POINTER, COUNT, POINTER, FLAG], None),
        "number": ([POINTER, COUNT, POINTER], None),
        **{f"wrong_order_{i}": ([*[POINTER] * 3, COUNT, FLAG, *[POINTER] * 3], COUNT) for i in WIDTHS},
    },
    "sample": {
        "sample": ([POINTER, POINTER], POINTER),
        "take": ([POINTER, POINTER, POINTER], None),
        "drop": ([POINTER], None),
        "add_up": ([POINTER, COUNT, POINTER, POINTER], None),
        "walk": ([POINTER, POINTER, *[COUNT] * 4, ctypes.c_uint64, POINTER, COUNT], None),
    },
}


@cache
def native(name: str) -> Any:
    """The functions of a file of this folder by name, or None."""
    try:
        library = kernels.load(Path(__file__).with_name(f"{name}.cpp").read_text(), name=name)
    except (CompilerError, CacheError, OSError):
        return None
    for function, (takes, gives) in _FUNCTIONS[name].items():
        found = getattr(library, function)
        found.argtypes, found.restype = takes, gives
    return library
