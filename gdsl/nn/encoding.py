"""Numbers as waves. Interface of ``torch_geometric.nn.encoding``."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gdsl.nn.declared import words


class PositionalEncoding(nn.Module):
    """sin and cos of x times frequencies from 1 to ``base_freq``. Vaswani et al., "Attention Is All You Need", NeurIPS
    2017, section 3.5.

    out_channels: size of the result, an even number
    base_freq:    the least frequency
    granularity:  what positions are divided by
    device:       of the frequencies

    Raises ValueError for an odd size.
    """

    def __init__(
        self, out_channels: int, base_freq: float = 1e-4, granularity: float = 1.0, device: torch.device | None = None
    ):
        super().__init__()
        if out_channels % 2:
            raise ValueError(f"Cannot use sinusoidal positional encoding with odd 'out_channels' (got {out_channels}).")
        self.out_channels = out_channels
        self.base_freq = base_freq
        self.granularity = granularity
        self.frequency: Tensor
        self.register_buffer("frequency", torch.logspace(0, 1, out_channels // 2, base_freq, device=device))

    def reset_parameters(self) -> None:
        """There is nothing to draw."""

    def forward(self, x: Tensor) -> Tensor:
        """[N] to [N, out_channels]: the sines, then the cosines."""
        angle = (x / self.granularity if self.granularity != 1.0 else x).view(-1, 1) * self.frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    __repr__ = words("{self.out_channels}")


class TemporalEncoding(nn.Module):
    """cos of x times falling frequencies. Cong et al., "Do We Really Need Complicated Model Architectures for Temporal
    Networks?", ICLR 2023, section 3.1.

    out_channels: size of the result
    device:       of the frequencies
    """

    def __init__(self, out_channels: int, device: torch.device | None = None):
        super().__init__()
        self.out_channels = out_channels
        root = math.sqrt(out_channels)
        self.weight: Tensor
        self.register_buffer("weight", 1.0 / root ** torch.linspace(0, root, out_channels, device=device).view(1, -1))

    def reset_parameters(self) -> None:
        """There is nothing to draw."""

    def forward(self, x: Tensor) -> Tensor:
        """[N] to [N, out_channels]."""
        return (x.view(-1, 1) @ self.weight).cos()

    __repr__ = words("{self.out_channels}")
