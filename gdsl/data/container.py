"""Arrays in one file: raw, and a description of them in JSON. Nothing of it is ever executed.

    bytes 0 to 7      which kind of file it is
    bytes 8 to 31     where the description begins, its length, its CRC-32; int64, little-endian like all numbers
    from byte 64 on   the arrays, each at a multiple of 64 bytes
    then              the description, with which the file ends
"""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gdsl.data import mapped
from gdsl.data.batch import Type
from gdsl.errors import InputError
from gdsl.runtime.dtypes import short
from gdsl.store import replacing

ALIGNMENT = 64
PLACE = struct.Struct("<qqq")

# Numbers that are read or written at a time.
CHUNK = 1 << 24

DTYPES = {
    short(dtype): dtype
    for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
        torch.float32, torch.float64, torch.complex64, torch.complex128,
    )
}  # fmt: skip


class Writer:
    """A file while it is written: ``put`` adds an array, and ``about`` becomes the description, with ``arrays``."""

    def __init__(self, out: BinaryIO):
        self.out, self.about = out, dict[str, Any]()
        self.arrays: list[dict[str, Any]] = []

    def put(self, values: Tensor, dtype: torch.dtype | None = None) -> int:
        """The place of an array among the arrays."""
        dtype = dtype or values.dtype
        start = self.out.tell() + -self.out.tell() % ALIGNMENT
        self.out.write(bytes(start - self.out.tell()))
        check = 0
        for part in _bytes_of(values, dtype):
            check = zlib.crc32(part, check)
            self.out.write(part)
        self.arrays.append({"dtype": short(dtype), "count": values.numel(), "start": start, "crc": check})
        return len(self.arrays) - 1


@contextmanager
def writing(path: Path, magic: bytes) -> Iterator[Writer]:
    """A file that appears when it is whole. Raises ``InputError`` where numbers are big-endian."""
    _check_order()
    with replacing(path) as temporary, open(temporary, "wb") as out:
        out.write(bytes(ALIGNMENT))
        writer = Writer(out)
        yield writer
        text = json.dumps(writer.about | {"arrays": writer.arrays}, allow_nan=False).encode()
        start = out.tell()
        out.write(text)
        out.seek(0)
        out.write(magic + PLACE.pack(start, len(text), zlib.crc32(text)))
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def read(memory: Any, magic: bytes, version: int, what: str, check: bool) -> tuple[dict[str, Any], list[Tensor]]:
    """The description and the arrays of a mapped file.

    what:  what it should hold, as messages name it
    check: also compares the checksums of the arrays, which reads them

    Raises ``InputError`` for other files and for damaged ones, and what Python raises for a description that lacks
    something.
    """
    _check_order()
    if len(memory) < ALIGNMENT or memory[: len(magic)] != magic:
        raise InputError(f"this is no {what}, or its beginning is missing")
    start, length, crc = PLACE.unpack(memory[len(magic) : len(magic) + PLACE.size])
    if not (ALIGNMENT <= start <= len(memory) and start + length == len(memory)):
        raise InputError(f"the file is cut short or damaged: it has {len(memory)} bytes, not {start + length}")
    text = memory[start:]
    if zlib.crc32(text) != crc:
        raise InputError(f"the description of the {what} is damaged: its checksum is another")
    about = json.loads(text)
    if about["version"] != version:
        raise InputError(f"this is version {about['version']} of the format, and {version} is read: make the file anew")
    return about, [_array(memory, start, array, what, check) for array in about["arrays"]]


def _array(memory: Any, limit: int, about: dict[str, Any], what: str, check: bool) -> Tensor:
    dtype, count, start = DTYPES[about["dtype"]], about["count"], about["start"]
    if count < 0 or start < ALIGNMENT or start % ALIGNMENT or start + count * dtype.itemsize > limit:
        raise InputError(f"an array of the {what} lies outside of the file: it is cut short or damaged")
    found = mapped.view(memory, dtype, start, count)
    if check:
        crc = 0
        for part in _bytes_of(found, dtype):
            crc = zlib.crc32(part, crc)
        if crc != about["crc"]:
            raise InputError(f"the {what} is damaged: the checksum of an array is another")
    return found


def _bytes_of(values: Tensor, dtype: torch.dtype) -> Iterator[Any]:
    for part in values.contiguous().split(CHUNK):
        yield part.to(dtype).view(torch.uint8).numpy().data


def plain(type: Type) -> Any:
    """A type of nodes or edges in a description."""
    return list(type) if isinstance(type, tuple) else type


def as_type(found: Any) -> Type:
    """What :func:`plain` was given."""
    return tuple(map(str, found)) if isinstance(found, list) else str(found)  # type: ignore[return-value]


def _check_order() -> None:
    if sys.byteorder != "little":
        raise InputError("such files are of little-endian numbers, and this machine is not little-endian")
