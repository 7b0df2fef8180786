"""What a program asks of its graph, ``graph add_self_loops`` and the like, done before any kernel runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from gdsl.errors import InputError
from gdsl.ir.types import Domain
from gdsl.language.program import MAKERS, TypedProgram
from gdsl.runtime.graph import Graph, Rewired, rewire_edge_value


def rewire(typed: TypedProgram, graph: Graph, tensors: dict[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """The graph that the rules see, and the edge inputs on it. Differentiable by the edge inputs."""
    for rewired, fills in rewirings(typed, graph):
        for d in typed.of_role("input"):
            if d.type is not None and d.type.domain is Domain.EDGE and d.name in tensors:
                tensors = {**tensors, d.name: edge_values(d.name, d.default, rewired, tensors[d.name], fills)}
        graph = rewired.graph
    return graph, tensors


def rewirings(typed: TypedProgram, graph: Graph) -> Iterator[tuple[Rewired, Mapping[str, object]]]:
    """Each change that a program asks of its graph, on the graph that the one before has made, and what the inputs of
    new loops are by name. A graph that the program makes itself is made before a call."""
    for transform in typed.transforms:
        if transform.name not in MAKERS:
            made: Rewired = getattr(graph, transform.name)()
            yield made, dict(transform.keywords)
            graph = made.graph


def edge_values(
    name: str, default: float | None, rewired: Rewired, value: Tensor, fills: Mapping[str, object]
) -> Tensor:
    """The values of an edge input on the new edges; ``fills`` says by name what a new loop gets.

    Raises ``InputError`` where nothing says it.
    """
    if rewired.kept is None and rewired.added is None:
        return value
    fill = fills.get(name, default)
    if fill is None and rewired.added is not None:
        raise InputError(
            f"edge input `{name}` has no value on the self-loops that the layer adds: say which, as in "
            f'`graph add_self_loops({name} = 1)` or `({name} = "mean")`'
        )
    return rewire_edge_value(rewired, value, fill if fill is not None else 0.0)  # type: ignore[arg-type]
