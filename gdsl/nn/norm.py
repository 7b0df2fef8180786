"""Norms of node features, graph by graph. Interface of ``torch_geometric.nn.norm``; in torch, on nodes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def _graphs(x: Tensor, batch: Tensor | None, batch_size: int | None) -> tuple[Tensor, int]:
    """The graph of each node, and how many graphs there are."""
    if batch is None:
        return torch.zeros(len(x), dtype=torch.long, device=x.device), 1
    return batch, int(batch.max()) + 1 if batch_size is None else batch_size


def _mean(x: Tensor, batch: Tensor, size: int) -> Tensor:
    """Means over the nodes of each graph, [N, C] to [graphs, C]; 0 for none."""
    count = torch.bincount(batch, minlength=size).clamp(min=1).to(x.dtype).unsqueeze(1)
    return x.new_zeros(size, x.shape[1]).index_add(0, batch, x) / count


class BatchNorm(nn.Module):
    """torch's batch norm over all nodes. Ioffe and Szegedy, ICML 2015.

    in_channels: size of the features
    allow_single_element: whether a single node is normed as in evaluation
    Other arguments as in ``torch.nn.BatchNorm1d``.

    Raises ValueError for ``allow_single_element`` without ``track_running_stats``.
    """

    def __init__(
        self,
        in_channels: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        allow_single_element: bool = False,
        device: torch.device | None = None,
    ):
        super().__init__()
        if allow_single_element and not track_running_stats:
            raise ValueError("'allow_single_element' requires 'track_running_stats' to be set to `True`")
        self.module = nn.BatchNorm1d(in_channels, eps, momentum, affine, track_running_stats, device=device)
        self.in_channels = in_channels
        self.allow_single_element = allow_single_element

    def reset_parameters(self) -> None:
        """Back to ones and zeros."""
        self.module.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget what was seen."""
        self.module.reset_running_stats()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels] to the same."""
        m = self.module
        if self.allow_single_element and x.size(0) <= 1:
            return nn.functional.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, False, 0.0, m.eps)
        y: Tensor = m(x)
        return y

    def read_parts(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules that rows go through, by name, for a program that reads this one."""
        yield "module", self.module

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.module.extra_repr()})"


class InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """Mean 0 and variance 1 of each feature in each graph. Ulyanov et al., "Instance Normalization", 2016.

    in_channels: size of the features
    Other arguments as in ``torch.nn.InstanceNorm1d``.
    """

    def __init__(
        self,
        in_channels: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: torch.device | None = None,
    ):
        super().__init__(in_channels, eps, momentum, affine, track_running_stats, device=device)

    def forward(self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """[N, in_channels], and the graph of each node, to [N, in_channels]."""
        of_graph, size = _graphs(x, batch, batch_size)
        if self.training or not self.track_running_stats:
            mean = _mean(x, of_graph, size)
            x = x - mean[of_graph]
            var = _mean(x * x, of_graph, size)
            if self.running_mean is not None and self.running_var is not None:
                count = torch.bincount(of_graph, minlength=size).to(x.dtype).unsqueeze(1)
                unbiased = var * count / (count - 1).clamp(min=1)
                for kept, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                    kept.lerp_(new.detach().mean(0), self.momentum or 0.0)
        else:
            assert self.running_mean is not None
            assert self.running_var is not None
            x, var = x - self.running_mean, self.running_var.expand(size, -1)
        y = x / (var + self.eps).sqrt()[of_graph]
        return y if self.weight is None else y * self.weight + self.bias

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_features})"


