"""Nearest neighbours of many points among known ones. Interface of ``torch_geometric.nn.pool``'s indices.

Distances are computed in torch, a part of the points at a time, so that no other package is needed. The approximate
indices find the nearest points themselves.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gdsl.nn.neighbors import CHUNK_DISTANCES, knn, knn_graph


class KNNOutput(NamedTuple):
    """Scores and indices of neighbours, [N, k] each, of fewer points than k [N, points]."""

    score: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple's own, as there


class KNNIndex:
    """Base of the indices: the k points of the least distance or the largest product.

    index_factory: "Flat", "IndexFlatL2" or "L2", or "IndexFlatIP" or "IP"; of a subclass its own
    emb:           [M, channels] points to begin with
    reserve:       accepted for torch_geometric's sake

    Raises ValueError for another index.
    """

    # By the names that faiss has for them: whether scores are products.
    factories: ClassVar[dict[str, bool]] = {
        "Flat": False, "L2": False, "IndexFlatL2": False, "IP": True, "IndexFlatIP": True,
    }  # fmt: skip
    kind: ClassVar[str | None] = None

    def __init__(self, index_factory: str | None = None, emb: Tensor | None = None, reserve: int | None = None):
        kind = self.kind or index_factory
        if kind not in self.factories:
            raise ValueError(f"an index is one of {[*self.factories]}, not {kind!r}")
        self.index_factory = index_factory
        self.products = self.factories[kind]
        self.reserve = reserve
        self.index: Tensor | None = None
        if emb is not None:
            self.add(emb)

    @property
    def numel(self) -> int:
        """The number of points."""
        return 0 if self.index is None else len(self.index)

    def add(self, emb: Tensor) -> None:
        """Further points [M, channels]. Raises ValueError for another shape."""
        _check_rank(emb)
        self.index = emb.detach() if self.index is None else torch.cat([self.index, emb.detach()])

    def search(self, emb: Tensor, k: int, exclude_links: Tensor | None = None) -> KNNOutput:
        """The k best points for each of [N, channels], best first: squares of distances, or products, and indices.

        exclude_links: [2, L] pairs of a point of ``emb`` and one of the index that are no neighbours. Where there are
                       fewer than k others, the score is -inf and the index -1

        Raises RuntimeError for an index without points, and ValueError for another shape.
        """
        known = self.get_emb()
        _check_rank(emb)
        found = []
        for first in range(0, len(emb), step := max(1, CHUNK_DISTANCES // max(len(known), 1))):
            part = emb.detach()[first : first + step]
            worst = float("-inf") if self.products else float("inf")
            if self.products:
                scores = part @ known.t()
            else:
                way = "donot_use_mm_for_euclid_dist"  # the other has no digit left for points that are near
                scores = torch.cdist(part, known, compute_mode=way).square()
            if exclude_links is not None:
                row, column = exclude_links
                here = (row >= first) & (row < first + step)
                scores = scores.index_put((row[here] - first, column[here]), scores.new_tensor(worst))
            score, index = scores.topk(min(k, len(known)), dim=1, largest=self.products)
            none = score == worst
            found.append((score.masked_fill(none, float("-inf")), index.masked_fill(none, -1)))
        if not found:
            return KNNOutput(emb.new_empty(0, k), emb.new_empty(0, k, dtype=torch.long))
        return KNNOutput(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def get_emb(self) -> Tensor:
        """The points [M, channels]. Raises RuntimeError where there are none."""
        if self.index is None:
            raise RuntimeError(f"'{type(self).__name__}' is not yet initialized. Please call `add(...)` first.")
        return self.index


class L2KNNIndex(KNNIndex):
    """The points of the least distance.

    emb: [M, channels] points to begin with
    """

    kind = "L2"

    def __init__(self, emb: Tensor | None = None):
        super().__init__(emb=emb)


class MIPSKNNIndex(KNNIndex):
    """The points of the largest product.

    emb: [M, channels] points to begin with
    """

    kind = "IP"

    def __init__(self, emb: Tensor | None = None):
        super().__init__(emb=emb)


class ApproxL2KNNIndex(KNNIndex):
    """As :class:`L2KNNIndex`; what would make it faster and less exact is accepted for torch_geometric's sake."""

    kind = "L2"

    def __init__(
        self,
        num_cells: int,
        num_cells_to_visit: int,
        bits_per_vector: int,
        emb: Tensor | None = None,
        reserve: int | None = None,
    ):
        self.num_cells = num_cells
        self.num_cells_to_visit = num_cells_to_visit
        self.bits_per_vector = bits_per_vector
        super().__init__(emb=emb, reserve=reserve)


class ApproxMIPSKNNIndex(ApproxL2KNNIndex):
    """As :class:`MIPSKNNIndex`; what would make it faster and less exact is accepted for torch_geometric's sake."""

    kind = "IP"


def approx_knn(x: Tensor, y: Tensor, k: int, batch_x: Tensor | None = None, batch_y: Tensor | None = None) -> Tensor:
    """As :func:`gdsl.nn.knn`: the nearest points themselves."""
    return knn(x, y, k, batch_x, batch_y)


def approx_knn_graph(
    x: Tensor, k: int, batch: Tensor | None = None, loop: bool = False, flow: str = "source_to_target"
) -> Tensor:
    """As :func:`gdsl.nn.knn_graph`: the nearest points themselves."""
    return knn_graph(x, k, batch, loop, flow)


def _check_rank(emb: Tensor) -> None:
    if emb.dim() != 2:
        raise ValueError(f"'emb' needs to be two-dimensional (got {emb.dim()} dimensions)")
