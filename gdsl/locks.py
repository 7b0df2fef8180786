"""Locks that a forked process has anew: another thread, which is not in it, may have held one at that moment."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref


class Lock:
    """A lock that its holder may take again."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _every.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # it was taken before a fork
            self._lock.release()


_every: weakref.WeakSet[Lock] = weakref.WeakSet()


def _anew() -> None:
    for lock in list(_every):
        lock._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_anew)
