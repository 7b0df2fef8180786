"""The same by NumPy, for Triton's interpreter: what ``libdevice`` is to a GPU, whose functions it cannot call, and the
reductions of ours, which it would do one number at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import TensorHandle


def _apply(function: Any, *arguments: Any) -> Any:
    """A NumPy function of blocks, in the widest of their dtypes."""
    blocks = [a for a in arguments if isinstance(a, tl.tensor)]
    dtype = max((b.dtype for b in blocks), key=lambda d: d.primitive_bitwidth)
    storage = np.float64 if dtype == tl.float64 else np.float32
    with np.errstate(all="ignore"):
        data = [np.asarray(a.handle.data if isinstance(a, tl.tensor) else a, storage) for a in arguments]
        result = np.asarray(function(*data), storage)
    whole = tl.block_type(dtype, list(result.shape)) if any(b.type.is_block() for b in blocks) else dtype
    return tl.tensor(TensorHandle(result, dtype), whole)


def pow(x: Any, y: Any) -> Any:
    return _apply(np.power, x, y)


def fmod(x: Any, y: Any) -> Any:
    return _apply(np.fmod, x, y)


def expm1(x: Any) -> Any:
    return _apply(np.expm1, x)


def log1p(x: Any) -> Any:
    return _apply(np.log1p, x)


def rsqrt(x: Any) -> Any:
    return _apply(lambda v: 1 / np.sqrt(v), x)


def tanh(x: Any) -> Any:
    return _apply(np.tanh, x)


def acos(x: Any) -> Any:
    return _apply(np.arccos, x)


def atan2(y: Any, x: Any) -> Any:
    return _apply(np.arctan2, y, x)


OURS = ("gdsl_max", "gdsl_min", "gdsl_mul")


def _reduced(function: Any, x: Any, axis: int, keep: bool) -> Any:
    result = np.asarray(function(x.handle.data, axis=axis, keepdims=keep), x.handle.data.dtype)
    return tl.tensor(TensorHandle(result, x.dtype), tl.block_type(x.dtype, list(result.shape)))


def gdsl_max(x: Any, axis: int, keep: bool) -> Any:
    return _reduced(np.max, x, axis, keep)


def gdsl_min(x: Any, axis: int, keep: bool) -> Any:
    return _reduced(np.min, x, axis, keep)


def gdsl_mul(x: Any, axis: int, keep: bool) -> Any:
    return _reduced(np.prod, x, axis, keep)
