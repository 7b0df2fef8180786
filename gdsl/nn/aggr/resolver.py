"""Aggregations by name."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any


def aggr_resolver(query: Any, **kwargs: Any) -> Any:
    """An aggregation by its name, as torch_geometric takes it: "mean", "MeanAggregation", a list of them.

    Raises ValueError for a name that there is not. What is no name is given back.
    """
    # The classes know this function: MultiAggregation takes names itself.
    every = import_module("gdsl.nn.aggr")
    if isinstance(query, list | tuple):
        return every.MultiAggregation(query, **kwargs)
    if not isinstance(query, str):
        return query
    words = _words()
    word = _plain(query).removesuffix("aggregation")
    if word not in words:
        raise ValueError(f"Could not resolve '{query}' among choices {sorted({*words.values(), 'add'})}")
    return getattr(every, words[word])(**kwargs)


@functools.cache
def _words() -> dict[str, str]:
    """The names of the classes by what is written for them. Every layer asks."""
    kinds = [name for name in import_module("gdsl.nn.aggr").__all__ if name[0].isupper()]
    return {_plain(name).removesuffix("aggregation"): name for name in kinds} | {"add": "SumAggregation"}


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
