"""Labels that spread along the edges, without anything to learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.module.meeting import excused
from gdsl.nn.conv.base import Conv
from gdsl.nn.conv.inputs import Adjacency
from gdsl.nn.declared import InitVar, Module, declared
from gdsl.runtime.together import has_others, is_shared, summed, together


@declared(shows="num_layers alpha", base='"add"', drawn=False)
class LabelPropagation(Conv):
    """Y' = alpha D^{-1/2} A D^{-1/2} Y + (1 - alpha) Y_0, again and again. Zhu and Ghahramani, "Learning from Labeled
    and Unlabeled Data with Label Propagation", 2002, as Huang et al., ICLR 2021, have it.

    num_layers: number of steps
    alpha:      the part that comes from the neighbours
    """

    num_layers: int
    alpha: float

    program_name = "label_propagation"

    @torch.no_grad()
    def forward(
        self,
        y: Tensor,
        edge_index: Adjacency,
        mask: Tensor | None = None,
        edge_weight: Tensor | None = None,
        post_step: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Labels [N], or a number for each class [N, classes], to [N, classes]; no gradient is recorded.

        mask:        [N] or indices: the nodes whose labels are known; all without it
        edge_weight: [E] weights that are normalised already; without them those of the graph, normalised
        post_step:   what is done after each step, instead of keeping the numbers between 0 and 1
        """
        y = one_hot(y)
        labels = y if mask is None else torch.zeros_like(y).index_put((mask,), y[mask])
        return self.spread(labels, edge_index, edge_weight, (0.0, 1.0), post_step)

    def spread(
        self,
        labels: Tensor,
        edge_index: Adjacency,
        edge_weight: Tensor | None,
        bounds: tuple[float, float],
        post_step: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """All steps from labels [N, classes], within bounds or with something after each."""
        graph, weight = self.weighted(labels, edge_index, edge_weight)
        # As there, the values of a matrix of torch_sparse are normalised already, and those of others are not.
        valued = hasattr(edge_index, "has_value") and edge_index.has_value()
        arguments: dict[str, Any] = {"alpha": float(self.alpha), "normalize": edge_weight is None and not valued}
        if post_step is None:
            inputs = {"x": labels, "labels": labels, "w": weight}
            low, high = bounds
            return self.run(graph, inputs, K=self.num_layers, low=low, high=high, **arguments)
        y = labels
        for _ in range(self.num_layers):
            inputs = {"x": y, "labels": labels, "w": weight}
            y = post_step(self.run(graph, inputs, K=1, low=-math.inf, high=math.inf, **arguments))
        return y


@declared
class CorrectAndSmooth(Module):
    """Predictions of another model, corrected by what it got wrong and smoothed. Huang et al., "Combining Label
    Propagation and Simple Models Out-performs Graph Neural Networks", ICLR 2021, sections 2.2 and 2.3.

    num_correction_layers, correction_alpha: of the :class:`LabelPropagation` of errors
    num_smoothing_layers, smoothing_alpha:   of that of the predictions
    autoscale: whether errors are scaled to the size of the known ones
    scale:     of errors otherwise
    """

    num_correction_layers: InitVar[int]
    correction_alpha: InitVar[float]
    num_smoothing_layers: InitVar[int]
    smoothing_alpha: InitVar[float]
    autoscale: bool = True
    scale: float = 1.0

    def _setup(self) -> None:
        self.prop1 = LabelPropagation(self.num_correction_layers, self.correction_alpha)
        self.prop2 = LabelPropagation(self.num_smoothing_layers, self.smoothing_alpha)

    def forward(self, y_soft: Tensor, *args: Any) -> Tensor:
        """:meth:`correct`, then :meth:`smooth`."""
        return self.smooth(self.correct(y_soft, *args), *args)

    @excused
    def correct(
        self, y_soft: Tensor, y_true: Tensor, mask: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None
    ) -> Tensor:
        """Predictions [N, classes], with the errors of the known nodes spread over the others.

        y_true:      [K] or [K, classes] the labels of the nodes of ``mask``, in order
        mask:        [N] or indices: the nodes whose labels are known
        edge_weight: as in :class:`LabelPropagation`

        Raises AssertionError where there are not so many labels as known nodes.
        """
        y_true = _known(y_soft, y_true, mask)
        error = torch.zeros_like(y_soft).index_put((mask,), y_true - y_soft[mask])
        with torch.no_grad():
            if not self.autoscale:

                def fix(x: Tensor) -> Tensor:
                    return x.index_put((mask,), error[mask])

                smooth = self.prop1.spread(error, edge_index, edge_weight, (0.0, 1.0), fix)
                return y_soft + self.scale * smooth
            smooth = self.prop1.spread(error, edge_index, edge_weight, (-1.0, 1.0))
        mean = self._mean_error(error[mask], edge_index)
        scale = mean / smooth.abs().sum(dim=1, keepdim=True)
        return y_soft + scale.masked_fill(scale.isinf() | (scale > 1000), 1.0) * smooth

    def _mean_error(self, error: Tensor, edge_index: Adjacency) -> Tensor:
        """Of the known nodes, of all processes of a distributed graph."""
        if has_others(edge_index):
            with together(edge_index):
                return self._mean_error(error, edge_index)
        if is_shared():
            return summed(error.abs().sum()) / summed(error.new_tensor(len(error)))
        return error.abs().sum() / len(error)

    @excused
    def smooth(
        self, y_soft: Tensor, y_true: Tensor, mask: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None
    ) -> Tensor:
        """Predictions [N, classes], with the labels in the place of the known ones, spread. Arguments as in
        :meth:`correct`.
        """
        known = y_soft.index_put((mask,), _known(y_soft, y_true, mask))
        return self.prop2(known, edge_index, edge_weight=edge_weight)

    def __repr__(self) -> str:
        correct, smooth = (f"num_layers={p.num_layers}, alpha={p.alpha}" for p in (self.prop1, self.prop2))
        return (
            f"{type(self).__name__}(\n  correct: {correct}\n  smooth:  {smooth}\n"
            f"  autoscale={self.autoscale}, scale={self.scale}\n)"
        )


def one_hot(y: Tensor, classes: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Labels [N] or [N, 1] as [N, classes] of zeros and ones; a number for each class as it is."""
    if y.dtype is not torch.long or y.size(0) != y.numel():
        return y
    found = nn.functional.one_hot(y.view(-1), -1 if classes is None else classes)
    return found.to(torch.get_default_dtype() if dtype is None else dtype)


def _known(y_soft: Tensor, y_true: Tensor, mask: Tensor) -> Tensor:
    count = int(mask.sum()) if mask.dtype is torch.bool else len(mask)
    assert len(y_true) == count, f"there are {len(y_true)} labels of {count} nodes"
    return one_hot(y_true, y_soft.size(-1), y_soft.dtype)
