"""Aggregations made of others."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.ir import build, library
from gdsl.ir.library import op, where
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain
from gdsl.language.modules import Reader, Unreadable, read, read_aggregation
from gdsl.nn.aggr.base import Aggregation
from gdsl.nn.aggr.resolver import aggr_resolver
from gdsl.nn.inits import constant, reset


class MultiAggregation(Aggregation):
    """Several aggregations of the same rows, joined. Corso et al., 2020.

    aggrs:        names or aggregations
    aggrs_kwargs: arguments of those given by name
    mode:         "cat", "sum", "mean", "max", "min", "logsumexp", "std" or "var" over the aggregations; "proj": a
                  linear map of what is joined; "attn": the mean of their attention to each other
    mode_kwargs:  for "proj" and "attn": ``in_channels`` (one, or one each), ``out_channels``, and arguments of
                  ``torch.nn.Linear`` or, besides ``num_heads``, of ``torch.nn.MultiheadAttention``

    Raises ValueError for an empty list and for arguments of another number.
    """

    modes = ("cat", "proj", "attn", "sum", "mean", "max", "min", "logsumexp", "std", "var")

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
        if mode in ("proj", "attn"):
            if len(aggrs) == 1:
                raise ValueError("Multiple aggregations are required for 'proj' or 'attn' combine mode.")
            if self.in_channels is None or self.out_channels is None:
                raise ValueError(f"Combine mode '{mode}' must have `in_channels` and `out_channels` specified.")
            if isinstance(self.in_channels, int):
                self.in_channels = [self.in_channels] * len(aggrs)
        if mode == "proj":
            self.lin = nn.Linear(sum(self.in_channels), self.out_channels, **kwargs)
        if mode == "attn":
            from gdsl.nn.dense.hetero import HeteroDictLinear

            sizes = {str(k): size for k, size in enumerate(self.in_channels)}
            self.lin_heads = HeteroDictLinear(sizes, self.out_channels)
            self.multihead_attn = nn.MultiheadAttention(self.out_channels, kwargs.pop("num_heads", 1), **kwargs)

    def reset_parameters(self) -> None:
        """Draw the parameters of the parts anew."""
        for aggr in self.aggrs:
            reset(aggr)
        if self.mode == "proj":
            self.lin.reset_parameters()
        if self.mode == "attn":
            reset(self.lin_heads)
            self.multihead_attn._reset_parameters()

    def get_out_channels(self, in_channels: int) -> int:
        """How many features come out for how many that go in."""
        if self.out_channels is not None:
            return int(self.out_channels)
        return in_channels * len(self.aggrs) if self.mode == "cat" else in_channels

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        if self.mode == "attn":
            raise Unreadable
        found = []
        for k, aggr in enumerate(self.aggrs):
            found.append(read_aggregation(reader, f"{path}.aggrs.{k}", aggr, m, end, rows))
        if len(found) == 1:
            return found[0]
        if self.mode == "cat":
            return joined(found)
        if self.mode == "proj":
            return read(reader.inside(f"{path}.lin"), self.lin, joined(found))
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
        found: list[Tensor] = [aggr(x, index, ptr, dim_size, dim) for aggr in self.aggrs]
        if len(found) == 1 or self.mode in ("cat", "proj"):
            result = torch.cat(found, dim=-1)
            return self.lin(result) if self.mode == "proj" else result
        if self.mode == "attn":
            mapped = self.lin_heads({str(k): value for k, value in enumerate(found)})
            heads = torch.stack([*mapped.values()])
            return self.multihead_attn(heads, heads, heads)[0].mean(dim=0)
        combined = getattr(torch, str(self.mode))(torch.stack(found), dim=0)
        return combined if isinstance(combined, Tensor) else combined[0]

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
        return functools.reduce(lambda a, b: op(f"{mode}imum", a, b), nodes)
    total = functools.reduce(lambda a, b: a + b, nodes)
    if mode in ("sum", "mean"):
        return total if mode == "sum" else total * (1.0 / len(nodes))
    if mode == "logsumexp":
        top = library.finite_or_zero(_combined(nodes, "max"))
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
        self.avg_deg_lin: Tensor
        self.avg_deg_log: Tensor
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
        constant(self.avg_deg_lin, self.init_avg_deg_lin)
        constant(self.avg_deg_log, self.init_avg_deg_log)

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        out = read_aggregation(reader, f"{path}.aggr", self.aggr, m, end, rows)
        buffer = "avg_deg_lin" in self._buffers
        mean, log = (
            build.select(reader.load(f"{path}.{n}", (Dim(f"{path}.{n}", 1),), buffer), f"{path}.{n}", 0)
            for n in ("avg_deg_lin", "avg_deg_log")
        )
        degree = library.segment_count(end, rows)
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

    def run_parts(self, x: Tensor, index: Tensor, size: int) -> Tensor:
        out = self.aggr(x, index, dim_size=size)
        degree = torch.bincount(index, minlength=size).to(out.dtype).unsqueeze(1)
        least = degree.clamp(min=1)
        scale = {
            "identity": lambda: 1.0,
            "amplification": lambda: (degree + 1).log() / self.avg_deg_log,
            "attenuation": lambda: self.avg_deg_log / (least + 1).log(),
            "linear": lambda: degree / self.avg_deg_lin,
            "inverse_linear": lambda: self.avg_deg_lin / least,
        }
        return torch.cat([out * scale[name]() for name in self.scaler], dim=-1)
