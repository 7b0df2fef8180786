"""The arguments of the library's layers where a text calls them: those of their classes in ``gdsl.nn``, by the same
names and in the same order, and what they are to the programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gdsl.language import ast
from gdsl.language.values import Argument


def _itself(value: Any) -> bool:
    return bool(value)


def _given(value: Any) -> bool:
    return True


_MODULES = {"aggr": "aggr_module"}
_EDGES = {"edge_dim": {"lin_edge": _given}}


@dataclass(frozen=True)
class ClassCall:
    """How a class is called.

    A program has arguments of its own besides, which a text gives by name: whether a part is there, for one.

    order:   its arguments by place, without the sizes that come with the inputs
    called:  what the program calls them, where that is another name
    brings:  arguments of the program that follow from one of the class
    choices: the values that an argument may have
    """

    order: tuple[str, ...]
    called: Mapping[str, str]
    brings: Mapping[str, Mapping[str, Callable[[Any], bool]]]
    choices: Mapping[str, tuple[Any, ...]]

    def complete(self, given: dict[str, Argument]) -> None:
        """Add what follows from what is given, where the text does not say it itself."""
        for name, others in self.brings.items():
            if name in given:
                for other, follows in others.items():
                    given.setdefault(other, Argument(follows(given[name].value), None, given[name].span))


def _call(
    order: str,
    called: Mapping[str, str] = {},
    brings: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {},
    choices: Mapping[str, tuple[Any, ...]] = {},
) -> ClassCall:
    return ClassCall(tuple(order.split()), {**_MODULES, **called}, brings, choices)


_ATTENTION = "out_channels heads concat negative_slope dropout add_self_loops edge_dim fill_value bias"

CLASSES: Mapping[str, ClassCall] = {
    "AGNNConv": _call("requires_grad add_self_loops"),
    "APPNP": _call("K alpha dropout cached add_self_loops normalize"),
    "CGConv": _call("channels dim aggr batch_norm bias"),
    "EdgeConv": _call("nn aggr"),
    "FeaStConv": _call("out_channels heads add_self_loops bias"),
    "GATConv": _call(
        f"{_ATTENTION} residual", {"residual": "res"}, {"edge_dim": {"lin_edge": _given, "att_edge": _given}}
    ),
    "GATv2Conv": _call(f"{_ATTENTION} share_weights residual", {"residual": "res"}, _EDGES),
    "GCNConv": _call("out_channels improved cached add_self_loops normalize bias"),
    "GINConv": _call("nn eps train_eps", {"eps": "initial_eps", "train_eps": "learned"}),
    "GraphConv": _call("out_channels aggr bias"),
    "LEConv": _call("out_channels bias"),
    "LGConv": _call("normalize"),
    "MFConv": _call("out_channels max_degree bias"),
    "ResGatedGraphConv": _call("out_channels act edge_dim root_weight bias", {"root_weight": "lin_skip"}),
    "SAGEConv": _call(
        "out_channels aggr normalize root_weight project bias",
        brings={"project": {"lin": _itself}, "root_weight": {"lin_r": _itself}},
    ),
    "SGConv": _call("out_channels K cached add_self_loops bias"),
    "SSGConv": _call("out_channels alpha K cached add_self_loops bias"),
    "SimpleConv": _call("aggr combine_root", {"combine_root": "root"}, choices={"root": ("sum", "cat", None)}),
    "SuperGATConv": _call(
        "out_channels heads concat negative_slope dropout add_self_loops bias attention_type neg_sample_ratio "
        "edge_sample_ratio is_undirected",
        brings={"attention_type": {"att_l": lambda kind: kind == "MX", "att_r": lambda kind: kind == "MX"}},
        choices={"attention_type": ("MX", "SD")},
    ),
    "TAGConv": _call("out_channels K bias normalize"),
    "TransformerConv": _call(
        "out_channels heads concat beta dropout edge_dim bias root_weight", {"beta": "lin_beta"}, _EDGES
    ),
}


def class_of(layer: ast.Layer) -> ClassCall | None:
    """How the class of a layer is called, if it is one of the library."""
    return CLASSES.get(layer.name) if layer.file.startswith("gdsl's ") else None


def class_reads(layer: ast.Layer, name: str) -> str | None:
    """What to write so that a layer of the library reads its edge features."""
    made = class_of(layer)
    if made is None or name != "e":
        return None
    size = next((n for n in ("edge_dim", "dim") if n in made.order), None)
    return size and f"`{size} = ...` where {layer.name} gets its arguments, the size of edge features, has them read"
