"""What torch_geometric's tools put on a layer to look at its messages, or to change them: edge masks, and hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gdsl.errors import InputError
from gdsl.module.inspected import Inspected

POINTS = ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")


class _Explain:
    """``layer.explain`` is gdsl's method as long as nobody assigns to it, and then True or False, as an explainer sets
    it for edge masks; None gives the method back.
    """

    def __get__(self, module: Hooked | None, owner: type) -> Any:
        if module is None:
            return Inspected.explain
        flag = module._explaining
        return Inspected.explain.__get__(module, owner) if flag is None else flag

    def __set__(self, module: Hooked, flag: bool | None) -> None:
        if flag:
            module._watch("an edge mask")
        module._explaining = flag
        for part in module._others():
            part.explain = flag


def _registration(point: str, order: str) -> Callable[[Any, Callable[..., Any]], RemovableHandle]:
    def register(self: Hooked, hook: Callable[..., Any]) -> RemovableHandle:
        self._watch(f"a hook on `{point}`", point)
        hooks = self._hooks.setdefault((point, order), OrderedDict())
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        return handle

    what = "(layer, given) -> given" if order == "before" else "(layer, given, result) -> result"
    register.__doc__ = f"Call ``hook`` {order} each ``{point}``: {what}, or None for what there is."
    return register


class Hooked(nn.Module):
    """A layer whose messages others may look at, as on torch_geometric's. Its calls are not fused as long as they do.

    explain:    whether the messages are multiplied by ``_edge_mask``, where that is assigned True or False. gdsl's own
                method of this name, else
    _edge_mask: [E] a number for each edge, or its logit
    _loop_mask: [E] which edges are no loops: those that are left where the layer makes its own
    _apply_sigmoid: whether the mask holds logits
    """

    explain: Any = _Explain()

    # Whether a mask or a hook may be there: all that a call without them asks.
    _watched: bool = False
    _explaining: bool | None = None
    # Attention, while hooks on the messages that it weighs are called.
    _alpha: Tensor | None = None

    # Set by :meth:`_start_watching`, and not here: a parameter may take the place of an attribute of a module alone.
    _edge_mask: Tensor | None
    _loop_mask: Tensor | None
    _apply_sigmoid: bool
    _hooks: dict[tuple[str, str], OrderedDict[int, Callable[..., Any]]]

    # The hooks that there can be on a layer of this class.
    _points: ClassVar[tuple[str, ...]] = POINTS

    def _others(self) -> Sequence[Hooked]:
        """Further modules that messages of this one meet."""
        return ()

    def _start_watching(self) -> None:
        self._watched, self._explaining = False, None
        self._edge_mask = self._loop_mask = None
        self._apply_sigmoid = True
        self._hooks = {}

    def _watch(self, what: str, point: str = "message") -> None:
        """Raises :class:`gdsl.InputError` where a layer has no place for a mask or a hook."""
        if point not in self._points:
            raise InputError(f"{self._get_name()} is computed by a program, which has no place for {what}")
        self._watched = True

    def _is_watched(self) -> bool:
        """Whether there is a mask or a hook now."""
        self._watched = bool(self._explaining) or any(self._hooks.values())
        if not self._watched:
            self._hooks.clear()  # as it was before: native code compares
        return self._watched

    def _has_hooks(self, *points: str) -> bool:
        return any(hooks for (point, _), hooks in self._hooks.items() if point in points)

    def explain_message(self, inputs: Tensor, dim_size: int | None) -> Tensor:
        """The messages times the mask. Explainers put a method of their own in the place of this one.

        inputs:   [E', ...] the messages, with the edges in the dimension of the nodes
        dim_size: the number of targets: so many loops of the layer's own are the last messages, and are not masked

        Raises ValueError where there is no mask, or one for another number of edges.
        """
        mask = self._edge_mask
        if mask is None:
            raise ValueError("Could not find a pre-defined 'edge_mask' to explain. Did you forget to initialize it?")
        given, dim = mask.size(0), self._edge_dim
        edges = inputs.size(dim)
        mask = self._mask_of(mask.sigmoid() if self._apply_sigmoid else mask, edges, dim_size)
        if edges != mask.size(0):
            raise ValueError(
                f"the mask is of {given} edges, and {self._get_name()} sends {edges} messages: set "
                "`explain = False` on the layer to leave it out"
            )
        return inputs * mask.view([-1 if k == dim % inputs.dim() else 1 for k in range(inputs.dim())])

    def _mask_of(self, mask: Tensor, edges: int, dim_size: int | None) -> Tensor:
        """What each message is multiplied by, from what the edges are that the user gave."""
        if edges != mask.size(0) and self._loop_mask is not None and dim_size is not None:
            mask = mask[self._loop_mask]
            mask = mask if edges == mask.size(0) else torch.cat([mask, mask.new_ones(dim_size)])
        return mask

    @property
    def _edge_dim(self) -> int:
        """The dimension of the edges in messages."""
        return 0

    def _hooked(self, point: str, call: Callable[..., Any], *given: Any) -> Any:
        """A call between the hooks before it, which may replace what is given, and those after it."""
        if not self._watched:
            return call(*given)
        given = self._before(point, *given)
        return self._after(point, given, call(*given))

    def _before(self, point: str, *given: Any) -> tuple[Any, ...]:
        for hook in self._hooks.get((point, "before"), {}).values():
            found = hook(self, given)
            given = given if found is None else found if isinstance(found, tuple) else (found,)
        return given

    def _after(self, point: str, given: tuple[Any, ...], out: Any) -> Any:
        for hook in self._hooks.get((point, "after"), {}).values():
            found = hook(self, given, out)
            out = out if found is None else found
        return out

    register_propagate_forward_pre_hook = _registration("propagate", "before")
    register_propagate_forward_hook = _registration("propagate", "after")
    register_message_forward_pre_hook = _registration("message", "before")
    register_message_forward_hook = _registration("message", "after")
    register_aggregate_forward_pre_hook = _registration("aggregate", "before")
    register_aggregate_forward_hook = _registration("aggregate", "after")
    register_message_and_aggregate_forward_pre_hook = _registration("message_and_aggregate", "before")
    register_message_and_aggregate_forward_hook = _registration("message_and_aggregate", "after")
    register_edge_update_forward_pre_hook = _registration("edge_update", "before")
    register_edge_update_forward_hook = _registration("edge_update", "after")
