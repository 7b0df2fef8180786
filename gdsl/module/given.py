"""What a call of a text is given, checked but for its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.language.program import TypedProgram
from gdsl.module.arguments import Bound, bind, count_graphs, free_sizes
from gdsl.module.checks import check_tensors
from gdsl.module.state import state_of
from gdsl.module.ways import Text, Way
from gdsl.runtime.dtypes import autocast
from gdsl.runtime.tracers import check_tracers


@dataclass(frozen=True)
class CallArguments:
    """The arguments of a call, and what they say.

    way, typed:    the way of calling the text, and its program
    tensors:       inputs, parameters and buffers by name
    dtype, device: of all of these
    num_graphs:    in the batch
    """

    bound: Bound
    way: Way
    typed: TypedProgram
    tensors: dict[str, Tensor]
    dtype: torch.dtype
    device: torch.device
    num_graphs: int


def given_to(
    text: Text, owner: nn.Module, inside: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> CallArguments:
    """What a call of a text on a module is given. Raises :class:`gdsl.InputError` where it does not fit."""
    check_tracers((*args, *kwargs.values()))
    bound = bind(text.signature, args, kwargs)
    given = {name: value for name, value in bound.values.items() if value is not None}
    way = text.way(owner, given, free_sizes(text.signature, given, text.free_sizes))
    typed = text.typed_for(owner, way)
    inputs = {d.name: given[d.name] for d in typed.of_role("input") if d.name in given}
    tensors = autocast({**inputs, **state_of(typed, owner, inside)})
    dtype, device = check_tensors(tensors, typed)
    num_graphs = count_graphs(bound.batch, bound.num_graphs, device)
    return CallArguments(bound, way, typed, tensors, dtype, device, num_graphs)
