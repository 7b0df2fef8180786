"""What is kept of what was made: bounded, and safe with threads."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from gdsl.locks import Lock

# Things of a kind that are kept: a stream of all kinds of calls must not fill the memory.
MOST = 256

Made = TypeVar("Made")


class Anew:
    """What shallow copies and replicas of a module share, and a deep copy or a pickle of it has anew."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return type(self)()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class Kept(Anew, dict[Any, Any]):
    """What was made, by what it was made of. Where it is full the oldest goes."""

    most = MOST

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What was made for a key; it is made now, by one thread, if nothing is kept."""
        found: Made | None = self.get(key)
        if found is None:
            with self._lock:
                found = self.get(key)
                if found is None:
                    found = make()
                    self.keep(key, found)
        return found

    def keep(self, key: Hashable, value: Any) -> None:
        """Keep a value, in the place of the one that the key had."""
        with self._lock:
            if len(self) >= self.most and key not in self:
                del self[next(iter(self))]
            self[key] = value
