"""What transforms of ``torch.func`` and forward-mode differentiation do to tensors, as the runtime must know it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gdsl.errors import InputError
from gdsl.runtime.tracers import run_as_it_is

# Levels that torch's older vmap can be nested in.
OLD_LEVELS = 64

is_transformed = torch._C._functorch.is_functorch_wrapped_tensor

is_old_batch = torch._C._functorch.is_legacy_batchedtensor


def transforming() -> bool:
    """Whether a transform of torch.func is at work, or a level of forward-mode differentiation is open."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


@run_as_it_is
def ordinary(make: Callable[..., Any], *args: Any) -> Any:
    """What ``make(*args)`` gives, as tensors that every later call can use: a tensor made in inference mode cannot be
    saved for a backward pass, and one made under a transform of torch.func is of no use after it."""
    if torch.is_inference_mode_enabled() or transforming():
        with torch.inference_mode(False), torch._C._DisableFuncTorch():
            return make(*args)
    return make(*args)


def watched(tensors: Sequence[Tensor]) -> list[bool]:
    """For each tensor whether autograd, forward-mode differentiation or a transform may ask how it is used."""
    wrapped = [is_transformed(t) for t in tensors]
    if forward_ad._current_level < 0:
        return [w or t.requires_grad for w, t in zip(wrapped, tensors, strict=True)]
    if True in wrapped or torch._C._are_functorch_transforms_active():
        # Under vmap tangents cannot be looked at.
        return [True] * len(tensors)
    return [t.requires_grad or forward_ad.unpack_dual(t).tangent is not None for t in tensors]


def by_row(function: Callable[[Sequence[Tensor]], Sequence[Tensor]], tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """A function of tensors, one call for each row of a batch that torch's older vmap has made of some of them.

    ``is_grads_batched`` and ``vectorize`` run the backward under that vmap, whose tensors have no memory to read. What
    autograd records lies below it, so that the calls can be differentiated as others.
    """
    batched = [is_old_batch(t) for t in tensors]
    if True not in batched:
        return function(tensors)
    level = _old_level(tensors[batched.index(True)])
    whole = [torch._remove_batch_dim(t, level, 1, 0) if b else t for t, b in zip(tensors, batched, strict=True)]
    rows = len(whole[batched.index(True)])
    # Of no rows the shapes are still to be told.
    calls = [
        function([t[k] if b else t for t, b in zip(whole, batched, strict=True)])
        if rows
        else function([t.new_zeros(t.shape[1:]) if b else t for t, b in zip(whole, batched, strict=True)])
        for k in range(max(rows, 1))
    ]
    return [torch._add_batch_dim(torch.stack(found)[:rows], 0, level) for found in zip(*calls, strict=True)]


def _old_level(tensor: Tensor) -> int:
    """The one level of torch's older vmap that a tensor is batched at: without it nothing is."""
    for level in range(1, OLD_LEVELS + 1):
        if not is_old_batch(torch._remove_batch_dim(tensor, level, 1, 0)):
            return level
    raise InputError("vectorised derivatives of vectorised derivatives are not possible: use torch.func")


def concrete(tensor: Tensor, name: str) -> Tensor:
    """The tensor itself under the wrappers of transforms, for integers whose values must be read.

    Raises :class:`gdsl.InputError` where vmap has a batch of them, of which there is no one value.
    """
    while not torch.compiler.is_compiling() and is_transformed(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            raise InputError(f"`{name}` is batched by vmap, and its values decide what runs: vmap over other inputs")
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor
