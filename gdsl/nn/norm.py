"""Norms of node features, graph by graph. Interface of ``torch_geometric.nn.norm``; in torch, on nodes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.declared import InitVar, Module, declared, redraw, words
from gdsl.nn.grouped import count_in
from gdsl.runtime.spans import rows_of
from gdsl.runtime.together import batch_norm, counts, is_shared, means, most


def _graphs(x: Tensor, batch: Tensor | None, batch_size: int | None) -> tuple[Tensor, int]:
    """The graph of each node, and how many graphs there are."""
    if batch is None:
        return torch.zeros(len(x), dtype=torch.long, device=x.device), 1
    if batch_size is not None:
        return batch, batch_size
    return batch, most(count_in(batch), x.device)


def _at_nodes(values: Tensor, of_graph: Tensor, batch: Tensor | None, batch_size: int | None) -> Tensor:
    """The row [graphs, C] of each node's graph. The only graph's is broadcast: Inductor fails on the gradient of rows
    that are read from a single number, and no number of graphs is asked for that a trace does not know.
    """
    return values if batch is None or batch_size == 1 else values[of_graph]


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
        if is_shared():
            return batch_norm(m, x)
        if self.allow_single_element and x.size(0) <= 1:
            return nn.functional.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, False, 0.0, m.eps)
        return m(x)

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
            mean = means(x, of_graph, size)
            x = x - _at_nodes(mean, of_graph, batch, batch_size)
            var = means(x * x, of_graph, size)
            if self.running_mean is not None and self.running_var is not None:
                count = counts(x, of_graph, size).unsqueeze(1)
                unbiased = var * count / (count - 1).clamp(min=1)
                for kept, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                    kept.lerp_(new.detach().mean(0), self.momentum or 0.0)
        else:
            assert self.running_mean is not None
            assert self.running_var is not None
            x, var = x - self.running_mean, self.running_var.expand(size, -1)
        y = x / _at_nodes((var + self.eps).sqrt(), of_graph, batch, batch_size)
        return y if self.weight is None else y * self.weight + self.bias

    __repr__ = words("{self.num_features}")


@declared(shows="affine mode")
class LayerNorm(Module):
    """Mean 0 and variance 1 of all features of a graph, or of each node. Ba et al., "Layer Normalization", 2016.

    in_channels: size of the features
    eps:         what is added to the deviation of a single graph, or to the variance of those of a batch
    affine:      whether a weight and a bias are learned
    mode:        "graph" or "node"

    Raises ValueError for another mode, when it is called.
    """

    in_channels: int
    eps: float = 1e-5
    affine: bool = True
    mode: str = "graph"
    device: InitVar[torch.device | None] = None

    def _setup(self) -> None:
        self.weight = nn.Parameter(torch.empty(self.in_channels, device=self.device)) if self.affine else None
        self.bias = nn.Parameter(torch.empty(self.in_channels, device=self.device)) if self.affine else None

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
        mean = means(x, of_graph, size).mean(1, keepdim=True)
        x = x - _at_nodes(mean, of_graph, batch, batch_size)
        var = means(x * x, of_graph, size).mean(1, keepdim=True)
        deviation = var.sqrt() + self.eps if batch is None else (var + self.eps).sqrt()
        y = x / _at_nodes(deviation, of_graph, batch, batch_size)
        return y if self.weight is None or self.bias is None else y * self.weight + self.bias


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
        x = x - _at_nodes(means(x, of_graph, size), of_graph, batch, batch_size) * self.mean_scale
        deviation = (means(x * x, of_graph, size) + self.eps).sqrt()
        return self.weight * x / _at_nodes(deviation, of_graph, batch, batch_size) + self.bias

    __repr__ = words("{self.in_channels}")


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
        x = x - _at_nodes(means(x, of_graph, size), of_graph, batch, batch_size)
        if self.scale_individually:
            return self.scale * x / (self.eps + x.norm(2, -1, keepdim=True))
        square = means(x.square().sum(-1, keepdim=True), of_graph, size)
        return self.scale * x / _at_nodes((self.eps + square).sqrt(), of_graph, batch, batch_size)

    __repr__ = words("")


class GraphSizeNorm(nn.Module):
    """x / sqrt(N) with the number of nodes of a graph. Dwivedi et al., "Benchmarking Graph Neural Networks", 2020."""

    def forward(self, x: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Tensor:
        """[N, C], and the graph of each node, to [N, C]."""
        of_graph, size = _graphs(x, batch, batch_size)
        return x * counts(x, of_graph, size).rsqrt()[of_graph].unsqueeze(1)

    __repr__ = words("")


class MeanSubtractionNorm(nn.Module):
    """x less the mean of its graph. Yang et al., "Revisiting Over-smoothing in Deep GCNs", 2020."""

    def forward(self, x: Tensor, batch: Tensor | None = None, dim_size: int | None = None) -> Tensor:
        """[N, C], and the graph of each node, to [N, C]."""
        of_graph, size = _graphs(x, batch, dim_size)
        return x - _at_nodes(means(x, of_graph, size), of_graph, batch, dim_size)

    __repr__ = words("")


class MessageNorm(nn.Module):
    """scale |x| msg / |msg|. Li et al., "DeeperGCN", 2020, equation 7.

    learn_scale: whether the scale is learned
    """

    def __init__(self, learn_scale: bool = False, device: torch.device | None = None):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(1, device=device), requires_grad=learn_scale)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to 1."""
        nn.init.ones_(self.scale)

    def forward(self, x: Tensor, msg: Tensor, p: float = 2.0) -> Tensor:
        """[N, in] and [N, out] to [N, out]; p: of the norm"""
        length = x.norm(p=p, dim=-1, keepdim=True)
        return nn.functional.normalize(msg, p=p, dim=-1) * length * self.scale

    __repr__ = words("learn_scale={self.scale.requires_grad}")


