"""Whether two models do the same: outputs and gradients on one input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gdsl.errors import InputError
from gdsl.runtime.dtypes import short

# How far apart two numbers may be, by the largest of their tensor: some hundred roundings.
_NEAR = {torch.float64: 1e-8, torch.complex128: 1e-8, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_NEAR_ELSE = 1e-3


class Different(InputError):
    """Two models that should do the same and do not."""


def check_same(before: nn.Module, after: nn.Module, sample: Any, tolerance: float | None) -> None:
    """Run two models on the same parameters in evaluation mode.

    sample:    the arguments of a call: a tuple, a dict of named ones, or the only one
    tolerance: how far results may be apart, by the largest number of a tensor

    Raises :class:`Different` with the tensors that are not the same, and :class:`gdsl.InputError` for a model that has
    sizes to learn from its first call.
    """
    if any(isinstance(p, UninitializedParameter) for p in before.parameters()):
        raise InputError(
            "the model has sizes that its first call tells, and a sample would be that call: call the model once "
            "before, or leave `sample` out"
        )
    names = [name for name, _ in before.named_parameters()]
    found, wanted = (_outcome(model.eval(), sample, names) for model in (after, before))
    if found.keys() != wanted.keys():
        raise Different(f"on the sample it gives {', '.join(found)}, and before {', '.join(wanted)}")
    # A gradient that is 0 but for roundings is as exact as those that it is the rest of.
    most = max((_size(value) for value in wanted.values()), default=0.0)
    wrong = [line for name in wanted if (line := _difference(name, found[name], wanted[name], tolerance, most))]
    if wrong:
        raise Different("the converted model is another one on the sample:\n  " + "\n  ".join(wrong))


def _size(value: Tensor) -> float:
    """The largest finite number of a tensor."""
    numbers = value.abs()[value.isfinite()] if value.is_floating_point() or value.is_complex() else value[:0]
    return float(numbers.max()) if numbers.numel() else 0.0


def _difference(name: str, found: Tensor, wanted: Tensor, tolerance: float | None, most: float) -> str:
    """What is wrong with a tensor, or nothing."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        kinds = [f"{short(t.dtype)}{list(t.shape)}" for t in (found, wanted)]
        return f"{name} is {kinds[0]}, and was {kinds[1]}"
    if not wanted.numel() or torch.equal(found, wanted):
        return ""
    exact = not (wanted.is_floating_point() or wanted.is_complex())
    near = 0.0 if exact else _NEAR.get(wanted.dtype, _NEAR_ELSE) if tolerance is None else tolerance
    wide = torch.complex128 if wanted.is_complex() else torch.float64
    a, b = found.to(wide), wanted.to(wide)
    if not torch.equal(a.isfinite(), b.isfinite()):
        odd = [int((~t.isfinite()).sum()) for t in (a, b)]
        return f"{name} has {odd[0]} numbers that are not finite, or others than before, when there were {odd[1]}"
    gaps = torch.where(b.isfinite(), (a - b).abs(), 0.0)
    gap, size = float(gaps.max()), _size(wanted)
    noise = 0.0 if exact else 64 * torch.finfo(wanted.dtype).eps * most
    if gap <= near * size + noise:
        return ""
    place = tuple(int(k) for k in torch.unravel_index(gaps.argmax(), gaps.shape))
    numbers = f"{a[place]:.6g}, and was {b[place]:.6g}"
    return f"{name} is {gap:.2e} off at {list(place)}, of numbers up to {size:.2e}: {numbers}"


def _outcome(model: nn.Module, sample: Any, names: list[str]) -> dict[str, Tensor]:
    """Outputs, and gradients of a sum of them, each number by another weight, by parameters and inputs."""
    inputs: dict[str, Tensor] = {}
    args, kwargs = _arguments(sample, inputs)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        outputs = dict(_tensors("output", model(*args, **kwargs)))
    own = dict(model.named_parameters())
    asked = {f"the gradient of {k}": v for k, v in {**{n: own[n] for n in names}, **inputs}.items() if v.requires_grad}
    found = {name: value.detach() for name, value in outputs.items()}
    score: Any = 0.0
    for value in outputs.values():
        if value.requires_grad:
            weights = torch.linspace(0.5, 1.5, max(value.numel(), 1), device=value.device)[: value.numel()]
            real = torch.view_as_real(value).sum(-1) if value.is_complex() else value
            score = score + (real * weights.view(value.shape).to(real.dtype)).sum()
    if asked and isinstance(score, Tensor):
        try:
            grads = torch.autograd.grad(score, list(asked.values()), allow_unused=True)
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            raise InputError(
                "a part of the model is recomputed by torch.utils.checkpoint with use_reentrant=True, as `ckpt_grad` "
                "does, so that torch gives no gradients to compare: switch that off for it, or leave `sample` out"
            ) from error
        for (name, value), grad in zip(asked.items(), grads, strict=True):
            grad = torch.zeros_like(value) if grad is None else grad
            found[name] = grad.to_dense() if grad.is_sparse else grad
    return found


def _arguments(sample: Any, inputs: dict[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments; the tensors of real numbers among them ask for gradients, and are noted."""

    def asking(value: Any, name: str) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point() and value.layout is torch.strided:
            inputs[name] = value.detach().clone().requires_grad_()
            return inputs[name]
        if type(value) in (list, tuple):
            return type(value)(asking(v, f"{name}[{k}]") for k, v in enumerate(value))
        return {k: asking(v, f"{name}[{k!r}]") for k, v in value.items()} if type(value) is dict else value

    if type(sample) is dict:
        return (), {name: asking(value, f"`{name}`") for name, value in sample.items()}
    values = sample if type(sample) is tuple else (sample,)
    return tuple(asking(value, f"argument {k}") for k, value in enumerate(values)), {}


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value.to_dense() if value.layout is not torch.strided else value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(f"{name}[{key!r}]", part)
    elif isinstance(value, list | tuple):
        for k, part in enumerate(value):
            yield from _tensors(f"{name}[{k}]", part)
