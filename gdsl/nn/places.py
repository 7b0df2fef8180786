"""What torch's functions do to the places of tensors of all edges: see :mod:`gdsl.nn.symbolic`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Type
from gdsl.nn.symbolic import FreshNames, TensorValue, Untraceable, apart, check_real, operand


def _sizes(shape: tuple[Any, ...]) -> list[int]:
    sizes = list(shape[0] if len(shape) == 1 and isinstance(shape[0], list | tuple | torch.Size) else shape)
    if any(type(s) is not int for s in sizes):
        raise Untraceable("sizes that are no numbers")
    return sizes


def view(names: FreshNames, x: TensorValue, /, *shape: Any) -> TensorValue:
    """[E, ...] as another [E, ...]."""
    sizes = _sizes(shape)
    total = names.edges * math.prod(x.sizes)
    if -1 in sizes:
        known = math.prod(s for s in sizes if s != -1)
        if known <= 0 or total % known or sizes.count(-1) > 1:
            raise Untraceable("a view of sizes that do not fit")
        sizes[sizes.index(-1)] = total // known
    if not sizes or sizes[0] != names.edges or min(sizes) < 0 or math.prod(sizes[1:]) != math.prod(x.sizes):
        raise Untraceable("a view that mixes edges and features")
    return _shaped(names, x, sizes[1:])


def _shaped(names: FreshNames, x: TensorValue, sizes: Sequence[int]) -> TensorValue:
    """The same numbers of each edge under these sizes."""
    order = [a for a in x.axes if a is not None]
    node = build.transpose(x.node, order) if order != list(x.node.type.names) else x.node
    old = list(node.dims)
    new = [Dim(names.fresh(), s) for s in sizes if s != 1]
    if [d.size for d in new] == [d.size for d in old]:
        new = old
    else:
        node = build.reshape_like(node, Type(node.domain, tuple(new), node.kind))
    kept = iter(d.name for d in new)
    return TensorValue(node, tuple(None if s == 1 else next(kept) for s in sizes))


def flatten(names: FreshNames, x: TensorValue, start_dim: int = 0, end_dim: int = -1) -> TensorValue:
    first, last = x.axis(start_dim), x.axis(end_dim)
    if first > last:
        raise Untraceable("a flattening backwards")
    return _shaped(names, x, [*x.sizes[:first], math.prod(x.sizes[first : last + 1]), *x.sizes[last + 1 :]])


def unflatten(names: FreshNames, x: TensorValue, dim: int, sizes: Any) -> TensorValue:
    place, parts = x.axis(dim), _sizes((sizes,))
    size = x.sizes[place]
    if -1 in parts:
        known = math.prod(s for s in parts if s != -1)
        if known <= 0 or parts.count(-1) > 1:
            raise Untraceable("sizes that do not fit")
        parts[parts.index(-1)] = size // known
    if min(parts) < 0 or math.prod(parts) != size:
        raise Untraceable("sizes that do not fit")
    return _shaped(names, x, [*x.sizes[:place], *parts, *x.sizes[place + 1 :]])


def unsqueeze(names: FreshNames, x: TensorValue, dim: int) -> TensorValue:
    if type(dim) is not int or not -x.ndim - 1 <= dim <= x.ndim:
        raise Untraceable("a dim that is no place of the tensor")
    place = (dim + x.ndim + 1 if dim < 0 else dim) - x.on_rows
    if place < 0:
        raise Untraceable("a place before the edges")
    return TensorValue(x.node, (*x.axes[:place], None, *x.axes[place:]))


def squeeze(names: FreshNames, x: TensorValue, dim: int) -> TensorValue:
    place = x.axis(dim)
    return x if x.axes[place] is not None else TensorValue(x.node, (*x.axes[:place], *x.axes[place + 1 :]))


def transpose(names: FreshNames, x: TensorValue, dim0: int, dim1: int) -> TensorValue:
    axes, i, j = list(x.axes), x.axis(dim0), x.axis(dim1)
    axes[i], axes[j] = axes[j], axes[i]
    return TensorValue(x.node, tuple(axes))


def permute(names: FreshNames, x: TensorValue, /, *dims: Any) -> TensorValue:
    order = [d + x.ndim if d < 0 else d for d in _sizes(dims)]
    if sorted(order) != list(range(x.ndim)) or order[0] != 0:
        raise Untraceable("an order that moves the edges")
    return TensorValue(x.node, tuple(x.axes[d - 1] for d in order[1:]))


def getitem(names: FreshNames, x: TensorValue, index: Any, /) -> TensorValue:
    """``x[:, k]``, ``x[..., a:b]``, ``x[:, None]``."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(p is not None and p is not Ellipsis and type(p) not in (int, slice) for p in parts):
        raise Untraceable("this index")
    if any(isinstance(p, slice) and any(type(v) not in (int, type(None)) for v in (p.start, p.stop, p.step))
           for p in parts):  # fmt: skip
        raise Untraceable("this index")
    given = sum(p is not None and p is not Ellipsis for p in parts)
    dots = [k for k, p in enumerate(parts) if p is Ellipsis]
    if given > x.ndim or len(dots) > 1:
        raise Untraceable("this index")
    if dots:
        parts[dots[0] : dots[0] + 1] = [slice(None)] * (x.ndim - given)
    else:
        parts += [slice(None)] * (x.ndim - given)
    if parts[0] != slice(None):
        raise Untraceable("an index into the edges")
    node, place = x.node, 0
    axes: list[str | None] = []
    for part in parts[1:]:
        if part is None:
            axes.append(None)
            continue
        axis = x.axes[place]
        place += 1
        size = 1 if axis is None else node.type.dim(axis).size
        if part == slice(None):
            axes.append(axis)
        elif axis is None:
            raise Untraceable("an index into a dim of size 1")
        elif isinstance(part, int):
            if not -size <= part < size:
                raise Untraceable("an index out of range")
            node = build.select(node, axis, part % size)
        else:
            start, stop, step = part.indices(size)
            if step != 1:
                raise Untraceable("an index with steps")
            if stop - start == 1:
                node = build.select(node, axis, start)
                axes.append(None)
                continue
            new = Dim(names.fresh(), max(stop - start, 0))
            node = build.slice_dim(node, axis, start, new)
            axes.append(new.name)
    return TensorValue(node, tuple(axes))


