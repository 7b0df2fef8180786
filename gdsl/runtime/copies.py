"""Copies that lie where the tensor does until one of the two is written to: torch's copy on write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def _address(tensor: Tensor) -> int:
    first: int = torch._C._data_address(tensor)  # type: ignore[attr-defined]
    return first + int(tensor.storage_offset()) * tensor.itemsize


# Where the numbers of a tensor are read: ``data_ptr`` is for writing, too, and makes a lazy copy a real one.
# torch 2.11 has no method for it.
address: Callable[[Tensor], int] = getattr(Tensor, "const_data_ptr", _address)


def kept_apart(tensors: Sequence[Tensor], reads: Sequence[int]) -> Sequence[Tensor]:
    """The tensors, with lazy copies at the places that a backward pass reads: a user may write to what he has, as
    ``h += conv(h)`` does, and it takes memory only then.

    Not of leaves and their views, which an optimizer writes to, and of which torch's error is the right answer; nor on
    GPUs, where Triton asks for addresses to write to, and a copy is no part of a stream.
    """
    made = [k for k in reads if tensors[k].grad_fn is not None and _is_ours_to_share(tensors[k])]
    if not made:
        return tensors
    found = list(tensors)
    for k in made:
        try:
            found[k] = torch._lazy_clone(found[k])
        except RuntimeError:  # memory that torch has not allocated, as NumPy's
            continue
    return found


def _is_ours_to_share(tensor: Tensor) -> bool:
    base = tensor._base
    plain = type(tensor) is Tensor and tensor.layout is torch.strided and tensor.is_cpu
    return plain and (base is None or not base.is_leaf)
