"""What was made of tensors, while these are the same and unchanged.

What counts as unchanged: the same tensor object with the same memory and the same version counter, which every in-place
operation of torch raises. Inference tensors have none: ask :meth:`Tensor.is_inference` first.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

Made = TypeVar("Made")
State = tuple[Any, ...]


class _Entry(NamedTuple):
    tensor: weakref.ref[Tensor]
    state: State
    made: Any


class Unchanged(OrderedDict[Hashable, _Entry], Generic[Made]):
    """What was made of the last ``most`` tensors, by keys that have the tensor's ``id`` in them."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most
        self._anew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._anew)

    def _anew(self) -> None:
        # Another thread may have held it when the process was forked. Taken in every call: a plain one.
        self.lock = threading.RLock()

    def made(self, key: Hashable, tensor: Tensor, plain: Tensor) -> Made | None:
        """What is kept under a key, if it was made of this tensor as it is now; ``plain`` is it without a subclass."""
        with self.lock:
            entry = self.get(key)
            if entry is None or entry.tensor() is not tensor or entry.state != state_of(plain):
                return None
            self.move_to_end(key)
            found: Made = entry.made
            return found

    def keep(self, key: Hashable, tensor: Tensor, state: State, made: Made) -> None:
        """Keep what was made of a tensor when it was so."""

        def forget(dead: weakref.ref[Tensor]) -> None:
            entry = self.get(key)
            if entry is not None and entry.tensor is dead:  # and not that of another one, which has its place
                self.pop(key, None)

        entry = _Entry(weakref.ref(tensor, forget), state, made)
        with self.lock:
            self[key] = entry
            self.move_to_end(key)
            while len(self) > self.most:
                self.popitem(last=False)


def state_of(tensor: Tensor) -> State:
    """What changes when somebody writes to a plain tensor by torch, or gives it other memory."""
    return tensor._version, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
