"""Layers that are a program and a declaration: see :mod:`gdsl.nn.declared`."""

from __future__ import annotations

import functools
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gdsl.module import compiled
from gdsl.module.repeated import repeatable
from gdsl.nn.blueprint import Blueprint
from gdsl.nn.conv.base import Conv, program_of
from gdsl.nn.conv.inputs import Adjacency, Features, Size, as_module, edge_features, pair_of, see
from gdsl.nn.declared import Fields, InitVar, declare, field
from gdsl.runtime.graph import Graph

__all__ = ["Declared", "InitVar", "Summed", "Weighted", "field"]

# What programs call some attributes of layers.
ATTRIBUTES = {"p": "dropout", "slope": "negative_slope", "loops": "add_self_loops", "fill": "fill_value"}


@functools.cache
def blueprint_of(program: str) -> Blueprint:
    """The parts of a program of the library."""
    return Blueprint(program_of(program))


def _kept(value: Any) -> nn.Module | None:
    return None if value is None else as_module(value)


@functools.cache
def _plan_of(kind: type[Declaring]) -> tuple[tuple[Any, ...], ...]:
    """The linear maps of a layer with the inputs that tell their sizes, the parameters whose sizes come with the first
    call, and the arguments that it gives its program: the name, the attribute, and what is done with that."""
    blueprint, types = blueprint_of(kind.program_name), kind._declared.types
    optional = [part.name for part in blueprint.parts if part.optional and part.role == "param"]
    given = []
    for name in dict.fromkeys([*blueprint.arguments, *optional]):
        own = ATTRIBUTES.get(name, name)
        if name in optional:
            given.append((name, name, "part"))
        elif own in kind._tells or (own in types and own not in kind._declared.passing):
            given.append((name, own, "width" if name == "in_channels" else types.get(own, "")))
    return blueprint.lazy, blueprint.late, tuple(given)


@dataclass_transform(eq_default=False, field_specifiers=(field,))
class Declaring(Conv):
    """What a class with a ``program`` among its keywords becomes. Its body names the arguments of the constructor. The
    parts of the program are made after ``_setup``, and drawn as the program says, in the order of its text.

    program: a file of ``gdsl/nn/programs``
    shows:   see :mod:`gdsl.nn.declared`
    tells:   attributes besides the arguments of the constructor that are arguments of the program
    aggr:    how messages meet, where no argument says it; None leaves it to :class:`Conv`
    fixed:   arguments of :class:`Conv` that a user has no choice of
    parts:   whether the parts are the program's; otherwise the class makes and draws them itself
    drawn:   whether the parameters are drawn again when all are there, as torch_geometric does it in most layers

    ``_aggregates``, if there is one, makes the aggregation of that argument and the further ones.
    """

    _declared: ClassVar[Fields] = Fields({}, (), ())
    _tells: ClassVar[tuple[str, ...]] = ()
    _has_parts: ClassVar[bool] = False

    def __init_subclass__(
        cls,
        program: str = "",
        shows: str = "",
        tells: str = "",
        aggr: Any = "add",
        fixed: str = "",
        parts: bool = True,
        drawn: bool = True,
    ) -> None:
        super().__init_subclass__()
        if not program:
            return
        inherited = hasattr(cls, "program_name")
        cls._has_parts = parts
        cls.program_name, cls._tells = program, (*cls._tells, *tells.split())
        written = get_annotations(cls)
        if "__init__" in cls.__dict__ or (inherited and not written):
            return
        own, making = "aggr" in written, hasattr(cls, "_aggregates")
        taken = ["aggr"] if own or making else []
        first = [f"super(kind, self).__init__({', '.join([*taken, *([fixed] if fixed else []), '**kwargs'])})"]
        if making:
            first.insert(0, f"aggr = self._aggregates({'aggr' if own else None}, kwargs)")
        elif not own and aggr is not None:
            first.insert(0, f"kwargs.setdefault('aggr', {aggr!r})")
        last = ["made = self._make()"] if parts else []
        declare(cls, shows, "kwargs", first, last, _kept, "aggr", drawn)

    if TYPE_CHECKING:  # parts are made by the program

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    # -- parts -----------------------------------------------------------------------------------

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        """What names in the declarations of the program stand for, besides arguments and attributes of the layer, which
        are given: whether an optional part is there, or a size."""
        return {}

    def _values(self) -> dict[str, Any]:
        values = {**blueprint_of(self.program_name).arguments, "bipartite": True, **self.__dict__}
        for name in ("in_channels", "channels"):
            if name in values:
                sources, targets = pair_of(values[name])
                values[name], values["in_target"] = sources or -1, targets or -1
        values.update(self._sizes(values))
        return values

    def _make(self) -> set[str]:
        """Make the parts that the layer has not yet, or None where it has none. Their names."""
        made: set[str] = set()
        own, values = self.__dict__, self._values()
        modules, params, buffers = self._modules, self._parameters, self._buffers
        places: dict[str, Any] = {"linear": modules, "param": params, "buffer": buffers}
        for part in blueprint_of(self.program_name).parts:
            name = part.name
            if part.role == "module" or name in modules or name in params or name in buffers:
                continue
            if not part.there(values):
                continue
            made.add(name)
            if part.optional and not values.get(name):
                if name in values:
                    own[name] = None
                continue
            own.pop(name, None)
            places[part.role][name] = value = part.make(values)
            if part.role == "buffer":
                part.draw(value, values)
        return made

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        values: dict[str, Any] = {}
        for name, part in blueprint_of(self.program_name).named.items() if self._has_parts else ():
            if name == "aggr_module" or part.role == "buffer" or "Callable" in self._declared.types.get(name, ""):
                continue
            value = self._modules.get(name)
            value = getattr(self, name, None) if value is None else value
            if value is not None:
                values = values or (self._values() if part.arguments else values)
                part.draw(value, values)

    # -- the call --------------------------------------------------------------------------------

    @compiled.constant_for_tracer
    def _plan(self) -> Any:
        kind: Any = type(self)
        return _plan_of(kind)

    def _compute(self, graph: Any, inputs: dict[str, Tensor | None], **arguments: Any) -> Tensor:
        """:meth:`run` with the arguments that the layer has itself, after lazy maps have seen the inputs. Several
        results are a tuple."""
        lazy, late, given = self._plan()
        for name, of in lazy:
            lins = self._modules.get(name)
            if lins is not None:
                for lin in lins.children() if isinstance(lins, nn.ModuleList) else (lins,):
                    if hasattr(type(lin), "see"):
                        see((lin, inputs.get(of)))
        if late and any(isinstance(self._parameters.get(name), UninitializedParameter) for name in late):
            self._materialize(inputs["x"])
        found = {}
        for name, own, kind in given:
            value = getattr(self, own)
            if kind == "float":
                value = float(value)
            elif kind == "part":
                value = value is not None
            elif kind == "width":
                value, _ = pair_of(value)
                value = value if value > 0 else inputs["x"].shape[-1]  # type: ignore[union-attr]
            found[name] = value
        return self.run(graph, inputs, **{**found, **arguments})

    def _materialize(self, x: Any) -> None:
        """Parameters whose sizes come with the first call."""
        values = {**self._values(), "in_channels": x.shape[-1]}
        for part in blueprint_of(self.program_name).parts:
            value = self._parameters.get(part.name)
            if isinstance(value, UninitializedParameter) and part.there(values):
                value.materialize(part.shape(values))
                part.draw(self._parameters[part.name], values)


