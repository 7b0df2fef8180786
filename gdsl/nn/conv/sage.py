"""GraphSAGE."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gdsl.module.repeated import repeatable
from gdsl.nn.aggr import MultiAggregation
from gdsl.nn.conv.base import Adjacency, Channels, Conv, Features, Size, pair_of, see
from gdsl.nn.linear import Linear


class SAGEConv(Conv):
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

    program_name = "sage"

    def __init__(
        self,
        in_channels: Channels,
        out_channels: int,
        aggr: Any = "mean",
        normalize: bool = False,
        root_weight: bool = True,
        project: bool = False,
        bias: bool = True,
        **kwargs: Any,
    ):
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.normalize = normalize
        self.root_weight = root_weight
        self.project = project
        sources, targets = pair_of(in_channels)
        if aggr == "lstm":
            kwargs["aggr_kwargs"] = {
                "in_channels": sources, "out_channels": sources, **(kwargs.get("aggr_kwargs") or {}),
            }  # fmt: skip
        super().__init__(aggr, **kwargs)
        if project:
            if sources <= 0:
                raise ValueError(f"'{type(self).__name__}' does not support lazy initialization with `project=True`")
            self.lin = Linear(sources, sources, bias=True)
        multi = isinstance(self.aggr_module, MultiAggregation)
        aggregated = self.aggr_module.get_out_channels(sources) if multi else sources
        self.lin_l = Linear(aggregated, out_channels, bias=bias)
        if root_weight:
            self.lin_r = Linear(targets, out_channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        if self.project:
            self.lin.reset_parameters()
        self.lin_l.reset_parameters()
        if self.root_weight:
            self.lin_r.reset_parameters()

    @repeatable
    def forward(self, x: Features, edge_index: Adjacency, size: Size = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets (or None), to [N, out_channels]."""
        bipartite = not isinstance(x, Tensor)
        source, target = (x, x) if isinstance(x, Tensor) else x
        graph, _ = self.graph(edge_index, self.rows(source), self.rows(target), size)
        see((self.lin_l, source))
        if self.root_weight and target is not None:
            see((self.lin_r, target))
        result: Tensor = self.run(
            graph,
            {"x": source, "z": target},
            out_channels=self.out_channels,
            bipartite=bipartite,
            root=self.root_weight,
            normalize=self.normalize,
            project=self.project,
        )
        return result

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, aggr={self.aggr})"
