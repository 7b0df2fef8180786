"""Aggregations that look at the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gdsl.ir import library
from gdsl.ir.node import Node
from gdsl.ir.types import Domain
from gdsl.language.modules import Reader, Unreadable
from gdsl.nn.aggr.base import Aggregation, check_dim, dense, groups_of
from gdsl.nn.aggr.multi import joined
from gdsl.nn.declared import declared, words

# The row that stands for a point between two.
_ROUNDED = {"lower": torch.floor, "higher": torch.ceil, "nearest": torch.round}


class QuantileAggregation(Aggregation):
    """Quantiles of each feature; ``fill_value`` for no rows.

    q:             one quantile from 0 to 1, or several, whose results are joined
    interpolation: between two rows: "linear", "lower", "higher", "nearest" or "midpoint"

    Raises ValueError for a quantile or an interpolation that there is not.
    """

    interpolations = ("linear", "lower", "higher", "nearest", "midpoint")

    def __init__(self, q: float | Sequence[float], interpolation: str = "linear", fill_value: float = 0.0):
        super().__init__()
        qs = [float(one) for one in q] if isinstance(q, Sequence) else [float(q)]
        if not qs:
            raise ValueError("Provide at least one quantile value for `q`.")
        if not all(0.0 <= one <= 1.0 for one in qs):
            raise ValueError("`q` must be in the range [0, 1].")
        if interpolation not in self.interpolations:
            raise ValueError(f"Invalid interpolation method got ('{interpolation}')")
        self._q = q
        self.q: Tensor
        self.register_buffer("q", torch.tensor(qs).view(-1, 1))
        self._each: list[float] = self.q.flatten().tolist()  # in the precision of the buffer
        self.interpolation = interpolation
        self.fill_value = fill_value

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        # The program has the linear quantile and the lower median; other ways run as torch steps.
        linear = self.interpolation == "linear"
        if self.fill_value != 0.0 or not (linear or (self.interpolation == "lower" and self._each == [0.5])):
            raise Unreadable
        if not linear:
            return library.segment_median(m, end, rows)
        found = [library.segment_quantile(m, end, rows, q) for q in self._each]
        return found[0] if len(found) == 1 else joined(found)

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """As in :class:`Aggregation`: [..., groups, quantiles * channels]."""
        check_dim(x, dim)
        index, size = groups_of(x.size(dim), x.device, index, ptr, dim_size)
        rows = x.movedim(dim, 0)
        value, order = rows.sort(dim=0)
        again = index[order].argsort(dim=0, stable=True)
        value = value.gather(0, again)
        count = torch.bincount(index, minlength=size)
        first = (count.cumsum(0) - count).clamp(max=max(len(rows) - 1, 0))
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        found = []
        for q in self.q.flatten():
            point = first + q * (count - 1).clamp(min=0)
            if self.interpolation in _ROUNDED:
                found.append(value[_ROUNDED[self.interpolation](point).long()])
                continue
            part = (point - point.floor()).view(-1, *[1] * (rows.dim() - 1)).to(dtype)
            low, high = (value[end.long()].to(dtype) for end in (point.floor(), point.ceil()))
            found.append(0.5 * low + 0.5 * high if self.interpolation == "midpoint" else low + (high - low) * part)
        # NaN is sorted last, and a group that has one has no quantile, as in torch.quantile.
        last = value[(first + count - 1).clamp(min=0)]
        result = torch.cat([part.where(~last.isnan(), last) for part in found], dim=-1)
        empty = (count == 0).view(-1, *[1] * (rows.dim() - 1))
        return result.masked_fill(empty, self.fill_value).movedim(0, dim)

    __repr__ = words("q={self._q}")


class MedianAggregation(QuantileAggregation):
    """The lower median of each feature; ``fill_value`` for no rows."""

    def __init__(self, fill_value: float = 0.0):
        super().__init__(0.5, "lower", fill_value)

    __repr__ = words("")


@declared(shows="k", drawn=False)
class SortAggregation(Aggregation):
    """The first k rows by their last feature, joined; zeros where there are fewer. Zhang et al., "An End-to-End Deep
    Learning Architecture for Graph Classification", AAAI 2018.

    k: the number of rows

    It runs in torch: which rows it takes is known from their values alone.
    """

    k: int

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        max_num_elements: int | None = None,
    ) -> Tensor:
        """[E, C] with rows sorted by group to [groups, k * C]; ``max_num_elements``: rows of a group that count."""
        index, size = groups_of(x.size(dim), x.device, index, ptr, dim_size)
        least = float(x.detach().min()) - 1 if x.numel() else 0.0
        block = dense(x, index, size, least, max_num_elements)
        order = block[:, :, -1].argsort(dim=1, descending=True, stable=True)[:, : self.k]
        first = block.gather(1, order.unsqueeze(2).expand(-1, -1, block.shape[2]))
        first = torch.where(first == least, 0.0, first)
        missing = first.new_zeros(size, self.k - first.shape[1], first.shape[2])
        return torch.cat([first, missing], dim=1).flatten(1)
