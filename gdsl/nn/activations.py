"""Functions between layers, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def activation(query: str | Callable[[Tensor], Tensor] | None, **kwargs: Any) -> Any:
    """A function by the name of its class in torch.nn, whatever its case; what is no name is given back.

    Raises ValueError for a name that there is not.
    """
    if not isinstance(query, str):
        return query
    word = query.lower().replace("_", "").replace("-", "").replace(" ", "")
    kinds = {name.lower(): kind for name, kind in vars(nn.modules.activation).items() if isinstance(kind, type)}
    kinds["swish"] = nn.SiLU
    if word not in kinds or not issubclass(kinds[word], nn.Module):
        raise ValueError(f"Could not resolve '{query}' among choices {sorted(kinds)}")
    return kinds[word](**kwargs)