class Declared(Declaring):
    """A :class:`Declaring` layer, for those who type its keywords: further arguments are those of :class:`Conv`."""

    if TYPE_CHECKING:
        aggr_kwargs: dict[str, Any] | None = field(default=None, kw_only=True)
        flow: str = field(default="source_to_target", kw_only=True)
        node_dim: int = field(default=-2, kw_only=True)
        decomposed_layers: int = field(default=1, kw_only=True)
        backend: str = field(default="auto", kw_only=True)

    def _applied(
        self,
        x: Features,
        edge_index: Adjacency,
        size: Size = None,
        *,
        edge_weight: Any = ...,
        edge_attr: Any = ...,
        **arguments: Any,
    ) -> Tensor:
        """The layer on one set of nodes or on two, with weights or features of edges where it has them."""
        source, target, bipartite, graph, values = self._between(x, edge_index, size)
        inputs = {"x": source, "z": target}
        if edge_weight is not ...:
            inputs["w"] = self._weights_of(edge_weight, values, source)
        if edge_attr is not ...:
            inputs["e"] = edge_features(edge_attr, values, edge_index)
        return self._compute(graph, inputs, bipartite=bipartite, **arguments)


class Summed(Declared):
    """A :class:`Declared` layer whose aggregation is among the further arguments."""

    if TYPE_CHECKING:
        aggr: Any = field(default="add", kw_only=True)


class Weighted(Summed):
    """A layer of weighted sums on one set of nodes. It may add self-loops, divide by degrees, and keep its graph."""

    def _weights(
        self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None, fill: float = 1.0
    ) -> tuple[Graph, Tensor | None]:
        """The graph and its weights, as the arguments ``normalize``, ``add_self_loops`` and ``cached`` have it.

        fill: the weight of self-loops
        """
        has, own = self._declared.types, self.__dict__
        norm = "normalize" not in has or own["normalize"]
        loops = fill if norm and "add_self_loops" in has and own["add_self_loops"] else 0.0
        keep = norm and "cached" in has and own["cached"]
        return self.weighted(x, edge_index, edge_weight, keep=keep, loops=loops, normed=norm)

    @repeatable
    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels] and weights [E] to [N, out_channels]."""
        graph, weight = self._weights(x, edge_index, edge_weight)
        return self._compute(graph, {"x": x, "w": weight})
