"""A call of a layer on several graphs with what has types of nodes and of edges: dicts by type, as torch_geometric's
``HeteroConv`` takes them, or a ``HeteroData`` itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gdsl.errors import InputError
from gdsl.language import ast
from gdsl.language.signature import Input, Signature

# A type of nodes, or the types of an edge's source, the name of the edge, and the type of its target.
Type = str | tuple[str, str, str]
# What an input is, in this order, that no attribute has the name of.
_PLAIN = {"node": ("x",), "edge": ("edge_attr", "edge_weight")}
_DICT = "_dict"


@dataclass(frozen=True)
class Named:
    """The arguments of a call by name, and which type each graph and set of nodes is: "" is the only set."""

    arguments: Mapping[str, Any]
    types: Mapping[str, Type]


def is_by_type(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call gives values by type."""
    first = args[0] if args else None
    return isinstance(first, Mapping) or hasattr(first, "node_types") or any(name.endswith(_DICT) for name in kwargs)


def named(layer: ast.Layer, signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Named:
    """``layer(x_dict, edge_index_dict, edge_attr_dict=...)`` or ``layer(data)``, by the names of the text.

    A set is the type of nodes of its name. A graph is the type of edges between its sets whose name it has:
    ``writes: author -> paper`` is ("author", "writes", "paper"), and so is one called ``author_writes_paper``. An input
    is the attribute of its name, as ``pos_dict`` gives it; without one it is ``x``, or ``edge_attr`` of edges.

    Raises :class:`gdsl.InputError` where something that the layer reads is not there.
    """
    others: Mapping[str, Any] = kwargs
    if args and not isinstance(args[0], Mapping):
        data = args[0]
        if len(args) > 1 or not hasattr(data, "node_types"):
            raise InputError(f"{signature.name} takes all by type, x_dict and the like or one HeteroData, or nothing")
        stores: dict[Type, Any] = {key: data[key] for key in (*data.node_types, *data.edge_types)}
    else:
        stores, others = _by_type(signature, args, kwargs)
    types = _types(layer, signature, stores)
    found = {name: _edges(stores[types[name]], types[name]) for name in signature.graphs}
    taken: set[str] = set()
    # Where there is one set or graph, an input need not say that it is of it.
    only = {"node": next(name for name in types if name not in signature.graphs), "edge": signature.graphs[0]}
    for domain, one in only.items():
        for place in dict.fromkeys(i.within or one for i in signature.inputs if i.domain == domain):
            inputs = [i for i in signature.inputs if i.domain == domain and (i.within or one) == place]
            found |= _values(inputs, types[place], stores[types[place]], taken)
    if signature.batched and "batch" not in others:
        (nodes,) = (kind for kind in types.values() if isinstance(kind, str))  # whole graphs are of one set
        found["batch"] = _get(stores[nodes], "batch")
        taken.add("batch")
    _check_read(signature, stores, taken, args)
    return Named({**found, **others}, types)


def _by_type(
    signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[Type, dict[str, Any]], dict[str, Any]]:
    """What dicts by type have, as attributes of each type; and the other arguments."""
    places = ("x_dict", "edge_index_dict")
    if len(args) > len(places):
        raise InputError(f"{signature.name} takes x_dict, edge_index_dict, and other dicts by name: edge_attr_dict=...")
    given: dict[str, Any] = dict(zip(places, args, strict=False))
    for name in given:
        if name in kwargs:
            raise InputError(f"{signature.name} got `{name}` twice")
    given |= kwargs
    stores: dict[Type, dict[str, Any]] = {}
    for name, by_type in given.items():
        if not name.endswith(_DICT):
            continue
        if not isinstance(by_type, Mapping):
            raise InputError(f"`{name}` is a dict by type, not a {type(by_type).__name__}")
        for kind, value in by_type.items():
            stores.setdefault(kind, {})[name.removesuffix(_DICT)] = value
    return stores, {name: value for name, value in given.items() if not name.endswith(_DICT)}


def _types(layer: ast.Layer, signature: Signature, stores: Mapping[Type, Any]) -> dict[str, Type]:
    """The type that each set of nodes and each graph is."""
    nodes = [kind for kind in stores if isinstance(kind, str)]
    edges = [kind for kind in stores if isinstance(kind, tuple) and len(kind) == 3]
    sets = [name.id for s in layer.body if isinstance(s, ast.Sets) for name in s.names]
    types: dict[str, Type] = {}
    for name in sets:
        if name not in nodes:
            raise InputError(f"{signature.name} has nodes `{name}`, and there are those of {_listed(nodes)}")
        types[name] = name
    if not sets:
        if len(nodes) != 1:
            raise InputError(f"{signature.name} has one set of nodes, and there are those of {_listed(nodes)}")
        types[""] = nodes[0]
    for link in (one for s in layer.body if isinstance(s, ast.Graphs) for one in s.links):
        source, target = (types["" if end is None else end.id] for end in (link.source, link.target))
        called = [kind for kind in edges if (kind[0], kind[2]) == (source, target) and link.name in _names(kind)]
        if not called:
            wanted = (source, link.name, target)
            raise InputError(f"{signature.name} has edges {wanted}, and there are those of {_listed(edges)}")
        if len(called) > 1:
            raise InputError(f"graph `{link.name}` of {signature.name} may be any of {_listed(called)}")
        types[link.name] = called[0]
    return types


def _names(kind: tuple[str, str, str]) -> Iterator[str]:
    """What a graph of this type of edges may be called."""
    yield kind[1]
    yield from (between.join(kind) for between in ("_", "__"))


def _values(inputs: Sequence[Input], kind: Type, store: Any, taken: set[str]) -> dict[str, Any]:
    """The inputs of a set or graph; ``taken`` gets the names of the attributes that they are."""
    found = {i.name: value for i in inputs if (value := _get(store, i.name)) is not None}
    taken.update(found)
    left = [i for i in inputs if i.name not in found]
    plain = [name for name in _PLAIN[inputs[0].domain] if name not in found and _get(store, name) is not None]
    wanted = [i for i in left if not i.optional] or left
    if len(wanted) == 1 and plain:
        taken.add(plain[0])
        found[wanted[0].name] = _get(store, plain[0])
        left = [i for i in left if i.name != wanted[0].name]
    missing = [f"`{i.name}`" for i in left if not i.optional]
    if missing:
        one = f"{missing[0]} or `{_PLAIN[inputs[0].domain][0]}`"
        what = one if len(missing) == 1 else f"{' and no '.join(missing)}, of which one may have another name"
        raise InputError(f"{kind!r} has no {what}, which the layer reads: it has {_listed(store.keys())}")
    return found


def _get(store: Any, name: str) -> Any:
    return store[name] if name in store else None  # noqa: SIM401  a store of a batch has no `get`


def _edges(store: Any, kind: Type) -> Any:
    """The graph of a type of edges: ready, or what it is made of."""
    if isinstance(store, Mapping):
        found = _get(store, "edge_index")
        if found is None:
            raise InputError(f"edge_index_dict has no {kind!r}")
        return found
    return getattr(store, "graph", None) or store


def _check_read(signature: Signature, stores: Mapping[Type, Any], taken: set[str], args: Sequence[Any]) -> None:
    """Raise where a dict was passed by name of which the layer reads nothing. Data may have more than is read."""
    if args and not isinstance(args[0], Mapping):
        return
    given = dict.fromkeys(name for store in stores.values() for name in store)
    unread = [name for name in given if name not in taken and name != "edge_index"]
    if unread:
        raise InputError(f"{signature.name} reads nothing of {unread[0]}{_DICT}")


def _listed(names: Any) -> str:
    return ", ".join(name if isinstance(name, str) else repr(name) for name in names) or "none"
