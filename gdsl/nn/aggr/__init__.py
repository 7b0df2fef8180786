"""Aggregations: what a node makes of the values on its edges. Interface and names of ``torch_geometric.nn.aggr``.

An aggregation says with ``read_aggregation`` what it computes, so that a layer that has one as its ``aggr_module``
fuses it with its messages. By itself it is a layer too: ``aggr(x, index)``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gdsl.nn.aggr.base import Aggregation
from gdsl.nn.aggr.basic import (
    MaxAggregation,
    MeanAggregation,
    MinAggregation,
    MulAggregation,
    StdAggregation,
    SumAggregation,
    VarAggregation,
    VariancePreservingAggregation,
)
from gdsl.nn.aggr.learned import PowerMeanAggregation, SoftmaxAggregation
from gdsl.nn.aggr.multi import DegreeScalerAggregation, MultiAggregation
from gdsl.nn.aggr.networks import AttentionalAggregation, DeepSetsAggregation, GRUAggregation, LSTMAggregation, Set2Set
from gdsl.nn.aggr.order import MedianAggregation, QuantileAggregation, SortAggregation
from gdsl.nn.aggr.resolver import aggr_resolver

# Large networks, imported on first use: every layer imports this module.
_LATER = {
    "EquilibriumAggregation": "equilibrium",
    "GraphMultisetTransformer": "sets",
    "LCMAggregation": "blocks",
    "MLPAggregation": "blocks",
    "PatchTransformerAggregation": "blocks",
    "SetTransformerAggregation": "sets",
}

__all__ = [
    *_LATER,
    "Aggregation",
    "AttentionalAggregation",
    "DeepSetsAggregation",
    "DegreeScalerAggregation",
    "GRUAggregation",
    "LSTMAggregation",
    "MaxAggregation",
    "MeanAggregation",
    "MedianAggregation",
    "MinAggregation",
    "MulAggregation",
    "MultiAggregation",
    "PowerMeanAggregation",
    "QuantileAggregation",
    "Set2Set",
    "SoftmaxAggregation",
    "SortAggregation",
    "StdAggregation",
    "SumAggregation",
    "VarAggregation",
    "VariancePreservingAggregation",
    "aggr_resolver",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'gdsl.nn.aggr' has no attribute {name!r}")
    value = getattr(import_module(f"gdsl.nn.aggr.{_LATER[name]}"), name)
    globals()[name] = value
    return value
