"""Products of matrices with many rows, by ``products.cpp``, where these are faster than torch's.

torch's products on an x86 processor are those of a library whose code for the widest vectors runs on its maker's
processors alone; on others it computes with half of a vector, or less well with all of it. docs/performance.md has what
was measured. Elsewhere products are torch's: on processors of other kinds a library of their maker is better.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gdsl.errors import CacheError, CompilerError, InputError
from gdsl.runtime import cache as kernels
from gdsl.runtime.copies import address

# "own" or "torch": instead of what is faster on this machine.
SETTING = "GDSL_PRODUCTS"

NAME = "products"
_NUMBERS = {torch.float32: "float", torch.float64: "double"}
_P, _N, _FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


class Code(NamedTuple):
    """The functions of products.cpp for one dtype, and where they lie."""

    by_matrix_of: Callable[..., None]
    over_rows_of: Callable[..., None]
    addresses: tuple[int, int]

    def by_matrix(self, rows: Tensor, matrix: Tensor, turned: bool, width: int, bias: Tensor | None) -> Tensor:
        """[N, depth] @ [depth, width], or, turned, the transpose of [width, depth]; with a bias [width] added."""
        made = rows.new_empty((rows.shape[0], width))
        self._into(made, rows, matrix, turned, 0 if bias is None else address(bias), False)
        return made

    def add_by_matrix(self, made: Tensor, rows: Tensor, matrix: Tensor, turned: bool) -> None:
        """Add the same to ``made``."""
        self._into(made, rows, matrix, turned, 0, True)

    def _into(self, made: Tensor, rows: Tensor, matrix: Tensor, turned: bool, bias: int, add: bool) -> None:
        (count, width), at = made.shape, (address(rows), address(matrix))
        depth = matrix.shape[turned]
        self.by_matrix_of(count, width, depth, *at, turned, bias, add, made.data_ptr(), torch.get_num_threads())

    def over_rows(self, left: Tensor, right: Tensor) -> Tensor:
        """The transpose of [N, depth] by [N, width]."""
        (count, depth), width = left.shape, right.shape[1]
        made = left.new_empty((depth, width))
        at = (address(left), address(right), made.data_ptr())
        self.over_rows_of(count, width, depth, *at, torch.get_num_threads())
        return made


@cache
def wanted() -> bool:
    """Whether products on this machine are our own. Raises :class:`gdsl.InputError` for a setting that there is not."""
    told = os.environ.get(SETTING, "")
    if told not in ("", "own", "torch"):
        raise InputError(f"the environment's {SETTING} is 'own' or 'torch', and not {told!r}")
    if told:
        return told == "own"
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and torch.backends.mkl.is_available() and "AuthenticAMD" in kernels.processor()


def begin(dtype: torch.dtype) -> None:
    """Start to compile them, if they will be wanted."""
    if dtype in _NUMBERS and wanted():
        kernels.begin(_source(dtype), name=NAME)


def code(dtype: torch.dtype) -> Code | None:
    """Our own products of tensors of a dtype on the CPU; None where they are torch's. Waits for the compiler."""
    return compiled(dtype) if dtype in _NUMBERS and wanted() else None


def code_for(*values: Tensor) -> Code | None:
    """The same for products of these tensors: None also for those that lie in memory as other numbers than they are."""
    dtype = values[0].dtype
    if any(not v.is_cpu or v.dtype is not dtype or v.is_neg() or v._is_zerotensor() for v in values):
        return None
    return code(dtype)


@cache
def compiled(dtype: torch.dtype) -> Code | None:
    """The functions of products.cpp for float32 or float64, wanted or not; None without a compiler."""
    try:
        library = kernels.load(_source(dtype), name=NAME)
    except (CompilerError, CacheError, OSError):
        return None
    by_matrix, over_rows = library.by_matrix_of, library.over_rows_of
    by_matrix.argtypes = [_N, _N, _N, _P, _P, _FLAG, _P, _FLAG, _P, _N]
    over_rows.argtypes = [_N, _N, _N, _P, _P, _P, _N]
    by_matrix.restype = over_rows.restype = None
    places = [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in (by_matrix, over_rows)]
    return Code(by_matrix, over_rows, (places[0], places[1]))


@cache
def _source(dtype: torch.dtype) -> str:
    text = Path(__file__).with_name("products.cpp").read_text(encoding="utf-8")
    return f"#define NUMBER {_NUMBERS[dtype]}\n{text}"
