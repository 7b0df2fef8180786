"""An aggregation that is where a descent ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdsl.nn.aggr.base import Aggregation, groups_of
from gdsl.nn.declared import words
from gdsl.nn.inits import reset


class ResNetPotential(nn.Module):
    """Layers of linear maps, norms and tanh, with a linear map of the inputs added to each."""

    def __init__(self, in_channels: int, out_channels: int, num_layers: list[int]):
        super().__init__()
        sizes = [in_channels, *num_layers]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), nn.LayerNorm(b), nn.Tanh()) for a, b in itertools.pairwise(sizes)
        )
        self.layers.append(nn.Linear(sizes[-1], out_channels))
        self.res_trans = nn.ModuleList(nn.Linear(in_channels, size) for size in (*num_layers, out_channels))

    def forward(self, x: Tensor, y: Tensor, index: Tensor, size: int) -> Tensor:
        """The sum over the groups of the means of the potentials of their rows, with y [groups, C] beside each row."""
        h = both = torch.cat([x, y[index]], dim=1)
        for layer, res in zip(self.layers, self.res_trans, strict=True):
            h = layer(h) + res(both)
        share = torch.bincount(index, minlength=size).clamp(min=1).to(h.dtype).reciprocal()
        return (h * share[index].unsqueeze(1)).sum()


class MomentumOptimizer(nn.Module):
    """Steps of gradient descent with momentum, differentiable in where they begin and what they descend.

    learning_rate, momentum: before softplus and sigmoid
    learnable:               whether they are learned
    """

    def __init__(self, learning_rate: float = 0.1, momentum: float = 0.9, learnable: bool = True):
        super().__init__()
        self._initial_lr = learning_rate
        self._initial_mom = momentum
        self._lr = nn.Parameter(torch.tensor([learning_rate]), requires_grad=learnable)
        self._mom = nn.Parameter(torch.tensor([momentum]), requires_grad=learnable)

    def reset_parameters(self) -> None:
        """Back to the numbers at first."""
        self._lr.data.fill_(self._initial_lr)
        self._mom.data.fill_(self._initial_mom)

    @property
    def learning_rate(self) -> Tensor:
        """[1], above 0"""
        return functional.softplus(self._lr)

    @property
    def momentum(self) -> Tensor:
        """[1], from 0 to 1"""
        return self._mom.sigmoid()

    def forward(self, y: Tensor, energy: Callable[[Tensor], Tensor], iterations: int = 5) -> Tensor:
        """Where the steps from y end."""
        velocity = torch.zeros_like(y)
        for _ in range(iterations):
            (slope,) = torch.autograd.grad(energy(y), y, create_graph=True)
            velocity = self.momentum * velocity - self.learning_rate * slope
            y = y + velocity
        return y


class EquilibriumAggregation(Aggregation):
    """min_y softplus(lamb) |y|² + mean_i F(x_i, y), some steps to it. Bartunov et al., "Equilibrium Aggregation:
    Encoding Sets via Optimization", UAI 2022.

    in_channels, out_channels: sizes of a row and of the result
    num_layers:                sizes of the hidden layers of F
    grad_iter:                 number of steps
    lamb:                      at first
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_layers: list[int], grad_iter: int = 5, lamb: float = 0.1
    ):
        super().__init__()
        self.potential = ResNetPotential(in_channels + out_channels, 1, num_layers)
        self.optimizer = MomentumOptimizer()
        self.initial_lamb = lamb
        self.lamb = nn.Parameter(torch.empty(1))
        self.grad_iter = grad_iter
        self.output_dim = out_channels
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        self.lamb.data.fill_(self.initial_lamb)
        reset(self.optimizer)
        reset(self.potential)

    def init_output(self, dim_size: int) -> Tensor:
        """Where the descent begins."""
        return self.lamb.new_zeros(dim_size, self.output_dim, requires_grad=True)

    def reg(self, y: Tensor) -> Tensor:
        """What keeps y small."""
        return functional.softplus(self.lamb) * y.square().sum(dim=-1).mean()

    def energy(self, x: Tensor, y: Tensor, index: Tensor, dim_size: int) -> Tensor:
        """What is made small."""
        return self.potential(x, y, index, dim_size) + self.reg(y)

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """[E, in_channels] to [groups, out_channels]."""
        index, size = groups_of(x.size(dim), x.device, index, ptr, dim_size)
        with torch.enable_grad():
            energy: Any = lambda y: self.energy(x, y, index, size)  # noqa: E731
            y: Tensor = self.optimizer(self.init_output(size), energy, self.grad_iter)
        return y if torch.is_grad_enabled() else y.detach()

    __repr__ = words("")
