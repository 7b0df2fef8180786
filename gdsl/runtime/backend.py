"""Which backend runs a call: what was asked for, what the tensors are, and what is installed."""

from __future__ import annotations

import functools
import warnings

import torch

from gdsl.errors import InputError
from gdsl.runtime import cache
from gdsl.runtime.dtypes import short
from gdsl.runtime.items import C_TYPES

BACKENDS = ("auto", "triton", "cpp", "torch")


@functools.cache
def _has_triton() -> bool:
    """Whether GPU kernels can be compiled; a warning, once, where they cannot."""
    try:
        import triton  # noqa: F401
    except ImportError:
        _warn_once("Triton is not installed: layers on a GPU run on the slow torch backend. `pip install triton`")
        return False
    return True


def check_backend(asked: str) -> None:
    """Raises :class:`gdsl.InputError` for a backend that there is not."""
    if asked not in BACKENDS:
        raise InputError(f"there is no backend {asked!r}; there are {', '.join(BACKENDS)}")


def backend_for(asked: str, dtype: torch.dtype, device: torch.device) -> str:
    """The backend of a call, where a layer asks for one or for "auto".

    Raises :class:`gdsl.InputError` where the one asked for cannot run it, or is none.
    """
    check_backend(asked)
    known, given = dtype in C_TYPES, f"{short(dtype)} on {device}"
    kind = device.type
    if asked == "torch":
        return "torch"
    if asked == "cpp":
        if kind != "cpu" or not known:
            raise InputError(f"the C++ backend runs {', '.join(map(short, C_TYPES))} on the CPU, not {given}")
        return "cpp"
    if asked == "triton":
        if not known or not (kind == "cuda" or (kind == "cpu" and _interpreted())):
            raise InputError(
                f"the Triton backend runs {', '.join(map(short, C_TYPES))} on a GPU, not {given}; on the CPU "
                "it runs in Triton's interpreter, which TRITON_INTERPRET=1 in the environment asks for"
            )
        return "triton"
    if kind == "cuda" and known and _has_triton():
        return "triton"
    if kind != "cpu" or not known:
        return "torch"
    if cache.find_compiler() is None:
        _warn_once("no C++ compiler was found: layers run on the slow torch backend. " + cache.INSTALL)
        return "torch"
    return "cpp"


def _interpreted() -> bool:
    if not _has_triton():
        return False
    from gdsl.runtime.source import interpreted

    return interpreted()


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, stacklevel=4)
