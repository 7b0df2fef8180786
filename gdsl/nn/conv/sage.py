"""GraphSAGE."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gdsl.module.repeated import repeatable
from gdsl.nn.aggr import MultiAggregation
from gdsl.nn.conv.inputs import Adjacency, Channels, Features, Size, pair_of
from gdsl.nn.conv.programmed import Declared, InitVar
from gdsl.nn.linear import Linear


class SAGEConv(Declared, program="sage", shows="aggr"):
    """x_i' = W_1 x_i + W_2 aggr_j x_j. Hamilton et al., NeurIPS 2017, algorithm 1.

    in_channels:  size of the inputs, or of those of sources and targets; -1 takes it from the first call
    out_channels: size of the outputs
    aggr:         "mean", "max", "lstm", any other of :mod:`gdsl.nn.aggr`, or a list of them
    normalize:    whether to scale the outputs to length 1
    root_weight:  whether the target's own features are added
    project:      a linear map and a relu on the sources before they are aggregated, as in the paper's equation 3
    bias:         whether to add one
    **kwargs:     of :class:`Conv`

    Raises ValueError for a lazy size with ``project``.
    """

    in_channels: Channels
    out_channels: int
    aggr: Any = "mean"
    normalize: bool = False
    root_weight: bool = True
    project: bool = False
    bias: InitVar[bool] = True

    def _aggregates(self, aggr: Any, kwargs: dict[str, Any]) -> Any:
        if aggr == "lstm":
            size, _ = pair_of(self.in_channels)
            given = kwargs.get("aggr_kwargs") or {}
            kwargs["aggr_kwargs"] = {"in_channels": size, "out_channels": size, **given}
        return aggr

    def _setup(self) -> None:
        size, _ = pair_of(self.in_channels)
        if self.project:
            if size <= 0:
                raise ValueError(f"'{type(self).__name__}' does not support lazy initialization with `project=True`")
            self.lin = Linear(size, size, bias=True)
        multi = isinstance(self.aggr_module, MultiAggregation)
        self.lin_l = Linear(self.aggr_module.get_out_channels(size) if multi else size, self.out_channels, self.bias)

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"lin_r": True} if self.root_weight else {}

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        lin_r = None if self.root_weight else self._modules.pop("lin_r", None)
        super().reset_parameters()
        if lin_r is not None:  # of no use, and as it is
            self.lin_r = lin_r

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), to [N, out_channels]."""
        return self._applied(x, edge_index, size)
