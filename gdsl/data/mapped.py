"""Arrays that lie in files, as tensors: read when they are used, by as much as is used."""

from __future__ import annotations

import mmap
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gdsl.runtime.dtypes import CPU


def map_file(path: Path) -> mmap.mmap | bytes:
    """The bytes of a file, which nobody can write to."""
    with open(path, "rb") as file:
        if path.stat().st_size == 0:  # which cannot be mapped
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def view(memory: mmap.mmap | bytes, dtype: torch.dtype, offset: int, count: int) -> Tensor:
    """[count] numbers of what is mapped; not to be written to."""
    if not count:
        return torch.empty(0, dtype=dtype, device=CPU)
    raw = np.frombuffer(memory, dtype=np.uint8, offset=offset, count=count * dtype.itemsize)
    with warnings.catch_warnings():
        # torch warns of memory that must not be written to, and nothing here writes to it.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(raw).view(dtype)


def map_array(path: Path, dtype: torch.dtype) -> Tensor:
    """A file of nothing but numbers."""
    memory = map_file(path)
    return view(memory, dtype, 0, len(memory) // dtype.itemsize)
