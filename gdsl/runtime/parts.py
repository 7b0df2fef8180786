"""Parts of an object that are made when they are first asked for, by one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from gdsl.locks import Lock
from gdsl.runtime.transforms import ordinary

T = TypeVar("T")

# Shared by all objects, which hold no lock: one could not be pickled.
_locks = [Lock() for _ in range(64)]


class Parts:
    """What has parts that are made when they are first asked for. They lie in its ``__dict__``."""

    def _make(self, name: str, make: Callable[..., Any], *args: Any) -> Any:
        """What ``make(*args)`` gives, made once."""
        parts = self.__dict__
        made = parts.get(name)
        if made is None:
            with _locks[(id(self) >> 6) & 63]:
                made = parts.get(name)
                if made is None:
                    made = parts[name] = ordinary(make, *args)
        return made


class part(Generic[T]):
    """A method of no arguments as an attribute: once it is made, reading it costs no call."""

    def __init__(self, make: Callable[[Any], T]):
        self.make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, found: Parts | None, owner: type) -> T:
        if found is None:
            return self  # type: ignore[return-value]
        return found._make(self.name, self.make, found)
