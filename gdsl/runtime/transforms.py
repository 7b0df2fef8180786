"""What transforms of ``torch.func`` and forward-mode differentiation do to tensors, as the runtime must know it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gdsl.errors import InputError

is_transformed = torch._C._functorch.is_functorch_wrapped_tensor


def transforming() -> bool:
    """Whether a transform of torch.func is at work, or a level of forward-mode differentiation is open."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def watched(tensors: Sequence[Tensor]) -> list[bool]:
    """For each tensor whether autograd, forward-mode differentiation or a transform may ask how it is used."""
    wrapped = [is_transformed(t) for t in tensors]
    if forward_ad._current_level < 0:
        return [w or t.requires_grad for w, t in zip(wrapped, tensors, strict=True)]
    if True in wrapped or torch._C._are_functorch_transforms_active():
        # Under vmap tangents cannot be looked at.
        return [True] * len(tensors)
    return [t.requires_grad or forward_ad.unpack_dual(t).tangent is not None for t in tensors]


def concrete(tensor: Tensor, name: str) -> Tensor:
    """The tensor itself under the wrappers of transforms, for integers whose values must be read.

    Raises :class:`gdsl.InputError` where vmap has a batch of them, of which there is no one value.
    """
    while not torch.compiler.is_compiling() and is_transformed(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            raise InputError(f"`{name}` is batched by vmap, and its values decide what runs: vmap over other inputs")
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor
