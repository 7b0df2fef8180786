"""What callers give, as loaders use it, or an error that says what is needed."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU


def integer(name: str, value: Any) -> int:
    """A Python integer from one of any kind, also of numpy or torch. Raises ``InputError`` for anything else."""
    try:
        if not is_truth(value):
            return operator.index(value)
    except (TypeError, RuntimeError):
        pass
    raise InputError(f"{name} must be an integer, not {value!r}")


def is_truth(value: Any) -> bool:
    """Whether it is one of True and False, which Python takes for integers."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def is_number(value: Any) -> bool:
    """Whether it is one integer, of any kind."""
    if getattr(value, "ndim", 0):
        return False
    try:
        operator.index(value)
    except (TypeError, RuntimeError):
        return False
    return not is_truth(value)


def count(name: str, value: Any, least: int) -> int:
    """An integer of at least the least. Raises ``InputError`` for anything else."""
    try:
        found = integer(name, value)
    except InputError:
        found = least - 1
    if found < least:
        raise InputError(f"{name} must be an integer of at least {least}, not {value!r}")
    return found


def count_or_none(name: str, value: Any, least: int) -> int | None:
    """The same, where there may be none."""
    return None if value is None else count(name, value, least)


def flag(name: str, value: Any) -> bool:
    """True or False. Raises ``InputError`` for others: "no" would count as true."""
    if value is None or is_truth(value) or (is_number(value) and int(value) in (0, 1)):
        return bool(value)
    raise InputError(f"{name} must be True or False, not {value!r}")


def weights(name: str, value: Tensor) -> None:
    """Raises ``InputError`` for what cannot be chances: also where their sum is no number any more."""
    real = value.dim() == 1 and not value.is_complex()
    if not (real and bool((value >= 0).all()) and bool(value.double().sum().isfinite())):
        raise InputError(f"{name} must be finite, not negative, in one dimension, and of a finite sum")


def positive(name: str, value: Any) -> float:
    """A finite number above zero. Raises ``InputError`` for anything else."""
    try:
        found = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise InputError(f"{name} must be above zero and finite, not {value!r}")
    return found


def tensor(name: str, value: Any) -> Tensor:
    """A tensor on the CPU from one, an array or a list. Raises ``InputError`` for what is none of them."""
    try:
        return torch.as_tensor(value, device=CPU).detach().cpu()
    except (TypeError, ValueError, RuntimeError):  # also NotImplementedError, for tensors without numbers
        raise InputError(f"{name} must be a tensor or a list of numbers, not {shown(value)}") from None


def integers(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """int64 of a shape. Raises ``InputError`` for anything else."""
    found = tensor(name, value)
    if found.shape != shape or not is_integral(found):
        raise InputError(f"{name} must be integers {list(shape)}, not {found.dtype} {list(found.shape)}")
    return found.long().contiguous()


def is_integral(value: Tensor) -> bool:
    """Whether it holds integers, of which True and False are none."""
    return not (value.is_floating_point() or value.is_complex() or value.dtype is torch.bool)


def names(name: str, value: Collection[str] | None) -> tuple[str, ...]:
    """Raises ``InputError`` for a text, whose letters would be taken for names, and for what holds no texts."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Collection) or not all(isinstance(v, str) for v in value):
        raise InputError(f"{name} must be a list of names, such as ['x'], not {value!r}")
    return tuple(value)


def function(name: str, value: Any) -> Callable[[Any], Any] | None:
    """Raises ``InputError`` for what cannot be called."""
    if value is not None and not callable(value):
        raise InputError(f"{name} must be a function of a batch, not {value!r}")
    return value


def path(value: Any) -> Path:
    """Raises ``InputError`` for what names no file."""
    try:
        if "\0" not in str(value):
            return Path(value)
        raise TypeError
    except TypeError:
        raise InputError(f"the path of a file or folder is needed, not {value!r}") from None


def path_to_write(value: Any) -> Path:
    """The same, and that a file can be put there."""
    found = path(value)
    if found.is_dir():
        raise InputError(f"{found} is a folder: give the path of a file in it")
    if not found.absolute().parent.is_dir():
        raise InputError(f"there is no folder {found.absolute().parent} to put {found.name} into: make it first")
    return found


def path_to_read(value: Any) -> Path:
    """The same, and that a file lies there."""
    found = path(value)
    if not found.is_file():
        what = "it is a folder" if found.is_dir() else "there is no such file"
        raise InputError(f"{found} cannot be read: {what}")
    return found


def shown(value: Any) -> str:
    """In short."""
    return repr(value) if isinstance(value, str | int | float) or value is None else f"a {type(value).__name__}"