class DiffGroupNorm(nn.Module):
    """x + lamda sum_g BatchNorm(s_g x) with learned parts s of groups. Zhou et al., "Towards Deeper Graph Neural
    Networks with Differentiable Group Normalization", NeurIPS 2020, equations 4 and 5.

    in_channels: size of the features
    groups:      number of groups
    lamda:       of what is added
    Other arguments as in ``torch.nn.BatchNorm1d``.
    """

    def __init__(
        self,
        in_channels: int,
        groups: int,
        lamda: float = 0.01,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | None = None,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.groups = groups
        self.lamda = lamda
        self.lin = nn.Linear(in_channels, groups, bias=False, device=device)
        self.norm = nn.BatchNorm1d(groups * in_channels, eps, momentum, affine, track_running_stats, device=device)
        self.reset_parameters()

    reset_parameters = redraw

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels] to the same."""
        parts = self.lin(x).softmax(dim=-1).unsqueeze(-1) * x.unsqueeze(-2)
        flat = parts.flatten(1)
        normed: Tensor = batch_norm(self.norm, flat) if is_shared() else self.norm(flat)
        normed = normed.view_as(parts).sum(dim=-2)
        return x + self.lamda * normed

    @staticmethod
    def group_distance_ratio(x: Tensor, y: Tensor, eps: float = 1e-5) -> float:
        """The mean distance of nodes [N, C] of different classes [N] over that of nodes of one. Equation 3."""
        classes = int(y.max()) + 1
        within = [float(torch.cdist(x[y == c], x[y == c]).mean()) for c in range(classes)]
        between = [float(torch.cdist(x[y == c], x[y != c]).mean()) for c in range(classes)]
        return sum(between) / (classes - 1) ** 2 / (sum(within) / classes + eps)

    __repr__ = words("{self.in_channels}, groups={self.groups}")


class _ByType(nn.Module):
    """A weight and a bias for each type of node or edge."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, in_channels: int, num_types: int, eps: float, affine: bool, device: torch.device | None):
        super().__init__()
        self.in_channels = in_channels
        self.num_types = num_types
        self.eps = eps
        self.affine = affine
        for name in ("weight", "bias"):
            value = nn.Parameter(torch.empty(num_types, in_channels, device=device)) if affine else None
            self.register_parameter(name, value)

    def reset_parameters(self) -> None:
        """Back to ones and zeros."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def scaled(self, x: Tensor, type_vec: Tensor) -> Tensor:
        """[N, in_channels] of types [N], with weight and bias."""
        return x if self.weight is None or self.bias is None else x * self.weight[type_vec] + self.bias[type_vec]

    __repr__ = words("{self.in_channels}, num_types={self.num_types}")


class HeteroBatchNorm(_ByType):
    """A batch norm for each type of node or edge, without a gradient through mean and variance. Ioffe and Szegedy, ICML
    2015.

    in_channels: size of the features
    num_types:   number of types
    eps:         the least variance
    Other arguments as in ``torch.nn.BatchNorm1d``.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        in_channels: int,
        num_types: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | None = None,
    ):
        super().__init__(in_channels, num_types, eps, affine, device)
        self.momentum = momentum
        self.track_running_stats = track_running_stats
        for name in ("running_mean", "running_var"):
            value = torch.empty(num_types, in_channels, device=device) if track_running_stats else None
            self.register_buffer(name, value)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget what was seen."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Back to ones and zeros, and forget what was seen."""
        self.reset_running_stats()
        super().reset_parameters()

    def forward(self, x: Tensor, type_vec: Tensor) -> Tensor:
        """[N, in_channels] and the type of each row [N] to [N, in_channels]."""
        if not self.training and self.track_running_stats:
            mean, var = self.running_mean, self.running_var
        else:
            with torch.no_grad():
                mean = means(x, type_vec, self.num_types)
                var = means((x - mean[type_vec]).square(), type_vec, self.num_types)
                if self.track_running_stats:
                    self._keep(mean, var, counts(x, type_vec, self.num_types).nonzero().flatten())
        return self.scaled((x - mean[type_vec]) / var.clamp(self.eps).sqrt()[type_vec], type_vec)

    def _keep(self, mean: Tensor, var: Tensor, types: Tensor) -> None:
        """For evaluation, of the types that were there."""
        part = self.momentum
        if part is None:
            self.num_batches_tracked.add_(1)
            part = 1.0 / float(self.num_batches_tracked)
        for kept, new in ((self.running_mean, mean), (self.running_var, var)):
            kept[types] = (1.0 - part) * kept[types] + part * new[types]


