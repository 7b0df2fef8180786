"""What a model makes of the features of all its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gdsl.nn.declared import redraw


class JumpingKnowledge(nn.Module):
    """The features of all layers of a model as one. Xu et al., "Representation Learning on Graphs with Jumping
    Knowledge Networks", ICML 2018, section 4.

    mode:       "cat" joins them, "max" takes the largest, "lstm" weighs the layers of each node by an LSTM over them
    channels:   size of the features, for "lstm"
    num_layers: number of layers, for "lstm"

    Raises AssertionError for another mode, or an LSTM without sizes.
    """

    def __init__(self, mode: str, channels: int | None = None, num_layers: int | None = None):
        super().__init__()
        self.mode = mode.lower()
        assert self.mode in ("cat", "max", "lstm"), f"the mode is 'cat', 'max' or 'lstm', not '{mode}'"
        self.lstm: nn.LSTM | None = None
        self.att: nn.Linear | None = None
        self.channels: int | None = None
        self.num_layers: int | None = None
        if self.mode == "lstm":
            assert channels is not None, "channels cannot be None for lstm"
            assert num_layers is not None, "num_layers cannot be None for lstm"
            half = num_layers * channels // 2
            self.lstm = nn.LSTM(channels, half, bidirectional=True, batch_first=True)
            self.att = nn.Linear(2 * half, 1)
            self.channels, self.num_layers = channels, num_layers
        self.reset_parameters()

    reset_parameters = redraw

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        """Each [N, channels]; "cat" gives [N, layers * channels], others [N, channels]."""
        if self.mode == "cat":
            return torch.cat(list(xs), dim=-1)
        if self.lstm is None or self.att is None:
            return torch.stack(list(xs), dim=-1).max(dim=-1)[0]
        x = torch.stack(list(xs), dim=1)
        alpha = self.att(self.lstm(x)[0]).softmax(dim=1)
        return (alpha * x).sum(dim=1)

    def __repr__(self) -> str:
        sizes = "" if self.lstm is None else f", channels={self.channels}, layers={self.num_layers}"
        return f"{type(self).__name__}({self.mode}{sizes})"


class HeteroJumpingKnowledge(nn.Module):
    """:class:`JumpingKnowledge` for each type of node.

    types: the keys of the inputs; other arguments as there
    """

    def __init__(self, types: list[str], mode: str, channels: int | None = None, num_layers: int | None = None):
        super().__init__()
        self.mode = mode.lower()
        self.jk_dict = nn.ModuleDict({key: JumpingKnowledge(mode, channels, num_layers) for key in types})

    reset_parameters = redraw

    def forward(self, xs_dict: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """The features of all layers by type, to one tensor by type."""
        return {key: jk(xs_dict[key]) for key, jk in self.jk_dict.items()}

    def __repr__(self) -> str:
        sizes = ""
        if self.mode == "lstm":
            jk = next(iter(self.jk_dict.values()))
            sizes = f", channels={jk.channels}, layers={jk.num_layers}"
        return f"{type(self).__name__}(num_types={len(self.jk_dict)}, mode={self.mode}{sizes})"
