"""Aggregations: what a node makes of the values on its edges. Interface and names of ``torch_geometric.nn.aggr``.

An aggregation says with ``read_aggregation`` what it computes, so that a layer that has one as its ``aggr_module``
fuses it with its messages. By itself it is a layer too: ``aggr(x, index)``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.api import find_layer
from gdsl.ir import build, library
from gdsl.ir.library import op, where
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain
from gdsl.language.modules import Reader, Unreadable, read
from gdsl.layer import Layer
from gdsl.runtime.graph import Graph

PROGRAM = """
layer Aggregation {
    module aggr
    edge m[channels]
    aggregate y = aggr(m)
}
"""


class Aggregation(nn.Module):
    """Base of the aggregations. A class of a user's own overrides ``forward``, or ``read_aggregation`` to be fused."""

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        """The aggregate of an edge value in the IR.

        reader: loads a parameter of this module by its place in the layer's state
        path:   of this module in the layer
        end:    the end of the edges at which they meet: "i" or "j"
        rows:   where the result lives
        """
        raise Unreadable

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """Aggregate rows.

        x:        [..., E, channels], with the rows in dimension ``dim``
        index:    [E] the group of each row; without it and ``ptr`` there is one group
        ptr:      [groups + 1] the groups as ranges of rows
        dim_size: the number of groups; without it the largest index plus one

        Raises ValueError for a ``dim`` that x does not have and for a ``dim_size`` that is too small.
        """
        if dim >= x.dim() or dim < -x.dim():
            raise ValueError(f"Encountered invalid dimension '{dim}' of source tensor with {x.dim()} dimensions")
        index, size = _groups(x.size(dim), x.device, index, ptr, dim_size)
        rows = x.movedim(dim, 0)
        flat = rows.reshape(rows.shape[0], -1) if rows.dim() != 2 else rows
        edges = torch.stack([index.new_zeros(()).expand_as(index), index])
        result: Tensor = self._program(graph=Graph(edges, (1, size)), m=flat)  # type: ignore[assignment]
        width = 0 if not flat.shape[1] else result.shape[1] // flat.shape[1]
        if rows.dim() == 2 or width == 1:
            return result.reshape(size, *rows.shape[1:-1], -1).movedim(0, dim)
        raise ValueError(f"{type(self).__name__} takes rows of one dimension, not of shape {list(rows.shape[1:])}")

    @functools.cached_property
    def _program(self) -> Layer:
        owner = nn.Module()
        owner.aggr = self
        return Layer.over(owner, find_layer(PROGRAM), {})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_program"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _groups(
    rows: int, device: torch.device, index: Tensor | None, ptr: Tensor | None, dim_size: int | None
) -> tuple[Tensor, int]:
    """The group of each row, and how many there are."""
    if ptr is not None:
        groups = ptr.numel() - 1
        if dim_size not in (None, groups):
            raise ValueError(f"Encountered invalid 'dim_size' (got '{dim_size}' but expected '{groups}')")
        return torch.arange(groups, device=device).repeat_interleave(ptr.diff()), groups
    if index is None:
        return torch.zeros(rows, dtype=torch.long, device=device), 1 if dim_size is None else dim_size
    needed = int(index.max()) + 1 if index.numel() else 0
    if dim_size is not None and dim_size < needed:
        raise ValueError(f"Encountered invalid 'dim_size' (got '{dim_size}' but expected >= '{needed}')")
    return index, needed if dim_size is None else dim_size


class SumAggregation(Aggregation):
    """The sum; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return library.segment_sum(m, end, rows)


class MeanAggregation(Aggregation):
    """The mean; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return library.segment_mean(m, end, rows)


class MaxAggregation(Aggregation):
    """The largest of each feature; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return build.segment(m, end, "max", rows)


class MinAggregation(Aggregation):
    """The smallest of each feature; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return build.segment(m, end, "min", rows)