class HeteroLayerNorm(_ByType):
    """A layer norm of each node or edge, with a weight and a bias for each type. Ba et al., "Layer Normalization",
    2016.

    in_channels: size of the features
    num_types:   number of types
    eps:         what is added to the variance
    affine:      whether a weight and a bias are learned
    mode:        "node"

    Raises AssertionError for another mode.
    """

    def __init__(
        self,
        in_channels: int,
        num_types: int,
        eps: float = 1e-5,
        affine: bool = True,
        mode: str = "node",
        device: torch.device | None = None,
    ):
        assert mode == "node", f"the mode is 'node', not '{mode}'"
        super().__init__(in_channels, num_types, eps, affine, device)
        self.reset_parameters()

    def forward(self, x: Tensor, type_vec: Tensor | None = None, type_ptr: Any = None) -> Tensor:
        """[N, in_channels] to the same.

        type_vec: [N] the type of each row
        type_ptr: [num_types + 1] the types as ranges of rows, in its place

        Raises ValueError without either.
        """
        if type_ptr is not None:
            type_vec = rows_of(torch.as_tensor(type_ptr, device=x.device))
        if type_vec is None:
            raise ValueError("Either 'type_vec' or 'type_ptr' must be given")
        return self.scaled(nn.functional.layer_norm(x, (self.in_channels,), eps=self.eps), type_vec)


NORMS: tuple[type[nn.Module], ...] = (
    BatchNorm, InstanceNorm, LayerNorm, GraphNorm, PairNorm, GraphSizeNorm, MeanSubtractionNorm, MessageNorm,
    DiffGroupNorm, HeteroBatchNorm, HeteroLayerNorm,
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