def split(names: FreshNames, x: TensorValue, split_size_or_sections: Any, dim: int = 0) -> tuple[TensorValue, ...]:
    size = x.sizes[x.axis(dim)]
    given = split_size_or_sections
    if type(given) is int and given > 0:
        sections = [min(given, size - start) for start in range(0, size, given)]
    else:
        sections = _sizes((given,))
    if sum(sections) != size or not sections or min(sections) < 0:
        raise Untraceable("sections that do not fit")
    found, start = [], 0
    for section in sections:
        index = [slice(None)] * x.ndim
        index[dim] = slice(start, start + section)
        found.append(getitem(names, x, tuple(index)) if section != size else x)
        start += section
    return tuple(found)


def chunk(names: FreshNames, x: TensorValue, chunks: int, dim: int = 0) -> tuple[TensorValue, ...]:
    size = x.sizes[x.axis(dim)]
    if type(chunks) is not int or chunks < 1 or not size:
        raise Untraceable("chunks that do not fit")
    return split(names, x, -(-size // chunks), dim)


def cat(names: FreshNames, tensors: Sequence[Any], dim: int = 0) -> TensorValue:
    parts = [operand(t) for t in tensors]
    check_real(*parts)
    first = parts[0]
    place = first.axis(dim)
    nodes: list[Node] = []
    along: list[str] = []
    for part in parts:
        if part.on_rows != first.on_rows or len(part.axes) != len(first.axes):
            raise Untraceable("cat of tensors of different dims")
        others = [v.sizes[:place] + v.sizes[place + 1 :] for v in (part, first)]
        if others[0] != others[1]:
            raise Untraceable("cat of tensors of different sizes")
        part = part if part is first else apart(names, part)
        node, axis = part.node, part.axes[place]
        renamed = {
            a: b for k, (a, b) in enumerate(zip(part.axes, first.axes, strict=True))
            if k != place and a is not None and b is not None and a != b
        }  # fmt: skip
        node = build.rename(node, renamed) if renamed else node
        if axis is None:
            one = Dim(names.fresh(), 1)
            node, axis = build.reshape_like(node, Type(node.domain, (*node.dims, one), node.kind)), one.name
        nodes.append(node)
        along.append(axis)
    new = Dim(names.fresh(), sum(n.type.dim(a).size for n, a in zip(nodes, along, strict=True)))
    joined = build.cat(nodes, along, new)
    return TensorValue(joined, tuple(new.name if k == place else a for k, a in enumerate(first.axes)))