class LayerNorm(nn.Module):
    """Mean 0 and variance 1 of all features of a graph, or of each node. Ba et al., "Layer Normalization", 2016.

    in_channels: size of the features
    eps:         what is added to the deviation of a single graph, or to the variance of those of a batch
    affine:      whether a weight and a bias are learned
    mode:        "graph" or "node"

    Raises ValueError for another mode, when it is called.
    """

    def __init__(
        self,
        in_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        mode: str = "graph",
        device: torch.device | None = None,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.eps = eps
        self.affine = affine
        self.mode = mode
        self.weight = nn.Parameter(torch.empty(in_channels, device=device)) if affine else None
        self.bias = nn.Parameter(torch.empty(in_channels, device=device)) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to ones and zeros."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """[N, in_channels], and the graph of each node, to [N, in_channels]."""
        if self.mode == "node":
            return nn.functional.layer_norm(x, (self.in_channels,), self.weight, self.bias, self.eps)
        if self.mode != "graph":
            raise ValueError(f"Unknownn normalization mode: {self.mode}")
        of_graph, size = _graphs(x, batch, batch_size)
        x = x - _mean(x, of_graph, size).mean(1, keepdim=True)[of_graph]
        var = _mean(x * x, of_graph, size).mean(1, keepdim=True)
        deviation = var.sqrt() + self.eps if batch is None else (var + self.eps).sqrt()
        y = x / deviation[of_graph]
        return y if self.weight is None or self.bias is None else y * self.weight + self.bias

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, affine={self.affine}, mode={self.mode})"


class GraphNorm(nn.Module):
    """Instance norm that takes a learned part of the mean away. Cai et al., "GraphNorm", ICML 2021, equation 8.

    in_channels: size of the features
    eps:         what is added to the variance
    """

    def __init__(self, in_channels: int, eps: float = 1e-5, device: torch.device | None = None):
        super().__init__()
        self.in_channels = in_channels
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(in_channels, device=device))
        self.bias = nn.Parameter(torch.empty(in_channels, device=device))
        self.mean_scale = nn.Parameter(torch.empty(in_channels, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to ones and zeros."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.mean_scale)

    def forward(self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """[N, in_channels], and the graph of each node, to [N, in_channels]."""
        of_graph, size = _graphs(x, batch, batch_size)
        x = x - _mean(x, of_graph, size)[of_graph] * self.mean_scale
        deviation = (_mean(x * x, of_graph, size) + self.eps).sqrt()
        return self.weight * x / deviation[of_graph] + self.bias

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels})"


class PairNorm(nn.Module):
    """Keeps the sum of the distances of all pairs of nodes. Zhao and Akoglu, "PairNorm", ICLR 2020, eqs. 10 and 11.

    scale:              of the result
    scale_individually: whether each node gets the same length
    eps:                what is added to what is divided by
    """

    def __init__(self, scale: float = 1.0, scale_individually: bool = False, eps: float = 1e-5):
        super().__init__()
        self.scale = scale
        self.scale_individually = scale_individually
        self.eps = eps

    def forward(self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """[N, C], and the graph of each node, to [N, C]."""
        of_graph, size = _graphs(x, batch, batch_size)
        x = x - _mean(x, of_graph, size)[of_graph]
        if self.scale_individually:
            return self.scale * x / (self.eps + x.norm(2, -1, keepdim=True))
        square = _mean(x.square().sum(-1, keepdim=True), of_graph, size)
        return self.scale * x / (self.eps + square).sqrt()[of_graph]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class GraphSizeNorm(nn.Module):
    """x / sqrt(N) with the number of nodes of a graph. Dwivedi et al., "Benchmarking Graph Neural Networks", 2020."""

    def forward(self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """[N, C], and the graph of each node, to [N, C]."""
        of_graph, size = _graphs(x, batch, batch_size)
        return x * torch.bincount(of_graph, minlength=size).to(x.dtype).rsqrt()[of_graph].unsqueeze(1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MeanSubtractionNorm(nn.Module):
    """x less the mean of its graph. Yang et al., "Revisiting Over-smoothing in Deep GCNs", 2020."""

    def forward(self, x: Tensor, batch: Tensor | None = None, dim_size: int | None = None) -> Tensor:
        """[N, C], and the graph of each node, to [N, C]."""
        of_graph, size = _graphs(x, batch, dim_size)
        return x - _mean(x, of_graph, size)[of_graph]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


NORMS: tuple[type[nn.Module], ...] = (
    BatchNorm, InstanceNorm, LayerNorm, GraphNorm, PairNorm, GraphSizeNorm, MeanSubtractionNorm,
)  # fmt: skip


def norm_resolver(query: Any, *args: Any, **kwargs: Any) -> Any:
    """A norm by its name, as torch_geometric takes it: "batch_norm", "GraphNorm", "layer".

    Raises ValueError for a name that there is not. What is no name is given back.
    """
    if not isinstance(query, str):
        return query
    word = query.lower().replace("-", "").replace("_", "").replace(" ", "")
    kinds = {kind.__name__.lower().removesuffix("norm"): kind for kind in NORMS}
    if word.removesuffix("norm") not in kinds:
        raise ValueError(f"Could not resolve '{query}' among choices {sorted(kind.__name__ for kind in NORMS)}")
    return kinds[word.removesuffix("norm")](*args, **kwargs)


def takes_batch(norm: Any) -> bool:
    """Whether a norm asks for the graph of each node."""
    return hasattr(norm, "forward") and "batch" in inspect.signature(norm.forward).parameters
