"""Autoencoders of graphs against torch_geometric's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from gdsl.nn.models.autoencoders import ranking
from tests.parity.drop_in import IN, NODES, graph_of, outcome, pyg
from tests.programs import harness


class Encoder(nn.Module):
    """One layer, or two for means and deviations."""

    def __init__(self, library: Any, count: int):
        super().__init__()
        self.convs = nn.ModuleList(library.GCNConv(IN, 4) for _ in range(count))

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        found = [conv(x, edge_index) for conv in self.convs]
        return found[0] if len(found) == 1 else tuple(found)


def made(kind: str) -> list[nn.Module]:
    models = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        parts = [Encoder(library, 2 if "V" in kind else 1), *([nn.Linear(4, 1)] if "AR" in kind else [])]
        models.append(getattr(library, kind)(*parts).double())
    return models


class Every(nn.Module):
    """All losses of a model, with the same draws."""

    def __init__(self, model: Any, pairs: tuple[Tensor, Tensor]):
        super().__init__()
        self.model, self.pairs = model, pairs

    def forward(self, x: Tensor, graph: Tensor) -> list[Tensor]:
        torch.manual_seed(3)
        model = self.model
        z = model.encode(x, graph)
        found = [
            z,
            model.recon_loss(z, *self.pairs),
            model.decode(z, graph, sigmoid=False),
            model.decoder.forward_all(z),
        ]
        found += [model.decoder.forward_all(z, sigmoid=False), model.decode(z, graph)]
        if hasattr(model, "kl_loss"):
            found += [model.kl_loss(), model.kl_loss(z, 20 * z), model.__mu__, model.__logstd__]
        if hasattr(model, "reg_loss"):
            found += [model.reg_loss(z), model.discriminator_loss(z)]
        return found


@pytest.mark.parametrize("kind", ["GAE", "VGAE", "ARGA", "ARGVA"])
@pytest.mark.parametrize("training", [True, False])
def test_losses(kind: str, training: bool) -> None:
    ours, theirs = models = made(kind)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    for again in (False, True):
        for model in models if again else ():
            torch.manual_seed(1)
            model.reset_parameters()
        assert harness.difference(*[list(model.state_dict().values()) for model in models]) == 0
    graph = graph_of("any", 1, False)
    assert graph is not None
    pairs = (graph, torch.randint(NODES, (2, 12)))
    x = torch.randn(NODES, IN, dtype=torch.float64)
    found, expected = (outcome(Every(model.train(training), pairs), (x,), graph, {}) for model in models)
    assert found.keys() == expected.keys()
    assert harness.difference(list(found.values()), list(expected.values())) < 1e-9
    z = ours(x, graph)
    assert torch.equal(z[0] if isinstance(z, tuple) else z, ours.encoder.convs[0](x, graph))


def test_pairs_that_are_no_edges_are_drawn() -> None:
    model, _ = made("GAE")
    graph = torch.stack([torch.arange(NODES), (torch.arange(NODES) + 1) % NODES])
    z = torch.eye(NODES, dtype=torch.float64)[(torch.arange(NODES) // 2 * 2).clamp(max=NODES - 1)]
    torch.manual_seed(0)
    several = {float(model.recon_loss(z, graph)) for _ in range(8)}
    assert len(several) > 1
    least, most = (float(model.recon_loss(z, graph, torch.stack([torch.zeros(3).long(), t]))) for t in (
        torch.full((3,), 4), torch.ones(3).long()))  # fmt: skip
    assert least - 1e-9 <= min(several) <= max(several) < most


def test_ranking() -> None:
    g = torch.Generator().manual_seed(0)
    for rounds in range(5):
        good, bad = (torch.randint(4 + rounds, (n,), generator=g).float() for n in (8, 11))
        area = (good[:, None] > bad).double().mean() + (good[:, None] == bad).double().mean() / 2
        levels = torch.cat([good, bad]).unique().flip(0)
        recall = torch.stack([(good >= t).double().mean() for t in levels])
        precision = torch.stack([(good >= t).sum() / ((good >= t).sum() + (bad >= t).sum()).double() for t in levels])
        steps = recall.diff(prepend=torch.zeros(1, dtype=torch.float64))
        found = ranking(good, bad)
        assert found == pytest.approx((float(area), float((steps * precision).sum())), abs=1e-12)
    model, _ = made("GAE")
    z = torch.randn(NODES, 4, dtype=torch.float64)
    pairs = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[3, 4], [5, 6]])
    assert model.test(z, *pairs) == ranking(model.decode(z, pairs[0]), model.decode(z, pairs[1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_loss_of_half_precision(dtype: torch.dtype) -> None:
    """Scores of 6 and more, whose probabilities are 1 in half precision, are no edges by mistake only once."""
    z = torch.tensor([[2.0, 0.5], [3.0, 0.25], [-3.0, 1.0], [3.0, 1.0]])
    pairs = torch.tensor([[0, 2], [1, 2]]), torch.tensor([[0, 1], [3, 3]])
    model = gdsl.nn.GAE(nn.Identity())
    expected = model.recon_loss(z, *pairs)
    assert 1 < float(expected) < 10
    torch.testing.assert_close(model.recon_loss(z.to(dtype), *pairs).float(), expected, rtol=0.02, atol=0.0)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(model.recon_loss(z.to(dtype), *pairs).float(), expected, rtol=0.02, atol=0.0)
