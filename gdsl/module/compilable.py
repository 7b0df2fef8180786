"""What a tracer of torch asks a module with programs for, as constants: see :mod:`gdsl.module.compiled`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from gdsl.errors import GdslError
from gdsl.module import compiled
from gdsl.module.compiled import Staged
from gdsl.module.ways import Text, Way


class Compilable(nn.Module):
    """A module whose calls are programs of texts."""

    backend: str

    def _way(self, key: Any) -> tuple[Text, Way]:
        """The program that the key of a compiled call names."""
        raise NotImplementedError

    def _children(self) -> Sequence[nn.Module]:
        """The modules that a program may read."""
        raise NotImplementedError

    def _as_said(self, error: GdslError, key: Any) -> GdslError:
        """The error of a call in the words of its user."""
        return error

    def _staged(self, key: Any) -> Staged:
        """The program for a graph that is not known."""
        text, way = self._way(key)
        typed = text.typed_for(self, way)
        made: Staged = text.store.programs.once(
            (way, self.backend), lambda: Staged.of(typed, text.options, self.backend)
        )
        return made

    @compiled.constant_for_tracer
    def _fields(self) -> tuple[tuple[str, ...], ...]:
        """What a tracer looks at in modules: see :func:`gdsl.module.compiled.fields_of`."""
        return compiled.fields_of(self._children())

    @compiled.constant_for_tracer
    def _known(self, what: str, key: Any, *given: Any) -> Any:
        """What is known of a call before it runs: see :func:`gdsl.module.compiled.known`."""
        return compiled.known(lambda: self._staged(key), what, given, lambda error: self._as_said(error, key))
