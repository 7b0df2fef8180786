"""The typed program of a layer for a way of calling it."""

from __future__ import annotations

from collections.abc import Mapping

import gdsl
from gdsl.language.check import check
from gdsl.language.program import TypedProgram


def typed_of(
    layer: gdsl.Layer,
    training: bool = False,
    present: frozenset[str] = frozenset(),
    free: Mapping[str, int] | None = None,
) -> TypedProgram:
    return check(
        layer.definition,
        layer.arguments,
        modules=layer._text.modules_of(layer),
        training=training,
        present=present,
        free_dims=free or {},
    )