class MulAggregation(Aggregation):
    """The product; 1 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return build.segment(m, end, "mul", rows)


class VarAggregation(Aggregation):
    """mean(x^2) - mean(x)^2, as torch_geometric computes it.

    semi_grad: take no gradient through mean(x^2)
    """

    def __init__(self, semi_grad: bool = False):
        super().__init__()
        self.semi_grad = semi_grad

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        square = library.segment_mean(library.square(m), end, rows)
        square = build.stop_gradient(square) if self.semi_grad else square
        return square - library.square(library.segment_mean(m, end, rows))


class StdAggregation(Aggregation):
    """The square root of the variance, 0 where that is at most 1e-5, as in torch_geometric.

    semi_grad: as in :class:`VarAggregation`
    """

    def __init__(self, semi_grad: bool = False):
        super().__init__()
        self.var_aggr = VarAggregation(semi_grad)

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        var = self.var_aggr.read_aggregation(reader, f"{path}.var_aggr", m, end, rows)
        spread = var > 1e-5
        return where(spread, op("sqrt", where(spread, var, 1.0)), 0.0)


class SoftmaxAggregation(Aggregation):
    """sum softmax(t x) x for each feature. Li et al., "DeeperGCN", 2020.

    t:         the inverse temperature at first
    learn:     whether it is a parameter
    semi_grad: take no gradient through the softmax
    channels:  how many temperatures to learn: one, or one a feature

    Raises ValueError for choices that exclude each other.
    """

    def __init__(self, t: float = 1.0, learn: bool = False, semi_grad: bool = False, channels: int = 1):
        super().__init__()
        if learn and semi_grad:
            raise ValueError(
                f"Cannot enable 'semi_grad' in '{type(self).__name__}' in case the temperature term 't' is learnable"
            )
        if not learn and channels != 1:
            raise ValueError(f"Cannot set 'channels' greater than '1' in case '{type(self).__name__}' is not trainable")
        self._init_t = t
        self.learn, self.semi_grad, self.channels = learn, semi_grad, channels
        self.t = nn.Parameter(torch.empty(channels)) if learn else t
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the temperature at first."""
        if isinstance(self.t, Tensor):
            self.t.data.fill_(self._init_t)

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        alpha = library.segment_softmax(_parameter(reader, f"{path}.t", self.t, m) * m, end, rows)
        alpha = build.stop_gradient(alpha) if self.semi_grad else alpha
        return library.segment_sum(m * alpha, end, rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(learn={self.learn})"


class PowerMeanAggregation(Aggregation):
    """(mean x^p)^(1/p) of values held between two limits. Li et al., "DeeperGCN", 2020.

    p:         the power at first
    learn:     whether it is a parameter
    channels:  how many powers to learn: one, or one a feature
    clamp_min, clamp_max: the limits; None for no limit

    Raises ValueError for several powers that are not learned.
    """

    def __init__(
        self,
        p: float = 1.0,
        learn: bool = False,
        channels: int = 1,
        clamp_min: float | None = 1e-4,
        clamp_max: float | None = 100.0,
    ):
        super().__init__()
        if not learn and channels != 1:
            raise ValueError(f"Cannot set 'channels' greater than '1' in case '{type(self).__name__}' is not trainable")
        self._init_p = p
        self.learn, self.channels = learn, channels
        self.p = nn.Parameter(torch.empty(channels)) if learn else p
        self.min_value, self.max_value = clamp_min, clamp_max
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the power at first."""
        if isinstance(self.p, Tensor):
            self.p.data.fill_(self._init_p)

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        if not self.learn and self.p == 1:
            return library.segment_mean(m, end, rows)
        p = _parameter(reader, f"{path}.p", self.p, m)
        mean = library.segment_mean(op("pow", self._held(m), p), end, rows)
        return op("pow", self._held(mean), 1.0 / p)

    def _held(self, x: Node) -> Node:
        low = -math.inf if self.min_value is None else self.min_value
        high = math.inf if self.max_value is None else self.max_value
        return library.clamp(x, low, high)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(learn={self.learn})"


def _parameter(reader: Reader, path: str, value: Any, like: Node) -> Node:
    """A number, a learned one [1], or learned ones over the last dim of a value."""
    if not isinstance(value, Tensor):
        return build.const(float(value))
    node = reader.load(path, (Dim(f"{path}.channels", value.numel()),))
    if value.numel() == 1:
        return build.select(node, f"{path}.channels", 0)
    return build.rename(node, {f"{path}.channels": like.dims[-1].name})


class QuantileAggregation(Aggregation):
    """Quantiles of each feature; ``fill_value`` for no rows.

    q:             one quantile from 0 to 1, or several, whose results are joined
    interpolation: between two rows: "linear", "lower", "higher", "nearest" or "midpoint"

    Raises ValueError for a quantile or an interpolation that there is not.
    """

    interpolations = ("linear", "lower", "higher", "nearest", "midpoint")

    def __init__(self, q: float | Sequence[float], interpolation: str = "linear", fill_value: float = 0.0):
        super().__init__()
        qs = list(q) if isinstance(q, list | tuple) else [q]
        if not qs:
            raise ValueError("Provide at least one quantile value for `q`.")
        if not all(0.0 <= one <= 1.0 for one in qs):
            raise ValueError("`q` must be in the range [0, 1].")
        if interpolation not in self.interpolations:
            raise ValueError(f"Invalid interpolation method got ('{interpolation}')")
        self._q = q
        self.register_buffer("q", torch.tensor(qs).view(-1, 1))
        self.interpolation = interpolation
        self.fill_value = fill_value

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        # The program has the linear quantile and the lower median; other ways run as torch steps.
        linear = self.interpolation == "linear"
        qs = self._q if isinstance(self._q, list | tuple) else [self._q]
        if self.fill_value != 0.0 or not (linear or (self.interpolation == "lower" and qs == [0.5])):
            raise Unreadable
        if not linear:
            return library.segment_median(m, end, rows)
        found = [library.segment_quantile(m, end, rows, float(q)) for q in qs]
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
        index, size = _groups(x.size(dim), x.device, index, ptr, dim_size)
        rows = x.movedim(dim, 0)
        value, order = rows.sort(0)
        _, again = index[order.flatten(1)].view_as(order).sort(0, stable=True)
        value = value.gather(0, again)
        count = torch.bincount(index, minlength=size)
        first = (count.cumsum(0) - count).clamp(max=max(len(rows) - 1, 0))
        found = []
        for q in self.q.flatten().tolist():  # type: ignore[union-attr]
            point = first + q * (count - 1).clamp(min=0)
            low, high = value[point.floor().long()], value[point.ceil().long()]
            part = (point - point.floor()).view(-1, *[1] * (rows.dim() - 1)).to(x.dtype)
            found.append(
                {
                    "lower": low,
                    "higher": high,
                    "nearest": value[point.round().long()],
                    "midpoint": 0.5 * low + 0.5 * high,
                    "linear": low + (high - low) * part,
                }[self.interpolation]
            )
        result = torch.cat(found, dim=-1)
        empty = (count == 0).view(-1, *[1] * (rows.dim() - 1))
        return result.masked_fill(empty, self.fill_value).movedim(0, dim)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(q={self._q})"


class MedianAggregation(QuantileAggregation):
    """The lower median of each feature; ``fill_value`` for no rows."""

    def __init__(self, fill_value: float = 0.0):
        super().__init__(0.5, "lower", fill_value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MultiAggregation(Aggregation):
    """Several aggregations of the same rows, joined. Corso et al., 2020.

    aggrs:        names or aggregations
    aggrs_kwargs: arguments of those given by name
    mode:         "cat", "sum", "mean", "max", "min", "logsumexp", "std" or "var" over the aggregations, or "proj": a
                  linear map of what is joined
    mode_kwargs:  for "proj": ``in_channels`` (one, or one each) and ``out_channels``

    Raises ValueError for an empty list and for arguments of another number.
    """

    modes = ("cat", "proj", "sum", "mean", "max", "min", "logsumexp", "std", "var")

    def __init__(
        self,
        aggrs: Sequence[Aggregation | str],
        aggrs_kwargs: Sequence[dict[str, Any]] | None = None,
        mode: str | None = "cat",
        mode_kwargs: dict[str, Any] | None = None,
    ):
        super().__init__()
        name = type(self).__name__
        if not isinstance(aggrs, list | tuple):
            raise ValueError(f"'aggrs' of '{name}' should be a list or tuple (got '{type(aggrs)}').")
        if not aggrs:
            raise ValueError(f"'aggrs' of '{name}' should not be empty.")
        if aggrs_kwargs is not None and len(aggrs) != len(aggrs_kwargs):
            raise ValueError(
                f"'aggrs_kwargs' with invalid length passed to '{name}' (got '{len(aggrs_kwargs)}', expected "
                f"'{len(aggrs)}'). Ensure that both 'aggrs' and 'aggrs_kwargs' are consistent."
            )
        if mode not in self.modes:
            raise ValueError(f"Combine mode '{mode}' is not supported.")
        arguments = aggrs_kwargs or [{}] * len(aggrs)
        self.aggrs = nn.ModuleList([aggr_resolver(a, **k) for a, k in zip(aggrs, arguments, strict=True)])
        self.mode = mode
        kwargs = dict(mode_kwargs or {})
        self.in_channels = kwargs.pop("in_channels", None)
        self.out_channels = kwargs.pop("out_channels", None)
        if mode == "proj":
            if len(aggrs) == 1:
                raise ValueError("Multiple aggregations are required for 'proj' or 'attn' combine mode.")
            if self.in_channels is None or self.out_channels is None:
                raise ValueError(f"Combine mode '{mode}' must have `in_channels` and `out_channels` specified.")
            if isinstance(self.in_channels, int):
                self.in_channels = [self.in_channels] * len(aggrs)
            self.lin = nn.Linear(sum(self.in_channels), self.out_channels, **kwargs)

    def reset_parameters(self) -> None:
        """Draw the parameters of the parts anew."""
        for aggr in self.aggrs:
            aggr.reset_parameters()
        if self.mode == "proj":
            self.lin.reset_parameters()

    def get_out_channels(self, in_channels: int) -> int:
        """How many features come out for how many that go in."""
        if self.out_channels is not None:
            return int(self.out_channels)
        return in_channels * len(self.aggrs) if self.mode == "cat" else in_channels

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        found = []
        for k, aggr in enumerate(self.aggrs):
            if not isinstance(aggr, Aggregation):
                raise Unreadable
            found.append(aggr.read_aggregation(reader, f"{path}.aggrs.{k}", m, end, rows))
        if len(found) == 1:
            return found[0]
        if self.mode == "cat":
            return joined(found)
        if self.mode == "proj":
            inner = Reader(f"{path}.lin", reader.training, reader.dropout, reader.params)
            return read(inner, self.lin, joined(found))
        return _combined(found, str(self.mode))

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """As in :class:`Aggregation`."""
        found = [aggr(x, index, ptr, dim_size, dim) for aggr in self.aggrs]
        if len(found) == 1 or self.mode in ("cat", "proj"):
            result = torch.cat(found, dim=-1)
            return self.lin(result) if self.mode == "proj" else result  # type: ignore[no-any-return]
        result = getattr(torch, str(self.mode))(torch.stack(found), dim=0)
        return result if isinstance(result, Tensor) else result[0]

    def __repr__(self) -> str:
        aggrs = ",\n".join(f"  {aggr}" for aggr in self.aggrs)
        return f"{type(self).__name__}([\n{aggrs},\n], mode={self.mode})"


def joined(nodes: Sequence[Node]) -> Node:
    """Values of the same dims along their last one."""
    last = library.last_dim(nodes[0])
    names = [library.last_dim(n) for n in nodes]
    return build.cat(list(nodes), names, Dim(f"{len(nodes)}*{last}", sum(n.dims[-1].size for n in nodes)))


def _combined(nodes: Sequence[Node], mode: str) -> Node:
    """A reduction over the aggregations. The deviations are those of torch: over n - 1."""
    if mode in ("max", "min"):
        return functools.reduce(lambda a, b: op(mode, a, b), nodes)
    total = functools.reduce(lambda a, b: a + b, nodes)
    if mode in ("sum", "mean"):
        return total if mode == "sum" else total * (1.0 / len(nodes))
    if mode == "logsumexp":
        top = build.stop_gradient(_combined(nodes, "max"))
        return top + op("log", _combined([op("exp", n - top) for n in nodes], "sum"))
    mean = total * (1.0 / len(nodes))
    var = _combined([library.square(n - mean) for n in nodes], "sum") * (1.0 / (len(nodes) - 1))
    return var if mode == "var" else op("norm_sqrt", var)


class DegreeScalerAggregation(Aggregation):
    """An aggregation times functions of the in-degree, joined. Corso et al., 2020, equation 5.

    aggr:       a name, several, or an aggregation
    scaler:     of "identity", "amplification", "attenuation", "linear" and "inverse_linear"
    deg:        [D] the histogram of in-degrees of the training graphs
    train_norm: whether the mean degrees are learned

    Raises ValueError for an aggregation or a scaler that there is not.
    """

    scalers = ("identity", "amplification", "attenuation", "linear", "inverse_linear")

    def __init__(
        self,
        aggr: str | Sequence[str] | Aggregation,
        scaler: str | Sequence[str],
        deg: Tensor,
        train_norm: bool = False,
        aggr_kwargs: Any = None,
    ):
        super().__init__()
        if isinstance(aggr, str | Aggregation):
            self.aggr = aggr_resolver(aggr, **(aggr_kwargs or {}))
        elif isinstance(aggr, tuple | list):
            self.aggr = MultiAggregation(aggr, aggr_kwargs)
        else:
            raise ValueError(
                f"Only strings, list, tuples and instances of `Aggregation` are valid aggregation schemes "
                f"(got '{type(aggr)}')"
            )
        self.scaler = [scaler] if isinstance(scaler, str) else list(scaler)
        for name in self.scaler:
            if name not in self.scalers:
                raise ValueError(f"Unknown scaler '{name}'")
        deg = deg.to(torch.float)
        nodes = int(deg.sum())
        degrees = torch.arange(deg.numel(), device=deg.device)
        self.init_avg_deg_lin = float((degrees * deg).sum()) / nodes
        self.init_avg_deg_log = float(((degrees + 1).log() * deg).sum()) / nodes
        for name in ("avg_deg_lin", "avg_deg_log"):
            if train_norm:
                self.register_parameter(name, nn.Parameter(torch.empty(1)))
            else:
                self.register_buffer(name, torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the mean degrees of the training graphs."""
        self.avg_deg_lin.data.fill_(self.init_avg_deg_lin)  # type: ignore[operator,union-attr]
        self.avg_deg_log.data.fill_(self.init_avg_deg_log)  # type: ignore[operator,union-attr]

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        if not isinstance(self.aggr, Aggregation):
            raise Unreadable
        out = self.aggr.read_aggregation(reader, f"{path}.aggr", m, end, rows)
        buffer = "avg_deg_lin" in self._buffers
        mean, log = (
            build.select(reader.load(f"{path}.{n}", (Dim(f"{path}.{n}", 1),), buffer), f"{path}.{n}", 0)
            for n in ("avg_deg_lin", "avg_deg_log")
        )
        degree = build.graph_value("in_degree" if end == "i" else "out_degree", rows)
        least = where(degree < 1.0, 1.0, degree)
        scale: dict[str, Node] = {
            "identity": build.const(1.0),
            "amplification": op("log", degree + 1.0) / log,
            "attenuation": log / op("log", least + 1.0),
            "linear": degree / mean,
            "inverse_linear": mean / least,
        }
        found = [out * scale[name] if name != "identity" else out for name in self.scaler]
        return found[0] if len(found) == 1 else joined(found)


def aggr_resolver(query: Any, **kwargs: Any) -> Any:
    """An aggregation by its name, as torch_geometric takes it: "mean", "MeanAggregation", a list of them.

    Raises ValueError for a name that there is not. What is no name is given back.
    """
    if isinstance(query, list | tuple):
        return MultiAggregation(query, **kwargs)
    if not isinstance(query, str):
        return query
    word = query.lower().replace("-", "").replace("_", "").replace(" ", "").removesuffix("aggregation")
    kinds = {k.removesuffix("Aggregation").lower(): v for k, v in _kinds().items()}
    kinds["add"] = SumAggregation
    if word not in kinds:
        raise ValueError(f"Could not resolve '{query}' among choices {sorted({*_kinds(), 'add'})}")
    return kinds[word](**kwargs)


def _kinds() -> dict[str, type[Aggregation]]:
    every = globals().items()
    return {name: kind for name, kind in every if isinstance(kind, type) and issubclass(kind, Aggregation)}
