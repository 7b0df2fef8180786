"""The tensors that a program reads of the module that it is of."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gdsl.language import parts
from gdsl.language.program import TypedProgram


def state_of(typed: TypedProgram, owner: nn.Module, inside: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters and buffers that a program reads."""
    found = {}
    for d in typed.of_role("param", "buffer"):
        value = inside.get(d.name)
        found[d.name] = parts.tensor_of(owner, d.name) if value is None else value
    return found
