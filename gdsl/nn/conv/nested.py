"""Layers with parameters inside modules that no program can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gdsl.layer import Layer
from gdsl.nn.conv.base import Conv, program_of
from gdsl.runtime.graph import Graph


class NestedConv(Conv):
    """A layer that hands its program parameters of its parts, under names that the program declares."""

    def run_with(
        self,
        inside: Mapping[str, Tensor | None],
        graph: Graph,
        inputs: Mapping[str, Tensor | None],
        /,
        **arguments: Any,
    ) -> Any:
        """As :meth:`Conv.run`, with these parameters, by name, besides those of the layer itself."""
        self._inside = {name: value for name, value in inside.items() if value is not None}
        try:
            return self.run(graph, inputs, **arguments)
        finally:
            self._inside = {}

    def _layer(self, given: Mapping[str, Tensor], arguments: dict[str, Any]) -> Layer:
        key = (tuple(arguments.items()), tuple(given))
        parameters: Any = {**self._parameters, **self._inside}
        found = self._layers.get(key)
        if found is None:
            owner = nn.Module()
            owner._parameters, owner._buffers, owner._modules = parameters, self._buffers, self._modules
            found = Layer.over(owner, program_of(self.program), arguments, given, self.backend)
            self._layers[key] = found
        # The program is the same for all parameters of a shape.
        found._parameters.update(parameters)
        self._last = key
        return found
